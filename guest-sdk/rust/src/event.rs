use crate::bindings::imports::pelton::worker::{outbox, types};

#[cfg(feature = "json")]
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
    /// attempt would read it differently.
    #[cfg(feature = "json")]
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_slice(&self.payload)
            .map_err(|problem| Error::permanent(format_args!("payload of kind {:?}: {problem}", self.kind)))
    }
}

impl From<types::Event> for Event {
    fn from(event: types::Event) -> Self {
        let types::Event { id, stream, partition, offset, key, kind, time, headers, payload, attempt } = event;
        Self { id, stream, partition, offset, key, kind, time_ms: time, headers, payload, attempt }
    }
}

/// An event to [`emit`](crate::emit).
///
/// ```ignore
/// NewEvent::json("invoice.drafted", &invoice)?.key(&order.customer).header("currency", "EUR")
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
    /// A permanent error if `T` has no JSON form, as a map whose keys are not strings.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(kind: impl Into<String>, payload: &T) -> Result<Self, Error> {
        let kind = kind.into();
        match serde_json::to_vec(payload) {
            Ok(payload) => Ok(Self::new(kind, payload)),
            Err(problem) => Err(Error::permanent(format_args!("payload of new event of kind {kind:?}: {problem}"))),
        }
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

impl From<NewEvent> for outbox::NewEvent {
    fn from(event: NewEvent) -> Self {
        let NewEvent { id, key, kind, headers, payload } = event;
        Self { id, key, kind, headers, payload }
    }
}
