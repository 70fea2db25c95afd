/// <reference path="../contract/worker.d.ts" />
// Is not run: `tsc` checks that the types say what they should. Lines under `@ts-expect-error` must be errors.

import {
  HandlerError,
  config,
  defineBatchHandler,
  defineHandler,
  emit,
  log,
  permanent,
  progress,
  retryAfter,
  state,
  transient,
} from "../src/index.js";
import type { Event } from "../src/index.js";
import { send } from "../src/http.js";
import { MockHost } from "../src/mock/index.js";

import type { NewEvent as ContractNewEvent } from "pelton:worker/outbox@0.1.0";
import type { Event as ContractEvent } from "pelton:worker/types@0.1.0";
import type { NewEvent } from "../src/index.js";

/** What a handler is given cannot be changed, and what is absent is `undefined`. */
type Given<T> = {
  readonly [K in keyof T]-?: T[K] extends Array<infer P>
    ? ReadonlyArray<Readonly<P>>
    : object extends Pick<T, K>
      ? T[K] | undefined
      : T[K];
};

// An event has every field of the contract's, of the same type; `time` says its unit.
type Fields = Given<Omit<ContractEvent, "time"> & { timeMs: ContractEvent["time"] }>;
export const asInTheContract = (event: Event): Fields => event;
// And whatever the contract can emit, the SDK can.
export const emitted = (event: Required<ContractNewEvent>): NewEvent => event;

export const handler = defineHandler((event) => {
  const anything: unknown = event.json();
  const name: string = event.json((value) => String(value));
  const key: string | undefined = event.key;
  const offset: number = event.offset;
  for (const [header, value] of event.headers) log.info(header, value.length, anything, offset);
  emit("out", { kind: "a", key, json: { name }, headers: { a: "b" } });
  emit("out", { kind: "a", headers: event.headers, payload: event.payload });
  emit("out", { kind: "a", id: event.header("id"), text: "" });
  emit("out", { kind: "a", json: name, text: undefined, payload: undefined });
  // @ts-expect-error: a kind is needed
  emit("out", { json: 1 });
  // @ts-expect-error: an event cannot be changed
  event.kind = "b";
  console.log(config.get("a")?.length);
});

export const short = defineHandler((event) => emit("out", { kind: event.kind }));
export const early = defineHandler((event) => {
  if (event.attempt > 1) return;
  if (event.key === undefined) throw permanent("no key");
  throw event.attempt > 3 ? retryAfter(1000, "later") : transient(new Error("down"), { cause: event });
});
// @ts-expect-error: nothing would wait for the promise
export const asynchronous = defineHandler(async (event) => log.info(event.id));
// @ts-expect-error: an error is thrown
export const returned = defineHandler(() => permanent("x"));
// @ts-expect-error: an error is thrown, at any time
export const seldomReturned = defineHandler((event) => (event.attempt > 1 ? permanent("x") : undefined));
// @ts-expect-error: nothing would step through the iterator
export const generator = defineHandler(function* (event) {
  yield event.id;
});
// @ts-expect-error: nor through one that waits
export const asynchronousGenerator = defineHandler(async function* (event) {
  yield event.id;
});
// @ts-expect-error: nor through what an array gives
export const lazy = defineBatchHandler((events) => events.values());
export const anything = defineHandler((event): any => event.json());
export const many = defineBatchHandler((events) => events.map(({ id }) => id));
export const failing = defineHandler(() => {
  throw permanent("x");
});

export const batchHandler = defineBatchHandler((events) => {
  for (const [done, event] of events.entries()) {
    const typed: Event = event;
    state.set(typed.id, "text");
    state.delete(typed.id);
    const count: number | undefined = state.getJson("count", Number);
    progress.handled(done + (count ?? 1));
  }
});

const profile = state.versioned<{ count: number; unit: string }>({
  version: 2,
  readableFrom: 1,
  upgrade: { 1: ({ count }) => ({ count, unit: "pieces" }) },
});
profile.set("a", { count: profile.get("a")?.count ?? 0, unit: "b" });
// @ts-expect-error: no value of the format
profile.set("a", { count: 1 });

// As docs/state.md shows it, without a type.
const stocks = state.versioned({ version: 1 });
const stock = stocks.get("a") ?? { count: 0, unit: "pieces" };
stock.count += 1;
stocks.set("a", stock);
// The schema's type goes first.
const counts = state.versioned({ version: 1, schema: Number });
// @ts-expect-error: not a number
counts.set("a", "1");

try {
  const { status, ok } = send({ method: "POST", url: "https://example.com", json: {}, timeoutMs: 5 });
  log.debug(status, ok);
} catch (problem) {
  if (problem instanceof HandlerError) log.warn(problem.outcome, problem.delayMs);
}

const host = new MockHost({
  config: { a: "b" },
  http: ({ url, body }) => ({ status: body.length > 0 ? 200 : 400, body: url }),
});
const outcome = host.deliver(handler, { json: 1 });
outcome.emitted.map(({ payload }) => payload.text);
host.deliverBatch(batchHandler, []);
// @ts-expect-error: not a batch handler
host.deliverBatch(handler, []);
