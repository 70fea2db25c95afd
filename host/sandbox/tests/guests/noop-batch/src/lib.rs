//! Does nothing, many events at a time: what a call costs by itself.

use pelton_sdk::{BatchHandler, Error, Event};

struct Noop;

impl BatchHandler for Noop {
    fn handle_batch(_events: Vec<Event>) -> Result<(), Error> {
        Ok(())
    }
}

pelton_sdk::export_batch!(Noop);
