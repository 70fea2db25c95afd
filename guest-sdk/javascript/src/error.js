/** Why an event was not handled. Anything else that is thrown is a mistake in the program, and ends as a trap. */
export class HandlerError extends Error {
  constructor(outcome, reason, { cause, delayMs } = {}) {
    super(reasonOf(reason), { cause: cause ?? (reason instanceof Error ? reason : undefined) });
    this.name = "HandlerError";
    this.outcome = outcome;
    this.delayMs = delayMs;
  }
}

export function transient(reason, { cause } = {}) {
  return new HandlerError("transient", reason, { cause });
}

export function retryAfter(delayMs, reason, { cause } = {}) {
  if (!(delayMs >= 0)) {
    throw new TypeError(`retryAfter: the delay must be a number of milliseconds, not ${delayMs}`);
  }
  // The contract counts whole milliseconds, and a number counts no further than this.
  const whole = Math.min(Math.ceil(delayMs), Number.MAX_SAFE_INTEGER);
  return new HandlerError("transient", reason, { cause, delayMs: whole });
}

export function permanent(reason, { cause } = {}) {
  return new HandlerError("permanent", reason, { cause });
}

/** The SDK's error for what the host refused: its reason, as it is. What it did not refuse goes on as it came. */
export function refused(problem) {
  // The engine wraps the error value of an import into an exception, as its `payload`.
  const reason = problem?.payload;
  return typeof reason === "string" ? permanent(reason) : problem;
}

function reasonOf(reason) {
  return reason instanceof Error ? reason.message || reason.name : String(reason);
}
