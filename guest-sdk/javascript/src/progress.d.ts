/**
 * Says that the first `count` events of this batch are handled, and that the effects made so far are theirs. They are kept
 * even if the call fails later; the event after them is the one that failed. Only for batch handlers.
 */
export function handled(count: number): void;
