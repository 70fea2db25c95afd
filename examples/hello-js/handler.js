// Greets whom each event names, in the stream `greetings`.

import { config, defineHandler, emit, log } from "pelton-sdk";

export const handler = defineHandler((event) => {
  // The name in the payload, else the key of the event.
  const name = event.json()?.name ?? event.key ?? "stranger";
  const greeting = `${config.get("greeting") ?? "Hello"}, ${name}!`;
  log.info(greeting);
  emit("greetings", { kind: "greeted", key: event.key, json: { greeting, event: event.id } });
});
