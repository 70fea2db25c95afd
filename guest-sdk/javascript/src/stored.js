import * as host from "#host/state.js";
import { text } from "./checks.js";
import { refused } from "./error.js";
import { parse, stringify } from "./json.js";
import { bytesOf } from "./utf8.js";

export function get(key) {
  return host.get(text(key, "state: key")) ?? undefined;
}

export function set(key, value) {
  try {
    host.set(text(key, "state: key"), bytesOf(value, "state: value"));
  } catch (problem) {
    throw refused(problem);
  }
}

function remove(key) {
  host.delete(text(key, "state: key"));
}
// No function may be declared by this name.
export { remove as delete };

export function getJson(key, schema) {
  const value = get(key);
  return value === undefined ? undefined : parse(value, schema, nameOf(key));
}

export function setJson(key, value) {
  set(key, stringify(value, nameOf(key)));
}

/** How errors name the state of a key. */
export function nameOf(key) {
  return `state ${JSON.stringify(key)}`;
}
