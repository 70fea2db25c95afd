import { within } from "./current.js";
import { Effects, HostError } from "./effects.js";
import { copied, incoming, outgoing } from "./events.js";
import { checkEmit, checkStateKey } from "./limits.js";

/** Stands for the host in unit tests: one group, one partition. */
export class MockHost {
  #effects = new Effects(new Map());
  #config;
  #emit;
  #http;
  #offset = 0;
  #logs = [];
  // Of the call at hand: how many events it was given, how many it told to be handled, and what is kept if it fails.
  #batch = 0;
  #told = 0;
  #kept = this.#effects;

  constructor({ config = {}, emit, http, state = {} } = {}) {
    this.#config = new Map(Object.entries(config));
    this.#emit = emit;
    this.#http = http;
    for (const [key, value] of Object.entries(state)) this.write(key, new TextEncoder().encode(JSON.stringify(value)));
  }

  deliver(handler, event) {
    return this.#call(() => handler.handle(incoming(event, this.#offset)), 1);
  }

  deliverBatch(batchHandler, events) {
    return this.#call(
      () => batchHandler.handleBatch(events.map((event, n) => incoming(event, this.#offset + n))),
      events.length,
    );
  }

  run(body) {
    return within(this, body);
  }

  getState(key) {
    return this.read(key);
  }

  getStateJson(key) {
    const value = this.getState(key);
    return value && JSON.parse(Buffer.from(value).toString());
  }

  /** Effects of a call that failed are thrown away, but for those of events that it had told to be handled. */
  #call(body, count) {
    const before = this.#effects;
    this.#effects = new Effects(before.state);
    this.#logs = [];
    this.#batch = count;
    this.#told = 0;
    this.#kept = this.#effects.marked();
    let outcome = { outcome: "done", reason: undefined };
    try {
      within(this, body);
      this.#told = count;
    } catch (problem) {
      this.#effects = this.#kept;
      outcome = failure(problem);
    }
    this.#offset += this.#told;
    const { checkpoint, emitted } = this.#effects;
    return { ...outcome, emitted, logs: this.#logs, checkpoint, handled: this.#told };
  }

  // What the SDK calls, by way of `host/`.

  emit(stream, event) {
    if (this.#emit !== undefined && !this.#emit.includes(stream)) {
      throw new HostError(`allow.emit does not name the stream ${JSON.stringify(stream)}`);
    }
    checkEmit(event);
    this.#effects.emitted.push(outgoing(stream, event));
  }

  read(key) {
    return copied(this.#effects.state.get(key));
  }

  write(key, value) {
    if (value === undefined) {
      this.#effects.state.delete(key);
      return;
    }
    checkStateKey(key);
    this.#effects.state.set(key, copied(value));
  }

  setting(key) {
    return this.#config.get(key);
  }

  log(level, context, message) {
    this.#logs.push({ level, context, message });
  }

  checkpoint() {
    this.#effects.checkpoint = true;
  }

  handled(count) {
    const told = Math.min(count, this.#batch);
    // Fewer than before is no news.
    if (told < this.#told) return;
    this.#told = told;
    if (told > 0) this.#kept = this.#effects.marked();
  }

  send(request) {
    if (this.#http === undefined) throw new HostError({ tag: "HTTP-request-denied" });
    return this.#http(request);
  }
}

/** What the handler's error comes to. Anything else is a mistake in the program, and the test's to see as it is. */
function failure(problem) {
  switch (problem?.tag) {
    case "retry-after":
      return { outcome: "transient", reason: problem.val[1], delayMs: problem.val[0] };
    case "transient":
    case "permanent":
      return { outcome: problem.tag, reason: problem.val };
    default:
      throw problem;
  }
}
