import * as outbox from "#host/outbox.js";
import { optionalText, text } from "./checks.js";
import { refused } from "./error.js";
import { stringify } from "./json.js";
import { bytesOf, encode } from "./utf8.js";

const EMPTY = new Uint8Array();
const FORMS = ["payload", "text", "json"];

/** Emits an event to a stream. It becomes visible when, and only when, the position of the event in hand is committed. */
export function emit(stream, event) {
  const request = {
    id: optionalText(event.id, "emit: id"),
    key: optionalText(event.key, "emit: key"),
    kind: text(event.kind, "emit: kind"),
    headers: headersOf(event.headers ?? []),
    payload: payloadOf(event),
  };
  try {
    outbox.emit(text(stream, "emit: stream"), request);
  } catch (problem) {
    throw refused(problem);
  }
}

function headersOf(headers) {
  const pairs = typeof headers[Symbol.iterator] === "function" ? [...headers] : Object.entries(headers);
  return pairs.map(([name, value]) => [text(name, "emit: header"), text(value, `emit: header ${name}`)]);
}

function payloadOf(event) {
  const given = FORMS.filter((form) => event[form] !== undefined);
  if (given.length > 1) throw new TypeError(`emit: ${given.join(" and ")} are given; a payload is one of them`);
  // One that is undefined is none beside another; alone it is a mistake, which would pass for an empty payload.
  switch (given[0] ?? FORMS.find((form) => form in event)) {
    case "payload":
      return bytesOf(event.payload, "emit: payload");
    case "text":
      return encode(text(event.text, "emit: text"));
    case "json":
      return encode(stringify(event.json, `payload of new event of kind ${JSON.stringify(event.kind)}`));
    default:
      return EMPTY;
  }
}
