use crate::bindings::imports::pelton::worker::outbox;
use crate::{Error, NewEvent};

/// Emits an event to a stream. It becomes visible when, and only when, the position of the event in hand is committed.
///
/// # Errors
///
/// A permanent error with the host's reason: a stream that the handler's `allow.emit` does not name, a payload over the
/// stream's limit, a NUL character in a text. Nothing was emitted then, and the call may go on.
pub fn emit(stream: &str, event: NewEvent) -> Result<(), Error> {
    outbox::emit(stream, &event.into()).map_err(Error::Permanent)
}
