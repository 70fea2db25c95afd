// What every JavaScript programmer, and many a library, takes for granted, and the engine does not have, or not as it should.

import { getRandomBytes } from "wasi:random/random@0.2.4";
import { line, show } from "../lines.js";

const CONTEXT = "console";
const at =
  (level) =>
  (...values) =>
    line(level, CONTEXT, values);

globalThis.console ??= {
  log: at("info"),
  info: at("info"),
  warn: at("warn"),
  error: at("error"),
  debug: at("debug"),
  trace: at("trace"),
  dir: (value) => line("info", CONTEXT, [value]),
  assert(condition, ...values) {
    if (!condition) line("error", CONTEXT, ["assertion failed:", ...values.map(show)]);
  },
};

// The engine seeds its own once, while the component is built: every instance would have the same numbers.
Math.random = () => {
  const bits = new DataView(getRandomBytes(8).buffer);
  // As many as a number has of them.
  return ((bits.getUint32(0) >>> 5) * 2 ** 26 + (bits.getUint32(4) >>> 6)) / 2 ** 53;
};
