//! Log lines, which the host keeps together with its own.
//!
//! ```
//! use pelton_sdk::log;
//!
//! # pelton_sdk::mock::Host::new().call(|| {
//! # let lines = [1, 2];
//! log::info!("drafted {} lines", lines.len());
//! # Ok(())
//! # });
//! ```
//!
//! The macros use the module they stand in as the context. What is printed to standard output or error is a log line
//! too where the target has them; `wasm32-unknown-unknown` has not, and drops it.
//!
//! # The crates `log` and `tracing`
//!
//! With the feature `log`, what a handler and the crates it uses log through the crate `log` goes to the host too; with
//! the feature `tracing`, so do the events of the crate `tracing`. Nothing has to be set up: it is done before the first
//! event. The target becomes the context. Fields of `tracing` follow the message as `key=value`; its spans are passed
//! over. A line costs a call to the host even if the host drops it, so crates that log much are better cut at build time,
//! by features such as `release_max_level_info`, which both crates have.

#[cfg(feature = "log")]
mod facade;
#[cfg(feature = "tracing")]
mod tracing;

use alloc::string::ToString;
use core::fmt;

use crate::host;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Each step, to follow the handler's way.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator may want to know.
    Info,
    /// Something unexpected that the handler could cope with.
    Warn,
    /// Something went wrong.
    Error,
    /// The handler cannot go on.
    Critical,
}

/// Writes one log line. The macros of this module are shorter.
pub fn log(level: Level, context: &str, message: fmt::Arguments<'_>) {
    match message.as_str() {
        Some(literal) => host::log(level, context, literal),
        None => host::log(level, context, &message.to_string()),
    }
}

/// Leads the crates `log` and `tracing` here. A program that did so itself, as a test may, is left alone.
pub(crate) fn install() {
    #[cfg(feature = "log")]
    facade::install();
    #[cfg(feature = "tracing")]
    tracing::install();
}

macro_rules! level_macros {
    ($dollar:tt $($name:ident, $exported:ident, $level:ident;)*) => {$(
        #[doc = concat!("Logs at level `", stringify!($name), "`; takes the arguments of [`format!`](alloc::format!).")]
        #[macro_export]
        #[doc(hidden)]
        macro_rules! $exported {
            ($dollar($dollar argument:tt)+) => {
                $crate::log::log($crate::log::Level::$level, ::core::module_path!(), ::core::format_args!($dollar($dollar argument)+))
            };
        }
        #[doc(inline)]
        pub use $exported as $name;
    )*};
}

level_macros! { $
    trace, __log_trace, Trace;
    debug, __log_debug, Debug;
    info, __log_info, Info;
    warn, __log_warn, Warn;
    error, __log_error, Error;
    critical, __log_critical, Critical;
}
