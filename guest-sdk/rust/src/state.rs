//! Key-value state of this group and partition, committed with the position.
//!
//! It moves with the partition when another host takes it over. Two partitions never share a key. A handler reads what
//! it wrote, also earlier in the same batch.

use crate::Error;
use crate::bindings::imports::pelton::worker::state;

/// The value of `key`, if there is one.
pub fn get(key: &str) -> Option<Vec<u8>> {
    state::get(key)
}

/// Sets the value of `key`.
///
/// # Errors
///
/// A permanent error with the host's reason if the key is empty, longer than 1024 bytes, or holds a NUL character.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    state::set(key, value.as_ref()).map_err(Error::Permanent)
}

/// Removes `key`; nothing happens if there is none.
pub fn delete(key: &str) {
    state::delete(key);
}

/// The value of `key`, read as JSON, if there is one.
///
/// # Errors
///
/// A permanent error that names the key and the problem if the value is not JSON or not a `T`.
#[cfg(feature = "json")]
pub fn get_json<T: serde::de::DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key)
        .map(|value| serde_json::from_slice(&value))
        .transpose()
        .map_err(|problem| Error::permanent(format_args!("state {key:?}: {problem}")))
}

/// Sets the value of `key` as JSON.
///
/// # Errors
///
/// As [`set`], and a permanent error if `T` has no JSON form.
#[cfg(feature = "json")]
pub fn set_json<T: serde::Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    let value =
        serde_json::to_vec(value).map_err(|problem| Error::permanent(format_args!("state {key:?}: {problem}")))?;
    set(key, value)
}
