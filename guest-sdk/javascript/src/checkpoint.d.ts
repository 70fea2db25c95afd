/**
 * Lets everything up to and including the event in hand be committed once the handler returned. Without effect under any
 * other commit strategy. The world of a batch handler does not have it.
 */
export function commit(): void;
