//! `pelton:worker/state`: what the handler wrote in this batch, and below it what is stored.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::{bindings::imports::pelton::worker::state, host::Host, stop::Stop};

/// The longest key, in bytes of UTF-8; see `wit/worker.wit`.
const KEY_BYTES_MAX: usize = 1024;

/// How long a read of state may take. A call does not wait for ever for a store that hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the stored state of one group and partition, as it was when the batch began.
#[async_trait]
pub trait StateReader: Send + Sync {
    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// Why the store did not answer. The call ends with [`StoreUnavailable`](pelton_core::Outcome::StoreUnavailable),
    /// which costs the event no attempt.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String>;
}

impl state::Host for Host {
    /// A key that could not have been written has no value.
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        if let Some(written) = self.ledger.written(&key) {
            return Ok(written.map(<[u8]>::to_vec));
        }
        if check_key(&key).is_err() {
            return Ok(None);
        }
        let read = timeout(READ_TIMEOUT, self.shared.state.get(&key));
        match self.shared.deadline.exempt(read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(reason)) => Err(Stop::StoreUnavailable(reason).into()),
            Err(_) => {
                Err(Stop::StoreUnavailable(format!("a read of state was not answered within {READ_TIMEOUT:?}")).into())
            }
        }
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        if let Err(fault) = check_key(&key).and_then(|()| self.check_open()) {
            return Ok(Err(fault));
        }
        let limit = self.shared.grants.limits.output_bytes;
        self.ledger.write(key, Some(value), limit)?;
        Ok(Ok(()))
    }

    /// Has no error to give, and needs none: a key that could not have been written is gone already.
    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        if check_key(&key).and_then(|()| self.check_open()).is_ok() {
            let limit = self.shared.grants.limits.output_bytes;
            self.ledger.write(key, None, limit)?;
        }
        Ok(())
    }
}

impl Host {
    /// Effects belong to events; an instance that starts has none in hand.
    pub(crate) fn check_open(&self) -> Result<(), String> {
        if self.ledger.is_open() { Ok(()) } else { Err("no event is in hand while the handler starts".into()) }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("state key has {} bytes; expected 1 to {KEY_BYTES_MAX}", key.len()));
    }
    if key.contains('\0') {
        return Err("state key holds a NUL character, which no store can keep as text; remove it".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_1024_bytes_and_no_nul() {
        assert!(check_key("k").is_ok() && check_key(&"k".repeat(1024)).is_ok());
        assert!(check_key("").is_err() && check_key(&"k".repeat(1025)).is_err() && check_key("a\0b").is_err());
    }
}
