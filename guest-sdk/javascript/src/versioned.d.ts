import type { Schema } from "./schema.js";

/** State in a format that later versions of the code may change. */
export interface Versioned<T> {
  /** The value of `key` in this version's format, if there is one. */
  get(key: string): T | undefined;
  /** Sets the value of `key`, in this version's format. What has no JSON form is a permanent error. */
  set(key: string, value: T): void;
}

export interface Format<T> {
  /** The version of the format that this code writes: 1, and one more with each change, up to 4294967295. */
  version: number;
  /** The oldest version of the code that can still read what this one writes; `version` itself if nothing is said. */
  readableFrom?: number;
  /**
   * The step from each older version to the next: `{ 1: (old) => new }` makes a value of version 1 one of version 2. Version 0
   * is what was stored before there were versions. An error of the SDK that a step throws is the handler's; any other exception
   * is a mistake in the program.
   */
  upgrade?: { readonly [from: number]: (value: any) => unknown };
  /** Checks what was read, after the steps. */
  schema?: Schema<T>;
}

/**
 * State that outlives versions of the code: a rollback makes old code read what new code wrote. What newer code wrote and this
 * code cannot read is a transient error, so that the event waits. The type is the schema's, or the one that is named:
 * `versioned<Profile>({ … })`.
 */
export function versioned<T = any>(format: Format<T>): Versioned<T>;
