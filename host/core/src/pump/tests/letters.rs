//! Dead letters of which something is asked.

use super::*;

/// One of three letters is left.
fn invoke_with_letters(events: u32, attempt: u32) -> Action {
    Action::Invoke { events, calls: u32::MAX, room: PumpSettings::default().letters_max - 1, attempt }
}

#[test]
fn dead_letters_and_batches_take_turns_and_nothing_runs_beside_a_replay() {
    let mut pump = running(retry(), Claim { letters: 3, letters_requested: true, ..claim(0, 30) });
    assert_eq!(actions(&mut pump, NOW), [replay(10), fetch(0)]);
    pump.handle(NOW, fetched(10, 10));
    assert_eq!(actions(&mut pump, NOW), [], "no batch beside a replay");
    pump.handle(NOW, replayed(3, 2, 2));
    assert_eq!(actions(&mut pump, NOW), [settling(0)]);
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [invoke_with_letters(10, 1), fetch(10)], "the batch has its turn");
    pump.handle(NOW, fetched(10, 20));
    pump.handle(NOW, invoked(10, 10, Outcome::Done));
    assert_eq!(actions(&mut pump, NOW), [commit(0, 10)], "and no other one before the letters had theirs");
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [replay(10)]);
    pump.handle(NOW, replayed(0, 0, 0));
    assert_eq!(actions(&mut pump, NOW), [invoke_with_letters(10, 1), fetch(20)], "all that was asked is done");
}

#[test]
fn what_is_asked_while_letters_are_read_is_looked_for_again() {
    let mut pump = running(retry(), Claim { control: requested(1), letters_requested: true, ..claim(5, 5) });
    assert_eq!(actions(&mut pump, NOW), [replay(10)]);
    pump.handle(NOW, told(5, requested(2)));
    pump.handle(NOW, replayed(0, 0, 0));
    assert_eq!(actions(&mut pump, NOW), [replay(10)]);
    pump.handle(NOW, replayed(0, 0, 0));
    assert_eq!(actions(&mut pump, NOW), []);
}

#[test]
fn letters_do_not_wait_for_an_event_that_is_tried_again_but_for_a_pause_a_stop_and_a_drain() {
    let asked = |mark, paused| {
        let control = Control { paused, ..Control::default() };
        running(stop(), Claim { mark, control, letters_requested: true, ..claim(0, 0) })
    };
    assert_eq!(actions(&mut asked(retry_mark(0, 1, 9_000), false), NOW), [replay(10)]);
    assert_eq!(actions(&mut asked(stop_mark(0, 1), false), NOW), []);
    assert_eq!(actions(&mut asked(Mark::Clear, true), NOW), []);
    let mut draining = asked(Mark::Clear, false);
    draining.handle(NOW, Input::Drain);
    assert_eq!(actions(&mut draining, NOW), [Action::Release]);
}

#[test]
fn a_drain_waits_for_the_replay_that_is_under_way_and_its_commit() {
    let mut pump = running(retry(), Claim { letters_requested: true, ..claim(0, 0) });
    assert_eq!(actions(&mut pump, NOW), [replay(10)]);
    pump.handle(NOW, Input::Drain);
    assert_eq!(actions(&mut pump, NOW), []);
    pump.handle(NOW, replayed(1, 1, 1));
    assert_eq!(actions(&mut pump, NOW), [settling(0)]);
    pump.handle(NOW, Input::Committed);
    assert_eq!(actions(&mut pump, NOW), [Action::Release]);
}

#[test]
fn letters_whose_effects_the_store_refuses_are_narrowed_down_to_one_that_goes_back() {
    let mut pump = running(retry(), Claim { letters_requested: true, ..claim(0, 0) });
    let refused = || Input::Refused { reason: "bad".into(), chance: 0.5 };
    assert_eq!(actions(&mut pump, NOW), [replay(10)]);
    pump.handle(NOW, replayed(2, 2, 2));
    assert_eq!(actions(&mut pump, NOW), [settling(0)]);
    pump.handle(NOW, refused());
    assert_eq!(actions(&mut pump, NOW), [Action::Rewind, replay(1)]);
    pump.handle(NOW, replayed(1, 1, 1));
    assert_eq!(actions(&mut pump, NOW), [settling(0)]);
    pump.handle(NOW, refused());
    let reason = Some("the store refused the effects: bad".into());
    assert_eq!(actions(&mut pump, NOW), [Action::Rewind, Action::Replay { events: 1, refused: reason }]);
}

#[test]
fn letters_that_fail_together_without_saying_where_are_split() {
    let mut pump = running(retry(), Claim { letters_requested: true, ..claim(0, 0) });
    assert_eq!(actions(&mut pump, NOW), [replay(10)]);
    let nowhere = Replayed { found: 8, called: 8, settled: 0, gone: 0, outcome: failed() };
    pump.handle(NOW, Input::Replayed(nowhere));
    assert_eq!(actions(&mut pump, NOW), [replay(4)]);
}

#[test]
fn a_replay_that_is_interrupted_or_finds_no_store_does_not_spin() {
    for outcome in [Outcome::Interrupted, Outcome::StoreUnavailable("away".into())] {
        let mut pump = running(retry(), Claim { letters_requested: true, ..claim(0, 0) });
        actions(&mut pump, NOW);
        pump.handle(NOW, Input::Replayed(Replayed { found: 1, called: 1, settled: 0, gone: 0, outcome }));
        assert_eq!(actions(&mut pump, NOW), []);
        let later = pump.deadline(NOW).expect("a time to try again");
        assert_eq!(actions(&mut pump, later), [replay(10)]);
    }
}

#[test]
fn a_commit_of_letters_leaves_the_mark_of_a_waiting_event_alone() {
    let mark = retry_mark(3, 2, 5_000);
    let mut pump = running(retry(), Claim { mark, letters_requested: true, ..claim(3, 10) });
    assert_eq!(actions(&mut pump, NOW), [replay(10), fetch(3)]);
    pump.handle(NOW, fetched(7, 10));
    pump.handle(NOW, replayed(1, 1, 1));
    assert_eq!(actions(&mut pump, NOW), [settling(3)]);
    pump.handle(NOW, Input::Committed);
    assert_eq!(pump.phase(), Phase::Retrying(Timestamp(5_000)));
    pump.handle(NOW, replayed(0, 0, 0));
    actions(&mut pump, NOW);
    pump.handle(NOW, replayed(0, 0, 0));
    assert_eq!(actions(&mut pump, Timestamp(5_000)), [invoke(7, 3)]);
}
