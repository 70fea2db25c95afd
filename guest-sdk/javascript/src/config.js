import * as store from "#host/config.js";
import { text } from "./checks.js";
import { transient } from "./error.js";

/** The value of `key` in the `config` or `secrets` of the handler, if it was given one. */
export function get(key) {
  try {
    return store.get(text(key, "config: key")) ?? undefined;
  } catch (problem) {
    // `upstream` or `io`: the host could not look it up now.
    if (typeof problem?.payload?.val !== "string") throw problem;
    throw transient(`config ${JSON.stringify(key)}: ${problem.payload.val}`);
  }
}
