//! What the host calls.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};

use super::bindings::all_imports::pelton::worker::types;
use super::bindings::{batch_worker, worker};
use crate::{BatchHandler, Error, Event, Handler};

/// Speaks the world `worker` for a [`Handler`].
#[doc(hidden)]
pub struct Worker<H>(PhantomData<H>);

impl<H: Handler> worker::exports::pelton::worker::handler::Guest for Worker<H> {
    fn handle(event: types::Event) -> Result<(), types::Error> {
        start();
        H::handle(event.into()).map_err(types::Error::from)
    }
}

/// Speaks the world `batch-worker` for a [`BatchHandler`].
#[doc(hidden)]
pub struct BatchWorker<H>(PhantomData<H>);

impl<H: BatchHandler> batch_worker::exports::pelton::worker::batch_handler::Guest for BatchWorker<H> {
    fn handle_batch(events: Vec<types::Event>) -> Result<(), types::Error> {
        start();
        H::handle_batch(events.into_iter().map(Event::from).collect()).map_err(types::Error::from)
    }
}

/// Sets up what an instance needs once. Called before every event, since a reactor component has no start of its own.
fn start() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if !STARTED.swap(true, Ordering::Relaxed) {
        #[cfg(feature = "std")]
        crate::panic::report_to_host();
        crate::log::install();
    }
}

impl From<types::Event> for Event {
    fn from(event: types::Event) -> Self {
        let types::Event { id, stream, partition, offset, key, kind, time, headers, payload, attempt } = event;
        Self { id, stream, partition, offset, key, kind, time_ms: time, headers, payload, attempt }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Transient(reason) => Self::Transient(reason),
            Error::RetryAfter(delay, reason) => {
                Self::RetryAfter((u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), reason))
            }
            Error::Permanent(reason) => Self::Permanent(reason),
        }
    }
}
