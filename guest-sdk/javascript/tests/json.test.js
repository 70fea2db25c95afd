// What JSON.parse and JSON.stringify let through, and what would end in a trap.

import assert from "node:assert/strict";
import { test } from "node:test";

import { HandlerError } from "../src/error.js";
import { parse, stringify } from "../src/json.js";

const read = (text, schema) => parse(new TextEncoder().encode(text), schema, "it");

/** The reason of the permanent error that a call ends with. */
function refusal(call) {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof HandlerError, error);
    assert.equal(error.outcome, "permanent");
    return error.message;
  }
  return assert.fail("nothing was thrown");
}

const list = (depth) => "[".repeat(depth) + "]".repeat(depth);
const nested = (depth) => JSON.parse(list(depth));

test("JSON is read up to 500 levels deep, and what is deeper is refused before it is read", () => {
  const tooDeep = "it: not JSON that can be read: nested more than 500 deep";
  for (const text of [list(501), list(6000), "[".repeat(200_000), '{"a":'.repeat(1000) + "1" + "}".repeat(1000)]) {
    assert.equal(
      refusal(() => read(text)),
      tooDeep,
    );
  }
  for (const text of [
    list(500),
    `"${"[".repeat(2000)}"`,
    `[${"[{}],".repeat(1000)}[]]`,
    `[${String.raw`"[[ \\" , "\"{", {"]": "}"},`.repeat(1000)}[]]`,
    `"${String.raw`\\\"`.repeat(300_000)}"`,
  ]) {
    assert.deepEqual(read(text), JSON.parse(text));
  }
});

test("JSON is written up to 500 levels deep", () => {
  assert.equal(stringify(nested(500), "it"), list(500));
  const tooDeep = "it: nested more than 500 deep, which could not be read again";
  assert.equal(
    refusal(() => stringify(nested(501), "it")),
    tooDeep,
  );
  assert.equal(
    refusal(() => stringify(nested(6000), "it")),
    tooDeep,
  );
  const same = {};
  assert.equal(stringify([same, [same], same], "it"), "[{},[{}],{}]");
  same.self = same;
  assert.match(
    refusal(() => stringify(same, "it")),
    /^it: .*circular/i,
  );
});

test("a number that is none in JSON is not written", () => {
  for (const [value, problem] of [
    [Number.NaN, "NaN has no JSON form"],
    [Number.NEGATIVE_INFINITY, "-Infinity has no JSON form"],
    [
      { a: { b: 1 }, lines: [{ price: 1 }, { tags: ["x"], price: Number.NaN }] },
      "lines[1].price: NaN has no JSON form",
    ],
    [[[1], [2, Number.POSITIVE_INFINITY]], "[1][1]: Infinity has no JSON form"],
    [{ at: new Date(Number.NaN) }, "at: Invalid Date has no JSON form"],
  ]) {
    assert.equal(
      refusal(() => stringify(value, "it")),
      `it: ${problem}`,
    );
  }
  const fine = { a: null, at: new Date(0), list: [undefined, 1.5], left: undefined, text: "NaN" };
  assert.equal(stringify(fine, "it"), JSON.stringify(fine));
});

test("a number that is too large is not read", () => {
  for (const [text, problem] of [
    ["1e999", "a number too large"],
    ["-1E+0309", "a number too large"],
    [`{"a":1,"lines":[{"price":1},{"price":1.5e400}]}`, "lines[1].price: a number too large"],
    ["9".repeat(310), "a number too large"],
    [`${"9".repeat(250)}e99`, "a number too large"],
  ]) {
    assert.equal(
      refusal(() => read(text)),
      `it: ${problem}`,
    );
  }
  for (const text of ["1e308", "1e-999", '"1e999"', '{"1e999":"12e345","at":null}', "0.0001e310"]) {
    assert.deepEqual(read(text), JSON.parse(text));
  }
});
