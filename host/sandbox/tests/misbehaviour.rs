//! A bad handler hurts only itself: each way to misbehave ends in its outcome, and the next call works.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{EventExt, Stage, emitted, event, grants};
use pelton_core::Outcome;
use pelton_sandbox::{Grants, Limits, LogLevel, Recycle};

fn limited(limits: Limits) -> Grants {
    Grants { limits, ..grants() }
}

fn hasty() -> Grants {
    limited(Limits { timeout: Duration::from_millis(600), ..Limits::default() })
}

/// One bad event, and after it one that is well, through both worlds.
async fn outcome_of(grants: Grants, kind: &str, payload: &str) -> Outcome {
    let mut outcomes = Vec::new();
    for guest in ["misbehave", "misbehave-batch"] {
        let mut stage = Stage::with(guest, grants.clone()).await;
        let bad = stage.call(&[event(7, kind, payload)]).await;
        assert_eq!((bad.handled, bad.located), (0, true), "{guest}: {bad:?}");
        assert!(bad.effects.is_empty(), "{guest}: effects of a failed event: {:?}", bad.effects);
        let well = stage.call(&[event(7, "emit", "still here")]).await;
        assert_eq!((well.handled, &well.outcome), (1, &Outcome::Done), "{guest}");
        assert_eq!(emitted(&well), ["still here"], "{guest}");
        outcomes.push(bad.outcome);
    }
    assert_eq!(outcomes[0].class(), outcomes[1].class());
    outcomes.swap_remove(0)
}

#[tokio::test]
async fn errors_that_a_handler_returns_keep_their_kind_and_words() {
    assert_eq!(outcome_of(grants(), "transient", "later").await, Outcome::Transient("later".into()));
    assert_eq!(outcome_of(grants(), "permanent", "never").await, Outcome::Permanent("never".into()));
    assert!(matches!(outcome_of(grants(), "retry-after", "1500").await, Outcome::RetryAfter(1500, _)));
}

#[tokio::test]
async fn a_reason_is_bounded_and_fit_to_be_stored() {
    let long = format!("a\0b{}", "x".repeat(100_000));
    let Outcome::Permanent(reason) = outcome_of(grants(), "permanent", &long).await else { panic!("not permanent") };
    assert!(reason.starts_with("a\u{fffd}bxxx") && reason.len() < 5000, "{} bytes", reason.len());
}

#[tokio::test]
async fn a_panic_tells_its_message_and_where_it_happened() {
    // Functions have numbers only: the guest is stripped of their names.
    let Outcome::Trapped(reason) = outcome_of(grants(), "panic", "no such customer").await else {
        panic!("not a trap")
    };
    assert!(reason.contains("boom: no such customer"), "{reason}");
    assert!(reason.contains("unreachable"), "{reason}");
    assert!(reason.contains("wasm backtrace") && reason.lines().count() > 4, "{reason}");
    assert!(reason.len() < 5000);
    let (said, backtrace) = pelton_sandbox::split_backtrace(&reason);
    assert!(said.ends_with("instruction executed") && said.lines().count() < 4, "{said}");
    assert!(backtrace.is_some_and(|frames| frames.lines().all(|frame| frame.contains("0x"))), "{backtrace:?}");
}

#[tokio::test]
async fn a_panic_message_of_any_length_leaves_room_for_the_backtrace() {
    let Outcome::Trapped(reason) = outcome_of(grants(), "panic", &"x".repeat(1_000_000)).await else {
        panic!("not a trap")
    };
    assert!(reason.len() < 5000 && reason.contains("wasm backtrace"), "{reason}");
}

#[tokio::test]
async fn a_trap_without_a_message_is_named_by_its_code() {
    let Outcome::Trapped(reason) = outcome_of(grants(), "unreachable", "").await else { panic!("not a trap") };
    assert!(reason.contains("unreachable"), "{reason}");
}

#[tokio::test]
async fn endless_recursion_ends_in_a_trap() {
    let Outcome::Trapped(reason) = outcome_of(grants(), "recurse", "").await else { panic!("not a trap") };
    assert!(reason.contains("stack"), "{reason}");
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline() {
    let Outcome::TimedOut(reason) = outcome_of(hasty(), "loop", "").await else { panic!("not timed out") };
    assert!(reason.contains("limits.timeout (600ms)") && reason.contains("wasm backtrace"), "{reason}");
}

#[tokio::test]
async fn a_memory_bomb_ends_at_its_limit() {
    let limits = Limits { memory_bytes: 8 * 1024 * 1024, ..Limits::default() };
    let Outcome::OutOfMemory(reason) = outcome_of(limited(limits), "bomb", "").await else {
        panic!("not out of memory")
    };
    assert!(reason.contains("limits.memory (8388608 bytes)"), "{reason}");
}

#[tokio::test]
async fn a_handler_that_does_not_fit_at_all_is_out_of_memory_too() {
    let mut stage = Stage::with("misbehave", limited(Limits { memory_bytes: 65_536, ..Limits::default() })).await;
    let invocation = stage.call(&[event(0, "ok", "")]).await;
    assert_eq!(invocation.outcome.class(), "memory", "{:?}", invocation.outcome);
}

#[tokio::test]
async fn a_flood_of_output_is_stopped_at_its_limit_whatever_the_handler_makes_of_it() {
    let Outcome::OutputTooLarge(reason) = outcome_of(grants(), "flood", "").await else { panic!("not too large") };
    assert!(reason.contains("limits.output (4194304)"), "{reason}");
}

#[tokio::test(flavor = "current_thread")]
async fn an_endless_loop_lets_others_on_its_thread_go_on() {
    let mut stage = Stage::with("misbehave", hasty()).await;
    let turns = Arc::new(AtomicU64::new(0));
    let other = tokio::spawn({
        let turns = turns.clone();
        async move {
            loop {
                tokio::task::yield_now().await;
                turns.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let before = turns.load(Ordering::Relaxed);
    let invocation = stage.call(&[event(0, "loop", "")]).await;
    let during = turns.load(Ordering::Relaxed) - before;
    other.abort();
    assert_eq!(invocation.outcome.class(), "timeout");
    assert!(during >= 3, "the other task had {during} turns");
}

#[tokio::test]
async fn an_interrupt_ends_a_loop_and_costs_nothing_of_what_was_handled() {
    let mut stage = Stage::of("misbehave").await;
    let interrupt = stage.interrupt.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        interrupt.trigger();
    });
    let batch = [event(0, "emit", "first"), event(1, "loop", ""), event(2, "ok", "")];
    let invocation = stage.call(&batch).await;
    assert_eq!((invocation.handled, &invocation.outcome), (1, &Outcome::Interrupted));
    assert_eq!(emitted(&invocation), ["first"]);
    assert!(!invocation.outcome.is_failure());
}

#[tokio::test]
async fn no_call_begins_while_interrupted_and_calls_go_on_when_that_is_over() {
    let mut stage = Stage::of("misbehave").await;
    stage.interrupt.trigger();
    let invocation = stage.call(&[event(0, "emit", "")]).await;
    assert_eq!((invocation.handled, &invocation.outcome), (0, &Outcome::Interrupted));
    assert!(stage.interrupt.is_set());
    stage.interrupt.clear();
    assert_eq!(stage.call(&[event(0, "emit", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn a_call_that_its_host_gives_up_leaves_a_worker_that_works() {
    let mut stage = Stage::of("misbehave").await;
    stage.call(&[event(0, "ok", "")]).await;
    let batch = [event(1, "loop", "")];
    let given_up = tokio::time::timeout(Duration::from_millis(30), stage.worker.call(&batch, 1, false)).await;
    assert!(given_up.is_err());
    assert_eq!(stage.worker.memory_bytes(), 0);
    assert_eq!(stage.call(&[event(1, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn emitting_where_it_is_not_allowed_is_an_error_that_names_stream_and_setting() {
    let mut stage = Stage::of("misbehave").await;
    let invocation = stage.call(&[event(0, "emit", "x").header("to", "payroll")]).await;
    let Outcome::Permanent(reason) = &invocation.outcome else { panic!("{:?}", invocation.outcome) };
    assert!(reason.contains("payroll") && reason.contains("allow.emit") && reason.contains("invoice"), "{reason}");
    assert!(invocation.effects.is_empty());
}

#[tokio::test]
async fn what_no_store_could_keep_is_refused_when_it_is_emitted() {
    let mut stage = Stage::of("misbehave").await;
    let cases = [
        (event(0, "emit", "x").header("id", &"i".repeat(2000)), "id has"),
        (event(0, "emit", "x").header("id", ""), "id is empty"),
        (event(0, "emit", "x").header("id", "a\0b"), "NUL"),
        (event(0, "emit", &"x".repeat(1024 * 1024 + 1)), "payload_max"),
    ];
    for (bad, fault) in cases {
        let outcome = stage.call(&[bad]).await.outcome;
        assert!(matches!(&outcome, Outcome::Permanent(reason) if reason.contains(fault)), "{fault}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_warm_instance_serves_one_batch_after_another() {
    let mut stage = Stage::of("misbehave").await;
    assert_eq!(stage.worker.memory_bytes(), 0);
    stage.call(&[event(0, "ok", ""), event(1, "ok", "")]).await;
    assert!(stage.worker.memory_bytes() > 0);
    stage.worker.forget_instance();
    assert_eq!(stage.worker.memory_bytes(), 0);
    assert_eq!(stage.call(&[event(2, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn an_instance_is_replaced_after_as_many_calls_as_were_granted() {
    let large = event(0, "ok", &"x".repeat(8 * 1024 * 1024));
    for (reuse_calls, grown) in [(0, false), (1, false), (2, true), (10_000, true)] {
        let mut stage = Stage::with(
            "misbehave",
            Grants { recycle: Recycle { calls: reuse_calls, ..Recycle::default() }, ..grants() },
        )
        .await;
        stage.call(&[large.clone(), event(1, "ok", "")]).await;
        assert_eq!(stage.worker.memory_bytes() > 8 * 1024 * 1024, grown, "reuse_calls = {reuse_calls}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_moves_between_threads() {
    let mut stage = Stage::of("misbehave").await;
    for offset in 0..3 {
        stage = tokio::spawn(async move {
            assert_eq!(stage.call(&[event(offset, "ok", "")]).await.outcome, Outcome::Done);
            stage
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn log_lines_arrive_with_level_context_and_event() {
    let mut stage = Stage::of("misbehave").await;
    stage.call(&[event(41, "ok", ""), event(42, "log", "hello")]).await;
    let lines = stage.lines.taken();
    let levels: Vec<LogLevel> = lines.iter().map(|line| line.level).collect();
    use LogLevel::{Critical, Debug, Error, Info, Trace, Warn};
    assert_eq!(levels, [Trace, Debug, Info, Warn, Error, Critical]);
    assert!(lines.iter().all(|line| line.message == "hello" && line.offset.unwrap().0 == 42), "{lines:?}");
}

#[tokio::test]
async fn a_log_line_of_any_length_is_cut() {
    let mut stage = Stage::of("misbehave").await;
    stage.call(&[event(0, "log", &"x".repeat(1_000_000))]).await;
    let lines = stage.lines.taken();
    assert_eq!(lines.len(), 6);
    assert!(lines.iter().all(|line| line.message.len() < 9000 && line.message.ends_with("bytes more)")));
}

#[tokio::test]
async fn configuration_is_read_and_nothing_else() {
    let mut stage = Stage::of("misbehave").await;
    let invocation = stage.call(&[event(0, "config", "currency"), event(1, "config", "PATH")]).await;
    assert_eq!(emitted(&invocation), ["EUR", ""]);
}
