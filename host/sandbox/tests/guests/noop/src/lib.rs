//! Does nothing, one event at a time: what a call costs by itself.

use pelton_sdk::{Error, Event, Handler};

struct Noop;

impl Handler for Noop {
    fn handle(_event: Event) -> Result<(), Error> {
        Ok(())
    }
}

pelton_sdk::export!(Noop);
