//! Times as people and programs read them, and the one clock of a running host.

use pelton_core::Timestamp;
use tokio::time::{Duration, Instant};

/// The host's clock: the machine's wall clock when the host started, moved on by the monotonic one. A jump of the wall
/// clock moves no time-out, and tests turn it by pausing tokio's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    /// A clock that begins at this wall time, now.
    #[must_use]
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { start: Instant::now(), wall }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.wall.plus_ms(self.start.elapsed().as_millis() as u64)
    }

    /// When a time will be, for timers; a time that is past is now.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        // A day at a time, since an instant far away overflows; whoever waits asks again.
        let ms = at.0.saturating_sub(self.now().0).min(24 * 60 * 60 * 1000);
        Instant::now() + Duration::from_millis(ms)
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
