//! The seeded simulation: several hosts with real membership, overseers, hints, groups and pumps over the memory store,
//! with a handler that fails by script and a network that loses requests and replies. Events are set aside, parked,
//! replayed, discarded, skipped and trimmed, under every strategy and commit mode. Hosts crash, leave, come back, are
//! stopped as by SIGSTOP, lose their locks; the store goes away and restarts; its clock jumps. Tokio's time is paused,
//! chance comes from the seed, and everything runs on one thread: a seed replays a run to the letter.
//!
//! `PELTON_SEED=N` runs one seed and prints what happens; `PELTON_SEEDS=N` runs so many instead of 3,000.

mod auditor;
mod host;
mod network;
mod script;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use pelton_core::{
    Acquired, Backoff, Breaker, CommitMode, Decision, FailurePolicy, Filter, LetterRequest, Membership, NewEvent,
    Offset, PumpSettings, Retry, Then, Timestamp,
};
use pelton_store::{GroupSpec, LetterQuery, MemoryStore, Start, Store, StreamSpec};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use self::{
    auditor::{Auditor, Rules},
    host::SimulatedHost,
    network::{Link, Network},
    script::{Script, ScriptedVersion},
};
use crate::{
    config::GroupConfig,
    group::{RunningGroup, Surroundings, Versions},
    handler::Lane,
    membership::{Member, Standing, Wishes},
    overseer::Overseer,
    pump::GroupSettings,
    time::Clock,
};

const SEEDS: u64 = 3_000;
const START: Timestamp = Timestamp(1_000_000_000);
const HOSTS_MAX: usize = 4;
/// The longest that a host is stopped.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Virtual time in which nothing may move once all is calm.
const STABLE: Duration = Duration::from_secs(30);
/// Virtual time within which everything must be handled once the faults are over.
const CALM_MAX: Duration = Duration::from_secs(3600);

/// Chance, from the seed.
#[derive(Clone)]
struct Dice(Arc<Mutex<SmallRng>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    fn rng(&self) -> MutexGuard<'_, SmallRng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True once in so many throws.
    fn one_in(&self, throws: u32) -> bool {
        self.rng().random_ratio(1, throws)
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng().random_range(0..bound)
    }

    fn up_to_ms(&self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound + 1))
    }

    fn chance(&self) -> f64 {
        self.rng().random()
    }
}

/// What a seed decides before anything happens.
struct Plan {
    partitions: u32,
    groups: Vec<GroupConfig>,
    /// What each of them promises, whatever its settings change to.
    rules: Vec<Rules>,
    /// Producers send ids again that were removed from the stream. Only where every group remembers them.
    resends: bool,
    events: u64,
    keys: u64,
    /// The handlers are batch handlers that do not say where they failed.
    unlocated: bool,
    chaos: Duration,
}

impl Plan {
    fn of(dice: &Dice) -> Self {
        let partitions = 1 + dice.below(5) as u32;
        let groups = 1 + dice.below(2);
        let resends = dice.one_in(4);
        let rules: Vec<Rules> = (0..groups).map(|_| rules(dice, resends)).collect();
        Self {
            partitions,
            groups: rules.iter().zip(0..).map(|(rules, n)| group(format!("group-{n}"), rules, dice)).collect(),
            rules,
            resends,
            events: 1 + dice.below(60),
            keys: 1 + dice.below(5),
            unlocated: dice.one_in(3),
            chaos: dice.up_to_ms(20_000),
        }
    }
}

fn rules(dice: &Dice, resends: bool) -> Rules {
    let then = match dice.below(8) {
        0 => None,
        1 | 2 => Some(Then::Stop),
        3 => Some(Then::Skip),
        4 => Some(Then::DeadLetter),
        _ => Some(Then::DeadLetterKey),
    };
    let attempts_max = dice.one_in(2).then(|| 1 + dice.below(3) as u32);
    let breaks = matches!(then, Some(Then::DeadLetter | Then::DeadLetterKey | Then::Skip)) && dice.one_in(3);
    Rules { then, attempts_max, breaks, filters: dice.one_in(3), idempotent: resends || dice.one_in(4) }
}

fn group(name: String, rules: &Rules, dice: &Dice) -> GroupConfig {
    let spec = GroupSpec { name, stream: "in".into(), handler: auditor::HANDLER.into(), start: Start::Earliest };
    let (settings, poll_interval) = (settings(rules, dice), Duration::from_millis(50 + dice.below(1000)));
    let heartbeat_interval = Duration::from_millis(300 + dice.below(3_000));
    GroupConfig {
        spec,
        settings,
        idempotent_window: Duration::MAX,
        auto_replay: None,
        letters_retention: None,
        poll_interval,
        exit_on_stop: false,
        heartbeat_interval,
        session_timeout: heartbeat_interval * 3,
        partitions_max: 0,
    }
}

fn settings(rules: &Rules, dice: &Dice) -> GroupSettings {
    let backoff = Backoff { initial_ms: 1 + dice.below(500), max_ms: 5_000, ..Backoff::default() };
    let retry = (rules.then.is_none() || rules.attempts_max.is_some())
        .then_some(Retry { attempts_max: rules.attempts_max.filter(|_| rules.then.is_some()), backoff });
    let breaker = rules.breaks.then(|| Breaker { failures: 1 + dice.below(4) as u32, pause_ms: dice.below(3_000) });
    let commit = match dice.below(6) {
        0 => CommitMode::AfterEach,
        1 => CommitMode::Every(1 + dice.below(3_000)),
        2 => CommitMode::Manual,
        _ => CommitMode::AfterBatch,
    };
    let pump = PumpSettings {
        batch_events_max: 1 + dice.below(12) as u32,
        commit,
        commit_ahead: dice.below(4) as u32,
        on_failure: FailurePolicy { retry, then: rules.then, breaker },
        letters_max: if dice.one_in(3) { 1 + dice.below(6) } else { 1_000 },
    };
    let kinds = if rules.filters { vec!["wanted".into()] } else { Vec::new() };
    let filter = Filter { kinds, headers: BTreeMap::new() };
    GroupSettings { pump, filter, idempotent: rules.idempotent }
}

/// Runs one seed to its end; panics where an invariant is broken. What happened, as text, if it is to be told.
fn run(seed: u64, told: bool) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(simulate(seed, told))
}

async fn simulate(seed: u64, told: bool) -> String {
    let dice = Dice::new(seed);
    let plan = Plan::of(&dice);
    let began = Instant::now();
    let jumped_ms = Arc::new(AtomicI64::new(0));
    let clock = {
        let jumped_ms = Arc::clone(&jumped_ms);
        let elapsed = move || began.elapsed().as_millis() as i64 + jumped_ms.load(Ordering::Relaxed);
        Arc::new(move || Timestamp(START.0.saturating_add_signed(elapsed())))
    };
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    // A handler of batches that does not say where it failed has no manual commits.
    let gathers = plan.groups.iter().filter(|_| !plan.unlocated).map(|group| group.spec.name.clone()).collect();
    let script = Arc::new(Script::new(dice.clone(), plan.unlocated, gathers));
    let named = plan.groups.iter().map(|group| group.spec.name.clone());
    let auditor = Arc::new(Auditor::new(seed, Arc::clone(&memory), named.zip(plan.rules.clone()).collect()));
    let network = Arc::new(Network::new(dice.clone(), Arc::clone(&memory), Arc::clone(&auditor), clock, told));
    for name in ["in", "out"] {
        let spec =
            StreamSpec { name: name.into(), partitions: plan.partitions, payload_bytes_max: 1000, retention_ms: None };
        memory.declare_stream(&spec).await.expect("declared");
    }
    for group in &plan.groups {
        memory.declare_group(&group.spec).await.expect("declared");
    }

    let mut world = World {
        plan,
        network,
        auditor: Arc::clone(&auditor),
        dice,
        script,
        jumped_ms,
        version: 0,
        hosts: Vec::new(),
        gone: Vec::new(),
        named: 0,
    };
    world.start_host();
    let World { plan, dice, .. } = &world;
    let producer = Producer {
        events: plan.events,
        keys: plan.keys,
        within: plan.chaos,
        resends: plan.resends,
        memory: Arc::clone(&memory),
        auditor: Arc::clone(&auditor),
        dice: dice.clone(),
    };
    let producer = tokio::spawn(producer.produce());
    let end = Instant::now() + plan.chaos;
    while Instant::now() < end {
        sleep(world.dice.up_to_ms(1_500)).await;
        world.chaos().await;
    }
    producer.await.expect("the producer does not fail");
    world.calm_down(&memory, &auditor).await
}

/// All that a run consists of.
struct World {
    plan: Plan,
    network: Arc<Network>,
    auditor: Arc<Auditor>,
    dice: Dice,
    script: Arc<Script>,
    jumped_ms: Arc<AtomicI64>,
    version: u32,
    hosts: Vec<SimulatedHost>,
    /// Ids of hosts that crashed or left, to be used again.
    gone: Vec<String>,
    named: u32,
}

impl World {
    fn start_host(&mut self) {
        let old = (!self.gone.is_empty() && self.dice.one_in(2)).then(|| self.gone.remove(0));
        let name = old.unwrap_or_else(|| {
            self.named += 1;
            format!("host-{}", self.named)
        });
        self.network.tell(|| format!("chaos: {name} starts"));
        let host = SimulatedHost::start(&name, &self.plan, &self.network, self.version, &self.script);
        self.hosts.push(host);
    }

    fn any_host(&self) -> Option<usize> {
        (!self.hosts.is_empty()).then(|| self.dice.below(self.hosts.len() as u64) as usize)
    }

    /// One thing that goes wrong, or that somebody does.
    async fn chaos(&mut self) {
        let dice = self.dice.clone();
        let network = Arc::clone(&self.network);
        let memory = network.memory();
        let at = dice.below(self.plan.groups.len() as u64) as usize;
        let (group, rules) = (self.plan.groups[at].clone(), self.plan.rules[at]);
        let partition = dice.one_in(2).then(|| dice.below(u64::from(self.plan.partitions)) as u32);
        match dice.below(20) {
            0..=2 if self.hosts.len() < HOSTS_MAX => self.start_host(),
            0..=4 => self.end_a_host().await,
            5 => {
                // A canary first, now and then.
                let trial = dice.one_in(3).then(|| dice.below(u64::from(self.plan.partitions) + 1) as u32);
                network.tell(|| format!("chaos: new version, tried in {trial:?}"));
                self.version += 1;
                self.hosts.iter().for_each(|host| host.swap(self.version, trial));
            }
            6 => memory.pause(&group.spec.name, partition, true).await.expect("paused"),
            7 | 8 => memory.resume(&group.spec.name, partition).await.expect("resumed"),
            9 => {
                network.tell(|| "chaos: new settings".into());
                let new = GroupConfig { settings: settings(&rules, &dice), ..group };
                self.hosts.iter().for_each(|host| host.reconfigure(&new));
            }
            10 => {
                network.tell(|| "chaos: outage".into());
                network.outage(dice.up_to_ms(4_000));
                if dice.one_in(3) {
                    network.tell(|| "chaos: the store restarts".into());
                    memory.restart();
                    self.hosts.iter().for_each(|host| host.link.lose_lock());
                }
            }
            11 => {
                let Some(at) = self.any_host() else { return };
                let host = &self.hosts[at];
                network.tell(|| format!("chaos: {} is stopped for a while", host.name));
                host.link.stop(dice.up_to_ms(STOP_MAX.as_millis() as u64));
            }
            12 => {
                let Some(at) = self.any_host() else { return };
                let host = &self.hosts[at];
                network.tell(|| format!("chaos: {} loses its lock", host.name));
                memory.drop_lock(&host.name);
                // Noticed at once, late, or never.
                let (late, link) = (dice.up_to_ms(2_000), Arc::clone(&host.link));
                match dice.below(3) {
                    0 => link.lose_lock(),
                    1 => drop(tokio::spawn(async move {
                        sleep(late).await;
                        link.lose_lock();
                    })),
                    _ => {}
                }
            }
            13..=15 => self.ask_for_letters(&group.spec.name, partition).await,
            16 => self.skip(&group.spec.name, &rules).await,
            17 => {
                let removed = memory.trim("in", network.now(), 1 + dice.below(20) as u32).await.expect("trimmed");
                network.tell(|| format!("chaos: {removed} events are removed from the stream"));
            }
            _ => {
                let by = dice.below(120_000) as i64 - 60_000;
                network.tell(|| format!("chaos: the store's clock jumps by {by} ms"));
                self.jumped_ms.fetch_add(by, Ordering::Relaxed);
            }
        }
    }

    /// Somebody asks for dead letters to be replayed, or one to be discarded.
    async fn ask_for_letters(&self, group: &str, partition: Option<u32>) {
        let (dice, memory) = (&self.dice, self.network.memory());
        let key = dice.one_in(3).then(|| format!("k{}", dice.below(self.plan.keys)));
        let heads = dice.one_in(4);
        let mut query = LetterQuery { partition, key, first: heads, idle: heads, ..LetterQuery::default() };
        let mut request = LetterRequest::Replay;
        if dice.one_in(6) {
            request = LetterRequest::Discard;
            let all = memory.letters(group, &query, None, auditor::ALL).await.expect("readable");
            if all.is_empty() {
                return;
            }
            let one = &all[dice.below(all.len() as u64) as usize];
            (query.partition, query.offset) = (Some(one.partition), Some(one.letter.event.offset));
        }
        // Something else may have been asked of one of them.
        let asked = memory.request_letters(group, &query, request).await;
        self.network.tell(|| format!("chaos: {request:?} of {query:?} -> {asked:?}"));
    }

    /// Somebody skips what blocks. The key is parked wherever the group promises order.
    async fn skip(&self, group: &str, rules: &Rules) {
        let partition = self.dice.below(u64::from(self.plan.partitions)) as u32;
        let skipped = self.network.memory().skip(group, partition, rules.keeps_order()).await;
        self.network.tell(|| format!("chaos: {group}/{partition} is skipped by hand -> {skipped:?}"));
        if let Ok(Offset(offset)) = skipped {
            self.auditor.skipped_by_hand(group, partition, Offset(offset));
        }
    }

    async fn end_a_host(&mut self) {
        let Some(at) = self.any_host() else { return };
        let host = self.hosts.remove(at);
        self.gone.push(host.name.clone());
        if self.dice.one_in(2) {
            self.network.tell(|| format!("chaos: {} is asked to stop", host.name));
            // A drain may wait for a store that does not answer: the daemon's grace period ends it.
            let name = host.name.clone();
            let _ = timeout(Duration::from_secs(15), host.shut_down()).await;
            self.network.memory().drop_lock(&name);
        } else {
            self.network.tell(|| format!("chaos: {} crashes", host.name));
            self.network.memory().drop_lock(&host.name);
            host.crash();
        }
    }

    /// The faults are over: everything is handled, the partitions are shared out, and then nothing moves any more.
    async fn calm_down(mut self, memory: &MemoryStore, auditor: &Auditor) -> String {
        self.network.calm();
        self.script.calm();
        // What was under way in a host that is stopped arrives when it would have gone on.
        sleep(STOP_MAX).await;
        if self.hosts.is_empty() {
            self.start_host();
        }
        // Under manual commits a handler that was given all there is need not be called again; a new version is.
        self.version += 1;
        self.hosts.iter().for_each(|host| host.swap(self.version, None));
        let groups: Vec<String> = self.plan.groups.iter().map(|group| group.spec.name.clone()).collect();
        let idle = async {
            loop {
                // No more than somebody would have to do: a resume of what waits for nobody would hide a lost wake-up.
                for row in memory.progress().await.expect("readable") {
                    if row.stopped || row.control.paused {
                        memory.resume(&row.group, Some(row.partition)).await.expect("resumed");
                    }
                }
                let mut letters = 0;
                for group in &groups {
                    // Only what nobody asked anything of: a request that is never carried out must show.
                    let idle = LetterQuery { idle: true, ..LetterQuery::default() };
                    memory.request_letters(group, &idle, LetterRequest::Replay).await.expect("requested");
                }
                sleep(Duration::from_secs(10)).await;
                for group in &groups {
                    letters += memory
                        .letters(group, &LetterQuery::default(), None, auditor::ALL)
                        .await
                        .expect("readable")
                        .len();
                }
                let progress = memory.progress().await.expect("readable");
                if letters == 0 && progress.iter().all(|row| row.head == row.committed) {
                    return;
                }
            }
        };
        if timeout(CALM_MAX, idle).await.is_err() {
            let story = self.network.story();
            let end: Vec<&str> = story.lines().filter(|line| !line.contains("progress")).collect();
            let end = end[end.len().saturating_sub(40)..].join("\n");
            auditor.fail(&format!("not everything is handled {CALM_MAX:?} after the faults are over\n{end}"));
        }
        let names: Vec<String> = self.hosts.iter().map(|host| host.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let shared_out = async {
            // Whoever is dead and is not known to be has a session timeout left, and what the clock jumped back.
            while auditor.unfair(&names).await.is_some() {
                sleep(Duration::from_secs(10)).await;
            }
        };
        if timeout(CALM_MAX, shared_out).await.is_err() {
            auditor.fail(&auditor.unfair(&names).await.unwrap_or_default());
        }
        let seats = auditor.seats().await;
        sleep(STABLE).await;
        if seats != auditor.seats().await {
            auditor.fail("partitions moved although nobody came or went");
        }
        for host in self.hosts {
            timeout(CALM_MAX, host.shut_down()).await.unwrap_or_else(|_| auditor.fail("a host does not shut down"));
        }
        if memory
            .groups()
            .await
            .expect("readable")
            .iter()
            .flat_map(|group| &group.partitions)
            .any(|row| row.owner.is_some())
        {
            auditor.fail("all hosts have left, and one still holds a partition");
        }
        auditor.final_check(self.plan.partitions).await;
        auditor.check_failed();
        self.network.story()
    }
}

/// Appends events, and if it may, some again that were removed from the stream since.
struct Producer {
    events: u64,
    keys: u64,
    within: Duration,
    resends: bool,
    memory: Arc<MemoryStore>,
    auditor: Arc<Auditor>,
    dice: Dice,
}

impl Producer {
    async fn produce(self) {
        let Self { events, dice, .. } = &self;
        let mut sent: Vec<NewEvent> = Vec::new();
        while (sent.len() as u64) < *events {
            sleep(self.within / 10 + dice.up_to_ms(20)).await;
            let batch = (1 + dice.below(10)).min(events - sent.len() as u64);
            let event = |n: u64| {
                let (number, key) = (sent.len() as u64 + n, dice.below(self.keys));
                let key = (!dice.one_in(10)).then(|| format!("k{key}"));
                let kind = if dice.one_in(3) { "noise" } else { "wanted" };
                NewEvent { id: format!("e{number}"), key, kind: kind.into(), ..NewEvent::default() }
            };
            let mut batch: Vec<NewEvent> = (0..batch).map(event).collect();
            sent.extend(batch.iter().cloned());
            if self.resends && dice.one_in(2) {
                batch.push(sent[dice.below(sent.len() as u64) as usize].clone());
            }
            let appended = self.memory.append("in", batch.clone()).await.expect("appended");
            for (event, appended) in batch.into_iter().zip(appended) {
                if !appended.duplicate {
                    self.auditor.sent(appended.partition, appended.offset, event);
                }
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_goes_wrong_every_event_takes_effect_exactly_once_and_in_order() {
    if let Some(seed) = number("PELTON_SEED") {
        return eprintln!("{}", run(seed, true));
    }
    let seeds = number("PELTON_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || (first..seeds).step_by(threads as usize).for_each(|seed| drop(run(seed, false))));
        }
    });
    eprintln!("simulation: {seeds} seeds");
}

#[test]
fn a_seed_replays_a_run_to_the_letter() {
    for seed in 0..20 {
        let (first, second) = (run(seed, true), run(seed, true));
        let differing = first.lines().zip(second.lines()).find(|(one, other)| one != other);
        assert_eq!(differing, None, "seed {seed}");
    }
}

/// A store, a network over it that works, and a group `g` of one partition.
async fn calm_network() -> (Arc<MemoryStore>, Arc<Network>) {
    let began = Instant::now();
    let clock: pelton_store::Clock = Arc::new(move || START.plus_ms(began.elapsed().as_millis() as u64));
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    let spec = StreamSpec { name: "in".into(), partitions: 1, payload_bytes_max: 1000, retention_ms: None };
    memory.declare_stream(&spec).await.expect("declared");
    let spec = GroupSpec { name: "g".into(), stream: "in".into(), handler: "h".into(), start: Start::Earliest };
    memory.declare_group(&spec).await.expect("declared");
    let dice = Dice::new(0);
    let auditor = Auditor::new(0, Arc::clone(&memory), BTreeMap::new());
    let network = Arc::new(Network::new(dice, Arc::clone(&memory), Arc::new(auditor), clock, false));
    (memory, network)
}

fn one_group() -> Vec<Membership> {
    vec![Membership { group: "g".into(), session_timeout_ms: 3_000, partitions_max: 0 }]
}

/// A member that asks for its heartbeat every second, and what it publishes.
fn member(store: Arc<dyn Store>) -> (Member, watch::Sender<Wishes>, watch::Receiver<Option<Standing>>) {
    let wishes = Wishes { memberships: one_group(), heartbeat_interval: Duration::from_secs(1) };
    let (wishes, wished) = watch::channel(wishes);
    let (publish, standing) = watch::channel(None);
    let nudge = Arc::new(Notify::new());
    let labels = BTreeMap::new();
    let member = Member { store, host: "host".into(), labels, wishes: wished, standing: publish, nudge };
    (member, wishes, standing)
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_cut_off_stops_trusting_itself_before_others_give_it_up_and_comes_back_by_itself() {
    let (memory, network) = calm_network().await;
    let store: Arc<dyn Store> = Arc::new(Link::new(&network, "host"));
    let (member, _wishes, mut standing) = member(store);
    let first = loop {
        if let Ok(first) = member.register().await {
            break first;
        }
    };
    let trust = first.trust("g").expect("joined");
    tokio::spawn(member.live(first));
    sleep(Duration::from_secs(5)).await;
    assert!(trust.holds(), "heartbeats renew it");

    network.outage(Duration::from_secs(20));
    standing.wait_for(Option::is_none).await.expect("the member lives");
    assert!(!trust.holds());
    let survey = memory.survey().await.expect("readable");
    let silent_ms = survey.silent_ms(&survey.hosts[0]);
    assert!(silent_ms < 3_000, "others wait a session timeout; it gave up after {silent_ms} ms");
    standing.wait_for(Option::is_some).await.expect("the member lives");
    let again = standing.borrow().as_ref().and_then(|standing| standing.trust("g")).expect("joined again");
    assert!(again.holds());
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_lock_is_lost_stops_trusting_itself_at_once() {
    let (_memory, network) = calm_network().await;
    network.calm();
    let link = Arc::new(Link::new(&network, "host"));
    let store: Arc<dyn Store> = Arc::<Link>::clone(&link);
    let (member, _wishes, mut standing) = member(store);
    let first = member.register().await.expect("registered");
    let (session, trust) = (first.session.clone(), first.trust("g").expect("joined"));
    tokio::spawn(member.live(first));
    sleep(Duration::from_millis(1)).await;
    let lost = Instant::now();
    link.lose_lock();
    let renewed = |now: &Option<Standing>| now.as_ref().is_some_and(|now| now.session != session);
    standing.wait_for(renewed).await.expect("the member lives");
    assert!(!trust.holds() && lost.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_asleep_goes_by_the_stores_time_again() {
    const HOUR_MS: i64 = 3_600_000;
    let (began, slept_ms) = (Instant::now(), Arc::new(AtomicI64::new(0)));
    let passed = Arc::clone(&slept_ms);
    let now =
        move || START.0.saturating_add_signed(began.elapsed().as_millis() as i64 + passed.load(Ordering::Relaxed));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(move || Timestamp(now()))));
    let (mut member, _wishes, standing) = member(Arc::clone(&store));
    member.wishes = watch::channel(Wishes::default()).1;
    member.register().await.expect("registered");
    let clock = Clock::starting_at(START);
    let overseer = Overseer {
        store,
        host: "host".into(),
        standing,
        cleanup_interval: Duration::from_secs(10),
        clock: clock.clone(),
        nudge: Arc::new(Notify::new()),
    };
    tokio::spawn(overseer.live());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(clock.now(), START.plus_ms(1000));

    // Only others saw that time go by.
    slept_ms.store(HOUR_MS, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(clock.now(), START.plus_ms(2000 + HOUR_MS as u64));
    // Somebody puts the store's clock back.
    slept_ms.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(clock.now(), START.plus_ms(3000 + HOUR_MS as u64));
}

/// Found while the hand-over was searched: a host that gave up an acquisition owned the partition after all, and nobody else
/// ever got it.
#[tokio::test(start_paused = true)]
async fn an_acquisition_that_arrives_after_its_host_gave_it_up_is_given_back() {
    let (memory, _network) = calm_network().await;
    let store: Arc<dyn Store> = memory.clone();
    let (member, _wishes, _standing) = member(Arc::clone(&store));
    let standing = member.register().await.expect("registered");
    let aim = async |host: &str| {
        let generation = memory.survey().await.expect("readable").groups[0].generation;
        let targets = vec![Some(Arc::from(host))];
        let assign = Decision::Assign { group: "g".into(), generation, targets, homes: vec![None] };
        assert!(memory.decide(&assign).await.expect("decided"));
    };
    aim("host").await;
    assert_ne!(memory.acquire("g", 0, &standing.session).await.expect("answered"), Acquired::NotYet);
    aim("other").await;

    let surroundings = Surroundings {
        lane: Lane::default(),
        store,
        clock: Clock::starting_at(START),
        chance: Arc::new(|| 0.5),
        pump_ended: Arc::new(Notify::new()),
        hand_over_max: Duration::from_secs(5),
    };
    let (_, network) = calm_network().await;
    let script = Arc::new(Script::new(Dice::new(0), false, BTreeSet::new()));
    let version = Arc::new(ScriptedVersion::new(0, script, &Arc::new(Link::new(&network, "host"))));
    let config = GroupConfig {
        spec: GroupSpec { name: "g".into(), stream: "in".into(), handler: "h".into(), start: Start::Earliest },
        ..group("g".into(), &Rules::default(), &Dice::new(0))
    };
    let mut running = RunningGroup::new(config, Versions::all(version), &surroundings);
    running.stand(Some(&standing));
    running.tell(&memory.progress().await.expect("readable").iter().collect::<Vec<_>>());
    sleep(Duration::from_millis(1)).await;
    assert_eq!(memory.progress().await.expect("readable")[0].owner, None);
}
