//! A store to test, a clock to turn, and short words for what tests do with them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pelton_core::{Commit, CommitOutcome, Effects, Emit, Event, Lease, NewEvent, Offset, Timestamp, partition_of};
use pelton_store::{
    Appended, GroupPartition, GroupSpec, MemoryStore, ReadLimit, Start, Store, StoreOptions, StreamSpec, open,
};
use tempfile::TempDir;

/// Larger than any test's events.
pub(crate) const ALL: ReadLimit = ReadLimit { events: 10_000, bytes: 1 << 30 };

/// The limit of payloads in streams that a bed declares, in bytes.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 100_000;

pub(crate) struct Bed {
    pub(crate) store: Arc<dyn Store>,
    now: Arc<AtomicU64>,
    _folder: Option<TempDir>,
}

impl Bed {
    pub(crate) async fn memory() -> Self {
        let (now, clock) = clock();
        Self { store: Arc::new(MemoryStore::new(clock)), now, _folder: None }
    }

    pub(crate) async fn sqlite() -> Self {
        let (now, clock) = clock();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("pelton.db").display());
        let store = open(&url, &StoreOptions { clock, host: true, ..StoreOptions::default() }).await.unwrap();
        Self { store, now, _folder: Some(folder) }
    }

    pub(crate) fn set_time(&self, ms: u64) {
        self.now.store(ms, Ordering::Relaxed);
    }

    pub(crate) async fn stream(&self, name: &str, partitions: u32) {
        let spec = StreamSpec { name: name.into(), partitions, payload_bytes_max: PAYLOAD_BYTES_MAX };
        self.store.declare_stream(&spec).await.unwrap();
    }

    pub(crate) async fn group(&self, name: &str, stream: &str) {
        self.store.declare_group(&group(name, stream, Start::Earliest)).await.unwrap();
    }

    /// A stream `orders` of one partition with so many events, and a group `billing` on it.
    pub(crate) async fn orders(&self, events: u64) {
        self.stream("orders", 1).await;
        self.group("billing", "orders").await;
        let events = (0..events).map(|n| event(&format!("o{n}"))).collect();
        self.store.append("orders", events).await.unwrap();
    }

    pub(crate) async fn append(&self, stream: &str, ids: &[&str]) -> Vec<Appended> {
        self.store.append(stream, ids.iter().map(|id| event(id)).collect()).await.unwrap()
    }

    pub(crate) async fn read(&self, stream: &str, partition: u32) -> Vec<Event> {
        self.store.read(stream, partition, Offset(0), ALL).await.unwrap()
    }

    pub(crate) async fn ids(&self, stream: &str, partition: u32) -> Vec<String> {
        self.read(stream, partition).await.into_iter().map(|event| event.id).collect()
    }

    pub(crate) async fn acquire(&self, group: &str, partition: u32, host: &str) -> Lease {
        let claim = self.store.acquire(group, partition, host).await.unwrap();
        Lease { group: group.into(), partition, host: host.into(), epoch: claim.epoch }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> CommitOutcome {
        self.store.commit(Arc::new(commit)).await.unwrap()
    }

    pub(crate) async fn state(&self, group: &str, partition: u32, key: &str) -> Option<Vec<u8>> {
        self.store.state(group, partition, key).await.unwrap()
    }

    /// A group's place in a partition.
    pub(crate) async fn place(&self, group: &str, partition: usize) -> GroupPartition {
        let groups = self.store.groups().await.unwrap();
        groups.into_iter().find(|info| info.name == group).unwrap().partitions.swap_remove(partition)
    }
}

fn clock() -> (Arc<AtomicU64>, pelton_store::Clock) {
    let now = Arc::new(AtomicU64::new(1_000));
    let read = now.clone();
    (now, Arc::new(move || Timestamp(read.load(Ordering::Relaxed))))
}

pub(crate) fn group(name: &str, stream: &str, start: Start) -> GroupSpec {
    GroupSpec { name: name.into(), stream: stream.into(), handler: "handler".into(), start }
}

pub(crate) fn event(id: &str) -> NewEvent {
    NewEvent { id: id.into(), payload: format!("payload of {id}").into(), ..NewEvent::default() }
}

pub(crate) fn keyed(id: &str, key: &str) -> NewEvent {
    NewEvent { key: Some(key.into()), ..event(id) }
}

/// A key that belongs to a partition.
pub(crate) fn key_for(partition: u32, partitions: u32) -> String {
    let mut keys = (0..).map(|n: u32| format!("key-{n}"));
    keys.find(|key| partition_of(key, partitions) == partition).unwrap()
}

/// Each commit is a later one than all before it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A commit that moves the position and nothing else.
pub(crate) fn moves(lease: &Lease, from: u64, to: u64) -> Commit {
    Commit::moving(lease.clone(), NEXT.fetch_add(1, Ordering::Relaxed), Offset(from), Offset(to))
}

pub(crate) fn emits(stream: &str, ids: &[&str]) -> Effects {
    let emit = |id: &&str| Emit { stream: stream.into(), event: event(id) };
    Effects { emits: ids.iter().map(emit).collect(), state: BTreeMap::new() }
}

pub(crate) fn writes(key: &str, value: Option<&str>) -> Effects {
    Effects { emits: Vec::new(), state: BTreeMap::from([(key.to_owned(), value.map(|value| value.into()))]) }
}
