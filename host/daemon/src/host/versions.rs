//! Which versions of its handlers a host calls: files propose, the store decides, all hosts follow.

use std::{ops::Bound, sync::Arc};

use pelton_core::{Found, Refusal, Rollout};
use pelton_store::HostInfo;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{Host, LAST_COMMITS};
use crate::{
    modules::Loaded,
    rollouts::{ChangeError, Rollouts, change},
    slot::HandlerSlot,
};

/// A change of a rollout that this host asked for, and what became of it.
pub(super) struct Changed {
    handler: String,
    what: What,
    result: Result<Rollout, ChangeError>,
}

/// What this host wanted.
enum What {
    Proposed(String),
    TakenBack(String, String),
    Promoted,
}

impl Host {
    /// The other hosts that are at work; `None` if the store does not say.
    pub(super) async fn others(&self) -> Option<Vec<HostInfo>> {
        let mut hosts = timeout(LAST_COMMITS, self.surroundings.store.hosts()).await.ok()?.ok()?;
        hosts.retain(|host| host.active && *host.host != *self.id);
        Some(hosts)
    }

    /// How a file is to be taken that is there when its handler is first met.
    pub(super) fn found_at_start(&self, handler: &str, others: Option<&[HostInfo]>) -> Found {
        let groups = || self.config.groups.values().filter(|group| group.spec.handler == handler);
        let serves = |host: &HostInfo| groups().any(|group| host.groups.contains(&group.spec.name));
        // One that has joined no group yet may be about to: all may start at once. And who does not know whether others are
        // there had better not bring back what is old.
        let alone = others.is_some_and(|others| !others.iter().any(|host| host.groups.is_empty() || serves(host)));
        Found::AtStart { alone }
    }

    /// Follows what the store says.
    pub(super) fn take_rollouts(&mut self) {
        let rollouts: Rollouts = self.rollouts.borrow_and_update().clone();
        for (name, rollout) in &rollouts {
            if let Some(slot) = self.handlers.get_mut(name) {
                slot.take_rollout(rollout);
            }
        }
        self.settle();
    }

    /// Takes what came of loading a module.
    pub(super) fn take_loaded(&mut self, loaded: Loaded) {
        let name = loaded.handler.clone();
        if let Some(slot) = self.handlers.get_mut(&name) {
            slot.take_loaded(loaded, &self.id, self.surroundings.clock.now());
        }
        self.bring_in_step(Some(&name));
        self.ask_for_changes();
    }

    /// Brings what runs in step, and proposes what is to be proposed.
    pub(super) fn settle(&mut self) {
        self.bring_in_step(None);
        self.ask_for_changes();
    }

    /// Brings what runs in step with what is loaded and what is to answer: of this handler, or of all.
    fn bring_in_step(&mut self, only: Option<&str>) {
        let now = self.surroundings.clock.now();
        let handlers = match only {
            Some(name) => self.handlers.range_mut::<str, _>((Bound::Included(name), Bound::Included(name))),
            None => self.handlers.range_mut::<str, _>(..),
        };
        for (name, slot) in handlers {
            if let Some(versions) = slot.settle(&self.loader, now) {
                for group in self.groups.values_mut().filter(|group| group.config.spec.handler == *name) {
                    group.swap(&versions);
                }
            }
        }
        self.bring_groups_in_step(only);
    }

    /// Proposes new versions, and ends canaries that have had their time.
    pub(super) fn ask_for_changes(&mut self) {
        let now = self.surroundings.clock.now();
        let mut asked = Vec::new();
        for (name, slot) in &mut self.handlers {
            if let Some((proposal, module)) = slot.next_proposal() {
                let what = What::Proposed(proposal.digest.clone());
                let propose = move |rollout: &Rollout| rollout.propose(&proposal, now);
                asked.push((name.clone(), what, Some(module), Box::new(propose) as Box<dyn Asked>));
            }
            while let Some((digest, reason)) = slot.next_to_take_back() {
                let what = What::TakenBack(digest.clone(), reason.clone());
                let take_back = move |rollout: &Rollout| rollout.take_back(&digest, &reason, now);
                asked.push((name.clone(), what, None, Box::new(take_back)));
            }
            if slot.is_trial_over(now) {
                let promote = move |rollout: &Rollout| rollout.promote(now).ok_or(Refusal::Already);
                asked.push((name.clone(), What::Promoted, None, Box::new(promote)));
            }
        }
        for (name, what, module, asks) in asked {
            self.ask(name, what, module, asks);
        }
    }

    /// What comes with time: what could not be done is tried again, and what was overlooked is seen.
    pub(super) fn tend(&mut self) {
        let now = self.surroundings.clock.now();
        for slot in self.handlers.values_mut() {
            slot.try_again(&self.loader, now);
            slot.condemn();
        }
        self.settle();
    }

    /// A version has done too much wrong. It makes way here at once; then the store is told, and all other hosts with it.
    pub(super) fn condemn(&mut self) {
        self.handlers.values_mut().for_each(HandlerSlot::condemn);
        self.settle();
    }

    fn ask(&self, handler: String, what: What, module: Option<Arc<[u8]>>, asks: Box<dyn Asked>) {
        let (store, changed) = (Arc::clone(&self.surroundings.store), self.changes.clone());
        let known = self.handlers.get(&handler).map(|slot| slot.rollout().clone());
        tokio::spawn(async move {
            let result = change(&*store, &handler, known, module, |rollout| asks(rollout)).await;
            // Nobody listens when the host is going down.
            let _ = changed.send(Changed { handler, what, result }).await;
        });
    }

    /// Takes what became of a change that was asked for.
    pub(super) fn take_changed(&mut self, changed: Changed) {
        let Changed { handler, what, result } = changed;
        let name = handler.clone();
        let Some(slot) = self.handlers.get_mut(&handler) else { return };
        if let Ok(rollout) = &result {
            slot.take_rollout(rollout);
        }
        match (what, result) {
            (What::Proposed(digest), Ok(rollout)) => {
                slot.proposed(&digest, true);
                match &rollout.trial {
                    Some(trial) if trial.digest == digest => {
                        let until = crate::time::show(trial.until);
                        info!(
                            handler,
                            digest,
                            partitions = trial.partitions,
                            until,
                            "new version is tried in some partitions"
                        );
                    }
                    _ => info!(handler, digest, "new version is live"),
                }
            }
            (What::Proposed(digest), Err(ChangeError::Refused(Refusal::Already))) => slot.proposed(&digest, true),
            (What::Proposed(digest), Err(ChangeError::Refused(refusal))) => {
                slot.proposed(&digest, true);
                slot.refuse(refusal.to_string());
            }
            (What::Proposed(digest), Err(ChangeError::Store(error))) if !error.is_transient() => {
                slot.proposed(&digest, true);
                slot.refuse(format!("version {digest} could not be proposed: {error}"));
            }
            (What::Proposed(digest), Err(error)) => {
                slot.proposed(&digest, false);
                warn!(handler, digest, %error, "a new version could not be proposed; trying again");
            }
            (What::TakenBack(digest, reason), Ok(rollout)) => {
                let live = rollout.live.unwrap_or_default();
                error!(handler, digest, reason, live, "version rolled back");
            }
            (What::TakenBack(digest, _), Err(ChangeError::Refused(refusal))) => {
                // If it does not answer any more, the row that says so is on its way.
                if refusal != Refusal::Already {
                    slot.acquit(&digest);
                    warn!(handler, digest, error = %refusal, "the version is not taken back; it goes on");
                }
            }
            (What::TakenBack(digest, _), Err(error)) => {
                slot.not_taken_back(&digest);
                warn!(handler, digest, %error, "the store could not be told that the version is taken back; trying again");
            }
            (What::Promoted, Ok(rollout)) => {
                info!(handler, digest = rollout.live.unwrap_or_default(), "canary is over: new version is live");
            }
            // Another host was faster, or it is tried again at the next tick.
            (What::Promoted, Err(_)) => {}
        }
        // What the store has just failed to take is asked for again at the next tick, and not at once.
        self.bring_in_step(Some(&name));
    }
}

trait Asked: Fn(&Rollout) -> Result<Rollout, Refusal> + Send + Sync {}

impl<F: Fn(&Rollout) -> Result<Rollout, Refusal> + Send + Sync> Asked for F {}
