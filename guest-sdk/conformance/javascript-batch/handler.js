// What it does with each kind of event is told in ../README.md.

import { defineBatchHandler, emit, permanent, progress, retryAfter, state, transient } from "pelton-sdk";

const kinds = {
  echo({ key, headers, payload }) {
    emit("out", { kind: "echo", key, headers, payload });
  },

  state({ headers }) {
    for (const [, operation] of headers) {
      const [name, key, ...rest] = operation.split(" ");
      if (name === "set") state.set(key, rest.join(" "));
      else if (name === "delete") state.delete(key);
      else emitState(key, state.get(key));
    }
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
};

export const batchHandler = defineBatchHandler((events) => {
  const tells = events[0].header("progress") !== "no";
  for (const [done, event] of events.entries()) {
    if (!Object.hasOwn(kinds, event.kind)) throw permanent(`unknown kind ${JSON.stringify(event.kind)}`);
    kinds[event.kind](event);
    if (tells) progress.handled(done + 1);
  }
});

function emitState(key, value) {
  if (value === undefined) emit("out", { kind: "state-absent", key });
  else emit("out", { kind: "state", key, payload: value });
}

function lose() {
  emit("out", { kind: "lost" });
  state.set("lost", "lost");
}
