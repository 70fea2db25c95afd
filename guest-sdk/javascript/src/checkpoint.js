import * as host from "#host/checkpoint.js";

/** Lets everything up to and including the event in hand be committed once the handler returned. */
export function commit() {
  host.commit();
}
