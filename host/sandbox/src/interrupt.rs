//! Breaking a running call off from outside.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Ends the calls of a worker within a tick or two, whatever the guest does: for drains, and for a host that no longer
/// trusts its own lease. Stays set until it is cleared; no call begins while it is.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Breaks off what runs, and what would begin.
    pub fn trigger(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Lets calls begin again.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether it was triggered and not cleared since.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
