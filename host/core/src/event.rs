//! An event, as it stands in a stream and as somebody asks for it to be appended.

use crate::{Offset, Timestamp};

/// The longest id, key or kind, in bytes of UTF-8. They are indexed, and PostgreSQL refuses index rows over a third of a
/// page.
pub const NAME_BYTES_MAX: usize = 1024;

/// The most that all header names and values of an event may take together, in bytes.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// One event as it stands in a partition. Which stream and partition is known from where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the partition.
    pub offset: Offset,
    /// The same at every delivery; unique within its partition for as long as the event is retained.
    pub id: String,
    /// Events of one key keep their order.
    pub key: Option<String>,
    /// What happened, for people and filters; may be empty.
    pub kind: String,
    /// When it was appended.
    pub time: Timestamp,
    /// Names and values, in the order they were given; a name may come twice.
    pub headers: Vec<(String, String)>,
    /// The body. Nothing is assumed of it.
    pub payload: Vec<u8>,
}

/// An event that somebody asks to be appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// An event whose id its partition holds already is not appended again.
    pub id: String,
    /// Decides the partition; without a key, the id does.
    pub key: Option<String>,
    /// What happened; may be empty.
    pub kind: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub payload: Vec<u8>,
}

/// Why an event cannot be appended to a stream, whatever the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventFault {
    /// The payload is over the stream's `payload_max`.
    #[error("payload has {found} bytes, over the stream's payload_max of {limit}; send less, or raise payload_max")]
    PayloadTooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: u64,
    },
    /// The id is empty.
    #[error("id is empty; expected 1 to {NAME_BYTES_MAX} bytes")]
    EmptyId,
    /// An id, key or kind is too long to be indexed.
    #[error("{field} has {found} bytes; expected at most {limit}")]
    TooLong {
        /// Which one.
        field: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// PostgreSQL has no text with NUL in it, so no store takes one.
    #[error("{field} holds a NUL character, which no store can keep as text; remove it")]
    Nul {
        /// Which one.
        field: &'static str,
    },
}

impl Event {
    /// Bytes of everything in it: what limits on reads count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes(&self.id, self.key.as_deref(), &self.kind, &self.headers, &self.payload)
    }
}

impl NewEvent {
    /// Checks everything a store could refuse, so that a commit cannot fail because of one handler's data.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self, payload_bytes_max: u64) -> Result<(), EventFault> {
        if self.id.is_empty() {
            return Err(EventFault::EmptyId);
        }
        text("id", &self.id, NAME_BYTES_MAX)?;
        text("key", self.key.as_deref().unwrap_or_default(), NAME_BYTES_MAX)?;
        text("kind", &self.kind, NAME_BYTES_MAX)?;
        let mut headers_bytes = 0;
        for (name, value) in &self.headers {
            headers_bytes += name.len() + value.len();
            text("headers", name, HEADERS_BYTES_MAX)?;
            text("headers", value, HEADERS_BYTES_MAX)?;
        }
        if headers_bytes > HEADERS_BYTES_MAX {
            return Err(EventFault::TooLong { field: "headers", found: headers_bytes, limit: HEADERS_BYTES_MAX });
        }
        if self.payload.len() as u64 > payload_bytes_max {
            return Err(EventFault::PayloadTooLarge { found: self.payload.len(), limit: payload_bytes_max });
        }
        Ok(())
    }

    /// What decides the partition: the key, or the id where there is none.
    #[must_use]
    pub fn routing(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.id)
    }

    /// Bytes of everything in it: what limits on output and memory count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes(&self.id, self.key.as_deref(), &self.kind, &self.headers, &self.payload)
    }
}

fn bytes(id: &str, key: Option<&str>, kind: &str, headers: &[(String, String)], payload: &[u8]) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    id.len() + key.map_or(0, str::len) + kind.len() + headers + payload.len()
}

fn text(field: &'static str, value: &str, limit: usize) -> Result<(), EventFault> {
    if value.len() > limit {
        return Err(EventFault::TooLong { field, found: value.len(), limit });
    }
    if value.contains('\0') {
        return Err(EventFault::Nul { field });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NewEvent {
        NewEvent { id: "1".into(), payload: b"0123456789".to_vec(), ..NewEvent::default() }
    }

    #[test]
    fn a_payload_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(event().check(10), Ok(()));
        assert_eq!(event().check(9), Err(EventFault::PayloadTooLarge { found: 10, limit: 9 }));
    }

    #[test]
    fn what_postgresql_would_refuse_is_refused_before_any_store_sees_it() {
        let nul = NewEvent { key: Some("a\0b".into()), ..event() };
        assert_eq!(nul.check(10), Err(EventFault::Nul { field: "key" }));
        let long = NewEvent { id: "x".repeat(NAME_BYTES_MAX + 1), ..event() };
        assert!(matches!(long.check(10), Err(EventFault::TooLong { field: "id", .. })));
        let headers = NewEvent { headers: vec![("n".into(), "v".repeat(HEADERS_BYTES_MAX))], ..event() };
        assert!(matches!(headers.check(10), Err(EventFault::TooLong { field: "headers", .. })));
    }
}
