//! Times as people and programs read them, and the one clock of a running host.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pelton_core::Timestamp;
use tokio::time::{Duration, Instant};

/// The longest wait for a time: what is learnt of the time meanwhile counts after it.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The host's clock: the store's when the host started, moved on by the machine's monotonic one. A jump of the machine's wall
/// clock moves no time-out, and tests turn it by pausing tokio's time.
///
/// The monotonic clock stands still while a machine is asleep or paused, so [`Self::learn`] tells what the store says later.
/// Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    /// What the store's clock showed at `start`, as far as is known, in milliseconds.
    wall_ms: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that begins at this time, now.
    #[must_use]
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { start: Instant::now(), wall_ms: Arc::new(AtomicU64::new(wall.0)) }
    }

    /// The time. It never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::Relaxed)).plus_ms(self.elapsed_ms())
    }

    /// The store says that it is so late, or was a moment ago. A clock that is behind is put forward; one that is ahead goes
    /// on, since times that were stored by it must not be in the future for itself. Says by how many milliseconds it was
    /// behind.
    pub fn learn(&self, now: Timestamp) -> u64 {
        let wall_ms = now.0.saturating_sub(self.elapsed_ms());
        wall_ms.saturating_sub(self.wall_ms.fetch_max(wall_ms, Ordering::Relaxed))
    }

    /// When to look whether a time has come, for timers: then, or in 10 s if that is sooner. A time that is past is now.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        Instant::now() + Duration::from_millis(at.0.saturating_sub(self.now().0)).min(WAIT_MAX)
    }

    fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// Reads an RFC 3339 time.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}

/// Writes a time as RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn show(time: Timestamp) -> String {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "(beyond all time)".to_owned(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_stood_still_is_put_forward_and_never_back() {
        let clock = Clock::starting_at(Timestamp(1000));
        let copy = clock.clone();
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.now(), Timestamp(1500));
        for (told, behind, now) in [(1500, 0, 1500), (1200, 0, 1500), (0, 0, 1500), (9500, 8000, 9500), (9000, 0, 9500)]
        {
            assert_eq!((clock.learn(Timestamp(told)), copy.now()), (behind, Timestamp(now)), "told {told}");
        }
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(copy.now(), Timestamp(10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_time_asks_again_before_long() {
        let clock = Clock::starting_at(Timestamp(1000));
        let wait = |at| clock.instant(Timestamp(at)) - Instant::now();
        assert_eq!([0, 1000, 1200].map(wait).map(|wait| wait.as_millis()), [0, 0, 200]);
        assert_eq!([1000 + 3_600_000, u64::MAX].map(wait), [WAIT_MAX; 2]);
    }

    #[test]
    fn a_time_is_read_as_it_is_written() {
        assert_eq!(show(Timestamp(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse("2023-11-14T22:13:20.123Z"), Some(Timestamp(1_700_000_000_123)));
        assert_eq!(parse("2023-11-14T23:13:20.123+01:00"), Some(Timestamp(1_700_000_000_123)));
        for bad in ["", "yesterday", "2023-11-14", "1900-01-01T00:00:00Z"] {
            assert_eq!(parse(bad), None, "{bad:?} passed");
        }
        assert_eq!(show(Timestamp(u64::MAX)), "(beyond all time)");
    }
}
