use alloc::vec::Vec;

use crate::{Error, Event};

/// Handles one event at a time: the host knows exactly which one failed. The place to start.
///
/// [`#[handler]`](macro@crate::handler) writes this and [`export!`](crate::export) for a function.
///
/// ```
/// use pelton_sdk::{Error, Event, Handler, NewEvent, emit};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn handle(event: Event) -> Result<(), Error> {
///         emit("echoes", NewEvent::new(event.kind, event.payload))
///     }
/// }
///
/// pelton_sdk::export!(Echo);
/// # fn main() {}
/// ```
pub trait Handler {
    /// Handles one event. An error throws away what was emitted and stored for it.
    ///
    /// # Errors
    ///
    /// Any, see [`Error`]: the group's failure policy decides what happens to the event.
    fn handle(event: Event) -> Result<(), Error>;
}

/// Handles many events at once, for bulk work.
///
/// [`#[batch_handler]`](macro@crate::batch_handler) writes this and [`export_batch!`](crate::export_batch) for a function.
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
            // Outside of WebAssembly there is nobody to export to, but the type has to fit there too.
            const _: () = $crate::__private::is_handler::<$handler>();
            #[cfg(target_arch = "wasm32")]
            type Guest = $crate::__private::Worker<$handler>;
            #[cfg(target_arch = "wasm32")]
    $crate::__private::export_worker!(Guest with_types_in $crate::__private::worker);
        };
    };
}

/// Makes a type that implements [`BatchHandler`] the component's handler. To be used once, at the top of the crate.
#[macro_export]
macro_rules! export_batch {
    ($handler:ty) => {
        const _: () = {
            const _: () = $crate::__private::is_batch_handler::<$handler>();
            #[cfg(target_arch = "wasm32")]
            type Guest = $crate::__private::BatchWorker<$handler>;
            #[cfg(target_arch = "wasm32")]
    $crate::__private::export_batch_worker!(Guest with_types_in $crate::__private::batch_worker);
        };
    };
}

#[doc(hidden)]
pub const fn is_handler<H: Handler>() {}

#[doc(hidden)]
pub const fn is_batch_handler<H: BatchHandler>() {}
