import { isBuiltin } from "node:module";
import path from "node:path";

import { lateImports } from "./late.js";
import { Refusal, tool } from "./project.js";
import { sourceLines } from "./sources.js";

/** One module out of the entry and all that it imports, without what is not used. Says what it exports and asks of the host. */
export async function bundle(project) {
  const esbuild = await tool(project, "esbuild");
  const result = await build(esbuild, {
    absWorkingDir: project.dir,
    entryPoints: [project.entry],
    outfile: "handler.js",
    bundle: true,
    write: false,
    metafile: true,
    sourcemap: "external",
    format: "esm",
    // Neither a browser nor Node: packages are to bring what runs anywhere.
    platform: "neutral",
    mainFields: ["module", "main"],
    // Whatever is newer is written in older words.
    target: "es2023",
    external: ["pelton:*", "wasi:*"],
    plugins: [lateImports],
    logLevel: "silent",
  });

  const [output] = Object.values(result.metafile.outputs).filter(({ entryPoint }) => entryPoint !== undefined);
  const text = (name) => result.outputFiles.find((file) => path.basename(file.path) === name).text;
  return {
    source: text("handler.js"),
    lines: sourceLines(project.dir, JSON.parse(text("handler.js.map"))),
    exports: output.exports,
    imports: output.imports.filter(({ external }) => external).map((external) => external.path),
  };
}

async function build(esbuild, options) {
  try {
    const result = await esbuild.build(options);
    await tell(esbuild, "warning", result.warnings);
    return result;
  } catch (problem) {
    if (problem.errors === undefined) throw problem;
    await tell(esbuild, "error", problem.errors);
    throw new Refusal("esbuild found errors; no component was made");
  }
}

/** Shows messages as esbuild does, but for its advice, which is about options that nobody sets here. */
async function tell(esbuild, kind, messages) {
  const color = Boolean(process.stderr.isTTY);
  const shown = messages.map((message) => ({ ...message, notes: adviceOn(message) }));
  for (const text of await esbuild.formatMessages(shown, { kind, color })) process.stderr.write(text);
}

function adviceOn({ text }) {
  const [, name] = /^Could not resolve "([^"]+)"/.exec(text) ?? [];
  if (name === undefined) return [];
  if (isBuiltin(name)) return [NO_NODE];
  const isPackage = !name.startsWith(".") && !name.startsWith("/");
  return isPackage ? [{ text: `${name} is not in node_modules; if package.json names it, run: npm install` }] : [];
}

const NO_NODE = { text: "A handler does not run in Node, and has none of its modules." };
