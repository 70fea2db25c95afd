//! A simulated host: the real membership, overseer, hints, groups and pumps, without files and modules.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pelton_core::Membership;
use pelton_store::{Progress, Store};
use tokio::{
    select,
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};

use super::{
    Plan,
    network::{Link, Network},
    script::{Script, ScriptedVersion},
};
use crate::{
    config::GroupConfig,
    group::{RunningGroup, Surroundings, Versions},
    handler::{Lane, Version},
    hints::watch_progress,
    membership::{Member, Standing, Wishes},
    overseer::Overseer,
    time::Clock,
};

/// How often a host looks at what it knows, as the daemon does.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A host that can crash: everything of it is in these tasks and groups.
pub(super) struct SimulatedHost {
    pub(super) name: String,
    pub(super) link: Arc<Link>,
    groups: Groups,
    wishes: watch::Sender<Wishes>,
    standing: watch::Receiver<Option<Standing>>,
    tasks: Vec<JoinHandle<()>>,
    script: Arc<Script>,
}

type Groups = Arc<Mutex<Vec<RunningGroup>>>;

fn locked(groups: &Groups) -> MutexGuard<'_, Vec<RunningGroup>> {
    groups.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedHost {
    pub(super) fn start(name: &str, plan: &Plan, network: &Arc<Network>, version: u32, script: &Arc<Script>) -> Self {
        let link = Arc::new(Link::new(network, name));
        let store: Arc<dyn Store> = Arc::<Link>::clone(&link);
        let dice = network.dice.clone();
        let pump_ended = Arc::new(Notify::new());
        let clock = Clock::starting_at(network.now());
        let surroundings = Surroundings {
            store: Arc::clone(&store),
            clock: clock.clone(),
            lane: Lane::default(),
            chance: Arc::new(move || dice.chance()),
            pump_ended: Arc::clone(&pump_ended),
            hand_over_max: Duration::from_secs(5),
        };
        let version: Arc<dyn Version> = Arc::new(ScriptedVersion::new(version, Arc::clone(script), &link));
        let group = |config: &GroupConfig| {
            RunningGroup::new(config.clone(), Versions::all(Arc::clone(&version)), &surroundings)
        };
        let groups: Groups = Arc::new(Mutex::new(plan.groups.iter().map(group).collect()));

        let membership = |config: &GroupConfig| Membership {
            group: config.spec.name.clone(),
            session_timeout_ms: config.session_timeout.as_millis() as u64,
            partitions_max: config.partitions_max,
        };
        let heartbeat_interval = plan.groups.iter().map(|group| group.heartbeat_interval).min().unwrap_or_default();
        let wishes = Wishes { memberships: plan.groups.iter().map(membership).collect(), heartbeat_interval };
        let (wishes, wished) = watch::channel(wishes);
        let (publish, standing) = watch::channel(None);
        let (host, nudge) = (name.to_owned(), Arc::new(Notify::new()));
        let overseer = Overseer {
            store: Arc::clone(&store),
            host: host.clone(),
            standing: publish.subscribe(),
            cleanup_interval: Duration::from_secs(10),
            clock,
            nudge: Arc::clone(&nudge),
        };
        let labels = BTreeMap::new();
        let member = Member { store: Arc::clone(&store), host, labels, wishes: wished, standing: publish, nudge };
        let lives = async move {
            loop {
                if let Ok(first) = member.register().await {
                    return member.live(first).await;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let (progress, told) = watch::channel(Vec::new());
        let shortest = plan.groups.iter().map(|group| group.poll_interval).min().unwrap_or_default();
        let (_, poll) = watch::channel(shortest);
        let tasks = vec![
            tokio::spawn(lives),
            tokio::spawn(overseer.live()),
            tokio::spawn(watch_progress(store, poll, progress)),
            tokio::spawn(keep_in_step(told, standing.clone(), pump_ended, Arc::clone(&groups))),
        ];
        Self { name: name.into(), link, groups, wishes, standing, tasks, script: Arc::clone(script) }
    }

    /// A new version takes over: everywhere, or in so many partitions, where the one before it answers in the others.
    pub(super) fn swap(&self, number: u32, trial: Option<u32>) {
        let scripted = |number| -> Arc<dyn Version> {
            Arc::new(ScriptedVersion::new(number, Arc::clone(&self.script), &self.link))
        };
        let versions = match trial {
            None => Versions::all(scripted(number)),
            Some(partitions) => Versions { live: scripted(number - 1), trial: Some((partitions, scripted(number))) },
        };
        locked(&self.groups).iter_mut().for_each(|group| group.swap(&versions));
    }

    pub(super) fn reconfigure(&self, config: &GroupConfig) {
        let named = |running: &&mut RunningGroup| running.config.spec.name == config.spec.name;
        locked(&self.groups).iter_mut().filter(named).for_each(|running| running.reconfigure(config.clone()));
    }

    /// Nothing of it goes on: no commit, no release, no good-bye. What it had sent may still arrive.
    pub(super) fn crash(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        locked(&self.groups).clear();
    }

    /// Leaves its groups, finishes its batches, releases its partitions, says good-bye.
    pub(super) async fn shut_down(self) {
        self.wishes.send_modify(|wishes| wishes.memberships.clear());
        // Nothing is passed on any more; a drain does not need it.
        self.tasks[2..].iter().for_each(JoinHandle::abort);
        let mut groups = std::mem::take(&mut *locked(&self.groups));
        groups.iter_mut().for_each(RunningGroup::drain);
        for group in &mut groups {
            group.ended().await;
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        let session = self.standing.borrow().as_ref().map(|standing| standing.session.clone());
        if let Some(session) = session {
            let _ = self.link.deregister(&session).await;
        }
    }
}

/// What the daemon does when something changed.
async fn keep_in_step(
    mut progress: watch::Receiver<Vec<Progress>>,
    mut standing: watch::Receiver<Option<Standing>>,
    pump_ended: Arc<Notify>,
    groups: Groups,
) {
    loop {
        select! {
            biased;
            Ok(()) = standing.changed() => {
                let standing = standing.borrow_and_update().clone();
                locked(&groups).iter_mut().for_each(|group| group.stand(standing.as_ref()));
            }
            Ok(()) = progress.changed() => {}
            () = pump_ended.notified() => {}
            () = sleep(LOOK_INTERVAL) => {}
        }
        let rows = progress.borrow_and_update().clone();
        locked(&groups).iter_mut().for_each(|group| {
            let of_group: Vec<_> = rows.iter().filter(|row| row.group == group.config.spec.name).collect();
            group.tell(&of_group);
        });
    }
}
