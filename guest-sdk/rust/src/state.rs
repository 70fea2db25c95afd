//! Key-value state of this group and partition, committed with the position.
//!
//! It moves with the partition when another host takes it over. Two partitions never share a key. A handler reads what
//! it wrote, also earlier in the same batch.
//!
//! State outlives the version of the handler that wrote it, and after a rollback older code reads what newer code wrote.
//! A value whose form may change is best a [`Versioned`] one from the start.

#[cfg(feature = "json")]
mod versioned;

use alloc::vec::Vec;

use crate::{Error, host};

#[cfg(feature = "json")]
pub use versioned::{Older, Versioned, get_versioned, set_versioned};

/// The value of `key`, if there is one.
pub fn get(key: &str) -> Option<Vec<u8>> {
    host::state_get(key)
}

/// Sets the value of `key`.
///
/// # Errors
///
/// A permanent error with the host's reason if the key is empty, longer than 1024 bytes, or holds a NUL character.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    host::state_set(key, value.as_ref()).map_err(Error::Permanent)
}

/// Removes `key`; nothing happens if there is none.
pub fn delete(key: &str) {
    host::state_delete(key);
}

/// The value of `key`, read as JSON, if there is one.
///
/// # Errors
///
/// A permanent error that names the key, the problem and where it is if the value is not JSON or not a `T`.
#[cfg(feature = "json")]
pub fn get_json<T: serde::de::DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key).map(|value| crate::json::read(&value, format_args!("state {key:?}"))).transpose()
}

/// Sets the value of `key` as JSON.
///
/// # Errors
///
/// As [`set`], and a permanent error that names the place if `T` has no JSON form, as a map whose keys are not strings, or
/// NaN.
#[cfg(feature = "json")]
pub fn set_json<T: serde::Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    set(key, crate::json::write(value, format_args!("state {key:?}"))?)
}
