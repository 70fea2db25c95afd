// The engine has neither TextEncoder nor TextDecoder, and a loop over a megabyte takes it a fifth of a second. So all the
// work is done by functions of the engine itself, on strings that hold one byte in each character: base64 leads from bytes to
// such a string and back, and percent encoding, which is UTF-8 too and refuses what is not, does the rest.

const BEYOND_ASCII = /[^\0-\x7f]/;

export function decodeStrictly(bytes) {
  const byteString = atob(bytes.toBase64());
  return BEYOND_ASCII.test(byteString) ? decodeURIComponent(escape(byteString)) : byteString;
}

export function encodeWellFormed(text) {
  const byteString = BEYOND_ASCII.test(text) ? unescape(encodeURIComponent(text)) : text;
  return Uint8Array.fromBase64(btoa(byteString));
}
