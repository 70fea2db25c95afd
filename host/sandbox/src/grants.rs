//! What a handler may do, and how much of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pelton_core::check_name;

const MIB: u64 = 1024 * 1024;

/// All that a handler is allowed. No capability is granted that is not named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The handler's name in `workers.toml`, for messages.
    pub handler: Arc<str>,
    /// Where it may emit to.
    pub emit: EmitGrant,
    /// What it reads through `wasi:config`, secrets included.
    pub config: Vec<(String, String)>,
    /// Bounds on one call.
    pub limits: Limits,
    /// Calls before a fresh instance; 0 is taken as 1, a fresh one for every call.
    pub reuse_calls: u64,
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

/// Bounds on one call of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories of an instance together, in bytes.
    pub memory_bytes: u64,
    /// How long a call may take; waiting for the store is not counted.
    pub timeout: Duration,
    /// Emitted events and state writes of one call, in bytes. Each is counted with a fixed overhead, because it costs the
    /// host memory even when it is empty.
    pub output_bytes: u64,
}

impl Default for Limits {
    /// 64 MiB, 5 s and 4 MiB.
    fn default() -> Self {
        Self { memory_bytes: 64 * MIB, timeout: Duration::from_secs(5), output_bytes: 4 * MIB }
    }
}

impl Grants {
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
