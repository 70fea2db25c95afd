//! Finds out what changed in the store, for all pumps at once.

use std::sync::Arc;

use pelton_store::{Progress, Store};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep},
};
use tracing::warn;

/// The least time between two reads. Under load every commit is a change; one read tells of many.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// A read may take this share of the time, or reading would be what limits a store with many partitions.
const READ_SHARE: u32 = 20;
/// The wait after a read that failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// Reads where all groups stand whenever something may have changed, at least once in every `poll_interval`. The store's
/// wake-ups are hints: with all of them lost, polling alone still delivers everything. Never returns.
pub(crate) async fn watch_progress(
    store: Arc<dyn Store>,
    mut poll_interval: watch::Receiver<Duration>,
    progress: watch::Sender<Vec<Progress>>,
) {
    loop {
        let began = Instant::now();
        match store.progress().await {
            Ok(now) => {
                progress.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
                // One slow read must not blind everybody for long.
                let pause = (began.elapsed() * READ_SHARE).min(*poll_interval.borrow());
                sleep(PAUSE_MIN.max(pause)).await;
            }
            Err(error) => {
                warn!(%error, "cannot read where the groups stand; trying again");
                sleep(PAUSE_AFTER_ERROR).await;
            }
        }
        let at_most = *poll_interval.borrow_and_update();
        store.changed(at_most).await;
    }
}
