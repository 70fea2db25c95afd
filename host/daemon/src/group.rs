//! A group at work on this host: its pumps, and the channels that reach them.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt;
use pelton_core::{End, Holder, Lease, Session};
use pelton_sandbox::{Interrupt, Place};
use pelton_store::{Progress, Store};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Duration, Instant, sleep},
};
use tracing::{error, info, warn};

use crate::{
    config::GroupConfig,
    handler::{Lane, Version},
    membership::Standing,
    pump::{self, GroupSettings, Hint, PumpContext},
    time::Clock,
    trust::Trust,
};

/// The wait before a partition that was taken away is asked for again: whether it is still meant for this host is about
/// to be told.
const PAUSE_AFTER_FENCE: Duration = Duration::from_millis(100);
/// The wait before a pump that panicked is started again.
const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(1);

/// What all groups of a host share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    /// Where handlers are called.
    pub(crate) lane: Lane,
    /// Uniform in 0 to 1.
    pub(crate) chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Told whenever a pump has ended: its partition may be wanted back.
    pub(crate) pump_ended: Arc<Notify>,
    /// How long a partition that is handed over may take to finish its batch.
    pub(crate) hand_over_max: Duration,
}

/// The versions of a handler that answer.
#[derive(Clone)]
pub(crate) struct Versions {
    /// Everywhere else.
    pub(crate) live: Arc<dyn Version>,
    /// In partitions below this one.
    pub(crate) trial: Option<(u32, Arc<dyn Version>)>,
}

impl Versions {
    /// One for all partitions.
    #[cfg(test)]
    pub(crate) fn all(live: Arc<dyn Version>) -> Self {
        Self { live, trial: None }
    }

    /// What is tried, if anything is, and what is live.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Arc<dyn Version>> {
        self.trial.iter().map(|(_, version)| version).chain([&self.live])
    }

    /// The one that answers in a partition.
    pub(crate) fn of(&self, partition: u32) -> &Arc<dyn Version> {
        match &self.trial {
            Some((partitions, version)) if partition < *partitions => version,
            _ => &self.live,
        }
    }
}

/// A group at work on this host: a pump for each partition that is meant for it.
pub(crate) struct RunningGroup {
    pub(crate) config: GroupConfig,
    versions: Versions,
    surroundings: Surroundings,
    registered: Option<(Session, Arc<Trust>)>,
    pumps: BTreeMap<u32, RunningPump>,
    strays: BTreeMap<u32, JoinHandle<()>>,
    /// Whether it is to end: it works for nothing new.
    leaves: bool,
    /// Whether it was told that settings wait for a version that can do what they ask.
    waits: bool,
}

/// One pump and its channels. Each pump has its own: tokio's `watch` wakes several receivers in an order that chance
/// decides, and the simulation could not repeat it.
struct RunningPump {
    settings: watch::Sender<GroupSettings>,
    version: watch::Sender<Arc<dyn Version>>,
    hint: watch::Sender<Hint>,
    drain: watch::Sender<bool>,
    interrupt: Interrupt,
    task: JoinHandle<()>,
    /// True once its partition is somebody else's, or nobody's.
    ended: Arc<AtomicBool>,
    /// True once an event stopped the partition here.
    stopped_here: Arc<AtomicBool>,
    /// Since when it is to let go of its partition.
    draining: Option<Instant>,
}

impl RunningGroup {
    /// A group that works for no partition yet.
    pub(crate) fn new(config: GroupConfig, versions: Versions, surroundings: &Surroundings) -> Self {
        Self {
            config,
            versions,
            surroundings: surroundings.clone(),
            registered: None,
            pumps: BTreeMap::new(),
            strays: BTreeMap::new(),
            leaves: false,
            waits: false,
        }
    }

    /// Under another registration, or none, nothing that runs may go on: it was not sure of its partitions in between.
    pub(crate) fn stand(&mut self, standing: Option<&Standing>) {
        let registered = standing.and_then(|standing| {
            let trust = standing.trust(&self.config.spec.name)?;
            Some((standing.session.clone(), trust))
        });
        let session =
            |registered: &Option<(Session, Arc<Trust>)>| registered.as_ref().map(|(session, _)| session.clone());
        if session(&registered) != session(&self.registered) {
            self.abandon();
        }
        self.registered = registered;
    }

    /// Ends all pumps as they are: no commit, no release. Their calls are broken off.
    pub(crate) fn abandon(&mut self) {
        for pump in std::mem::take(&mut self.pumps).into_values() {
            pump.interrupt.trigger();
            pump.task.abort();
        }
        std::mem::take(&mut self.strays).into_values().for_each(|release| release.abort());
    }

    /// Passes on what is known of the partitions of this group, all of them and no other's, and brings its pumps in step
    /// with what is meant for this host.
    pub(crate) fn tell(&mut self, progress: &[&Progress]) {
        self.is_over();
        let Some((session, trust)) = self.registered.clone() else { return };
        let us = &session.host;
        let mut wanted = BTreeSet::new();
        for row in progress {
            let holder = match &row.owner {
                None => Holder::Nobody,
                Some(owner) if owner == us => Holder::Us,
                Some(_) => Holder::Other,
            };
            let hint = Hint { head: row.head, control: row.control, epoch: row.epoch, holder };
            if row.target.as_ref() == Some(us) {
                wanted.insert(row.partition);
                if !self.leaves && !self.pumps.contains_key(&row.partition) {
                    self.start_pump(row.partition, hint, &session, &trust);
                }
            }
            if holder == Holder::Us && !self.pumps.contains_key(&row.partition) {
                self.let_go(row, &session);
            }
            if let Some(pump) = self.pumps.get(&row.partition) {
                pump.hint.send_if_modified(|known| std::mem::replace(known, hint) != hint);
            }
        }
        self.hand_over(&wanted);
    }

    /// Gives back what nobody here works for and others wait for: an acquisition that was given up arrived after all.
    fn let_go(&mut self, row: &Progress, session: &Session) {
        self.strays.retain(|_, release| !release.is_finished());
        let (store, partition) = (Arc::clone(&self.surroundings.store), row.partition);
        let group: Arc<str> = self.config.spec.name.as_str().into();
        let lease = Lease { group, partition, host: Arc::clone(&session.host), epoch: row.epoch };
        self.strays.entry(partition).or_insert_with(|| {
            tokio::spawn(async move {
                if let Err(error) = store.release(&lease).await {
                    warn!(group = %lease.group, partition, %error, "a partition could not be given back; trying again");
                }
            })
        });
    }

    /// Lets go of what is meant for others: within a bound, and without stopping the rest.
    fn hand_over(&mut self, wanted: &BTreeSet<u32>) {
        let limit = self.surroundings.hand_over_max;
        for (partition, pump) in &mut self.pumps {
            let group = &self.config.spec.name;
            if !wanted.contains(partition) && pump.draining.is_none() {
                info!(group, partition, "partition is handed over to another host");
                pump.drain.send_replace(true);
                pump.draining = Some(Instant::now());
            }
            let late = pump.draining.is_some_and(|since| since.elapsed() >= limit);
            if late && !pump.interrupt.is_set() {
                let limit_ms = limit.as_millis() as u64;
                warn!(
                    group,
                    partition, limit_ms, "the batch takes too long: breaking it off to hand the partition over"
                );
                pump.interrupt.trigger();
            }
        }
    }

    fn start_pump(&mut self, partition: u32, hint: Hint, session: &Session, trust: &Arc<Trust>) {
        let Surroundings { store, clock, lane, chance, pump_ended, .. } = &self.surroundings;
        let spec = &self.config.spec;
        let trusted = Arc::clone(trust);
        let interrupt = Interrupt::unless(Arc::new(move || trusted.holds()));
        let settings = watch::Sender::new(self.config.settings.clone());
        let version = watch::Sender::new(Arc::clone(self.versions.of(partition)));
        let hint = watch::Sender::new(hint);
        let drain = watch::Sender::new(false);
        let stopped_here = Arc::new(AtomicBool::new(false));
        let context = PumpContext {
            store: Arc::clone(store),
            clock: clock.clone(),
            session: session.clone(),
            place: Place { group: Arc::from(&*spec.name), stream: Arc::from(&*spec.stream), partition },
            settings: settings.subscribe(),
            version: version.subscribe(),
            hints: hint.subscribe(),
            drain: drain.subscribe(),
            interrupt: interrupt.clone(),
            chance: Arc::clone(chance),
            stopped_here: Arc::clone(&stopped_here),
            lane: lane.clone(),
        };
        let ended = Arc::new(AtomicBool::new(false));
        let (pump_ended, has_ended) = (Arc::clone(pump_ended), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            keep_running(context).await;
            has_ended.store(true, Ordering::Release);
            pump_ended.notify_one();
        });
        let pump = RunningPump { settings, version, hint, drain, interrupt, task, ended, stopped_here, draining: None };
        self.pumps.insert(partition, pump);
    }

    /// Other versions of the handler take over, in each partition between two batches. Where the same one goes on, nobody
    /// is told anything.
    pub(crate) fn swap(&mut self, versions: &Versions) {
        self.versions = versions.clone();
        for (partition, pump) in &self.pumps {
            let version = versions.of(*partition);
            pump.version.send_if_modified(|known| {
                let other = !Arc::ptr_eq(known, version);
                known.clone_from(version);
                other
            });
        }
    }

    /// Changes what its pumps go by.
    pub(crate) fn reconfigure(&mut self, config: GroupConfig) {
        for pump in self.pumps.values() {
            pump.settings.send_replace(config.settings.clone());
        }
        self.config = config;
        self.waits = false;
    }

    /// Whether new settings of it have to wait, and nobody was told so yet.
    pub(crate) fn is_first_wait(&mut self) -> bool {
        !std::mem::replace(&mut self.waits, true)
    }

    /// Asks its pumps to finish their batches, commit, release and end. No others begin, whatever is meant for this host:
    /// that is for the next group of this name.
    pub(crate) fn drain(&mut self) {
        self.leaves = true;
        for pump in self.pumps.values_mut() {
            pump.drain.send_replace(true);
            pump.draining.get_or_insert_with(Instant::now);
        }
    }

    /// Breaks off the calls under way.
    pub(crate) fn interrupt(&self) {
        self.pumps.values().for_each(|pump| pump.interrupt.trigger());
    }

    /// Whether an event stopped a partition here, and not under an earlier owner.
    pub(crate) fn stopped_here(&self, partition: u32) -> bool {
        self.pumps.get(&partition).is_some_and(|pump| pump.stopped_here.load(Ordering::Acquire))
    }

    /// Whether its pumps have ended.
    pub(crate) fn is_over(&mut self) -> bool {
        self.pumps.retain(|_, pump| !pump.ended.load(Ordering::Acquire));
        self.pumps.is_empty()
    }

    /// Waits until its pumps have ended.
    pub(crate) async fn ended(&mut self) {
        for pump in self.pumps.values_mut() {
            // A task that was aborted has ended too.
            let _ = (&mut pump.task).await;
        }
        self.pumps.clear();
    }
}

impl Drop for RunningGroup {
    fn drop(&mut self) {
        self.abandon();
    }
}

async fn keep_running(context: PumpContext) {
    loop {
        // A panic is a bug of ours. It must not leave a partition that nobody works for.
        match AssertUnwindSafe(pump::run(context.clone())).catch_unwind().await {
            Ok(End::Drained) => return,
            Ok(End::Fenced) => sleep(PAUSE_AFTER_FENCE).await,
            Err(_) => {
                let Place { group, stream, partition } = &context.place;
                error!(%group, %stream, partition, "the partition's pump panicked: starting it again");
                sleep(PAUSE_AFTER_PANIC).await;
            }
        }
        // A partition that is handed over is not taken back from who acquired it.
        if *context.drain.borrow() {
            return;
        }
    }
}
