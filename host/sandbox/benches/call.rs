//! What a call costs by itself: nanoseconds per event through guests that do nothing, in batches of 100 with two headers
//! and 100 bytes of payload. `cargo bench -p pelton-sandbox`. Processor time is what to compare: a machine is never quiet,
//! and the clock on the wall counts its other work too.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints, run by hand")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pelton_core::{Event, Outcome};
use pelton_sandbox::{Grants, Interrupt, Recycle, Sandbox, SandboxOptions};
use shared::{Nothing, event, place, processor_ns};

mod shared;

const BATCH_EVENTS: u64 = 100;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sandbox = Sandbox::new(SandboxOptions::default()).unwrap();
    let events: Vec<Event> = (0..BATCH_EVENTS).map(event).collect();
    for (guest, reuse_calls) in [("noop", u64::MAX), ("noop-batch", u64::MAX), ("noop", 1), ("noop-batch", 1)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guests/prebuilt/{guest}.wasm"));
        let recycle = Recycle { calls: reuse_calls, ..Recycle::default() };
        let grants = Grants { recycle, ..Grants::nothing(guest) };
        let module = sandbox.load(std::fs::read(path).unwrap().into(), grants, Arc::default()).await.unwrap();
        let mut worker = module.worker(place(), Arc::new(Nothing), Arc::new(Nothing), Interrupt::default());
        let mut rounds: Vec<(f64, f64)> = Vec::new();
        for _ in 0..ROUNDS {
            let (started, busy_ns) = (Instant::now(), processor_ns());
            let mut handled = 0;
            while started.elapsed() < ROUND {
                let invocation = worker.call(&events, 1, false).await;
                assert_eq!(invocation.outcome, Outcome::Done);
                handled += invocation.handled;
            }
            let per_event = |ns: f64| ns / handled as f64;
            rounds.push((per_event(processor_ns() - busy_ns), per_event(started.elapsed().as_nanos() as f64)));
        }
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ((busy, wall), (busy_best, _)) = (rounds[ROUNDS / 2], rounds[0]);
        let fresh = if reuse_calls == 1 { ", a fresh instance each call" } else { "" };
        println!(
            "{guest}{fresh}: {busy:.0} ns of processor per event ({busy_best:.0} at best), {wall:.0} ns by the wall"
        );
    }
}
