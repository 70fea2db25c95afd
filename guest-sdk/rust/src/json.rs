//! Values to and from JSON, with errors that name the place.

mod path;

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Reads `json`. What does not fit is a permanent error that begins with `what`.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8], what: fmt::Arguments<'_>) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|problem| unreadable(json, &problem, what))
}

/// Writes `value`. What has no JSON form is a permanent error that begins with `what`.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T, what: fmt::Arguments<'_>) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|problem| Error::permanent(format_args!("{what}: {problem}")))
}

#[cold]
fn unreadable(json: &[u8], problem: &serde_json::Error, what: fmt::Arguments<'_>) -> Error {
    let path = path::of(problem, json);
    let colon = if path.is_empty() { "" } else { ": " };
    Error::permanent(format_args!("{what}: {path}{colon}{problem}"))
}
