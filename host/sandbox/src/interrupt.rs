//! Breaking a running call off from outside.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Ends the calls of a worker within a tick or two, whatever the guest does: for drains, and for a host that no longer
/// trusts its own lease. Stays set until it is cleared; no call begins while it is.
#[derive(Clone, Default)]
pub struct Interrupt {
    triggered: Arc<AtomicBool>,
    trusted: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Interrupt {
    /// One that is also set whenever `trusted` says no. It is asked at every tick of a running call, on the guest's own
    /// thread: no other thread has to wake up for a host to stop believing in itself. It must be quick.
    #[must_use]
    pub fn unless(trusted: Arc<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self { triggered: Arc::default(), trusted: Some(trusted) }
    }

    /// Breaks off what runs, and what would begin.
    pub fn trigger(&self) {
        self.triggered.store(true, Ordering::Release);
    }

    /// Lets calls begin again, if they are trusted.
    pub fn clear(&self) {
        self.triggered.store(false, Ordering::Release);
    }

    /// Whether it was triggered and not cleared since, or is not trusted.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.triggered.load(Ordering::Acquire) || self.trusted.as_ref().is_some_and(|trusted| !trusted())
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interrupt").field(&self.is_set()).finish()
    }
}
