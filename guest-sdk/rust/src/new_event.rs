use alloc::string::String;
use alloc::vec::Vec;

use crate::{Error, host};

/// Emits an event to a stream. It becomes visible when, and only when, the position of the event in hand is committed.
///
/// # Errors
///
/// A permanent error with the host's reason: a stream that the handler's `allow.emit` does not name, a payload over the
/// stream's limit, a NUL character in a text. Nothing was emitted then, and the call may go on.
pub fn emit(stream: &str, event: NewEvent) -> Result<(), Error> {
    host::emit(stream, event).map_err(Error::Permanent)
}

/// An event to [`emit`].
///
/// ```
/// # use pelton_sdk::{Error, NewEvent};
/// # fn draft(invoice: &[u64], customer: &str) -> Result<NewEvent, Error> {
/// Ok(NewEvent::json("invoice.drafted", invoice)?.key(customer).header("currency", "EUR"))
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEvent {
    /// See [`NewEvent::id`].
    pub id: Option<String>,
    /// See [`NewEvent::key`].
    pub key: Option<String>,
    /// What happened, as `invoice.drafted`.
    pub kind: String,
    /// See [`NewEvent::header`].
    pub headers: Vec<(String, String)>,
    /// Bounded by the `payload_max` of the stream it goes to.
    pub payload: Vec<u8>,
}

impl NewEvent {
    /// An event with this payload, without key, id or headers.
    pub fn new(kind: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { id: None, key: None, kind: kind.into(), headers: Vec::new(), payload: payload.into() }
    }

    /// An event with `payload` as JSON, without key, id or headers.
    ///
    /// # Errors
    ///
    /// A permanent error that names the place if `T` has no JSON form, as a map whose keys are not strings, or NaN.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(kind: impl Into<String>, payload: &T) -> Result<Self, Error> {
        let kind = kind.into();
        let payload = crate::json::write(payload, format_args!("payload of new event of kind {kind:?}"))?;
        Ok(Self::new(kind, payload))
    }

    /// An event with this text as the payload, without key, id or headers.
    pub fn text(kind: impl Into<String>, payload: impl Into<String>) -> Self {
        Self::new(kind, payload.into())
    }

    /// Sets the key: events of one key keep their order. Without a key the id decides the partition.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the id, unique within the handler's group: a second event of the same id is not appended again. The host
    /// makes one from the place of the event in hand if none is set, which suits all but effects that several events
    /// share.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds a header. A name may be added more than once.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}
