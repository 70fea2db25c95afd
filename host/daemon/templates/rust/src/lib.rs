//! Greets visitors, and counts how often each of them came.

use pelton_sdk::{Error, Event, NewEvent, config, emit, log, state};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Visit {
    name: String,
}

#[derive(Serialize)]
struct Greeting {
    text: String,
}

/// Called for each event. What it stores and emits is committed with the event's position, or not at all.
#[pelton_sdk::handler]
fn greet(visit: Visit, event: &Event) -> Result<(), Error> {
    let name = visit.name;
    let visitor = event.key.as_deref().unwrap_or(&name);

    let key = format!("visits/{visitor}");
    let visits: u64 = state::get_json(&key)?.unwrap_or(0) + 1;
    state::set_json(&key, &visits)?;

    log::info!("{name} was greeted {visits} times");
    let hello = config::get("greeting")?.unwrap_or_else(|| "Hello".to_owned());
    let text = format!("{hello}, {name}! Visit {visits}.");
    let greeting = NewEvent::json("greeted", &Greeting { text })?.key(visitor);
    emit("greetings", greeting)
}

#[cfg(test)]
mod tests;
