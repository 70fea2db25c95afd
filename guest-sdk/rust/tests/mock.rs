//! The mock does what the host does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pelton_sdk::log::Level;
use pelton_sdk::mock::Host;
use pelton_sdk::{BatchHandler, Error, Event, NewEvent, checkpoint, config, emit, log, progress, state};

fn lost() -> Error {
    Error::transient("lost")
}

#[test]
fn a_handler_reads_what_it_wrote() {
    let mut host = Host::new().stored("a", "old").stored("b", "old");
    host.call(|| {
        assert_eq!(state::get("a").as_deref(), Some(&b"old"[..]));
        state::set("a", "new")?;
        assert_eq!(state::get("a").as_deref(), Some(&b"new"[..]));
        state::delete("b");
        state::delete("nothing");
        assert_eq!(state::get("b"), None);
        Ok(())
    })
    .expect("succeeds");
    assert_eq!((host.state("a"), host.state("b")), (Some(&b"new"[..]), None));
}

#[test]
fn what_a_failed_call_asked_for_is_thrown_away() {
    let mut host = Host::new().stored("kept", "old");
    let failed: Result<(), Error> = host.call(|| {
        emit("out", NewEvent::new("lost", ""))?;
        state::set("lost", "lost")?;
        state::delete("kept");
        checkpoint::commit();
        log::warn!("going to fail");
        Err(lost())
    });
    assert_eq!(failed, Err(lost()));
    assert!(host.emitted("out").is_empty() && !host.checkpoint());
    assert_eq!((host.state("lost"), host.state("kept")), (None, Some(&b"old"[..])));

    // What was logged was logged.
    let line = &host.logs()[0];
    assert_eq!((line.level, &*line.context, &*line.message), (Level::Warn, module_path!(), "going to fail"));
}

#[test]
fn a_panic_is_a_failure_too_and_the_host_survives_it() {
    let mut host = Host::new().stored("kept", "old");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        host.call(|| {
            state::set("kept", "new")?;
            panic!("a mistake");
            #[expect(unreachable_code, reason = "says what the result would be")]
            Ok(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(host.state("kept"), Some(&b"old"[..]));
    host.call(|| state::set("kept", "new")).expect("succeeds");
    assert_eq!(host.state("kept"), Some(&b"new"[..]));
}

#[test]
fn progress_keeps_what_came_before_and_never_goes_back() {
    let mut host = Host::new();
    let failed = host.call(|| {
        emit("out", NewEvent::text("n", "1"))?;
        progress::handled(2);
        emit("out", NewEvent::text("n", "2"))?;
        progress::handled(1);
        emit("out", NewEvent::text("n", "3"))?;
        Err::<(), _>(lost())
    });
    assert!(failed.is_err());
    assert_eq!(host.handled(), 2);
    // Going back is no news: nothing more is kept.
    assert_eq!(host.emitted("out"), [NewEvent::text("n", "1")]);
}

#[test]
fn progress_of_no_events_keeps_nothing() {
    let mut host = Host::new();
    let failed = host.call(|| {
        state::set("k", "1")?;
        progress::handled(0);
        Err::<(), _>(lost())
    });
    assert!(failed.is_err());
    assert_eq!((host.handled(), host.state("k")), (0, None));
}

#[test]
fn progress_does_not_go_past_the_end_of_the_batch() {
    struct Hasty;
    impl BatchHandler for Hasty {
        fn handle_batch(events: Vec<Event>) -> Result<(), Error> {
            progress::handled(events.len() + 5);
            // As many as before, and what came since is kept, too.
            state::set("k", "1")?;
            progress::handled(events.len());
            state::set("k", "2")?;
            Err(lost())
        }
    }
    let mut host = Host::new();
    assert_eq!(host.handle_batch::<Hasty>([NewEvent::new("a", ""), NewEvent::new("b", "")]), Err(lost()));
    assert_eq!((host.handled(), host.state("k")), (2, Some(&b"1"[..])));
}

#[test]
fn checkpoints_and_progress_are_those_of_the_last_call() {
    let mut host = Host::new();
    host.call(|| {
        checkpoint::commit();
        progress::handled(1);
        Ok(())
    })
    .expect("succeeds");
    assert!(host.checkpoint() && host.handled() == 1);
    host.call(|| Ok(())).expect("succeeds");
    assert!(!host.checkpoint() && host.handled() == 0);
}

#[test]
fn settings_are_read() {
    let mut host = Host::new().config("currency", "EUR");
    let read = host.call(|| Ok((config::get("currency")?, config::get("else")?))).expect("succeeds");
    assert_eq!(read, (Some("EUR".to_owned()), None));
}

#[test]
fn streams_that_are_not_allowed_are_refused_and_the_call_may_go_on() {
    let mut host = Host::new().allow_emit(["a", "b"]);
    host.call(|| {
        let error = emit("c", NewEvent::new("k", "")).expect_err("not allowed");
        assert!(
            matches!(&error, Error::Permanent(reason) if reason.contains("may not emit to stream \"c\"")),
            "{error}"
        );
        emit("a", NewEvent::new("k", ""))
    })
    .expect("succeeds");
    assert_eq!(host.emitted("a").len(), 1);
}

#[test]
fn what_the_host_refuses_is_refused() {
    let reason = |code: fn() -> Result<(), Error>| match Host::new().call(code) {
        Err(Error::Permanent(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(|| state::set("", "")), "state key has 0 bytes; expected 1 to 1024");
    assert_eq!(reason(|| state::set(&"k".repeat(1025), "")), "state key has 1025 bytes; expected 1 to 1024");
    assert!(reason(|| state::set("a\0b", "")).starts_with("state key holds a NUL character"));
    assert!(reason(|| emit("out", NewEvent::new("a\0b", ""))).starts_with("kind holds a NUL character"));
    assert!(
        reason(|| emit("out", NewEvent::new("k", "").header("h", "\0"))).starts_with("headers holds a NUL character")
    );
    assert_eq!(reason(|| emit("out", NewEvent::new("k", "").id(""))), "id is empty; expected 1 to 1024 bytes");
    let large = reason(|| emit("out", NewEvent::new("k", vec![0; (1 << 20) + 1])));
    assert!(large.starts_with("payload has 1048577 bytes, over the stream's payload_max of 1048576"), "{large}");
}

#[test]
fn a_new_event_becomes_one_that_was_read() {
    let event = Event::from(NewEvent::text("visit", "{}").key("ada").header("a", "b"));
    assert_eq!((event.id.as_str(), event.key.as_deref(), event.attempt), ("event", Some("ada"), 1));
    assert_eq!((event.header("a"), event.header("c")), (Some("b"), None));
    assert_eq!(event.text(), Ok("{}"));
    assert!(
        Event::from(NewEvent::new("k", [0xff]))
            .text()
            .expect_err("no text")
            .reason()
            .starts_with("payload of kind \"k\": ")
    );
}

#[test]
#[should_panic(expected = "emit was called without a host: use pelton_sdk::mock::Host::call")]
fn without_a_host_there_is_a_remedy() {
    let _ = emit("out", NewEvent::new("k", ""));
}

#[test]
fn without_a_host_logging_just_works() {
    log::info!("no host");
}

#[test]
#[should_panic(expected = "inside of another one's call")]
fn hosts_do_not_nest() {
    let _ = Host::new().call(|| Host::new().call(|| Ok(())));
}
