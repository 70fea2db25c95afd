//! What a large group costs PostgreSQL: 1,000 members that share one process's store, its lock connection and one
//! heartbeat statement, and 1,024 partitions.
//!
//! `scripts/with-postgres cargo bench -p pelton-store --bench members [-- MEMBERS [PARTITIONS [SECONDS]]]`
//!
//! The cost is the processor time of all of the server's processes, also of those that ended meanwhile, so that vacuuming
//! and flushing count. It is read from `/proc`, for which the server has to run on this machine, on Linux. First each
//! statement alone, back to back; then the life of such a group as it is: a heartbeat of all in every ten seconds, and
//! observers who look five times a second. Nothing may move in that time.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark prints, and may panic")]

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use pelton_core::{Acquired, Membership, Observer, Session};
use pelton_store::{GroupSpec, Progress, Registration, Start, Store, StoreOptions, StreamSpec, open};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

const MEMBERS: usize = 1_000;
const PARTITIONS: usize = 1_024;
const SECONDS: usize = 30;

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// As many as the store has connections: more would only wait for each other.
const AT_ONCE: usize = 8;

#[tokio::main]
async fn main() {
    let Ok(url) = std::env::var("PELTON_TEST_POSTGRES") else {
        return println!("NOT RUN: PELTON_TEST_POSTGRES names no PostgreSQL; scripts/with-postgres starts one");
    };
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (members, partitions, seconds) = (number(0, MEMBERS), number(1, PARTITIONS), number(2, SECONDS));

    let schema = format!("bench_members_{}", std::process::id());
    let options = StoreOptions { host: true, schema: schema.clone(), ..StoreOptions::default() };
    let store = open(&url, &options).await.unwrap();
    let mut direct = PgConnection::connect(&url).await.unwrap();
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut direct).await.unwrap();
    let server = Server { postmaster: stat(backend as u32).unwrap()[PARENT] as u32 };

    println!("{members} members of one group with {partitions} partitions\n");
    let sessions = settle(&store, members, partitions as u32).await;
    alone(&store, &server, &sessions).await;
    let seconds = Duration::from_secs(seconds as u64);
    println!("\n{:24} {:>16} {:>10} {:>10} {:>8}", "life", "server, % core", "heartbeats", "surveys", "moved");
    for observers in [0, 1, 3] {
        live(&store, &server, &sessions, observers, seconds).await;
    }
    drop(store);
    direct.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")))).await.unwrap();
}

/// Registers all, shares out the partitions and has each acquired by its host.
async fn settle(store: &Arc<dyn Store>, members: usize, partitions: u32) -> Vec<Session> {
    let spec = StreamSpec { name: "events".into(), partitions, payload_bytes_max: 1 << 20, retention_ms: None };
    store.declare_stream(&spec).await.unwrap();
    let (name, stream, handler) = ("group".into(), "events".into(), "h".into());
    store.declare_group(&GroupSpec { name, stream, handler, start: Start::Earliest }).await.unwrap();

    let membership = Membership { group: "group".into(), session_timeout_ms: 30_000, partitions_max: 0 };
    let register = |n| {
        let (host, memberships) = (format!("host-{n:04}"), vec![membership.clone()]);
        async move { store.register(&Registration { host, memberships, ..Registration::default() }).await.unwrap() }
    };
    let begun = Instant::now();
    let sessions: Vec<Session> = stream::iter((0..members).map(register)).buffered(AT_ONCE).collect().await;
    report("register, each on its own", begun.elapsed(), members);

    let begun = Instant::now();
    let mut observer = Observer::default();
    let mut decisions = 0;
    while carry_out(store, &mut observer).await > 0 {
        decisions += 1;
    }
    println!("{:32} {:9.1} ms, {decisions} decision(s)", "first assignment", ms(begun.elapsed()));

    let begun = Instant::now();
    let targets = store.progress().await.unwrap();
    let acquire = |row: &Progress| {
        let host = row.target.clone().expect("every partition is meant for somebody");
        let session = sessions.iter().find(|session| session.host == host).cloned().unwrap();
        let partition = row.partition;
        async move {
            let acquired = store.acquire("group", partition, &session).await.unwrap();
            assert!(matches!(acquired, Acquired::Claimed(_)), "partition {partition} is not free");
        }
    };
    stream::iter(targets.iter().map(acquire)).buffer_unordered(AT_ONCE).collect::<()>().await;
    report("acquire, each on its own", begun.elapsed(), targets.len());
    sessions
}

/// What one observer finds to be done, and does.
async fn carry_out(store: &Arc<dyn Store>, observer: &mut Observer) -> usize {
    let decisions = observer.decide(0, &store.survey().await.unwrap());
    for decision in &decisions {
        store.decide(decision).await.unwrap();
    }
    decisions.len()
}

/// The statements back to back: their time, and what they cost the server.
async fn alone(store: &Arc<dyn Store>, server: &Server, sessions: &[Session]) {
    println!("\n{:32} {:>10} {:>12} {:>24}", "one after the other", "median", "server CPU", "");
    let per_core = |cpu: Duration, every: Duration| 100.0 * cpu.as_secs_f64() / every.as_secs_f64();
    let (median, cpu) = cost(server, 200, async || {
        let stand = store.heartbeat(sessions).await.unwrap();
        assert!(stand.into_iter().all(|stands| stands), "somebody was given up");
    })
    .await;
    let share = per_core(cpu, HEARTBEAT_INTERVAL);
    println!("{:32} {median:7.1} ms {:9.1} ms {share:9.2} % of a core, 1 / 10 s", "heartbeat of all", ms(cpu));

    let (median, cpu) = cost(server, 100, async || drop(store.survey().await.unwrap())).await;
    let share = per_core(cpu, LOOK_INTERVAL);
    println!("{:32} {median:7.1} ms {:9.1} ms {share:9.2} % of a core, 5 / s", "survey", ms(cpu));

    let (median, cpu) = cost(server, 100, async || drop(store.progress().await.unwrap())).await;
    println!("{:32} {median:7.1} ms {:9.1} ms", "progress", ms(cpu));

    let survey = store.survey().await.unwrap();
    let mut observer = Observer::default();
    let begun = Instant::now();
    for _ in 0..100 {
        assert!(observer.decide(0, &survey).is_empty(), "there was something to do");
    }
    println!("{:32} {:7.1} ms", "deciding that nothing is to do", ms(begun.elapsed()) / 100.0);
}

/// The median time of something, in milliseconds, and the processor time the server spends for it.
async fn cost(server: &Server, times: u32, work: impl AsyncFn()) -> (f64, Duration) {
    let before = server.cpu();
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        work().await;
        took.push(ms(begun.elapsed()));
    }
    // What the server does in the background for it comes a little later.
    sleep(Duration::from_secs(2)).await;
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], (server.cpu() - before) / times)
}

/// The group as it lives; says what the server spent, and how many partitions moved.
async fn live(store: &Arc<dyn Store>, server: &Server, sessions: &[Session], observers: usize, length: Duration) {
    let places = |progress: Vec<Progress>| {
        progress.into_iter().map(|row| (row.owner, row.target, row.epoch)).collect::<Vec<_>>()
    };
    let before = places(store.progress().await.unwrap());
    let (begun, cpu) = (Instant::now(), server.cpu());
    let mut looking = JoinSet::new();
    for n in 0..observers {
        let store = Arc::clone(store);
        looking.spawn(async move {
            sleep(LOOK_INTERVAL / observers as u32 * n as u32).await;
            let (mut observer, mut looks) = (Observer::default(), 0);
            let mut look = interval(LOOK_INTERVAL);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while begun.elapsed() < length {
                look.tick().await;
                assert_eq!(carry_out(&store, &mut observer).await, 0, "something was decided without cause");
                looks += 1;
            }
            looks
        });
    }
    let mut beat = interval(HEARTBEAT_INTERVAL);
    let mut beats = 0;
    loop {
        beat.tick().await;
        assert!(store.heartbeat(sessions).await.unwrap().into_iter().all(|stands| stands), "somebody was given up");
        beats += 1;
        if begun.elapsed() + HEARTBEAT_INTERVAL >= length {
            break;
        }
    }
    sleep(length.saturating_sub(begun.elapsed())).await;
    let surveys: usize = looking.join_all().await.into_iter().sum();
    let share = 100.0 * (server.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let after = places(store.progress().await.unwrap());
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let who = format!("{observers} observer(s), {} s", length.as_secs());
    println!("{who:24} {share:>16.2} {beats:>10} {surveys:>10} {moved:>8}");
}

/// A PostgreSQL server of this machine.
struct Server {
    postmaster: u32,
}

/// Places in `/proc/PID/stat`, counted from the state: see proc(5).
const PARENT: usize = 1;
const OWN_TICKS: [usize; 2] = [11, 12];
const TICKS_OF_CHILDREN: [usize; 2] = [13, 14];
/// What Linux has told every program since it told any.
const TICK: Duration = Duration::from_millis(10);

impl Server {
    /// What all of its processes have spent so far, and those that have ended.
    fn cpu(&self) -> Duration {
        let sum = |stat: &[u64], places: &[usize]| places.iter().map(|&place| stat[place]).sum::<u64>();
        let postmaster = stat(self.postmaster).expect("the server runs on this machine");
        let mut ticks = sum(&postmaster, &OWN_TICKS) + sum(&postmaster, &TICKS_OF_CHILDREN);
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let child = pid.and_then(stat).filter(|stat| stat[PARENT] == u64::from(self.postmaster));
            ticks += child.map_or(0, |stat| sum(&stat, &OWN_TICKS));
        }
        TICK * ticks as u32
    }
}

/// The numbers of a process after its name; what is no number is 0.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, numbers) = text.rsplit_once(')')?;
    Some(numbers.split_whitespace().map(|number| number.parse().unwrap_or_default()).collect())
}

fn report(what: &str, took: Duration, count: usize) {
    println!("{what:32} {:9.1} ms, {:.2} ms each", ms(took), ms(took) / count as f64);
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
