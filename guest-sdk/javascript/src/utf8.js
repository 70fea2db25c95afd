import { decodeStrictly, encodeWellFormed } from "#host/utf8.js";
import { permanent } from "./error.js";

/** Text as UTF-8. */
export function encode(text) {
  return encodeWellFormed(String(text).toWellFormed());
}

/** UTF-8 as text; what is no UTF-8 is a permanent error. */
export function decode(bytes, what = "text") {
  try {
    return decodeStrictly(bytes);
  } catch (cause) {
    throw permanent(`${what}: not UTF-8`, { cause });
  }
}

/** UTF-8 as text; what is no UTF-8 is taken for Latin-1, which anything can be. */
export function decodeLeniently(bytes) {
  try {
    return decodeStrictly(bytes);
  } catch {
    return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  }
}

/** A `Uint8Array`, or a text as UTF-8. */
export function bytesOf(value, what) {
  if (typeof value === "string") return encode(value);
  if (value instanceof Uint8Array) return value;
  throw new TypeError(`${what} must be a string or a Uint8Array`);
}
