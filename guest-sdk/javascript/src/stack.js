import { frames } from "#host/frames.js";

/** An error with all frames that are known to be of the handler's own code, for a log line. */
export function traced(error) {
  const lines = frames(error).map((frame) => `\n    at ${frame}`);
  const cause = error.cause instanceof Error ? `\ncaused by ${traced(error.cause)}` : "";
  return `${titled(error)}${lines.join("")}${cause}`;
}

/** One line: what happened, and the innermost places in the handler's own code. */
export function summarised(error) {
  const innermost = frames(error).slice(0, 3);
  const places = innermost.map((frame) => `at ${frame}`).join(", ");
  return places === "" ? titled(error) : `${titled(error)} (${places})`;
}

function titled({ name, message }) {
  return message ? `${name}: ${message}` : String(name);
}
