//! A store in memory: for tests, the seeded simulation and `pelton test`. Nothing of it survives the process.
//!
//! Maps are ordered and every future is ready at once (except waiting for a change), so that a seed replays a run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pelton_core::{
    Claim, Commit, CommitOutcome, Control, Effects, Epoch, Event, Lease, Mark, NewEvent, Offset, Timestamp,
    partition_of,
};

use crate::{
    Appended, Clock, ConsumerInfo, GroupInfo, GroupPartition, GroupSpec, HandlerReport, HostInfo, Progress, ReadLimit,
    Start, Store, StoreError, StreamInfo, StreamPartition, StreamSpec, rules, rules::Fence, wakeup::Wakeup,
};

/// A store in memory.
pub struct MemoryStore {
    clock: Clock,
    data: Mutex<Data>,
    wakeup: Wakeup,
}

#[derive(Default)]
struct Data {
    streams: BTreeMap<String, Stream>,
    groups: BTreeMap<String, Group>,
    hosts: BTreeMap<String, Host>,
    /// By handler and host.
    reports: BTreeMap<(String, String), HandlerReport>,
}

struct Stream {
    payload_bytes_max: u64,
    partitions: Vec<Partition>,
}

/// Nothing is ever removed: an event's index is its offset.
#[derive(Default)]
struct Partition {
    events: Vec<Event>,
    offsets: BTreeMap<String, Offset>,
}

struct Group {
    stream: String,
    handler: String,
    seats: Vec<Seat>,
}

/// A group's place in one partition.
#[derive(Default)]
struct Seat {
    committed: Offset,
    position: Offset,
    owner: Option<Arc<str>>,
    epoch: Epoch,
    mark: Mark,
    failed_by: Option<String>,
    /// That of the last commit of the present lease.
    sequence: u64,
    control: Control,
    committed_at: Option<Timestamp>,
    state: BTreeMap<String, Vec<u8>>,
}

struct Host {
    registered_at: Timestamp,
    last_heartbeat: Timestamp,
    /// And since when it works for each.
    groups: BTreeMap<String, Timestamp>,
}

impl MemoryStore {
    /// An empty store that takes its time from `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, data: Mutex::default(), wakeup: Wakeup::default() }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// No method leaves the data half changed where it could panic, so a poisoned lock guards data as good as any.
    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn declare_stream(&self, spec: &StreamSpec) -> Result<(), StoreError> {
        let mut data = self.data();
        let declared = rules::partitions(spec);
        if let Some(stream) = data.streams.get_mut(&spec.name) {
            let found = stream.partitions.len() as u32;
            if found != declared {
                return Err(StoreError::PartitionsDiffer { stream: spec.name.clone(), declared, found });
            }
            stream.payload_bytes_max = spec.payload_bytes_max;
            return Ok(());
        }
        let partitions = (0..declared).map(|_| Partition::default()).collect();
        data.streams.insert(spec.name.clone(), Stream { payload_bytes_max: spec.payload_bytes_max, partitions });
        self.wakeup.changed();
        Ok(())
    }

    async fn declare_group(&self, spec: &GroupSpec) -> Result<(), StoreError> {
        let mut data = self.data();
        let stream = data.stream(&spec.stream)?;
        let seats = stream.partitions.iter().map(|partition| Seat::at(partition.start(spec.start))).collect();
        if let Some(group) = data.groups.get_mut(&spec.name) {
            if group.stream != spec.stream {
                let (group, found) = (spec.name.clone(), group.stream.clone());
                return Err(StoreError::StreamDiffers { group, declared: spec.stream.clone(), found });
            }
            group.handler.clone_from(&spec.handler);
            return Ok(());
        }
        let group = Group { stream: spec.stream.clone(), handler: spec.handler.clone(), seats };
        data.groups.insert(spec.name.clone(), group);
        self.wakeup.changed();
        Ok(())
    }

    async fn streams(&self) -> Result<Vec<StreamInfo>, StoreError> {
        let data = self.data();
        let info = |(name, stream): (&String, &Stream)| StreamInfo {
            spec: StreamSpec {
                name: name.clone(),
                partitions: stream.partitions.len() as u32,
                payload_bytes_max: stream.payload_bytes_max,
            },
            partitions: stream
                .partitions
                .iter()
                .map(|p| StreamPartition { first: Offset(0), head: p.head() })
                .collect(),
        };
        Ok(data.streams.iter().map(info).collect())
    }

    async fn groups(&self) -> Result<Vec<GroupInfo>, StoreError> {
        let data = self.data();
        let info = |(name, group): (&String, &Group)| GroupInfo {
            name: name.clone(),
            stream: group.stream.clone(),
            handler: group.handler.clone(),
            partitions: data.partitions_of(group),
            consumers: data.consumers_of(name),
        };
        Ok(data.groups.iter().map(info).collect())
    }

    async fn append(&self, stream: &str, events: Vec<NewEvent>) -> Result<Vec<Appended>, StoreError> {
        let now = self.now();
        let mut data = self.data();
        let stream = data.stream_mut(stream)?;
        rules::check_events(&events, stream.payload_bytes_max)?;
        let appended: Vec<Appended> = events.into_iter().map(|event| stream.append(event, now)).collect();
        if appended.iter().any(|one| !one.duplicate) {
            self.wakeup.changed();
        }
        Ok(appended)
    }

    async fn read(
        &self,
        stream: &str,
        partition: u32,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Event>, StoreError> {
        let data = self.data();
        let found = data.stream(stream)?;
        let partitions = found.partitions.len() as u32;
        let found = found.partitions.get(partition as usize);
        let found = found.ok_or_else(|| rules::unknown_stream_partition(stream, partition, partitions))?;
        let rest = usize::try_from(from.0).ok().and_then(|from| found.events.get(from..)).unwrap_or_default();

        let mut bytes = 0;
        let fits = |event: &&Event| {
            bytes += event.bytes() as u64;
            bytes <= limit.bytes
        };
        let count = rest.iter().take(limit.events as usize).take_while(fits).count().max(1);
        Ok(rest[..count.min(rest.len())].to_vec())
    }

    async fn acquire(&self, group: &str, partition: u32, host: &str) -> Result<Claim, StoreError> {
        let mut data = self.data();
        let head = data.head_of(group, partition)?;
        let seat = data.seat_mut(group, partition)?;
        seat.epoch.0 += 1;
        seat.sequence = 0;
        seat.owner = Some(host.into());
        seat.position = seat.committed;
        let claim = Claim {
            epoch: seat.epoch,
            committed: seat.committed,
            head,
            mark: seat.mark.clone(),
            failed_by: seat.failed_by.clone(),
            control: seat.control,
        };
        self.wakeup.changed();
        Ok(claim)
    }

    async fn commit(&self, commit: Arc<Commit>) -> Result<CommitOutcome, StoreError> {
        let now = self.now();
        let data = &mut *self.data();
        let (group, partition) = (&*commit.lease.group, commit.lease.partition);
        let (Ok(head), Ok(seat)) = (data.head_of(group, partition), data.seat_mut(group, partition)) else {
            return Ok(CommitOutcome::Fenced);
        };
        match rules::fence(&commit, seat.owner.as_deref(), seat.epoch, seat.sequence, seat.committed) {
            Fence::Passes => {}
            Fence::Repeated => return Ok(CommitOutcome::Committed),
            Fence::Fenced => return Ok(CommitOutcome::Fenced),
        }
        // All that can be refused is, before anything is stored: there is no transaction to roll back.
        if let Some(reason) = rules::refuse_move(&commit, head).or_else(|| data.refuse(&commit.effects)) {
            return Ok(CommitOutcome::Refused(reason));
        }
        let seat = data.seat_mut(group, partition)?;
        seat.store(&commit, now);
        for (key, value) in &commit.effects.state {
            match value {
                Some(value) => drop(seat.state.insert(key.clone(), value.clone())),
                None => drop(seat.state.remove(key)),
            }
        }
        let emitted = !commit.effects.emits.is_empty();
        for emit in &commit.effects.emits {
            data.stream_mut(&emit.stream)?.append(emit.event.clone(), now);
        }
        if emitted {
            self.wakeup.changed();
        }
        Ok(CommitOutcome::Committed)
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut data = self.data();
        let Ok(seat) = data.seat_mut(&lease.group, lease.partition) else { return Ok(()) };
        if seat.owner.as_ref() == Some(&lease.host) && seat.epoch == lease.epoch {
            seat.owner = None;
            seat.position = seat.committed;
            self.wakeup.changed();
        }
        Ok(())
    }

    async fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.data().seat_mut(group, partition)?.state.get(key).cloned())
    }

    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Result<(), StoreError> {
        self.data().seats_mut(group, partition)?.iter_mut().for_each(|seat| seat.control.paused = paused);
        self.wakeup.changed();
        Ok(())
    }

    async fn resume(&self, group: &str, partition: Option<u32>) -> Result<(), StoreError> {
        for seat in self.data().seats_mut(group, partition)? {
            seat.control = Control { paused: false, resumes: seat.control.resumes + 1 };
            (seat.mark, seat.failed_by) = (Mark::Clear, None);
        }
        self.wakeup.changed();
        Ok(())
    }

    async fn register(&self, host: &str, groups: &[String]) -> Result<(), StoreError> {
        let now = self.now();
        let data = &mut *self.data();
        for group in groups {
            data.group(group)?;
        }
        let known = data.hosts.remove(host);
        let since = |group: &String| known.as_ref().and_then(|known| known.groups.get(group)).copied().unwrap_or(now);
        let entry = Host {
            registered_at: known.as_ref().map_or(now, |known| known.registered_at),
            last_heartbeat: now,
            groups: groups.iter().map(|group| (group.clone(), since(group))).collect(),
        };
        data.hosts.insert(host.into(), entry);
        self.wakeup.changed();
        Ok(())
    }

    async fn heartbeat(&self, host: &str) -> Result<bool, StoreError> {
        let now = self.now();
        let mut data = self.data();
        let Some(host) = data.hosts.get_mut(host) else { return Ok(false) };
        host.last_heartbeat = now;
        Ok(true)
    }

    async fn deregister(&self, host: &str) -> Result<(), StoreError> {
        if self.data().hosts.remove(host).is_some() {
            self.wakeup.changed();
        }
        Ok(())
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, StoreError> {
        let data = self.data();
        let info = |(name, host): (&String, &Host)| HostInfo {
            host: name.clone(),
            registered_at: host.registered_at,
            last_heartbeat: host.last_heartbeat,
            // The hosts of a store in memory live in its own process.
            alive: true,
            groups: host.groups.keys().cloned().collect(),
        };
        Ok(data.hosts.iter().map(info).collect())
    }

    async fn report_handlers(&self, reports: &[HandlerReport]) -> Result<(), StoreError> {
        let by_name = |report: &HandlerReport| ((report.handler.clone(), report.host.clone()), report.clone());
        self.data().reports.extend(reports.iter().map(by_name));
        Ok(())
    }

    async fn handlers(&self) -> Result<Vec<HandlerReport>, StoreError> {
        Ok(self.data().reports.values().cloned().collect())
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        let data = self.data();
        let mut progress = Vec::new();
        for (name, group) in &data.groups {
            let heads = data.heads_of(group);
            progress.extend(group.seats.iter().zip(heads).zip(0..).map(|((seat, head), partition)| Progress {
                group: name.clone(),
                partition,
                committed: seat.committed,
                head,
                epoch: seat.epoch,
                stopped: matches!(seat.mark, Mark::Stop { .. }),
                failed_by: seat.failed_by.clone(),
                control: seat.control,
            }));
        }
        Ok(progress)
    }

    async fn changed(&self, at_most: Duration) {
        self.wakeup.sleep(at_most).await;
        self.wakeup.tell();
    }
}

impl Data {
    fn stream(&self, name: &str) -> Result<&Stream, StoreError> {
        self.streams.get(name).ok_or_else(|| rules::unknown_stream(name, self.streams.keys().map(String::as_str)))
    }

    fn stream_mut(&mut self, name: &str) -> Result<&mut Stream, StoreError> {
        self.stream(name)?;
        // Twice looked up, since a borrow for the error would outlive the first look.
        self.streams.get_mut(name).ok_or_else(|| rules::unknown_stream(name, []))
    }

    fn group(&self, name: &str) -> Result<&Group, StoreError> {
        self.groups.get(name).ok_or_else(|| rules::unknown_group(name, self.groups.keys().map(String::as_str)))
    }

    /// One seat of a group, or all of them.
    fn seats_mut(&mut self, group: &str, partition: Option<u32>) -> Result<&mut [Seat], StoreError> {
        self.group(group)?;
        let seats = self.groups.get_mut(group).map_or(&mut [][..], |group| &mut group.seats);
        let Some(partition) = partition else { return Ok(seats) };
        let partitions = seats.len() as u32;
        let at = partition as usize;
        seats.get_mut(at..=at).ok_or_else(|| rules::unknown_group_partition(group, partition, partitions))
    }

    fn seat_mut(&mut self, group: &str, partition: u32) -> Result<&mut Seat, StoreError> {
        let seats = self.seats_mut(group, Some(partition))?;
        seats.first_mut().ok_or_else(|| rules::unknown_group_partition(group, partition, 0))
    }

    fn heads_of(&self, group: &Group) -> impl Iterator<Item = Offset> {
        self.streams.get(&group.stream).into_iter().flat_map(|stream| stream.partitions.iter().map(Partition::head))
    }

    fn head_of(&self, group: &str, partition: u32) -> Result<Offset, StoreError> {
        let found = self.group(group)?;
        let head = self.heads_of(found).nth(partition as usize);
        head.ok_or_else(|| rules::unknown_group_partition(group, partition, found.seats.len() as u32))
    }

    fn partitions_of(&self, group: &Group) -> Vec<GroupPartition> {
        let info = |((seat, head), partition): ((&Seat, Offset), u32)| GroupPartition {
            partition,
            committed: seat.committed,
            position: seat.position,
            head,
            owner: seat.owner.as_deref().map(Into::into),
            epoch: seat.epoch,
            mark: seat.mark.clone(),
            control: seat.control,
            committed_at: seat.committed_at,
        };
        group.seats.iter().zip(self.heads_of(group)).zip(0..).map(info).collect()
    }

    fn consumers_of(&self, group: &str) -> Vec<ConsumerInfo> {
        let info = |(name, host): (&String, &Host)| {
            let registered_at = *host.groups.get(group)?;
            Some(ConsumerInfo { host: name.clone(), registered_at, last_heartbeat: host.last_heartbeat, alive: true })
        };
        self.hosts.iter().filter_map(info).collect()
    }

    /// Why effects cannot be stored, if so.
    fn refuse(&self, effects: &Effects) -> Option<String> {
        effects.emits.iter().find_map(|emit| match self.streams.get(&*emit.stream) {
            None => Some(rules::refuse_emit_stream(&emit.stream)),
            Some(stream) => rules::refuse_emit(&emit.event, &emit.stream, stream.payload_bytes_max),
        })
    }
}

impl Stream {
    fn append(&mut self, event: NewEvent, time: Timestamp) -> Appended {
        let partition = partition_of(event.routing(), self.partitions.len() as u32);
        let Partition { events, offsets } = &mut self.partitions[partition as usize];
        if let Some(&offset) = offsets.get(&event.id) {
            return Appended { partition, offset, id: event.id, duplicate: true };
        }
        let offset = Offset(events.len() as u64);
        let NewEvent { id, key, kind, headers, payload } = event;
        offsets.insert(id.clone(), offset);
        events.push(Event { offset, id: id.clone(), key, kind, time, headers, payload });
        Appended { partition, offset, id, duplicate: false }
    }
}

impl Partition {
    fn head(&self) -> Offset {
        Offset(self.events.len() as u64)
    }

    fn start(&self, start: Start) -> Offset {
        match start {
            Start::Earliest => Offset(0),
            Start::Latest => self.head(),
            Start::At(time) => {
                self.events.iter().find(|event| event.time >= time).map_or(self.head(), |event| event.offset)
            }
        }
    }
}

impl Seat {
    fn at(offset: Offset) -> Self {
        Self { committed: offset, position: offset, ..Self::default() }
    }

    fn store(&mut self, commit: &Commit, now: Timestamp) {
        if commit.to != self.committed {
            self.committed_at = Some(now);
        }
        self.committed = commit.to;
        self.position = commit.position;
        self.sequence = commit.sequence;
        self.mark = commit.mark.clone();
        self.failed_by.clone_from(&commit.failed_by);
    }
}
