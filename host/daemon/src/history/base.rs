//! The state that versions meet at the first event.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pelton_sandbox::StateReader;
use pelton_store::Store;

use crate::bench::{Held, locked};

/// Where the state comes from that the first event of a span meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// There is none.
    Empty,
    /// The group's state as it is now. What these events did to it when they were handled is in it already.
    Today,
}

/// The state of a group in a partition as it is at the first look at each key. What was read is kept to the end: the
/// group may go on meanwhile, and both versions have to find the same.
pub(super) struct Today {
    store: Arc<dyn Store>,
    group: Arc<str>,
    partition: u32,
    read: Mutex<Held>,
    bytes_max: usize,
}

impl Today {
    pub(super) fn new(store: Arc<dyn Store>, group: Arc<str>, partition: u32, bytes_max: usize) -> Self {
        Self { store, group, partition, read: Mutex::default(), bytes_max }
    }

    pub(super) fn held_bytes(&self) -> usize {
        locked(&self.read).bytes()
    }
}

#[async_trait]
impl StateReader for Today {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(value) = locked(&self.read).get(key) {
            return Ok(value.clone());
        }
        let value = self.store.state(&self.group, self.partition, key).await.map_err(|error| error.to_string())?;
        let mut read = locked(&self.read);
        read.put(key.to_owned(), value.clone());
        // One call may read without end, so it is not enough to look between calls.
        if read.bytes() > self.bytes_max { Err(too_much(self.bytes_max)) } else { Ok(value) }
    }
}

/// Of state that does not fit.
pub(super) fn too_much(bytes_max: usize) -> String {
    format!("the state that the handler read and wrote takes more than {} MiB", bytes_max >> 20)
}
