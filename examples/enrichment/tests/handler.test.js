// The handler against answers of every kind, without Wasm and without a network: `npm test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MockHost } from "pelton-sdk/mock";

import { handler } from "../handler.ts";

const order = {
  id: "order-1",
  key: "ada",
  kind: "order.placed",
  json: { customer: "ada", amount: 1200, items: ["lamp"] },
};

/** What comes of an order that the service answers so, and the requests that it got. */
function charged(answer) {
  const requests = [];
  const host = new MockHost({
    config: { payments: "http://payments" },
    http(request) {
      requests.push(request);
      return answer;
    },
  });
  return { ...host.deliver(handler, order), requests };
}

test("emits the order with its charge", () => {
  const { emitted, requests } = charged({ status: 200, body: '{"charge":"ch-1"}' });

  const payload = { customer: "ada", amount: 1200, items: ["lamp"], charge: "ch-1" };
  assert.deepEqual(emitted, [{ stream: "paid", kind: "order.paid", key: "ada", payload }]);
  assert.equal(requests[0].url, "http://payments/charges");
  assert.deepEqual(JSON.parse(Buffer.from(requests[0].body)), { customer: "ada", amount: 1200 });
});

test("sends the event's id as the idempotency key", () => {
  const { requests } = charged({ status: 503 });
  assert.deepEqual(new Map(requests[0].headers).get("idempotency-key"), "order-1");
});

for (const [status, headers, outcome, delayMs] of [
  [503, {}, "transient", undefined],
  [500, {}, "transient", undefined],
  [429, { "Retry-After": "7" }, "transient", 7000],
  [503, { "Retry-After": "0" }, "transient", 0],
  [429, {}, "transient", undefined],
  [402, {}, "permanent", undefined],
]) {
  test(`answers ${status} ${JSON.stringify(headers)} with ${outcome} ${delayMs ?? ""}`, () => {
    const came = charged({ status, headers, body: "no" });
    assert.equal(came.outcome, outcome);
    assert.equal(came.delayMs, delayMs);
    assert.equal(came.reason, `${status} no`);
    assert.deepEqual(came.emitted, []);
  });
}

test("waits for a better answer than one that cannot be read", () => {
  const { outcome, reason } = charged({ status: 200, body: '{"charge":1}' });
  assert.equal(outcome, "transient");
  assert.match(reason, /^answer to POST http:\/\/payments\/charges: charge: /);
});

test("takes a request that is denied for something that may be mended", () => {
  const { outcome, reason } = new MockHost({ config: { payments: "http://payments" } }).deliver(handler, order);
  assert.equal(outcome, "transient");
  assert.equal(reason, "POST http://payments/charges: HTTP-request-denied");
});
