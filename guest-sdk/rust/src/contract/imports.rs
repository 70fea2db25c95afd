//! Calls to the host, in the crate's own types.

use alloc::string::String;

use super::bindings::all_imports::pelton::worker;
use super::bindings::all_imports::wasi::config::store;
use super::bindings::all_imports::wasi::logging::logging;
use crate::NewEvent;
use crate::log::Level;

pub(crate) use worker::checkpoint::commit as checkpoint;
pub(crate) use worker::progress::handled as progress;
pub(crate) use worker::state::{delete as state_delete, get as state_get, set as state_set};

pub(crate) fn emit(stream: &str, event: NewEvent) -> Result<(), String> {
    let NewEvent { id, key, kind, headers, payload } = event;
    worker::outbox::emit(stream, &worker::outbox::NewEvent { id, key, kind, headers, payload })
}

pub(crate) fn config(name: &str) -> Result<Option<String>, String> {
    store::get(name).map_err(|problem| match problem {
        store::Error::Upstream(reason) | store::Error::Io(reason) => reason,
    })
}

pub(crate) fn log(level: Level, context: &str, message: &str) {
    let level = match level {
        Level::Trace => logging::Level::Trace,
        Level::Debug => logging::Level::Debug,
        Level::Info => logging::Level::Info,
        Level::Warn => logging::Level::Warn,
        Level::Error => logging::Level::Error,
        Level::Critical => logging::Level::Critical,
    };
    logging::log(level, context, message);
}
