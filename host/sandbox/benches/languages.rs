//! What an event costs in each language, warm: the handlers of the guest conformance suite, which echo it. All take turns in
//! every round, and the order turns with the round.
//!
//! `PELTON_BENCH_HANDLERS=DIR cargo bench -p pelton-sandbox --bench languages [-- ROUNDS]`, where DIR has the modules as
//! `scripts/conformance` builds them (`target/conformance`).
//!
//! * **one at a time** is the world `worker`, **100 at a time** the world `batch-worker`, which tells its progress after each.
//! * `echo` reads the event (three headers, 100 bytes of payload) and emits one like it; `state` reads and writes a key.
//!
//! Processor time: a machine is never quiet, and the clock on the wall counts its other work too.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints, run by hand")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pelton_core::Event;
use pelton_sandbox::{EmitGrant, Grants, Interrupt, Limits, Recycle, Sandbox, SandboxOptions, Worker};
use shared::{Nothing, event, measure, median, place};

mod shared;

const LANGUAGES: [&str; 5] = ["rust", "c", "zig", "javascript", "python"];
const BATCH_EVENTS: usize = 100;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(handlers) = std::env::var_os("PELTON_BENCH_HANDLERS").map(PathBuf::from) else {
        println!("NOT RUN: PELTON_BENCH_HANDLERS names no folder of handlers; scripts/conformance builds them");
        return;
    };
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let sandbox = Sandbox::new(SandboxOptions::default()).unwrap();
    for (kind, what) in [("echo", "an event that is echoed"), ("state", "a key that is read and written")] {
        let events: Vec<Event> = (0..BATCH_EVENTS as u64).map(|offset| event_of(kind, offset)).collect();
        let mut contestants = Vec::new();
        for world in ["", "-batch"] {
            for language in LANGUAGES {
                let module = handlers.join(format!("{language}{world}.wasm"));
                contestants.push((format!("{language}{world}"), worker(&sandbox, &module).await));
            }
        }
        let mut took = vec![vec![0.0; contestants.len()]; rounds];
        for (round, took) in took.iter_mut().enumerate() {
            for turn in 0..contestants.len() {
                let index = (round + turn) % contestants.len();
                took[index] = measure(&mut contestants[index].1, &events, ROUND).await;
            }
        }
        println!("{what}: microseconds of processor, and to Rust one at a time");
        for (index, (name, _)) in contestants.iter().enumerate() {
            let of = |pick: &dyn Fn(&[f64]) -> f64| median(took.iter().map(|took| pick(took)).collect());
            let (micros, ratio) = (of(&|took| took[index]) / 1000.0, of(&|took| took[index] / took[0]));
            println!("  {name:20} {micros:>8.2} {ratio:>8.2}");
        }
    }
}

async fn worker(sandbox: &Sandbox, module: &Path) -> Worker {
    let bytes = std::fs::read(module).unwrap_or_else(|error| panic!("{}: {error}", module.display()));
    let emit = EmitGrant::Any { payload_bytes_max: 1 << 20 };
    let limits = Limits { memory_bytes: 256 << 20, ..Limits::default() };
    let recycle = Recycle { calls: u64::MAX, age: Duration::MAX, ..Recycle::default() };
    let grants = Grants { emit, limits, recycle, ..Grants::nothing("languages") };
    let module = sandbox.load(bytes.into(), grants, Arc::default()).await.unwrap();
    module.worker(place(), Arc::new(Nothing), Arc::new(Nothing), Interrupt::default())
}

/// One that says to the handler what it is to do.
fn event_of(kind: &str, offset: u64) -> Event {
    let event = Event { kind: kind.into(), ..event(offset) };
    if kind != "state" {
        return event;
    }
    Event { headers: vec![("1".into(), "get key".into()), ("2".into(), "set key value".into())], ..event }
}
