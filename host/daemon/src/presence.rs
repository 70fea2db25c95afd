//! The thread that keeps a host's place among the others. It has a runtime and connections of its own: no handler can
//! starve it, and no queue of writes in front of the host's other requests delays a heartbeat.

use std::{collections::BTreeMap, sync::Arc, thread};

use anyhow::Context;
use pelton_store::{Store, StoreError, StoreOptions};
use tokio::{
    select,
    sync::{Notify, oneshot, watch},
    time::{Duration, timeout},
};
use tracing::warn;

use crate::{
    membership::{Member, Standing, Wishes},
    overseer::Overseer,
    time::Clock,
};

/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// For the lock, wake-ups, a heartbeat and a look at the others at once.
const CONNECTIONS_MAX: u32 = 4;

/// A host that is registered, until it leaves or this is dropped.
pub(crate) struct Presence {
    wishes: watch::Sender<Wishes>,
    standing: watch::Receiver<Option<Standing>>,
    leave: Option<oneshot::Sender<oneshot::Sender<()>>>,
}

/// Who the host is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) host: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) cleanup_interval: Duration,
    /// Is told the store's time again and again.
    pub(crate) clock: Clock,
}

impl Presence {
    /// Registers the host, for no group yet, and keeps its registration up.
    ///
    /// # Errors
    /// If another live host has the id, or the store or the thread does not answer.
    pub(crate) async fn start(url: String, mut options: StoreOptions, identity: Identity) -> anyhow::Result<Self> {
        options.host = true;
        options.connections_max = CONNECTIONS_MAX;
        let (wishes, wished) = watch::channel(Wishes::default());
        let (publish, standing) = watch::channel(None);
        let (leave, left) = oneshot::channel();
        let (registered, first) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let live = move || {
            runtime.block_on(async move {
                let store = match pelton_store::open(&url, &options).await {
                    Ok(store) => store,
                    Err(error) => return drop(registered.send(Err(error))),
                };
                live(store, identity, wished, publish, registered, left).await;
            });
        };
        thread::Builder::new().name("presence".into()).spawn(live).context("cannot start the heartbeat's thread")?;
        first.await.context("the heartbeat's thread ended")??;
        Ok(Self { wishes, standing, leave: Some(leave) })
    }

    /// What this host is registered as, whenever it changes.
    pub(crate) fn standing(&self) -> watch::Receiver<Option<Standing>> {
        self.standing.clone()
    }

    /// Asks to work for other groups.
    pub(crate) fn wish(&self, wishes: Wishes) {
        self.wishes.send_if_modified(|known| {
            let changed = *known != wishes;
            *known = wishes;
            changed
        });
    }

    /// How often the host says that it lives.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        self.wishes.borrow().heartbeat_interval
    }

    /// Leaves: what the host still holds is free for others at once.
    pub(crate) async fn leave(mut self) {
        let (done, left) = oneshot::channel();
        let asked = self.leave.take().is_some_and(|leave| leave.send(done).is_ok());
        if asked && !matches!(timeout(LEAVE_MAX, left).await, Ok(Ok(()))) {
            warn!("could not say good-bye to the store; the others notice that this process is gone");
        }
    }
}

async fn live(
    store: Arc<dyn Store>,
    identity: Identity,
    wishes: watch::Receiver<Wishes>,
    standing: watch::Sender<Option<Standing>>,
    registered: oneshot::Sender<Result<(), StoreError>>,
    left: oneshot::Receiver<oneshot::Sender<()>>,
) {
    let Identity { host, labels, cleanup_interval, clock } = identity;
    let watched = standing.subscribe();
    let nudge = Arc::new(Notify::new());
    let overseer = Overseer {
        store: store.clone(),
        host: host.clone(),
        standing: watched.clone(),
        cleanup_interval,
        clock,
        nudge: nudge.clone(),
    };
    let member = Member { store: store.clone(), host, labels, wishes, standing, nudge };
    let first = match member.register().await {
        Ok(standing) => standing,
        Err(error) => return drop(registered.send(Err(error))),
    };
    // Whoever asked may have stopped waiting; then the other end of `left` is gone too.
    let _ = registered.send(Ok(()));
    let done = select! {
        () = member.live(first) => None,
        () = overseer.live() => None,
        done = left => done.ok(),
    };
    let Some(done) = done else { return };
    let session = watched.borrow().as_ref().map(|standing| standing.session.clone());
    if let Some(session) = session
        && let Err(error) = store.deregister(&session).await
    {
        warn!(%error, "could not say good-bye to the store");
    }
    let _ = done.send(());
}
