//! What the batch handler does too.

use pelton_sdk::{Error, Event, NewEvent, emit, state};
use std::time::Duration;

pub fn out(event: NewEvent) -> Result<(), Error> {
    emit("out", event)
}

pub fn header<'a>(event: &'a Event, name: &str) -> &'a str {
    event.header(name).unwrap_or_default()
}

pub fn echo(event: &Event) -> Result<(), Error> {
    let mut echo = NewEvent::new("echo", &*event.payload);
    echo.key = event.key.clone();
    echo.headers = event.headers.clone();
    out(echo)
}

pub fn go_through_state(event: &Event) -> Result<(), Error> {
    for (_, step) in &event.headers {
        match step.split_once(' ') {
            Some(("set", rest)) => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                state::set(key, value)?;
            }
            Some(("get", key)) => match state::get(key) {
                Some(value) => out(NewEvent::new("state", value).key(key))?,
                None => out(NewEvent::new("state-absent", "").key(key))?,
            },
            Some(("delete", key)) => state::delete(key),
            _ => return Err(Error::permanent(format_args!("unknown step {step:?}"))),
        }
    }
    Ok(())
}

pub fn fail(event: &Event) -> Result<(), Error> {
    lose()?;
    let reason = header(event, "reason");
    Err(match event.kind.as_str() {
        "transient" => Error::transient(reason),
        "permanent" => Error::permanent(reason),
        _ => Error::retry_after(Duration::from_millis(header(event, "ms").parse().map_err(Error::permanent)?), reason),
    })
}

pub fn trap(event: &Event) -> Result<(), Error> {
    lose()?;
    panic!("{}", header(event, "reason"));
}

/// Effects that the failure has to throw away.
fn lose() -> Result<(), Error> {
    out(NewEvent::new("lost", ""))?;
    state::set("lost", "lost")
}
