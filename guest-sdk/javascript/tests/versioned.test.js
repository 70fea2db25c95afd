import assert from "node:assert/strict";
import { test } from "node:test";

import { defineHandler, state, transient } from "../src/index.js";
import { MockHost } from "../src/mock/index.js";

const second = { version: 2, readableFrom: 1, upgrade: { 1: ({ count }) => ({ count, unit: "pieces" }) } };

/** Reads a value that is stored so, with code of this format. */
function read(format, stored) {
  let value;
  const { outcome, reason } = new MockHost({ state: { k: stored } }).deliver(
    defineHandler(() => {
      value = state.versioned(format).get("k");
    }),
    {},
  );
  return { value, outcome, reason };
}

test("what is written says its version and who can read it", () => {
  const host = new MockHost();
  host.deliver(
    defineHandler(() => state.versioned(second).set("k", { count: 1, unit: "kg" })),
    {},
  );
  assert.deepEqual(host.getStateJson("k"), { version: 2, readable_from: 1, value: { count: 1, unit: "kg" } });
  host.deliver(
    defineHandler(() => state.versioned({ version: 3 }).set("k", 1)),
    {},
  );
  assert.deepEqual(host.getStateJson("k"), { version: 3, readable_from: 3, value: 1 });
});

test("what has no JSON form is refused as by setJson, and the key is left as it was", () => {
  for (const [value, found] of [
    [undefined, "undefined has no JSON form"],
    [() => 1, "function has no JSON form"],
    [{ toJSON: () => undefined }, "object has no JSON form"],
    [{ n: Number.NaN }, "n: NaN has no JSON form"],
  ]) {
    const host = new MockHost({ state: { k: { version: 1, readable_from: 1, value: 5 } } });
    const write = defineHandler(() => state.versioned({ version: 1 }).set("k", value));
    const { outcome, reason } = host.deliver(write, {});
    assert.deepEqual([outcome, reason], ["permanent", `state "k": ${found}`]);
    assert.equal(host.getStateJson("k").value, 5);
  }
});

test("a value that is nested as deeply as it may be can be read again", () => {
  const nested = (depth) => (depth === 0 ? 1 : [nested(depth - 1)]);
  const host = new MockHost();
  const format = state.versioned({ version: 1 });
  const write = (depth) =>
    host.deliver(
      defineHandler(() => format.set("k", nested(depth))),
      {},
    );
  assert.equal(write(499).outcome, "done");
  assert.deepEqual(
    host.run(() => format.get("k")),
    nested(499),
  );
  assert.equal(write(500).reason, 'state "k": nested more than 500 deep, which could not be read again');
});

test("its own version is read as it is, and what is not there is undefined", () => {
  assert.deepEqual(read(second, { version: 2, readable_from: 1, value: 5 }).value, 5);
  new MockHost().run(() => assert.equal(state.versioned(second).get("none"), undefined));
});

test("an older version goes through all steps", () => {
  const third = { version: 3, upgrade: { ...second.upgrade, 2: ({ count }) => ({ counts: [count] }) } };
  assert.deepEqual(read(third, { version: 1, readable_from: 1, value: { count: 4 } }).value, { counts: [4] });
});

test("a newer version is read where it may be, and else waits for newer code", () => {
  assert.deepEqual(read({ version: 1 }, { version: 2, readable_from: 1, value: { count: 4, unit: "kg" } }).value, {
    count: 4,
    unit: "kg",
  });
  const { outcome, reason } = read(second, { version: 4, readable_from: 3, value: 0 });
  assert.equal(outcome, "transient");
  assert.equal(
    reason,
    'state "k": written by version 4 of its format, which code before version 3 cannot read; this code has version 2: go forward to ' +
      "the newer handler, or reset the state",
  );
});

test("a value without an envelope is version 0", () => {
  assert.deepEqual(read({ version: 1, upgrade: { 0: (count) => ({ count }) } }, 9).value, { count: 9 });
  assert.equal(
    read({ version: 1 }, 9).reason,
    'state "k": not a versioned value, and no step leads from version 0',
  );
  assert.equal(read({ version: 1 }, 9).outcome, "permanent");
});

test("what breaks the rule of envelopes is no envelope", () => {
  const plain = [
    { version: 1, readable_from: 0, value: 5 },
    { version: 0, readable_from: 0, value: 5 },
    { version: 1, readable_from: 2, value: 5 },
    { version: 4294967296, readable_from: 1, value: 5 },
    { version: 1.5, readable_from: 1, value: 5 },
    { version: true, readable_from: true, value: 5 },
    { version: "1", readable_from: "1", value: 5 },
    { version: 1, value: 5 },
    { version: 1, readable_from: 1 },
    [1, 1, 5],
    null,
  ];
  for (const stored of plain) {
    const { outcome, reason } = read({ version: 1 }, stored);
    assert.equal(outcome, "permanent", JSON.stringify(stored));
    assert.equal(reason, 'state "k": not a versioned value, and no step leads from version 0');
    const from0 = { version: 1, upgrade: { 0: (value) => [value] } };
    assert.deepEqual(read(from0, stored).value, [stored]);
  }
  assert.equal(read({ version: 1 }, { version: 4294967295, readable_from: 1, value: 5 }).value, 5);
});

test("a step that is missing is a permanent error that names the key", () => {
  const { outcome, reason } = read({ version: 2 }, { version: 1, readable_from: 1, value: null });
  assert.equal(outcome, "permanent");
  assert.equal(reason, 'state "k": written by version 1 of its format, and no step leads to version 2');
});

test("what a step throws is a mistake, unless it is an error of the SDK", () => {
  const old = { version: 1, readable_from: 1, value: null };
  assert.throws(() => read(second, old), TypeError);
  const step = (problem) => ({
    version: 2,
    upgrade: {
      1: () => {
        throw problem;
      },
    },
  });
  assert.throws(() => read(step(new RangeError("odd")), old), RangeError);
  const { outcome, reason } = read(step(transient("not now")), old);
  assert.deepEqual([outcome, reason], ["transient", "not now"]);
});

test("a schema checks what was read", () => {
  const schema = (value) => {
    throw new Error(`odd ${value}`);
  };
  assert.equal(read({ version: 1, schema }, { version: 1, readable_from: 1, value: 5 }).reason, 'state "k": odd 5');
});

test("a format that contradicts itself is a mistake", () => {
  assert.throws(() => state.versioned({ version: 0 }), TypeError);
  assert.throws(() => state.versioned({ version: 1, readableFrom: 2 }), TypeError);
  assert.throws(() => state.versioned({ version: 2, readableFrom: 0 }), TypeError);
  assert.throws(() => state.versioned({ version: 4294967296 }), {
    message:
      "versioned: expected whole numbers, 1 <= readableFrom (4294967296) <= version (4294967296) <= 4294967295",
  });
  assert.throws(() => state.versioned({ version: 2, upgrade: { 2: (old) => old } }), {
    message: "versioned: a step from version 2 does not lead to version 2",
  });
  assert.throws(() => state.versioned({ version: 2, upgrade: { 1: 5 } }), TypeError);
});
