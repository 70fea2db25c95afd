declare module 'pelton:worker/checkpoint@0.1.0' {
  /**
   * Everything up to and including the event in hand may be committed once `handle` returned ok.
   */
  export function commit(): void;
}
