//! How fast a group drains a stream: a raw loop of fetch, durable fenced commit and prefetch, the pump with a native
//! function in the handler's place, and the pump with a no-op Rust handler in WebAssembly, in both worlds.
//!
//! `cargo bench -p pelton --bench drain [-- EVENTS [ROUNDS [BATCH]]]`, on SQLite, or on PostgreSQL where
//! `PELTON_TEST_POSTGRES` says (`scripts/with-postgres` sets it). All run in one process on one database, in turn, each
//! round with groups of its own over the same events, and the positions in the database say when a drain is over. Every
//! second raw loop is an A/A control: its ratio to the first says how far the others can be trusted. Quote the ratios.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pelton::{
    handler::{Version, WasmVersion},
    pump::GroupSettings,
};
use pelton_core::{Acquired, Commit, CommitOutcome, Lease, PumpSettings, Session};
use pelton_sandbox::{Grants, Place, Sandbox, SandboxOptions};
use pelton_store::{ReadLimit, Store, StoreOptions};
use support::{Native, PARTITIONS, STREAM, fill, median, sole_member};
use tokio::task::JoinSet;

const BATCH: u32 = 500;
const EVENTS: u64 = 1_000_000;
const ROUNDS: usize = 5;

/// What is put in the handler's place.
enum Contestant {
    Raw,
    Pump(Arc<dyn Version>),
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(EVENTS);
    let rounds = numbers.get(1).map_or(ROUNDS, |rounds| *rounds as usize);
    let batch = numbers.get(2).map_or(BATCH, |batch| *batch as u32);
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(bench(events, rounds, batch));
}

async fn bench(events: u64, rounds: usize, batch: u32) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/bench.db", folder.path().display());
    let url = std::env::var("PELTON_TEST_POSTGRES").unwrap_or(sqlite);
    let schema = format!("bench_drain_{}", std::process::id());
    let options = StoreOptions { host: true, schema, ..StoreOptions::default() };
    let store = pelton_store::open(&url, &options).await.unwrap();
    println!("{}", url.split_once(':').map_or("", |(engine, _)| engine));
    fill(&*store, events).await;

    let sandbox = Sandbox::new(SandboxOptions::default()).unwrap();
    let contestants = [
        ("raw loop", Contestant::Raw),
        ("raw loop, again", Contestant::Raw),
        ("pump, native", Contestant::Pump(Arc::new(Native::default()))),
        ("pump, worker", Contestant::Pump(wasm(&sandbox, "noop").await)),
        ("pump, batch-worker", Contestant::Pump(wasm(&sandbox, "noop-batch").await)),
    ];
    let mut seconds = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for (index, (name, contestant)) in contestants.iter().enumerate() {
            let took = drain(&store, &format!("g-{round}-{index}"), contestant, batch).await;
            println!("round {round}  {name:20} {:>8.0} events/s", events as f64 / took.as_secs_f64());
            seconds[index].push(took.as_secs_f64());
        }
    }

    println!(
        "\n{events} events of 100 bytes with two headers, {PARTITIONS} partitions, batches of {batch}, medians of {rounds} rounds"
    );
    println!("{:20} {:>10} {:>10} {:>12}", "", "events/s", "to raw", "to native");
    let ratio =
        |index: usize, base: usize| median(seconds[index].iter().zip(&seconds[base]).map(|(own, base)| base / own));
    for (index, (name, _)) in contestants.iter().enumerate() {
        let rate = events as f64 / median(seconds[index].iter().copied());
        println!("{name:20} {rate:>10.0} {:>10.2} {:>12.2}", ratio(index, 0), ratio(index, 2));
    }
}

async fn wasm(sandbox: &Sandbox, name: &str) -> Arc<dyn Version> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt");
    let module = std::fs::read(guests.join(name).with_extension("wasm")).unwrap();
    let module = sandbox.load(module.into(), Grants::nothing(name), Arc::default()).await.unwrap();
    Arc::new(WasmVersion::new(module, name.into(), Arc::default()))
}

/// The time from the first acquisition until the database says that every event is passed.
async fn drain(store: &Arc<dyn Store>, group: &str, contestant: &Contestant, batch: u32) -> Duration {
    support::declare(&**store, group).await;
    let session = sole_member(&**store, group).await;
    let Contestant::Pump(version) = contestant else {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for partition in 0..PARTITIONS {
            let place = Place { group: group.into(), stream: STREAM.into(), partition };
            tasks.spawn(raw_loop(Arc::clone(store), place, session.clone(), batch));
        }
        support::until_drained(&**store, group).await;
        let took = began.elapsed();
        while tasks.join_next().await.is_some() {}
        return took;
    };
    let pump = PumpSettings { batch_events_max: batch, ..PumpSettings::default() };
    support::drain(store, group, &session, version, GroupSettings { pump, ..GroupSettings::default() }).await
}

/// What any consumer has to do: fetch a batch, and commit its end, durably and fenced, while it fetches the next one.
async fn raw_loop(store: Arc<dyn Store>, place: Place, session: Session, batch: u32) {
    let Place { group, stream, partition } = place;
    let Acquired::Claimed(claim) = store.acquire(&group, partition, &session).await.unwrap() else {
        panic!("the partition is held by somebody else");
    };
    let lease = Lease { group, partition, host: session.host, epoch: claim.epoch };
    let limit = ReadLimit { events: batch, bytes: 8 << 20 };
    let (mut from, mut sequence) = (claim.committed, 0);
    let mut events = store.read(&stream, partition, from, limit).await.unwrap();
    while let Some(last) = events.last() {
        let to = last.offset.next();
        std::hint::black_box(&events);
        sequence += 1;
        let commit = Arc::new(Commit::moving(lease.clone(), sequence, from, to));
        let (outcome, next) = tokio::join!(store.commit(commit), store.read(&stream, partition, to, limit));
        assert_eq!(outcome.unwrap(), CommitOutcome::Committed);
        (from, events) = (to, next.unwrap());
    }
}
