export function encode(text: string): Uint8Array;
/** What is no UTF-8 is a permanent error, whose reason begins with `what`. */
export function decode(bytes: Uint8Array, what?: string): string;
