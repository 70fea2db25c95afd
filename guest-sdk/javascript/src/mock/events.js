// Events on their way in and out, in the words of a test.

const encoder = new TextEncoder();

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
  return typeof headers[Symbol.iterator] === "function" ? [...headers] : Object.entries(headers);
}

function payloadOf({ payload, text, json }) {
  if (payload !== undefined) return payload;
  if (text !== undefined) return encoder.encode(text);
  return json === undefined ? new Uint8Array() : encoder.encode(JSON.stringify(json));
}

/** An emitted event with what it has and no more, its payload as JSON if it is some: short to compare. */
export function outgoing(stream, { id, key, kind, headers, payload }) {
  return {
    stream,
    kind,
    ...(id !== undefined && { id }),
    ...(key !== undefined && { key }),
    ...(headers.length > 0 && { headers }),
    payload: readable(payload),
  };
}

function readable(payload) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    return payload;
  }
}
