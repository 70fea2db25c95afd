declare module 'pelton:worker/outbox@0.1.0' {
  /**
   * An error says what is wrong with the request: a stream that `allow.emit` does not name, a payload over the stream's
   * limit, a NUL character in a text. Nothing was emitted then, and the call may go on.
   */
  export function emit(stream: string, event: NewEvent): void;
  export interface NewEvent {
    /**
     * Unique within the handler's group: a second event of the same id is not appended again. Made by the host from the
     * place of the event in hand if absent.
     */
    id?: string,
    /**
     * Events of one key keep their order. Without a key the id decides the partition.
     */
    key?: string,
    kind: string,
    headers: Array<[string, string]>,
    payload: Uint8Array,
  }
}
