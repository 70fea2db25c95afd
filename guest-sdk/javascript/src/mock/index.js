import { within } from "./current.js";
import { Effects, HostError, checkKey, checkText } from "./effects.js";
import { incoming, outgoing } from "./events.js";

/** Stands for the host in unit tests: one group, one partition. */
export class MockHost {
  #effects = new Effects(new Map());
  #config;
  #emit;
  #http;
  #offset = 0;
  #logs = [];
  #progress;

  constructor({ config = {}, emit, http, state = {} } = {}) {
    this.#config = new Map(Object.entries(config));
    this.#emit = emit;
    this.#http = http;
    for (const [key, value] of Object.entries(state)) this.#effects.state.set(key, Buffer.from(JSON.stringify(value)));
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
    return this.#effects.state.get(key);
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
    this.#progress = { handled: 0, effects: this.#effects.marked() };
    let outcome = { outcome: "done", reason: undefined };
    try {
      within(this, body);
      this.#progress.handled = count;
    } catch (problem) {
      this.#effects = this.#progress.effects;
      outcome = failure(problem);
    }
    this.#offset += this.#progress.handled;
    const { checkpoint, emitted } = this.#effects;
    return { ...outcome, emitted, logs: this.#logs, checkpoint, handled: this.#progress.handled };
  }

  // What the SDK calls, by way of `host/`.

  emit(stream, event) {
    if (this.#emit !== undefined && !this.#emit.includes(stream)) {
      throw new HostError(`allow.emit does not name the stream ${JSON.stringify(stream)}`);
    }
    checkText(event.kind, "kind");
    checkText(event.id, "id");
    checkText(event.key, "key");
    this.#effects.emitted.push(outgoing(stream, event));
  }

  read(key) {
    return this.#effects.state.get(key);
  }

  write(key, value) {
    if (value === undefined) {
      this.#effects.state.delete(key);
      return;
    }
    checkKey(key);
    this.#effects.state.set(key, value.slice());
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
    this.#progress = { handled: count, effects: this.#effects.marked() };
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
