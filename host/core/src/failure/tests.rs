use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn retry(attempts_max: Option<u32>, then: Option<Then>) -> FailurePolicy {
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    FailurePolicy { retry: Some(Retry { attempts_max, backoff }), then, breaker: None }
}

fn after(attempts: u32) -> Circumstances {
    Circumstances { attempts, given_up_in_row: 0, has_room: true, now: NOW, chance: 0.5 }
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
    let outcome = Outcome::Permanent("no".into());
    let found = verdict(&retry(None, None), &outcome, after(1_000_000));
    assert_eq!(found, Verdict::RetryAt(NOW.plus_ms(60_000)));
}

#[test]
fn the_last_attempt_and_a_permanent_error_lead_to_then() {
    let policy = retry(Some(3), Some(Then::Stop));
    let transient = Outcome::Transient("later".into());
    assert!(matches!(verdict(&policy, &transient, after(2)), Verdict::RetryAt(_)));
    assert_eq!(verdict(&policy, &transient, after(3)), Verdict::Stop);
    assert_eq!(verdict(&policy, &Outcome::Permanent("no".into()), after(1)), Verdict::Stop);
}

#[test]
fn retry_after_is_a_lower_bound_and_at_most_a_day() {
    let policy = retry(None, None);
    let soon = Outcome::RetryAfter(1, String::new());
    assert_eq!(verdict(&policy, &soon, after(1)), Verdict::RetryAt(NOW.plus_ms(200)));
    let never = Outcome::RetryAfter(u64::MAX, String::new());
    assert_eq!(verdict(&policy, &never, after(1)), Verdict::RetryAt(NOW.plus_ms(RETRY_AFTER_MS_MAX)));
}

#[test]
fn the_breaker_holds_the_event_that_would_be_one_too_many() {
    let breaker = Some(Breaker { failures: 3, pause_ms: 500 });
    let policy = FailurePolicy { breaker, ..FailurePolicy::at_once(Then::DeadLetter) };
    let failing = Outcome::Trapped("boom".into());
    let verdict_after = |given_up_in_row| verdict(&policy, &failing, Circumstances { given_up_in_row, ..after(1) });
    assert_eq!(verdict_after(1), Verdict::SetAside(Aside::DeadLetter));
    assert_eq!(verdict_after(2), Verdict::HoldUntil(NOW.plus_ms(500), Hold::Breaker));
    assert_eq!(verdict_after(u32::MAX), Verdict::HoldUntil(NOW.plus_ms(500), Hold::Breaker));
}

#[test]
fn what_cannot_be_set_aside_stays_and_what_is_skipped_needs_no_room() {
    let failing = Outcome::Trapped("boom".into());
    let full = Circumstances { has_room: false, ..after(1) };
    let held = Verdict::HoldUntil(NOW.plus_ms(FULL_WAIT_MS), Hold::Full);
    assert_eq!(verdict(&FailurePolicy::at_once(Then::DeadLetterKey), &failing, full), held);
    assert_eq!(verdict(&FailurePolicy::at_once(Then::Skip), &failing, full), Verdict::SetAside(Aside::Skip));
}

#[test]
fn a_failure_remembers_the_first_and_counts_on() {
    let first = Failure::after(None, &Outcome::Transient("one".into()), Timestamp(5));
    let second = Failure::after(Some(&first), &Outcome::Permanent("two".into()), Timestamp(9));
    assert_eq!((second.attempts, second.first, second.last), (2, Timestamp(5), Timestamp(9)));
    assert_eq!((second.class, second.reason.as_str()), (Class::Permanent, "two"));
    let tried_at_last =
        Failure::after(Some(&Failure::parked(Timestamp(5))), &Outcome::Transient(String::new()), Timestamp(9));
    assert_eq!((tried_at_last.attempts, tried_at_last.first), (1, Timestamp(9)));
}

#[test]
fn a_long_reason_is_cut_between_two_characters() {
    let cut = Failure::after(None, &Outcome::Transient("ж".repeat(REASON_BYTES_MAX)), NOW).reason;
    assert!(cut.len() <= REASON_BYTES_MAX + 4 && cut.ends_with('…'));
}

#[test]
fn a_reason_holds_no_nul_which_not_every_store_could_keep() {
    assert_eq!(Failure::after(None, &Outcome::Transient("a\0b".into()), NOW).reason, "a\u{fffd}b");
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Transient(String::new())),
        any::<u64>().prop_map(|ms| Outcome::RetryAfter(ms, String::new())),
        Just(Outcome::Permanent(String::new())),
        Just(Outcome::Trapped(String::new())),
        Just(Outcome::TimedOut(String::new())),
        Just(Outcome::OutOfMemory(String::new())),
        Just(Outcome::OutputTooLarge(String::new())),
    ]
}

fn policies() -> impl Strategy<Value = FailurePolicy> {
    let backoff =
        (1..10_000_u64, 1.0..1000.0, 0..10_000_000_u64, 0.0..=1.0).prop_map(|(initial_ms, factor, more, jitter)| {
            Backoff { initial_ms, factor, max_ms: initial_ms + more, jitter }
        });
    let retry =
        (proptest::option::of(1..10_u32), backoff).prop_map(|(attempts_max, backoff)| Retry { attempts_max, backoff });
    let then = prop_oneof![Just(Then::DeadLetter), Just(Then::DeadLetterKey), Just(Then::Skip), Just(Then::Stop)];
    let breaker = (1..50_u32, any::<u64>()).prop_map(|(failures, pause_ms)| Breaker { failures, pause_ms });
    (proptest::option::of(retry), proptest::option::of(then), proptest::option::of(breaker))
        .prop_map(|(retry, then, breaker)| FailurePolicy { retry, then, breaker })
}

fn circumstances() -> impl Strategy<Value = Circumstances> {
    (1..=u32::MAX, any::<u32>(), any::<bool>(), 0..=u64::MAX, 0.0..=1.0).prop_map(
        |(attempts, given_up_in_row, has_room, now, chance)| Circumstances {
            attempts,
            given_up_in_row,
            has_room,
            now: Timestamp(now),
            chance,
        },
    )
}

proptest! {
    /// Whatever is asked: nothing overflows, no wait goes back or beyond its bound, and no event is given up against the
    /// group's words.
    #[test]
    fn a_verdict_keeps_to_the_policy(policy in policies(), outcome in outcomes(), found in circumstances()) {
        let given = verdict(&policy, &outcome, found);
        match given {
            Verdict::RetryAt(at) => {
                prop_assert!(at >= found.now);
                prop_assert!(at <= found.now.plus_ms(policy.longest_wait_ms()));
                let retry = policy.retry.expect("only a policy that retries does");
                let spent = retry.attempts_max.is_some_and(|max| found.attempts >= max);
                prop_assert!(policy.then.is_none() || !spent);
                prop_assert!(policy.then.is_none() || !matches!(outcome, Outcome::Permanent(_)));
            }
            Verdict::SetAside(aside) => {
                let meant = match policy.then {
                    Some(Then::DeadLetter) => Some(Aside::DeadLetter),
                    Some(Then::DeadLetterKey) => Some(Aside::Park),
                    Some(Then::Skip) => Some(Aside::Skip),
                    Some(Then::Stop) | None => None,
                };
                prop_assert_eq!(Some(aside), meant);
                prop_assert!(found.has_room || aside == Aside::Skip);
                prop_assert!(policy.breaker.is_none_or(|breaker| found.given_up_in_row < breaker.failures));
            }
            Verdict::HoldUntil(until, _) => prop_assert!(until >= found.now),
            Verdict::Stop => prop_assert!(matches!(policy.then, Some(Then::Stop)) || policy.retry.is_none()),
        }
    }

    /// An event that fails for ever is given up after exactly `attempts_max` attempts.
    #[test]
    fn attempts_are_counted_exactly(max in 1..20_u32) {
        let policy = retry(Some(max), Some(Then::DeadLetter));
        let outcome = Outcome::Transient(String::new());
        let tried = (1..).find(|&n| verdict(&policy, &outcome, after(n)) == Verdict::SetAside(Aside::DeadLetter));
        prop_assert_eq!(tried, Some(max));
    }
}
