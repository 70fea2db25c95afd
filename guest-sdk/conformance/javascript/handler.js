// What it does with each kind of event is told in ../README.md.

import {
  checkpoint,
  config,
  defineHandler,
  emit,
  log,
  permanent,
  retryAfter,
  state,
  transient,
  utf8,
} from "pelton-sdk";
import * as v from "valibot";

import { countAs } from "./versioned.js";

const Order = v.object({ customer: v.object({ name: v.string() }), amount: v.pipe(v.number(), v.integer()) });

const kinds = {
  fields({ id, stream, partition, offset, key, kind, timeMs, attempt, payload }) {
    const fields = { id, stream, kind, partition, offset, time: timeMs, attempt, "has-key": key !== undefined };
    const headers = Object.entries(fields).map(([name, value]) => [name, String(value)]);
    emit("out", { kind: "fields", key, headers, payload });
  },

  echo({ key, headers, payload }) {
    emit("out", { kind: "echo", key, headers, payload });
  },

  emit(event) {
    emit(event.header("stream"), {
      kind: "emit",
      id: event.header("id"),
      key: event.header("key"),
      payload: event.payload,
    });
  },

  "emit-refused"() {
    try {
      emit("forbidden", { kind: "refused" });
    } catch (refusal) {
      emit("out", { kind: "refused", text: refusal.message });
    }
  },

  "emit-many"(event) {
    for (let n = 0; n < Number(event.header("count")); n++) emit("out", { kind: "many", text: String(n) });
  },

  state({ headers }) {
    for (const [, operation] of headers) {
      const [name, key, value] = split(operation, 3);
      if (name === "set") state.set(key, value);
      else if (name === "delete") state.delete(key);
      else emit("out", present("state", key, state.get(key)));
    }
  },

  count() {
    const { count } = state.getJson("count") ?? { count: 0 };
    state.setJson("count", { count: count + 1 });
    emit("out", { kind: "count", json: { count: count + 1 } });
  },

  transient(event) {
    lose();
    throw transient(event.header("reason"));
  },

  permanent(event) {
    lose();
    throw permanent(event.header("reason"));
  },

  "retry-after"(event) {
    lose();
    throw retryAfter(Number(event.header("ms")), event.header("reason"));
  },

  trap(event) {
    lose();
    throw new Error(event.header("reason"));
  },

  loop() {
    for (;;);
  },

  log({ headers }) {
    for (const [, line] of headers) {
      const [level, message] = split(line, 2);
      log[level](message);
    }
  },

  config({ headers }) {
    for (const [, name] of headers) {
      const setting = config.get(name);
      emit("out", present("config", name, setting === undefined ? undefined : utf8.encode(setting)));
    }
  },

  checkpoint() {
    checkpoint.commit();
  },

  call({ id }) {
    emit("out", { kind: "call", id: `call-${id}`, headers: { "idempotency-key": id } });
  },

  typed(event) {
    const { customer, amount } = event.json(Order);
    emit("out", { kind: "typed", key: customer.name, json: { amount: 2 * amount } });
  },

  versioned(event) {
    emit("out", { kind: "versioned", json: countAs(Number(event.header("as"))) });
  },
};

export const handler = defineHandler((event) => {
  if (!Object.hasOwn(kinds, event.kind)) throw permanent(`unknown kind ${JSON.stringify(event.kind)}`);
  kinds[event.kind](event);
});

function lose() {
  emit("out", { kind: "lost" });
  state.set("lost", "lost");
}

function present(kind, key, value) {
  return value === undefined ? { kind: `${kind}-absent`, key } : { kind, key, payload: value };
}

/** As many words as are asked for; the last one is the rest. */
function split(text, words) {
  const [first, ...others] = text.split(" ");
  return words === 1 || others.length === 0 ? [text] : [first, ...split(others.join(" "), words - 1)];
}
