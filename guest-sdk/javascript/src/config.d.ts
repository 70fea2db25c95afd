/** The value of `key`, if the handler was given one. */
export function get(key: string): string | undefined;
