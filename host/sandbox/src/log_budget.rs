//! How many lines a handler may log: a bucket of one second's worth, which all its instances on this host draw from.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// How often it is told at most that lines were dropped, in milliseconds.
const TELL_MS: u64 = 1000;

/// A line costs so much: the bucket is filled by a line's thousandth in a millisecond, for each line a second.
const LINE: u64 = 1000;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is said.
    Say,
    /// It is not.
    Drop,
}

/// The bucket, and what ran over.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    bucket: Mutex<Bucket>,
    /// Whether there is anything to tell: looked at before each call, so it must cost nothing.
    owes: AtomicBool,
}

#[derive(Debug, Default)]
struct Bucket {
    /// In thousandths of a line; `None` is a bucket nobody has drawn from yet, which is full.
    level: Option<u64>,
    filled_ms: u64,
    dropped: u64,
    told_ms: Option<u64>,
}

impl LogBudget {
    /// Draws a line at this time of the coarse clock.
    pub(crate) fn draw(&self, now_ms: u64, lines_per_second: u32) -> Verdict {
        let full = u64::from(lines_per_second) * LINE;
        let mut bucket = self.bucket();
        let passed_ms = now_ms.saturating_sub(bucket.filled_ms);
        let filled = passed_ms.saturating_mul(u64::from(lines_per_second));
        let level = bucket.level.map_or(full, |level| level.saturating_add(filled).min(full));
        bucket.filled_ms = bucket.filled_ms.max(now_ms);
        let left = level.checked_sub(LINE);
        bucket.level = Some(left.unwrap_or(level));
        drop(bucket);
        if left.is_some() { Verdict::Say } else { Verdict::Drop }
    }

    /// A line was dropped, for whichever reason.
    pub(crate) fn dropped(&self) {
        let mut bucket = self.bucket();
        bucket.dropped = bucket.dropped.saturating_add(1);
        self.owes.store(true, Ordering::Relaxed);
    }

    /// How many lines were dropped since this was last told, if it is time to tell.
    pub(crate) fn to_tell(&self, now_ms: u64) -> Option<u64> {
        if !self.owes.load(Ordering::Relaxed) {
            return None;
        }
        let mut bucket = self.bucket();
        if bucket.dropped == 0 || bucket.told_ms.is_some_and(|told_ms| now_ms < told_ms.saturating_add(TELL_MS)) {
            return None;
        }
        bucket.told_ms = Some(now_ms);
        self.owes.store(false, Ordering::Relaxed);
        Some(std::mem::take(&mut bucket.dropped))
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(budget: &LogBudget, now_ms: u64, lines: usize) -> usize {
        (0..lines).filter(|_| budget.draw(now_ms, 10) == Verdict::Say).count()
    }

    #[test]
    fn a_seconds_worth_at_once_and_then_as_time_passes() {
        let budget = LogBudget::default();
        assert_eq!(said(&budget, 5_000, 100), 10);
        assert_eq!(said(&budget, 5_099, 100), 0);
        assert_eq!(said(&budget, 5_300, 100), 3);
        assert_eq!(said(&budget, 100_000, 100), 10);
        assert_eq!(budget.draw(200_000, 0), Verdict::Drop);
    }

    #[test]
    fn what_was_dropped_is_told_once_a_second() {
        let budget = LogBudget::default();
        assert_eq!(budget.to_tell(0), None);
        budget.dropped();
        assert_eq!(budget.to_tell(0), Some(1));
        budget.dropped();
        budget.dropped();
        assert_eq!((budget.to_tell(999), budget.to_tell(1000), budget.to_tell(9999)), (None, Some(2), None));
    }
}
