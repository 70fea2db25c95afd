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

/** What is said of a request that the host is not to be asked for. */
function refusal(request) {
  try {
    with_(
      () => assert.fail("it was sent"),
      () => send({ url: "http://a.example/", ...request }),
    );
  } catch (error) {
    assert.ok(error instanceof HandlerError, error);
    assert.equal(error.outcome, "permanent");
    return error.message.replace(/^http\.send: /, "");
  }
  return assert.fail("nothing was thrown");
}

test("a URL that could not be asked for is refused, with what is wrong", () => {
  const host = (found) =>
    `url: expected a host, or host:port, found "${found}"; a name with other letters than a to z is written as xn--…`;
  const cannot = (found) => `url: ${JSON.stringify(found)} cannot stand there as it is; use encodeURIComponent`;
  for (const [url, problem] of [
    ["/charges", "not an absolute URL of http or https: /charges"],
    ["ftp://a.example/", "not an absolute URL of http or https: ftp://a.example/"],
    ["http://b\u00fccher.example/", host("b\u00fccher.example")],
    ["http://a b/", host("a b")],
    ["http://a.example:/", host("a.example:")],
    ["http://a.example:65536/", host("a.example:65536")],
    ["http://[a.example]/", host("[a.example]")],
    ["http://user:word@a.example/", "url: user information before the host; send it in a header"],
    ["http://a.example/a b", cannot(" ")],
    ["http://a.example/a\nb", cannot("\n")],
    ["http://a.example/<a>", cannot("<")],
    ["http://a.example/?a=b c", cannot(" ")],
    [`http://a.example/${"a".repeat(65534)}`, "url: path and query have 65535 bytes; expected at most 65534"],
  ]) {
    assert.equal(refusal({ url }), problem);
  }
  for (const url of [
    "http://a.example",
    "https://[::1]:81/x",
    'http://a_b.example/\u00fc?{"=^`',
    "http://a.example/%20#x y",
  ]) {
    with_(
      () => ({ status: 200 }),
      () => send({ url: url.replace('"', "") }),
    );
  }
});

test("a method, a header or a time-out that could not be sent is refused, with what is wrong", () => {
  const timeout = (found) => `timeoutMs: expected a number of milliseconds from 0 to 9007199254, found ${found}`;
  for (const [request, problem] of [
    [{ method: "GE T" }, 'method: expected a word as GET, found "GE T"'],
    [{ method: "" }, 'method: expected a word as GET, found ""'],
    [{ method: "CONNECT" }, "method: CONNECT is not possible: every request goes to an origin by itself"],
    [{ headers: { "a b": "1" } }, 'header "a b": no name of a header; expected letters, digits and hyphens'],
    [{ headers: { "": "1" } }, 'header "": no name of a header; expected letters, digits and hyphens'],
    [{ headers: { a: "1\n2" } }, 'header "a": "\\n" cannot stand in a value; take it out'],
    [{ headers: { Host: "b.example" } }, 'header "host": the host says it itself; leave it out'],
    [{ headers: { Connection: "close" } }, 'header "connection": the host says it itself; leave it out'],
    [{ headers: { a: "x".repeat(65536) } }, "headers take 65609 bytes, with 72 for each; expected at most 65536"],
    [
      { headers: { "Content-Length": "3" }, body: "ab" },
      'header "content-length": found 3, and the body has 2 bytes; leave it out',
    ],
    [{ timeoutMs: -1 }, timeout("-1")],
    [{ timeoutMs: Number.POSITIVE_INFINITY }, timeout("Infinity")],
    [{ timeoutMs: Number.NaN }, timeout("NaN")],
    [{ timeoutMs: 1e15 }, timeout("1000000000000000")],
    [{ timeoutMs: "5" }, timeout('"5"')],
  ]) {
    assert.equal(refusal(request), problem);
  }
  const headers = { "X-A": '\u00fc\t"', "Content-Length": "2" };
  with_(
    () => ({ status: 200 }),
    () => send({ method: "REPORT", url: "http://a.example", headers, body: "ab", timeoutMs: 0.5 }),
  );
});
