declare module 'pelton:worker/state@0.1.0' {
  export function get(key: string): Uint8Array | undefined;
  /**
   * An error says what is wrong with the key: empty, longer than 1024 bytes, or with a NUL character.
   */
  export function set(key: string, value: Uint8Array): void;
  export { _delete as delete };
  function _delete(key: string): void;
}
