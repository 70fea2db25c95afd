// The build puts the line of the source beside each line of the bundle. Lines of the SDK and of libraries have none, and are
// left out: `pelton build` knows what is the handler's own.

const FRAME = /^\s*at (?:(.*) \()?[^()]*:(\d+):\d+\)?$/;

export function frames({ stack }) {
  // A text, because a table would be kept in memory by every instance.
  const { files, lines } = JSON.parse(globalThis.__pelton_sources ?? '{"files":[],"lines":[]}');
  const own = [];
  for (const row of String(stack).split("\n")) {
    const [, name, line] = FRAME.exec(row) ?? [];
    const [file, sourceLine] = lines[line - 1] || [];
    if (file === undefined) continue;
    const place = `${files[file]}:${sourceLine}`;
    own.push(name && name !== "<anonymous>" ? `${name} (${place})` : place);
  }
  return own;
}
