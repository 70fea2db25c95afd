#!/usr/bin/env node
// Builds a handler's project into a component: `pelton-sdk-build [--out FILE] [PROJECT]`. What `pelton build` runs.
//
// It lies in the SDK because the two belong together: how the engine hands over values is the SDK's to know, and changes with
// the tools.

import fs from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";

import { bundle } from "./bundle.js";
import { componentize } from "./component.js";
import { chooseWorld } from "./contract.js";
import { Refusal, readProject } from "./project.js";
import { checkTypes } from "./types.js";

async function main() {
  const { values, positionals } = parseArgs({
    options: { out: { type: "string", short: "o" } },
    allowPositionals: true,
  });
  const project = await readProject(path.resolve(positionals[0] ?? "."));
  const out = path.resolve(values.out ?? path.join(project.dir, `${project.name}.wasm`));

  await checkTypes(project);
  const bundled = await bundle(project);
  const world = chooseWorld(project, bundled);
  await fs.writeFile(out, await componentize(project, bundled, world));
}

main().catch((problem) => {
  // A refusal says all there is to say. Anything else is a mistake of this program, or of the machine's.
  console.error(problem instanceof Refusal ? problem.message : problem);
  process.exitCode = 1;
});
