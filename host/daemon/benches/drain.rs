//! How fast a group drains a stream on SQLite: a raw loop of fetch and commit, the pump with a native function in the
//! handler's place, and the pump with a no-op Rust handler in WebAssembly, in both worlds.
//!
//! `cargo bench -p pelton --bench drain [-- EVENTS [ROUNDS]]`. All run in one process on one database, in turn, each
//! round with groups of its own over the same events, and the positions in the database say when a drain is over. Every
//! second raw loop is an A/A control: its ratio to the first says how far the others can be trusted. Quote the ratios.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pelton::{
    handler::{Calls, Handler, Version, WasmVersion},
    pump::{self, Hint, PumpContext},
    time::Clock,
};
use pelton_core::{
    Commit, CommitOutcome, Effects, Event, FailurePolicy, Invocation, Lease, NewEvent, Outcome, PumpSettings, Timestamp,
};
use pelton_sandbox::{EmitGrant, Grants, Interrupt, Limits, Place, Sandbox, SandboxOptions, StateReader};
use pelton_store::{GroupSpec, ReadLimit, Start, Store, StoreOptions, StreamSpec};
use tokio::{sync::watch, task::JoinSet, time::sleep};

const PARTITIONS: u32 = 8;
const BATCH: u32 = 100;
const EVENTS: u64 = 1_000_000;
const ROUNDS: usize = 5;
const STREAM: &str = "events";

/// What is put in the handler's place.
enum Contestant {
    Raw,
    Pump(Arc<dyn Version>),
}

/// A handler that looks at every event and does nothing else, as the guests do.
struct Native(Calls);
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
}

#[async_trait]
impl Handler for NativeHandler {
    async fn call(&mut self, events: &[Event], _: u32) -> Invocation {
        std::hint::black_box(events);
        Invocation { handled: events.len(), outcome: Outcome::Done, located: true, effects: Effects::default() }
    }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(EVENTS);
    let rounds = numbers.get(1).map_or(ROUNDS, |rounds| *rounds as usize);
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(bench(events, rounds));
}

async fn bench(events: u64, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/bench.db", folder.path().display());
    let store = pelton_store::open(&url, &StoreOptions { host: true, ..StoreOptions::default() }).await.unwrap();
    fill(&*store, events).await;

    let sandbox = Sandbox::new(SandboxOptions::default()).unwrap();
    let contestants = [
        ("raw loop", Contestant::Raw),
        ("raw loop, again", Contestant::Raw),
        ("pump, native", Contestant::Pump(Arc::new(Native(Calls::default())))),
        ("pump, worker", Contestant::Pump(wasm(&sandbox, "noop").await)),
        ("pump, batch-worker", Contestant::Pump(wasm(&sandbox, "noop-batch").await)),
    ];
    let mut seconds = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for (index, (name, contestant)) in contestants.iter().enumerate() {
            let took = drain(&store, &format!("g-{round}-{index}"), contestant).await;
            println!("round {round}  {name:20} {:>8.0} events/s", events as f64 / took.as_secs_f64());
            seconds[index].push(took.as_secs_f64());
        }
    }

    println!(
        "\n{events} events of 100 bytes with two headers, {PARTITIONS} partitions, batches of {BATCH}, medians of {rounds} rounds"
    );
    println!("{:20} {:>10} {:>10} {:>12}", "", "events/s", "to raw", "to native");
    let ratio =
        |index: usize, base: usize| median(seconds[index].iter().zip(&seconds[base]).map(|(own, base)| base / own));
    for (index, (name, _)) in contestants.iter().enumerate() {
        let rate = events as f64 / median(seconds[index].iter().copied());
        println!("{name:20} {rate:>10.0} {:>10.2} {:>12.2}", ratio(index, 0), ratio(index, 2));
    }
}

async fn fill(store: &dyn Store, events: u64) {
    let spec = StreamSpec { name: STREAM.into(), partitions: PARTITIONS, payload_bytes_max: 1 << 20 };
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

async fn wasm(sandbox: &Sandbox, name: &str) -> Arc<dyn Version> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt");
    let module = std::fs::read(guests.join(name).with_extension("wasm")).unwrap();
    let grants = Grants {
        handler: name.into(),
        emit: EmitGrant::Streams([].into()),
        config: Vec::new(),
        limits: Limits::default(),
        reuse_calls: 10_000,
    };
    Arc::new(WasmVersion::new(sandbox.load(module, grants).await.unwrap(), name.into(), Arc::default()))
}

/// The time from the first acquisition until the database says that every event is passed.
async fn drain(store: &Arc<dyn Store>, group: &str, contestant: &Contestant) -> Duration {
    let spec = GroupSpec { name: group.into(), stream: STREAM.into(), handler: "noop".into(), start: Start::Earliest };
    store.declare_group(&spec).await.unwrap();
    let (drain, _) = watch::channel(false);
    let settings = watch::Sender::new(PumpSettings {
        batch_events_max: BATCH,
        commit_ahead: 1,
        on_failure: FailurePolicy::default(),
    });
    let hints = watch::Sender::new(Hint::default());
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for partition in 0..PARTITIONS {
        let place = Place { group: group.into(), stream: STREAM.into(), partition };
        match contestant {
            Contestant::Raw => drop(tasks.spawn(raw_loop(Arc::clone(store), place))),
            Contestant::Pump(version) => {
                let context = PumpContext {
                    store: Arc::clone(store),
                    clock: Clock::starting_at(Timestamp(0)),
                    host: "bench".into(),
                    place,
                    settings: settings.subscribe(),
                    version: watch::Sender::new(Arc::clone(version)).subscribe(),
                    hints: hints.subscribe(),
                    drain: drain.subscribe(),
                    interrupt: Interrupt::default(),
                    chance: Arc::new(|| 0.5),
                };
                tasks.spawn(async move {
                    pump::run(context).await;
                });
            }
        }
    }
    loop {
        let progress = store.progress().await.unwrap();
        if progress.iter().filter(|row| row.group == group).all(|row| row.committed == row.head) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    drain.send_replace(true);
    while tasks.join_next().await.is_some() {}
    took
}

/// What any consumer has to do: fetch a batch, commit its end, durably, fenced.
async fn raw_loop(store: Arc<dyn Store>, place: Place) {
    let Place { group, stream, partition } = place;
    let host: Arc<str> = "bench".into();
    let claim = store.acquire(&group, partition, &host).await.unwrap();
    let lease = Lease { group, partition, host, epoch: claim.epoch };
    let (mut from, mut sequence) = (claim.committed, 0);
    while from < claim.head {
        let events = store.read(&stream, partition, from, ReadLimit { events: BATCH, bytes: 8 << 20 }).await.unwrap();
        let to = events.last().map_or(from, |event| event.offset.next());
        std::hint::black_box(&events);
        sequence += 1;
        let commit = Commit::moving(lease.clone(), sequence, from, to);
        assert_eq!(store.commit(Arc::new(commit)).await.unwrap(), CommitOutcome::Committed);
        from = to;
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
