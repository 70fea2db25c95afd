// Events on their way in and out, in the words of a test.

import { bytesOf } from "../utf8.js";

/** An event as the host would hand it over, with whatever a test left out. */
export function incoming(event, offset) {
  return {
    id: event.id ?? `event-${offset}`,
    stream: event.stream ?? "test",
    partition: event.partition ?? 0,
    offset: event.offset ?? offset,
    key: event.key,
    kind: event.kind ?? "test",
    time: event.timeMs ?? 0,
    headers: pairsOf(event.headers ?? []),
    payload: payloadOf(event),
    attempt: event.attempt ?? 1,
  };
}

function pairsOf(headers) {
  const pairs = typeof headers[Symbol.iterator] === "function" ? [...headers] : Object.entries(headers);
  return pairs.map(([name, value]) => [name, value]);
}

function payloadOf({ payload, text, json }) {
  if (payload !== undefined) return copied(bytesOf(payload, "payload of the event"));
  if (text !== undefined) return bytesOf(text, "text of the event");
  return json === undefined ? new Uint8Array() : bytesOf(JSON.stringify(json), "json of the event");
}

/** Bytes of one's own, and a plain `Uint8Array` as in a component: what slices a Buffer shares it. */
export function copied(bytes) {
  return bytes && new Uint8Array(bytes);
}

/** An emitted event with what it has and no more, its payload as JSON if it is some: short to compare. */
export function outgoing(stream, { id, key, kind, headers, payload }) {
  return {
    stream,
    kind,
    ...(id !== undefined && { id }),
    ...(key !== undefined && { key }),
    ...(headers.length > 0 && { headers: pairsOf(headers) }),
    payload: readable(payload),
  };
}

function readable(payload) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    return copied(payload);
  }
}
