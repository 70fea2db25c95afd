//! The handler of the guest conformance suite, in Rust. What each kind does is said in `../README.md`.

mod shared;
mod versioned;

use pelton_sdk::log::{self, Level};
use pelton_sdk::{Error, Event, NewEvent, checkpoint, config, emit, state};
use serde::{Deserialize, Serialize};

use shared::{echo, fail, go_through_state, header, out, trap};

#[pelton_sdk::handler]
fn handle(event: &Event) -> Result<(), Error> {
    match event.kind.as_str() {
        "fields" => fields(event),
        "echo" => echo(event),
        "emit" => emit_as_told(event),
        "emit-refused" => emit_refused(),
        "emit-many" => emit_many(event),
        "state" => go_through_state(event),
        "count" => count(),
        "transient" | "permanent" | "retry-after" => fail(event),
        "trap" => trap(event),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "log" => log_lines(event),
        "config" => settings(event),
        "checkpoint" => {
            checkpoint::commit();
            Ok(())
        }
        "call" => out(NewEvent::new("call", "").id(format!("call-{}", event.id)).header("idempotency-key", &event.id)),
        "typed" => typed(event.json()?),
        "versioned" => versioned::act_as(header(event, "as")),
        kind => Err(Error::permanent(format_args!("unknown kind {kind:?}"))),
    }
}

fn fields(event: &Event) -> Result<(), Error> {
    let mut fields = NewEvent::new("fields", &*event.payload)
        .header("id", &event.id)
        .header("stream", &event.stream)
        .header("kind", &event.kind)
        .header("partition", event.partition.to_string())
        .header("offset", event.offset.to_string())
        .header("time", event.time_ms.to_string())
        .header("attempt", event.attempt.to_string())
        .header("has-key", event.key.is_some().to_string());
    fields.key = event.key.clone();
    out(fields)
}

fn emit_as_told(event: &Event) -> Result<(), Error> {
    let mut told = NewEvent::new("emit", &*event.payload);
    told.id = event.header("id").map(str::to_owned);
    told.key = event.header("key").map(str::to_owned);
    emit(header(event, "stream"), told)
}

fn emit_refused() -> Result<(), Error> {
    match emit("forbidden", NewEvent::new("refused", "")) {
        Ok(()) => Ok(()),
        Err(error) => out(NewEvent::text("refused", error.reason())),
    }
}

fn emit_many(event: &Event) -> Result<(), Error> {
    let count: u64 = header(event, "count").parse().map_err(Error::permanent)?;
    (0..count).try_for_each(|number| out(NewEvent::text("many", number.to_string())))
}

fn count() -> Result<(), Error> {
    #[derive(Default, Serialize, Deserialize)]
    struct Count {
        count: u64,
    }
    let mut count: Count = state::get_json("count")?.unwrap_or_default();
    count.count += 1;
    state::set_json("count", &count)?;
    out(NewEvent::json("count", &count)?)
}

fn log_lines(event: &Event) -> Result<(), Error> {
    for (_, line) in &event.headers {
        let (level, message) = line.split_once(' ').unwrap_or((line, ""));
        let level = match level {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "critical" => Level::Critical,
            _ => return Err(Error::permanent(format_args!("unknown level {level:?}"))),
        };
        log::log(level, module_path!(), format_args!("{message}"));
    }
    Ok(())
}

fn settings(event: &Event) -> Result<(), Error> {
    for (_, name) in &event.headers {
        match config::get(name)? {
            Some(setting) => out(NewEvent::text("config", setting).key(name))?,
            None => out(NewEvent::text("config-absent", "").key(name))?,
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Purchase {
    customer: Customer,
    amount: i64,
}

#[derive(Deserialize)]
struct Customer {
    name: String,
}

fn typed(Purchase { customer, amount }: Purchase) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Doubled {
        amount: i64,
    }
    out(NewEvent::json("typed", &Doubled { amount: 2 * amount })?.key(customer.name))
}
