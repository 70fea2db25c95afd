//! What a new version costs a group that is at work, through the whole daemon on SQLite.
//!
//! `cargo bench -p pelton --bench swap [-- SWAPS]`, and with `PELTON_BENCH_PYTHON=handler.wasm` a large component too: one
//! that logs a line at level `error` for each event.
//!
//! * The pause of a partition: from the last event that the old version handles to the first that the new one does, while
//!   there is always a backlog. Beside it the time that a batch takes where nothing is swapped.
//! * From a module file that is renamed into place to the first event that the new version handles, with an event in every
//!   millisecond or so. Digests that nobody has seen are made by a custom section with a number at the end of a module.
//!
//! The daemon runs in this process, on a runtime of its own, and compiles in processes of their own as `pelton run` does.
//! A producer appends through a store object of its own. A handler's first act is a log line; times are those at which
//! lines arrive.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pelton::{
    config::Config,
    host::{self, RunOptions},
};
use pelton_core::NewEvent;
use pelton_store::{Store, StoreOptions};
use tokio::{runtime::Builder, sync::oneshot};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    util::SubscriberInitExt,
};

const SWAPS: usize = 50;
const BATCH: usize = 100;
/// Events that wait in each partition where there is a backlog.
const BACKLOG: u64 = 20_000;
const UNDISTURBED: Duration = Duration::from_secs(5);
const BETWEEN_SWAPS: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// What was said, in order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Copy, Debug)]
struct Line {
    at: Instant,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// An event of this partition is in hand.
    Event(u64, u64),
    /// Another version takes over in this partition.
    TakesOver(u64),
    Loaded,
    Live,
}

impl<S: Subscriber> Layer<S> for Heard {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        match metadata.target() {
            "guest" => *metadata.level() == Level::ERROR,
            target => *metadata.level() == Level::INFO && target.starts_with("pelton"),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let at = Instant::now();
        let mut said = Said::default();
        event.record(&mut said);
        let what = match (event.metadata().target(), &*said.message) {
            ("guest", _) => What::Event(said.partition, said.offset),
            (_, "new version answers from this offset on") => What::TakesOver(said.partition),
            (_, "module loaded") => What::Loaded,
            (_, "new version is live") => What::Live,
            _ => return,
        };
        let mut heard = self.0.lock().unwrap();
        // A guest of the tests says it at two levels of that name.
        if heard.last().is_none_or(|last| last.what != what) {
            heard.push(Line { at, what });
        }
    }
}

#[derive(Default)]
struct Said {
    message: String,
    partition: u64,
    offset: u64,
}

impl Visit for Said {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "partition" => self.partition = value,
            "offset" => self.offset = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.message, "{value:?}").unwrap();
        }
    }
}

impl Heard {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn since(&self, index: usize) -> Vec<Line> {
        self.0.lock().unwrap()[index..].to_vec()
    }

    /// Waits until so many events were handled.
    fn await_events(&self, count: usize) {
        let began = Instant::now();
        while self.since(0).iter().filter(|line| matches!(line.what, What::Event(..))).count() < count {
            assert!(
                began.elapsed() < PATIENCE,
                "the handler tells of no event: it must log a line at level error for each"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until in each of so many partitions another version has handled an event since then.
    fn await_swap(&self, index: usize, partitions: usize) {
        let (began, mut looked) = (Instant::now(), index);
        let (mut taken_over, mut handled) = (BTreeMap::new(), 0);
        while handled < partitions {
            assert!(began.elapsed() < PATIENCE, "the new version does not answer everywhere");
            thread::sleep(Duration::from_millis(1));
            let lines = self.since(looked);
            looked += lines.len();
            for line in lines {
                match line.what {
                    What::TakesOver(partition) => drop(taken_over.insert(partition, false)),
                    What::Event(partition, _) => {
                        if let Some(seen @ false) = taken_over.get_mut(&partition) {
                            *seen = true;
                            handled += 1;
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn main() -> ExitCode {
    // The daemon starts this program to compile modules.
    if std::env::args().nth(1).is_some_and(|command| command == "compile-module") {
        return pelton::cli::main();
    }
    let swaps = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(SWAPS);
    let heard = Heard::default();
    tracing_subscriber::registry().with(heard.clone()).init();
    let small =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt/misbehave.wasm"))
            .unwrap();

    println!("milliseconds{:38} {:>7} {:>8} {:>8} {:>8}", "", "times", "p50", "p99", "max");
    for partitions in [1, 8] {
        pauses(&heard, &small, partitions, swaps);
    }
    first_calls(&heard, "small module", &small, swaps);
    match std::env::var("PELTON_BENCH_PYTHON") {
        Ok(path) => first_calls(&heard, "large module", &std::fs::read(path).unwrap(), swaps),
        Err(_) => println!("NOT RUN: a large module; PELTON_BENCH_PYTHON names one"),
    }
    ExitCode::SUCCESS
}

fn pauses(heard: &Heard, module: &[u8], partitions: usize, swaps: usize) {
    let place = Place::new(module);
    let daemon = place.run(partitions, &format!("batch_size = {BATCH}"));
    let producer = Producer::start(&place.url, partitions, Pace::Backlog);
    heard.await_events(1_000 * partitions);
    let index = heard.len();
    thread::sleep(UNDISTURBED);
    let undisturbed = heard.since(index);
    let mut all = Vec::new();
    for n in 0..swaps {
        let index = heard.len();
        place.replace(&numbered(module, n as u64));
        heard.await_swap(index, partitions);
        thread::sleep(BETWEEN_SWAPS);
        all.extend(pauses_in(&heard.since(index)));
    }
    producer.stop();
    daemon.stop();
    let rate = undisturbed.len() as f64 / UNDISTURBED.as_secs_f64();
    println!("{partitions} partitions under load, {rate:.0} events a second");
    let (batches, gaps) = batches_in(&undisturbed);
    report("a batch of 100, nothing swapped", batches);
    report("longest gap in 1,000 events, nothing swapped", gaps);
    report("pause: last event of old → first of new", all);
    heard.0.lock().unwrap().clear();
}

/// From the last event of the old version to the first of the new one, in each partition.
fn pauses_in(lines: &[Line]) -> Vec<f64> {
    let (mut last, mut waits, mut pauses) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for line in lines {
        match line.what {
            What::Event(partition, _) => {
                if let Some(old) = waits.remove(&partition) {
                    pauses.push(ms(line.at.duration_since(old)));
                }
                last.insert(partition, line.at);
            }
            What::TakesOver(partition) => {
                if let Some(old) = last.get(&partition) {
                    waits.insert(partition, *old);
                }
            }
            _ => {}
        }
    }
    pauses
}

/// How long so many events take as make a batch, and the longest time between two events in each thousand.
fn batches_in(lines: &[Line]) -> (Vec<f64>, Vec<f64>) {
    let mut by_partition: BTreeMap<u64, Vec<Instant>> = BTreeMap::new();
    for line in lines {
        if let What::Event(partition, _) = line.what {
            by_partition.entry(partition).or_default().push(line.at);
        }
    }
    let (mut batches, mut gaps) = (Vec::new(), Vec::new());
    for times in by_partition.values() {
        batches.extend(times.windows(BATCH + 1).step_by(BATCH).map(|times| ms(times[BATCH].duration_since(times[0]))));
        let longest = |times: &[Instant]| {
            let gaps = times.windows(2).map(|pair| ms(pair[1].duration_since(pair[0])));
            gaps.fold(0.0, f64::max)
        };
        gaps.extend(times.chunks_exact(1_000).map(longest));
    }
    (batches, gaps)
}

fn first_calls(heard: &Heard, what: &str, module: &[u8], swaps: usize) {
    let is_large = module.len() > 1 << 20;
    let place = Place::new(module);
    let daemon = place.run(1, "");
    let producer = Producer::start(&place.url, 1, Pace::Trickle);
    heard.await_events(1);
    println!("{what}, {} bytes: from its file to the first call", module.len());
    let versions: Vec<_> = (0..4).map(|n| numbered(module, n)).collect();
    let swap = |next: &[u8]| {
        let index = heard.len();
        let written = place.replace(next);
        heard.await_swap(index, 1);
        thread::sleep(BETWEEN_SWAPS);
        stages(&heard.since(index), written)
    };
    let fresh = if is_large { 2 } else { swaps };
    series("not seen before", (0..fresh).map(|n| swap(&numbered(module, 100 + n as u64))).collect());
    for version in &versions {
        swap(version);
    }
    series("back and forth between two", (0..swaps).map(|n| swap(&versions[n % 2])).collect());
    series("four in turn, compiled before", (0..swaps).map(|n| swap(&versions[n % 4])).collect());
    producer.stop();
    daemon.stop();
    heard.0.lock().unwrap().clear();
}

/// From the file: until it is loaded, until the store has it, until the version takes over, until it is called.
fn stages(lines: &[Line], written: Instant) -> [f64; 4] {
    let of = |what: fn(&What) -> bool| lines.iter().find(|line| what(&line.what)).map(|line| line.at);
    let taken_over = of(|what| matches!(what, What::TakesOver(_))).unwrap();
    let called = lines.iter().find(|line| line.at >= taken_over && matches!(line.what, What::Event(..))).unwrap().at;
    let loaded = of(|what| *what == What::Loaded);
    let live = of(|what| *what == What::Live);
    let since = |at: Option<Instant>| at.map_or(f64::NAN, |at| ms(at.saturating_duration_since(written)));
    [since(loaded), since(live), since(Some(taken_over)), since(Some(called))]
}

fn series(what: &str, stages: Vec<[f64; 4]>) {
    for (index, stage) in ["loaded", "live in the store", "takes over", "called"].iter().enumerate() {
        let took: Vec<f64> = stages.iter().map(|stages| stages[index]).filter(|ms| ms.is_finite()).collect();
        if !took.is_empty() {
            report(&format!("{what}: {stage}"), took);
        }
    }
}

/// A folder with a module, a database and a configuration.
struct Place {
    folder: tempfile::TempDir,
    url: String,
}

impl Place {
    fn new(module: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("h.wasm"), module).unwrap();
        let url = format!("sqlite://{}", folder.path().join("bench.db").display());
        Self { folder, url }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, partitions: usize, of_group: &str) -> Daemon {
        let workers = format!(
            "[host]\ncache = {:?}\n[store]\nurl = {:?}\n[streams.events]\npartitions = {partitions}\n\
             [handlers.h]\nmodule = {:?}\n[handlers.h.limits]\nlog_rate = 1000000\n\
             [groups.work]\nstream = \"events\"\nhandler = \"h\"\n{of_group}\n",
            self.path("cache"),
            self.url,
            self.path("h.wasm"),
        );
        let path = self.path("workers.toml");
        std::fs::write(&path, workers).unwrap();
        let config = Config::load(&path).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
            let stopped = async { drop(stopped.await) };
            let options = RunOptions { compile_apart: true, ..RunOptions::default() };
            runtime.block_on(host::run(&path, config, options, stopped)).unwrap();
        });
        Daemon { stop, thread }
    }

    /// Puts another module in the place of the one there; the time when it was there.
    fn replace(&self, module: &[u8]) -> Instant {
        let coming = self.path("coming");
        std::fs::write(&coming, module).unwrap();
        std::fs::rename(coming, self.path("h.wasm")).unwrap();
        Instant::now()
    }
}

struct Daemon {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Daemon {
    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[derive(Clone, Copy)]
enum Pace {
    /// Always more than can be handled.
    Backlog,
    /// One event at a time.
    Trickle,
}

struct Producer {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Producer {
    fn start(url: &str, partitions: usize, pace: Pace) -> Self {
        let (over, url) = (Arc::new(AtomicBool::new(false)), url.to_owned());
        let ends = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store = pelton_store::open(&url, &StoreOptions::default()).await.unwrap();
                // The daemon declares the stream, and the group.
                while store.progress().await.unwrap().is_empty() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                while !ends.load(Ordering::Relaxed) {
                    produce(&*store, partitions, pace).await;
                }
            });
        });
        Self { over, thread }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

async fn produce(store: &dyn Store, partitions: usize, pace: Pace) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let event = || {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let (kind, payload) = ("log".into(), b"x".to_vec());
        NewEvent { id: format!("event-{n}"), key: Some(format!("key-{}", n % 997)), kind, headers: Vec::new(), payload }
    };
    match pace {
        Pace::Backlog => {
            let lag: u64 = store.progress().await.unwrap().iter().map(|row| row.head.since(row.committed)).sum();
            if lag < BACKLOG * partitions as u64 {
                store.append("events", (0..2_000).map(|_| event()).collect()).await.unwrap();
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Pace::Trickle => {
            store.append("events", vec![event()]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The same component under another digest: with a custom section more, which may stand at its end.
fn numbered(module: &[u8], n: u64) -> Vec<u8> {
    let mut numbered = module.to_vec();
    numbered.extend([0, 10, 1, b'n']);
    numbered.extend(n.to_le_bytes());
    numbered
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn report(what: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!("  {what:48} {:>7} {:>8.2} {:>8.2} {:>8.2}", took.len(), at(0.5), at(0.99), at(1.0));
}
