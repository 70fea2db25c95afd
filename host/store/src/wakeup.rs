//! Waking those who wait for a change, inside one process.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// Counts changes, and remembers up to which one somebody was told.
///
/// One count of what was told serves the whole store: two callers that take turns may each take a hint from the other.
/// A host has one caller, and a lost hint costs it no more than its longest wait. Not a `watch` channel, which spreads
/// its waiters by a random number that no seed governs.
#[derive(Debug, Default)]
pub(crate) struct Wakeup {
    changes: AtomicU64,
    told: AtomicU64,
    notify: Notify,
}

impl Wakeup {
    /// Something changed.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Whether there was a change that nobody was told of yet.
    pub(crate) fn is_due(&self) -> bool {
        self.changes.load(Ordering::Acquire) != self.told.load(Ordering::Acquire)
    }

    /// Returns when something is due, or after so long.
    pub(crate) async fn sleep(&self, at_most: Duration) {
        // The future is made before the count is read: what changes in between finds it waiting.
        let notified = self.notify.notified();
        if !self.is_due() {
            // A timeout is an answer like any other.
            let _ = tokio::time::timeout(at_most, notified).await;
        }
    }

    /// Nothing is due any more: the caller is told of all there was.
    pub(crate) fn tell(&self) {
        self.told.store(self.changes.load(Ordering::Acquire), Ordering::Release);
    }
}
