import { HandlerError } from "./error.js";

/**
 * What a handler returns is let go, unless it says that the event is not handled: an error of the SDK was to be thrown, and is;
 * a promise or an iterator has something left to do, and nobody does it.
 */
export function checkReturned(returned) {
  // An array is what `events.map(…)` makes.
  for (const value of Array.isArray(returned) ? returned : [returned]) {
    if (value instanceof HandlerError) throw value;
    if (typeof value?.then === "function") {
      throw new TypeError(
        "the handler returned a promise, and nothing waits for it; handlers are plain functions: leave out async and await",
      );
    }
    if (typeof value?.next === "function") {
      throw new TypeError(
        "the handler returned an iterator, and nothing steps through it; handlers are plain functions: write function without " +
          "the *, leave out yield, and step through what is lazy with a loop",
      );
    }
  }
}
