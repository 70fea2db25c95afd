// What JavaScript lets through and the contract does not. The engine aborts without a word of what was wrong, so these
// mistakes are told here.

/** A text that the contract can carry. A lone surrogate becomes U+FFFD, as everywhere on the Web. */
export function text(value, what) {
  if (typeof value !== "string") throw new TypeError(`${what} must be a string, not ${nameOf(value)}`);
  return value.toWellFormed();
}

export function optionalText(value, what) {
  return value === undefined || value === null ? undefined : text(value, what);
}

export function nameOf(value) {
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  return value.constructor?.name ?? "object";
}
