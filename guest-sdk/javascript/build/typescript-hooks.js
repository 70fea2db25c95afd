import fs from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const esbuild = createRequire(path.join(process.cwd(), "package.json"))("esbuild");

export async function load(url, context, next) {
  if (!/^file:.*\.ts$/.test(url)) return next(url, context);
  const file = fileURLToPath(url);
  const { code } = await esbuild.transform(await fs.readFile(file, "utf8"), {
    loader: "ts",
    sourcefile: file,
    sourcemap: "inline",
    target: "es2023",
  });
  return { format: "module", shortCircuit: true, source: code };
}
