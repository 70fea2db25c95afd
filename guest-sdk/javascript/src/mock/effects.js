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

export function checkKey(key) {
  if (key === "") throw new HostError("the key is empty");
  if (new TextEncoder().encode(key).length > 1024) throw new HostError("the key is longer than 1024 bytes");
  checkText(key, "the key");
}

export function checkText(text, what) {
  if (text?.includes("\0")) throw new HostError(`${what} holds a NUL character`);
}
