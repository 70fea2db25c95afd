//! What the cage costs: nanoseconds per event through guests that do nothing. All take turns in every round, and the order
//! turns with the round. `cargo bench -p pelton-sandbox --bench limits [-- ROUNDS]`.
//!
//! * **bare**: wasmtime alone, which neither limits nor interrupts nor keeps a journal. The second one is an A/A control.
//! * **epochs**: the same, but the guest looks up at every loop and function for whether its time is over, as a time limit
//!   needs.
//! * **loose**: the sandbox with limits that are never reached, and nothing granted.
//! * **caged**: with every limit that can be set, and everything granted that can be.
//!
//! And how long a large module takes from the cache.
//!
//! Processor time is compared: a machine is never quiet, and the clock on the wall counts its other work too.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints, run by hand")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pelton_core::{Event, Offset, Outcome, Timestamp};
use pelton_sandbox::{
    EmitGrant, Grants, HttpGrant, Interrupt, Limits, LogLine, LogSink, Origin, Place, Recycle, Sandbox, SandboxOptions,
    Secret, StateReader, Worker,
};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    component::{Component, Linker},
};

#[path = "../tests/common/text.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod text;

#[path = "../src/bindings.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the crate, which uses all of it")]
mod bindings;

const BATCH_EVENTS: u64 = 100;
const ROUNDS: usize = 25;
const ROUND: Duration = Duration::from_millis(200);

struct Nothing;

#[async_trait::async_trait]
impl StateReader for Nothing {
    async fn get(&self, _key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
}

impl LogSink for Nothing {
    fn log(&self, _line: LogLine<'_>) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    load_from_cache().await;
    let events: Vec<Event> = (0..BATCH_EVENTS).map(event).collect();
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    for guest in ["noop", "noop-batch"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guests/prebuilt/{guest}.wasm"));
        let module = std::fs::read(path).unwrap();
        let mut contestants = [
            ("bare", Contestant::Bare(Bare::new(&module, false).await)),
            ("bare, again (control)", Contestant::Bare(Bare::new(&module, false).await)),
            ("epochs", Contestant::Bare(Bare::new(&module, true).await)),
            ("loose", Contestant::Sandbox(sandboxed(&module, loose(guest)).await)),
            ("caged", Contestant::Sandbox(sandboxed(&module, caged(guest)).await)),
        ];
        let mut took = vec![[0.0; 5]; rounds];
        for (round, took) in took.iter_mut().enumerate() {
            for turn in 0..contestants.len() {
                let index = (round + turn) % contestants.len();
                took[index] = measure(&mut contestants[index].1, &events).await;
            }
        }
        let of = |pick: &dyn Fn(&[f64; 5]) -> f64| median(took.iter().map(pick).collect());
        println!("{guest}: nanoseconds of processor per event, to bare, to epochs");
        for (index, (name, _)) in contestants.iter().enumerate() {
            let (ns, to_bare) = (of(&|took| took[index]), of(&|took| took[index] / took[0]));
            println!("  {name:24} {ns:>6.0} {to_bare:>6.3} {:>6.3}", of(&|took| took[index] / took[2]));
        }
    }
}

/// How long it takes to load 60 MB of compiled code from the cache, about what an interpreter of Python has.
async fn load_from_cache() {
    let dir = tempfile::tempdir().unwrap();
    let large = format!("(memory 1000) (data (i32.const 0) \"{}\")", "x".repeat(60_000_000));
    let module: Arc<[u8]> = text::handler_with(&format!("(core module $large {large})"), "", "").into();
    let mut took_ms = Vec::new();
    for _ in 0..8 {
        let options = SandboxOptions { cache_dir: Some(dir.path().to_owned()), ..SandboxOptions::default() };
        let sandbox = Sandbox::new(options).unwrap();
        let started = Instant::now();
        sandbox.load(Arc::clone(&module), Grants::nothing("large"), Arc::default()).await.unwrap();
        took_ms.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let compiled_ms = took_ms.remove(0);
    let in_cache: u64 = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    println!(
        "a module of {} bytes: {compiled_ms:.0} ms to compile and keep, {:.0} ms to load {in_cache} bytes from the cache",
        module.len(),
        median(took_ms),
    );
}

/// Nanoseconds of processor per event.
async fn measure(contestant: &mut Contestant, events: &[Event]) -> f64 {
    let (started, busy_ns) = (Instant::now(), processor_ns());
    let mut handled = 0;
    while started.elapsed() < ROUND {
        match contestant {
            Contestant::Bare(bare) => bare.call(events).await,
            Contestant::Sandbox(worker) => assert_eq!(worker.call(events, 1, false).await.outcome, Outcome::Done),
        }
        handled += BATCH_EVENTS;
    }
    (processor_ns() - busy_ns) / handled as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

enum Contestant {
    Bare(Bare),
    Sandbox(Worker),
}

fn loose(guest: &str) -> Grants {
    let limits = Limits { memory_bytes: 4 << 30, output_bytes: u64::MAX, timeout: Duration::MAX, ..Limits::default() };
    let recycle = Recycle { calls: u64::MAX, age: Duration::MAX, memory_bytes: u64::MAX };
    Grants { limits, recycle, ..Grants::nothing(guest) }
}

fn caged(guest: &str) -> Grants {
    let origin = Origin { tls: true, host: "api.example.com".into(), port: 443, private: false };
    Grants {
        emit: EmitGrant::Streams(BTreeMap::from([("out".into(), 1024)])),
        http: HttpGrant::Origins(vec![origin]),
        clocks: true,
        random: true,
        config: vec![("currency".into(), "EUR".into())],
        secrets: vec![("key".into(), Secret::new("a secret of some length".into()))],
        limits: Limits { instances: 10, ..Limits::default() },
        recycle: Recycle { calls: 1_000_000_000, ..Recycle::default() },
        ..Grants::nothing(guest)
    }
}

async fn sandboxed(module: &[u8], grants: Grants) -> Worker {
    let sandbox = Sandbox::new(SandboxOptions::default()).unwrap();
    let module = sandbox.load(module.into(), grants, Arc::default()).await.unwrap();
    let place = Place { group: "billing".into(), stream: "orders".into(), partition: 0 };
    module.worker(place, Arc::new(Nothing), Arc::new(Nothing), Interrupt::default())
}

/// The same engine without limiter, deadline, ledger and console.
struct Bare {
    store: Store<()>,
    exports: Exports,
    has_epochs: bool,
}

enum Exports {
    Worker(bindings::worker::Worker),
    Batch(bindings::batch_worker::BatchWorker),
}

impl Bare {
    async fn new(module: &[u8], has_epochs: bool) -> Self {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(10);
        pool.max_tables_per_module(4);
        pool.linear_memory_keep_resident(256 * 1024);
        let mut config = Config::new();
        config.concurrency_support(false);
        config.epoch_interruption(has_epochs);
        config.max_wasm_stack(1024 * 1024);
        config.async_stack_size(2 * 1024 * 1024);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_binary(&engine, module).unwrap();
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        let exports = match bindings::worker::Worker::instantiate_async(&mut store, &component, &linker).await {
            Ok(worker) => Exports::Worker(worker),
            Err(_) => Exports::Batch(
                bindings::batch_worker::BatchWorker::instantiate_async(&mut store, &component, &linker).await.unwrap(),
            ),
        };
        Self { store, exports, has_epochs }
    }

    async fn call(&mut self, events: &[Event]) {
        match &self.exports {
            Exports::Worker(worker) => {
                for event in events {
                    if self.has_epochs {
                        self.store.set_epoch_deadline(1);
                    }
                    let answer = worker.pelton_worker_handler().call_handle(&mut self.store, lend(event)).await;
                    answer.unwrap().unwrap();
                }
            }
            Exports::Batch(worker) => {
                if self.has_epochs {
                    self.store.set_epoch_deadline(1);
                }
                let lent: Vec<_> = events.iter().map(lend).collect();
                let answer = worker.pelton_worker_batch_handler().call_handle_batch(&mut self.store, &lent).await;
                answer.unwrap().unwrap();
            }
        }
    }
}

fn lend(event: &Event) -> bindings::types::Event<'_> {
    bindings::types::Event {
        id: &event.id,
        stream: "orders",
        partition: 0,
        offset: event.offset.0,
        key: event.key.as_deref(),
        kind: &event.kind,
        time: event.time.0,
        headers: &event.headers,
        payload: &event.payload,
        attempt: 1,
    }
}

/// What this thread has run so far, in nanoseconds; 0 where the system does not tell, which is everywhere but on Linux.
fn processor_ns() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}

fn event(offset: u64) -> Event {
    Event {
        offset: Offset(offset),
        id: format!("01890a5d-ac96-774b-{offset:04}"),
        key: Some(format!("customer-{offset:06}")),
        kind: "order.placed".into(),
        time: Timestamp(1_700_000_000_000),
        headers: vec![("content-type".into(), "application/json".into()), ("source".into(), "/shop".into())],
        payload: vec![b'x'; 100],
    }
}
