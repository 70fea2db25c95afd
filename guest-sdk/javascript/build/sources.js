// Where each line of a bundle comes from, so that a stack trace can name the handler's own lines. Only these are kept.

import path from "node:path";
import { fileURLToPath } from "node:url";

const SDK = fileURLToPath(new URL("..", import.meta.url));
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** For each line of the bundle `[file, line]`, or 0 where it is not the handler's own. Lines count from 1, files from 0. */
export function sourceLines(dir, { sources, mappings }) {
  const own = sources.map((source) => isOwn(dir, source));
  let file = 0;
  let line = 0;
  const lines = mappings.split(";").map((row) => {
    let first = 0;
    for (const segment of row === "" ? [] : row.split(",")) {
      const [, fileStep = 0, lineStep = 0] = decode(segment);
      file += fileStep;
      line += lineStep;
      if (first === 0 && own[file]) first = [file, line + 1];
    }
    return first;
  });
  return { files: sources, lines };
}

function isOwn(dir, source) {
  const file = path.resolve(dir, source);
  return !file.startsWith(SDK) && !file.includes(`${path.sep}node_modules${path.sep}`);
}

/** The differences in a segment of a source map: of the column, the source, the line there, and more that is not used. */
function decode(segment) {
  const numbers = [];
  let number = 0;
  let shift = 0;
  for (const digit of segment) {
    const bits = DIGITS.indexOf(digit);
    number |= (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    // The lowest bit is the sign.
    numbers.push(number & 1 ? -(number >> 1) : number >> 1);
    number = shift = 0;
  }
  return numbers;
}
