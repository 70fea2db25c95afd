//! Finds out what changed in the store, for all pumps at once.

use std::sync::Arc;

use pelton_store::{Progress, Store};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep},
};
use tracing::{info, warn};

use crate::share::Share;

/// The least time between two reads. Under load every commit is a change; one read tells of many.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Reads may take this share of the time, or reading would be what limits a store with many partitions.
const READ_SHARE: u32 = 20;
/// What reads may take at once after a time without any: an event that comes alone is told of at once, and the one after it.
const READ_BURST: Duration = Duration::from_millis(50);
/// The wait after a read that failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// Reads where all groups stand whenever something may have changed, at least once in every `poll_interval`. The store's
/// wake-ups are hints: with all of them lost, polling alone still delivers everything. Never returns.
pub(crate) async fn watch_progress(
    store: Arc<dyn Store>,
    mut poll_interval: watch::Receiver<Duration>,
    progress: watch::Sender<Vec<Progress>>,
) {
    let mut is_away = false;
    let mut share = Share::new(READ_SHARE, READ_BURST);
    loop {
        let began = Instant::now();
        match store.progress().await {
            Ok(now) => {
                if std::mem::take(&mut is_away) {
                    info!("the store answers again");
                }
                progress.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
                // One slow read must not blind everybody for long.
                let pause = share.pause_after(began.elapsed()).min(*poll_interval.borrow());
                sleep(PAUSE_MIN.max(pause)).await;
            }
            Err(error) => {
                // Told once: pumps and heartbeats have their own say, and this would be repeated for as long as it lasts.
                if !std::mem::replace(&mut is_away, true) {
                    warn!(%error, "cannot read where the groups stand; trying again until the store answers");
                }
                sleep(PAUSE_AFTER_ERROR).await;
            }
        }
        let at_most = *poll_interval.borrow_and_update();
        store.changed(at_most).await;
    }
}
