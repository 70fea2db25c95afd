//! The `config` and `secrets` that `workers.toml` gives the handler.

use alloc::string::String;

use crate::{Error, host};

/// The value of `key`, if the handler was given one.
///
/// # Errors
///
/// A transient error if the host could not look it up.
pub fn get(key: &str) -> Result<Option<String>, Error> {
    host::config(key).map_err(|reason| Error::transient(format_args!("config {key:?}: {reason}")))
}
