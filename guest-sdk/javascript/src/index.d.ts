/**
 * Write event handlers for Pelton in JavaScript and TypeScript.
 *
 * What a handler emits and stores is committed together with the position of the event, or not at all: throwing an error
 * throws it away.
 */

import type { Schema } from "./schema.js";

export type { Schema, StandardSchema } from "./schema.js";

/** One event as it stands in its stream. */
export interface Event {
  /** The same at every delivery: the idempotency key for calls outside. */
  readonly id: string;
  /** The stream it was read from. */
  readonly stream: string;
  /** Its partition, which with `offset` is its place in the stream. */
  readonly partition: number;
  /** Its place in the partition: dense, from 0, never reused. Exact up to 2^53. */
  readonly offset: number;
  /** Events of one key arrive in order. */
  readonly key: string | undefined;
  /** What happened, as `order.placed`. */
  readonly kind: string;
  /** When it was appended, in milliseconds since the Unix epoch, UTC. */
  readonly timeMs: number;
  /** In the order they were appended in. A name may occur more than once. */
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>;
  /** The payload as it was appended, usually JSON. */
  readonly payload: Uint8Array;
  /** 1 at the first delivery; one more for each attempt that failed. */
  readonly attempt: number;

  /** The value of the first header of this name. Names are compared to the letter. */
  header(name: string): string | undefined;
  /** The payload as text. What is no UTF-8 is a permanent error. */
  text(): string;
  /**
   * The payload as JSON. What is none is a permanent error, and so is what is nested more than 500 deep, and a number beyond those
   * of JavaScript, as `1e999`. Whole numbers are exact up to 2^53; larger ones are rounded, so ids are better texts.
   */
  json(): unknown;
  /** The payload as JSON that fits the schema. What does not is a permanent error that names the place in the payload. */
  json<T>(schema: Schema<T>): T;
}

/** An event to emit. Its payload is in one of three forms, or empty. A form that is `undefined` is none beside another. */
export interface NewEvent {
  /** What happened, as `invoice.drafted`. */
  kind: string;
  /** The payload, as a value that has a JSON form. What has none, as `undefined` or `NaN`, is a permanent error. */
  json?: unknown;
  /** The payload, as text. */
  text?: string | undefined;
  /** The payload, as bytes. */
  payload?: Uint8Array | undefined;
  /** Events of one key keep their order. Without a key the id decides the partition. */
  key?: string | undefined;
  /**
   * Unique within the handler's group: a second event of the same id is not appended again. The host makes one from the place
   * of the event in hand if none is given, which suits all but effects that several events share.
   */
  id?: string | undefined;
  /** Pairs, where a name may occur more than once, or an object. */
  headers?: Iterable<readonly [name: string, value: string]> | Readonly<Record<string, string>>;
}

/** Handles one event at a time. */
export interface Handler {
  handle(event: unknown): void;
}

/** Handles many events at once. */
export interface BatchHandler {
  handleBatch(events: unknown[]): void;
}

/**
 * A handler is a plain function: nothing would wait for its promise, or step through its iterator. An error that it returns counts
 * as thrown; it is to be thrown.
 */
type Synchronous<R> = R extends
  PromiseLike<unknown> | Iterator<unknown, unknown, any> | AsyncIterator<unknown, unknown, any> | HandlerError
  ? never
  : R;

/**
 * Makes a function the component's handler: `export const handler = defineHandler((event) => { … })`. What it throws decides
 * what happens to the event, see {@link transient}, {@link retryAfter} and {@link permanent}; any other exception is a mistake
 * in the program, and costs the instance.
 */
export function defineHandler<R = void>(handle: (event: Event) => Synchronous<R>): Handler;

/**
 * Makes a function the component's handler of whole batches: `export const batchHandler = defineBatchHandler((events) => { … })`.
 * It gets the next events of one partition, in order and at least one. `progress.handled` says how far it got; an error is that
 * of the first event that was not told to be handled.
 */
export function defineBatchHandler<R = void>(handleBatch: (events: Event[]) => Synchronous<R>): BatchHandler;

/**
 * Emits an event to a stream that `allow.emit` names. It becomes visible when, and only when, the position of the event in hand
 * is committed. What the host refuses is a permanent error with its reason; nothing was emitted then, and the call may go on.
 */
export function emit(stream: string, event: NewEvent): void;

/** Why an event was not handled. Made by {@link transient}, {@link retryAfter} and {@link permanent}. */
export class HandlerError extends Error {
  private constructor();
  /** Its class decides what the group's failure policy does next. */
  readonly outcome: "transient" | "permanent";
  /** Trying earlier than after so many milliseconds is pointless. */
  readonly delayMs: number | undefined;
}

/** An error that may be gone the next time, as an unreachable service: `throw transient("the bank does not answer")`. */
export function transient(reason: unknown, options?: ErrorOptions): HandlerError;
/** An error that will stay for at least so long, as a service that said when to come back. */
export function retryAfter(delayMs: number, reason: unknown, options?: ErrorOptions): HandlerError;
/** An error that will stay, as a payload that cannot be read. */
export function permanent(reason: unknown, options?: ErrorOptions): HandlerError;

/**
 * Key-value state of this group and partition, committed with the position. It moves with the partition when another host takes
 * it over, and two partitions never share a key. A handler reads what it wrote, also earlier in the same batch.
 */
export * as state from "./state.js";

/** The `config` and `secrets` that `workers.toml` gives the handler. */
export * as config from "./config.js";

/** Log lines, which the host keeps together with its own. Errors are shown with their places, objects as JSON. */
export * as log from "./log.js";

/** Commits at the handler's own word, for groups with `commit = "manual"`. */
export * as checkpoint from "./checkpoint.js";

/** How far a batch handler got. */
export * as progress from "./progress.js";

/** Text and bytes. The engine has neither `TextEncoder` nor `TextDecoder`. */
export * as utf8 from "./utf8.js";

declare global {
  /** What the engine has of it: every line becomes a log line. */
  interface Console {
    log(...values: any[]): void;
    info(...values: any[]): void;
    warn(...values: any[]): void;
    error(...values: any[]): void;
    debug(...values: any[]): void;
    trace(...values: any[]): void;
    dir(value?: any, ...options: any[]): void;
    assert(condition?: boolean, ...values: any[]): void;
  }
  var console: Console;
}
