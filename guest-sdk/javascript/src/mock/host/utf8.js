const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export const decodeStrictly = (bytes) => decoder.decode(bytes);
export const encodeWellFormed = (text) => encoder.encode(text);
