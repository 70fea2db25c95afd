//! Rollouts as they are in the store: looked at now and then, and changed by compare-and-set.

use std::{collections::BTreeMap, sync::Arc};

use pelton_core::{Refusal, Rollout};
use pelton_store::{Store, StoreError};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};
use tracing::warn;

/// How often to look. What one host changes the others follow within this time.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a change is tried against others that change the same rollout.
const TRIES_MAX: u32 = 20;

/// Rollouts by handler.
pub(crate) type Rollouts = BTreeMap<String, Rollout>;

/// Why a rollout was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The rules are against it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not known whether it was.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others were faster each time.
    #[error("others changed the versions of this handler {TRIES_MAX} times meanwhile; try again")]
    Contended,
}

/// All rollouts.
///
/// # Errors
/// If the store does not answer.
pub(crate) async fn read(store: &dyn Store) -> Result<Rollouts, StoreError> {
    let rollouts = store.rollouts().await?;
    Ok(rollouts.into_iter().map(|rollout| (rollout.handler.clone(), rollout)).collect())
}

/// Changes a rollout, over whatever it is by then; with it goes the module that is new in it. It is mostly still what is
/// `known`, and need not be read then: a host of a thousand handlers would read them all for each that starts.
///
/// # Errors
/// What is against the change, or the store.
pub(crate) async fn change(
    store: &dyn Store,
    handler: &str,
    known: Option<Rollout>,
    module: Option<Arc<[u8]>>,
    change: impl Fn(&Rollout) -> Result<Rollout, Refusal>,
) -> Result<Rollout, ChangeError> {
    let mut known = known;
    for _ in 0..TRIES_MAX {
        let (present, is_read) = match known.take() {
            Some(known) => (known, false),
            None => (read(store).await?.remove(handler).unwrap_or_else(|| Rollout::of(handler)), true),
        };
        let next = match change(&present) {
            Ok(next) => next,
            Err(refusal) if is_read => return Err(refusal.into()),
            // It may be out of date.
            Err(_) => continue,
        };
        // What is kept is there: a large module need not go through the store's one writer for nothing.
        let is_kept = |digest| present.version(digest).is_some_and(|version| version.kept);
        let is_there = next.versions.last().is_some_and(|newest| is_kept(&*newest.digest));
        if store.save_rollout(&next, module.clone().filter(|_| !is_there)).await? {
            return Ok(next);
        }
    }
    Err(ChangeError::Contended)
}

/// Tells of rollouts whenever one has changed. Never returns.
pub(crate) async fn watch_rollouts(store: Arc<dyn Store>, rollouts: watch::Sender<Rollouts>) {
    let (mut seen, mut is_away) = (None, false);
    loop {
        let looked = async {
            let revision = store.rollouts_revision().await?;
            if seen == Some(revision) {
                return Ok(None);
            }
            // Read after the number: what changes in between is read now and once more at the next look.
            Ok(Some((revision, read(&*store).await?)))
        };
        match looked.await {
            Ok(changed) => {
                is_away = false;
                if let Some((revision, now)) = changed {
                    seen = Some(revision);
                    rollouts.send_replace(now);
                }
            }
            Err(error) => {
                let error: StoreError = error;
                if !std::mem::replace(&mut is_away, true) {
                    warn!(%error, "cannot read which versions answer; trying again until the store answers");
                }
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}
