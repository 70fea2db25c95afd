//! What is known of a failure, and the verdict on it: a pure function of the group's policy, the attempts so far, the
//! outcome, and how many other events failed in a row.

use crate::{Outcome, Timestamp};

/// The longest a handler may put off its own event with `retry-after`: a day. A partition must not wait for ever because
/// of one handler's arithmetic.
pub const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// How long a partition waits whose dead letters are full before it looks again. Room that its own pump makes ends the wait.
pub const FULL_WAIT_MS: u64 = 30_000;

/// A reason is kept in a row that is rewritten often, and shown in a table: this much of it, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// Why an event was not handled, in one word: a handler's or a host's failure, or the place behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The handler said that trying again may help.
    Transient,
    /// The handler said that trying again will not help.
    Permanent,
    /// The handler trapped.
    Trap,
    /// The call took too long.
    Timeout,
    /// The handler wanted too much memory.
    Memory,
    /// The effects were too large.
    Output,
    /// It was never tried: it waits behind an earlier event of its key.
    Parked,
}

impl Class {
    /// Every class, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Transient, Self::Permanent, Self::Trap, Self::Timeout, Self::Memory, Self::Output, Self::Parked];

    /// The word for it, in JSON and in every store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Parked => "parked",
        }
    }

    /// The class of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }

    /// The class of an outcome, if it is a failure.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Done | Outcome::Interrupted | Outcome::StoreUnavailable(_) => None,
            Outcome::Transient(_) | Outcome::RetryAfter(..) => Some(Self::Transient),
            Outcome::Permanent(_) => Some(Self::Permanent),
            Outcome::Trapped(_) => Some(Self::Trap),
            Outcome::TimedOut(_) => Some(Self::Timeout),
            Outcome::OutOfMemory(_) => Some(Self::Memory),
            Outcome::OutputTooLarge(_) => Some(Self::Output),
        }
    }
}

/// What is known of the failed attempts at one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The last one's, in a word.
    pub class: Class,
    /// The last one's, in the handler's or the host's words; with the backtrace of a trap.
    pub reason: String,
    /// How many there were. 0 for an event that was never tried.
    pub attempts: u32,
    /// When the first one was.
    pub first: Timestamp,
    /// When the last one was.
    pub last: Timestamp,
}

impl Failure {
    /// One more failed attempt, after those that are known of.
    #[must_use]
    pub fn after(earlier: Option<&Self>, outcome: &Outcome, now: Timestamp) -> Self {
        Self {
            class: Class::of(outcome).unwrap_or(Class::Transient),
            reason: shortened(outcome.reason()),
            attempts: earlier.map_or(0, |earlier| earlier.attempts).saturating_add(1),
            first: earlier.filter(|earlier| earlier.attempts > 0).map_or(now, |earlier| earlier.first),
            last: now,
        }
    }

    /// No attempt: the event waits behind an earlier one of its key.
    #[must_use]
    pub fn parked(now: Timestamp) -> Self {
        let reason = "waits behind an earlier event of its key".into();
        Self { class: Class::Parked, reason, attempts: 0, first: now, last: now }
    }
}

/// As every store can keep it: not too long, and without a NUL, which PostgreSQL has no text with.
fn shortened(reason: &str) -> String {
    let reason = reason.replace('\0', "\u{fffd}");
    if reason.len() <= REASON_BYTES_MAX {
        return reason;
    }
    let end = (0..=REASON_BYTES_MAX).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &reason[..end])
}

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

/// How often to try an event, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Retry {
    /// After how many failed attempts to give up; `None` for never.
    pub attempts_max: Option<u32>,
    /// How long to wait between two attempts.
    pub backoff: Backoff,
}

/// What becomes of an event that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is set aside; the next one follows.
    DeadLetter,
    /// It is set aside, and later events of its key wait behind it in order.
    DeadLetterKey,
    /// It is passed over.
    Skip,
    /// The partition stops for the group.
    Stop,
}

/// How an event leaves the partition without having been handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// As a dead letter.
    DeadLetter,
    /// As a dead letter that parks its key. An event without a key is a plain one.
    Park,
    /// Not at all: it is counted, and gone for this group.
    Skip,
}

/// Pauses a partition in which one event after another fails, instead of setting all of them aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// So many different events in a row; at least 1.
    pub failures: u32,
    /// How long, in milliseconds. Then one event is tried.
    pub pause_ms: u64,
}

/// What a group does with an event that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailurePolicy {
    /// Tries it again, while the partition waits and order is kept. `None`: it is given up at once.
    pub retry: Option<Retry>,
    /// What follows the last attempt, or a permanent error at once. Without it everything is retried for ever.
    pub then: Option<Then>,
    /// When to pause instead of giving up one more.
    pub breaker: Option<Breaker>,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self { retry: Some(Retry::default()), then: None, breaker: None }
    }
}

impl FailurePolicy {
    /// Gives every failing event up at once.
    #[must_use]
    pub fn at_once(then: Then) -> Self {
        Self { retry: None, then: Some(then), breaker: None }
    }

    /// The longest that a stored wait can be, in milliseconds: a time further away comes from a clock that was wrong.
    #[must_use]
    pub fn longest_wait_ms(&self) -> u64 {
        let backoff = self.retry.map_or(0, |retry| retry.backoff.longest_ms());
        let pause = self.breaker.map_or(0, |breaker| breaker.pause_ms);
        backoff.max(pause).max(RETRY_AFTER_MS_MAX).max(FULL_WAIT_MS)
    }
}

/// Why a partition is paused by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Too many different events failed in a row.
    Breaker,
    /// The partition holds as many dead letters as it may.
    Full,
}

impl Hold {
    /// The word for it, in every store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Full => "full",
        }
    }

    /// The reason of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Breaker, Self::Full].into_iter().find(|hold| hold.as_str() == word)
    }

    /// What happened, and what to do, for people.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Breaker => {
                "too many different events failed in a row (on_failure.breaker); one is tried after the pause"
            }
            Self::Full => {
                "it holds as many dead letters as it may (on_failure.dead_letters_max); replay or discard some of them"
            }
        }
    }
}

/// What is to be done about an event that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again at this time.
    RetryAt(Timestamp),
    /// Set it aside and go on.
    SetAside(Aside),
    /// Leave it where it is until this time, and then try it alone.
    HoldUntil(Timestamp, Hold),
    /// Stop the partition for the group.
    Stop,
}

/// What a verdict depends on besides the policy and the outcome.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Failed attempts at the event, this one included.
    pub attempts: u32,
    /// How many other events were given up since one was handled.
    pub given_up_in_row: u32,
    /// Whether the partition may hold another dead letter.
    pub has_room: bool,
    /// The time.
    pub now: Timestamp,
    /// Uniform in 0 to 1.
    pub chance: f64,
}

/// Decides what follows a failure.
#[must_use]
pub fn verdict(policy: &FailurePolicy, outcome: &Outcome, found: Circumstances) -> Verdict {
    let Circumstances { attempts, given_up_in_row, has_room, now, chance } = found;
    if let Some(Retry { attempts_max, backoff }) = policy.retry {
        let spent = attempts_max.is_some_and(|max| attempts >= max);
        let hopeless = matches!(outcome, Outcome::Permanent(_));
        if policy.then.is_none() || !(spent || hopeless) {
            let asked_ms = if let Outcome::RetryAfter(ms, _) = outcome { (*ms).min(RETRY_AFTER_MS_MAX) } else { 0 };
            return Verdict::RetryAt(now.plus_ms(backoff.delay_ms(attempts, chance).max(asked_ms)));
        }
    }
    let aside = match policy.then {
        None | Some(Then::Stop) => return Verdict::Stop,
        Some(Then::DeadLetter) => Aside::DeadLetter,
        Some(Then::DeadLetterKey) => Aside::Park,
        Some(Then::Skip) => Aside::Skip,
    };
    match policy.breaker {
        Some(breaker) if given_up_in_row.saturating_add(1) >= breaker.failures => {
            Verdict::HoldUntil(now.plus_ms(breaker.pause_ms), Hold::Breaker)
        }
        _ if aside != Aside::Skip && !has_room => Verdict::HoldUntil(now.plus_ms(FULL_WAIT_MS), Hold::Full),
        _ => Verdict::SetAside(aside),
    }
}

#[cfg(test)]
mod tests;
