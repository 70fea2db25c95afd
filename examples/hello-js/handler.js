// Greets whom each event names, in the stream `greetings`.
//
// Imports and the export are named after the interfaces of the contract. Whole numbers of 64 bits arrive as BigInt.

import { emit } from "pelton:worker/outbox@0.1.0";
import { get } from "wasi:config/store@0.2.0-rc.1";
import { log } from "wasi:logging/logging@0.1.0-draft";

// The engine has neither TextDecoder nor TextEncoder. Percent encoding is UTF-8 too, and refuses what is not.
const toText = (bytes) =>
  decodeURIComponent(Array.from(bytes, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""));
const toBytes = (text) => Uint8Array.from(unescape(encodeURIComponent(text)), (byte) => byte.charCodeAt(0));

/** An error that trying again will not heal. The contract's others are `transient` and `retry-after`. */
class Permanent extends Error {
  constructor(reason) {
    super(reason);
    this.payload = { tag: "permanent", val: reason };
  }
}

/** Whom to greet: the `name` in the payload, else the key of the event. */
function nameOf(event) {
  const payload = JSON.parse(toText(event.payload));
  return payload?.name ?? event.key ?? "stranger";
}

function greet(event) {
  const greeting = `${get("greeting") ?? "Hello"}, ${nameOf(event)}!`;
  log("info", "hello-js", greeting);
  emit("greetings", {
    key: event.key,
    kind: "greeted",
    headers: [],
    payload: toBytes(JSON.stringify({ greeting, event: event.id })),
  });
}

export const handler = {
  handle(event) {
    try {
      greet(event);
    } catch (problem) {
      // A payload that is no JSON, an emit that was refused: neither heals. An exception of any other shape than the
      // contract's errors would be a trap without a reason.
      throw new Permanent(problem.message);
    }
  },
};
