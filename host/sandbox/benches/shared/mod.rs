//! What the benchmarks of the sandbox share: a place with nothing in it, an event as it usually is, and processor time.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared by programs, each of which uses a part")]

use std::{
    fs,
    time::{Duration, Instant},
};

use pelton_core::{Event, Offset, Outcome, Timestamp};
use pelton_sandbox::{LogLine, LogSink, Place, StateReader, Worker};

/// Holds no state, and forgets what is logged.
pub struct Nothing;

#[async_trait::async_trait]
impl StateReader for Nothing {
    async fn get(&self, _key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
}

impl LogSink for Nothing {
    fn log(&self, _line: LogLine<'_>) {}
}

pub fn place() -> Place {
    Place { group: "billing".into(), stream: "orders".into(), partition: 0 }
}

/// Two headers and 100 bytes of payload.
pub fn event(offset: u64) -> Event {
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

/// Calls a handler with these events again and again for so long; nanoseconds of processor per event.
pub async fn measure(worker: &mut Worker, events: &[Event], round: Duration) -> f64 {
    let (started, busy_ns) = (Instant::now(), processor_ns());
    let mut handled = 0;
    while started.elapsed() < round {
        let invocation = worker.call(events, 1, false).await;
        assert_eq!(invocation.outcome, Outcome::Done);
        handled += invocation.handled;
    }
    (processor_ns() - busy_ns) / handled as f64
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What this thread has run so far, in nanoseconds; 0 where the system does not tell, which is everywhere but on Linux.
pub fn processor_ns() -> f64 {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}
