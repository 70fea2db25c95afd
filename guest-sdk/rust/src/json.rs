//! Values to and from JSON, with errors that name the place.

mod finite;
mod path;

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;
use finite::Finite;

/// Reads `json`. What does not fit is a permanent error that begins with `what`.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8], what: fmt::Arguments<'_>) -> Result<T, Error> {
    read_within("", json, what)
}

/// As [`read`]. The value is this member of what is read, and its author knows nothing of the rest: no path tells of it.
pub(crate) fn read_within<'a, T: Deserialize<'a>>(
    member: &str,
    json: &'a [u8],
    what: fmt::Arguments<'_>,
) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|problem| unfit(member, &path::of(&problem, json), &problem, what))
}

/// Writes `value`. What has no JSON form is a permanent error that begins with `what`.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T, what: fmt::Arguments<'_>) -> Result<Vec<u8>, Error> {
    write_within("", value, what)
}

/// As [`write`] and [`read_within`].
#[cfg(feature = "std")]
pub(crate) fn write_within<T: Serialize + ?Sized>(
    member: &str,
    value: &T,
    what: fmt::Arguments<'_>,
) -> Result<Vec<u8>, Error> {
    let mut json = Vec::with_capacity(128);
    match value.serialize(Finite(&mut serde_json::Serializer::new(&mut json))) {
        Ok(()) => Ok(json),
        // What is written ends where it went wrong.
        Err(problem) => Err(unfit(member, &path::at_end(&json), &problem, what)),
    }
}

/// As above, but `serde_json` hands out nothing of what it wrote, so there is no path.
#[cfg(not(feature = "std"))]
pub(crate) fn write_within<T: Serialize + ?Sized>(
    _: &str,
    value: &T,
    what: fmt::Arguments<'_>,
) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(&Finite(value)).map_err(|problem| unfit("", "", &problem, what))
}

#[cold]
fn unfit(member: &str, path: &str, problem: &serde_json::Error, what: fmt::Arguments<'_>) -> Error {
    let path = match path.strip_prefix(member) {
        Some(within) if !member.is_empty() => within.strip_prefix('.').unwrap_or(within),
        _ => path,
    };
    let colon = if path.is_empty() { "" } else { ": " };
    Error::permanent(format_args!("{what}: {path}{colon}{problem}"))
}
