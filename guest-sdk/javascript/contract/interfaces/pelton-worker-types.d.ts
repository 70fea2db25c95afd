declare module 'pelton:worker/types@0.1.0' {
  /**
   * One event as it stands in its stream.
   */
  export interface Event {
    /**
     * The same at every delivery: the idempotency key for calls outside.
     */
    id: string,
    stream: string,
    partition: number,
    offset: number,
    key?: string,
    kind: string,
    /**
     * When it was appended, in milliseconds since the Unix epoch, UTC.
     */
    time: number,
    headers: Array<[string, string]>,
    payload: Uint8Array,
    /**
     * 1 at the first delivery; one more for each attempt that failed.
     */
    attempt: number,
  }
  export type Error = ErrorTransient | ErrorRetryAfter | ErrorPermanent;
  /**
   * Trying again may help.
   */
  export interface ErrorTransient {
    tag: 'transient',
    val: string,
  }
  /**
   * As transient, but not before so many milliseconds.
   */
  export interface ErrorRetryAfter {
    tag: 'retry-after',
    val: [number, string],
  }
  /**
   * Trying again will not help.
   */
  export interface ErrorPermanent {
    tag: 'permanent',
    val: string,
  }
}
