import { line } from "./lines.js";

const CONTEXT = "handler";

export const trace = (...values) => line("trace", CONTEXT, values);
export const debug = (...values) => line("debug", CONTEXT, values);
export const info = (...values) => line("info", CONTEXT, values);
export const warn = (...values) => line("warn", CONTEXT, values);
export const error = (...values) => line("error", CONTEXT, values);
export const critical = (...values) => line("critical", CONTEXT, values);
