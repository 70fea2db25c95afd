use alloc::string::String;
use alloc::vec::Vec;

use crate::Error;

/// One event as it stands in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The same at every delivery: the idempotency key for calls outside.
    pub id: String,
    /// The stream it was read from.
    pub stream: String,
    /// Its partition, which with [`offset`](Self::offset) is its place in the stream.
    pub partition: u32,
    /// Its place in the partition: dense, from 0, never reused.
    pub offset: u64,
    /// Events of one key arrive in order.
    pub key: Option<String>,
    /// What happened, as `order.placed`.
    pub kind: String,
    /// When it was appended, in milliseconds since the Unix epoch, UTC.
    pub time_ms: u64,
    /// In the order they were appended in. A name may occur more than once.
    pub headers: Vec<(String, String)>,
    /// The payload as it was appended, usually JSON.
    pub payload: Vec<u8>,
    /// 1 at the first delivery; one more for each attempt that failed.
    pub attempt: u32,
}

impl Event {
    /// The value of the first header of this name. Names are compared byte by byte.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The payload, read as JSON.
    ///
    /// # Errors
    ///
    /// A *permanent* error that names the problem, and where it is, if the payload is not JSON or not a `T`: no other
    /// attempt would read it differently. As `payload of kind "order.placed": customer.name: invalid type: …`.
    #[cfg(feature = "json")]
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        crate::json::read(&self.payload, format_args!("payload of kind {:?}", self.kind))
    }

    /// The payload, read as UTF-8.
    ///
    /// # Errors
    ///
    /// A *permanent* error that says where the payload is no such text.
    pub fn text(&self) -> Result<&str, Error> {
        core::str::from_utf8(&self.payload)
            .map_err(|problem| Error::permanent(format_args!("payload of kind {:?}: {problem}", self.kind)))
    }
}
