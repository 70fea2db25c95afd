//! What the misbehaving guests do, chosen by the event's kind. Kinds that are not listed succeed.
//!
//! | kind | does |
//! | --- | --- |
//! | `transient`, `permanent` | that error, with the payload as the reason (the kind if there is none) |
//! | `retry-after` | that error, after as many milliseconds as the payload says |
//! | `panic` | panics with `boom: <payload>` |
//! | `unreachable` | traps without a message |
//! | `loop` | never returns |
//! | `bomb` | allocates and touches memory until it is stopped |
//! | `recurse` | overflows the stack |
//! | `flood` | emits 1 GiB in payloads of 1 MiB, whatever the host answers |
//! | `emit` | emits a copy: same kind, key and payload, the id of header `id` |
//! | `fail-until` | a transient error while the attempt is at most header `n`, then as `emit` |
//! | `count` | adds one to the counter of the key (`-` without one); emits it as kind `counted` if there is a header `to` |
//! | `state-set` | sets the state of payload `key=value` |
//! | `state-get` | emits the value of the state that the payload names, empty if there is none |
//! | `config` | emits the value of the configuration key that the payload names, empty if there is none |
//! | `log` | logs the payload at each level |
//!
//! Events are emitted to the stream of header `to`, or `out`. An emit that is refused is a permanent error.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pelton_sdk::{Error, Event, NewEvent, config, emit, log, state};

const MIB: usize = 1 << 20;

pub(crate) fn act(event: &Event) -> Result<(), Error> {
    match event.kind.as_str() {
        "transient" => Err(Error::transient(reason(event))),
        "permanent" => Err(Error::permanent(reason(event))),
        "retry-after" => Err(retry_after(event)),
        "panic" => panic!("boom: {}", text(event)),
        "unreachable" => unreachable(),
        "loop" => spin(),
        "bomb" => bomb(),
        "recurse" => {
            black_box(recurse(0));
            Ok(())
        }
        "flood" => {
            flood(event);
            Ok(())
        }
        "emit" => copy(event),
        "fail-until" => fail_until(event),
        "count" => count(event),
        "state-set" => state_set(event),
        "state-get" => answer(event, "state", state::get(&text(event)).unwrap_or_default()),
        "config" => answer(event, "config", config::get(&text(event))?.unwrap_or_default()),
        "log" => {
            log_everywhere(&text(event));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn text(event: &Event) -> String {
    String::from_utf8_lossy(&event.payload).into_owned()
}

fn reason(event: &Event) -> String {
    if event.payload.is_empty() { event.kind.clone() } else { text(event) }
}

fn to(event: &Event) -> &str {
    event.header("to").unwrap_or("out")
}

fn retry_after(event: &Event) -> Error {
    match text(event).parse() {
        Ok(delay_ms) => Error::retry_after(Duration::from_millis(delay_ms), reason(event)),
        Err(problem) => Error::permanent(problem),
    }
}

fn unreachable() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// A failed allocation aborts, so this ends in a trap also where the limit only makes `memory.grow` fail.
fn bomb() -> ! {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(black_box(vec![1; MIB]));
    }
}

/// Uses up the stack of calls and nothing of the memory. The work after the call keeps the compiler from making a loop
/// of it, and the way out, which no run reaches, from taking it for one that never returns.
fn recurse(depth: u64) -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    if CALLS.fetch_add(1, Ordering::Relaxed) == u64::MAX {
        return depth;
    }
    recurse(depth + 1).rotate_left(1) ^ depth
}

fn flood(event: &Event) {
    let payload = vec![b'x'; MIB];
    for _ in 0..1024 {
        let _ = emit(to(event), NewEvent::new("flood", payload.clone()));
    }
}

fn copy(event: &Event) -> Result<(), Error> {
    let mut copy = NewEvent::new(&event.kind, event.payload.clone());
    copy.key = event.key.clone();
    copy.id = event.header("id").map(str::to_owned);
    emit(to(event), copy)
}

fn fail_until(event: &Event) -> Result<(), Error> {
    let failures: u32 = event.header("n").unwrap_or("0").parse().map_err(Error::permanent)?;
    if event.attempt <= failures {
        return Err(Error::transient(format_args!("attempt {} of {failures} to fail", event.attempt)));
    }
    copy(event)
}

pub(crate) fn count(event: &Event) -> Result<(), Error> {
    let key = event.key.as_deref().unwrap_or("-");
    let before = match state::get(key) {
        Some(value) => String::from_utf8_lossy(&value).parse::<u64>().map_err(Error::permanent)?,
        None => 0,
    };
    let count = (before + 1).to_string();
    state::set(key, &count)?;
    match event.header("to") {
        Some(_) => answer(event, "counted", count),
        None => Ok(()),
    }
}

fn state_set(event: &Event) -> Result<(), Error> {
    let text = text(event);
    let (key, value) = text.split_once('=').ok_or_else(|| Error::permanent("state-set: payload is not key=value"))?;
    state::set(key, value)
}

fn answer(event: &Event, kind: &str, payload: impl Into<Vec<u8>>) -> Result<(), Error> {
    let mut answer = NewEvent::new(kind, payload);
    answer.key = event.key.clone();
    emit(to(event), answer)
}

fn log_everywhere(message: &str) {
    log::trace!("{message}");
    log::debug!("{message}");
    log::info!("{message}");
    log::warn!("{message}");
    log::error!("{message}");
    log::critical!("{message}");
}
