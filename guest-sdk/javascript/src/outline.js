/** Of objects and arrays within each other, as in the SDK of Python: reading more would use up the stack, which is a trap. */
export const DEPTH_MAX = 500;

const STRINGS = /"[^"\\]*(?:\\[^][^"\\]*)*"/g;
const NO_BRACKETS = /[^[\]{}]+/g;
/** Finds every number that may be too large to be one here. Others are found too. */
const LARGE_NUMBER = /[eE]\+?\d{3}|\d{200}/;

/** What can be told of a text of JSON before it is read: the engine's own functions are faster than a loop. */
export function outlineOf(text) {
  // Whatever is opened has to be closed.
  if (text.length <= 2 * DEPTH_MAX) return { isTooDeep: false, hasLargeNumbers: LARGE_NUMBER.test(text) };
  const bare = text.replace(STRINGS, "");
  return { isTooDeep: isTooDeep(bare.replace(NO_BRACKETS, "")), hasLargeNumbers: LARGE_NUMBER.test(bare) };
}

function isTooDeep(brackets) {
  const { length } = brackets;
  let depth = 0;
  for (let at = 0; at < length; at++) {
    // Of the codes of the four brackets, those of `[` and `{` have this bit.
    depth += brackets.charCodeAt(at) & 2 ? 1 : -1;
    if (depth > DEPTH_MAX) return true;
  }
  return false;
}
