export * as checkpoint from "./checkpoint.js";
export * as config from "./config.js";
export * as log from "./log.js";
export * as progress from "./progress.js";
export * as state from "./state.js";
export { emit } from "./emit.js";
export { HandlerError, permanent, retryAfter, transient } from "./error.js";
export { defineBatchHandler, defineHandler } from "./handler.js";
export * as utf8 from "./utf8.js";
