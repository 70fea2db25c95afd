//! Waits until the owners of partitions have done what was asked of dead letters.

use std::time::Duration;

use pelton_core::{LetterRequest, Offset};
use pelton_store::{ReadLimit, Store, StoreError};
use tokio::time::{Instant, sleep};

use super::{
    letter::place,
    select::{Places, still_there},
};
use crate::output;

/// How often to look at first, and at last.
const LOOK_FIRST: Duration = Duration::from_millis(50);
const LOOK_LAST: Duration = Duration::from_secs(1);
/// Requests read at once: whether there are some is the question, not which.
const LOOK: ReadLimit = ReadLimit { events: 100, bytes: 1 << 20 };

/// What became of what was asked for.
pub(super) struct Waited {
    pub(super) gone: u64,
    /// There again, with nothing asked of them.
    pub(super) back: Vec<String>,
    /// There still.
    pub(super) left: Vec<String>,
}

impl Waited {
    pub(super) fn is_well(&self) -> bool {
        self.back.is_empty() && self.left.is_empty()
    }
}

/// Waits until nothing is asked of any of these any more, or for as long as is allowed.
pub(super) async fn wait(
    store: &dyn Store,
    group: &str,
    places: &Places,
    request: LetterRequest,
    patience: Duration,
) -> Result<Waited, StoreError> {
    let (bar, began, mut pause) = (output::progress(None), Instant::now(), LOOK_FIRST);
    loop {
        let mut waiting = Vec::new();
        for (partition, offsets) in &places.0 {
            if is_pending(store, group, *partition, offsets.last().copied()).await? {
                waiting.push(partition.to_string());
            }
        }
        let left = patience.saturating_sub(began.elapsed());
        if waiting.is_empty() || left.is_zero() {
            break;
        }
        bar.set_message(format!("waiting for partitions {}", waiting.join(", ")));
        sleep(pause.min(left)).await;
        bar.tick();
        pause = (pause * 2).min(LOOK_LAST);
    }
    bar.finish_and_clear();
    let mut waited = Waited { gone: places.count(), back: Vec::new(), left: Vec::new() };
    for there in still_there(store, group, places).await? {
        let is_asked = there.request == Some(request);
        waited.gone -= 1;
        if is_asked { &mut waited.left } else { &mut waited.back }.push(place(there.partition, there.offset));
    }
    Ok(waited)
}

/// Whether something is asked of dead letters up to an offset. Their owner does it in this order.
async fn is_pending(store: &dyn Store, group: &str, partition: u32, last: Option<Offset>) -> Result<bool, StoreError> {
    let asked = store.letters_requested(group, partition, LOOK).await?;
    Ok(asked.first().is_some_and(|first| last.is_some_and(|last| first.event.offset <= last)))
}
