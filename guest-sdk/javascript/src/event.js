import { parse } from "./json.js";
import { decode } from "./utf8.js";

/** One event as it stands in its stream. */
export class Event {
  constructor(event) {
    this.id = event.id;
    this.stream = event.stream;
    this.partition = event.partition;
    // 64 bits in the contract. An engine may hand over a BigInt or a number; places in a partition and times stay far
    // below 2^53, up to which numbers are exact.
    this.offset = Number(event.offset);
    this.key = event.key ?? undefined;
    this.kind = event.kind;
    this.timeMs = Number(event.time);
    this.headers = event.headers;
    this.payload = event.payload;
    this.attempt = event.attempt;
  }

  header(name) {
    return this.headers.find(([header]) => header === name)?.[1];
  }

  text() {
    return decode(this.payload, nameOf(this));
  }

  json(schema) {
    return parse(this.payload, schema, nameOf(this));
  }
}

function nameOf(event) {
  return `payload of kind ${JSON.stringify(event.kind)}`;
}
