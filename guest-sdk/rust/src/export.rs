use std::marker::PhantomData;

use crate::bindings::imports::pelton::worker::types;
use crate::bindings::{batch_worker, worker};
use crate::{Error, Event, panic};

/// Handles one event at a time: the host knows exactly which one failed. The place to start.
pub trait Handler {
    /// Handles one event. An error throws away what was emitted and stored for it.
    ///
    /// # Errors
    ///
    /// Any, see [`Error`]: the group's failure policy decides what happens to the event.
    fn handle(event: Event) -> Result<(), Error>;
}

/// Handles many events at once, for bulk work.
pub trait BatchHandler {
    /// Handles the next events of one partition, in order and at least one.
    /// [`progress::handled`](crate::progress::handled) says how far it got.
    ///
    /// # Errors
    ///
    /// Any, see [`Error`]: it is the failure of the first event that was not reported as handled.
    fn handle_batch(events: Vec<Event>) -> Result<(), Error>;
}

/// Makes a type that implements [`Handler`] the component's handler. To be used once, at the top of the crate.
#[macro_export]
macro_rules! export {
    ($handler:ty) => {
        const _: () = {
            type Guest = $crate::__private::Worker<$handler>;
    $crate::__private::export_worker!(Guest with_types_in $crate::__private::worker);
        };
    };
}

/// Makes a type that implements [`BatchHandler`] the component's handler. To be used once, at the top of the crate.
#[macro_export]
macro_rules! export_batch {
    ($handler:ty) => {
        const _: () = {
            type Guest = $crate::__private::BatchWorker<$handler>;
    $crate::__private::export_batch_worker!(Guest with_types_in $crate::__private::batch_worker);
        };
    };
}

/// Speaks the world `worker` for a [`Handler`].
#[doc(hidden)]
pub struct Worker<H>(PhantomData<H>);

impl<H: Handler> worker::exports::pelton::worker::handler::Guest for Worker<H> {
    fn handle(event: types::Event) -> Result<(), types::Error> {
        panic::report_to_host();
        H::handle(event.into()).map_err(into_guest)
    }
}

/// Speaks the world `batch-worker` for a [`BatchHandler`].
#[doc(hidden)]
pub struct BatchWorker<H>(PhantomData<H>);

impl<H: BatchHandler> batch_worker::exports::pelton::worker::batch_handler::Guest for BatchWorker<H> {
    fn handle_batch(events: Vec<types::Event>) -> Result<(), types::Error> {
        panic::report_to_host();
        H::handle_batch(events.into_iter().map(Event::from).collect()).map_err(into_guest)
    }
}

fn into_guest(error: Error) -> types::Error {
    match error {
        Error::Transient(reason) => types::Error::Transient(reason),
        Error::RetryAfter(delay, reason) => {
            types::Error::RetryAfter((u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), reason))
        }
        Error::Permanent(reason) => types::Error::Permanent(reason),
    }
}
