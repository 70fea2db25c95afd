// Runs the handler in Node, without Wasm: `npm test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MockHost } from "pelton-sdk/mock";

import { handler } from "../handler.ts";

test("greets by name, and counts the visits", () => {
  const host = new MockHost({ config: { greeting: "Good morning" } });
  host.deliver(handler, { key: "ada", json: { name: "Ada" } });
  const { emitted } = host.deliver(handler, { key: "ada", json: { name: "Ada" } });

  const payload = { text: "Good morning, Ada! Visit 2." };
  assert.deepEqual(emitted, [{ stream: "greetings", kind: "greeted", key: "ada", payload }]);
});

test("refuses a visit without a name", () => {
  const { outcome, reason } = new MockHost().deliver(handler, { kind: "visit", json: { nome: "Ada" } });

  assert.equal(outcome, "permanent");
  assert.match(reason ?? "", /^payload of kind "visit": name: /);
});
