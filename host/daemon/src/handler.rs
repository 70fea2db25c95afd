//! What a pump calls: a handler in one version, working for one partition. Wasm in the daemon, a plain function in
//! benchmarks, a script in the simulation.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pelton_core::{Class, Event, Invocation, Outcome, Seen, Tolerance};
use pelton_sandbox::{Interrupt, LogSink, Module, Place, StateReader, Worker};
use tokio::sync::Notify;

pub use crate::lane::{Lane, Pace};

use crate::guest_log::GuestLog;

/// A handler in one version.
pub trait Version: Send + Sync + 'static {
    /// The digest of its module: `sha256:…`.
    fn digest(&self) -> &str;

    /// What works for one partition. Cheap: anything costly waits for the first call.
    fn start(&self, place: Place, state: Arc<dyn StateReader>, interrupt: Interrupt) -> Box<dyn Handler>;

    /// What its calls are counted in.
    fn calls(&self) -> &Calls;

    /// Whether it is this module, with the same grants.
    fn is_of(&self, _module: &Module) -> bool {
        false
    }

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

/// What was counted of calls since the host started: of a handler over all its versions, or of one version.
#[derive(Debug, Default)]
pub struct Calls {
    events: AtomicU64,
    failures: AtomicU64,
    by_class: [AtomicU64; Class::ALL.len()],
    pace: Arc<Pace>,
    /// What is counted here counts there too.
    whole: Option<Arc<Calls>>,
    watch: Option<Watch>,
}

/// Looks at a new version until it has proved itself.
#[derive(Debug)]
struct Watch {
    tolerance: Tolerance,
    until: Mutex<Instant>,
    alarm: Arc<Notify>,
    verdict: OnceLock<String>,
}

impl Calls {
    /// Counts of a version, which count for the whole handler too. For so many milliseconds from now somebody is told
    /// through `alarm` when the version has done more wrong than is tolerated.
    #[must_use]
    pub fn of_version(whole: Arc<Self>, watched: Option<(Tolerance, u64)>, alarm: Arc<Notify>) -> Self {
        let watch = |(tolerance, ms): (Tolerance, u64)| Watch {
            until: Mutex::new(Instant::now() + Duration::from_millis(ms)),
            tolerance,
            alarm,
            verdict: OnceLock::new(),
        };
        Self { whole: Some(whole), watch: watched.map(watch), ..Self::default() }
    }

    /// Counts what came of a call.
    pub fn count(&self, handled: usize, outcome: &Outcome) {
        let failed = u64::from(outcome.is_failure());
        self.events.fetch_add(handled as u64 + failed, Ordering::Relaxed);
        self.failures.fetch_add(failed, Ordering::Relaxed);
        if let Some(class) = Class::of(outcome) {
            self.by_class[class as usize].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(whole) = &self.whole {
            whole.count(handled, outcome);
        }
        if let Some(watch) = self.watch.as_ref().filter(|_| failed > 0) {
            watch.look(|| self.seen());
        }
    }

    /// It is watched for so many milliseconds from now, if that is longer: a canary becomes new once more when it is live.
    pub fn watch_for(&self, ms: u64) {
        if let Some(watch) = &self.watch {
            let until = Instant::now() + Duration::from_millis(ms);
            let mut known = watch.until.lock().unwrap_or_else(PoisonError::into_inner);
            *known = until.max(*known);
        }
    }

    /// Why the version has to go, if it has.
    #[must_use]
    pub fn verdict(&self) -> Option<&str> {
        self.watch.as_ref()?.verdict.get().map(String::as_str)
    }

    /// How long its calls compute.
    #[must_use]
    pub fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    fn seen(&self) -> Seen {
        let (calls, failures) = self.read();
        let ended = [Class::Trap, Class::Timeout, Class::Memory, Class::Output];
        let traps = ended.iter().map(|class| self.by_class[*class as usize].load(Ordering::Relaxed)).sum();
        Seen { calls, failures, traps }
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

impl Watch {
    fn look(&self, seen: impl FnOnce() -> Seen) {
        if self.verdict.get().is_none()
            && Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(reason) = self.tolerance.exceeded(seen())
            && self.verdict.set(reason).is_ok()
        {
            self.alarm.notify_one();
        }
    }
}

/// A version that is a WebAssembly component.
pub struct WasmVersion {
    module: Module,
    handler: Arc<str>,
    calls: Arc<Calls>,
}

impl WasmVersion {
    /// A loaded module as a version of a handler, whose calls are counted.
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

    fn is_of(&self, module: &Module) -> bool {
        self.module.digest() == module.digest() && self.module.grants() == module.grants()
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
