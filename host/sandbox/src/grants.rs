//! What a handler may do, and how much of it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use pelton_core::check_name;

const MIB: u64 = 1024 * 1024;

/// All that a handler is allowed. No capability is granted that is not named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The handler's name in `workers.toml`, for messages.
    pub handler: Arc<str>,
    /// Where it may emit to.
    pub emit: EmitGrant,
    /// Whom it may call.
    pub http: HttpGrant,
    /// Whether it may know the time. Without it, time stands still at that of the event in hand: what a handler does
    /// depends on its events alone then.
    pub clocks: bool,
    /// Whether it gets real randomness. Without it, it gets numbers that follow from the event in hand.
    pub random: bool,
    /// What it reads through `wasi:config`.
    pub config: Vec<(String, String)>,
    /// What it reads there too, and nobody else ever sees.
    pub secrets: Vec<(String, Secret)>,
    /// Bounds on what it uses.
    pub limits: Limits,
    /// When an instance makes way for a fresh one.
    pub recycle: Recycle,
}

/// Which streams a handler may emit to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmitGrant {
    /// These, each with its `payload_max` in bytes.
    Streams(BTreeMap<Arc<str>, u64>),
    /// Any at all: for trying a handler out where no stream exists.
    Any {
        /// The largest payload, in bytes.
        payload_bytes_max: u64,
    },
}

/// Whom a handler may call through `wasi:http`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HttpGrant {
    /// Nobody, and a component that imports it is refused: whoever wrote it thought that it could.
    #[default]
    None,
    /// These, and every other request is denied. With none, a component that imports `wasi:http` without need loads.
    Origins(Vec<Origin>),
}

/// An origin, as of RFC 6454.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Whether it is called over TLS: `https`.
    pub tls: bool,
    /// Host name or address, in lower case; an IPv6 address without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether its name may stand for an address that is loopback, link-local or private. An address that is itself the
    /// host of the origin was named, and needs no such leave.
    pub private: bool,
}

/// A value that nobody is shown: neither `Debug` nor `Display` tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes care of a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for whoever it is meant for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Bounds on what a handler uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories of an instance together, in bytes.
    pub memory_bytes: u64,
    /// Elements of all tables of an instance together; at most [`Limits::TABLE_ELEMENTS_MOST`].
    pub table_elements: u64,
    /// The stack that a call may use, in bytes; [`Limits::STACK_BYTES_LEAST`] to [`Limits::STACK_BYTES_MOST`].
    pub stack_bytes: u64,
    /// How long a call may take; waiting for the store is not counted.
    pub timeout: Duration,
    /// Emitted events and state writes of one call, in bytes. Each is counted with a fixed overhead, because it costs the
    /// host memory even when it is empty.
    pub output_bytes: u64,
    /// Log lines a second, over all instances of the handler on this host. More are counted and dropped.
    pub log_lines: u32,
    /// Instances alive at once on this host, of all versions together; 0 for as many as there are partitions.
    pub instances: u32,
    /// The body of one HTTP request or response, in bytes.
    pub http_body_bytes: u64,
}

impl Limits {
    /// What the pool of instances sets aside for tables.
    pub const TABLE_ELEMENTS_MOST: u64 = 1_000_000;
    /// Less does not get a guest through its own start.
    pub const STACK_BYTES_LEAST: u64 = 64 * 1024;
    /// Each call has a stack of its own, and twice as much is set aside for it.
    pub const STACK_BYTES_MOST: u64 = 8 * MIB;
}

impl Default for Limits {
    /// 64 MiB of memory, 100,000 elements, 1 MiB of stack, 5 s, 4 MiB of output, 1,000 lines a second, any number of
    /// instances, 8 MiB of body.
    fn default() -> Self {
        Self {
            memory_bytes: 64 * MIB,
            table_elements: 100_000,
            stack_bytes: MIB,
            timeout: Duration::from_secs(5),
            output_bytes: 4 * MIB,
            log_lines: 1_000,
            instances: 0,
            http_body_bytes: 8 * MIB,
        }
    }
}

/// When an instance makes way for a fresh one, between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recycle {
    /// After so many calls; 0 is taken as 1, a fresh one for every call.
    pub calls: u64,
    /// When it is so old.
    pub age: Duration,
    /// When its linear memories have grown past so many bytes: a leak ends here and not at the limit.
    pub memory_bytes: u64,
}

impl Default for Recycle {
    /// 10,000 calls, an hour, 48 MiB.
    fn default() -> Self {
        Self { calls: 10_000, age: Duration::from_secs(3600), memory_bytes: 48 * MIB }
    }
}

impl Grants {
    /// A handler that is allowed nothing, within the usual limits.
    #[must_use]
    pub fn nothing(handler: &str) -> Self {
        Self {
            handler: handler.into(),
            emit: EmitGrant::Streams(BTreeMap::new()),
            http: HttpGrant::None,
            clocks: false,
            random: false,
            config: Vec::new(),
            secrets: Vec::new(),
            limits: Limits::default(),
            recycle: Recycle::default(),
        }
    }

    /// The same without a way to the world outside: every HTTP request is denied, time and chance follow from the events.
    /// What a handler does then can be compared with what another version does. No instance has to wait for another one,
    /// so a trial never waits for what is live.
    #[must_use]
    pub fn held_back(&self) -> Self {
        let limits = Limits { instances: 0, ..self.limits };
        Self { http: HttpGrant::Origins(Vec::new()), clocks: false, random: false, limits, ..self.clone() }
    }

    /// The stream of this name and its largest payload, if the handler may emit to it.
    pub(crate) fn emit_to(&self, stream: &str) -> Result<(Arc<str>, u64), String> {
        match &self.emit {
            EmitGrant::Streams(streams) => match streams.get_key_value(stream) {
                Some((name, payload_bytes_max)) => Ok((Arc::clone(name), *payload_bytes_max)),
                None => Err(format!(
                    "handler \"{}\" may not emit to stream {stream:?}: allow.emit names {:?}; add the stream there",
                    self.handler,
                    streams.keys().collect::<Vec<_>>(),
                )),
            },
            EmitGrant::Any { payload_bytes_max } => {
                check_name(stream).map_err(|fault| format!("stream {fault}"))?;
                Ok((stream.into(), *payload_bytes_max))
            }
        }
    }
}
