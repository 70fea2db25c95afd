// Interfaces that are linked late.
//
// The component is started once while it is built, with stand-ins for what it imports. These are made import by import, and a
// resource that two of them share (wasi:http's bodies are wasi:io's streams) is not the same resource then, if one has a
// real implementation there; the start is refused. So these packages go by another name until that is over, which nobody
// implements, and their imports get their own names back in the component. Both names have the same length.

const LATE = /^wasi:(http|io|clocks)\//;

/** An esbuild plugin. */
export const lateImports = {
  name: "late imports",
  setup(build) {
    build.onResolve({ filter: LATE }, ({ path }) => ({ path: path.replace("wasi:", "late:"), external: true }));
  },
};

export const isLate = (specifier) => specifier.startsWith("late:");

/** The WIT of these packages, under their other name. */
export function lateWit(wit) {
  return wit.replaceAll(/\bwasi:(http|io|clocks)\b/g, "late:$1");
}

const IMPORT_SECTION = 10;

/** Gives the imports of a component their names back. Changes it in place. */
export function linkLateImports(component) {
  // After the magic number and the version: sections of an id, a length and as many bytes.
  for (let at = 8; at < component.length;) {
    const id = component[at];
    const [length, begin] = unsigned(component, at + 1);
    at = begin + length;
    if (id === IMPORT_SECTION) rename(component.subarray(begin, at));
  }
}

function rename(section) {
  for (let at = section.indexOf("late:"); at !== -1; at = section.indexOf("late:", at)) section.write("wasi:", at);
}

/** A number in LEB128, and where it ends. */
function unsigned(bytes, at) {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return [value, at];
  }
}
