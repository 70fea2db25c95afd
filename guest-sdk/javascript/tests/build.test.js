// The parts of the build that need none of its tools.

import assert from "node:assert/strict";
import { test } from "node:test";

import { chooseWorld } from "../build/contract.js";
import { lateWit, linkLateImports } from "../build/late.js";
import { sourceLines } from "../build/sources.js";

const project = { world: "worker", entry: "handler.js" };
const code = { exports: ["handler"], imports: ["pelton:worker/outbox@0.1.0"] };

test("the world follows from the manifest and what is imported", () => {
  assert.equal(chooseWorld(project, code), "worker");
  assert.equal(chooseWorld(project, { ...code, imports: ["late:http/types@0.2.4"] }), "worker-http");
  assert.equal(
    chooseWorld({ ...project, world: "batch-worker" }, { exports: ["batchHandler"], imports: [] }),
    "batch-worker",
  );
});

test("code for another world is refused with what to do", () => {
  const refusal = (world, more) => {
    try {
      chooseWorld({ ...project, world }, { ...code, ...more });
    } catch ({ message }) {
      return message;
    }
    return undefined;
  };
  assert.match(refusal("worker", { exports: ["batchHandler"] }), /set "world": "batch-worker" in package\.json/);
  assert.match(refusal("worker", { exports: [] }), /write: export const handler = defineHandler/);
  assert.equal(
    refusal("worker", { imports: ["pelton:worker/progress@0.1.0"] }),
    "progress.handled belongs to the world batch-worker, and package.json says worker",
  );
  assert.equal(refusal("wroker"), 'package.json: world "wroker" is not known; known are: worker, batch-worker');
});

test("only the imports of a component get their names back", () => {
  const section = (id, text) => Buffer.concat([Buffer.of(id, text.length), Buffer.from(text)]);
  const component = Buffer.concat([
    Buffer.alloc(8),
    section(1, "late:http"),
    section(10, "..late:http late:io"),
    section(0, "late:"),
  ]);
  linkLateImports(component);
  assert.equal(component.subarray(8).toString("latin1"), "\x01\x09late:http\x0a\x13..wasi:http wasi:io\x00\x05late:");
});

test("only what is linked late has another name in the WIT", () => {
  assert.equal(
    lateWit("use wasi:io/poll; import wasi:logging/logging;"),
    "use late:io/poll; import wasi:logging/logging;",
  );
});

test("lines of the handler's own sources are found, and no others", () => {
  // Line 1 from a library, line 2 and 4 from lines 3 and 2 of the handler, line 3 from nowhere.
  const map = { sources: ["node_modules/lib/index.js", "handler.js"], mappings: "AAAA;ACEA;;AADA" };
  assert.deepEqual(sourceLines("/project", map).lines, [0, [1, 3], 0, [1, 2]]);
});
