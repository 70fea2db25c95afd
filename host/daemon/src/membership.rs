//! A host's place among the others: it registers, joins the groups it works for, says that it lives, and stops trusting
//! itself when it cannot.
//!
//! One heartbeat serves all groups, as often as the most impatient one asks. Whatever ends a registration (a heartbeat
//! that was not answered in time, a lock that was lost, others who gave this host up) ends it here at once: calls are
//! broken off, nothing more is handed out, and the host registers again and goes on by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pelton_core::{Membership, SESSION_TIMEOUT_MS_DEFAULT, Session};
use pelton_store::{Registration, Store, StoreError};
use tokio::{
    select,
    sync::{Notify, watch},
    time::{Duration, Instant, sleep, sleep_until, timeout},
};
use tracing::{info, warn};

use crate::trust::Trust;

/// The wait before a request that failed is sent again; doubles up to the second.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a request may take before it counts as failed.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// What a host asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wishes {
    /// The groups it works for.
    pub(crate) memberships: Vec<Membership>,
    /// How often it is to say that it lives.
    pub(crate) heartbeat_interval: Duration,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { memberships: Vec::new(), heartbeat_interval: Duration::from_millis(SESSION_TIMEOUT_MS_DEFAULT / 3) }
    }
}

/// A registration that stands, and for how long it is believed in, by group.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) session: Session,
    trusts: Arc<Mutex<BTreeMap<String, Joined>>>,
}

#[derive(Clone, Debug)]
struct Joined {
    trust: Arc<Trust>,
    /// The host has left the group since, and hands over what it still holds of it.
    left: bool,
}

impl Standing {
    fn new(session: Session) -> Self {
        Self { session, trusts: Arc::default() }
    }

    /// The trust in a group's partitions, if it was joined.
    pub(crate) fn trust(&self, group: &str) -> Option<Arc<Trust>> {
        self.trusts().get(group).map(|joined| Arc::clone(&joined.trust))
    }

    /// Memberships were written by a request that was sent then.
    fn joined(&self, memberships: &[Membership], sent: Instant) {
        let mut trusts = self.trusts();
        let longest = memberships.iter().map(|membership| membership.session_timeout_ms).max();
        // In a group that was left, nobody waits for this host any more but for as long as for the host itself.
        let host = Duration::from_millis(longest.unwrap_or(SESSION_TIMEOUT_MS_DEFAULT));
        for joined in trusts.values_mut() {
            joined.left = true;
            joined.trust.set_timeout(host);
        }
        for Membership { group, session_timeout_ms, .. } in memberships {
            let timeout = Duration::from_millis(*session_timeout_ms);
            let new = || Joined { trust: Trust::new(timeout), left: false };
            let joined = trusts.entry(group.clone()).or_insert_with(new);
            joined.left = false;
            joined.trust.set_timeout(timeout);
        }
        trusts.values().for_each(|joined| joined.trust.renew(sent));
    }

    fn renew(&self, sent: Instant) {
        self.trusts().values().for_each(|joined| joined.trust.renew(sent));
    }

    fn revoke(&self) {
        self.trusts().values().for_each(|joined| joined.trust.revoke());
    }

    /// When the first trust ends, of those that the host asked for.
    fn until(&self) -> Option<Instant> {
        self.trusts().values().filter(|joined| !joined.left).map(|joined| joined.trust.until()).min()
    }

    fn trusts(&self) -> MutexGuard<'_, BTreeMap<String, Joined>> {
        self.trusts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host among others. What it publishes is `None` whenever its registration does not stand.
pub(crate) struct Member {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) host: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) wishes: watch::Receiver<Wishes>,
    pub(crate) standing: watch::Sender<Option<Standing>>,
    /// A reason to say at once that this host lives, and to be told if others think otherwise.
    pub(crate) nudge: Arc<Notify>,
}

/// Why a registration ended.
enum Over {
    /// Others gave the host up, or somebody else took its id.
    Expelled,
    /// The connection that holds its lock broke.
    LockLost,
    /// No heartbeat was answered in time.
    NotRenewed,
}

impl Member {
    /// Registers for the first time.
    ///
    /// # Errors
    /// [`StoreError::HostInUse`] and whatever else keeps it from registering.
    pub(crate) async fn register(&self) -> Result<Standing, StoreError> {
        let (host, labels) = (self.host.clone(), self.labels.clone());
        let mut registration = Registration { host, labels, memberships: self.wishes.borrow().memberships.clone() };
        let (sent, session) = loop {
            let sent = Instant::now();
            match answered(self.store.register(&registration)).await {
                Err(StoreError::UnknownGroup { group, .. }) if joins(&registration, &group) => {
                    warn!(
                        host = self.host,
                        group, "the group was deleted; this host goes on with its others until it is restarted"
                    );
                    registration.memberships.retain(|membership| membership.group != group);
                }
                answer => break (sent, answer?),
            }
        };
        let standing = Standing::new(session);
        standing.joined(&registration.memberships, sent);
        self.standing.send_replace(Some(standing.clone()));
        Ok(standing)
    }

    /// Keeps the registration up, and renews it when it is over. Never returns.
    pub(crate) async fn live(mut self, mut standing: Standing) {
        loop {
            let over = self.keep_up(&standing).await;
            standing.revoke();
            self.standing.send_replace(None);
            let why = match over {
                Over::Expelled => "others have given this host up",
                Over::LockLost => "the connection that holds this host's lock broke",
                Over::NotRenewed => "no heartbeat was answered in time",
            };
            warn!(
                host = self.host,
                why, "this host does not trust itself any more: calls are broken off; registering again"
            );
            standing = self.register_again().await;
            info!(host = self.host, "registered again");
        }
    }

    async fn register_again(&self) -> Standing {
        let mut wait = RETRY_MIN;
        loop {
            match self.register().await {
                Ok(standing) => return standing,
                Err(error) => warn!(host = self.host, %error, "cannot register; trying again"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Heartbeats and joins until the registration is over.
    async fn keep_up(&mut self, standing: &Standing) -> Over {
        let store = Arc::clone(&self.store);
        let mut lost = store.lock_lost();
        let mut wishes = self.wishes.borrow_and_update().clone();
        let mut deleted = BTreeSet::new();
        let mut next = Instant::now() + wishes.heartbeat_interval;
        let mut retry = RETRY_MIN;
        loop {
            if standing.until().is_some_and(|until| Instant::now() >= until) {
                return Over::NotRenewed;
            }
            let end = standing.until().unwrap_or_else(|| Instant::now() + REQUEST_MAX);
            select! {
                biased;
                () = &mut lost => return Over::LockLost,
                changed = self.wishes.changed() => {
                    if changed.is_err() {
                        // Whoever wished is gone; what is left is to live on.
                        sleep(RETRY_MAX).await;
                    }
                }
                () = self.nudge.notified() => {}
                () = sleep_until(next) => {}
                () = sleep_until(end) => continue,
            }
            let mut wanted = self.wishes.borrow_and_update().clone();
            wanted.memberships.retain(|membership| !deleted.contains(&membership.group));
            let due = Instant::now() >= next;
            let sent = Instant::now();
            // What others see counts from when it arrives there, which is later than when it was sent.
            let answer = select! {
                biased;
                () = &mut lost => return Over::LockLost,
                () = sleep_until(end) => return Over::NotRenewed,
                answer = self.say(&standing.session, &wishes, &wanted) => answer,
            };
            match answer {
                Ok(true) => {
                    self.warn_if_late(due, next, &wishes);
                    standing.renew(sent);
                    if wishes != wanted {
                        standing.joined(&wanted.memberships, sent);
                        wishes = wanted;
                        // Whoever waits for a group to be joined looks again.
                        self.standing.send_modify(|_| {});
                    }
                    next = sent + wishes.heartbeat_interval;
                    retry = RETRY_MIN;
                }
                Ok(false) => return Over::Expelled,
                Err(StoreError::UnknownGroup { group, .. }) => {
                    // One group that is gone must not keep the heartbeat of all others.
                    warn!(
                        host = self.host,
                        group, "the group was deleted; this host goes on with its others until it is restarted"
                    );
                    deleted.insert(group);
                    next = Instant::now();
                }
                Err(error) => {
                    warn!(host = self.host, %error, "heartbeat failed; trying again");
                    next = Instant::now() + retry;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// A heartbeat; with other wishes than before, one that joins or leaves groups.
    async fn say(&self, session: &Session, before: &Wishes, now: &Wishes) -> Result<bool, StoreError> {
        if before.memberships != now.memberships {
            return answered(self.store.join(session, &now.memberships)).await;
        }
        let stands = answered(self.store.heartbeat(std::slice::from_ref(session))).await?;
        Ok(stands.first().copied().unwrap_or(false))
    }

    fn warn_if_late(&self, due: bool, planned: Instant, wishes: &Wishes) {
        let late = planned.elapsed();
        if due && late > wishes.heartbeat_interval / 2 {
            let late_ms = late.as_millis() as u64;
            warn!(host = self.host, late_ms, "heartbeat is late: is the machine overloaded, or was it asleep?");
        }
    }
}

fn joins(registration: &Registration, group: &str) -> bool {
    registration.memberships.iter().any(|membership| membership.group == group)
}

/// Waits no longer than a request may take.
async fn answered<T>(request: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable { doing: "talking to the store", reason: "no answer in time".into() };
    timeout(REQUEST_MAX, request).await.unwrap_or_else(|_| Err(late()))
}
