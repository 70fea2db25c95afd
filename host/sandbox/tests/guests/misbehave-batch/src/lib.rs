//! Does to the host what the kind of each event of a batch says, see `behaviour.rs`.
//!
//! If any event of the batch has the header `progress` = `yes`, it tells the host after each event how far it got.

#[path = "../../shared/behaviour.rs"]
mod behaviour;

use pelton_sdk::{BatchHandler, Error, Event, progress};

struct Misbehave;

impl BatchHandler for Misbehave {
    fn handle_batch(events: Vec<Event>) -> Result<(), Error> {
        let tells = events.iter().any(|event| event.header("progress") == Some("yes"));
        for (index, event) in events.iter().enumerate() {
            behaviour::act(event)?;
            if tells {
                progress::handled(index + 1);
            }
        }
        Ok(())
    }
}

pelton_sdk::export_batch!(Misbehave);
