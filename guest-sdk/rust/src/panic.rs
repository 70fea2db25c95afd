use std::panic::{PanicHookInfo, set_hook};
use std::sync::Once;

use crate::bindings::imports::wasi::logging::logging::{Level, log};

/// Sends the message of a panic to the host, which takes the log line of level `critical` and context `panic` as the
/// reason of the trap that follows. On `wasm32-unknown-unknown` the message would be lost otherwise.
///
/// Called before every event, since a reactor component has no start of its own; only the first call does something.
pub(crate) fn report_to_host() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| set_hook(Box::new(report)));
}

fn report(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("panic without a message");
    match info.location() {
        Some(place) => log(Level::Critical, "panic", &format!("{message} (at {place})")),
        None => log(Level::Critical, "panic", message),
    }
}
