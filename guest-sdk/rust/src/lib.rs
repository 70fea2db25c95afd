//! Write event handlers for Pelton in Rust.
//!
//! A handler is a type that implements [`Handler`] (one event at a time: the place to start) or [`BatchHandler`] (many
//! at once, for bulk work), named once in [`export!`] or [`export_batch!`]:
//!
//! ```ignore
//! use pelton_sdk::{Error, Event, Handler, NewEvent, emit};
//!
//! struct Invoice;
//!
//! impl Handler for Invoice {
//!     fn handle(event: Event) -> Result<(), Error> {
//!         let order: Order = event.json()?;
//!         emit("invoices", NewEvent::json("invoice.drafted", &draft(order))?)
//!     }
//! }
//!
//! pelton_sdk::export!(Invoice);
//! ```
//!
//! What a handler emits and stores is committed together with the position of the event, or not at all: returning an
//! error throws it away. Not every target this builds for has a clock, randomness or standard output; what
//! a handler needs of its surroundings it asks for through this crate.

pub mod checkpoint;
pub mod config;
pub mod log;
pub mod progress;
pub mod state;

mod bindings;
mod error;
mod event;
mod export;
mod outbox;
mod panic;

pub use error::Error;
pub use event::{Event, NewEvent};
pub use export::{BatchHandler, Handler};
pub use outbox::emit;

/// What the export macros expand to. Not part of the interface: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::{batch_worker, export_batch_worker, export_worker, worker};
    pub use crate::export::{BatchWorker, Worker};
}
