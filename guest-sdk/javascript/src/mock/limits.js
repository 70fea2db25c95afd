// What the host refuses, in its words.

import { HostError } from "./effects.js";

const STATE_KEY_BYTES_MAX = 1024;
const NAME_BYTES_MAX = 1024;
const HEADERS_BYTES_MAX = 64 * 1024;
/** What `payload_max` of a stream is if nothing else is said. */
const PAYLOAD_BYTES_MAX = 1024 * 1024;

export function checkStateKey(key) {
  const found = bytesIn(key);
  if (found === 0 || found > STATE_KEY_BYTES_MAX) {
    throw new HostError(`state key has ${found} bytes; expected 1 to ${STATE_KEY_BYTES_MAX}`);
  }
  checkText("state key", key, STATE_KEY_BYTES_MAX);
}

export function checkEmit({ id, key = "", kind, headers, payload }) {
  if (id === "") throw new HostError(`id is empty; expected 1 to ${NAME_BYTES_MAX} bytes`);
  checkText("id", id ?? "", NAME_BYTES_MAX);
  checkText("key", key, NAME_BYTES_MAX);
  checkText("kind", kind, NAME_BYTES_MAX);
  for (const text of headers.flat()) checkText("headers", text, HEADERS_BYTES_MAX);
  checkBytes("headers", bytesIn(headers.flat().join("")), HEADERS_BYTES_MAX);
  if (payload.length > PAYLOAD_BYTES_MAX) {
    throw new HostError(
      `payload has ${payload.length} bytes, over the stream's payload_max of ${PAYLOAD_BYTES_MAX}; send less, or raise payload_max`,
    );
  }
}

function checkText(field, text, limit) {
  if (text.includes("\0")) {
    throw new HostError(`${field} holds a NUL character, which no store can keep as text; remove it`);
  }
  checkBytes(field, bytesIn(text), limit);
}

function checkBytes(field, found, limit) {
  if (found > limit) throw new HostError(`${field} has ${found} bytes; expected at most ${limit}`);
}

function bytesIn(text) {
  return Buffer.byteLength(text);
}
