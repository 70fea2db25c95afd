import { HandlerError, permanent, transient } from "./error.js";
import { conform, stringify } from "./json.js";
import { getJson, nameOf, set } from "./stored.js";

/** 32 bits, as in the SDKs of all languages. */
const VERSION_MAX = 4294967295;

/** State whose format is at this version. See `docs/state.md`. */
export function versioned({ version, readableFrom = version, upgrade = {}, schema }) {
  checkFormat(version, readableFrom, upgrade);
  return {
    get(key) {
      const stored = getJson(key);
      if (stored === undefined) return undefined;
      const value = upgraded(stored, { version, upgrade }, nameOf(key));
      return schema === undefined ? value : conform(value, schema, nameOf(key));
    },
    set(key, value) {
      // By itself: what has no JSON form would be left out of the envelope, which would be none then.
      const json = stringify(value, nameOf(key), 1);
      set(key, `{"version":${version},"readable_from":${readableFrom},"value":${json}}`);
    },
  };
}

function checkFormat(version, readableFrom, upgrade) {
  if (!areVersions(version, readableFrom)) {
    throw new TypeError(
      `versioned: expected whole numbers, 1 <= readableFrom (${readableFrom}) <= version (${version}) <= ${VERSION_MAX}`,
    );
  }
  for (const [from, step] of Object.entries(upgrade)) {
    if (!(Number.isInteger(Number(from)) && from >= 0 && from < version)) {
      throw new TypeError(`versioned: a step from version ${from} does not lead to version ${version}`);
    }
    if (typeof step !== "function") {
      throw new TypeError(`versioned: the step from version ${from} must be a function, not ${typeof step}`);
    }
  }
}

function upgraded(stored, { version, upgrade }, what) {
  // What lies there from before there was an envelope is of version 0.
  const envelope = isEnvelope(stored) ? stored : { version: 0, readable_from: 0, value: stored };
  if (envelope.version > version) {
    if (envelope.readable_from <= version) return envelope.value;
    // Transient, so that the event waits: a permanent error could lose it, and the newer handler will read it.
    throw transient(
      `${what}: written by version ${envelope.version} of its format, which code before version ` +
        `${envelope.readable_from} cannot read; this code has version ${version}: go forward to the newer handler, or ` +
        `reset the state`,
    );
  }
  let value = envelope.value;
  for (let from = envelope.version; from < version; from++) {
    const step = upgrade[from] ?? missing(from, envelope, what);
    // What a step throws is its own: an error of the SDK as it is, anything else a mistake in the program.
    value = step(value);
  }
  return value;
}

function missing(from, { version }, what) {
  throw permanent(
    from === 0
      ? `${what}: not a versioned value, and no step leads from version 0`
      : `${what}: written by version ${version} of its format, and no step leads to version ${from + 1}`,
  );
}

/** The rule of `docs/state.md`, in the SDKs of all languages. */
function isEnvelope(stored) {
  return areVersions(stored?.version, stored?.readable_from) && Object.hasOwn(stored, "value");
}

function areVersions(version, readableFrom) {
  return (
    Number.isInteger(version) &&
    Number.isInteger(readableFrom) &&
    1 <= readableFrom &&
    readableFrom <= version &&
    version <= VERSION_MAX
  );
}
