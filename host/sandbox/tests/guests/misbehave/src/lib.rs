//! Does to the host what the event's kind says, see `behaviour.rs`. With the feature `repaired`, every event is counted.

#[path = "../../shared/behaviour.rs"]
mod behaviour;

use pelton_sdk::{Error, Event, Handler};

struct Misbehave;

impl Handler for Misbehave {
    fn handle(event: Event) -> Result<(), Error> {
        if cfg!(feature = "repaired") { behaviour::count(&event) } else { behaviour::act(&event) }
    }
}

pelton_sdk::export!(Misbehave);
