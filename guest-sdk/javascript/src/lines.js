import * as logging from "#host/logging.js";
import { traced } from "./stack.js";

/** Writes one log line: texts as they are, everything else so that a person can read it. */
export function line(level, context, values) {
  logging.log(level, context, values.map(show).join(" ").toWellFormed());
}

export function show(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return traced(value);
  if (typeof value === "function") return `[function ${value.name || "without a name"}]`;
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value, plain) ?? String(value);
  } catch {
    // It holds itself.
    return String(value);
  }
}

function plain(_key, value) {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Set) return [...value];
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  return value;
}
