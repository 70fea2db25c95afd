//! Calls to the host: the same functions as in `contract/imports.rs`.

use std::eprintln;
use std::string::String;
use std::vec::Vec;

use super::call::{Call, current};
use super::{LogLine, limits};
use crate::NewEvent;
use crate::log::Level;

pub(crate) fn emit(stream: &str, event: NewEvent) -> Result<(), String> {
    ask("emit", |call| {
        limits::check_emit(&call.host, stream, &event)?;
        call.emit(stream, event);
        Ok(())
    })
}

pub(crate) fn state_get(key: &str) -> Option<Vec<u8>> {
    ask("state::get", |call| call.read(key))
}

pub(crate) fn state_set(key: &str, value: &[u8]) -> Result<(), String> {
    ask("state::set", |call| {
        limits::check_state_key(key)?;
        call.write(key, Some(value.into()));
        Ok(())
    })
}

pub(crate) fn state_delete(key: &str) {
    ask("state::delete", |call| call.write(key, None));
}

pub(crate) fn config(name: &str) -> Result<Option<String>, String> {
    ask("config::get", |call| Ok(call.host.config.get(name).cloned()))
}

/// A line that is logged outside of a call is only printed: code that logs may well be tested without a host.
pub(crate) fn log(level: Level, context: &str, message: &str) {
    eprintln!("{level:?} {context}: {message}");
    current(|call| call.host.logs.push(LogLine { level, context: context.into(), message: message.into() }));
}

pub(crate) fn checkpoint() {
    ask("checkpoint::commit", Call::request_checkpoint);
}

pub(crate) fn progress(count: u32) {
    ask("progress::handled", |call| call.handled(count as usize));
}

/// # Panics
///
/// Outside of a call.
#[track_caller]
fn ask<T>(what: &str, with: impl FnOnce(&mut Call) -> T) -> T {
    match current(with) {
        Some(answer) => answer,
        None => panic!("{what} was called without a host: use pelton_sdk::mock::Host::call or Host::handle"),
    }
}
