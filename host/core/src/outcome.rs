//! How a call ended. Outcomes are values, never exceptions.

use std::fmt;

use crate::Effects;

/// How the handling of events ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was handed out was handled.
    Done,
    /// The handler said that trying again may help.
    Transient(String),
    /// As transient, but not before so many milliseconds.
    RetryAfter(u64, String),
    /// The handler said that trying again will not help.
    Permanent(String),
    /// The handler trapped: a panic, an unreachable, an access out of bounds. With its own message and backtrace.
    Trapped(String),
    /// The call took longer than `limits.timeout`.
    TimedOut(String),
    /// The handler wanted more than `limits.memory`.
    OutOfMemory(String),
    /// The effects of one call were over `limits.output`.
    OutputTooLarge(String),
    /// The host broke the call off: a drain, or lost trust in its own lease. Costs no attempt.
    Interrupted,
    /// The store did not answer a read of state. Costs no attempt.
    StoreUnavailable(String),
}

impl Outcome {
    /// The class of a failure, as dead letters and `pelton test` name it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Transient(_) | Self::RetryAfter(..) => "transient",
            Self::Permanent(_) => "permanent",
            Self::Trapped(_) => "trap",
            Self::TimedOut(_) => "timeout",
            Self::OutOfMemory(_) => "memory",
            Self::OutputTooLarge(_) => "output",
            Self::Interrupted => "interrupted",
            Self::StoreUnavailable(_) => "store",
        }
    }

    /// Why, in the handler's or the host's words; empty where there is nothing to say.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Done | Self::Interrupted => "",
            Self::Transient(reason)
            | Self::RetryAfter(_, reason)
            | Self::Permanent(reason)
            | Self::Trapped(reason)
            | Self::TimedOut(reason)
            | Self::OutOfMemory(reason)
            | Self::OutputTooLarge(reason)
            | Self::StoreUnavailable(reason) => reason,
        }
    }

    /// Whether this is the handler's failure, which costs an attempt and asks the group's policy for a verdict.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Done | Self::Interrupted | Self::StoreUnavailable(_))
    }

    /// Whether the instance may be called again that was called. If not, whatever it kept in its own memory is gone with it.
    #[must_use]
    pub fn keeps_instance(&self) -> bool {
        matches!(self, Self::Done | Self::Transient(_) | Self::RetryAfter(..) | Self::Permanent(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            "" => f.write_str(self.class()),
            reason => write!(f, "{}: {reason}", self.class()),
        }
    }
}

/// What came of handing a batch to a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// How many events, from the first, were handled. Fewer than were given, and yet `Done`, if the handler's effects are
    /// so large that they should be committed first; but at least one then.
    pub handled: usize,
    /// How it ended; a failure is that of the event after those handled, if it is `located`.
    pub outcome: Outcome,
    /// Whether it is known which event failed. A batch handler that tells no progress leaves it open.
    pub located: bool,
    /// Under manual commits: the handler said at the last of the handled events that all so far may be committed.
    pub checkpoint: bool,
    /// The effects of the events that were handled, and of no other.
    pub effects: Effects,
}
