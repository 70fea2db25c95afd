/** Each step, to follow the handler's way. */
export function trace(...values: unknown[]): void;
/** What helps to find a fault. */
export function debug(...values: unknown[]): void;
/** What an operator may want to know. */
export function info(...values: unknown[]): void;
/** Something unexpected that the handler could cope with. */
export function warn(...values: unknown[]): void;
/** Something went wrong. */
export function error(...values: unknown[]): void;
/** The handler cannot go on. */
export function critical(...values: unknown[]): void;
