import type { BatchHandler, Handler } from "../index.js";

/** Stands for the host in unit tests: one group, one partition, whose state lasts as long as the object. */
export declare class MockHost {
  constructor(options?: {
    /** What `config.get` finds. */
    config?: Record<string, string>;
    /** The streams that may be emitted to, as `allow.emit`; any if nothing is said. */
    emit?: string[];
    /** State to begin with, as JSON. */
    state?: Record<string, unknown>;
    /** Answers requests of `pelton-sdk/http`; without it they are denied. */
    http?: (request: MockRequest) => MockResponse;
  });

  /** Hands over one event. A mistake in the handler's program is thrown on as it is. */
  deliver(handler: Handler, event: MockEvent): Outcome;
  /** Hands over a batch. */
  deliverBatch(batchHandler: BatchHandler, events: MockEvent[]): Outcome;
  /** Calls something that talks to the host, outside of any delivery. */
  run<R>(body: () => R): R;
  /** A value of the state. */
  getState(key: string): Uint8Array | undefined;
  /** A value of the state, as JSON. */
  getStateJson(key: string): any;
}

/** An event to hand over; all of it may be left out. */
export interface MockEvent {
  id?: string;
  stream?: string;
  partition?: number;
  offset?: number;
  key?: string;
  kind?: string;
  timeMs?: number;
  headers?: Iterable<readonly [string, string]> | Record<string, string>;
  json?: unknown;
  text?: string;
  payload?: Uint8Array;
  attempt?: number;
}

/** What came of a call, after whatever does not count was thrown away. */
export interface Outcome {
  outcome: "done" | "transient" | "permanent";
  reason: string | undefined;
  /** Of an error made by `retryAfter`. */
  delayMs?: number;
  /** Each with what it has and no more; the payload as JSON if it is some, else as bytes. */
  emitted: Array<{
    stream: string;
    kind: string;
    id?: string;
    key?: string;
    headers?: Array<[string, string]>;
    payload: any;
  }>;
  logs: Array<{ level: string; context: string; message: string }>;
  /** Whether `checkpoint.commit` was called. */
  checkpoint: boolean;
  /** How many events count as handled. */
  handled: number;
}

/** A request as it would leave. */
export interface MockRequest {
  method: string;
  url: string;
  headers: Array<[string, string]>;
  body: Uint8Array;
  timeoutMs: number | undefined;
}

export interface MockResponse {
  status: number;
  /** Bytes for what is no UTF-8. */
  headers?: Record<string, string | Uint8Array>;
  body?: string | Uint8Array;
}
