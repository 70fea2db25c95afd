//! How long it takes on an idle system from an append to the handler's return, through the whole daemon.
//!
//! `scripts/with-postgres cargo bench -p pelton --bench latency [-- APPENDS]`, on SQLite, and on PostgreSQL where
//! `PELTON_TEST_POSTGRES` says.
//!
//! A daemon runs in this process, on a runtime of its own, with everything that `pelton run` has. A producer with a store
//! object of its own, which the daemon's knows nothing of, appends one event, waits until it was handled, pauses, and
//! appends the next. The handler is a WebAssembly component whose last act is a log line; the moment is taken when that
//! line arrives, so what is missing is the way out of the guest, which takes less than a microsecond.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    fmt::{Debug, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pelton::{
    config::Config,
    host::{self, RunOptions},
};
use pelton_core::NewEvent;
use pelton_store::{Store, StoreOptions};
use rand::Rng;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    util::SubscriberInitExt,
};

const APPENDS: u64 = 1_000;
const PAUSES_MS: [u64; 3] = [5, 20, 200];
const PATIENCE: Duration = Duration::from_secs(30);

/// The number of the event that was handled last, and when that was.
#[derive(Clone, Default)]
struct Handled(Arc<(AtomicU64, Mutex<Option<Instant>>)>);

impl<S: Subscriber> Layer<S> for Handled {
    /// Nothing but what the guest says at last costs anything.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == "guest" && *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = Instant::now();
        let mut message = Message(String::new());
        event.record(&mut message);
        let (last, when) = &*self.0;
        *when.lock().unwrap() = Some(now);
        last.store(message.0.parse().expect("the number of an event"), Ordering::Release);
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

fn main() {
    let appends = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(APPENDS);
    let handled = Handled::default();
    tracing_subscriber::registry().with(handled.clone()).init();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    println!("milliseconds, one event at a time");
    println!("{:40} {:>8} {:>8} {:>8} {:>8}", "", "appends", "p50", "p99", "max");
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("bench.db").display());
    runtime.block_on(bench("SQLite", &sqlite, appends, &handled));
    match std::env::var("PELTON_TEST_POSTGRES") {
        Ok(url) => runtime.block_on(bench("PostgreSQL", &url, appends, &handled)),
        Err(_) => println!("NOT RUN: PostgreSQL; scripts/with-postgres starts one"),
    }
}

async fn bench(engine: &str, url: &str, appends: u64, handled: &Handled) {
    let folder = tempfile::tempdir().unwrap();
    let schema = format!("bench_latency_{}", std::process::id());
    let on_postgres = url.starts_with("postgres");
    let in_schema = if on_postgres { format!("schema = {schema:?}\n") } else { String::new() };
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt/misbehave.wasm");
    let workers = format!(
        "[host]\ncache = {cache:?}\n[store]\nurl = {url:?}\n{in_schema}[streams.events]\npartitions = 8\n\
         [handlers.h]\nmodule = {module:?}\n[groups.work]\nstream = \"events\"\nhandler = \"h\"\n"
    );
    let path = folder.path().join("workers.toml");
    std::fs::write(&path, workers).unwrap();
    let config = Config::load(&path).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = thread::spawn(move || {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let stopped = async { drop(stopped.await) };
        runtime.block_on(host::run(&path, config, RunOptions::default(), stopped)).unwrap();
    });

    let options = StoreOptions { schema: schema.clone(), ..StoreOptions::default() };
    let store = pelton_store::open(url, &options).await.unwrap();
    let all_owned = async {
        loop {
            let progress = store.progress().await.unwrap();
            if !progress.is_empty() && progress.iter().all(|row| row.owner.is_some()) {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_owned).await.expect("the daemon works");
    for pause_ms in PAUSES_MS {
        // The long pauses are for the time they take, not for the tail.
        let appends = if pause_ms > 100 { appends / 5 } else { appends };
        measure(engine, &*store, appends, pause_ms, handled).await;
    }
    stop.send(()).unwrap();
    daemon.join().unwrap();
    drop(store);
    if on_postgres {
        let mut sql = PgConnection::connect(url).await.unwrap();
        sql.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")))).await.unwrap();
    }
}

async fn measure(engine: &str, store: &dyn Store, appends: u64, pause_ms: u64, handled: &Handled) {
    let (last, when) = &*handled.0;
    let (mut appending, mut from_call, mut from_answer) = (Vec::new(), Vec::new(), Vec::new());
    let first = last.load(Ordering::Acquire) + 1;
    for n in first..first + appends + 1 {
        let event = NewEvent {
            id: format!("event-{n}"),
            key: Some(format!("key-{}", n % 64)),
            kind: "log".into(),
            headers: Vec::new(),
            payload: n.to_string().into_bytes(),
        };
        let called = Instant::now();
        store.append("events", vec![event]).await.unwrap();
        let answered = Instant::now();
        while last.load(Ordering::Acquire) != n {
            assert!(answered.elapsed() < PATIENCE, "event {n} was not handled");
            sleep(Duration::from_millis(1)).await;
        }
        // The guest says it at two levels of that name; the second line may be under way.
        sleep(Duration::from_millis(2)).await;
        let handled = when.lock().unwrap().unwrap();
        // The first one of each series pays for what the others find warm.
        if n > first {
            let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
            appending.push(ms(answered - called));
            from_call.push(ms(handled - called));
            // The handler may be faster than the answer on its way to the producer.
            from_answer.push(
                ms(handled.saturating_duration_since(answered)) - ms(answered.saturating_duration_since(handled)),
            );
        }
        let jitter_us = rand::rng().random_range(0..pause_ms * 500);
        sleep(Duration::from_micros(pause_ms * 750 + jitter_us)).await;
    }
    println!("{engine}, pauses of {pause_ms} ms");
    report("append called → handler returned", from_call);
    report("append answered → handler returned", from_answer);
    report("append called → answered", appending);
}

fn report(what: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!("  {what:38} {:>8} {:>8.2} {:>8.2} {:>8.2}", took.len(), at(0.5), at(0.99), at(1.0));
}
