use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

/// Why an event was not handled. Its class decides what the group's failure policy does next.
///
/// There is no conversion from arbitrary errors, on purpose: whether trying again can help is the handler's to say.
/// The constructors take anything that displays, so they fit `map_err`:
///
/// ```
/// # use pelton_sdk::Error;
/// # fn amount(text: &str) -> Result<u64, Error> {
/// let amount: u64 = text.parse().map_err(Error::permanent)?;
/// # Ok(amount)
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Trying again may help.
    Transient(String),
    /// As transient, but trying earlier than after this delay is pointless. Sent to the host in whole milliseconds.
    RetryAfter(Duration, String),
    /// Trying again will not help.
    Permanent(String),
}

impl Error {
    /// A failure that may be gone the next time, as an unreachable service.
    pub fn transient(reason: impl fmt::Display) -> Self {
        Self::Transient(reason.to_string())
    }

    /// A failure that will stay, as a payload that cannot be read.
    pub fn permanent(reason: impl fmt::Display) -> Self {
        Self::Permanent(reason.to_string())
    }

    /// A failure that will stay for at least `delay`, as a service that said when to come back.
    pub fn retry_after(delay: Duration, reason: impl fmt::Display) -> Self {
        Self::RetryAfter(delay, reason.to_string())
    }

    /// The reason, without the class.
    pub fn reason(&self) -> &str {
        match self {
            Self::Transient(reason) | Self::RetryAfter(_, reason) | Self::Permanent(reason) => reason,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for Error {}
