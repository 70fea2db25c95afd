// What is wrong with a request is told here, by name. The host would say of most of it that it is wrong, and no more.

import { text } from "./checks.js";
import { permanent } from "./error.js";
import { encode } from "./utf8.js";

const ABSOLUTE = /^(https?):\/\/([^/?#]+)([^#]*)/i;
const HOST = /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?$/i;
const PORT_MAX = 65535;
const NOT_IN_A_PATH = /[^!"$-;=@-_a-~\u{80}-\u{10ffff}]/u;
const NOT_IN_A_QUERY = /[^!$-;=?-~\u{80}-\u{10ffff}]/u;
const PATH_BYTES_MAX = 65534;

const TOKEN = /^[!#$%&'*+.^_`|~0-9a-zA-Z-]+$/;
const NOT_IN_A_VALUE = /[\0-\x08\x0a-\x1f\x7f]/;
const HEADERS_BYTES_MAX = 65536;
/** What the host keeps a header in, beside its name and its value. */
const HEADER_BYTES = 72;
/** These say how the host sends a request, and are its own to say. */
const HOSTS_OWN = [
  "connection",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
];

/** The longest time that is exact in nanoseconds. */
const TIMEOUT_MS_MAX = Math.floor(Number.MAX_SAFE_INTEGER / 1_000_000);

export function checkedMethod(method) {
  if (!TOKEN.test(text(method, "http.send: method")))
    throw refusal(`method: expected a word as GET, found ${shown(method)}`);
  if (method === "CONNECT") throw refusal("method: CONNECT is not possible: every request goes to an origin by itself");
  return method;
}

/** A URL taken apart, as strictly as the host does it. */
export function checkedUrl(url) {
  const [, scheme, authority, rest] = ABSOLUTE.exec(text(url, "http.send: url")) ?? [];
  if (scheme === undefined) throw refusal(`not an absolute URL of http or https: ${url}`);
  checkAuthority(authority);
  const path = rest.startsWith("/") ? rest : `/${rest}`;
  checkPath(path);
  return { scheme: scheme.toLowerCase(), authority, path };
}

function checkAuthority(authority) {
  // What it found is left out: it may be a password.
  if (authority.includes("@")) throw refusal("url: user information before the host; send it in a header");
  const [whole, port] = HOST.exec(authority) ?? [];
  if (whole === undefined || Number(port ?? 0) > PORT_MAX) {
    throw refusal(
      `url: expected a host, or host:port, found ${shown(authority)}; a name with other letters than a to z is written as xn--…`,
    );
  }
}

function checkPath(whole) {
  const [, path, query = ""] = /^([^?]*)\??([^]*)$/.exec(whole);
  const [found] = NOT_IN_A_PATH.exec(path) ?? NOT_IN_A_QUERY.exec(query) ?? [];
  if (found !== undefined) throw refusal(`url: ${shown(found)} cannot stand there as it is; use encodeURIComponent`);
  const { length } = encode(whole);
  if (length > PATH_BYTES_MAX)
    throw refusal(`url: path and query have ${length} bytes; expected at most ${PATH_BYTES_MAX}`);
}

/** Pairs of a name in lower case and a text become such of a name and bytes. */
export function checkedHeaders(headers, bodyLength) {
  const fields = headers.map(([name, value]) => [name, text(value, `http.send: header ${name}`)]);
  fields.forEach(checkHeader);
  checkLength(fields, bodyLength);
  const encoded = fields.map(([name, value]) => [name, encode(value)]);
  const bytes = encoded.reduce((sum, [name, value]) => sum + name.length + value.length + HEADER_BYTES, 0);
  if (bytes > HEADERS_BYTES_MAX) {
    throw refusal(`headers take ${bytes} bytes, with ${HEADER_BYTES} for each; expected at most ${HEADERS_BYTES_MAX}`);
  }
  return encoded;
}

function checkHeader([name, value]) {
  if (!TOKEN.test(name))
    throw refusal(`header ${shown(name)}: no name of a header; expected letters, digits and hyphens`);
  if (HOSTS_OWN.includes(name)) throw refusal(`header ${shown(name)}: the host says it itself; leave it out`);
  // The value is left out: it may be a secret.
  const [found] = NOT_IN_A_VALUE.exec(value) ?? [];
  if (found !== undefined) throw refusal(`header ${shown(name)}: ${shown(found)} cannot stand in a value; take it out`);
}

function checkLength(fields, bodyLength) {
  const lengths = fields.filter(([name]) => name === "content-length").map(([, value]) => value);
  if (lengths.length > 1 || lengths.some((length) => length !== String(bodyLength))) {
    throw refusal(
      `header "content-length": found ${lengths.join(" and ")}, and the body has ${bodyLength} bytes; leave it out`,
    );
  }
}

export function checkedTimeout(timeoutMs) {
  if (timeoutMs === undefined || (typeof timeoutMs === "number" && timeoutMs >= 0 && timeoutMs <= TIMEOUT_MS_MAX)) {
    return timeoutMs;
  }
  throw refusal(`timeoutMs: expected a number of milliseconds from 0 to ${TIMEOUT_MS_MAX}, found ${shown(timeoutMs)}`);
}

function shown(value) {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

function refusal(problem) {
  return permanent(`http.send: ${problem}`);
}
