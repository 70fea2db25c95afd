//! The daemon: keeps what runs in step with `workers.toml`, the module files and the store, until it is told to stop.

mod reload;
mod versions;

use std::{
    collections::BTreeMap,
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use pelton_core::{Hold, Mark, Membership};
use pelton_sandbox::{Sandbox, SandboxOptions};
use pelton_store::{HandlerReport, Progress, ReadLimit, Store};
use tokio::{
    select,
    sync::{Notify, mpsc, watch},
    time::{interval, timeout},
};
use tracing::{error, info, warn};

use versions::Changed;

use crate::{
    chores::{Chores, do_chores},
    compiler::compiler,
    config::{Config, GroupConfig},
    files::{FileWatch, Stamp},
    group::{RunningGroup, Surroundings},
    handler::Lane,
    hints::watch_progress,
    membership::{Standing, Wishes},
    modules::{Loaded, Loader},
    presence::{Identity, Presence},
    rollouts::{self, Rollouts, watch_rollouts},
    slot::HandlerSlot,
    time::Clock,
};

/// How often files are looked at, should every notification be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often the store is told what the handlers did.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often to look whether every lag is 0, where that is what the run waits for: a commit alone wakes nobody.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long pumps may take to commit and release after their calls were broken off.
const LAST_COMMITS: Duration = Duration::from_secs(5);

/// A look whether there is a dead letter.
const ONE_LETTER: ReadLimit = ReadLimit { events: 1, bytes: 1 };

/// What `pelton run` is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// End once every lag is 0 and nothing is asked of dead letters.
    pub until_idle: bool,
    /// Compile modules in processes of their own. Only where this program is `pelton`: it is what is started for that.
    pub compile_apart: bool,
}

/// How a run ended, where nothing went wrong with the host itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop, or every lag is 0.
    Cleanly,
    /// `--until-idle` cannot be reached: what is left waits for somebody. The log says for what.
    Stuck,
    /// A partition stopped whose group says `exit = true`.
    Stopped,
}

/// Runs the daemon until `stop` resolves, or until it is idle if that is asked for.
///
/// # Errors
/// Whatever keeps the host from starting: the store, the lock, a declaration that contradicts the store, or that no
/// handler at all can be loaded.
pub async fn run(
    path: &Path,
    config: Config,
    options: RunOptions,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<Ended> {
    let mut stop = std::pin::pin!(stop);
    // Whatever it does, compiling a module or waiting for the store, it stops at once when it is asked to.
    let mut host = select! {
        () = &mut stop => return Ok(Ended::Cleanly),
        host = Host::start(path, config, options) => host?,
    };
    let ended = select! {
        () = &mut stop => Ok(Ended::Cleanly),
        ended = host.live() => ended,
    };
    host.shut_down().await;
    ended
}

struct Host {
    path: PathBuf,
    config: Config,
    config_stamp: Option<Stamp>,
    options: RunOptions,
    surroundings: Surroundings,
    handlers: BTreeMap<String, HandlerSlot>,
    groups: BTreeMap<String, RunningGroup>,
    /// Groups that end because the configuration changed.
    ending: Vec<RunningGroup>,
    loader: Loader,
    loaded: mpsc::Receiver<Loaded>,
    rollouts: watch::Receiver<Rollouts>,
    changes: mpsc::Sender<Changed>,
    changed: mpsc::Receiver<Changed>,
    /// Told when a version has done too much wrong.
    alarm: Arc<Notify>,
    files: FileWatch,
    progress: watch::Receiver<Vec<Progress>>,
    poll_interval: watch::Sender<Duration>,
    chores: watch::Sender<Chores>,
    reported: Vec<HandlerReport>,
    id: Arc<str>,
    presence: Presence,
    /// `None` while this host is not registered, and may not work.
    standing: watch::Receiver<Option<Standing>>,
    /// Whether every handler was loaded or refused once.
    is_running: bool,
}

impl Host {
    async fn start(path: &Path, config: Config, options: RunOptions) -> anyhow::Result<Self> {
        let store_options = config.store.options(true);
        let store = pelton_store::open(&config.store.url, &store_options).await?;
        // Times that are stored are compared with those that the store wrote, and by other hosts: one clock for all.
        let clock = Clock::starting_at(store.survey().await?.now);
        let id: Arc<str> = config.host.id.clone().unwrap_or_else(made_up_id).into();
        declare(&*store, &config).await?;
        let identity = Identity {
            host: id.to_string(),
            labels: config.host.labels.clone(),
            cleanup_interval: config.host.cleanup_interval,
            clock: clock.clone(),
        };
        let presence = Presence::start(config.store.url.clone(), store_options, identity).await?;
        let standing = presence.standing();

        let lane = Lane::both();
        let sandbox = Sandbox::new(SandboxOptions {
            cache_dir: Some(config.host.cache.clone()),
            cache_bytes_max: config.host.cache_bytes_max,
            compiler: options.compile_apart.then(compiler),
            compilations_max: config.host.compilations,
            memory_bytes_max: config.host.memory_bytes_max,
            instances_max: instances_max(&config),
            ..Default::default()
        })
        .context("cannot set up the WebAssembly engine")?;
        let (loader, loaded) = Loader::new(sandbox, Arc::clone(&store), lane.clone());
        let (told, rollouts) = watch::channel(rollouts::read(&*store).await?);
        tokio::spawn(watch_rollouts(Arc::clone(&store), told));
        let (changes, changed) = mpsc::channel(16);
        let poll_interval = watch::Sender::new(shortest_poll(&config, &options));
        let (sender, progress) = watch::channel(Vec::new());
        tokio::spawn(watch_progress(Arc::clone(&store), poll_interval.subscribe(), sender));
        let chores = watch::Sender::new(Chores::default());
        tokio::spawn(do_chores(Arc::clone(&store), chores.subscribe()));

        let mut host = Self {
            path: path.into(),
            // It was read a while ago: the first look sees whether it is the same still.
            config_stamp: None,
            options,
            surroundings: Surroundings {
                store,
                clock,
                lane,
                chance: Arc::new(rand::random::<f64>),
                pump_ended: Arc::new(Notify::new()),
                hand_over_max: config.host.shutdown_grace,
            },
            handlers: BTreeMap::new(),
            groups: BTreeMap::new(),
            ending: Vec::new(),
            loader,
            loaded,
            rollouts,
            changes,
            changed,
            alarm: Arc::default(),
            files: FileWatch::start(),
            progress,
            poll_interval,
            chores,
            reported: Vec::new(),
            id,
            presence,
            standing,
            is_running: false,
            config: Config { handlers: BTreeMap::new(), groups: BTreeMap::new(), ..config.clone() },
        };
        host.apply(config).await;
        Ok(host)
    }

    /// Looks whether every handler was loaded or refused by now. Groups work from the moment their own handler is there: one
    /// that takes its time, or is refused, hurts only itself, unless it is the only one. Says whether this is the first time
    /// that all is known.
    ///
    /// # Errors
    /// Every handler was refused, each with its reason.
    fn look_at_first_modules(&mut self) -> anyhow::Result<bool> {
        if self.is_running || self.handlers.values().any(HandlerSlot::is_loading) {
            return Ok(false);
        }
        let silent = self.handlers.values().filter(|slot| slot.versions().is_none());
        let refused: Vec<_> = silent.filter_map(HandlerSlot::refusal).collect();
        if !refused.is_empty() && refused.len() == self.handlers.len() {
            bail!("no handler can be loaded:\n  {}", refused.join("\n  "));
        }
        let names: Vec<_> = self.groups.keys().map(String::as_str).collect();
        info!(host = %self.id, store = %pelton_store::without_password(&self.config.store.url), groups = names.join(", "), "pelton is running");
        self.is_running = true;
        // Whether anything is left to do was not asked so far.
        self.progress.mark_changed();
        Ok(true)
    }

    async fn live(&mut self) -> anyhow::Result<Ended> {
        let mut look = interval(LOOK_INTERVAL);
        let mut report = interval(REPORT_INTERVAL);
        let pump_ended = Arc::clone(&self.surroundings.pump_ended);
        let alarm = Arc::clone(&self.alarm);
        loop {
            if self.look_at_first_modules()? {
                report.reset_immediately();
            }
            select! {
                Some(loaded) = self.loaded.recv() => self.take_loaded(loaded),
                Some(changed) = self.changed.recv() => self.take_changed(changed),
                Ok(()) = self.rollouts.changed() => self.take_rollouts(),
                () = alarm.notified() => self.condemn(),
                Ok(()) = self.progress.changed() => {
                    if let Some(ended) = self.look_at_progress().await {
                        return Ok(ended);
                    }
                }
                changed = self.standing.changed() => {
                    changed.context("the thread that keeps this host registered has ended")?;
                    self.take_standing();
                }
                () = pump_ended.notified() => self.take_ended(),
                () = self.files.changed() => self.look_at_files().await,
                _ = look.tick() => {
                    self.look_at_files().await;
                    if let Some(ended) = self.look_at_progress().await {
                        return Ok(ended);
                    }
                }
                _ = report.tick() => {
                    self.tend();
                    self.report().await;
                }
            }
        }
    }

    // --- This host among the others -------------------------------------------------------------------------------

    /// The registration stands, ended, or was renewed.
    fn take_standing(&mut self) {
        let standing = self.standing.borrow_and_update().clone();
        let all = self.groups.values_mut().chain(&mut self.ending);
        all.for_each(|group| group.stand(standing.as_ref()));
        // What was told of the handlers may have been cleared away with the last registration.
        self.reported.clear();
        // What is meant for this host is known; nothing has to change for its pumps to start.
        self.progress.mark_changed();
    }

    /// Asks to work for the groups that run here.
    fn join(&self) {
        let running = self.groups.values().map(|group| &group.config);
        let heartbeat_interval = running.clone().map(|group| group.heartbeat_interval).min();
        let membership = |group: &GroupConfig| Membership {
            group: group.spec.name.clone(),
            session_timeout_ms: group.session_timeout.as_millis() as u64,
            partitions_max: group.partitions_max,
        };
        self.presence.wish(Wishes {
            memberships: running.map(membership).collect(),
            heartbeat_interval: heartbeat_interval.unwrap_or(Wishes::default().heartbeat_interval),
        });
    }

    // --- Progress -----------------------------------------------------------------------------------------------

    async fn look_at_progress(&mut self) -> Option<Ended> {
        let progress = self.progress.borrow_and_update().clone();
        let ended = self.take_progress(&progress)?;
        match ended {
            Ended::Cleanly if self.nothing_is_asked(&progress.iter().collect::<Vec<_>>()).await => {
                info!("every lag is 0");
            }
            Ended::Stuck if self.stays_full(&self.behind(&progress)).await => self.tell_stuck(&progress),
            Ended::Stopped => {}
            _ => return None,
        }
        Some(ended)
    }

    fn take_progress(&mut self, progress: &[Progress]) -> Option<Ended> {
        let mut rows: BTreeMap<&str, Vec<&Progress>> = BTreeMap::new();
        progress.iter().for_each(|row| rows.entry(&row.group).or_default().push(row));
        for group in self.groups.values_mut().chain(&mut self.ending) {
            let of_group = rows.get(&*group.config.spec.name).map_or(&[][..], Vec::as_slice);
            group.tell(of_group);
        }
        let mine = |row: &&Progress| row.owner.as_ref() == Some(&self.id);
        for row in progress.iter().filter(|row| self.has_stopped(row)).filter(mine) {
            // A host that takes a stopped partition over has nothing to end for: the stop would run from host to host.
            let stopped_here = self.groups.get(&row.group).is_some_and(|group| group.stopped_here(row.partition));
            if stopped_here && self.config.groups.get(&row.group).is_some_and(|group| group.exit_on_stop) {
                let (group, partition, offset) = (&row.group, row.partition, row.committed.0);
                error!(group, partition, offset, "a partition stopped and its group says exit = true: ending");
                return Some(Ended::Stopped);
            }
        }
        // A group that was added just now may not be in the picture yet.
        let known = || self.config.groups.keys().all(|name| rows.contains_key(&**name));
        if self.options.until_idle && self.is_running && known() { self.idle(progress) } else { None }
    }

    /// Whether a partition waits for somebody. One that another version has stopped is about to start again.
    fn has_stopped(&self, row: &Progress) -> bool {
        row.stopped && self.failed_as_it_is(row)
    }

    /// Whether a partition waits for somebody to make room. Who looks closer asks [`Self::stays_full`] too.
    fn is_full(&self, row: &Progress) -> bool {
        row.held == Some(Hold::Full) && self.failed_as_it_is(row)
    }

    /// Whether what failed did so under the version that is at work.
    fn failed_as_it_is(&self, row: &Progress) -> bool {
        let handler = self.config.groups.get(&row.group).and_then(|group| self.handlers.get(&group.spec.handler));
        let version = handler.and_then(HandlerSlot::versions).map(|versions| versions.of(row.partition));
        version.is_none_or(|version| row.failed_by.as_deref().is_none_or(|digest| digest == version.digest()))
    }

    /// Whether every lag is 0, or what is left can only wait for somebody.
    fn idle(&self, progress: &[Progress]) -> Option<Ended> {
        let behind = self.behind(progress);
        if behind.is_empty() {
            return Some(Ended::Cleanly);
        }
        let rests = |row: &&Progress| row.control.paused || !self.groups.contains_key(&row.group);
        behind.iter().all(|row| rests(row) || self.has_stopped(row) || self.is_full(row)).then_some(Ended::Stuck)
    }

    /// The partitions of groups of this host that have events left.
    fn behind<'a>(&self, progress: &'a [Progress]) -> Vec<&'a Progress> {
        let ours = progress.iter().filter(|row| self.config.groups.contains_key(&row.group));
        ours.filter(|row| lag(row) > 0).collect()
    }

    fn tell_stuck(&self, progress: &[Progress]) {
        for row in self.behind(progress) {
            let why = match self.groups.get(&row.group) {
                None => "its handler was refused",
                Some(_) if row.control.paused => "it is paused: `pelton group resume` lets it go on",
                Some(_) if row.held == Some(Hold::Full) => {
                    "its dead letters are full (on_failure.dead_letters_max): replay or discard some"
                }
                Some(_) => "it is stopped: `pelton group resume` or a new module version starts it",
            };
            error!(
                group = row.group,
                partition = row.partition,
                offset = row.committed.0,
                lag = lag(row),
                why,
                "cannot become idle"
            );
        }
    }

    /// Whether those of these partitions whose dead letters are full stay so until somebody acts. What was asked may make
    /// room yet, a new limit may have; and now and then the event is tried again.
    async fn stays_full(&self, behind: &[&Progress]) -> bool {
        let works = |row: &&Progress| self.groups.contains_key(&row.group) && !row.control.paused;
        let full: Vec<_> = behind.iter().copied().filter(|row| row.held == Some(Hold::Full)).filter(works).collect();
        if full.is_empty() {
            return true;
        }
        if !self.nothing_is_asked(&full).await {
            return false;
        }
        let Ok(groups) = self.surroundings.store.groups().await else { return false };
        let now = self.surroundings.clock.now();
        full.iter().all(|row| {
            let group = groups.iter().find(|group| group.name == row.group);
            let place = group.and_then(|group| group.partitions.get(row.partition as usize));
            let most = self.groups.get(&row.group).map(|group| group.config.settings.pump.letters_max);
            place.zip(most).is_some_and(|(place, most)| {
                let waits = matches!(place.mark, Mark::Hold { until, why: Hold::Full, .. } if until > now);
                waits && place.letters >= most
            })
        })
    }

    /// Whether nothing is asked of dead letters any more that somebody could see to. Lag does not tell of them.
    async fn nothing_is_asked(&self, progress: &[&Progress]) -> bool {
        let ours = |row: &&&Progress| self.groups.contains_key(&row.group) && !row.control.paused;
        for row in progress.iter().filter(ours).filter(|row| row.control.requests > 0) {
            let asked = self.surroundings.store.letters_requested(&row.group, row.partition, ONE_LETTER).await;
            if !asked.is_ok_and(|letters| letters.is_empty()) {
                return false;
            }
        }
        true
    }

    // --- What others are told --------------------------------------------------------------------------------------

    /// Tells the store what the handlers did, if it is not what was told last.
    async fn report(&mut self) {
        let store = &self.surroundings.store;
        // Of a handler that is loaded for the first time there is nothing to tell.
        let known = self.handlers.values().filter(|slot| self.is_running || !slot.is_loading());
        let reports: Vec<_> = known.map(|slot| slot.report(&self.id)).collect();
        if reports == self.reported {
            return;
        }
        match timeout(REPORT_INTERVAL, store.report_handlers(&reports)).await {
            Ok(Ok(())) => self.reported = reports,
            Ok(Err(error)) => warn!(%error, "cannot store what the handlers did; trying again"),
            Err(_) => warn!("cannot store what the handlers did in time; trying again"),
        }
    }

    // --- The end ------------------------------------------------------------------------------------------------

    /// Lets batches finish within the grace period, breaks off what still runs then, and leaves.
    async fn shut_down(mut self) {
        info!("finishing batches, committing, releasing partitions");
        let mut groups: Vec<RunningGroup> = mem::take(&mut self.groups).into_values().chain(self.ending).collect();
        // Others may take each partition the moment it is released.
        self.presence.wish(Wishes { heartbeat_interval: self.presence.heartbeat_interval(), ..Wishes::default() });
        groups.iter_mut().for_each(RunningGroup::drain);
        let grace = self.config.host.shutdown_grace;
        if !ended(&mut groups, grace).await {
            warn!(
                grace_ms = grace.as_millis() as u64,
                "batches still run after the grace period: breaking them off; their events are handled again"
            );
            groups.iter().for_each(RunningGroup::interrupt);
            if !ended(&mut groups, LAST_COMMITS).await {
                warn!("some partitions could not be released; the next host takes them over");
            }
        }
        let reports: Vec<_> = self.handlers.values().map(|slot| slot.report(&self.id)).collect();
        match timeout(LAST_COMMITS, self.surroundings.store.report_handlers(&reports)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not store what the handlers did"),
            Err(_) => warn!("could not store what the handlers did in time"),
        }
        self.presence.leave().await;
        info!("pelton has stopped");
    }
}

/// How many events a partition has left.
fn lag(row: &Progress) -> u64 {
    row.head.since(row.committed)
}

async fn ended(groups: &mut [RunningGroup], within: Duration) -> bool {
    let all = async {
        for group in groups {
            group.ended().await;
        }
    };
    timeout(within, all).await.is_ok()
}

/// Creates the streams and groups of a configuration, or checks that they are as declared.
///
/// # Errors
/// What contradicts the store, with the name of the stream or group.
pub async fn declare(store: &dyn Store, config: &Config) -> anyhow::Result<()> {
    for stream in config.streams.values() {
        store.declare_stream(stream).await?;
    }
    for group in config.groups.values() {
        store.declare_group(&group.spec).await?;
    }
    Ok(())
}

/// Room for an instance in every partition, twice: a new version may come before all of the old one are gone.
fn instances_max(config: &Config) -> u32 {
    let streams = config.groups.values().filter_map(|group| config.streams.get(&group.spec.stream));
    let partitions: u32 = streams.map(|stream| stream.partitions).sum();
    partitions.saturating_mul(2).max(SandboxOptions::default().instances_max)
}

/// One coalesced poll serves all groups: as often as the most impatient one asks.
fn shortest_poll(config: &Config, options: &RunOptions) -> Duration {
    let shortest = config.groups.values().map(|group| group.poll_interval).min().unwrap_or(LOOK_INTERVAL);
    if options.until_idle { shortest.min(IDLE_LOOK_INTERVAL) } else { shortest }
}

/// Host name, process id and chance: unique without anybody's care.
fn made_up_id() -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let name: String = gethostname::gethostname().to_string_lossy().chars().map(legal).take(64).collect();
    let name = name.trim_start_matches('-');
    let name = if name.is_empty() { "host" } else { name };
    format!("{name}-{}-{:04x}", std::process::id(), rand::random::<u16>())
}
