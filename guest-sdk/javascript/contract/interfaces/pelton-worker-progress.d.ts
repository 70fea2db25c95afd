declare module 'pelton:worker/progress@0.1.0' {
  /**
   * The first `count` events of this batch are handled, and the effects made so far are theirs. They are kept even if the
   * call fails or traps later; the event after them is the one that failed. A handler that never says so is taken as a
   * whole, and a failing batch is split until the event is found.
   */
  export function handled(count: number): void;
}
