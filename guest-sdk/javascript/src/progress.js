import * as host from "#host/progress.js";

/** Says that the first `count` events of this batch are handled, and that the effects made so far are theirs. */
export function handled(count) {
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new TypeError(`progress.handled: the count must be a whole number, not ${count}`);
  }
  host.handled(Math.min(count, 0xffff_ffff));
}
