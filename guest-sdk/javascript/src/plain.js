/**
 * A function for `JSON.stringify` that looks at all there is to write. Calls `tooDeep` where it is nested more deeply than
 * `depthMax`, and `noNumber` with what is no number in JSON and the path to it. Either is to throw.
 */
export function watching(depthMax, { tooDeep, noNumber }) {
  // The objects from the outermost to the one at hand, and the key of each in the one before it.
  const holders = [];
  const keys = [];

  const pathTo = (key) => [...keys, key].slice(1).map((step, n) => (Array.isArray(holders[n]) ? Number(step) : step));

  return function watch(key, value) {
    while (holders.length > 0 && holders[holders.length - 1] !== this) {
      holders.pop();
      keys.pop();
    }
    if (typeof value === "number") {
      if (!Number.isFinite(value)) noNumber(String(value), pathTo(key));
    } else if (value === null) {
      if (this[key] instanceof Date) noNumber("Invalid Date", pathTo(key));
    } else if (typeof value === "object") {
      if (holders.length === depthMax) tooDeep();
      holders.push(value);
      keys.push(key);
    }
    return value;
  };
}
