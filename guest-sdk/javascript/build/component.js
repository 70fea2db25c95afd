import { withWit } from "./contract.js";
import { linkLateImports } from "./late.js";
import { Refusal, tool } from "./project.js";

// How values are handed over is the engine's to say, and may be another in the next version.
const ENGINE = "componentize-qjs";
const MADE_FOR = "0.4";

/** Makes a component of a bundle: the engine, started with the bundle, as it lies in memory after that. */
export async function componentize(project, { source, lines }, world) {
  const { componentize: make } = await tool(project, ENGINE);
  checkEngine(project);
  // After the code, so that its lines stay where they are.
  const jsSource = `${source}\nglobalThis.__pelton_sources = ${JSON.stringify(JSON.stringify(lines))};\n`;
  try {
    // Without `sync` the component would need the component model's concurrency, which no world here uses.
    const { component } = await withWit(project, (witPath) => make({ witPath, world, jsSource, sync: true }));
    linkLateImports(component);
    return component;
  } catch (problem) {
    throw explained(problem, lines);
  }
}

function checkEngine({ require }) {
  const { version } = require(`${ENGINE}/package.json`);
  if (version.startsWith(`${MADE_FOR}.`)) return;
  throw new Refusal(
    `${ENGINE} ${version} is installed, and this SDK is made for ${MADE_FOR}; run: npm install --save-dev --save-exact ${ENGINE}@${MADE_FOR}`,
  );
}

/** The top level of all modules runs while the component is built, so its mistakes come out here. */
function explained(problem, lines) {
  const message = String(problem?.message ?? problem);
  const [, called] = /unknown import: `([^`]+)` has not been defined/.exec(message) ?? [];
  if (called !== undefined) {
    return new Refusal(
      `${nameOf(called)} was used at the top level of a module. That runs once, while the component is built, where there is no ` +
        `host: use it in the handler`,
    );
  }
  const [, thrown] = /Failed to finish JavaScript module evaluation: ([^]*)/.exec(message) ?? [];
  if (thrown !== undefined) {
    return new Refusal(
      `the top level of a module, which runs while the component is built, failed: ${placed(thrown, lines)}`,
    );
  }
  return new Refusal(`componentize-qjs: ${message}`);
}

/** An import of the contract as the SDK calls it. */
function nameOf(imported) {
  const [, name, call] = /\/([a-z-]+)@.*#(.*)/.exec(imported) ?? [];
  const known = { store: "config.get", logging: "log, or console,", outbox: "emit", random: "Math.random" };
  return known[name] ?? (name === undefined ? imported : `${name}.${call}`);
}

function placed(trace, { files, lines }) {
  return trace.trim().replaceAll(/[^\s()]*:(\d+):\d+/g, (place, line) => {
    const [file, sourceLine] = lines[line - 1] || [];
    return file === undefined ? place : `${files[file]}:${sourceLine}`;
  });
}
