//! What failure strategies cost where nothing fails: a pump with a native function in the handler's place drains a stream
//! under plain `retry`, under `dead-letter-key`, under the same with 100 parked keys, with a filter, and with ids remembered.
//!
//! `cargo bench -p pelton --bench failures [-- EVENTS [ROUNDS [BATCH]]]`: on a store in memory, where the pump's own work is
//! the largest share, and with `PELTON_BENCH_STORE=sqlite` or a `PELTON_TEST_POSTGRES` on these. Contestants take turns in
//! every round, and the order turns with the round. `retry, again` is an A/A control: its ratio says how far the others can
//! be trusted. Quote the ratios.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::sync::Arc;

use pelton::{handler::Version, pump::GroupSettings};
use pelton_core::{
    Acquired, Commit, DeadLetter, Failure, FailurePolicy, Filter, Lease, NewEvent, Offset, PumpSettings, Retry,
    Session, Then, Timestamp,
};
use pelton_store::{MemoryStore, ReadLimit, Store, StoreOptions, StreamSpec, system_clock};
use support::{Native, PARTITIONS, STREAM, drain, fill, median, sole_member};

const EVENTS: u64 = 500_000;
const ROUNDS: usize = 15;
const BATCH: u32 = 100;
const PARKED_KEYS: u64 = 100;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(EVENTS);
    let rounds = numbers.get(1).map_or(ROUNDS, |rounds| *rounds as usize);
    let batch = numbers.get(2).map_or(BATCH, |batch| *batch as u32);
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(bench(events, rounds, batch));
}

struct Contestant {
    name: &'static str,
    settings: GroupSettings,
    parks: bool,
}

fn contestants(batch: u32) -> Vec<Contestant> {
    let with = |on_failure| {
        let pump = PumpSettings { batch_events_max: batch, on_failure, ..PumpSettings::default() };
        GroupSettings { pump, ..GroupSettings::default() }
    };
    let retry = with(FailurePolicy::default());
    let policy = FailurePolicy {
        retry: Some(Retry { attempts_max: Some(5), ..Retry::default() }),
        then: Some(Then::DeadLetterKey),
        breaker: None,
    };
    let key = with(policy);
    let filter = Filter { kinds: vec!["order.placed".into()], ..Filter::default() };
    vec![
        Contestant { name: "retry", settings: retry.clone(), parks: false },
        Contestant { name: "retry, again", settings: retry.clone(), parks: false },
        Contestant { name: "dead-letter-key", settings: key.clone(), parks: false },
        Contestant { name: "100 parked keys", settings: key, parks: true },
        Contestant { name: "filter", settings: GroupSettings { filter, ..retry.clone() }, parks: false },
        Contestant { name: "idempotent", settings: GroupSettings { idempotent: true, ..retry }, parks: false },
    ]
}

async fn bench(events: u64, rounds: usize, batch: u32) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = match (std::env::var("PELTON_TEST_POSTGRES"), std::env::var("PELTON_BENCH_STORE")) {
        (Ok(url), _) => open(&url).await,
        (_, Ok(engine)) if engine == "sqlite" => open(&format!("sqlite://{}/bench.db", folder.path().display())).await,
        _ => {
            println!("memory");
            Arc::new(MemoryStore::new(system_clock()))
        }
    };
    park_first(&*store).await;
    fill(&*store, events).await;
    let version: Arc<dyn Version> = Arc::new(Native::default());
    let contestants = contestants(batch);
    let mut seconds = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let index = (turn + round) % contestants.len();
            let Contestant { name, settings, parks } = &contestants[index];
            let group = format!("g-{round}-{index}");
            support::declare(&*store, &group).await;
            let session = sole_member(&*store, &group).await;
            pass_first(&*store, &group, &session, *parks).await;
            let took = drain(&store, &group, &session, &version, settings.clone()).await;
            println!("round {round:2}  {name:16} {:>9.0} events/s", events as f64 / took.as_secs_f64());
            seconds[index].push(took.as_secs_f64());
            // What it remembers must not slow the next ones down.
            store.deregister(&session).await.unwrap();
            store.delete_group(&group, true).await.unwrap();
        }
    }
    println!(
        "\n{events} events of 100 bytes with two headers, {PARTITIONS} partitions, batches of {batch}, medians of {rounds} rounds"
    );
    println!("{:16} {:>10} {:>15}", "", "events/s", "time to retry's");
    for (index, Contestant { name, .. }) in contestants.iter().enumerate() {
        let rate = events as f64 / median(seconds[index].iter().copied());
        let ratio = median(seconds[index].iter().zip(&seconds[0]).map(|(own, base)| own / base));
        println!("{name:16} {rate:>10.0} {ratio:>15.3}");
    }
}

async fn open(url: &str) -> Arc<dyn Store> {
    println!("{}", url.split_once(':').map_or("", |(engine, _)| engine));
    let schema = format!("bench_failures_{}", std::process::id());
    let options = StoreOptions { host: true, schema, ..StoreOptions::default() };
    pelton_store::open(url, &options).await.unwrap()
}

/// The first events have keys of their own, which no other event has.
async fn park_first(store: &dyn Store) {
    let name = STREAM.into();
    let spec = StreamSpec { name, partitions: PARTITIONS, payload_bytes_max: 1 << 20, retention_ms: None };
    store.declare_stream(&spec).await.unwrap();
    let event =
        |n: u64| NewEvent { id: format!("parked-{n}"), key: Some(format!("parked-{n}")), ..NewEvent::default() };
    store.append(STREAM, (0..PARKED_KEYS).map(event).collect()).await.unwrap();
}

/// Moves a group past them; parks their keys if it is to have parked ones.
async fn pass_first(store: &dyn Store, group: &str, session: &Session, parks: bool) {
    let limit = ReadLimit { events: PARKED_KEYS as u32, bytes: u64::MAX };
    for partition in 0..PARTITIONS {
        let Acquired::Claimed(claim) = store.acquire(group, partition, session).await.unwrap() else {
            panic!("the partition is held by somebody else");
        };
        let lease = Lease { group: group.into(), partition, host: Arc::clone(&session.host), epoch: claim.epoch };
        let events = store.read(STREAM, partition, Offset(0), limit).await.unwrap();
        let first = events.into_iter().take_while(|event| event.id.starts_with("parked-"));
        let failure = Failure::parked(Timestamp(0));
        let letter = |event| {
            let failure = failure.clone();
            DeadLetter { event, failure, digest: None, parks: true, request: None, edited: false }
        };
        let letters: Vec<DeadLetter> = first.map(letter).collect();
        let to = letters.last().map_or(Offset(0), |letter| letter.event.offset.next());
        let moving = Commit::moving(lease.clone(), 1, Offset(0), to);
        let set_aside = if parks { letters } else { Vec::new() };
        store.commit(Arc::new(Commit { set_aside, ..moving })).await.unwrap();
        store.release(&lease).await.unwrap();
    }
}
