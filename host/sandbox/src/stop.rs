//! Why the host ended a call, and what a call that ended badly comes to.

use std::sync::atomic::Ordering;

use pelton_core::Outcome;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::{bindings::types, grants::Limits, host::Host, memory::Denied, redact::Redactor};

/// The longest reason, in bytes. It is stored with the event and shown in tables.
const REASON_BYTES_MAX: usize = 4096;

/// The most that guest and trap may say each, so that a long panic message leaves room for the backtrace.
const PART_BYTES_MAX: usize = 2048;

/// The host's own reasons to end a call. No guest can catch them: they unwind it as a trap does.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("interrupted by the host")]
    Interrupted,
    #[error("took too long")]
    TimedOut,
    #[error("effects of {found} bytes")]
    OutputTooLarge { found: u64 },
    #[error("{0}")]
    StoreUnavailable(String),
}

/// What the handler's own error comes to.
pub(crate) fn declined(error: types::Error, redactor: &Redactor) -> Outcome {
    let bounded = |reason: String| redactor.bounded(&reason, REASON_BYTES_MAX).into_owned();
    match error {
        types::Error::Transient(reason) => Outcome::Transient(bounded(reason)),
        types::Error::RetryAfter((ms, reason)) => Outcome::RetryAfter(ms, bounded(reason)),
        types::Error::Permanent(reason) => Outcome::Permanent(bounded(reason)),
    }
}

/// What a call that did not return comes to. The limiter remembers a refused allocation: what a guest makes of that is
/// its own affair, mostly a panic or an `unreachable`.
pub(crate) fn broken_off(error: &wasmtime::Error, host: &Host, limits: &Limits) -> Outcome {
    match error.downcast_ref::<Stop>() {
        Some(Stop::Interrupted) => return Outcome::Interrupted,
        // It may name a key that the handler made.
        Some(Stop::StoreUnavailable(reason)) => {
            return Outcome::StoreUnavailable(host.shared.redactor.bounded(reason, REASON_BYTES_MAX).into_owned());
        }
        Some(Stop::TimedOut) => {
            let what = format!("took longer than limits.timeout ({:?})", limits.timeout);
            return Outcome::TimedOut(reason(&what, error, host));
        }
        Some(Stop::OutputTooLarge { found }) => {
            let what = format!("effects of {found} bytes in one call, over limits.output ({})", limits.output_bytes);
            return Outcome::OutputTooLarge(reason(&what, error, host));
        }
        None => {}
    }
    if is_pool_used_up(error) {
        host.shared.usage.refused.fetch_add(1, Ordering::Relaxed);
        // Not the handler's fault, so it must not cost an attempt; trying again when others are idle helps.
        return Outcome::StoreUnavailable(format!("this host has no room for another instance: {error}"));
    }
    match host.memory.denied() {
        Some(Denied::Memory) => {
            let what = format!("wanted more memory than limits.memory ({} bytes)", limits.memory_bytes);
            return Outcome::OutOfMemory(reason(&what, error, host));
        }
        Some(Denied::Table) => {
            let what = format!("wanted more elements in tables than limits.table ({})", limits.table_elements);
            return Outcome::OutOfMemory(reason(&what, error, host));
        }
        Some(Denied::WholeHost) => {
            let what = format!(
                "wanted more memory than this host has for all guests together (host.memory, {} bytes), though within limits.memory ({} bytes); raise host.memory, or lower limits.memory",
                host.memory.host_bytes_max(),
                limits.memory_bytes,
            );
            return Outcome::OutOfMemory(reason(&what, error, host));
        }
        Some(Denied::HostMemory) => return host_memory_used_up(host),
        None => {}
    }
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => {
            format!("{}: used more than limits.stack ({} bytes)", Trap::StackOverflow, limits.stack_bytes)
        }
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    Outcome::Trapped(reason(&what, error, host))
}

/// Whether the engine has no slot left for a part of an instance: others have them.
pub(crate) fn is_pool_used_up(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

/// What a call comes to that failed because other handlers have the memory. Not its fault, so it must not cost an
/// attempt; trying again when they have less helps.
pub(crate) fn host_memory_used_up(host: &Host) -> Outcome {
    let most = host.memory.host_bytes_max();
    Outcome::StoreUnavailable(format!(
        "this host's memory for guests is used up ({most} bytes for all of them); raise host.memory, or lower limits.memory of others"
    ))
}

/// The guest's last words, what happened, and where.
fn reason(what: &str, error: &wasmtime::Error, host: &Host) -> String {
    let redactor = &host.shared.redactor;
    let mut reason = String::new();
    if let Some(words) = host.shared.console.last_words() {
        reason.push_str(&redactor.bounded(&words, PART_BYTES_MAX));
        reason.push('\n');
    }
    reason.push_str(&redactor.bounded(what, PART_BYTES_MAX));
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        reason.push('\n');
        reason.push_str(backtrace.to_string().trim_end());
    }
    redactor.bounded(&reason, REASON_BYTES_MAX).into_owned()
}
