//! A group at work on this host: its pumps, and the channels that reach them.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use pelton_core::{End, PumpSettings};
use pelton_sandbox::{Interrupt, Place};
use pelton_store::{Progress, Store};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Duration, sleep},
};
use tracing::error;

use crate::{
    config::GroupConfig,
    handler::Version,
    pump::{self, Hint, PumpContext},
    time::Clock,
};

/// The wait before a partition is acquired again. Whoever fenced us gets to work first.
const PAUSE_BEFORE_RESTART: Duration = Duration::from_secs(1);

/// What all groups of a host share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) host: Arc<str>,
    /// Uniform in 0 to 1.
    pub(crate) chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// A group whose pumps run.
pub(crate) struct RunningGroup {
    pub(crate) config: GroupConfig,
    pumps: Vec<RunningPump>,
    ended: JoinSet<()>,
}

/// The channels of one pump. Each pump has its own: tokio's `watch` wakes several receivers in an order that chance
/// decides, and the simulation could not repeat it.
struct RunningPump {
    settings: watch::Sender<PumpSettings>,
    version: watch::Sender<Arc<dyn Version>>,
    hint: watch::Sender<Hint>,
    drain: watch::Sender<bool>,
    interrupt: Interrupt,
}

impl RunningGroup {
    /// Starts a pump for every partition of the group's stream.
    pub(crate) fn start(
        config: GroupConfig,
        partitions: u32,
        version: Arc<dyn Version>,
        surroundings: &Surroundings,
    ) -> Self {
        let mut group = Self { pumps: Vec::new(), ended: JoinSet::new(), config };
        for partition in 0..partitions {
            group.start_pump(partition, Arc::clone(&version), surroundings);
        }
        group
    }

    fn start_pump(&mut self, partition: u32, version: Arc<dyn Version>, surroundings: &Surroundings) {
        let Surroundings { store, clock, host, chance } = surroundings;
        let spec = &self.config.spec;
        let pump = RunningPump {
            settings: watch::Sender::new(self.config.pump),
            version: watch::Sender::new(version),
            hint: watch::Sender::new(Hint::default()),
            drain: watch::Sender::new(false),
            interrupt: Interrupt::default(),
        };
        let context = PumpContext {
            store: Arc::clone(store),
            clock: *clock,
            host: Arc::clone(host),
            place: Place { group: Arc::from(&*spec.name), stream: Arc::from(&*spec.stream), partition },
            settings: pump.settings.subscribe(),
            version: pump.version.subscribe(),
            hints: pump.hint.subscribe(),
            drain: pump.drain.subscribe(),
            interrupt: pump.interrupt.clone(),
            chance: Arc::clone(chance),
        };
        self.ended.spawn(async move {
            loop {
                // A panic is a bug of ours. It must not leave a partition that nobody works for.
                match AssertUnwindSafe(pump::run(context.clone())).catch_unwind().await {
                    Ok(End::Drained) => return,
                    Ok(End::Fenced) => {}
                    Err(_) => {
                        let Place { group, stream, partition } = &context.place;
                        error!(%group, %stream, partition, "the partition's pump panicked: starting it again");
                    }
                }
                sleep(PAUSE_BEFORE_RESTART).await;
                // A group that leaves does not take back what its successor acquired.
                if *context.drain.borrow() {
                    return;
                }
            }
        });
        self.pumps.push(pump);
    }

    /// Passes on what is known of the partitions of this group.
    pub(crate) fn tell(&self, progress: &[Progress]) {
        for row in progress.iter().filter(|row| row.group == self.config.spec.name) {
            let hint = Hint { head: row.head, control: row.control, epoch: row.epoch };
            if let Some(pump) = self.pumps.get(row.partition as usize) {
                pump.hint.send_if_modified(|known| std::mem::replace(known, hint) != hint);
            }
        }
    }

    /// A new version of the handler takes over, in each partition between two batches.
    pub(crate) fn swap(&self, version: &Arc<dyn Version>) {
        for pump in &self.pumps {
            pump.version.send_replace(Arc::clone(version));
        }
    }

    /// Changes what its pumps go by.
    pub(crate) fn reconfigure(&mut self, config: GroupConfig) {
        for pump in &self.pumps {
            pump.settings.send_replace(config.pump);
        }
        self.config = config;
    }

    /// Asks its pumps to finish their batches, commit, release and end.
    pub(crate) fn drain(&self) {
        for pump in &self.pumps {
            pump.drain.send_replace(true);
        }
    }

    /// Breaks off the calls under way.
    pub(crate) fn interrupt(&self) {
        self.pumps.iter().for_each(|pump| pump.interrupt.trigger());
    }

    /// Whether its pumps have ended.
    pub(crate) fn is_over(&mut self) -> bool {
        while self.ended.try_join_next().is_some() {}
        self.ended.is_empty()
    }

    /// Waits until its pumps have ended.
    pub(crate) async fn ended(&mut self) {
        while self.ended.join_next().await.is_some() {}
    }
}
