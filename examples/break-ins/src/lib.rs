//! The middle of a pipeline: of all requests to a web server, the logins that failed.

use pelton_sdk::{Error, Event, NewEvent, emit};
use serde::{Deserialize, Serialize};

/// As `examples/hot-parser` emits it.
#[derive(Deserialize)]
struct Request {
    client: String,
    method: String,
    path: String,
    status: u16,
    time: String,
    user: Option<String>,
}

/// As `examples/sliding-window` takes it.
#[derive(Serialize)]
struct FailedLogin {
    at: String,
    from: String,
}

#[pelton_sdk::handler]
fn failed_logins(request: Request, _event: &Event) -> Result<(), Error> {
    let Request { client, method, path, status, time, user } = request;
    let is_login = method == "POST" && path.split('?').next() == Some("/login");
    match user {
        Some(account) if is_login && matches!(status, 401 | 403) => {
            let login = FailedLogin { at: time, from: client };
            // By account from here on, whichever address it comes from: the next handler counts by key.
            emit("logins", NewEvent::json("login.failed", &login)?.key(account))
        }
        _ => Ok(()),
    }
}
