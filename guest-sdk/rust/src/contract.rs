//! The contract of `wit/`, in WebAssembly: its imports, and the two worlds a handler can be exported as.

mod bindings;
mod exports;
pub(crate) mod imports;

pub use bindings::{batch_worker, export_batch_worker, export_worker, worker};
pub use exports::{BatchWorker, Worker};
