// One request by way of wasi:http. A stream belongs to its body and a body to its message, and the host wants them back in that
// order, whatever happens: `using` sees to it. The engine would give back what is left in any order, which is a trap.

import { handle } from "wasi:http/outgoing-handler@0.2.4";
import {
  Fields,
  IncomingBody,
  OutgoingBody,
  OutgoingRequest,
  RequestOptions,
  httpErrorCode,
} from "wasi:http/types@0.2.4";

const NANOSECONDS = 1_000_000;
// What one call of the host takes at most, and what it may give.
const WRITE_AT_MOST = 4096;
const READ_AT_MOST = 65536;

/** Throws what the host says, which is an exception whose `payload` is an error code of wasi:http. */
export function send({ method, scheme, authority, path, headers, body, timeoutMs }) {
  const request = new OutgoingRequest(Fields.fromList(headers));
  request.setMethod({ tag: "other", val: method });
  request.setScheme({ tag: scheme.toUpperCase() });
  request.setAuthority(authority);
  request.setPathWithQuery(path);

  const outgoing = request.body();
  using pending = handle(request, options(timeoutMs));
  write(outgoing, body);
  return received(awaited(pending));
}

function options(timeoutMs) {
  if (timeoutMs === undefined) return undefined;
  const options = new RequestOptions();
  // The contract counts whole ones.
  const nanoseconds = Math.ceil(timeoutMs * NANOSECONDS);
  options.setConnectTimeout(nanoseconds);
  options.setFirstByteTimeout(nanoseconds);
  options.setBetweenBytesTimeout(nanoseconds);
  return options;
}

/** A body that cannot be sent to its end is no failure by itself: the answer says why, or did not need the rest. */
function write(outgoing, body) {
  try {
    writeAll(outgoing, body);
    OutgoingBody.finish(outgoing, undefined);
  } catch (problem) {
    if (problem?.payload?.tag === undefined) throw problem;
  }
}

function writeAll(outgoing, body) {
  using stream = outgoing.write();
  for (let at = 0; at < body.length; at += WRITE_AT_MOST) {
    stream.blockingWriteAndFlush(body.slice(at, at + WRITE_AT_MOST));
  }
}

function awaited(pending) {
  using ready = pending.subscribe();
  ready.block();
  const { val: result } = pending.get();
  if (result.tag === "err") throw failure(result.val);
  return result.val;
}

function received(answer) {
  using response = answer;
  using fields = response.headers();
  return { status: response.status(), headers: fields.entries(), body: read(response.consume()) };
}

function read(incoming) {
  try {
    return readAll(incoming);
  } finally {
    IncomingBody.finish(incoming)[Symbol.dispose]();
  }
}

function readAll(incoming) {
  using stream = incoming.stream();
  const chunks = [];
  try {
    for (;;) chunks.push(stream.blockingRead(READ_AT_MOST));
  } catch (problem) {
    if (problem?.payload?.tag === "closed") return joined(chunks);
    if (problem?.payload?.tag !== "last-operation-failed") throw problem;
    using error = problem.payload.val;
    throw failure(httpErrorCode(error) ?? { tag: "connection-terminated" });
  }
}

function joined(chunks) {
  const whole = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

function failure(payload) {
  return Object.assign(new Error(payload.tag), { payload });
}
