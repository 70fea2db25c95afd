//! Tries what a handler may only do if it is granted, or never; the event's kind says what, see `explore`. What came of it
//! is emitted to `out`, as text.

mod http;
mod wasi;

use pelton_sdk::{Error, Event, Handler, NewEvent, config, emit, log};

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "test:explorer/explorer", generate_all });
}

struct Explorer;

impl Handler for Explorer {
    fn handle(event: Event) -> Result<(), Error> {
        let found = explore(&event)?;
        emit("out", NewEvent::new(&event.kind, found))
    }
}

/// | kind | does |
/// | --- | --- |
/// | `http` | requests the URL in the payload; headers of the event say how, see `http.rs` |
/// | `http-many` | as many requests at once as header `n` says, of which it tells what came of each |
/// | `http-left` | sends a request and does not wait for what comes of it |
/// | `time`, `sleep`, `random` | reads the clocks; sleeps so many ms; throws every die |
/// | `surroundings` | looks for files, environment, arguments and input |
/// | `tcp`, `udp`, `resolve` | goes there; looks the name up |
/// | `tell` | reads the configuration that the payload names, and says it in the way of header `how` |
fn explore(event: &Event) -> Result<String, Error> {
    let text = String::from_utf8_lossy(&event.payload).into_owned();
    match event.kind.as_str() {
        "http" => Ok(http::request(event, &text)),
        "http-many" => Ok(http::many(event, &text)),
        "http-left" => Ok(http::leave(event, &text)),
        "time" => Ok(wasi::time()),
        "sleep" => Ok(wasi::sleep(text.parse().map_err(Error::permanent)?)),
        "random" => Ok(wasi::random()),
        "surroundings" => Ok(wasi::surroundings()),
        "tcp" => Ok(wasi::tcp()),
        "udp" => Ok(wasi::udp()),
        "resolve" => Ok(wasi::resolve(&text)),
        "tell" => tell(event, &config::get(&text)?.unwrap_or_default()),
        _ => Ok(String::new()),
    }
}

fn tell(event: &Event, secret: &str) -> Result<String, Error> {
    match event.header("how").unwrap_or_default() {
        "message" => log::info!("the key is {secret}."),
        "context" => log::log(log::Level::Info, secret, format_args!("see the context")),
        "output" => wasi::print(&format!("the key is {secret}.\n"), 3),
        "long-output" => wasi::print(&format!("{}{secret}{}\n", "x".repeat(8185), "y".repeat(50)), 4096),
        "error" => return Err(Error::permanent(format_args!("no luck with {secret}"))),
        "long-error" => return Err(Error::permanent(format_args!("{}{secret}", "x".repeat(4090)))),
        "panic" => panic!("no luck with {secret}"),
        _ => {}
    }
    Ok(secret.len().to_string())
}

pelton_sdk::export!(Explorer);
