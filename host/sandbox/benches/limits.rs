//! What the cage costs: nanoseconds per event. All take turns in every round, and the order turns with the round.
//! `cargo bench -p pelton-sandbox --bench limits [-- ROUNDS]`.
//!
//! * **without**: the sandbox without limits: nothing is counted, and the guest is compiled without the looking up, at every
//!   loop and function, for whether its time is over. The second one is an A/A control.
//! * **loose**: with limits that are never reached, and nothing granted but what the guest needs.
//! * **caged**: with every limit that can be set, and everything granted that can be.
//! * **bare**: wasmtime alone, for guests that import nothing: no journal of effects, no console, no clock.
//!
//! Two of the guests do nothing, so all that is seen is the cage; two are examples, over recorded webhooks.
//!
//! And how long a large module takes from the cache.
//!
//! Processor time is compared: a machine is never quiet, and the clock on the wall counts its other work too.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints, run by hand")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pelton_core::{Event, Offset};
use pelton_sandbox::{
    EmitGrant, Grants, HttpGrant, Interrupt, Limits, Origin, Recycle, Sandbox, SandboxOptions, Secret, Worker,
};
use shared::{Nothing, event, measure, median, place, processor_ns};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    component::{Component, Linker},
};

mod shared;

#[path = "../tests/common/text.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod text;

#[path = "../src/bindings.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the crate, which uses all of it")]
mod bindings;

const BATCH_EVENTS: u64 = 100;
const ROUNDS: usize = 25;
const ROUND: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    load_from_cache().await;
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let small: Vec<Event> = (0..BATCH_EVENTS).map(event).collect();
    compare("noop", "tests/guests/prebuilt/noop.wasm", &small, rounds).await;
    compare("noop-batch", "tests/guests/prebuilt/noop-batch.wasm", &small, rounds).await;
    let webhooks = webhooks();
    let triage = "../../examples/github-triage/prebuilt/github-triage.wasm";
    compare("github-triage", triage, &webhooks, rounds).await;
    compare("repo-stats", "../../examples/repo-stats/prebuilt/repo-stats.wasm", &webhooks, rounds).await;
}

async fn compare(guest: &str, path: &str, events: &[Event], rounds: usize) {
    let module = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let mut contestants = vec![
        ("without", Contestant::Sandbox(sandboxed(&module, loose(guest), true).await)),
        ("without, again (control)", Contestant::Sandbox(sandboxed(&module, loose(guest), true).await)),
        ("loose", Contestant::Sandbox(sandboxed(&module, loose(guest), false).await)),
        ("caged", Contestant::Sandbox(sandboxed(&module, caged(guest), false).await)),
    ];
    if guest.starts_with("noop") {
        contestants.push(("bare", Contestant::Bare(Bare::new(&module).await)));
    }
    let mut took = vec![vec![0.0; contestants.len()]; rounds];
    for (round, took) in took.iter_mut().enumerate() {
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            took[index] = contestants[index].1.measure(events).await;
        }
    }
    let of = |pick: &dyn Fn(&[f64]) -> f64| median(took.iter().map(|took| pick(took)).collect());
    println!("{guest}: nanoseconds of processor per event, and to the sandbox without limits");
    for (index, (name, _)) in contestants.iter().enumerate() {
        println!("  {name:24} {:>6.0} {:>6.3}", of(&|took| took[index]), of(&|took| took[index] / took[0]));
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

enum Contestant {
    Bare(Bare),
    Sandbox(Worker),
}

impl Contestant {
    /// Nanoseconds of processor per event.
    async fn measure(&mut self, events: &[Event]) -> f64 {
        match self {
            Self::Sandbox(worker) => measure(worker, events, ROUND).await,
            Self::Bare(bare) => {
                let (started, busy_ns) = (Instant::now(), processor_ns());
                let mut handled = 0;
                while started.elapsed() < ROUND {
                    bare.call(events).await;
                    handled += events.len();
                }
                (processor_ns() - busy_ns) / handled as f64
            }
        }
    }
}

fn loose(guest: &str) -> Grants {
    let limits = Limits { memory_bytes: 4 << 30, output_bytes: u64::MAX, timeout: Duration::MAX, ..Limits::default() };
    let recycle = Recycle { calls: u64::MAX, age: Duration::MAX, memory_bytes: u64::MAX };
    Grants { emit: emits(), limits, recycle, ..Grants::nothing(guest) }
}

fn caged(guest: &str) -> Grants {
    let origin = Origin { tls: true, host: "api.example.com".into(), port: 443, private: false };
    Grants {
        emit: emits(),
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

fn emits() -> EmitGrant {
    EmitGrant::Streams(["alerts", "stats"].map(|stream| (stream.into(), 1 << 20)).into())
}

async fn sandboxed(module: &[u8], grants: Grants, unlimited: bool) -> Worker {
    let sandbox = Sandbox::new(SandboxOptions { unlimited, ..SandboxOptions::default() }).unwrap();
    let module = sandbox.load(module.into(), grants, Arc::default()).await.unwrap();
    module.worker(place(), Arc::new(Nothing), Arc::new(Nothing), Interrupt::default())
}

/// The same engine without limiter, deadline, ledger and console.
struct Bare {
    store: Store<()>,
    exports: Exports,
}

enum Exports {
    Worker(bindings::worker::Worker),
    Batch(bindings::batch_worker::BatchWorker),
}

impl Bare {
    async fn new(module: &[u8]) -> Self {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(10);
        pool.max_tables_per_module(4);
        pool.linear_memory_keep_resident(256 * 1024);
        let mut config = Config::new();
        config.concurrency_support(false);
        config.max_wasm_stack(1024 * 1024);
        config.async_stack_size(2 * 1024 * 1024);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_binary(&engine, module).unwrap();
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component).unwrap();
        let mut store = Store::new(&engine, ());
        let exports = match bindings::worker::Worker::instantiate_async(&mut store, &component, &linker).await {
            Ok(worker) => Exports::Worker(worker),
            Err(_) => Exports::Batch(
                bindings::batch_worker::BatchWorker::instantiate_async(&mut store, &component, &linker).await.unwrap(),
            ),
        };
        Self { store, exports }
    }

    async fn call(&mut self, events: &[Event]) {
        match &self.exports {
            Exports::Worker(worker) => {
                for event in events {
                    let answer = worker.pelton_worker_handler().call_handle(&mut self.store, lend(event)).await;
                    answer.unwrap().unwrap();
                }
            }
            Exports::Batch(worker) => {
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

/// Recorded webhooks, as `examples/data` has them.
fn webhooks() -> Vec<Event> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/github-webhooks.ndjson");
    let lines = std::fs::read_to_string(path).unwrap();
    let parse = |(offset, line): (usize, &str)| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        Event {
            offset: Offset(offset as u64),
            id: text("id").unwrap_or_else(|| offset.to_string()),
            key: text("key"),
            kind: text("kind").unwrap_or_default(),
            payload: line["payload"].to_string().into_bytes(),
            ..event(0)
        }
    };
    lines.lines().enumerate().map(parse).collect()
}
