//! The verdict on a failure: a pure function of the group's policy, the attempts so far and the outcome.

use crate::{Outcome, Timestamp};

/// The longest a handler may put off its own event with `retry-after`: a day. A partition must not wait for ever because
/// of one handler's arithmetic.
pub const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// How long to wait between attempts: `initial × factor^(attempt − 1)`, at most `max`, varied by `jitter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the second attempt, in milliseconds.
    pub initial_ms: u64,
    /// By how much each wait is longer than the one before; at least 1.
    pub factor: f64,
    /// The longest wait before jitter, in milliseconds.
    pub max_ms: u64,
    /// By which share of it, at most, a wait is longer or shorter: 0 to 1.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_ms: 200, factor: 2.0, max_ms: 60_000, jitter: 0.2 }
    }
}

impl Backoff {
    /// The wait after so many failed attempts, in milliseconds. `chance` is uniform in 0 to 1.
    #[must_use]
    pub fn delay_ms(&self, attempts: u32, chance: f64) -> u64 {
        // In floating point an overflow is infinity, which `min` brings back to the longest wait.
        let exponent = f64::from(attempts.saturating_sub(1));
        let base = (self.initial_ms as f64 * self.factor.powf(exponent)).min(self.max_ms as f64);
        let varied = base * (1.0 + self.jitter * (2.0 * chance - 1.0));
        varied.round() as u64
    }

    /// The longest wait this can give, in milliseconds. A stored time further away than this comes from a clock that
    /// was wrong.
    #[must_use]
    pub fn longest_ms(&self) -> u64 {
        (self.max_ms as f64 * (1.0 + self.jitter)).ceil() as u64
    }
}

/// What follows the last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The partition stops for the group.
    Stop,
}

/// What a group does with an event that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailurePolicy {
    /// The partition waits and tries again; order is kept.
    Retry {
        /// After how many failed attempts to give up; `None` for never.
        attempts_max: Option<u32>,
        /// How long to wait in between.
        backoff: Backoff,
        /// What follows the last attempt, or a permanent error; without it both are retried for ever.
        then: Option<Then>,
    },
    /// The partition stops for the group.
    Stop,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self::Retry { attempts_max: None, backoff: Backoff::default(), then: None }
    }
}

/// What is to be done about an event that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again at this time.
    RetryAt(Timestamp),
    /// Stop the partition for the group.
    Stop,
}

/// Decides what follows a failure. `attempts` counts failed attempts at the event, this one included; `chance` is
/// uniform in 0 to 1.
#[must_use]
pub fn verdict(policy: &FailurePolicy, attempts: u32, outcome: &Outcome, now: Timestamp, chance: f64) -> Verdict {
    match policy {
        FailurePolicy::Stop => Verdict::Stop,
        FailurePolicy::Retry { attempts_max, backoff, then } => {
            let spent = attempts_max.is_some_and(|max| attempts >= max);
            let hopeless = matches!(outcome, Outcome::Permanent(_));
            match then {
                Some(Then::Stop) if spent || hopeless => Verdict::Stop,
                _ => {
                    let asked_ms =
                        if let Outcome::RetryAfter(ms, _) = outcome { (*ms).min(RETRY_AFTER_MS_MAX) } else { 0 };
                    Verdict::RetryAt(now.plus_ms(backoff.delay_ms(attempts, chance).max(asked_ms)))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn retry(attempts_max: Option<u32>, then: Option<Then>) -> FailurePolicy {
        FailurePolicy::Retry { attempts_max, backoff: Backoff { jitter: 0.0, ..Backoff::default() }, then }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_never_overflow() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let waits: Vec<u64> = [1, 2, 3, 9, 10, 100, u32::MAX].map(|n| backoff.delay_ms(n, 0.5)).into();
        assert_eq!(waits, [200, 400, 800, 51_200, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn jitter_stays_within_its_share_on_both_sides() {
        let backoff = Backoff { jitter: 0.2, ..Backoff::default() };
        assert_eq!(backoff.delay_ms(1, 0.0), 160);
        assert_eq!(backoff.delay_ms(1, 1.0), 240);
        assert_eq!(backoff.longest_ms(), 72_000);
    }

    #[test]
    fn without_a_then_even_a_permanent_error_is_retried_for_ever() {
        let policy = retry(None, None);
        let outcome = Outcome::Permanent("no".into());
        assert_eq!(verdict(&policy, 1_000_000, &outcome, NOW, 0.5), Verdict::RetryAt(NOW.plus_ms(60_000)));
    }

    #[test]
    fn the_last_attempt_and_a_permanent_error_lead_to_then() {
        let policy = retry(Some(3), Some(Then::Stop));
        let transient = Outcome::Transient("later".into());
        assert!(matches!(verdict(&policy, 2, &transient, NOW, 0.5), Verdict::RetryAt(_)));
        assert_eq!(verdict(&policy, 3, &transient, NOW, 0.5), Verdict::Stop);
        assert_eq!(verdict(&policy, 1, &Outcome::Permanent("no".into()), NOW, 0.5), Verdict::Stop);
    }

    #[test]
    fn retry_after_is_a_lower_bound_and_at_most_a_day() {
        let policy = retry(None, None);
        let soon = Outcome::RetryAfter(1, String::new());
        assert_eq!(verdict(&policy, 1, &soon, NOW, 0.5), Verdict::RetryAt(NOW.plus_ms(200)));
        let never = Outcome::RetryAfter(u64::MAX, String::new());
        assert_eq!(verdict(&policy, 1, &never, NOW, 0.5), Verdict::RetryAt(NOW.plus_ms(RETRY_AFTER_MS_MAX)));
    }
}
