//! What the host refuses, in its words.

use std::format;
use std::string::String;

use super::Host;
use crate::NewEvent;

const STATE_KEY_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 1024;
const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// What `payload_max` of a stream is if nothing else is said.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn check_state_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > STATE_KEY_BYTES_MAX {
        return Err(format!("state key has {} bytes; expected 1 to {STATE_KEY_BYTES_MAX}", key.len()));
    }
    check_text("state key", key, STATE_KEY_BYTES_MAX)
}

pub(super) fn check_emit(host: &Host, stream: &str, event: &NewEvent) -> Result<(), String> {
    if let Some(allowed) = &host.allow_emit
        && !allowed.contains(stream)
    {
        return Err(format!(
            "handler \"mock\" may not emit to stream {stream:?}: allow.emit names {allowed:?}; add the stream there"
        ));
    }
    if let Some(id) = &event.id {
        if id.is_empty() {
            return Err(format!("id is empty; expected 1 to {NAME_BYTES_MAX} bytes"));
        }
        check_text("id", id, NAME_BYTES_MAX)?;
    }
    check_text("key", event.key.as_deref().unwrap_or_default(), NAME_BYTES_MAX)?;
    check_text("kind", &event.kind, NAME_BYTES_MAX)?;
    let mut headers_bytes = 0;
    for (name, value) in &event.headers {
        headers_bytes += name.len() + value.len();
        check_text("headers", name, HEADERS_BYTES_MAX)?;
        check_text("headers", value, HEADERS_BYTES_MAX)?;
    }
    check_bytes("headers", headers_bytes, HEADERS_BYTES_MAX)?;
    let found = event.payload.len();
    if found > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "payload has {found} bytes, over the stream's payload_max of {PAYLOAD_BYTES_MAX}; send less, or raise payload_max"
        ));
    }
    Ok(())
}

fn check_text(field: &str, text: &str, limit: usize) -> Result<(), String> {
    if text.contains('\0') {
        return Err(format!("{field} holds a NUL character, which no store can keep as text; remove it"));
    }
    check_bytes(field, text.len(), limit)
}

fn check_bytes(field: &str, found: usize, limit: usize) -> Result<(), String> {
    if found > limit { Err(format!("{field} has {found} bytes; expected at most {limit}")) } else { Ok(()) }
}
