//! The batch handler of the guest conformance suite, in Rust. What each kind does is said in `../README.md`.

#[path = "../../rust/src/shared.rs"]
mod shared;

use pelton_sdk::{Error, Event, progress};

use shared::{echo, fail, go_through_state, header, trap};

#[pelton_sdk::batch_handler]
fn handle(events: Vec<Event>) -> Result<(), Error> {
    let tells_progress = header(&events[0], "progress") != "no";
    for (index, event) in events.iter().enumerate() {
        match event.kind.as_str() {
            "echo" => echo(event)?,
            "state" => go_through_state(event)?,
            "transient" | "permanent" | "retry-after" => fail(event)?,
            "trap" => trap(event)?,
            kind => return Err(Error::permanent(format_args!("unknown kind {kind:?}"))),
        }
        if tells_progress {
            progress::handled(index + 1);
        }
    }
    Ok(())
}
