import assert from "node:assert/strict";
import { test } from "node:test";

import {
  checkpoint,
  config,
  defineBatchHandler,
  defineHandler,
  emit,
  log,
  permanent,
  progress,
  retryAfter,
  state,
  transient,
} from "../src/index.js";
import { MockHost } from "../src/mock/index.js";

const deliver = (handle, event = {}, options = {}) => new MockHost(options).deliver(defineHandler(handle), event);

test("what is emitted keeps what it was given", () => {
  const { emitted } = deliver(() => {
    emit("out", { kind: "json", json: { a: 1 }, key: "k", id: "i", headers: { a: "b" } });
    emit("out", {
      kind: "text",
      text: "søren",
      headers: [
        ["a", "1"],
        ["a", "2"],
      ],
    });
    emit("out", { kind: "bytes", payload: Uint8Array.of(255) });
    emit("out", { kind: "none", key: undefined });
  });
  assert.deepEqual(emitted, [
    { stream: "out", kind: "json", key: "k", id: "i", headers: [["a", "b"]], payload: { a: 1 } },
    {
      stream: "out",
      kind: "text",
      headers: [
        ["a", "1"],
        ["a", "2"],
      ],
      payload: new TextEncoder().encode("søren"),
    },
    { stream: "out", kind: "bytes", payload: Uint8Array.of(255) },
    { stream: "out", kind: "none", payload: new Uint8Array() },
  ]);
});

test("what the host refuses is a permanent error with its reason, and the call may go on", () => {
  const options = { emit: ["allowed"] };
  assert.deepEqual(
    deliver(() => emit("out", { kind: "a" }), {}, options).reason,
    'allow.emit does not name the stream "out"',
  );
  assert.equal(deliver(() => state.set("", "a")).outcome, "permanent");
  const { outcome, emitted } = deliver(
    () => {
      try {
        emit("out", { kind: "a" });
      } catch (error) {
        emit("allowed", { kind: "b", json: error.outcome });
      }
    },
    {},
    options,
  );
  assert.deepEqual([outcome, emitted[0].payload], ["done", "permanent"]);
});

test("what is no event to emit is a mistake, or has no JSON form", () => {
  assert.throws(() => deliver(() => emit("out", {})), { message: "emit: kind must be a string, not undefined" });
  assert.throws(() => deliver(() => emit("out", { kind: "a", key: 1 })), {
    message: "emit: key must be a string, not number",
  });
  assert.throws(() => deliver(() => emit("out", { kind: "a", text: "a", json: 1 })), TypeError);
  assert.equal(
    deliver(() => emit("out", { kind: "a", json: undefined })).reason,
    'payload of new event of kind "a": undefined has no JSON form',
  );
  assert.equal(deliver(() => emit("out", { kind: "a", json: 1n })).outcome, "permanent");
});

test("a form of the payload that is undefined is none beside another", () => {
  const { emitted } = deliver(() => {
    emit("out", { kind: "a", json: 1, text: undefined, payload: undefined });
    emit("out", { kind: "b", json: undefined, text: "text" });
  });
  assert.deepEqual(
    emitted.map(({ payload }) => payload),
    [1, new TextEncoder().encode("text")],
  );
  assert.throws(() => deliver(() => emit("out", { kind: "a", text: undefined })), {
    message: "emit: text must be a string, not undefined",
  });
});

test("a lone surrogate becomes U+FFFD", () => {
  const { emitted } = deliver(() => emit("out", { kind: "a\ud800", text: '"\udc00"' }));
  assert.deepEqual(emitted, [{ stream: "out", kind: "a\ufffd", payload: "\ufffd" }]);
});

test("each error has its outcome", () => {
  const outcome = (error) => {
    const { outcome, reason, delayMs } = deliver(() => {
      throw error;
    });
    return { outcome, reason, delayMs };
  };
  assert.deepEqual(outcome(transient("a")), { outcome: "transient", reason: "a", delayMs: undefined });
  assert.deepEqual(outcome(permanent(new Error("b"))), { outcome: "permanent", reason: "b", delayMs: undefined });
  assert.deepEqual(outcome(retryAfter(1.2, 3)), { outcome: "transient", reason: "3", delayMs: 2 });
  assert.throws(() => retryAfter(Number.NaN, "c"), TypeError);
});

test("an error keeps its cause", () => {
  const cause = new Error("deep");
  assert.equal(transient(cause).cause, cause);
  assert.equal(transient("a", { cause }).cause, cause);
});

test("a mistake is logged with its place, and goes on", () => {
  const host = new MockHost();
  const logs = [];
  host.log = (level, context, message) => logs.push({ level, context, message });
  const mistaken = defineHandler(() => null.name);
  assert.throws(() => host.deliver(mistaken, {}), TypeError);
  assert.equal(logs[0].level, "critical");
  assert.equal(logs[0].context, "panic");
  assert.match(logs[0].message, /^TypeError: Cannot read properties of null .* \(at .*handler\.test\.js:\d+/);
});

test("an error that is returned counts as thrown", () => {
  const { outcome, reason, emitted } = deliver(() => {
    emit("out", { kind: "a" });
    return permanent("x");
  });
  assert.deepEqual([outcome, reason, emitted], ["permanent", "x", []]);
  const { delayMs } = deliver(() => retryAfter(5, "later"));
  assert.equal(delayMs, 5);
  const batch = defineBatchHandler((events) => events.map(({ kind }) => (kind === "bad" ? transient("no") : kind)));
  assert.equal(new MockHost().deliverBatch(batch, [{ kind: "a" }, { kind: "bad" }]).reason, "no");
});

test("a handler that returns what somebody would have to wait for or step through is a mistake", () => {
  const wrapped = (handle) => (event) => handle(event);
  const promise = /^TypeError: the handler returned a promise.* leave out async and await$/;
  const iterator = /^TypeError: the handler returned an iterator.* write function without the \*/;
  for (const [handle, mistake] of [
    [async () => {}, promise],
    [wrapped(async () => {}), promise],
    [() => ({ then() {} }), promise],
    [() => [1].map(async () => {}), promise],
    [function* () {}, iterator],
    [wrapped(function* () {}), iterator],
    [async function* () {}, iterator],
    [() => [1].values(), iterator],
  ]) {
    assert.throws(() => deliver(handle), mistake);
    assert.throws(() => new MockHost().deliverBatch(defineBatchHandler(handle), [{}]), mistake);
  }
  // Whatever else is returned means nothing.
  for (const value of [null, 1, "next", [], [1], { then: 1 }, new Map()])
    assert.equal(deliver(() => value).outcome, "done");
});

test("only errors of the SDK are outcomes, whatever they look like", () => {
  for (const foreign of [
    { tag: "permanent", val: "x" },
    { tag: "retry-after", val: [5, "x"] },
    Object.assign(new Error("x"), { tag: "permanent", val: "x" }),
    Object.assign(new Error("x"), { payload: { tag: "permanent", val: "x" } }),
  ]) {
    const thrower = () => {
      throw foreign;
    };
    assert.throws(
      () => deliver(thrower),
      (problem) => problem instanceof Error && problem.cause === foreign,
    );
  }
});

test("a delay is that of retryAfter alone", () => {
  for (const make of [permanent, transient]) assert.equal(make("x", { delayMs: 5 }).delayMs, undefined);
  assert.equal(retryAfter(5, "x", { delayMs: 7 }).delayMs, 5);
});

test("effects of an event that failed are thrown away, and those before it stay", () => {
  const host = new MockHost({ state: { n: 1 } });
  const handler = defineHandler((event) => {
    state.setJson("n", state.getJson("n") + 1);
    assert.equal(state.getJson("n"), event.json());
    if (event.header("fail")) throw transient("no");
  });
  assert.equal(host.deliver(handler, { json: 2 }).outcome, "done");
  assert.deepEqual(host.deliver(handler, { json: 3, headers: { fail: "yes" } }).emitted, []);
  assert.equal(host.deliver(handler, { json: 3 }).outcome, "done");
  assert.equal(host.getStateJson("n"), 3);
});

test("state is bytes, text and JSON, and goes away", () => {
  deliver(() => {
    state.set("a", "søren");
    assert.deepEqual([...state.get("a")], [...Buffer.from("søren")]);
    state.set("a", Uint8Array.of(0));
    assert.deepEqual([...state.get("a")], [0]);
    state.delete("a");
    assert.equal(state.get("a"), undefined);
    assert.equal(state.getJson("a"), undefined);
  });
  assert.equal(
    deliver(() => {
      state.set("a", "{");
      state.getJson("a");
    }).reason.slice(0, 20),
    'state "a": not JSON:',
  );
});

test("a batch keeps what was told to be handled", () => {
  const batchHandler = defineBatchHandler((events) => {
    for (const [done, event] of events.entries()) {
      emit("out", { kind: event.kind });
      if (event.kind === "bad") throw permanent("no");
      progress.handled(done + 1);
    }
  });
  const { outcome, handled, emitted } = new MockHost().deliverBatch(batchHandler, [
    { kind: "a" },
    { kind: "b" },
    { kind: "bad" },
    { kind: "c" },
  ]);
  assert.deepEqual([outcome, handled, emitted.map(({ kind }) => kind)], ["permanent", 2, ["a", "b"]]);
});

test("settings, checkpoints and log lines reach the host", () => {
  const { checkpoint: committed, logs } = deliver(
    () => {
      checkpoint.commit();
      log.warn(config.get("a"), config.get("b"), { n: 1n }, new Map([["a", 1]]));
    },
    {},
    { config: { a: "setting" } },
  );
  assert.equal(committed, true);
  assert.deepEqual(logs, [{ level: "warn", context: "handler", message: 'setting undefined {"n":"1"} {"a":1}' }]);
});

test("without a host there is an error that says what to do", () => {
  assert.throws(() => config.get("a"), /MockHost/);
  assert.equal(
    new MockHost({ config: { a: "b" } }).run(() => config.get("a")),
    "b",
  );
});
