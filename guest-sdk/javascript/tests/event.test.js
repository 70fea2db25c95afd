import assert from "node:assert/strict";
import { test } from "node:test";

import { Event } from "../src/event.js";
import { HandlerError, permanent } from "../src/error.js";

const event = (payload, more = {}) =>
  new Event({ id: "a", kind: "order", offset: 7n, time: 8n, headers: [], payload: Buffer.from(payload), ...more });

/** The reason of the permanent error that a call ends with. */
function refusal(call) {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof HandlerError, error);
    assert.equal(error.outcome, "permanent");
    return error.message;
  }
  assert.fail("nothing was thrown");
}

/** A Standard Schema that finds these issues, or none. */
const schema = (issues) => ({
  "~standard": { version: 1, vendor: "test", validate: (value) => (issues ? { issues } : { value: { value } }) },
});

test("numbers of 64 bits are numbers, and what is absent is undefined", () => {
  const { offset, timeMs, key } = event("", { key: null });
  assert.deepEqual([offset, timeMs, key], [7, 8, undefined]);
});

test("the first header of a name is found", () => {
  const { header } = event("");
  const headers = [
    ["a", "1"],
    ["b", "2"],
    ["a", "3"],
  ];
  assert.equal(header.call({ headers }, "a"), "1");
  assert.equal(header.call({ headers }, "A"), undefined);
});

test("a payload is text and JSON", () => {
  assert.equal(event("søren 👋").text(), "søren 👋");
  assert.deepEqual(event('{"a":["ü"]}').json(), { a: ["ü"] });
});

test("a payload that is no UTF-8 or no JSON is refused", () => {
  assert.equal(
    refusal(() => event([0xc3, 0x28]).text()),
    'payload of kind "order": not UTF-8',
  );
  assert.match(
    refusal(() => event("{").json()),
    /^payload of kind "order": not JSON: /,
  );
});

test("a schema's value is the payload's", () => {
  assert.deepEqual(event("1").json(schema()), { value: 1 });
});

test("a schema's issues name the path", () => {
  const issues = [
    { message: "too short", path: ["customer", { key: "name" }] },
    { message: "no number", path: [{ key: "lines" }, 0, "price"] },
    { message: "odd" },
  ];
  assert.equal(
    refusal(() => event("1").json(schema(issues))),
    'payload of kind "order": customer.name: too short; lines[0].price: no number; odd',
  );
});

test("a function is a schema too, and its exceptions are refusals", () => {
  assert.equal(
    event("1").json((value) => value + 1),
    2,
  );
  assert.equal(refusal(() => event("null").json(({ name }) => name)).slice(0, 24), 'payload of kind "order":');
  assert.equal(
    refusal(() =>
      event("1").json(() => {
        throw permanent("mine");
      }),
    ),
    "mine",
  );
});

test("a schema that is also a function is asked as a schema", () => {
  const both = Object.assign(() => assert.fail("called"), schema());
  assert.deepEqual(event("1").json(both), { value: 1 });
});

test("an asynchronous schema is a mistake", () => {
  const asynchronous = { "~standard": { validate: async (value) => ({ value }) } };
  assert.throws(() => event("1").json(asynchronous), TypeError);
});
