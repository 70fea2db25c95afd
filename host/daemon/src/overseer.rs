//! Looks after the others: gives up hosts that are gone, says who is to hold which partition, and clears away what is left.
//!
//! Every host does this, and needs no leader: all of them see the same and decide the same ([`Observer`]), and what one
//! has carried out another finds done.

use std::sync::Arc;

use pelton_core::{Decision, Expelled, LockSeen, Observer, Survey};
use pelton_store::Store;
use tokio::{
    sync::{Notify, watch},
    time::{Duration, Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{membership::Standing, share::Share, time::Clock};

/// How often to look, should no change wake this host: what a crash costs before its grace period begins.
const LOOK_INTERVAL: Duration = Duration::from_millis(150);
/// The least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Looks may take this share of the time, or looking would be what limits a store with many members.
const LOOK_SHARE: u32 = 20;
/// What looks may take at once: one change of the members is followed by another, and each is to be seen at once.
const LOOK_BURST: Duration = Duration::from_millis(50);
/// The longest pause that follows from that, or from an error.
const PAUSE_MAX: Duration = Duration::from_millis(300);
/// How long a request may take before it counts as failed.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How often each group's active consumers are told in the log.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A clock that was behind by so much is worth a word: more than a slow answer, or two clocks that do not go alike.
const BEHIND_MS: u64 = 1000;

/// One host's view of all.
pub(crate) struct Overseer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) host: String,
    /// Only a host that trusts itself judges others.
    pub(crate) standing: watch::Receiver<Option<Standing>>,
    pub(crate) cleanup_interval: Duration,
    /// This host's, which goes by the store's.
    pub(crate) clock: Clock,
    /// Asks this host's own membership for a heartbeat.
    pub(crate) nudge: Arc<Notify>,
}

impl Overseer {
    /// Looks and acts, for ever.
    pub(crate) async fn live(self) {
        let began = Instant::now();
        let mut observer = Observer::default();
        let mut share = Share::new(LOOK_SHARE, LOOK_BURST);
        let (mut cleaned, mut told) = (began, began);
        loop {
            let looked = Instant::now();
            let (mut pause, mut acted, mut silence_left) = (LOOK_PAUSE, false, None);
            if self.standing.borrow().is_some() {
                match timeout(REQUEST_MAX, self.store.survey()).await {
                    Ok(Ok(survey)) => {
                        self.keep_time(&survey);
                        if !self.stands(&survey) {
                            // Others gave this host up. Its next heartbeat would be told so, some time.
                            self.nudge.notify_one();
                        }
                        silence_left = survey.silence_left_ms();
                        let now_ms = began.elapsed().as_millis() as u64;
                        for decision in observer.decide(now_ms, &survey) {
                            acted |= self.carry_out(&decision).await;
                        }
                        if told.elapsed() >= TELL_INTERVAL {
                            told = Instant::now();
                            self.tell(&survey);
                        }
                    }
                    Ok(Err(error)) => {
                        debug!(%error, "cannot look after the other hosts; trying again");
                        pause = LOOK_INTERVAL;
                    }
                    Err(_) => pause = LOOK_INTERVAL,
                }
                if cleaned.elapsed() >= self.cleanup_interval {
                    cleaned = Instant::now();
                    self.clean_up().await;
                }
            } else {
                // What was seen before says nothing about what comes after.
                observer = Observer::default();
            }
            if acted {
                // One decision makes room for the next: who is given up first, who gets what then.
                continue;
            }
            // The pause is part of the interval, and neither lasts longer than a grace period or a silence that ends meanwhile.
            let now_ms = began.elapsed().as_millis() as u64;
            let left = [observer.grace_left_ms(now_ms), silence_left].into_iter().flatten().filter(|ms| *ms > 0).min();
            let due = left.map_or(PAUSE_MAX, Duration::from_millis).max(LOOK_PAUSE);
            let pause = pause.max(share.pause_after(looked.elapsed())).min(PAUSE_MAX).min(due);
            sleep(pause).await;
            self.store.membership_changed(LOOK_INTERVAL.min(due).saturating_sub(pause)).await;
        }
    }

    /// While a machine sleeps or is paused its clock stands still, and the store's goes on.
    fn keep_time(&self, survey: &Survey) {
        let behind_ms = self.clock.learn(survey.now);
        if behind_ms >= BEHIND_MS {
            warn!(host = self.host, behind_ms, "this host's clock was behind the store's: was the machine asleep?");
        }
    }

    /// Whether this host is registered as it thinks, and was given up nowhere.
    fn stands(&self, survey: &Survey) -> bool {
        let standing = self.standing.borrow();
        let Some(Standing { session, .. }) = standing.as_ref() else { return true };
        let members = survey.groups.iter().flat_map(|group| &group.members);
        survey.hosts.iter().any(|host| host.session == *session && !host.expelled)
            && !members.into_iter().any(|member| member.session == *session && member.expelled)
    }

    /// Whether it was this host that carried it out.
    async fn carry_out(&self, decision: &Decision) -> bool {
        match timeout(REQUEST_MAX, self.store.decide(decision)).await {
            Ok(Ok(true)) => self.tell_of(decision),
            // Somebody was faster, or what was seen is no longer so.
            Ok(Ok(false)) | Err(_) => return false,
            Ok(Err(error)) => {
                warn!(%error, "a decision about the members could not be stored; looking again");
                return false;
            }
        }
        true
    }

    fn tell_of(&self, decision: &Decision) {
        match decision {
            Decision::Expel { session, group, why, .. } => {
                let (host, group) = (&*session.host, group.as_deref().unwrap_or("all"));
                match why {
                    Expelled::LockFree => warn!(host, group, "a host is gone; others take over its partitions"),
                    Expelled::Silent(silent_ms) => {
                        warn!(
                            host,
                            group,
                            silent_ms,
                            "a host was not heard of for its session timeout; others take over its partitions"
                        );
                    }
                }
            }
            Decision::Assign { group, targets, .. } => {
                let mine = targets.iter().filter(|target| target.as_deref() == Some(&*self.host)).count();
                info!(group, partitions = targets.len(), mine, "partitions are shared out anew");
            }
        }
    }

    fn tell(&self, survey: &Survey) {
        for group in &survey.groups {
            let active: Vec<_> = group.members.iter().filter(|member| survey.shows_active_member(member)).collect();
            if !active.iter().any(|member| *member.session.host == *self.host) {
                continue;
            }
            let consumers: Vec<&str> = active.iter().map(|member| &*member.session.host).collect();
            let unowned = group.seats.iter().filter(|seat| seat.owner.is_none()).count();
            info!(group = group.group, active = consumers.len(), consumers = consumers.join(" "), unowned, "consumers");
        }
        for host in survey.hosts.iter().filter(|host| host.lock == LockSeen::Unknown && !host.expelled) {
            debug!(host = %host.session.host, "no lock tells whether this host lives; its heartbeats do");
        }
    }

    async fn clean_up(&self) {
        match timeout(REQUEST_MAX, self.store.cleanup()).await {
            Ok(Ok(gone)) if !gone.is_empty() => info!(hosts = gone.join(" "), "stale hosts are removed"),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => debug!(%error, "cannot remove stale hosts; trying again later"),
        }
    }
}
