// Keeps something of every event for ever: some 2 KiB, as a handler does that fills a cache and never empties it.

import { defineHandler } from "pelton-sdk";

const kept = [];

export const handler = defineHandler((event) => {
  kept.push({ id: event.id, bytes: new Uint8Array(2048).fill(1) });
});
