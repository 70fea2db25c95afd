//! What handlers emit and store: kept with the events that were handled, lost with those that failed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{EventExt, Stage, emitted, emitted_ids, event, grants};
use pelton_core::Outcome;
use pelton_sandbox::{EmitGrant, Grants, Limits, Recycle};

#[tokio::test]
async fn an_emitted_event_is_named_by_its_cause_and_the_same_at_every_delivery() {
    for guest in ["misbehave", "misbehave-batch"] {
        let mut stage = Stage::of(guest).await;
        let cause = [event(12, "emit", "x").key("k1").header("to", "out")];
        let first = stage.call(&cause).await;
        let again = stage.call(&cause).await;
        assert_eq!(emitted_ids(&first), ["billing@orders/3/12/0"], "{guest}");
        assert_eq!(first.effects, again.effects, "{guest}");
        let emit = &first.effects.emits[0];
        assert_eq!((&*emit.stream, emit.event.key.as_deref(), &*emit.event.kind), ("out", Some("k1"), "emit"));
    }
}

#[tokio::test]
async fn an_id_that_the_handler_gives_is_the_groups_own() {
    let mut stage = Stage::of("misbehave").await;
    let invocation = stage.call(&[event(12, "emit", "x").header("id", "invoice-7")]).await;
    assert_eq!(emitted_ids(&invocation), ["billing/invoice-7"]);
}

#[tokio::test]
async fn a_handler_that_is_tried_out_emits_anywhere() {
    let anywhere = Grants { emit: EmitGrant::Any { payload_bytes_max: 10 }, ..grants() };
    let mut stage = Stage::with("misbehave", anywhere).await;
    let invocation = stage.call(&[event(0, "emit", "x").header("to", "payroll")]).await;
    assert_eq!(&*invocation.effects.emits[0].stream, "payroll");
    for (payload, to) in [("12345678901", "payroll"), ("x", "no such/name")] {
        let outcome = stage.call(&[event(0, "emit", payload).header("to", to)]).await.outcome;
        assert!(matches!(outcome, Outcome::Permanent(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_handler_reads_what_it_wrote_and_what_is_stored_below() {
    for guest in ["misbehave", "misbehave-batch"] {
        let mut stage = Stage::of(guest).await;
        stage.stored.values.lock().unwrap().insert("a".into(), b"stored".to_vec());
        let batch = [
            event(0, "state-get", "a"),
            event(1, "state-set", "a=written"),
            event(2, "state-get", "a"),
            event(3, "state-get", "b"),
        ];
        let invocation = stage.call(&batch).await;
        assert_eq!(emitted(&invocation), ["stored", "written", ""], "{guest}");
        assert_eq!(invocation.effects.state["a"].as_deref(), Some(&b"written"[..]));
    }
}

#[tokio::test]
async fn a_counter_counts_through_a_batch() {
    let mut stage = Stage::of("misbehave").await;
    let batch: Vec<_> = (0..5).map(|offset| event(offset, "count", "").key("k").header("to", "out")).collect();
    let invocation = stage.call(&batch).await;
    assert_eq!(emitted(&invocation), ["1", "2", "3", "4", "5"]);
    assert_eq!(invocation.effects.state["k"].as_deref(), Some(&b"5"[..]));
}

#[tokio::test]
async fn a_failed_event_takes_its_effects_along_and_leaves_those_before_it() {
    let mut stage = Stage::of("misbehave").await;
    for failure in ["panic", "transient"] {
        let batch = [event(0, "state-set", "a=1"), event(1, "emit", "one"), event(2, failure, ""), event(3, "ok", "")];
        let invocation = stage.call(&batch).await;
        assert_eq!((invocation.handled, invocation.located), (2, true));
        assert_eq!(emitted(&invocation), ["one"]);
        assert_eq!(invocation.effects.state["a"].as_deref(), Some(&b"1"[..]));
    }
}

#[tokio::test]
async fn a_fresh_instance_for_every_call_reads_what_the_one_before_wrote() {
    let mut stage =
        Stage::with("misbehave", Grants { recycle: Recycle { calls: 1, ..Recycle::default() }, ..grants() }).await;
    let batch: Vec<_> = (0..3).map(|offset| event(offset, "count", "").key("k").header("to", "out")).collect();
    assert_eq!(emitted(&stage.call(&batch).await), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_bad_key_is_an_error_and_not_a_trap() {
    let mut stage = Stage::of("misbehave").await;
    let outcome = stage.call(&[event(0, "state-set", "=x")]).await.outcome;
    assert!(matches!(&outcome, Outcome::Permanent(reason) if reason.contains("state key")), "{outcome:?}");
    let long = format!("{}=x", "k".repeat(1025));
    assert!(matches!(stage.call(&[event(0, "state-set", &long)]).await.outcome, Outcome::Permanent(_)));
    assert_eq!(emitted(&stage.call(&[event(0, "state-get", "")]).await), [""]);
}

#[tokio::test]
async fn state_counts_towards_the_output_of_a_call() {
    let tight = Grants { limits: Limits { output_bytes: 1000, ..Limits::default() }, ..grants() };
    let mut stage = Stage::with("misbehave", tight).await;
    let small = format!("a={}", "x".repeat(500));
    let large = format!("a={}", "x".repeat(1500));
    let invocation = stage.call(&[event(0, "state-set", &small), event(1, "state-set", &large)]).await;
    assert_eq!((invocation.handled, invocation.outcome.class()), (1, "output"));
    assert_eq!(invocation.effects.state["a"].as_ref().unwrap().len(), 500);
}

#[tokio::test]
async fn waiting_for_the_store_is_not_the_handlers_time() {
    let hasty = Grants { limits: Limits { timeout: Duration::from_millis(600), ..Limits::default() }, ..grants() };
    let mut stage = Stage::with("misbehave", hasty).await;
    *stage.stored.delay.lock().unwrap() = Duration::from_millis(1500);
    assert_eq!(stage.call(&[event(0, "state-get", "a")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn an_interrupt_does_not_wait_for_the_store() {
    let mut stage = Stage::of("misbehave").await;
    *stage.stored.delay.lock().unwrap() = Duration::from_secs(3600);
    let interrupt = stage.interrupt.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        interrupt.trigger();
    });
    assert_eq!(stage.call(&[event(0, "state-get", "a")]).await.outcome, Outcome::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_not_the_handlers_failure() {
    let mut stage = Stage::of("misbehave").await;
    *stage.stored.delay.lock().unwrap() = Duration::from_secs(3600);
    let outcome = stage.call(&[event(0, "state-get", "a")]).await.outcome;
    assert!(matches!(&outcome, Outcome::StoreUnavailable(reason) if reason.contains("30s")), "{outcome:?}");
}

#[tokio::test]
async fn an_outage_of_the_store_keeps_what_was_handled_before() {
    for guest in ["misbehave", "misbehave-batch"] {
        let mut stage = Stage::of(guest).await;
        *stage.stored.fault.lock().unwrap() = Some("connection refused".into());
        let batch = [event(0, "emit", "one").header("progress", "yes"), event(1, "state-get", "a")];
        let invocation = stage.call(&batch).await;
        assert_eq!(invocation.outcome, Outcome::StoreUnavailable("connection refused".into()), "{guest}");
        assert_eq!((invocation.handled, emitted(&invocation)), (1, vec!["one".to_owned()]), "{guest}");
    }
}

#[tokio::test]
async fn a_batch_handler_that_tells_its_progress_keeps_what_came_before_the_failure() {
    let mut stage = Stage::of("misbehave-batch").await;
    for failure in ["panic", "permanent", "unreachable"] {
        let batch = [
            event(4, "emit", "one").header("progress", "yes"),
            event(5, "count", "").key("k"),
            event(9, failure, ""),
            event(10, "emit", "never"),
        ];
        let invocation = stage.call(&batch).await;
        assert_eq!((invocation.handled, invocation.located), (2, true), "{failure}");
        assert_eq!(emitted(&invocation), ["one"], "{failure}");
        assert_eq!(invocation.effects.state["k"].as_deref(), Some(&b"1"[..]), "{failure}");
    }
}

#[tokio::test]
async fn ids_in_a_batch_follow_the_progress_that_was_told() {
    let mut stage = Stage::of("misbehave-batch").await;
    let told = [event(4, "emit", "a").header("progress", "yes"), event(6, "emit", "b"), event(9, "emit", "c")];
    let ids = ["billing@orders/3/4/0", "billing@orders/3/6/0", "billing@orders/3/9/0"];
    assert_eq!(emitted_ids(&stage.call(&told).await), ids);
    let untold = [event(4, "emit", "a"), event(6, "emit", "b"), event(9, "emit", "c")];
    let ids = ["billing@orders/3/4/0", "billing@orders/3/4/1", "billing@orders/3/4/2"];
    assert_eq!(emitted_ids(&stage.call(&untold).await), ids);
}

#[tokio::test]
async fn a_batch_handler_that_tells_nothing_is_taken_as_a_whole() {
    let mut stage = Stage::of("misbehave-batch").await;
    let invocation = stage.call(&[event(0, "emit", "one"), event(1, "panic", ""), event(2, "ok", "")]).await;
    assert_eq!((invocation.handled, invocation.located), (0, false));
    assert!(invocation.effects.is_empty());
    let alone = stage.call(&[event(1, "panic", "")]).await;
    assert_eq!((alone.handled, alone.located), (0, true));
}

#[tokio::test]
async fn the_attempt_is_that_of_the_first_event_and_the_others_are_new() {
    for guest in ["misbehave", "misbehave-batch"] {
        let mut stage = Stage::of(guest).await;
        let batch = [
            event(0, "fail-until", "one").header("n", "2").header("progress", "yes"),
            event(1, "fail-until", "two").header("n", "1"),
        ];
        assert_eq!(stage.worker.call(&batch, 2, false).await.handled, 0, "{guest}");
        let third = stage.worker.call(&batch, 3, false).await;
        assert_eq!((third.handled, third.outcome.class()), (1, "transient"), "{guest}");
        assert_eq!(emitted(&third), ["one"]);
    }
}

#[tokio::test]
async fn an_empty_batch_is_handled() {
    for guest in ["noop", "noop-batch"] {
        let invocation = Stage::of(guest).await.call(&[]).await;
        assert_eq!((invocation.handled, invocation.outcome), (0, Outcome::Done));
    }
}
