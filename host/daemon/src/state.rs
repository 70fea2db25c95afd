//! A partition's state as its handler sees it: what is stored, under what is handled but not committed yet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pelton_core::Offset;
use pelton_sandbox::StateReader;
use pelton_store::Store;

/// Values kept in memory for one partition, in bytes, beyond those that wait for a commit. So few in the simulation that
/// they do not suffice.
const CACHE_BYTES_MAX: usize = if cfg!(test) { 200 } else { 1 << 20 };
/// What an entry costs beyond its key and value.
const ENTRY_BYTES: usize = 64;

/// The state of one partition of a group under one lease. Drop it, or [`Self::forget`], with the lease.
pub(crate) struct PartitionState {
    store: Arc<dyn Store>,
    group: Arc<str>,
    partition: u32,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    values: BTreeMap<String, Cached>,
    bytes: usize,
}

struct Cached {
    value: Option<Vec<u8>>,
    /// The commit that stores it moves the position here or further; 0 for what was read.
    committed_with: Offset,
}

impl PartitionState {
    pub(crate) fn new(store: Arc<dyn Store>, group: Arc<str>, partition: u32) -> Self {
        Self { store, group, partition, cache: Mutex::default() }
    }

    /// Lays the writes of handled events over what is stored, until the position has reached `end`.
    pub(crate) fn write(&self, writes: &BTreeMap<String, Option<Vec<u8>>>, end: Offset) {
        let mut cache = self.cache();
        for (key, value) in writes {
            cache.put(key.clone(), Cached { value: value.clone(), committed_with: end });
        }
    }

    /// The position has reached `committed`: what was written until then is stored, and need not be kept.
    pub(crate) fn committed(&self, committed: Offset) {
        let mut cache = self.cache();
        if cache.bytes > CACHE_BYTES_MAX {
            cache.values.retain(|_, cached| cached.committed_with > committed);
            cache.bytes = cache.values.iter().map(|(key, cached)| cached.bytes(key)).sum();
        }
    }

    /// Nothing that was written without being committed ever happened.
    pub(crate) fn forget(&self) {
        *self.cache() = Cache::default();
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing panics while it holds the lock; a poisoned one is as good as any.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn put(&mut self, key: String, cached: Cached) {
        self.bytes += cached.bytes(&key);
        if let Some(old) = self.values.get(&key) {
            self.bytes -= old.bytes(&key);
        }
        self.values.insert(key, cached);
    }
}

impl Cached {
    fn bytes(&self, key: &str) -> usize {
        ENTRY_BYTES + key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

#[async_trait]
impl StateReader for PartitionState {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(cached) = self.cache().values.get(key) {
            return Ok(cached.value.clone());
        }
        // Nobody writes or forgets in the meantime: this read is part of a call, and those happen between calls.
        let value = self.store.state(&self.group, self.partition, key).await.map_err(|error| error.to_string())?;
        let cached = Cached { value: value.clone(), committed_with: Offset::default() };
        let mut cache = self.cache();
        // A handler may read more than it may hold; nothing needs what was read to be kept.
        if cache.bytes + cached.bytes(key) <= CACHE_BYTES_MAX {
            cache.put(key.to_owned(), cached);
        }
        Ok(value)
    }
}
