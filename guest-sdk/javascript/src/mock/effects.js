// What a handler does to the world, held back until it is known whether it counts.

/** What was emitted, stored and committed since the last mark; the state before it lies beneath. */
export class Effects {
  constructor(state) {
    this.state = new Map(state);
    this.emitted = [];
    this.checkpoint = false;
  }

  /** A copy that later effects do not reach. */
  marked() {
    const copy = new Effects(this.state);
    copy.emitted = [...this.emitted];
    copy.checkpoint = this.checkpoint;
    return copy;
  }
}

/** An error value of the host, in the shape that the engine gives it. */
export class HostError extends Error {
  constructor(payload) {
    super(typeof payload === "string" ? payload : payload.val);
    this.payload = payload;
  }
}
