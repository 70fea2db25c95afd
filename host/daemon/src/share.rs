//! Keeps what is done again and again to a share of the time.

use tokio::time::{Duration, Instant};

/// A share of the time, with an allowance for what comes alone: it may be used up at once and fills again with time.
#[derive(Debug)]
pub(crate) struct Share {
    /// One part in so many.
    part: u32,
    burst: Duration,
    allowed: Duration,
    counted: Instant,
}

impl Share {
    /// One part in `part`, and at most `burst` at once.
    pub(crate) fn new(part: u32, burst: Duration) -> Self {
        Self { part, burst, allowed: burst, counted: Instant::now() }
    }

    /// How long to wait after something that took so long until now.
    pub(crate) fn pause_after(&mut self, took: Duration) -> Duration {
        let now = Instant::now();
        self.allowed = self.burst.min(self.allowed + now.duration_since(self.counted) / self.part);
        self.counted = now;
        let over = took.saturating_sub(self.allowed);
        self.allowed = self.allowed.saturating_sub(took);
        over * self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn what_comes_alone_costs_no_pause_and_what_comes_all_the_time_is_held_to_its_share() {
        let mut share = Share::new(20, 50 * MS);
        assert_eq!(share.pause_after(50 * MS), Duration::ZERO);
        assert_eq!(share.pause_after(10 * MS), 200 * MS);
        tokio::time::advance(200 * MS).await;
        assert_eq!(share.pause_after(10 * MS), Duration::ZERO, "the pause has paid for it");
        assert_eq!(share.pause_after(10 * MS), 200 * MS);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(share.pause_after(60 * MS), 200 * MS, "an hour saves up no more than the burst");
    }
}
