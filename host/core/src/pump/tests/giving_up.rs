//! Events that are given up, breakers, and partitions that are full.

use super::*;

#[test]
fn an_event_that_is_given_up_goes_with_the_commit_of_what_came_before_it_and_the_rest_follows() {
    let mut pump = running(gives_up(Then::DeadLetterKey), claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(3, 3, failed()));
    assert_eq!(
        actions(&mut pump, NOW),
        [aside(Aside::Park, 1), commit_after(0, 4, 1)],
        "nothing runs ahead of a verdict"
    );
    pump.handle(NOW, Input::Committed);
    let room = PumpSettings::default().letters_max - 1;
    assert_eq!(actions(&mut pump, NOW), [Action::Invoke { events: 6, calls: u32::MAX, room, attempt: 1 }]);
}

#[test]
fn an_event_whose_effects_the_store_refuses_is_read_again_to_be_set_aside() {
    let mut pump = running(gives_up(Then::DeadLetter), claim(0, 1));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(1, 1));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(1, 1, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 1)]);
    pump.handle(NOW, Input::Refused { reason: "bad".into(), chance: 0.5 });
    assert_eq!(actions(&mut pump, NOW), [Action::Rewind, fetch(0)]);
    pump.handle(NOW, fetched(1, 1));
    let found = actions(&mut pump, NOW);
    assert!(
        matches!(&found[0], Action::SetAside { aside: Aside::DeadLetter, failure } if failure.reason.contains("refused"))
    );
    assert_eq!(found[1..], [commit_after(0, 1, 1)]);
}

#[test]
fn a_failure_that_was_not_stored_never_was() {
    let mut pump = running(gives_up(Then::DeadLetter), claim(0, 2));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(2, 2));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(1, 1, failed()));
    assert_eq!(actions(&mut pump, NOW), [aside(Aside::DeadLetter, 1), commit_after(0, 2, 1)]);
    pump.handle(NOW, Input::Refused { reason: "bad".into(), chance: 0.5 });
    assert_eq!(actions(&mut pump, NOW), [Action::Rewind, fetch(0)]);
    pump.handle(NOW, fetched(2, 2));
    assert_eq!(actions(&mut pump, NOW), [invoke(1, 1)]);
    pump.handle(NOW, invoked(1, 1, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 1), invoke(1, 1)]);
    pump.handle(NOW, invoked(0, 1, failed()));
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [aside(Aside::DeadLetter, 1), commit_after(1, 2, 1)], "the first time, again");
}

#[test]
fn the_breaker_pauses_before_one_event_too_many_is_given_up_and_then_tries_one() {
    let breaker = Some(Breaker { failures: 2, pause_ms: 500 });
    let mut pump = running(FailurePolicy { breaker, ..gives_up(Then::Skip) }, claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, invoked(0, 0, failed()));
    assert_eq!(actions(&mut pump, NOW), [aside(Aside::Skip, 1), commit_after(0, 1, 1)]);
    pump.handle(NOW, Input::Committed);
    let one = |attempt| Action::Invoke { events: 9, calls: 1, room: PumpSettings::default().letters_max, attempt };
    assert_eq!(actions(&mut pump, NOW), [one(1)]);
    pump.handle(NOW, invoked(0, 1, failed()));
    let until = NOW.plus_ms(500);
    let hold = Mark::Hold { at: Offset(1), failure: failure(1, NOW.0), until, why: Hold::Breaker };
    let held =
        Action::Commit { from: Offset(1), to: Offset(1), mark: Some(hold), given_up_in_row: 1, with_effects: true };
    assert_eq!(actions(&mut pump, NOW), [held]);
    pump.handle(NOW, Input::Committed);
    assert_eq!((pump.phase(), pump.deadline(NOW)), (Phase::Held(until, Hold::Breaker), Some(until)));
    assert_eq!(actions(&mut pump, until), [one(2)]);
    pump.handle(until, invoked(1, 2, Outcome::Done));
    assert_eq!(actions(&mut pump, until), [commit_after(1, 2, 0), invoke(8, 1)], "one that succeeds closes it");
}

#[test]
fn a_breaker_that_paused_goes_on_pausing_under_the_next_owner() {
    let breaker = Some(Breaker { failures: 2, pause_ms: 500 });
    let policy = FailurePolicy { breaker, ..gives_up(Then::DeadLetter) };
    let until = NOW.plus_ms(300);
    let mark = Mark::Hold { at: Offset(3), failure: failure(1, NOW.0), until, why: Hold::Breaker };
    let mut pump = running(policy, Claim { mark, given_up_in_row: 1, ..claim(3, 10) });
    assert_eq!((pump.phase(), actions(&mut pump, NOW)), (Phase::Held(until, Hold::Breaker), vec![fetch(3)]));
}

#[test]
fn a_partition_that_is_full_waits_and_goes_on_as_soon_as_there_is_room() {
    let policy = gives_up(Then::DeadLetter);
    let mut pump = Pump::new(PumpSettings { letters_max: 1, ..settings(policy) });
    pump.next_action(NOW);
    pump.handle(NOW, Input::Acquired(Claim { letters: 1, ..claim(0, 10) }));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    assert_eq!(actions(&mut pump, NOW), [Action::Invoke { events: 10, calls: u32::MAX, room: 0, attempt: 1 }]);
    pump.handle(NOW, invoked(0, 0, failed()));
    let until = NOW.plus_ms(FULL_WAIT_MS);
    let hold = Mark::Hold { at: Offset(0), failure: failure(1, NOW.0), until, why: Hold::Full };
    assert_eq!(actions(&mut pump, NOW), [marked(0, 0, hold)]);
    pump.handle(NOW, Input::Committed);
    pump.handle(NOW, told(10, Control { requests: 1, ..Control::default() }));
    assert_eq!(actions(&mut pump, NOW), [replay(10)]);
    pump.handle(NOW, replayed(1, 1, 1));
    assert_eq!(actions(&mut pump, NOW), [settling(0)]);
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [Action::Invoke { events: 10, calls: u32::MAX, room: 1, attempt: 2 }]);
}

#[test]
fn an_event_that_cannot_be_parked_for_want_of_room_holds_the_partition_without_an_attempt() {
    let mut pump = running(gives_up(Then::DeadLetterKey), claim(0, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, fetched(10, 10));
    actions(&mut pump, NOW);
    pump.handle(NOW, Input::NoRoom);
    let found = actions(&mut pump, NOW);
    let Some(Action::Commit { mark: Some(mark), .. }) = found.first() else { panic!("no verdict in {found:?}") };
    assert!(matches!(mark, Mark::Hold { why: Hold::Full, .. }) && mark.attempts() == 0, "{mark:?}");
}
