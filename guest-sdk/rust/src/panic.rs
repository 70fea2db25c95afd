//! A panic is a log line of level `critical` and context `panic`, which the host takes as the reason of the trap that
//! follows. On `wasm32-unknown-unknown` the message would be lost otherwise.

use crate::host;
use crate::log::Level;

/// From now on, says of each panic what happened and where.
#[cfg(feature = "std")]
pub(crate) fn report_to_host() {
    std::panic::set_hook(std::boxed::Box::new(|info| {
        report(info.payload_as_str().unwrap_or("panic without a message"), info.location());
    }));
}

/// Ends a panic as it ends with `std`: its message and place become the reason of the failure.
///
/// For handlers without `std`, which have to say what a panic does:
///
/// ```ignore
/// #[panic_handler]
/// fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
///     pelton_sdk::trap(info)
/// }
/// ```
#[cfg(not(feature = "std"))]
pub fn trap(info: &core::panic::PanicInfo<'_>) -> ! {
    match info.message().as_str() {
        Some(message) => report(message, info.location()),
        None => report(&alloc::format!("{}", info.message()), info.location()),
    }
    core::arch::wasm32::unreachable()
}

fn report(message: &str, place: Option<&core::panic::Location<'_>>) {
    match place {
        Some(place) => host::log(Level::Critical, "panic", &alloc::format!("{message} (at {place})")),
        None => host::log(Level::Critical, "panic", message),
    }
}
