//! What a call costs by itself: nanoseconds per event through guests that do nothing, in batches of 100 with two headers
//! and 100 bytes of payload. `cargo bench -p pelton-sandbox`. Processor time is what to compare: a machine is never quiet,
//! and the clock on the wall counts its other work too.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints, run by hand")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pelton_core::{Event, Offset, Outcome, Timestamp};
use pelton_sandbox::{Grants, Interrupt, LogLine, LogSink, Place, Recycle, Sandbox, SandboxOptions, StateReader};

const BATCH_EVENTS: u64 = 100;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);

struct Nothing;

#[async_trait::async_trait]
impl StateReader for Nothing {
    async fn get(&self, _key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
}

impl LogSink for Nothing {
    fn log(&self, _line: LogLine<'_>) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sandbox = Sandbox::new(SandboxOptions::default()).unwrap();
    let events: Vec<Event> = (0..BATCH_EVENTS).map(event).collect();
    for (guest, reuse_calls) in [("noop", u64::MAX), ("noop-batch", u64::MAX), ("noop", 1), ("noop-batch", 1)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guests/prebuilt/{guest}.wasm"));
        let recycle = Recycle { calls: reuse_calls, ..Recycle::default() };
        let grants = Grants { recycle, ..Grants::nothing(guest) };
        let module = sandbox.load(std::fs::read(path).unwrap().into(), grants, Arc::default()).await.unwrap();
        let place = Place { group: "billing".into(), stream: "orders".into(), partition: 0 };
        let mut worker = module.worker(place, Arc::new(Nothing), Arc::new(Nothing), Interrupt::default());
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

/// What this thread has run so far, in nanoseconds; 0 where the system does not tell, which is everywhere but on Linux.
fn processor_ns() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}

fn event(offset: u64) -> Event {
    Event {
        offset: Offset(offset),
        id: format!("01890a5d-ac96-774b-{offset:04}"),
        key: Some(format!("customer-{offset:06}")),
        kind: "order.placed".into(),
        time: Timestamp(1_700_000_000_000),
        headers: vec![("content-type".into(), "application/json".into()), ("source".into(), "/shop".into())],
        payload: vec![b'x'; 100],
    }
}
