import assert from "node:assert/strict";
import { test } from "node:test";

import { send } from "../src/http.js";
import { HandlerError } from "../src/index.js";
import { MockHost } from "../src/mock/index.js";

const with_ = (http, body) => new MockHost({ http }).run(body);

test("a request is sent as it was asked for", () => {
  let sent;
  const answer = with_(
    (request) => {
      sent = request;
      return { status: 201, headers: { "X-A": "1" }, body: '{"a":1}' };
    },
    () =>
      send({
        method: "PUT",
        url: "https://example.com:81?q=1#x",
        headers: { "X-Key": "ü" },
        json: { b: 2 },
        timeoutMs: 5,
      }),
  );
  assert.equal(sent.method, "PUT");
  assert.equal(sent.url, "https://example.com:81/?q=1");
  assert.deepEqual(sent.headers, [
    ["x-key", "ü"],
    ["content-type", "application/json"],
  ]);
  assert.equal(Buffer.from(sent.body).toString(), '{"b":2}');
  assert.equal(sent.timeoutMs, 5);
  assert.deepEqual([answer.status, answer.ok, answer.header("x-a"), answer.json()], [201, true, "1", { a: 1 }]);
});

test("no answer is a transient error with the host's code", () => {
  new MockHost().run(() => {
    assert.throws(
      () => send({ url: "http://example.com/a" }),
      (error) =>
        error instanceof HandlerError &&
        error.code === "HTTP-request-denied" &&
        error.message === "GET http://example.com/a: HTTP-request-denied",
    );
  });
});

test("an answer that does not fit is a transient error", () => {
  const answer = with_(
    () => ({ status: 200, body: "{" }),
    () => send({ url: "http://example.com/a" }),
  );
  assert.throws(
    () => answer.json(),
    (error) =>
      error.outcome === "transient" && error.message.startsWith("answer to GET http://example.com/a: not JSON"),
  );
});

test("a header that is no UTF-8 is read as Latin-1, and the answer stands", () => {
  const answer = with_(
    () => ({
      status: 200,
      headers: { Server: Buffer.from("Caf\u00e9", "latin1"), Place: "K\u00f6ln", Both: Uint8Array.of(0x80, 0xff) },
      body: "{}",
    }),
    () => send({ url: "http://example.com/a" }),
  );
  assert.deepEqual(answer.headers, [
    ["server", "Caf\u00e9"],
    ["place", "K\u00f6ln"],
    ["both", "\u0080\u00ff"],
  ]);
  assert.deepEqual(answer.json(), {});
});

test("Retry-After is seconds or a date", () => {
  const delay = (value) =>
    with_(
      () => ({ status: 429, headers: value === undefined ? {} : { "Retry-After": value } }),
      () => send({ url: "http://a" }).retryAfterMs(),
    );
  assert.equal(delay(undefined), undefined);
  assert.equal(delay("120"), 120_000);
  assert.equal(delay("soon"), undefined);
  assert.equal(delay("Wed, 21 Oct 2015 07:28:00 GMT"), 0);
  const later = delay(new Date(Date.now() + 60_000).toUTCString());
  assert.ok(later > 50_000 && later <= 60_000, later);
});

test("what is no URL is a mistake", () => {
  assert.throws(
    () =>
      with_(
        () => ({}),
        () => send({ url: "/charges" }),
      ),
    { message: "http.send: not an absolute URL of http or https: /charges" },
  );
});
