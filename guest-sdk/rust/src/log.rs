//! Log lines, which the host keeps together with its own.
//!
//! ```ignore
//! use pelton_sdk::log;
//!
//! log::info!("drafted {} lines", lines.len());
//! ```
//!
//! The macros use the module they stand in as the context. What is printed to standard output or error is a log line
//! too where the target has them; `wasm32-unknown-unknown` has not, and drops it.

use std::fmt;

use crate::bindings::imports::wasi::logging::logging;

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
    let level = match level {
        Level::Trace => logging::Level::Trace,
        Level::Debug => logging::Level::Debug,
        Level::Info => logging::Level::Info,
        Level::Warn => logging::Level::Warn,
        Level::Error => logging::Level::Error,
        Level::Critical => logging::Level::Critical,
    };
    match message.as_str() {
        Some(literal) => logging::log(level, context, literal),
        None => logging::log(level, context, &message.to_string()),
    }
}

macro_rules! level_macros {
    ($dollar:tt $($name:ident, $exported:ident, $level:ident;)*) => {$(
        #[doc = concat!("Logs at level `", stringify!($name), "`; takes the arguments of [`format!`].")]
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
