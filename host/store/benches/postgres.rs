//! What the PostgreSQL store costs: `scripts/with-postgres cargo bench -p pelton-store --bench postgres`. Numbers to compare
//! with each other on one machine, not to hold a test to.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark prints, and may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pelton_core::{
    Acquired, Claim, Commit, CommitOutcome, Decision, Effects, Emit, Lease, Membership, NewEvent, Offset, Session,
};
use pelton_store::{Durability, GroupSpec, ReadLimit, Registration, Start, Store, StoreOptions, StreamSpec, open};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

const PARTITIONS: u32 = 8;
const MANY: u32 = 1_024;
const EVENTS: u64 = 200_000;
const HOSTS: u64 = 1_000;

static SEQUENCE: AtomicU64 = AtomicU64::new(1);

#[tokio::main]
async fn main() {
    let Ok(url) = std::env::var("PELTON_TEST_POSTGRES") else {
        println!("NOT RUN: set PELTON_TEST_POSTGRES or use scripts/with-postgres");
        return;
    };
    for durability in [Durability::Durable, Durability::Relaxed] {
        println!("{durability:?}");
        let schema = format!("bench_{}", std::process::id());
        let options = StoreOptions { schema: schema.clone(), durability, host: true, ..StoreOptions::default() };
        let store = open(&url, &options).await.unwrap();
        run(&store).await;
        drop(store);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")))).await.unwrap();
    }
}

async fn run(store: &Arc<dyn Store>) {
    for (name, partitions) in [("orders", PARTITIONS), ("out", PARTITIONS), ("large", MANY)] {
        let spec = StreamSpec { name: name.into(), partitions, payload_bytes_max: 1 << 20, retention_ms: None };
        store.declare_stream(&spec).await.unwrap();
    }
    for (name, stream) in [("billing", "orders"), ("large", "large")] {
        let (name, stream, handler) = (name.into(), stream.into(), "h".into());
        store.declare_group(&GroupSpec { name, stream, handler, start: Start::Earliest }).await.unwrap();
    }
    append(store).await;
    fetch(store).await;
    let session = store.register(&Registration { host: "host".into(), ..Registration::default() }).await.unwrap();
    commits(store, &session).await;
    many_partitions(store, &session).await;
    many_hosts(store).await;
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
        report(&format!("fetch, {size} at a time"), "event", begun.elapsed(), read);
    }
}

async fn leases(store: &Arc<dyn Store>, group: &str, partitions: u32, session: &Session) -> Vec<Lease> {
    let survey = store.survey().await.unwrap();
    let generation = survey.groups.iter().find(|seen| seen.group == group).unwrap().generation;
    let targets = vec![Some(session.host.clone()); partitions as usize];
    assert!(
        store
            .decide(&Decision::Assign { group: group.into(), generation, homes: targets.clone(), targets })
            .await
            .unwrap()
    );
    join_all((0..partitions).map(async |partition| {
        let acquired = store.acquire(group, partition, session).await.unwrap();
        let Acquired::Claimed(Claim { epoch, .. }) = acquired else { panic!("it is not free") };
        Lease { group: group.into(), partition, host: session.host.clone(), epoch }
    }))
    .await
}

async fn commit(store: &Arc<dyn Store>, lease: &Lease, from: u64, to: u64, effects: Effects) {
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let commit = Commit { effects, ..Commit::moving(lease.clone(), sequence, Offset(from), Offset(to)) };
    assert_eq!(store.commit(Arc::new(commit)).await.unwrap(), CommitOutcome::Committed);
}

async fn commits(store: &Arc<dyn Store>, session: &Session) {
    let leases = leases(store, "billing", PARTITIONS, session).await;
    let begun = Instant::now();
    for n in 0..2_000 {
        commit(store, &leases[0], n, n + 1, Effects::default()).await;
    }
    report("commit of one position", "commit", begun.elapsed(), 2_000);

    let begun = Instant::now();
    for n in 0..50 {
        let emits = (0..500).map(|m| Emit { stream: "out".into(), event: event(n * 500 + m) }).collect();
        let effects = Effects { emits, ..Effects::default() };
        commit(store, &leases[1], n * 100, (n + 1) * 100, effects).await;
    }
    report("commit of 500 emitted events", "event", begun.elapsed(), 25_000);

    let begun = Instant::now();
    for n in 0..50 {
        let state = (0..100).map(|m| (format!("key-{n}-{m}"), Some(vec![0; 100]))).collect();
        commit(store, &leases[2], n, n + 1, Effects { state, ..Effects::default() }).await;
    }
    report("commit of 100 values of state", "value", begun.elapsed(), 5_000);

    let begun = Instant::now();
    for n in 0..1_000 {
        store.state("billing", 2, &format!("key-{}-{}", n % 50, n % 100)).await.unwrap();
    }
    report("state", "read", begun.elapsed(), 1_000);
}

/// Each of many partitions commits as soon as its last commit is stored.
async fn many_partitions(store: &Arc<dyn Store>, session: &Session) {
    let events: Vec<NewEvent> = (0..40 * u64::from(MANY)).map(event).collect();
    for batch in events.chunks(1_000) {
        store.append("large", batch.to_vec()).await.unwrap();
    }
    let heads: Vec<u64> = store
        .streams()
        .await
        .unwrap()
        .into_iter()
        .find(|info| info.spec.name == "large")
        .unwrap()
        .partitions
        .iter()
        .map(|partition| partition.head.0)
        .collect();
    let leases = leases(store, "large", MANY, session).await;
    for at_once in [100, MANY as usize] {
        let begun = Instant::now();
        let first = if at_once == 100 { 0 } else { 10 };
        let took = join_all(leases.iter().zip(&heads).take(at_once).map(async |(lease, head)| {
            let mut took = Vec::new();
            let from = if lease.partition < 100 { first } else { 0 };
            for n in from..(from + 10).min(*head) {
                let begun = Instant::now();
                commit(store, lease, n, n + 1, Effects::default()).await;
                took.push(begun.elapsed());
            }
            took
        }))
        .await;
        let mut took: Vec<Duration> = took.into_iter().flatten().collect();
        report(&format!("commits, {at_once} partitions at once"), "commit", begun.elapsed(), took.len() as u64);
        took.sort();
        let p = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
        println!(
            "    {:.0} a second; p50 {:?}, p99 {:?}",
            took.len() as f64 / begun.elapsed().as_secs_f64(),
            p(50),
            p(99)
        );
    }
    let begun = Instant::now();
    for _ in 0..100 {
        store.progress().await.unwrap();
    }
    report("progress of 1,032 partitions", "read", begun.elapsed(), 100);
}

async fn many_hosts(store: &Arc<dyn Store>) {
    let membership = Membership { group: "large".into(), session_timeout_ms: 10_000, partitions_max: 0 };
    let begun = Instant::now();
    let mut sessions = Vec::new();
    for n in 0..HOSTS {
        let (host, memberships) = (format!("host-{n}"), vec![membership.clone()]);
        sessions.push(store.register(&Registration { host, memberships, ..Registration::default() }).await.unwrap());
    }
    report("register", "host", begun.elapsed(), HOSTS);
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(store.heartbeat(&sessions).await.unwrap().into_iter().all(|stands| stands));
    }
    report("heartbeat of 1,000 hosts", "heartbeat", begun.elapsed(), 20);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(store.survey().await.unwrap().hosts.len() as u64, HOSTS + 1);
    }
    report("survey of 1,000 hosts", "survey", begun.elapsed(), 20);
}

fn event(n: u64) -> NewEvent {
    let headers = vec![("source".into(), "bench".into()), ("trace".into(), format!("{n:016x}"))];
    let (id, key) = (format!("event-{n}"), Some(format!("customer-{:06}", n % 10_000)));
    NewEvent { id, key, kind: "order.placed".into(), headers, payload: vec![b'x'; 100] }
}

fn report(what: &str, unit: &str, took: Duration, count: u64) {
    println!("  {what}: {:.2} µs a {unit}", took.as_secs_f64() * 1e6 / count as f64);
}
