/// <reference path="./pelton-worker-types.d.ts" />
declare module 'pelton:worker/handler@0.1.0' {
  export function handle(event: Event): void;
  export type Event = import('pelton:worker/types@0.1.0').Event;
  export type Error = import('pelton:worker/types@0.1.0').Error;
}
