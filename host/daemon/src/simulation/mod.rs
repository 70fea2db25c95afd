//! The seeded simulation: real pumps, groups and hints over the memory store, with a handler that fails by script, a
//! network that loses requests and replies, and a host that crashes. Tokio's time is paused, chance comes from the seed,
//! and everything runs on one thread: a seed replays a run to the letter.
//!
//! `PELTON_SEED=N` runs one seed and prints what happens; `PELTON_SEEDS=N` runs so many instead of 10,000.

mod auditor;
mod network;
mod script;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pelton_core::{Backoff, FailurePolicy, NewEvent, PumpSettings, Then, Timestamp};
use pelton_store::{GroupSpec, MemoryStore, Progress, Start, Store, StreamSpec};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::{
    auditor::Auditor,
    network::Network,
    script::{Script, ScriptedVersion},
};
use crate::{
    config::GroupConfig,
    group::{RunningGroup, Surroundings},
    handler::Version,
    hints::watch_progress,
    time::Clock,
};

const SEEDS: u64 = 10_000;
const START: Timestamp = Timestamp(1_000_000);
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
    events: u64,
    keys: u64,
    /// The handlers are batch handlers that do not say where they failed.
    unlocated: bool,
    chaos: Duration,
}

impl Plan {
    fn of(dice: &Dice) -> Self {
        let partitions = 1 + dice.below(3) as u32;
        let groups = 1 + dice.below(2);
        Self {
            partitions,
            groups: (0..groups).map(|n| group(format!("group-{n}"), dice)).collect(),
            events: 1 + dice.below(60),
            keys: 1 + dice.below(5),
            unlocated: dice.one_in(3),
            chaos: dice.up_to_ms(20_000),
        }
    }
}

fn group(name: String, dice: &Dice) -> GroupConfig {
    let spec = GroupSpec { name, stream: "in".into(), handler: "script".into(), start: Start::Earliest };
    let (pump, poll_interval) = (settings(dice), Duration::from_millis(50 + dice.below(1000)));
    GroupConfig { spec, pump, poll_interval, exit_on_stop: false }
}

fn settings(dice: &Dice) -> PumpSettings {
    let backoff = Backoff { initial_ms: 1 + dice.below(500), max_ms: 5_000, ..Backoff::default() };
    let on_failure = match dice.below(4) {
        0 => FailurePolicy::Stop,
        1 => FailurePolicy::Retry { attempts_max: Some(1 + dice.below(3) as u32), backoff, then: Some(Then::Stop) },
        _ => FailurePolicy::Retry { attempts_max: None, backoff, then: None },
    };
    PumpSettings { batch_events_max: 1 + dice.below(12) as u32, commit_ahead: dice.below(4) as u32, on_failure }
}

/// A host that can crash: everything of it is in these tasks.
struct SimulatedHost {
    groups: Arc<Mutex<Vec<RunningGroup>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl SimulatedHost {
    fn start(
        plan: &Plan,
        network: &Arc<Network>,
        dice: &Dice,
        versions: &watch::Sender<u32>,
        script: &Arc<Script>,
    ) -> Self {
        let store: Arc<dyn Store> = Arc::<Network>::clone(network);
        let clock = Clock::starting_at(network.now());
        let chance = {
            let dice = dice.clone();
            Arc::new(move || dice.chance())
        };
        let surroundings = Surroundings {
            store: Arc::clone(&store),
            clock,
            host: format!("host-{}", dice.below(1000)).into(),
            chance,
        };
        let version: Arc<dyn Version> = Arc::new(ScriptedVersion::new(*versions.borrow(), Arc::clone(script)));
        let start = |config: &GroupConfig| {
            RunningGroup::start(config.clone(), plan.partitions, Arc::clone(&version), &surroundings)
        };
        let groups: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(plan.groups.iter().map(start).collect()));
        let (sender, receiver) = watch::channel(Vec::new());
        let shortest = plan.groups.iter().map(|group| group.poll_interval).min().unwrap_or_default();
        let (_, poll) = watch::channel(shortest);
        let hints = tokio::spawn(watch_progress(store, poll, sender));
        let told = tokio::spawn(pass_on(receiver, Arc::clone(&groups)));
        Self { groups, tasks: vec![hints, told] }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<RunningGroup>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap(&self, version: u32, script: &Arc<Script>) {
        let version: Arc<dyn Version> = Arc::new(ScriptedVersion::new(version, Arc::clone(script)));
        self.groups().iter().for_each(|group| group.swap(&version));
    }

    /// Nothing of it goes on: no commit, no release, no good-bye. What it had sent may still arrive.
    fn crash(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.groups().clear();
    }

    async fn shut_down(self) {
        // Hints go no further; a drain does not need them.
        self.tasks.iter().for_each(JoinHandle::abort);
        let mut groups = std::mem::take(&mut *self.groups());
        groups.iter().for_each(RunningGroup::drain);
        for group in &mut groups {
            group.ended().await;
        }
    }
}

async fn pass_on(mut progress: watch::Receiver<Vec<Progress>>, groups: Arc<Mutex<Vec<RunningGroup>>>) {
    while progress.changed().await.is_ok() {
        let rows = progress.borrow_and_update().clone();
        groups.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|group| group.tell(&rows));
    }
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
    let clock = move || START.plus_ms(began.elapsed().as_millis() as u64);
    let memory = Arc::new(MemoryStore::new(Arc::new(clock)));
    let script = Arc::new(Script::new(dice.clone(), plan.unlocated));
    let auditor = Arc::new(Auditor::new(seed, Arc::clone(&memory), Arc::clone(&script)));
    let network =
        Arc::new(Network::new(dice.clone(), Arc::clone(&memory), Arc::clone(&auditor), Arc::new(clock), told));
    for name in ["in", "out"] {
        let spec = StreamSpec { name: name.into(), partitions: plan.partitions, payload_bytes_max: 1000 };
        memory.declare_stream(&spec).await.expect("declared");
    }
    for group in &plan.groups {
        memory.declare_group(&group.spec).await.expect("declared");
    }

    let versions = watch::Sender::new(0);
    let mut zombies = Vec::new();
    let mut host = Some(SimulatedHost::start(&plan, &network, &dice, &versions, &script));
    let producer = tokio::spawn(produce(plan.events, plan.keys, plan.chaos, Arc::clone(&memory), dice.clone()));
    let end = Instant::now() + plan.chaos;
    while Instant::now() < end {
        sleep(dice.up_to_ms(1_500)).await;
        chaos(&plan, &network, &dice, &versions, &script, &mut host, &mut zombies).await;
    }
    producer.await.expect("the producer does not fail");

    zombies.into_iter().for_each(SimulatedHost::crash);
    network.calm();
    script.calm();
    let host = host.unwrap_or_else(|| SimulatedHost::start(&plan, &network, &dice, &versions, &script));
    let idle = async {
        loop {
            // No more than somebody would have to do: a resume of what waits for nobody would hide a lost wake-up.
            for row in memory.progress().await.expect("readable") {
                if row.stopped || row.control.paused {
                    memory.resume(&row.group, Some(row.partition)).await.expect("resumed");
                }
            }
            sleep(Duration::from_secs(10)).await;
            let progress = memory.progress().await.expect("readable");
            if progress.iter().all(|row| row.head == row.committed) {
                return;
            }
        }
    };
    if timeout(CALM_MAX, idle).await.is_err() {
        let story = network.story();
        let end: Vec<&str> = story.lines().filter(|line| !line.contains("progress")).collect();
        let end = end[end.len().saturating_sub(40)..].join("\n");
        auditor.fail(&format!("not everything is handled {CALM_MAX:?} after the faults are over\n{end}"));
    }
    timeout(CALM_MAX, host.shut_down()).await.unwrap_or_else(|_| auditor.fail("the host does not shut down"));
    auditor.final_check(&plan.groups.iter().map(|group| &*group.spec.name).collect::<Vec<_>>(), plan.events).await;
    network.story()
}

/// One thing that goes wrong, or that somebody does.
async fn chaos(
    plan: &Plan,
    network: &Arc<Network>,
    dice: &Dice,
    versions: &watch::Sender<u32>,
    script: &Arc<Script>,
    host: &mut Option<SimulatedHost>,
    zombies: &mut Vec<SimulatedHost>,
) {
    let group = &plan.groups[dice.below(plan.groups.len() as u64) as usize];
    let partition = dice.one_in(2).then(|| dice.below(u64::from(plan.partitions)) as u32);
    let memory = network.memory();
    match dice.below(8) {
        0 | 1 => match host.take() {
            Some(running) if dice.one_in(3) => {
                network.tell("chaos: graceful restart");
                // A drain may wait for a store that does not answer: the daemon's grace period ends it.
                let _ = timeout(Duration::from_secs(15), running.shut_down()).await;
            }
            Some(running) if dice.one_in(3) => {
                network.tell("chaos: taken for dead, and alive");
                zombies.push(running);
            }
            Some(running) => {
                network.tell("chaos: crash");
                running.crash();
            }
            None => *host = Some(SimulatedHost::start(plan, network, dice, versions, script)),
        },
        2 => {
            network.tell("chaos: new version");
            versions.send_modify(|version| *version += 1);
            host.iter().for_each(|host| host.swap(*versions.borrow(), script));
        }
        3 => memory.pause(&group.spec.name, partition, true).await.expect("paused"),
        4 | 5 => memory.resume(&group.spec.name, partition).await.expect("resumed"),
        6 => {
            network.tell("chaos: new settings");
            let new = GroupConfig { pump: settings(dice), ..group.clone() };
            let named = |running: &&mut RunningGroup| running.config.spec.name == group.spec.name;
            if let Some(host) = host {
                host.groups().iter_mut().filter(named).for_each(|running| running.reconfigure(new.clone()));
            }
        }
        _ => {
            network.tell("chaos: outage");
            network.outage(dice.up_to_ms(4_000));
        }
    }
}

async fn produce(events: u64, keys: u64, within: Duration, memory: Arc<MemoryStore>, dice: Dice) {
    let mut left = events;
    while left > 0 {
        sleep(within / 10 + dice.up_to_ms(20)).await;
        let batch = (1 + dice.below(10)).min(left);
        let event = |n: u64| {
            let (number, key) = (events - left + n, dice.below(keys));
            NewEvent { id: format!("e{number}"), key: Some(format!("k{key}")), ..NewEvent::default() }
        };
        let batch: Vec<NewEvent> = (0..batch).map(event).collect();
        left -= batch.len() as u64;
        memory.append("in", batch).await.expect("appended");
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
