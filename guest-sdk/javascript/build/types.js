import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

import { Refusal } from "./project.js";

/** Lets TypeScript check the project, if it has TypeScript and says how. The bundler only drops the types. */
export async function checkTypes({ dir, require }) {
  if (!fs.existsSync(path.join(dir, "tsconfig.json"))) return;
  const tsc = compiler(require);
  if (tsc === undefined) return;
  const colours = process.stderr.isTTY ? ["--pretty"] : [];
  // Standard output is the caller's.
  const { status } = spawnSync(process.execPath, [tsc, "--noEmit", ...colours], { cwd: dir, stdio: ["ignore", 2, 2] });
  if (status !== 0) throw new Refusal("tsc found errors; no component was made");
}

function compiler(require) {
  try {
    const manifest = require.resolve("typescript/package.json");
    return path.join(path.dirname(manifest), require(manifest).bin.tsc);
  } catch {
    return undefined;
  }
}
