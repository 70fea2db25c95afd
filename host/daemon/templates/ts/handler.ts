// Greets whom each event names, and counts the visits.

import { config, defineHandler, emit, log, state } from "pelton-sdk";
import * as v from "valibot";

const Visit = v.object({ name: v.string() });

export const handler = defineHandler((event) => {
  const { name } = event.json(Visit);

  const visits = `visits/${event.key ?? name}`;
  const visit = (state.getJson(visits, v.number()) ?? 0) + 1;
  state.setJson(visits, visit);
  log.info(`${name} was greeted ${visit} times`);

  const greeting = config.get("greeting") ?? "Hello";
  emit("greetings", {
    kind: "greeted",
    key: event.key,
    json: { text: `${greeting}, ${name}! Visit ${visit}.` },
  });
});
