//! How long a host may believe that what it holds is its own.
//!
//! Nobody can stop a host that hangs or is cut off from calling its handlers, except that host. So it believes in its
//! partitions of a group only until `heartbeat sent + session timeout − margin`, by its own monotonic clock: that is
//! before others take them away, since they count from the heartbeat's arrival. (Gray and Cheriton, "Leases", 1989: the
//! holder's term ends before the grantor's.) Commits do not depend on it; the fence holds without any clock.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::{Duration, Instant};

/// What is left of a session timeout for breaking off calls: a tenth, but no more than this.
const MARGIN_MAX: Duration = Duration::from_secs(1);

/// A host's belief in its partitions of one group. Read at every tick of every call.
#[derive(Debug)]
pub(crate) struct Trust {
    base: Instant,
    timeout_ms: AtomicU64,
    /// Milliseconds after `base`; 0 if there is no belief.
    until_ms: AtomicU64,
}

impl Trust {
    /// A belief that has not begun.
    pub(crate) fn new(session_timeout: Duration) -> Arc<Self> {
        let trust = Self { base: Instant::now(), timeout_ms: AtomicU64::new(0), until_ms: AtomicU64::new(0) };
        trust.set_timeout(session_timeout);
        Arc::new(trust)
    }

    /// Counts from the next renewal on.
    pub(crate) fn set_timeout(&self, session_timeout: Duration) {
        let timeout = session_timeout - MARGIN_MAX.min(session_timeout / 10);
        self.timeout_ms.store(timeout.as_millis() as u64, Ordering::Release);
    }

    /// A heartbeat that was sent then has been answered.
    pub(crate) fn renew(&self, sent: Instant) {
        let sent_ms = sent.saturating_duration_since(self.base).as_millis() as u64;
        self.until_ms.store(sent_ms + self.timeout_ms.load(Ordering::Acquire), Ordering::Release);
    }

    /// It is over: the lock is lost, or the registration.
    pub(crate) fn revoke(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// Whether the host may go on.
    pub(crate) fn holds(&self) -> bool {
        (self.base.elapsed().as_millis() as u64) < self.until_ms.load(Ordering::Acquire)
    }

    /// When it ends, if nothing renews it.
    pub(crate) fn until(&self) -> Instant {
        self.base + Duration::from_millis(self.until_ms.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_stops_believing_before_others_stop_waiting_for_it() {
        let trust = Trust::new(Duration::from_secs(30));
        assert!(!trust.holds());
        trust.renew(Instant::now());
        tokio::time::advance(Duration::from_millis(28_999)).await;
        assert!(trust.holds());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!trust.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_belief_counts_from_when_the_heartbeat_was_sent_and_ends_when_revoked() {
        let trust = Trust::new(Duration::from_millis(1_000));
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(800)).await;
        trust.renew(sent);
        assert!(trust.holds());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(!trust.holds());
        trust.renew(Instant::now());
        trust.revoke();
        assert!(!trust.holds());
    }
}
