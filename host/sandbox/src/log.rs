//! Where log lines of guests go.

use pelton_core::Offset;

/// How much a line matters; the levels of `wasi:logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens. Standard output is logged at this level.
    Info,
    /// What should not happen. Standard error is logged at this level.
    Warn,
    /// What failed.
    Error,
    /// What brings the handler down; with the context `panic`, the reason of the trap that follows.
    Critical,
}

impl LogLevel {
    /// Its name in `wasi:logging`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// One line of a guest. The texts are bounded, but otherwise as the guest wrote them: escape them before a terminal
/// shows them.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// How much it matters.
    pub level: LogLevel,
    /// Where in the guest it comes from; `stdout` and `stderr` for those, `pelton` for the host's own remarks.
    pub context: &'a str,
    /// What it says.
    pub message: &'a str,
    /// The event in hand, if it is known.
    pub offset: Option<Offset>,
}

/// Takes log lines. Called on the worker's task in the middle of a call, so it must neither block nor fail.
pub trait LogSink: Send + Sync {
    /// Takes a line.
    fn log(&self, line: LogLine<'_>);
}
