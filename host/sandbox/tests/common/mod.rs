//! A stage for one guest: what it is granted, what it says, and what is stored below it.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by the scenarios, each of which uses a part"
)]

pub mod text;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use pelton_core::{Event, Invocation, Offset, Timestamp};
use pelton_sandbox::{
    EmitGrant, Grants, Interrupt, LogLevel, LogLine, LogSink, Module, Place, Sandbox, SandboxOptions, StateReader,
    Worker,
};

/// One for a test binary: an engine sets a lot of address space aside.
pub static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::new(SandboxOptions::default()).unwrap());

/// How long a test waits for what takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A test guest's module: the prebuilt one, or that in the folder `PELTON_TEST_GUESTS`.
pub fn guest(name: &str) -> Vec<u8> {
    let prebuilt = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/prebuilt");
    let path =
        std::env::var_os("PELTON_TEST_GUESTS").map_or_else(prebuilt, PathBuf::from).join(name).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn grants() -> Grants {
    Grants {
        emit: EmitGrant::Streams(BTreeMap::from([("out".into(), 1024 * 1024)])),
        config: vec![("currency".into(), "EUR".into())],
        ..Grants::nothing("invoice")
    }
}

/// What is stored, and how its reads go.
#[derive(Default)]
pub struct Stored {
    pub values: Mutex<HashMap<String, Vec<u8>>>,
    pub delay: Mutex<Duration>,
    pub fault: Mutex<Option<String>>,
}

#[async_trait::async_trait]
impl StateReader for Stored {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(fault) = self.fault.lock().unwrap().clone() {
            return Err(fault);
        }
        Ok(self.values.lock().unwrap().get(key).cloned())
    }
}

/// A line as it was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub level: LogLevel,
    pub context: String,
    pub message: String,
    pub offset: Option<Offset>,
}

#[derive(Default)]
pub struct Lines(Mutex<Vec<Line>>);

impl Lines {
    pub fn taken(&self) -> Vec<Line> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl LogSink for Lines {
    fn log(&self, line: LogLine<'_>) {
        self.0.lock().unwrap().push(Line {
            level: line.level,
            context: line.context.into(),
            message: line.message.into(),
            offset: line.offset,
        });
    }
}

pub struct Stage {
    pub module: Module,
    pub worker: Worker,
    pub stored: Arc<Stored>,
    pub lines: Arc<Lines>,
    pub interrupt: Interrupt,
}

impl Stage {
    pub async fn of(guest_name: &str) -> Self {
        Self::with(guest_name, grants()).await
    }

    pub async fn with(guest_name: &str, grants: Grants) -> Self {
        Self::around(SANDBOX.load(guest(guest_name).into(), grants, Arc::default()).await.unwrap())
    }

    pub fn around(module: Module) -> Self {
        let (stored, lines, interrupt) = (Arc::<Stored>::default(), Arc::<Lines>::default(), Interrupt::default());
        let place = Place { group: "billing".into(), stream: "orders".into(), partition: 3 };
        let worker = module.worker(place, stored.clone(), lines.clone(), interrupt.clone());
        Self { module, worker, stored, lines, interrupt }
    }

    /// One batch; a guest that does not come back fails the test instead of hanging it.
    pub async fn call(&mut self, events: &[Event]) -> Invocation {
        tokio::time::timeout(PATIENCE, self.worker.call(events, 1, false)).await.expect("the call never ended")
    }
}

pub fn event(offset: u64, kind: &str, payload: &str) -> Event {
    Event {
        offset: Offset(offset),
        id: format!("event-{offset}"),
        key: None,
        kind: kind.into(),
        time: Timestamp(1_700_000_000_000),
        headers: Vec::new(),
        payload: payload.into(),
    }
}

pub trait EventExt {
    fn header(self, name: &str, value: &str) -> Self;
    fn key(self, key: &str) -> Self;
}

impl EventExt for Event {
    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn key(mut self, key: &str) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// Ids of what was emitted, in order.
pub fn emitted_ids(invocation: &Invocation) -> Vec<&str> {
    invocation.effects.emits.iter().map(|emit| emit.event.id.as_str()).collect()
}

/// Payloads of what was emitted, in order, as text.
pub fn emitted(invocation: &Invocation) -> Vec<String> {
    invocation.effects.emits.iter().map(|emit| String::from_utf8_lossy(&emit.event.payload).into_owned()).collect()
}
