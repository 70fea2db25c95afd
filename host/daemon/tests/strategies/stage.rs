//! A group whose pumps run over a real store, with a handler that a test steers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pelton::{
    handler::{Calls, Handler, Lane, Version},
    pump::{self, GroupSettings, Hint, PumpContext},
    time::Clock,
};
use pelton_core::{
    Backoff, CommitMode, Decision, Effects, Emit, Event, FailurePolicy, Holder, Invocation, Journal, LetterRequest,
    Membership, NewEvent, Offset, Outcome, PumpSettings, Retry, Session, Then,
};
use pelton_sandbox::{Interrupt, Place, StateReader};
use pelton_store::{
    GroupSpec, LetterInfo, LetterQuery, MemoryStore, ReadLimit, Registration, Start, Store, StoreOptions, StreamSpec,
    system_clock,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

pub(crate) const PARTITIONS: u32 = 2;
const GROUP: &str = "group";
const ALL: ReadLimit = ReadLimit { events: u32::MAX, bytes: u64::MAX };
/// No wait of a test may hang; none of them should come near it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store, and what has to outlive it.
pub(crate) struct Ground {
    pub(crate) store: Arc<dyn Store>,
    _folder: Option<tempfile::TempDir>,
}

impl Ground {
    pub(crate) async fn memory() -> Option<Self> {
        Some(Self { store: Arc::new(MemoryStore::new(system_clock())), _folder: None })
    }

    pub(crate) async fn sqlite() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let options = StoreOptions { host: true, ..StoreOptions::default() };
        Some(Self { store: pelton_store::open(&url, &options).await.unwrap(), _folder: Some(folder) })
    }

    /// In a schema of its own; none where no server is named.
    pub(crate) async fn postgres() -> Option<Self> {
        static SCHEMAS: AtomicU64 = AtomicU64::new(0);
        let Ok(url) = std::env::var("PELTON_TEST_POSTGRES") else {
            static TOLD: std::sync::Once = std::sync::Once::new();
            TOLD.call_once(|| {
                // Not by a macro: what those print is kept from sight while a test passes.
                let line = b"NOT RUN: the strategies on PostgreSQL; PELTON_TEST_POSTGRES names no server\n";
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
            });
            return None;
        };
        let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        let schema = format!("strategies_{}_{number}", std::process::id());
        let options = StoreOptions { host: true, schema, ..StoreOptions::default() };
        Some(Self { store: pelton_store::open(&url, &options).await.unwrap(), _folder: None })
    }
}

/// What the handler does, and what it saw.
#[derive(Default)]
pub(crate) struct Script {
    /// Ids that fail for good until somebody repairs the handler.
    pub(crate) poison: BTreeSet<String>,
    /// Ids whose effects no store takes, until then.
    pub(crate) refused: BTreeSet<String>,
    /// Ids at which it gives free what it has done, under manual commits.
    pub(crate) checkpoints: BTreeSet<String>,
    pub(crate) repaired: AtomicBool,
    /// How often each id was delivered.
    pub(crate) delivered: Mutex<BTreeMap<String, u64>>,
    /// After so many deliveries it hangs, as if the process was about to be killed.
    pub(crate) hangs_after: AtomicU64,
    pub(crate) calls: Calls,
}

impl Script {
    pub(crate) fn delivered(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.delivered.lock().unwrap()
    }

    fn deliveries(&self) -> u64 {
        self.delivered().values().sum()
    }
}

struct Scripted(Arc<Script>, &'static str);

impl Version for Scripted {
    fn digest(&self) -> &str {
        self.1
    }

    fn start(&self, _: Place, state: Arc<dyn StateReader>, _: Interrupt) -> Box<dyn Handler> {
        Box::new(ScriptedHandler { script: Arc::clone(&self.0), state })
    }

    fn calls(&self) -> &Calls {
        &self.0.calls
    }

    fn output_bytes_max(&self) -> u64 {
        4 << 20
    }
}

/// Emits each event with its number among those of its key, which it keeps in state.
struct ScriptedHandler {
    script: Arc<Script>,
    state: Arc<dyn StateReader>,
}

#[async_trait]
impl Handler for ScriptedHandler {
    async fn call(&mut self, events: &[Event], _: u32, manual: bool) -> Invocation {
        let (mut journal, mut handled, mut checkpoint) = (Journal::default(), 0, false);
        let mut outcome = Outcome::Done;
        for event in events {
            *self.script.delivered().entry(event.id.clone()).or_default() += 1;
            let limit = self.script.hangs_after.load(Ordering::SeqCst);
            if limit > 0 && self.script.deliveries() >= limit {
                std::future::pending::<()>().await;
            }
            let broken = !self.script.repaired.load(Ordering::SeqCst);
            if self.script.poison.contains(&event.id) && broken {
                outcome = Outcome::Permanent(format!("{} is poison", event.id));
                break;
            }
            let key = event.key.clone().unwrap();
            let stored = match journal.written(&key) {
                Some(written) => written.map(<[u8]>::to_vec),
                None => self.state.get(&key).await.unwrap(),
            };
            let count = stored.map_or(0, |bytes| String::from_utf8(bytes).unwrap().parse::<u64>().unwrap()) + 1;
            journal.write(key.clone(), Some(count.to_string().into_bytes()));
            let (id, payload) = (format!("{GROUP}/{}", event.id), format!("{count} {}", event.id).into_bytes());
            let event_out = NewEvent { id, key: Some(key), payload, ..NewEvent::default() };
            let stream = if broken && self.script.refused.contains(&event.id) { "nowhere" } else { "out" };
            journal.emit(Emit { stream: stream.into(), event: event_out });
            journal.keep();
            handled += 1;
            checkpoint = manual && self.script.checkpoints.contains(&event.id);
            if checkpoint {
                break;
            }
        }
        let effects = if handled > 0 { journal.into_kept() } else { Effects::default() };
        Invocation { handled, outcome, located: true, checkpoint, effects }
    }
}

/// A group at work.
pub(crate) struct Stage {
    pub(crate) ground: Ground,
    pub(crate) script: Arc<Script>,
    session: Session,
    settings: watch::Sender<GroupSettings>,
    version: watch::Sender<Arc<dyn Version>>,
    hints: Vec<watch::Sender<Hint>>,
    drain: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

pub(crate) fn settings(then: Option<Then>, commit: CommitMode) -> GroupSettings {
    let backoff = Backoff { initial_ms: 5, max_ms: 20, ..Backoff::default() };
    let retry = then.is_none().then_some(Retry { attempts_max: None, backoff });
    let on_failure = FailurePolicy { retry, then, breaker: None };
    let pump = PumpSettings { batch_events_max: 7, commit, on_failure, ..PumpSettings::default() };
    GroupSettings { pump, ..GroupSettings::default() }
}

impl Stage {
    /// The streams are filled and the pumps run.
    pub(crate) async fn start(ground: Ground, events: Vec<NewEvent>, script: Script, settings: GroupSettings) -> Self {
        let store = &*ground.store;
        for name in ["in", "out"] {
            let name = name.into();
            let spec = StreamSpec { name, partitions: PARTITIONS, payload_bytes_max: 1 << 20, retention_ms: None };
            store.declare_stream(&spec).await.unwrap();
        }
        let (name, stream, handler) = (GROUP.into(), "in".into(), "scripted".into());
        store.declare_group(&GroupSpec { name, stream, handler, start: Start::Earliest }).await.unwrap();
        store.append("in", events).await.unwrap();
        let session = sole_member(store).await;
        let script = Arc::new(script);
        let version: Arc<dyn Version> = Arc::new(Scripted(Arc::clone(&script), "sha256:scripted"));
        let mut stage = Self {
            ground,
            script,
            session,
            settings: watch::Sender::new(settings),
            version: watch::Sender::new(version),
            hints: (0..PARTITIONS).map(|_| watch::Sender::new(Hint::default())).collect(),
            drain: watch::Sender::new(false),
            tasks: JoinSet::new(),
        };
        stage.run();
        stage
    }

    /// Starts the pumps, again after [`Self::kill`].
    pub(crate) fn run(&mut self) {
        for (partition, hint) in (0..).zip(&self.hints) {
            let context = PumpContext {
                store: Arc::clone(&self.ground.store),
                clock: Clock::starting_at(system_clock()()),
                session: self.session.clone(),
                place: Place { group: GROUP.into(), stream: "in".into(), partition },
                settings: self.settings.subscribe(),
                version: self.version.subscribe(),
                hints: hint.subscribe(),
                drain: self.drain.subscribe(),
                interrupt: Interrupt::default(),
                chance: Arc::new(|| 0.5),
                stopped_here: Arc::default(),
                lane: Lane::default(),
            };
            self.tasks.spawn(async move {
                pump::run(context).await;
            });
        }
    }

    /// As by `kill -9`: nothing of what runs goes on.
    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    /// The handler succeeds from now on, and a new version of it is there.
    pub(crate) fn repair(&self) {
        self.script.repaired.store(true, Ordering::SeqCst);
        self.version.send_replace(Arc::new(Scripted(Arc::clone(&self.script), "sha256:repaired")));
    }

    pub(crate) async fn ask(&self, query: &LetterQuery, request: LetterRequest) -> u64 {
        self.ground.store.request_letters(GROUP, query, request).await.unwrap()
    }

    pub(crate) async fn letters(&self) -> Vec<LetterInfo> {
        self.ground.store.letters(GROUP, &LetterQuery::default(), None, ALL).await.unwrap()
    }

    /// Passes on what the store tells until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            loop {
                for row in self.ground.store.progress().await.unwrap() {
                    let holder = if row.owner.is_some() { Holder::Us } else { Holder::Nobody };
                    let hint = Hint { head: row.head, control: row.control, epoch: row.epoch, holder };
                    self.hints[row.partition as usize].send_if_modified(|known| std::mem::replace(known, hint) != hint);
                }
                if holds(self).await {
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(waited.await.is_ok(), "waited too long until {what}");
    }

    pub(crate) async fn is_idle(&self) -> bool {
        self.ground.store.progress().await.unwrap().iter().all(|row| row.committed == row.head)
    }

    /// Ends the pumps in good order.
    pub(crate) async fn end(mut self) -> Self {
        self.drain.send_replace(true);
        timeout(PATIENCE, async { while self.tasks.join_next().await.is_some() {} }).await.expect("the pumps end");
        self
    }

    /// What came out for each key, in order: number and id.
    pub(crate) async fn emitted(&self) -> BTreeMap<String, Vec<String>> {
        let mut emitted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for partition in 0..PARTITIONS {
            for event in self.ground.store.read("out", partition, Offset(0), ALL).await.unwrap() {
                emitted.entry(event.key.unwrap()).or_default().push(String::from_utf8(event.payload).unwrap());
            }
        }
        emitted
    }

    pub(crate) async fn skipped(&self) -> u64 {
        let groups = self.ground.store.groups().await.unwrap();
        groups.iter().flat_map(|group| &group.partitions).map(|partition| partition.skipped).sum()
    }

    /// The order in which events of a partition stand.
    pub(crate) async fn order(&self, partition: u32) -> Vec<String> {
        let events = self.ground.store.read("in", partition, Offset(0), ALL).await.unwrap();
        events.into_iter().map(|event| event.id).collect()
    }
}

async fn sole_member(store: &dyn Store) -> Session {
    let membership = Membership { group: GROUP.into(), session_timeout_ms: 3_600_000, partitions_max: 0 };
    let registration = Registration { host: "host".into(), memberships: vec![membership], ..Registration::default() };
    let session = store.register(&registration).await.unwrap();
    let survey = store.survey().await.unwrap();
    let seen = survey.groups.iter().find(|seen| seen.group == GROUP).unwrap();
    let targets = vec![Some(session.host.clone()); seen.seats.len()];
    let homes = vec![None; seen.seats.len()];
    let assign = Decision::Assign { group: GROUP.into(), generation: seen.generation, targets, homes };
    assert!(store.decide(&assign).await.unwrap());
    session
}
