import path from "node:path";
import { fileURLToPath } from "node:url";

const SDK = fileURLToPath(new URL("../..", import.meta.url));
const FRAME = /^\s*at (?:(.*) \()?(?:file:\/\/)?(\/[^()]*):(\d+):\d+\)?$/;

export function frames({ stack }) {
  const own = [];
  for (const row of String(stack).split("\n")) {
    const [, name, file, line] = FRAME.exec(row) ?? [];
    if (file === undefined || file.startsWith(SDK) || file.includes("/node_modules/")) continue;
    const place = `${path.relative(process.cwd(), file)}:${line}`;
    own.push(name ? `${name} (${place})` : place);
  }
  return own;
}
