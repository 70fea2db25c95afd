/// <reference path="./interfaces/pelton-worker-batch-handler.d.ts" />
/// <reference path="./interfaces/pelton-worker-outbox.d.ts" />
/// <reference path="./interfaces/pelton-worker-progress.d.ts" />
/// <reference path="./interfaces/pelton-worker-state.d.ts" />
/// <reference path="./interfaces/pelton-worker-types.d.ts" />
/// <reference path="./interfaces/wasi-config-store.d.ts" />
/// <reference path="./interfaces/wasi-logging-logging.d.ts" />
declare module 'pelton:worker/batch-worker@0.1.0' {
  export type * as PeltonWorkerOutbox010 from 'pelton:worker/outbox@0.1.0'; // import pelton:worker/outbox@0.1.0
  export type * as PeltonWorkerProgress010 from 'pelton:worker/progress@0.1.0'; // import pelton:worker/progress@0.1.0
  export type * as PeltonWorkerState010 from 'pelton:worker/state@0.1.0'; // import pelton:worker/state@0.1.0
  export type * as PeltonWorkerTypes010 from 'pelton:worker/types@0.1.0'; // import pelton:worker/types@0.1.0
  export type * as WasiConfigStore020Rc1 from 'wasi:config/store@0.2.0-rc.1'; // import wasi:config/store@0.2.0-rc.1
  export type * as WasiLoggingLogging010Draft from 'wasi:logging/logging@0.1.0-draft'; // import wasi:logging/logging@0.1.0-draft
  export * as batchHandler from 'pelton:worker/batch-handler@0.1.0'; // export pelton:worker/batch-handler@0.1.0
}
