import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

/** What the user is told, and has to mend. An empty one has been told already, by a tool. */
export class Refusal extends Error {}

/** What `package.json` says of the handler, and where the project's tools are. */
export async function readProject(dir) {
  const { name, pelton = {} } = JSON.parse(read(path.join(dir, "package.json")));
  const { wit = "vendor/pelton/wit", world = "worker", entry = defaultEntry(dir) } = pelton;
  if (!fs.existsSync(path.resolve(dir, entry))) throw new Refusal(`package.json: entry ${entry} does not exist`);
  if (!fs.existsSync(path.resolve(dir, wit))) throw new Refusal(`package.json: wit folder ${wit} does not exist`);
  // From the project's folder, and not from the SDK's, which may be a link to somewhere else.
  const require = createRequire(path.join(dir, "package.json"));
  return { dir, name: name.split("/").at(-1), wit, world, entry, require };
}

function defaultEntry(dir) {
  return fs.existsSync(path.join(dir, "handler.ts")) ? "handler.ts" : "handler.js";
}

function read(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (problem) {
    throw new Refusal(`cannot read ${file}: ${problem.message}`);
  }
}

/** A tool that the project names in its `devDependencies`. */
export async function tool({ require }, name) {
  let file;
  try {
    file = require.resolve(name);
  } catch {
    throw new Refusal(
      `${name} is not installed; run: npm install, or if package.json does not name it: npm install --save-dev --save-exact ${name}`,
    );
  }
  const module = await import(pathToFileURL(file));
  return module.default ?? module;
}
