//! Looks at the store after every request, and at everything in the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use pelton_core::{Commit, CommitOutcome, Epoch, Event, Offset};
use pelton_store::{MemoryStore, ReadLimit, Store};

use super::script::Script;

const ALL: ReadLimit = ReadLimit { events: u32::MAX, bytes: u64::MAX };

/// Holds a run to the invariants.
pub(super) struct Auditor {
    seed: u64,
    memory: Arc<MemoryStore>,
    script: Arc<Script>,
    known: Mutex<BTreeMap<(String, u32), (Offset, Epoch)>>,
    /// Who held a partition in each term.
    owners: Mutex<BTreeMap<(String, u32, Epoch), String>>,
}

impl Auditor {
    pub(super) fn new(seed: u64, memory: Arc<MemoryStore>, script: Arc<Script>) -> Self {
        Self { seed, memory, script, known: Mutex::default(), owners: Mutex::default() }
    }

    /// Ends the run with the seed that repeats it.
    #[allow(clippy::panic)]
    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("seed {}: {what}\nreplay it: PELTON_SEED={} cargo test -p pelton --lib simulation", self.seed, self.seed)
    }

    /// A commit was answered: only who acquired the term commits in it.
    pub(super) fn committed(&self, commit: &Commit, outcome: &CommitOutcome) {
        let lease = &commit.lease;
        let term = (lease.group.to_string(), lease.partition, lease.epoch);
        let owner = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(&term).cloned();
        if *outcome == CommitOutcome::Committed && owner.as_deref() != Some(&*lease.host) {
            self.fail(&format!("{} committed in term {term:?}, which is that of {owner:?}", lease.host));
        }
    }

    /// Which partition has no live owner, or which group is not shared out evenly, if so.
    pub(super) async fn unfair(&self, hosts: &[&str]) -> Option<String> {
        let groups = self.memory.groups().await.expect("the memory store answers");
        for group in &groups {
            let mut held: BTreeMap<&str, usize> = hosts.iter().map(|host| (*host, 0)).collect();
            for row in &group.partitions {
                match row.owner.as_deref().and_then(|owner| held.get_mut(owner)) {
                    Some(count) => *count += 1,
                    None => {
                        let (name, partition, owner) = (&group.name, row.partition, &row.owner);
                        return Some(format!("{name}/{partition} is held by {owner:?}, not by one of {hosts:?}"));
                    }
                }
            }
            let (most, least) = (held.values().max().copied(), held.values().min().copied());
            if most.unwrap_or(0) > least.unwrap_or(0) + 1 {
                return Some(format!("{} is not shared out evenly: {held:?}", group.name));
            }
        }
        None
    }

    /// Who holds which partition, and in which term.
    pub(super) async fn seats(&self) -> Vec<(Option<String>, Epoch)> {
        let groups = self.memory.groups().await.expect("the memory store answers");
        groups.into_iter().flat_map(|group| group.partitions).map(|row| (row.owner, row.epoch)).collect()
    }

    /// After every request that writes: no position and no epoch falls, an epoch has one owner, and nothing is committed
    /// that no handler finished.
    pub(super) async fn check(&self) {
        let rows = self.memory.progress().await.expect("the memory store answers");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let name = format!("{}/{}", row.group, row.partition);
            if let Some(owner) = &row.owner {
                let term = (row.group.clone(), row.partition, row.epoch);
                let known = owners.entry(term).or_insert_with(|| owner.to_string());
                if **known != **owner {
                    self.fail(&format!("{name}: both {known} and {owner} hold it in epoch {}", row.epoch));
                }
            }
            let place = (row.group.clone(), row.partition);
            let (committed, epoch) = known.insert(place, (row.committed, row.epoch)).unwrap_or_default();
            if row.committed < committed || row.epoch < epoch {
                self.fail(&format!(
                    "{name} fell from {committed} (epoch {epoch}) to {} (epoch {})",
                    row.committed, row.epoch
                ));
            }
            if row.committed > row.head {
                self.fail(&format!("{name} is committed to {} past its head {}", row.committed, row.head));
            }
            for offset in (committed.0..row.committed.0).map(Offset) {
                if !self.script.has_finished(&row.group, row.partition, offset) {
                    self.fail(&format!("{name}: {offset} is committed, but no handler finished it"));
                }
            }
        }
    }

    /// In the end: every event was handled by every group, its effects are there exactly once, and those of a key are in
    /// the order of its events.
    pub(super) async fn final_check(&self, groups: &[&str], events: u64) {
        let (source, sink) = (self.all("in").await, self.all("out").await);
        if source.len() as u64 != events || sink.len() as u64 != events * groups.len() as u64 {
            let groups = groups.len();
            self.fail(&format!(
                "{} of {events} events came in and {} went out of {groups} groups",
                source.len(),
                sink.len()
            ));
        }
        for group in groups {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            let mut emitted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for event in &sink {
                let payload = String::from_utf8_lossy(&event.payload).into_owned();
                if payload.starts_with(&format!("{group} ")) {
                    emitted.entry(event.key.as_deref().unwrap_or_default()).or_default().push(payload);
                }
            }
            let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for event in &source {
                let key = event.key.as_deref().unwrap_or_default();
                let count = counts.entry(key).or_default();
                *count += 1;
                expected.entry(key).or_default().push(format!("{group} {count} {}", event.id));
            }
            if emitted != expected {
                self.fail(&format!("{group} emitted {emitted:?}\n  instead of {expected:?}"));
            }
            for (key, count) in counts {
                let partition = pelton_core::partition_of(key, self.partitions().await);
                let stored = self.memory.state(group, partition, key).await.expect("the memory store answers");
                if stored.as_deref() != Some(count.to_string().as_bytes()) {
                    self.fail(&format!("{group} counted {stored:?} events of {key} instead of {count}"));
                }
            }
        }
    }

    async fn partitions(&self) -> u32 {
        let streams = self.memory.streams().await.expect("the memory store answers");
        streams.first().map_or(1, |stream| stream.spec.partitions)
    }

    async fn all(&self, stream: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for partition in 0..self.partitions().await {
            let read = self.memory.read(stream, partition, Offset(0), ALL).await.expect("the memory store answers");
            if read.iter().zip(0..).any(|(event, offset)| event.offset != Offset(offset)) {
                self.fail(&format!("{stream}/{partition} has a gap"));
            }
            events.extend(read);
        }
        events
    }
}
