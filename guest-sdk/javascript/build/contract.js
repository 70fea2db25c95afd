import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { isLate, lateWit } from "./late.js";
import { Refusal } from "./project.js";

const WORLDS = fileURLToPath(new URL("../wit", import.meta.url));

const EXPORTS = {
  worker: { name: "handler", example: "export const handler = defineHandler((event) => { … })" },
  "batch-worker": {
    name: "batchHandler",
    example: "export const batchHandler = defineBatchHandler((events) => { … })",
  },
};

const ONLY_IN = {
  "pelton:worker/checkpoint@0.1.0": { world: "worker", what: "checkpoint.commit" },
  "pelton:worker/progress@0.1.0": { world: "batch-worker", what: "progress.handled" },
};

/** Which world the component gets, once it is known that the code fits the one that `package.json` names. */
export function chooseWorld({ world, entry }, { exports, imports }) {
  const expected = EXPORTS[world];
  if (expected === undefined) {
    throw new Refusal(
      `package.json: world ${JSON.stringify(world)} is not known; known are: ${Object.keys(EXPORTS).join(", ")}`,
    );
  }
  if (!exports.includes(expected.name)) {
    const other = Object.entries(EXPORTS).find(([, { name }]) => exports.includes(name));
    const remedy = other
      ? `it exports "${other[1].name}", so set "world": "${other[0]}" in package.json`
      : `write: ${expected.example}`;
    throw new Refusal(`${entry} exports no "${expected.name}", which the world ${world} asks for; ${remedy}`);
  }
  for (const specifier of imports) {
    const { world: only, what } = ONLY_IN[specifier] ?? { world };
    if (only !== world) throw new Refusal(`${what} belongs to the world ${only}, and package.json says ${world}`);
  }
  return imports.some(isLate) ? `${world}-http` : world;
}

/** Calls `body` with a folder of WIT that has the worlds of `wit/` and all that they stand on. */
export async function withWit({ dir, wit }, body) {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "pelton-wit-"));
  try {
    await fs.cp(WORLDS, folder, { recursive: true });
    await addContract(path.resolve(dir, wit), path.join(folder, "deps"));
    await rewrite(folder);
    return await body(folder);
  } finally {
    await fs.rm(folder, { recursive: true });
  }
}

/** The contract becomes one more package to depend on, beside its own dependencies. */
async function addContract(contract, deps) {
  await fs.cp(path.join(contract, "deps"), deps, { recursive: true });
  await fs.mkdir(path.join(deps, "pelton"));
  for (const file of await fs.readdir(contract)) {
    if (file.endsWith(".wit")) await fs.copyFile(path.join(contract, file), path.join(deps, "pelton", file));
  }
}

async function rewrite(folder) {
  for (const name of await fs.readdir(folder, { recursive: true })) {
    if (!name.endsWith(".wit")) continue;
    const file = path.join(folder, name);
    await fs.writeFile(file, lateWit(await fs.readFile(file, "utf8")));
  }
}
