//! A host for tests: what a handler asks for goes here outside of WebAssembly, so `cargo test` runs it as it is.
//!
//! ```
//! use pelton_sdk::mock::Host;
//! use pelton_sdk::{Error, Event, NewEvent, emit, state};
//!
//! #[pelton_sdk::handler]
//! fn count(event: &Event) -> Result<(), Error> {
//!     let count = state::get_json("count")?.unwrap_or(0) + 1;
//!     state::set_json("count", &count)?;
//!     emit("counts", NewEvent::json("counted", &count)?.key(&event.id))
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let mut host = Host::new();
//! host.handle::<count>(NewEvent::text("visit", "").id("first"))?;
//! host.handle::<count>(NewEvent::text("visit", "").id("second"))?;
//!
//! assert_eq!(host.state("count"), Some(&b"2"[..]));
//! assert_eq!(host.emitted("counts")[1], NewEvent::text("counted", "2").key("second"));
//! # Ok(())
//! # }
//! ```
//!
//! `#[handler]` makes a *type* of the function's name as well, which implements [`Handler`] and reads the payload; that is
//! what [`Host::handle`] takes. [`Host::call`] runs any other code. Either way the host does what the real one does: what is
//! emitted and stored in a call that fails, or panics, is thrown away.
//!
//! Limits in time, memory and output are not held here; `pelton test` holds them, with the component itself.

mod call;
pub(crate) mod imports;
mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

use crate::log::Level;
use crate::{BatchHandler, Error, Event, Handler, NewEvent};

/// What a handler sees of the world, and what became of what it asked for.
#[derive(Debug, Clone, Default)]
pub struct Host {
    config: BTreeMap<String, String>,
    /// All streams if `None`.
    allow_emit: Option<BTreeSet<String>>,
    state: BTreeMap<String, Vec<u8>>,
    emitted: BTreeMap<String, Vec<NewEvent>>,
    logs: Vec<LogLine>,
    checkpoint: bool,
    handled: usize,
}

/// What a handler logged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// Where it comes from: the module that logged it, or the target that it was given.
    pub context: String,
    /// The text.
    pub message: String,
}

impl Host {
    /// A host without settings and with nothing stored, where all streams may be emitted to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a setting, as `config` or `secrets` in `workers.toml`.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }

    /// Allows to emit to these streams only, as `allow.emit` in `workers.toml`.
    #[must_use]
    pub fn allow_emit<S: Into<String>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.allow_emit = Some(streams.into_iter().map(Into::into).collect());
        self
    }

    /// Stores a value beforehand.
    #[must_use]
    pub fn stored(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.state.insert(key.into(), value.into());
        self
    }

    /// Lets a handler handle an event. A [`NewEvent`] becomes one as if it had just been read from a stream `events`.
    ///
    /// # Errors
    ///
    /// The handler's.
    pub fn handle<H: Handler>(&mut self, event: impl Into<Event>) -> Result<(), Error> {
        let event = event.into();
        self.call_with(1, || H::handle(event))
    }

    /// Lets a handler handle a batch of events.
    ///
    /// # Errors
    ///
    /// The handler's. What it made before it last called [`progress::handled`](crate::progress::handled) is kept even then.
    pub fn handle_batch<H: BatchHandler>(
        &mut self,
        events: impl IntoIterator<Item = impl Into<Event>>,
    ) -> Result<(), Error> {
        let events: Vec<Event> = events.into_iter().map(Into::into).collect();
        self.call_with(events.len(), || H::handle_batch(events))
    }

    /// Runs code that asks things of the host, as one call. Its effects are kept if it succeeds. As many events are in hand
    /// as it says are handled.
    ///
    /// # Errors
    ///
    /// Those of the code.
    ///
    /// # Panics
    ///
    /// If the code panics, or calls a host inside of this call.
    pub fn call<T>(&mut self, code: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.call_with(usize::MAX, code)
    }

    fn call_with<T>(&mut self, events: usize, code: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        crate::log::install();
        let call = call::begin(self, events);
        let result = code();
        if result.is_ok() {
            call.succeeded();
        }
        result
    }

    /// What was emitted to a stream, by all calls that succeeded so far.
    pub fn emitted(&self, stream: &str) -> &[NewEvent] {
        self.emitted.get(stream).map_or(&[], Vec::as_slice)
    }

    /// What is stored under `key`.
    pub fn state(&self, key: &str) -> Option<&[u8]> {
        self.state.get(key).map(Vec::as_slice)
    }

    /// What was logged so far, also by calls that failed. A test that fails shows it too.
    pub fn logs(&self) -> &[LogLine] {
        &self.logs
    }

    /// Whether the last call succeeded and asked for a [commit](crate::checkpoint::commit).
    pub fn checkpoint(&self) -> bool {
        self.checkpoint
    }

    /// How many events the last call said are [handled](crate::progress::handled).
    pub fn handled(&self) -> usize {
        self.handled
    }
}

/// As the first event of a stream `events`, appended at the Unix epoch and delivered for the first time. What a test needs
/// to be otherwise can be set in its fields.
impl From<NewEvent> for Event {
    fn from(event: NewEvent) -> Self {
        let NewEvent { id, key, kind, headers, payload } = event;
        let id = id.unwrap_or_else(|| "event".into());
        Self {
            id,
            stream: "events".into(),
            partition: 0,
            offset: 0,
            key,
            kind,
            time_ms: 0,
            headers,
            payload,
            attempt: 1,
        }
    }
}
