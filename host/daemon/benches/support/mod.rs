//! What benchmarks share that let a group drain a stream in one process.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pelton::{
    handler::{Calls, Handler, Lane, Version},
    pump::{self, GroupSettings, Hint, PumpContext},
    time::Clock,
};
use pelton_core::{Decision, Effects, Event, Invocation, Membership, NewEvent, Outcome, Session, Timestamp};
use pelton_sandbox::{Interrupt, Place, StateReader};
use pelton_store::{GroupSpec, Registration, Start, Store, StreamSpec};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

pub(crate) const PARTITIONS: u32 = 8;
pub(crate) const STREAM: &str = "events";

/// A handler that looks at every event and does nothing else, as the guests do.
#[derive(Default)]
pub(crate) struct Native(Calls);
struct NativeHandler;

impl Version for Native {
    fn digest(&self) -> &str {
        "native"
    }

    fn start(&self, _: Place, _: Arc<dyn StateReader>, _: Interrupt) -> Box<dyn Handler> {
        Box::new(NativeHandler)
    }

    fn calls(&self) -> &Calls {
        &self.0
    }

    fn output_bytes_max(&self) -> u64 {
        4 << 20
    }
}

#[async_trait]
impl Handler for NativeHandler {
    async fn call(&mut self, events: &[Event], _: u32, _: bool) -> Invocation {
        std::hint::black_box(events);
        let (handled, outcome) = (events.len(), Outcome::Done);
        Invocation { handled, outcome, located: true, checkpoint: false, effects: Effects::default() }
    }
}

pub(crate) async fn fill(store: &dyn Store, events: u64) {
    let name = STREAM.into();
    let spec = StreamSpec { name, partitions: PARTITIONS, payload_bytes_max: 1 << 20, retention_ms: None };
    store.declare_stream(&spec).await.unwrap();
    let event = |n: u64| NewEvent {
        id: format!("event-{n:012}"),
        key: Some(format!("customer-{:06}", n % 50_000)),
        kind: "order.placed".into(),
        headers: vec![("trace".into(), format!("{n:016x}")), ("source".into(), "bench".into())],
        payload: format!("{{\"order\":{n},\"text\":\"{:x>70}\"}}", "").into_bytes(),
    };
    for start in (0..events).step_by(5_000) {
        store.append(STREAM, (start..(start + 5_000).min(events)).map(event).collect()).await.unwrap();
    }
}

pub(crate) async fn declare(store: &dyn Store, group: &str) {
    let spec = GroupSpec { name: group.into(), stream: STREAM.into(), handler: "noop".into(), start: Start::Earliest };
    store.declare_group(&spec).await.unwrap();
}

/// The pumps of a group until the database says that every event is passed; the time it took.
pub(crate) async fn drain(
    store: &Arc<dyn Store>,
    group: &str,
    session: &Session,
    version: &Arc<dyn Version>,
    settings: GroupSettings,
) -> Duration {
    let (drain, _) = watch::channel(false);
    let settings = watch::Sender::new(settings);
    let hints = watch::Sender::new(Hint::default());
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for partition in 0..PARTITIONS {
        let context = PumpContext {
            store: Arc::clone(store),
            clock: Clock::starting_at(Timestamp(0)),
            session: session.clone(),
            place: Place { group: group.into(), stream: STREAM.into(), partition },
            settings: settings.subscribe(),
            version: watch::Sender::new(Arc::clone(version)).subscribe(),
            hints: hints.subscribe(),
            drain: drain.subscribe(),
            interrupt: Interrupt::default(),
            chance: Arc::new(|| 0.5),
            stopped_here: Arc::default(),
            lane: Lane::default(),
        };
        tasks.spawn(async move {
            pump::run(context).await;
        });
    }
    until_drained(&**store, group).await;
    let took = began.elapsed();
    drain.send_replace(true);
    while tasks.join_next().await.is_some() {}
    took
}

pub(crate) async fn until_drained(store: &dyn Store, group: &str) {
    loop {
        let progress = store.progress().await.unwrap();
        if progress.iter().filter(|row| row.group == group).all(|row| row.committed == row.head) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// A host to which every partition of a group is given.
pub(crate) async fn sole_member(store: &dyn Store, group: &str) -> Session {
    let membership = Membership { group: group.into(), session_timeout_ms: 3_600_000, partitions_max: 0 };
    let registration = Registration { host: "bench".into(), memberships: vec![membership], ..Registration::default() };
    let session = store.register(&registration).await.unwrap();
    let survey = store.survey().await.unwrap();
    let seen = survey.groups.iter().find(|seen| seen.group == group).unwrap();
    let targets = vec![Some(session.host.clone()); seen.seats.len()];
    let homes = vec![None; seen.seats.len()];
    let assign = Decision::Assign { group: group.into(), generation: seen.generation, targets, homes };
    assert!(store.decide(&assign).await.unwrap());
    session
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
