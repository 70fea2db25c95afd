//! Waking those who wait for a change, in this process and others.
//!
//! A notification is a hint: it may be lost with the connection, and appenders keep most of theirs to themselves. So for a
//! while after every change the heads of all partitions are looked at, at first soon, then ever later.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::PgListener;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    connect::{CONNECT_TIMEOUT, Connector},
    request::{Change, Database, Fault, Request, Transaction},
};
use crate::{Changed, wakeup::Wakeup};

/// When the first look after a change is due.
const LOOK_SOON: Duration = Duration::from_millis(5);

/// How long a lost connection is waited for before the next try, at first and at most.
const RECONNECT_SOON: Duration = Duration::from_millis(50);
const RECONNECT_LATE: Duration = Duration::from_secs(2);

/// The longest pause between two looks where no notifications arrive.
const LOOK_LATE: Duration = Duration::from_millis(250);

/// How long a connection on which nothing comes is trusted.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Wake {
    wakeup: Wakeup,
    membership: AtomicBool,
    look: Mutex<Look>,
    /// No notifications arrive: looks are all there is.
    deaf: bool,
}

/// The looks of whoever waits.
struct Look {
    /// When the next one is due, from the last one on.
    pause: Duration,
    /// As of the last one: older than whatever the caller has read since.
    heads: Option<Heads>,
}

impl Default for Look {
    fn default() -> Self {
        Self { pause: LOOK_SOON, heads: None }
    }
}

impl Wake {
    /// For where no notifications arrive, if `deaf`.
    pub(super) fn new(deaf: bool) -> Self {
        Self { deaf, ..Self::default() }
    }

    /// Something changed, if so.
    pub(super) fn changed(&self, change: Option<Change>) {
        if change == Some(Change::Membership) {
            self.membership.store(true, Ordering::Release);
        }
        if change.is_some() {
            self.wakeup.changed();
        }
    }

    /// Returns when there may have been a change, or after `at_most`.
    pub(super) async fn wait(&self, database: &Database, at_most: Duration) -> Changed {
        let asked = Instant::now();
        let mut hinted = self.wakeup.is_due();
        while !hinted {
            let left = at_most.saturating_sub(asked.elapsed());
            if left.is_zero() {
                break;
            }
            let pause = self.look().pause;
            self.wakeup.sleep(left.min(pause)).await;
            hinted = self.wakeup.is_due();
            if !hinted && pause < left && self.look_around(database).await {
                break;
            }
        }
        if hinted {
            self.look().pause = LOOK_SOON;
        }
        // The flag first: whoever sets it counts a change afterwards.
        let membership = self.membership.swap(false, Ordering::AcqRel);
        self.wakeup.tell();
        Changed { membership }
    }

    /// Returns when hosts or members may have changed, or after `at_most`. Looks at nothing.
    pub(super) async fn wait_for_membership(&self, at_most: Duration) {
        let asked = Instant::now();
        loop {
            // In this order: what is told between the two is seen by the second, and what comes after ends the sleep.
            self.wakeup.tell();
            let left = at_most.saturating_sub(asked.elapsed());
            if self.membership.swap(false, Ordering::AcqRel) || left.is_zero() {
                return;
            }
            self.wakeup.sleep(left).await;
        }
    }

    /// True if there is something that nobody told of.
    async fn look_around(&self, database: &Database) -> bool {
        // One that fails tells nothing; the next one is due later.
        let found = database.ask(&LookAround { at_members: self.deaf }).await.ok();
        let mut look = self.look();
        if let Some(found) = found {
            let before = look.heads.replace(found);
            if before != Some(found) {
                look.pause = LOOK_SOON;
                if before.map_or(self.deaf, |before| before.members != found.members) {
                    self.membership.store(true, Ordering::Release);
                }
                return true;
            }
        }
        look.pause = look.pause.saturating_mul(2);
        if self.deaf {
            look.pause = look.pause.min(LOOK_LATE);
        }
        false
    }

    fn look(&self) -> std::sync::MutexGuard<'_, Look> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers that differ after a change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Heads {
    /// The sum of all heads.
    events: i64,
    /// The sum of all groups' generations, and how many partitions are owned; zeros unless they were asked for.
    members: (i64, i64),
}

struct LookAround {
    at_members: bool,
}

impl Request for LookAround {
    type Answer = Heads;
    const DOING: &'static str = "looking for changes";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Heads, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        let events = sql.text("SELECT coalesce(sum(next_offset), 0)::bigint FROM @.stream_partitions");
        let events = sqlx::query_scalar(events).fetch_one(&mut **connection).await?;
        let members = if self.at_members {
            let members = sql.text(
                "SELECT (SELECT coalesce(sum(generation), 0)::bigint FROM @.groups),
                     (SELECT count(owner) FROM @.group_partitions)",
            );
            sqlx::query_as(members).fetch_one(&mut **connection).await?
        } else {
            (0, 0)
        };
        Ok(Heads { events, members })
    }
}

/// The task that listens; it ends with this.
pub(super) struct Listener(JoinHandle<()>);

impl Listener {
    /// Starts to listen. Returns once the first try to connect has ended, one way or the other: what changes from then on
    /// is heard of, or looked for.
    pub(super) async fn start(connector: &Connector, channel: &str, wake: &Arc<Wake>) -> Self {
        let first = listen(connector, channel).await;
        if first.is_none() {
            wake.changed(Some(Change::Membership));
        }
        let (connector, channel, wake) = (connector.clone(), channel.to_owned(), Arc::clone(wake));
        Self(tokio::spawn(keep_listening(first, connector, channel, wake)))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_listening(first: Option<PgListener>, connector: Connector, channel: String, wake: Arc<Wake>) {
    let mut listener = first;
    let mut pause = RECONNECT_SOON;
    loop {
        if let Some(listener) = listener.take() {
            hear(listener, &connector, &wake).await;
            tracing::info!("the connection for notifications was lost; connecting again");
            connector.forget_backends();
            pause = RECONNECT_SOON;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_LATE);
        listener = listen(&connector, &channel).await;
        if listener.is_some() {
            // Whatever happened meanwhile was told to nobody.
            wake.changed(Some(Change::Membership));
        }
    }
}

async fn listen(connector: &Connector, channel: &str) -> Option<PgListener> {
    let connected = async {
        let mut listener = connector.listener().await?;
        listener.listen(channel).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    match timeout(CONNECT_TIMEOUT, connected).await {
        Ok(Ok(listener)) => Some(listener),
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot listen for notifications");
            None
        }
        Err(_) => None,
    }
}

/// Passes on what is heard, until the connection is lost.
async fn hear(mut listener: PgListener, connector: &Connector, wake: &Wake) {
    loop {
        match timeout(SILENCE_MAX, listener.try_recv()).await {
            // What we did ourselves, those who wait here were told of already.
            Ok(Ok(Some(told))) if connector.is_ours(told.process_id()) => {}
            Ok(Ok(Some(told))) => {
                wake.changed(Some(if told.payload() == "m" { Change::Membership } else { Change::Events }));
            }
            Ok(Ok(None) | Err(_)) => return,
            Err(_) => {
                let alive = timeout(CONNECT_TIMEOUT, sqlx::query("SELECT 1").execute(&mut listener)).await;
                if !matches!(alive, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}
