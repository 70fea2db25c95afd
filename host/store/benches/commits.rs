//! How many partitions can commit their positions on PostgreSQL, durably, and how long one of them waits; and how long it
//! takes to read a committed offset.
//!
//! `scripts/with-postgres cargo bench -p pelton-store --bench commits [-- SECONDS [ROUNDS]]`
//!
//! Each partition has one commit in flight, as its pump has. **Full load**: the next one follows at once. **Paced**: each
//! partition commits at even intervals; a commit that had to wait for the one before it counts from when it was due, so that
//! a store that falls behind does not hide it. The heads are set by hand, since nobody reads events here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use pelton_core::{Acquired, Commit, CommitOutcome, Decision, Lease, Membership, Offset};
use pelton_store::{GroupSpec, Registration, Start, Store, StoreOptions, StreamSpec, open};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

const PARTITIONS: u32 = 1_024;
const SECONDS: u64 = 4;
const ROUNDS: usize = 3;
const READS: usize = 1_000;
/// As many as the store has connections.
const AT_ONCE: usize = 8;

/// What is done to the store, and by how many partitions at a time.
#[derive(Clone, Copy)]
enum Load {
    Full(usize),
    /// At so many commits a second in all.
    Paced(usize, u32),
}

/// A partition that is held, and how far it has come.
struct Seat {
    lease: Lease,
    committed: AtomicU64,
    commits: AtomicU64,
}

#[tokio::main]
async fn main() {
    let Ok(url) = std::env::var("PELTON_TEST_POSTGRES") else {
        return println!("NOT RUN: PELTON_TEST_POSTGRES names no PostgreSQL; scripts/with-postgres starts one");
    };
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let length = Duration::from_secs(numbers.first().copied().unwrap_or(SECONDS));
    let rounds = numbers.get(1).map_or(ROUNDS, |rounds| *rounds as usize);

    let schema = format!("bench_commits_{}", std::process::id());
    let options = StoreOptions { host: true, schema: schema.clone(), ..StoreOptions::default() };
    let store = open(&url, &options).await.unwrap();
    let mut direct = PgConnection::connect(&url).await.unwrap();
    let seats = acquire_all(&store, &mut direct, &schema).await;

    let loads = [
        Load::Full(1),
        Load::Full(64),
        Load::Full(256),
        Load::Full(1_024),
        Load::Paced(256, 2_000),
        Load::Paced(1_024, 10_000),
    ];
    let mut rates = vec![Vec::new(); loads.len()];
    let mut latencies = vec![Vec::new(); loads.len()];
    for _ in 0..rounds {
        for (index, load) in loads.into_iter().enumerate() {
            let (rate, waits) = run(&store, &seats, load, length).await;
            rates[index].push(rate);
            latencies[index].extend(waits);
        }
    }
    println!("durable commits, medians of {rounds} rounds of {} s", length.as_secs());
    println!("{:42} {:>10} {:>8} {:>8} {:>8}", "", "commits/s", "p50 ms", "p99 ms", "max ms");
    for (index, load) in loads.into_iter().enumerate() {
        let name = match load {
            Load::Full(partitions) => format!("full load, {partitions} partition(s)"),
            Load::Paced(partitions, rate) => format!("paced, {rate} a second, {partitions} partitions"),
        };
        rates[index].sort_by(f64::total_cmp);
        let rate = rates[index][rates[index].len() / 2];
        println!("{name:42} {rate:>10.0} {}", percentiles(&mut latencies[index]));
    }

    println!("\nreads, {READS} one after the other {:28} {:>8} {:>8}", "p50 ms", "p99 ms", "max ms");
    reads(&store, &mut direct, &schema, "nothing else goes on").await;
    let busy = {
        let (store, seats) = (Arc::clone(&store), seats.clone());
        tokio::spawn(async move { run(&store, &seats, Load::Paced(256, 2_000), Duration::from_secs(3_600)).await })
    };
    reads(&store, &mut direct, &schema, "beside 2,000 commits a second").await;
    busy.abort();
    let _ = busy.await;
    drop(store);
    direct.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")))).await.unwrap();
}

/// One host that holds every partition.
async fn acquire_all(store: &Arc<dyn Store>, direct: &mut PgConnection, schema: &str) -> Arc<[Seat]> {
    let spec =
        StreamSpec { name: "events".into(), partitions: PARTITIONS, payload_bytes_max: 1 << 20, retention_ms: None };
    store.declare_stream(&spec).await.unwrap();
    let (name, stream, handler) = ("group".into(), "events".into(), "h".into());
    store.declare_group(&GroupSpec { name, stream, handler, start: Start::Earliest }).await.unwrap();
    let heads = format!("UPDATE {schema}.stream_partitions SET next_offset = 1000000000");
    direct.execute(sqlx::raw_sql(AssertSqlSafe(heads))).await.unwrap();

    let membership = Membership { group: "group".into(), session_timeout_ms: 3_600_000, partitions_max: 0 };
    let registration = Registration { host: "bench".into(), memberships: vec![membership], ..Registration::default() };
    let session = store.register(&registration).await.unwrap();
    let generation = store.survey().await.unwrap().groups[0].generation;
    let targets = vec![Some(session.host.clone()); PARTITIONS as usize];
    let homes = vec![None; PARTITIONS as usize];
    assert!(store.decide(&Decision::Assign { group: "group".into(), generation, targets, homes }).await.unwrap());
    let acquire = |partition| {
        let session = &session;
        async move {
            let Acquired::Claimed(claim) = store.acquire("group", partition, session).await.unwrap() else {
                panic!("partition {partition} is not free")
            };
            let lease = Lease { group: "group".into(), partition, host: session.host.clone(), epoch: claim.epoch };
            Seat { lease, committed: AtomicU64::new(claim.committed.0), commits: AtomicU64::new(0) }
        }
    };
    stream::iter((0..PARTITIONS).map(acquire)).buffered(AT_ONCE).collect::<Vec<_>>().await.into()
}

/// Commits a second, and how long each of them took.
async fn run(store: &Arc<dyn Store>, seats: &Arc<[Seat]>, load: Load, length: Duration) -> (f64, Vec<Duration>) {
    let (partitions, pace) = match load {
        Load::Full(partitions) => (partitions, None),
        Load::Paced(partitions, rate) => (partitions, Some(Duration::from_secs(1) * partitions as u32 / rate)),
    };
    let begun = Instant::now();
    let end = begun + length;
    let mut tasks = JoinSet::new();
    for n in 0..partitions {
        let (store, seats) = (Arc::clone(store), Arc::clone(seats));
        let mut due = begun + pace.unwrap_or_default() * n as u32 / partitions as u32;
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while Instant::now() < end && due < end {
                let mut from = Instant::now();
                if let Some(pace) = pace {
                    if from < due {
                        sleep_until(due).await;
                        from = Instant::now();
                    } else {
                        from = due;
                    }
                    due += pace;
                }
                commit(&*store, &seats[n]).await;
                waits.push(from.elapsed());
            }
            waits
        });
    }
    let waits: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    (waits.len() as f64 / begun.elapsed().as_secs_f64(), waits)
}

async fn commit(store: &dyn Store, seat: &Seat) {
    let from = seat.committed.load(Ordering::Relaxed);
    let sequence = seat.commits.fetch_add(1, Ordering::Relaxed) + 1;
    let commit = Commit::moving(seat.lease.clone(), sequence, Offset(from), Offset(from + 1));
    assert_eq!(store.commit(Arc::new(commit)).await.unwrap(), CommitOutcome::Committed);
    seat.committed.store(from + 1, Ordering::Relaxed);
}

/// A committed offset as an API would read it, one row by its key; and where all partitions of all groups stand.
async fn reads(store: &Arc<dyn Store>, direct: &mut PgConnection, schema: &str, beside: &str) {
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    let text = format!("SELECT committed FROM {schema}.group_partitions WHERE group_name = $1 AND partition = $2");
    let text: Arc<str> = text.into();
    for n in 0..READS {
        let begun = Instant::now();
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(Arc::clone(&text)));
        query.bind("group").bind((n % PARTITIONS as usize) as i32).fetch_one(&mut *direct).await.unwrap();
        rows.push(begun.elapsed());
        if n % 10 == 0 {
            let begun = Instant::now();
            store.progress().await.unwrap();
            all.push(begun.elapsed());
        }
    }
    println!("{:53} {}", format!("one row, {beside}"), percentiles(&mut rows));
    println!("{:53} {}", format!("all {PARTITIONS} (a tenth as often), {beside}"), percentiles(&mut all));
}

fn percentiles(waits: &mut [Duration]) -> String {
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("{:>8.2} {:>8.2} {:>8.2}", at(0.5), at(0.99), at(1.0))
}
