//! Attacks the host with each event, in the way that the event's kind says, until it is stopped.
//!
//! | kind | does |
//! | --- | --- |
//! | `loop` | computes |
//! | `host-calls` | asks the host for a state that is not there, again and again |
//! | `grow` | takes and touches memory in steps of 64 KiB |
//! | `recurse` | calls itself |
//! | `log` | logs lines |
//! | `emit` | emits small events, whatever the host answers |
//!
//! Events of other kinds succeed.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_sdk::{Error, Event, Handler, NewEvent, emit, log, state};

const STEP: usize = 64 << 10;

struct Attack;

impl Handler for Attack {
    fn handle(event: Event) -> Result<(), Error> {
        match event.kind.as_str() {
            "loop" => again(|| _ = black_box(0)),
            "host-calls" => again(|| _ = black_box(state::get("nothing"))),
            "grow" => {
                let mut held = Vec::new();
                again(|| held.push(black_box(vec![1_u8; STEP])));
            }
            "recurse" => _ = black_box(recurse(0)),
            "log" => again(|| log::info!("a line of a flood")),
            "emit" => again(|| _ = emit("out", NewEvent::new("small", *b"x"))),
            _ => {}
        }
        Ok(())
    }
}

fn again(mut what: impl FnMut()) {
    loop {
        what();
    }
}

/// Uses up the stack of calls. The work after the call keeps the compiler from making a loop of it, and the way out, which
/// no run reaches, from taking it for one that never returns.
fn recurse(depth: u64) -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    if CALLS.fetch_add(1, Ordering::Relaxed) == u64::MAX {
        return depth;
    }
    recurse(depth + 1).rotate_left(1) ^ depth
}

pelton_sdk::export!(Attack);
