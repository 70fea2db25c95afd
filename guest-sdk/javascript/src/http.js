import * as host from "#host/http.js";
import { HandlerError, transient } from "./error.js";
import { parse, stringify } from "./json.js";
import { checkedHeaders, checkedMethod, checkedTimeout, checkedUrl } from "./request.js";
import { bytesOf, decode, decodeLeniently, encode } from "./utf8.js";

const NOTHING = new Uint8Array();

/** Sends a request to an origin that `allow.http` names, and waits for the whole answer. */
export function send({ method = "GET", url, headers = {}, body, json, timeoutMs }) {
  const target = { method: checkedMethod(method), ...checkedUrl(url), timeoutMs: checkedTimeout(timeoutMs) };
  const what = `${method} ${url}`;
  const sent = bodyOf({ body, json }, what);
  const named = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  if (json !== undefined && !named.some(([name]) => name === "content-type")) {
    named.push(["content-type", "application/json"]);
  }
  const request = { ...target, headers: checkedHeaders(named, sent.length), body: sent };
  return new Response(what, exchanged(request, what));
}

function bodyOf({ body, json }, what) {
  if (json !== undefined) return encode(stringify(json, what));
  return body === undefined ? NOTHING : bytesOf(body, "http.send: body");
}

function exchanged(request, what) {
  try {
    return host.send(request);
  } catch (problem) {
    // An error of wasi:http, such as `connection-refused` or `HTTP-request-denied`.
    const code = problem?.payload?.tag;
    if (code === undefined) throw problem;
    throw Object.assign(transient(`${what}: ${code}`), { code });
  }
}

class Response {
  #what;

  constructor(what, { status, headers, body }) {
    this.#what = `answer to ${what}`;
    this.status = status;
    // Any byte above 0x7f may stand in a header, and no other answer would be of another encoding.
    this.headers = headers.map(([name, value]) => [name.toLowerCase(), decodeLeniently(value)]);
    this.body = body;
  }

  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  header(name) {
    const wanted = name.toLowerCase();
    return this.headers.find(([header]) => header === wanted)?.[1];
  }

  text() {
    return this.#read(() => decode(this.body, this.#what));
  }

  json(schema) {
    return this.#read(() => parse(this.body, schema, this.#what));
  }

  /** `Retry-After` is a number of seconds or a date. */
  retryAfterMs() {
    const value = this.header("retry-after");
    if (value === undefined) return undefined;
    const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
    return Number.isNaN(ms) ? undefined : Math.max(0, ms);
  }

  /** Unlike a payload, another answer may be read differently. */
  #read(read) {
    try {
      return read();
    } catch (problem) {
      throw problem instanceof HandlerError ? transient(problem.message, { cause: problem }) : problem;
    }
  }
}
