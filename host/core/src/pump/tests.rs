//! One partition's life, told as inputs and the actions that answer them.

mod commits;
mod giving_up;
mod letters;

use super::*;
use crate::{Backoff, Breaker, Class, FailurePolicy, RETRY_AFTER_MS_MAX, Retry, Then};

const NOW: Timestamp = Timestamp(1_000);

fn settings(on_failure: FailurePolicy) -> PumpSettings {
    PumpSettings { batch_events_max: 10, on_failure, ..PumpSettings::default() }
}

fn retry() -> FailurePolicy {
    FailurePolicy { retry: Some(Retry { attempts_max: None, backoff: backoff() }), then: None, breaker: None }
}

fn backoff() -> Backoff {
    Backoff { initial_ms: 100, jitter: 0.0, ..Backoff::default() }
}

fn stop() -> FailurePolicy {
    FailurePolicy::at_once(Then::Stop)
}

fn claim(committed: u64, head: u64) -> Claim {
    Claim {
        handled_by: None,
        epoch: Epoch(1),
        committed: Offset(committed),
        head: Offset(head),
        mark: Mark::Clear,
        failed_by: None,
        control: Control::default(),
        given_up_in_row: 0,
        letters: 0,
        letters_requested: false,
        parked: Vec::new(),
    }
}

/// A machine that has acquired its partition.
fn running(on_failure: FailurePolicy, claim: Claim) -> Pump {
    let mut pump = Pump::new(settings(on_failure));
    assert_eq!(pump.next_action(NOW), Some(Action::Acquire));
    pump.handle(NOW, Input::Acquired(claim));
    pump
}

fn actions(pump: &mut Pump, now: Timestamp) -> Vec<Action> {
    std::iter::from_fn(|| pump.next_action(now)).collect()
}

fn fetch(from: u64) -> Action {
    Action::Fetch { from: Offset(from), events: 10 }
}

fn invoke(events: u32, attempt: u32) -> Action {
    Action::Invoke { events, calls: u32::MAX, room: PumpSettings::default().letters_max, attempt }
}

fn commit(from: u64, to: u64) -> Action {
    marked(from, to, Mark::Clear)
}

fn marked(from: u64, to: u64, mark: Mark) -> Action {
    let (from, to) = (Offset(from), Offset(to));
    Action::Commit { from, to, mark: Some(mark), given_up_in_row: 0, with_effects: true }
}

fn fetched(events: u32, next: u64) -> Input {
    Input::Fetched { events, next: Offset(next) }
}

fn invoked(handled: u32, next: u64, outcome: Outcome) -> Input {
    Input::Invoked(call(handled, next, outcome))
}

fn call(handled: u32, next: u64, outcome: Outcome) -> Invoked {
    Invoked {
        done: handled,
        handled,
        parked: 0,
        next: Offset(next),
        outcome,
        located: true,
        checkpoint: false,
        full: false,
        chance: 0.5,
    }
}

fn told(head: u64, control: Control) -> Input {
    Input::Told { head: Offset(head), control, epoch: Epoch(1), holder: Holder::Us }
}

fn held(epoch: u64, holder: Holder) -> Input {
    Input::Told { head: Offset(5), control: Control::default(), epoch: Epoch(epoch), holder }
}

fn failed() -> Outcome {
    Outcome::Transient("no".into())
}

fn failure(attempts: u32, last: u64) -> Failure {
    Failure { class: Class::Transient, reason: "no".into(), attempts, first: NOW, last: Timestamp(last) }
}

fn retry_mark(at: u64, attempts: u32, next: u64) -> Mark {
    // Without jitter the wait tells when the attempt was.
    let last = next.saturating_sub(100 << attempts.saturating_sub(1));
    Mark::Retry { at: Offset(at), failure: failure(attempts, last), next: Timestamp(next) }
}

fn stop_mark(at: u64, attempts: u32) -> Mark {
    Mark::Stop { at: Offset(at), failure: failure(attempts, NOW.0) }
}

fn gives_up(then: Then) -> FailurePolicy {
    FailurePolicy::at_once(then)
}

fn aside(aside: Aside, attempts: u32) -> Action {
    Action::SetAside { aside, failure: failure(attempts, NOW.0) }
}

fn commit_after(from: u64, to: u64, given_up_in_row: u32) -> Action {
    let (from, to) = (Offset(from), Offset(to));
    Action::Commit { from, to, mark: Some(Mark::Clear), given_up_in_row, with_effects: true }
}

fn replay(events: u32) -> Action {
    Action::Replay { events, refused: None }
}

fn replayed(found: u32, settled: u32, gone: u32) -> Input {
    Input::Replayed(Replayed { found, called: found, settled, gone, outcome: Outcome::Done })
}

/// The commit of what came of dead letters.
fn settling(at: u64) -> Action {
    let at = Offset(at);
    Action::Commit { from: at, to: at, mark: None, given_up_in_row: 0, with_effects: true }
}

fn requested(requests: u64) -> Control {
    Control { requests, ..Control::default() }
}

#[test]
fn a_batch_goes_from_fetch_to_commit_and_the_next_one_is_read_ahead() {
    let mut pump = running(retry(), claim(0, 15));
    assert_eq!(actions(&mut pump, NOW), [fetch(0)]);
    pump.handle(NOW, fetched(10, 10));
    assert_eq!(actions(&mut pump, NOW), [invoke(10, 1), fetch(10)]);
    pump.handle(NOW, fetched(5, 15));
    pump.handle(NOW, invoked(10, 10, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 10), invoke(5, 1)]);
    pump.handle(NOW, invoked(5, 15, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [commit(10, 15)]);
    pump.handle(NOW, Input::Committed);
    assert_eq!((pump.committed(), actions(&mut pump, NOW)), (Offset(15), vec![]));
}

#[test]
fn no_more_than_commit_ahead_batches_are_handled_while_a_commit_is_under_way() {
    let mut pump = running(retry(), claim(0, 100));
    for start in [0, 10] {
        actions(&mut pump, NOW);
        pump.handle(NOW, fetched(10, start + 10));
    }
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(10, 10, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 10), invoke(10, 1), fetch(20)]);
    pump.handle(NOW, fetched(10, 30));
    pump.handle(NOW, invoked(10, 20, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [], "a second batch ran ahead");
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [commit(10, 20), invoke(10, 1), fetch(30)]);
}

#[test]
fn a_failed_event_keeps_what_came_before_it_and_waits() {
    let mut pump = running(retry(), claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(3, 3, failed()));
    assert_eq!(actions(&mut pump, NOW), [marked(0, 3, retry_mark(3, 1, 1_100))]);
    pump.handle(NOW, Input::Committed);
    assert_eq!((actions(&mut pump, NOW), pump.deadline(NOW)), (vec![], Some(Timestamp(1_100))));
    assert_eq!(pump.phase(), Phase::Retrying(Timestamp(1_100)));
    assert_eq!(actions(&mut pump, Timestamp(1_100)), [invoke(7, 2)]);
    pump.handle(Timestamp(1_100), invoked(0, 3, failed()));
    assert_eq!(actions(&mut pump, Timestamp(1_100)), [marked(3, 3, retry_mark(3, 2, 1_300))]);
}

#[test]
fn attempts_and_the_time_of_the_next_one_survive_a_restart() {
    let mark = retry_mark(3, 4, 5_000);
    let mut pump = running(retry(), Claim { mark, ..claim(3, 10) });
    assert_eq!(actions(&mut pump, NOW), [fetch(3)]);
    pump.handle(NOW, fetched(7, 10));
    assert_eq!(actions(&mut pump, NOW), []);
    assert_eq!(actions(&mut pump, Timestamp(5_000)), [invoke(7, 5)]);
}

#[test]
fn a_retry_stored_by_a_clock_that_was_wrong_does_not_wait_for_ever() {
    let pump = running(retry(), Claim { mark: retry_mark(0, 1, u64::MAX), ..claim(0, 1) });
    assert_eq!(pump.phase(), Phase::Retrying(NOW.plus_ms(RETRY_AFTER_MS_MAX)));
}

#[test]
fn a_stop_is_stored_and_ends_with_a_resume_that_came_after_it() {
    let mut pump = running(stop(), claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(0, 0, failed()));
    assert_eq!(actions(&mut pump, NOW), [marked(0, 0, stop_mark(0, 1))]);
    pump.handle(NOW, Input::Committed);
    pump.handle(NOW, told(10, Control::default()));
    assert_eq!((pump.phase(), actions(&mut pump, NOW)), (Phase::Stopped, vec![]));
    pump.handle(NOW, told(10, Control { paused: false, resumes: 1, requests: 0 }));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 0), invoke(10, 1)]);
}

#[test]
fn attempts_spent_lead_to_then_and_a_new_handler_starts_it_again() {
    let retry = Retry { attempts_max: Some(2), backoff: backoff() };
    let policy = FailurePolicy { retry: Some(retry), then: Some(Then::Stop), breaker: None };
    let mut pump = running(policy, Claim { mark: retry_mark(0, 1, 900), ..claim(0, 10) });
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    assert_eq!(actions(&mut pump, NOW), [invoke(10, 2)]);
    pump.handle(NOW, invoked(0, 0, failed()));
    actions(&mut pump, NOW);
    pump.handle(NOW, Input::Committed);
    assert_eq!(pump.phase(), Phase::Stopped);
    pump.handle(NOW, Input::HandlerChanged);
    assert_eq!(actions(&mut pump, NOW), [commit(0, 0), invoke(10, 1)]);
}

#[test]
fn a_new_handler_does_not_wait_for_the_old_ones_back_off_even_while_that_is_being_stored() {
    let mut pump = running(retry(), claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(0, 0, failed()));
    pump.handle(NOW, Input::HandlerChanged);
    assert_eq!(actions(&mut pump, NOW).len(), 1, "only the verdict's commit");
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [invoke(10, 2)]);
}

#[test]
fn a_batch_that_does_not_say_where_it_failed_is_split_at_no_cost_and_grows_again() {
    let mut pump = running(retry(), claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    let nowhere = |outcome| Input::Invoked(Invoked { located: false, ..call(0, 0, outcome) });
    for expected in [10, 5, 2, 1] {
        assert_eq!(actions(&mut pump, NOW), [invoke(expected, 1)]);
        pump.handle(NOW, nowhere(failed()));
    }
    assert_eq!(actions(&mut pump, NOW), [marked(0, 0, retry_mark(0, 1, 1_100))]);
    pump.handle(NOW, Input::Committed);
    let later = Timestamp(1_100);
    assert_eq!(actions(&mut pump, later), [invoke(1, 2)]);
    pump.handle(later, invoked(1, 1, Outcome::Done));
    assert_eq!(actions(&mut pump, later), [commit(0, 1), invoke(1, 1)]);
    pump.handle(later, Input::Committed);
    pump.handle(later, invoked(1, 2, Outcome::Done));
    assert_eq!(actions(&mut pump, later), [commit(1, 2), invoke(2, 1)]);
}

#[test]
fn a_commit_without_an_answer_is_repeated_to_the_letter() {
    let mut pump = running(retry(), claim(0, 20));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 20));
    pump.handle(NOW, invoked(10, 10, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 10), invoke(10, 1)]);
    pump.handle(NOW, invoked(10, 20, Outcome::Done));
    pump.handle(NOW, Input::StoreFailed(Request::Commit));
    assert_eq!(actions(&mut pump, NOW), []);
    let later = pump.deadline(NOW).expect("a time to try again");
    assert_eq!(actions(&mut pump, later), [commit(0, 10)], "the range must not have grown");
}

#[test]
fn refused_data_rewinds_and_is_narrowed_down_to_one_event_that_has_failed() {
    let mut pump = running(retry(), claim(0, 2));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(2, 2));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(2, 2, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 2)]);
    let refused = || Input::Refused { reason: "bad".into(), chance: 0.5 };
    pump.handle(NOW, refused());
    assert_eq!(actions(&mut pump, NOW), [Action::Rewind, fetch(0)]);
    let mut now = NOW;
    for attempt in 1..=3 {
        pump.handle(now, fetched(2, 2));
        assert_eq!(actions(&mut pump, now), [invoke(1, attempt)]);
        pump.handle(now, invoked(1, 1, Outcome::Done));
        actions(&mut pump, now);
        pump.handle(now, refused());
        let wanted = actions(&mut pump, now);
        let Some(Action::Commit { mark: Some(mark), .. }) = wanted.get(1) else { panic!("no verdict in {wanted:?}") };
        assert_eq!((mark.attempts(), &wanted[0]), (attempt, &Action::Rewind));
        pump.handle(now, Input::Committed);
        now = pump.deadline(NOW).expect("a time to try again");
        assert_eq!(actions(&mut pump, now), [], "fetching was asked for with the verdict");
    }
}

#[test]
fn a_pause_lets_the_batch_finish_and_hands_out_no_other() {
    let mut pump = running(retry(), claim(0, 20));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 20));
    pump.handle(NOW, told(20, Control { paused: true, resumes: 0, requests: 0 }));
    pump.handle(NOW, invoked(10, 10, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 10)]);
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, told(10, Control::default()));
    assert_eq!(actions(&mut pump, NOW), [invoke(10, 1)]);
}

#[test]
fn a_partition_that_was_paused_before_it_was_acquired_hands_out_nothing() {
    let paused = Control { paused: true, resumes: 0, requests: 0 };
    let mut pump = running(retry(), Claim { control: paused, ..claim(0, 20) });
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, told(20, Control::default()));
    assert_eq!(actions(&mut pump, NOW), [fetch(0)]);
}

#[test]
fn a_drain_finishes_commits_releases_and_ends() {
    let mut pump = running(retry(), claim(0, 20));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, Input::Drain);
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, fetched(10, 20));
    pump.handle(NOW, invoked(10, 10, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 10)]);
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [Action::Release]);
    pump.handle(NOW, Input::Released);
    assert_eq!(actions(&mut pump, NOW), [Action::Finish(End::Drained)]);
}

#[test]
fn a_drain_before_the_partition_is_ours_ends_at_once_or_releases_what_comes() {
    let mut idle = Pump::new(settings(retry()));
    idle.handle(NOW, Input::Drain);
    assert_eq!(actions(&mut idle, NOW), [Action::Finish(End::Drained)]);
    let mut asked = Pump::new(settings(retry()));
    actions(&mut asked, NOW);
    asked.handle(NOW, Input::Drain);
    assert_eq!(actions(&mut asked, NOW), []);
    asked.handle(NOW, Input::Acquired(claim(0, 20)));
    assert_eq!(actions(&mut asked, NOW), [Action::Release]);
}

#[test]
fn a_fence_ends_it_with_nothing_more_to_do() {
    let mut pump = running(retry(), claim(0, 20));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    pump.handle(NOW, invoked(10, 10, Outcome::Done));
    pump.handle(NOW, Input::Fenced);
    assert_eq!(actions(&mut pump, NOW), [Action::Finish(End::Fenced)]);
}

#[test]
fn a_partition_that_waits_learns_from_a_hint_that_somebody_else_acquired_it() {
    let stopped = stop_mark(0, 1);
    let mut pump = running(stop(), Claim { mark: stopped, ..claim(0, 5) });
    pump.handle(NOW, held(2, Holder::Other));
    assert_eq!(actions(&mut pump, NOW), [Action::Finish(End::Fenced)]);
}

#[test]
fn an_empty_read_is_tried_again_after_a_pause_even_if_no_further_hint_comes() {
    let mut pump = running(retry(), claim(0, 5));
    assert_eq!(actions(&mut pump, NOW), [fetch(0)]);
    pump.handle(NOW, told(8, Control::default()));
    pump.handle(NOW, fetched(0, 0));
    assert_eq!(actions(&mut pump, NOW), []);
    let later = pump.deadline(NOW).expect("a time to try again");
    assert_eq!(actions(&mut pump, later), [fetch(0)]);
}

#[test]
fn a_resume_during_a_release_does_not_take_its_place() {
    let stopped = stop_mark(0, 1);
    let mut pump = running(stop(), Claim { mark: stopped, ..claim(0, 5) });
    pump.handle(NOW, Input::Drain);
    assert_eq!(actions(&mut pump, NOW), [Action::Release]);
    pump.handle(NOW, told(5, Control { paused: false, resumes: 1, requests: 0 }));
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, Input::Released);
    assert_eq!(actions(&mut pump, NOW), [Action::Finish(End::Drained)]);
}

#[test]
fn a_hint_from_before_the_acquisition_does_not_make_the_next_one_look_like_a_resume() {
    let control = Control { paused: false, resumes: 3, requests: 0 };
    let stopped = stop_mark(0, 1);
    let mut pump = running(stop(), Claim { mark: stopped, control, ..claim(0, 5) });
    pump.handle(NOW, told(5, Control { paused: false, resumes: 2, requests: 0 }));
    pump.handle(NOW, told(5, control));
    assert_eq!((pump.phase(), actions(&mut pump, NOW)), (Phase::Stopped, vec![]));
}

#[test]
fn an_interruption_outside_of_a_drain_does_not_spin() {
    let mut pump = running(retry(), claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(0, 0, Outcome::Interrupted));
    assert_eq!(actions(&mut pump, NOW), []);
}

#[test]
fn an_interruption_and_an_outage_cost_no_attempt() {
    for outcome in [Outcome::Interrupted, Outcome::StoreUnavailable("away".into())] {
        let mut pump = running(retry(), claim(0, 10));
        actions(&mut pump, NOW);
        pump.handle(NOW, fetched(10, 10));
        actions(&mut pump, NOW);
        pump.handle(NOW, invoked(0, 0, outcome));
        let later = pump.deadline(NOW).unwrap_or(NOW);
        assert_eq!(actions(&mut pump, later), [invoke(10, 1)]);
    }
}

#[test]
fn a_partition_that_was_taken_away_under_the_same_term_ends_even_if_nobody_acquired_it_since() {
    let mut pump = running(retry(), claim(5, 5));
    pump.handle(NOW, held(1, Holder::Us));
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, held(1, Holder::Nobody));
    assert_eq!(actions(&mut pump, NOW), [Action::Finish(End::Fenced)]);
}

#[test]
fn an_older_hint_says_nothing_about_the_present_term() {
    let mut pump = running(retry(), Claim { epoch: Epoch(2), ..claim(5, 5) });
    pump.handle(NOW, held(1, Holder::Nobody));
    pump.handle(NOW, held(1, Holder::Other));
    assert_eq!(actions(&mut pump, NOW), []);
}

#[test]
fn a_loss_that_was_told_before_the_answer_to_the_acquisition_counts() {
    let mut pump = Pump::new(settings(retry()));
    assert_eq!(pump.next_action(NOW), Some(Action::Acquire));
    pump.handle(NOW, held(1, Holder::Us));
    pump.handle(NOW, held(1, Holder::Nobody));
    pump.handle(NOW, Input::Acquired(claim(0, 5)));
    assert_eq!(actions(&mut pump, NOW), [Action::Finish(End::Fenced)]);
}

#[test]
fn a_partition_that_is_held_is_asked_for_again_when_it_is_free_or_after_a_wait() {
    let mut pump = Pump::new(settings(retry()));
    assert_eq!(pump.next_action(NOW), Some(Action::Acquire));
    pump.handle(NOW, Input::NotAcquired);
    assert_eq!(actions(&mut pump, NOW), []);
    let later = pump.deadline(NOW).expect("a time to try again");
    assert_eq!(actions(&mut pump, later), [Action::Acquire]);
    pump.handle(later, Input::NotAcquired);
    pump.handle(later, held(1, Holder::Other));
    assert_eq!(actions(&mut pump, later), []);
    pump.handle(later, held(1, Holder::Nobody));
    assert_eq!(actions(&mut pump, later), [Action::Acquire]);
}

#[test]
fn a_partition_that_becomes_free_while_it_is_asked_for_is_asked_for_once_more() {
    let mut pump = Pump::new(settings(retry()));
    assert_eq!(pump.next_action(NOW), Some(Action::Acquire));
    pump.handle(NOW, held(1, Holder::Nobody));
    pump.handle(NOW, Input::NotAcquired);
    assert_eq!(actions(&mut pump, NOW), [Action::Acquire]);
    pump.handle(NOW, Input::NotAcquired);
    assert_eq!(actions(&mut pump, NOW), []);
}

#[test]
fn a_hint_that_it_is_free_does_not_shorten_the_wait_for_a_store_that_does_not_answer() {
    let mut pump = Pump::new(settings(retry()));
    assert_eq!(pump.next_action(NOW), Some(Action::Acquire));
    pump.handle(NOW, Input::StoreFailed(Request::Acquire));
    pump.handle(NOW, held(1, Holder::Nobody));
    assert_eq!(actions(&mut pump, NOW), []);
}

#[test]
fn a_partition_that_nobody_holds_while_it_is_given_back_is_no_loss() {
    let mut pump = running(retry(), claim(5, 5));
    pump.handle(NOW, Input::Drain);
    assert_eq!(actions(&mut pump, NOW), [Action::Release]);
    pump.handle(NOW, held(1, Holder::Nobody));
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, Input::Released);
    assert_eq!(actions(&mut pump, NOW), [Action::Finish(End::Drained)]);
}
