//! Write event handlers for Pelton in Rust.
//!
//! A handler is a function with the attribute [`#[handler]`](macro@handler): it is given one event at a time, and its
//! payload read as JSON if it asks for it. The place to start.
//!
//! ```
//! use pelton_sdk::{Error, Event, NewEvent, emit, log};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     customer: String,
//!     amount: u64,
//! }
//!
//! #[pelton_sdk::handler]
//! fn invoice(order: Order, event: &Event) -> Result<(), Error> {
//!     log::info!("order {} of {}", event.id, order.customer);
//!     emit("invoices", NewEvent::json("invoice.drafted", &order.amount)?.key(order.customer))
//! }
//! # fn main() {}
//! ```
//!
//! What a handler emits and stores is committed together with the position of the event, or not at all: returning an
//! error throws it away. Bulk work takes many events at once, with [`#[batch_handler]`](macro@batch_handler). The traits
//! behind the attributes, [`Handler`] and [`BatchHandler`], can be implemented by hand too.
//!
//! Not every target this builds for has a clock, randomness or standard output; what a handler needs of its surroundings
//! it asks for through this crate. Outside of WebAssembly a mock stands in for the host, so that `cargo test` tests a
//! handler where it is written: see `mock`.
//!
//! # Features
//!
//! | feature | | brings |
//! | --- | --- | --- |
//! | `std` | on | panics are reported to the host; without it, the crate needs `core` and `alloc` only |
//! | `json` | on | typed payloads, JSON events and state, through `serde_json` |
//! | `macros` | on | the attributes `#[handler]` and `#[batch_handler]` |
//! | `log` | | what is logged through the crate `log` goes to the host |
//! | `tracing` | | events of the crate `tracing` go to the host |

#![no_std]

extern crate alloc;
#[cfg(any(feature = "std", not(target_arch = "wasm32")))]
extern crate std;

pub mod checkpoint;
pub mod config;
pub mod log;
#[cfg(not(target_arch = "wasm32"))]
pub mod mock;
pub mod progress;
pub mod state;

#[cfg(target_arch = "wasm32")]
mod contract;
mod error;
mod event;
mod export;
mod host;
#[cfg(feature = "json")]
mod json;
mod new_event;
#[cfg(target_arch = "wasm32")]
mod panic;

pub use error::Error;
pub use event::Event;
pub use export::{BatchHandler, Handler};
pub use new_event::{NewEvent, emit};
#[cfg(all(target_arch = "wasm32", not(feature = "std")))]
pub use panic::trap;
#[cfg(feature = "macros")]
pub use pelton_sdk_macros::{batch_handler, handler};

/// What the export macros expand to. Not part of the interface: it changes without notice.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::contract::{BatchWorker, Worker, batch_worker, export_batch_worker, export_worker, worker};
    pub use alloc::vec::Vec;

    pub use crate::export::{is_batch_handler, is_handler};
}
