import * as logging from "#host/logging.js";
import "#host/globals.js";
import { HandlerError } from "./error.js";
import { Event } from "./event.js";
import { show } from "./lines.js";
import { checkReturned } from "./returned.js";
import { summarised } from "./stack.js";

/** Handles one event at a time: the host knows exactly which one failed. To be exported as `handler`. */
export function defineHandler(handle) {
  return { handle: (event) => guarded(() => handle(new Event(event))) };
}

/** Handles many events at once, for bulk work. To be exported as `batchHandler`. */
export function defineBatchHandler(handleBatch) {
  return { handleBatch: (events) => guarded(() => handleBatch(events.map((event) => new Event(event)))) };
}

function guarded(call) {
  try {
    checkReturned(call());
  } catch (problem) {
    throw problem instanceof HandlerError ? contractError(problem) : reported(problem);
  }
}

/** The contract's errors are thrown as plain values. */
function contractError({ outcome, message, delayMs }) {
  const reason = message.toWellFormed();
  return delayMs === undefined ? { tag: outcome, val: reason } : { tag: "retry-after", val: [delayMs, reason] };
}

/**
 * A mistake in the program, on its way to become a trap. The host takes the line for the reason, and what the engine prints
 * for nothing but a line.
 */
function reported(problem) {
  const summary = problem instanceof Error ? summarised(problem) : `uncaught ${show(problem)}`;
  logging.log("critical", "panic", summary.toWellFormed());
  // Whatever is thrown in the shape of the contract's errors, the engine takes for one.
  return problem?.tag === undefined && problem?.payload === undefined
    ? problem
    : new Error(summary, { cause: problem });
}
