import { HandlerError, permanent } from "./error.js";
import { DEPTH_MAX, outlineOf } from "./outline.js";
import { watching } from "./plain.js";
import { decode } from "./utf8.js";

/**
 * Reads bytes as JSON, and as what the schema says. Whatever does not fit is a permanent error that begins with `what`: no
 * other attempt would read it differently.
 */
export function parse(bytes, schema, what) {
  const text = decode(bytes, what);
  const { isTooDeep, hasLargeNumbers } = outlineOf(text);
  if (isTooDeep) throw permanent(`${what}: not JSON that can be read: nested more than ${DEPTH_MAX} deep`);
  let value;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw permanent(`${what}: not JSON: ${cause.message}`, { cause });
  }
  if (hasLargeNumbers) checkNumbers(value, what);
  return schema === undefined ? value : conform(value, schema, what);
}

/** `1e999` is JSON, and would be read as Infinity. */
function checkNumbers(value, what) {
  const noNumber = (_, path) => {
    throw permanent(`${what}: ${describe({ message: "a number too large", path })}`);
  };
  JSON.stringify(value, watching(DEPTH_MAX, { noNumber }));
}

/** A value as the schema says: a Standard Schema, or a function that returns the typed value or throws. */
export function conform(value, schema, what) {
  const standard = schema["~standard"];
  // Some schemas are functions too, so this is asked first.
  if (standard === undefined) return applied(schema, value, what);

  const result = standard.validate(value);
  if (typeof result.then === "function") {
    throw new TypeError(`${what}: the schema is asynchronous, and a handler cannot wait for it`);
  }
  if (result.issues) throw permanent(`${what}: ${result.issues.map(describe).join("; ")}`);
  return result.value;
}

function applied(read, value, what) {
  if (typeof read !== "function") throw new TypeError(`${what}: the schema must be a Standard Schema or a function`);
  try {
    return read(value);
  } catch (problem) {
    if (problem instanceof HandlerError) throw problem;
    throw permanent(`${what}: ${problem?.message ?? problem}`, { cause: problem });
  }
}

/**
 * A value as a text of JSON, to stand within so many `levels` of another; what has no JSON form, or could not be read again, is a
 * permanent error.
 */
export function stringify(value, what, levels = 0) {
  const refusals = {
    tooDeep() {
      throw permanent(`${what}: nested more than ${DEPTH_MAX} deep, which could not be read again`);
    },
    noNumber(found, path) {
      throw permanent(`${what}: ${describe({ message: `${found} has no JSON form`, path })}`);
    },
  };
  let text;
  try {
    text = JSON.stringify(value, watching(DEPTH_MAX - levels, refusals));
  } catch (cause) {
    if (cause instanceof HandlerError) throw cause;
    throw permanent(`${what}: ${cause.message}`, { cause });
  }
  if (text === undefined) throw permanent(`${what}: ${typeof value} has no JSON form`);
  return text;
}

function describe({ message, path }) {
  const place = pathOf(path);
  return place === "" ? message : `${place}: ${message}`;
}

/** `customer.name`, `lines[0].price`. */
function pathOf(path = []) {
  return path
    .map((step) => (typeof step === "object" ? step.key : step))
    .reduce((place, key) => {
      if (typeof key === "number") return `${place}[${key}]`;
      return place === "" ? String(key) : `${place}.${String(key)}`;
    }, "");
}
