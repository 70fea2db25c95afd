import { currentHost } from "../current.js";
import { copied } from "../events.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function send({ method, scheme, authority, path, headers, body, timeoutMs }) {
  const {
    status,
    headers: answered = {},
    body: answer = "",
  } = currentHost().send({
    method,
    url: `${scheme}://${authority}${path}`,
    headers: headers.map(([name, value]) => [name, decoder.decode(value)]),
    body: copied(body),
    timeoutMs,
  });
  return {
    status,
    headers: Object.entries(answered).map(([name, value]) => [name, bytesOf(value)]),
    body: bytesOf(answer),
  };
}

function bytesOf(value) {
  return typeof value === "string" ? encoder.encode(value) : copied(value);
}
