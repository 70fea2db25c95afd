import type { HandlerError } from "./index.js";
import type { Schema } from "./schema.js";

export interface Request {
  /** `GET` if nothing is said. */
  method?: string;
  /** Absolute: `https://api.example.com/orders?open`. */
  url: string;
  /** `host`, `connection` and the like are the host's own to say. */
  headers?: Readonly<Record<string, string>>;
  /** A text is sent as UTF-8. */
  body?: Uint8Array | string;
  /** Sent as the body, with a `content-type` that says so. */
  json?: unknown;
  /**
   * How long the connection, the first byte, and each wait between two may take. The host's own are 5, 30 and 30 seconds. All of
   * it counts towards `limits.timeout`. At least 0.
   */
  timeoutMs?: number;
}

export interface Response {
  readonly status: number;
  /** Whether the status is one of 200 to 299. */
  readonly ok: boolean;
  /** With names in lower case. Values are read as UTF-8; one that is none, as Latin-1. */
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>;
  readonly body: Uint8Array;
  /** The value of the first header of this name, in upper or lower case. */
  header(name: string): string | undefined;
  /** The body as text. What is no UTF-8 is a transient error: another answer may be. */
  text(): string;
  /** The body as JSON. What is none, or does not fit the schema, is a transient error. */
  json(): unknown;
  json<T>(schema: Schema<T>): T;
  /**
   * What the header `Retry-After` says, for `retryAfter(…)`. Where that is a date, it is counted from now, so the handler needs
   * `allow.clocks`.
   */
  retryAfterMs(): number | undefined;
}

/**
 * Sends a request to an origin that `allow.http` names, and waits for the whole answer, whatever its status. Where there is none,
 * it throws a transient error whose `code` is that of wasi:http, as `connection-refused`. A request that could not be sent, as one
 * with a space in its URL or a line break in a header, is a permanent error that says what is wrong.
 *
 * The request may be sent again when the event is: send its `id` along, so that the other side can tell.
 */
export function send(request: Request): Response;

/** What `send` throws where there is no answer. */
export interface SendError extends HandlerError {
  readonly code: string;
}
