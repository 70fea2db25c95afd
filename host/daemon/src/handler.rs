//! What a pump calls: a handler in one version, working for one partition. Wasm in the daemon, a plain function in
//! benchmarks, a script in the simulation.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use pelton_core::{Class, Event, Invocation, Outcome};
use pelton_sandbox::{Interrupt, LogSink, Module, Place, StateReader, Worker};

use crate::guest_log::GuestLog;

/// A handler in one version.
pub trait Version: Send + Sync + 'static {
    /// The digest of its module: `sha256:…`.
    fn digest(&self) -> &str;

    /// What works for one partition. Cheap: anything costly waits for the first call.
    fn start(&self, place: Place, state: Arc<dyn StateReader>, interrupt: Interrupt) -> Box<dyn Handler>;

    /// What its calls are counted in.
    fn calls(&self) -> &Calls;

    /// How many bytes of effects may be held for it without being committed.
    fn output_bytes_max(&self) -> u64;
}

/// One partition's handler.
#[async_trait]
pub trait Handler: Send {
    /// Handles events in order; `attempt` is the delivery of the first, for the others it is the first. With `manual` it may
    /// say at an event that all so far may be committed, and handles no further then.
    async fn call(&mut self, events: &[Event], attempt: u32, manual: bool) -> Invocation;
}

/// Calls of a handler since the host started, over all its versions and partitions.
#[derive(Debug, Default)]
pub struct Calls {
    events: AtomicU64,
    failures: AtomicU64,
    by_class: [AtomicU64; Class::ALL.len()],
}

impl Calls {
    /// Counts what came of a call.
    pub fn count(&self, handled: usize, outcome: &Outcome) {
        let failed = u64::from(outcome.is_failure());
        self.events.fetch_add(handled as u64 + failed, Ordering::Relaxed);
        self.failures.fetch_add(failed, Ordering::Relaxed);
        if let Some(class) = Class::of(outcome) {
            self.by_class[class as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many failed in which way; classes without a failure are left out.
    #[must_use]
    pub fn by_class(&self) -> BTreeMap<Class, u64> {
        let counted = Class::ALL.map(|class| (class, self.by_class[class as usize].load(Ordering::Relaxed)));
        counted.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Events handed out, and failures among them.
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (self.events.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}

/// A version that is a WebAssembly component.
pub struct WasmVersion {
    module: Module,
    handler: Arc<str>,
    calls: Arc<Calls>,
}

impl WasmVersion {
    /// A loaded module as a version of a handler.
    #[must_use]
    pub fn new(module: Module, handler: Arc<str>, calls: Arc<Calls>) -> Self {
        Self { module, handler, calls }
    }
}

impl Version for WasmVersion {
    fn digest(&self) -> &str {
        self.module.digest()
    }

    fn start(&self, place: Place, state: Arc<dyn StateReader>, interrupt: Interrupt) -> Box<dyn Handler> {
        let logs: Arc<dyn LogSink> = Arc::new(GuestLog::new(Arc::clone(&self.handler), &place));
        Box::new(WasmHandler(self.module.worker(place, state, logs, interrupt)))
    }

    fn calls(&self) -> &Calls {
        &self.calls
    }

    fn output_bytes_max(&self) -> u64 {
        self.module.grants().limits.output_bytes
    }
}

struct WasmHandler(Worker);

#[async_trait]
impl Handler for WasmHandler {
    async fn call(&mut self, events: &[Event], attempt: u32, manual: bool) -> Invocation {
        self.0.call(events, attempt, manual).await
    }
}
