//! What the SQLite store costs, in microseconds: `cargo bench -p pelton-store`. Numbers to compare with each other on one
//! machine, not to hold a test to.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark prints, and may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pelton_core::{Acquired, Claim, Commit, Decision, Effects, Emit, Lease, Membership, NewEvent, Observer, Offset};
use pelton_store::{Durability, GroupSpec, ReadLimit, Registration, Start, Store, StoreOptions, StreamSpec, open};

const PARTITIONS: u32 = 8;
const EVENTS: u64 = 80_000;

#[tokio::main]
async fn main() {
    for durability in [Durability::Durable, Durability::Relaxed] {
        println!("{durability:?}");
        run(durability).await;
    }
}

async fn run(durability: Durability) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("bench.db").display());
    let store = open(&url, &StoreOptions { durability, host: true, ..StoreOptions::default() }).await.unwrap();
    for name in ["orders", "out"] {
        let spec =
            StreamSpec { name: name.into(), partitions: PARTITIONS, payload_bytes_max: 1 << 20, retention_ms: None };
        store.declare_stream(&spec).await.unwrap();
    }
    let spec =
        GroupSpec { name: "billing".into(), stream: "orders".into(), handler: "h".into(), start: Start::Earliest };
    store.declare_group(&spec).await.unwrap();

    append(&store).await;
    fetch(&store).await;
    commits(&store).await;
    membership(&store).await;
}

async fn append(store: &Arc<dyn Store>) {
    let begun = Instant::now();
    for batch in 0..EVENTS / 1_000 {
        let events = (0..1_000).map(|n| event(batch * 1_000 + n)).collect();
        store.append("orders", events).await.unwrap();
    }
    report("append, 1,000 a batch", "event", begun.elapsed(), EVENTS);

    let begun = Instant::now();
    for n in 0..500 {
        store.append("orders", vec![event(EVENTS + n)]).await.unwrap();
    }
    report("append, one after the other", "event", begun.elapsed(), 500);

    let begun = Instant::now();
    for turn in 0..20 {
        let appends = (0..100).map(|n| store.append("orders", vec![event(EVENTS + 500 + turn * 100 + n)]));
        join_all(appends).await;
    }
    report("append, 100 at a time", "event", begun.elapsed(), 2_000);
}

async fn fetch(store: &Arc<dyn Store>) {
    for size in [100, 500] {
        let mut read = 0;
        let begun = Instant::now();
        for partition in 0..PARTITIONS {
            let mut from = Offset(0);
            loop {
                let limit = ReadLimit { events: size, bytes: 16 << 20 };
                let events = store.read("orders", partition, from, limit).await.unwrap();
                let Some(last) = events.last() else { break };
                read += events.len() as u64;
                from = last.offset.next();
            }
        }
        report(&format!("fetch, {size} a read"), "event", begun.elapsed(), read);
    }
}

async fn commits(store: &Arc<dyn Store>) {
    let membership = Membership { group: "billing".into(), session_timeout_ms: 10_000, partitions_max: 0 };
    let registration = Registration { host: "host".into(), memberships: vec![membership], ..Registration::default() };
    let session = store.register(&registration).await.unwrap();
    let generation = store.survey().await.unwrap().groups[0].generation;
    let targets = vec![Some(session.host.clone()); PARTITIONS as usize];
    assert!(
        store
            .decide(&Decision::Assign {
                group: "billing".into(),
                generation,
                homes: vec![None; targets.len()],
                targets
            })
            .await
            .unwrap()
    );
    let leases = join_all((0..PARTITIONS).map(async |partition| {
        let acquired = store.acquire("billing", partition, &session).await.unwrap();
        let Acquired::Claimed(Claim { epoch, .. }) = acquired else { panic!("it is not free") };
        Lease { group: "billing".into(), partition, host: session.host.clone(), epoch }
    }))
    .await;

    let begun = Instant::now();
    for to in 1..=1_000 {
        store.commit(Arc::new(moves(&leases[0], to - 1, to))).await.unwrap();
    }
    report("commit, one position", "commit", begun.elapsed(), 1_000);

    let begun = Instant::now();
    for to in 1..=200 {
        join_all(leases[1..].iter().map(|lease| store.commit(Arc::new(moves(lease, to - 1, to))))).await;
    }
    report("commit, 7 partitions at a time", "commit", begun.elapsed(), 1_400);

    let begun = Instant::now();
    for turn in 0..100 {
        let emit = |n| Emit { stream: "out".into(), event: event(turn * 100 + n) };
        let effects = Effects { emits: (0..100).map(emit).collect(), ..Effects::default() };
        let commit = Commit { effects, ..moves(&leases[0], 1_000 + turn, 1_001 + turn) };
        store.commit(Arc::new(commit)).await.unwrap();
    }
    report("commit, 100 emitted events", "event", begun.elapsed(), 10_000);

    let begun = Instant::now();
    for _ in 0..1_000 {
        store.progress().await.unwrap();
    }
    report("progress, 8 partitions", "read", begun.elapsed(), 1_000);

    let begun = Instant::now();
    for _ in 0..1_000 {
        store.state("billing", 0, "key").await.unwrap();
    }
    report("state", "read", begun.elapsed(), 1_000);
}

/// A large group: what every host asks and says several times a second.
async fn membership(store: &Arc<dyn Store>) {
    let spec = StreamSpec { name: "large".into(), partitions: 1_024, payload_bytes_max: 1 << 20, retention_ms: None };
    store.declare_stream(&spec).await.unwrap();
    let (name, stream, handler) = ("large".into(), "large".into(), "h".into());
    store.declare_group(&GroupSpec { name, stream, handler, start: Start::Earliest }).await.unwrap();
    let membership = Membership { group: "large".into(), session_timeout_ms: 10_000, partitions_max: 0 };
    let register = |n| {
        let (host, memberships) = (format!("host-{n}"), vec![membership.clone()]);
        async move { store.register(&Registration { host, memberships, ..Registration::default() }).await.unwrap() }
    };
    let begun = Instant::now();
    let sessions = join_all((0..500).map(register)).await;
    report("register, 500 hosts at once", "host", begun.elapsed(), 500);

    let mut observer = Observer::default();
    let begun = Instant::now();
    for decision in observer.decide(0, &store.survey().await.unwrap()) {
        assert!(store.decide(&decision).await.unwrap());
    }
    report("survey, decide and assign", "group", begun.elapsed(), 1);

    let begun = Instant::now();
    for _ in 0..50 {
        store.heartbeat(&sessions).await.unwrap();
    }
    report("heartbeat, 500 hosts", "statement", begun.elapsed(), 50);

    let begun = Instant::now();
    for _ in 0..50 {
        store.survey().await.unwrap();
    }
    report("survey, 500 hosts, 1,032 seats", "read", begun.elapsed(), 50);

    let survey = store.survey().await.unwrap();
    let begun = Instant::now();
    for _ in 0..50 {
        assert!(observer.decide(0, &survey).is_empty());
    }
    report("deciding that nothing is to do", "survey", begun.elapsed(), 50);
}

/// Each commit is a later one than all before it.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn moves(lease: &Lease, from: u64, to: u64) -> Commit {
    Commit::moving(lease.clone(), NEXT.fetch_add(1, Ordering::Relaxed), Offset(from), Offset(to))
}

fn event(n: u64) -> NewEvent {
    NewEvent {
        id: format!("id-{n:016x}"),
        key: Some(format!("customer-{:06}", n % 5_000)),
        kind: "order.placed".into(),
        headers: vec![("trace".into(), "0123456789".into()), ("source".into(), "shop".into())],
        payload: vec![b'x'; 100],
    }
}

fn report(what: &str, unit: &str, took: Duration, count: u64) {
    println!("  {what:32} {:8.2} µs per {unit}", took.as_secs_f64() * 1e6 / count as f64);
}
