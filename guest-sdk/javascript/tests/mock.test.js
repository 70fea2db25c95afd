// The mock does what the host does.

import assert from "node:assert/strict";
import { test } from "node:test";

import { defineBatchHandler, defineHandler, emit, permanent, progress, state } from "../src/index.js";
import { send } from "../src/http.js";
import { MockHost } from "../src/mock/index.js";

const deliver = (handle, event = {}, options = {}) => new MockHost(options).deliver(defineHandler(handle), event);

/** What is left of a batch of three that tells so and then fails; an event is emitted before each. */
function kept(...counts) {
  const batchHandler = defineBatchHandler(() => {
    for (const count of counts) {
      emit("out", { kind: "a" });
      progress.handled(count);
    }
    emit("out", { kind: "a" });
    throw permanent("no");
  });
  const { handled, emitted } = new MockHost().deliverBatch(batchHandler, [{}, {}, {}]);
  return [handled, emitted.length];
}

test("progress neither goes back nor past the end", () => {
  assert.deepEqual(kept(1), [1, 1]);
  assert.deepEqual(kept(2, 1), [2, 1]);
  assert.deepEqual(kept(2, 2), [2, 2]);
  assert.deepEqual(kept(99), [3, 1]);
  assert.deepEqual(kept(99, 2), [3, 1]);
});

test("that none is handled keeps nothing", () => {
  assert.deepEqual(kept(0), [0, 0]);
  assert.deepEqual(kept(1, 0), [1, 1]);
});

test("state is copied in and out", () => {
  const host = new MockHost({ state: { given: "ab" } });
  const handler = defineHandler(() => {
    const bytes = Buffer.from("ab");
    state.set("k", bytes);
    bytes.fill(0);
    for (const key of ["k", "given"]) {
      const read = state.get(key);
      assert.equal(read.constructor, Uint8Array);
      read.fill(0);
    }
  });
  assert.equal(host.deliver(handler, {}).outcome, "done");
  host.getState("k").fill(0);
  assert.deepEqual(host.getState("k"), Uint8Array.from([0x61, 0x62]));
  assert.equal(host.getStateJson("given"), "ab");
});

test("events are copied on their way in and out", () => {
  const payload = Buffer.from([0xff]);
  const headers = [["a", "1"]];
  const event = { payload, headers };
  const { emitted } = deliver((given) => {
    assert.equal(given.payload.constructor, Uint8Array);
    emit("out", { kind: "a", payload: given.payload, headers: given.headers });
    given.payload[0] = 0;
    given.headers[0][1] = "2";
  }, event);
  assert.deepEqual(emitted, [{ stream: "out", kind: "a", headers: [["a", "1"]], payload: Uint8Array.of(0xff) }]);
  assert.deepEqual([payload[0], headers], [0xff, [["a", "1"]]]);
});

test("bodies of requests and answers are copied", () => {
  const sent = [];
  const answered = Buffer.from("ab");
  const host = new MockHost({ http: ({ body }) => (sent.push(body), { status: 200, body: answered }) });
  host.run(() => {
    const body = Uint8Array.of(1);
    const answer = send({ method: "POST", url: "http://a.example/", body });
    body[0] = 2;
    answer.body.fill(0);
  });
  assert.deepEqual([sent, answered.toString()], [[Uint8Array.of(1)], "ab"]);
});

test("what the host refuses is refused, in its words", () => {
  const nul = "holds a NUL character, which no store can keep as text; remove it";
  for (const [event, reason] of [
    [{ id: "" }, "id is empty; expected 1 to 1024 bytes"],
    [{ id: "a\0" }, `id ${nul}`],
    [{ key: "\0" }, `key ${nul}`],
    [{ kind: "a\0b" }, `kind ${nul}`],
    [{ headers: { a: "\0" } }, `headers ${nul}`],
    [{ headers: { "a\0": "" } }, `headers ${nul}`],
    [{ key: "\u00fc".repeat(513) }, "key has 1026 bytes; expected at most 1024"],
    [{ kind: "k".repeat(1025) }, "kind has 1025 bytes; expected at most 1024"],
    [{ id: "k".repeat(1025) }, "id has 1025 bytes; expected at most 1024"],
    [{ headers: { a: "x".repeat(40_000), b: "x".repeat(40_000) } }, "headers has 80002 bytes; expected at most 65536"],
    [
      { text: "x".repeat(1_048_577) },
      "payload has 1048577 bytes, over the stream's payload_max of 1048576; send less, or raise payload_max",
    ],
  ]) {
    const { outcome, reason: found } = deliver(() => emit("out", { kind: "k", ...event }));
    assert.deepEqual([outcome, found], ["permanent", reason]);
  }
  for (const [key, reason] of [
    ["", "state key has 0 bytes; expected 1 to 1024"],
    ["\u00fc".repeat(513), "state key has 1026 bytes; expected 1 to 1024"],
    ["a\0", `state key ${nul}`],
  ]) {
    assert.equal(deliver(() => state.set(key, "a")).reason, reason);
  }
  const most = { id: "i".repeat(1024), key: "k".repeat(1024), kind: "k".repeat(1024), text: "x".repeat(1_048_576) };
  assert.equal(deliver(() => emit("out", most)).outcome, "done");
});
