//! The `config` and `secrets` that `workers.toml` gives the handler.

use crate::Error;
use crate::bindings::imports::wasi::config::store;

/// The value of `key`, if the handler was given one.
///
/// # Errors
///
/// A transient error if the host could not look it up.
pub fn get(key: &str) -> Result<Option<String>, Error> {
    store::get(key).map_err(|problem| match problem {
        store::Error::Upstream(reason) | store::Error::Io(reason) => {
            Error::transient(format_args!("config {key:?}: {reason}"))
        }
    })
}
