//! A store in memory: for tests, the seeded simulation and `pelton test`. Nothing of it survives the process.
//!
//! Maps are ordered and every future is ready at once (except waiting for a change), so that a seed replays a run.

mod letters;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pelton_core::{
    Acquired, Claim, Commit, CommitOutcome, Control, DeadLetter, Decision, Effects, Epoch, Event, GroupSeen, HostSeen,
    Lease, LetterRequest, LockSeen, Mark, MemberSeen, Membership, NewEvent, Offset, Rollout, SeatSeen, Session, Survey,
    Timestamp, partition_of,
};

use crate::{
    Appended, Backup, Changed, Clock, ConsumerInfo, GroupInfo, GroupPartition, GroupSpec, HandledRange, HandlerReport,
    HostInfo, LetterInfo, LetterQuery, ParkedKey, Progress, ReadLimit, Registration, Reset, Start, Store, StoreError,
    StreamInfo, StreamPartition, StreamSpec, rules, rules::Fence, wakeup::Wakeup,
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
    hosts: BTreeMap<Arc<str>, Host>,
    /// The last one given out.
    incarnation: u64,
    /// Hosts whose locks are held.
    locks: BTreeSet<Arc<str>>,
    /// When the store was "restarted" last, and how often.
    since: Timestamp,
    restarts: u64,
    /// By handler and host.
    reports: BTreeMap<(String, String), HandlerReport>,
    rollouts: BTreeMap<String, Rollout>,
    /// By digest.
    modules: BTreeMap<String, Arc<[u8]>>,
}

struct Stream {
    payload_bytes_max: u64,
    retention_ms: Option<u64>,
    partitions: Vec<Partition>,
}

/// An event's index is its offset less that of the first.
#[derive(Default)]
struct Partition {
    first: Offset,
    events: Vec<Event>,
    offsets: BTreeMap<String, Offset>,
}

struct Group {
    stream: String,
    handler: String,
    seats: Vec<Seat>,
    generation: u64,
    members: BTreeMap<Arc<str>, Member>,
}

struct Member {
    incarnation: u64,
    registered_at: Timestamp,
    session_timeout_ms: u64,
    partitions_max: u32,
    expelled: bool,
}

/// A group's place in one partition.
#[derive(Default)]
struct Seat {
    committed: Offset,
    position: Offset,
    owner: Option<Arc<str>>,
    target: Option<Arc<str>>,
    previous: Option<Arc<str>>,
    epoch: Epoch,
    mark: Mark,
    failed_by: Option<String>,
    /// That of the last commit of the present lease.
    sequence: u64,
    control: Control,
    committed_at: Option<Timestamp>,
    state: BTreeMap<String, Vec<u8>>,
    given_up_in_row: u32,
    skipped: u64,
    letters: BTreeMap<Offset, DeadLetter>,
    remembered: BTreeMap<String, (Offset, Timestamp)>,
    ranges: VecDeque<HandledRange>,
}

struct Host {
    incarnation: u64,
    registered_at: Timestamp,
    last_heartbeat: Timestamp,
    labels: BTreeMap<String, String>,
    /// The restarts of the store when it registered.
    restarts: u64,
    expelled: bool,
}

impl MemoryStore {
    /// An empty store that takes its time from `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, data: Mutex::default(), wakeup: Wakeup::default() }
    }

    /// A host's process is gone, or lost its connection: its lock is free.
    pub fn drop_lock(&self, host: &str) {
        self.data().locks.remove(host);
    }

    /// As if the store had been restarted: every lock is free, and that says nothing about anybody.
    pub fn restart(&self) {
        let now = self.now();
        let mut data = self.data();
        data.locks.clear();
        data.restarts += 1;
        data.since = now;
        self.wakeup.changed();
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
            (stream.payload_bytes_max, stream.retention_ms) = (spec.payload_bytes_max, spec.retention_ms);
            return Ok(());
        }
        let partitions = (0..declared).map(|_| Partition::default()).collect();
        let StreamSpec { payload_bytes_max, retention_ms, .. } = *spec;
        data.streams.insert(spec.name.clone(), Stream { payload_bytes_max, retention_ms, partitions });
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
        let (stream, handler) = (spec.stream.clone(), spec.handler.clone());
        let group = Group { stream, handler, seats, generation: 0, members: BTreeMap::new() };
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
                retention_ms: stream.retention_ms,
            },
            partitions: stream.partitions.iter().map(|p| StreamPartition { first: p.first, head: p.head() }).collect(),
        };
        Ok(data.streams.iter().map(info).collect())
    }

    async fn groups(&self) -> Result<Vec<GroupInfo>, StoreError> {
        let now = self.now();
        let data = self.data();
        let survey = data.survey(now);
        let info = |(name, group): (&String, &Group)| GroupInfo {
            name: name.clone(),
            stream: group.stream.clone(),
            handler: group.handler.clone(),
            partitions: data.partitions_of(group),
            consumers: data.consumers_of(name, &survey),
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
        let from = usize::try_from(from.0.saturating_sub(found.first.0)).unwrap_or(usize::MAX);
        let rest = found.events.get(from..).unwrap_or_default();

        let mut bytes = 0;
        let fits = |event: &&Event| {
            bytes += event.bytes() as u64;
            bytes <= limit.bytes
        };
        let count = rest.iter().take(limit.events as usize).take_while(fits).count().max(1);
        Ok(rest[..count.min(rest.len())].to_vec())
    }

    async fn acquire(&self, group: &str, partition: u32, session: &Session) -> Result<Acquired, StoreError> {
        let mut data = self.data();
        let head = data.head_of(group, partition)?;
        let member = data.is_member(group, session);
        let seat = data.seat_mut(group, partition)?;
        let meant = seat.target.as_ref() == Some(&session.host);
        let free = seat.owner.as_ref().is_none_or(|owner| *owner == session.host);
        if !member || !meant || !free {
            return Ok(Acquired::NotYet);
        }
        seat.epoch.0 += 1;
        seat.sequence = 0;
        seat.owner = Some(Arc::clone(&session.host));
        seat.position = seat.committed;
        let claim = Claim {
            epoch: seat.epoch,
            committed: seat.committed,
            head,
            mark: seat.mark.clone(),
            failed_by: seat.failed_by.clone(),
            control: seat.control,
            given_up_in_row: seat.given_up_in_row,
            letters: seat.letters.len() as u64,
            letters_requested: seat.is_letter_requested(),
            parked: seat.parked_keys(),
            handled_by: seat.handled_by(),
        };
        self.wakeup.changed();
        Ok(Acquired::Claimed(claim))
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
        let handler = data.group(group)?.handler.clone();
        let seat = data.seat_mut(group, partition)?;
        seat.store(&commit, now);
        seat.store_letters(&commit, now);
        seat.store_ranges(&commit, &handler, now);
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

    async fn letters_requested(
        &self,
        group: &str,
        partition: u32,
        limit: ReadLimit,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut data = self.data();
        let letters = data.seat_mut(group, partition)?.letters.values();
        let requested = letters.filter(|letter| letter.request.is_some()).cloned().collect();
        Ok(letters::limited(requested, limit, |letter: &DeadLetter| letter.event.bytes()))
    }

    async fn remembered(&self, group: &str, partition: u32, ids: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
        let mut data = self.data();
        let known = &data.seat_mut(group, partition)?.remembered;
        Ok(ids.into_iter().filter(|id| known.contains_key(id)).collect())
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
            seat.control = Control { paused: false, resumes: seat.control.resumes + 1, ..seat.control };
            (seat.mark, seat.failed_by, seat.given_up_in_row) = (Mark::Clear, None, 0);
        }
        self.wakeup.changed();
        Ok(())
    }

    async fn letters(
        &self,
        group: &str,
        query: &LetterQuery,
        after: Option<(u32, Offset)>,
        limit: ReadLimit,
    ) -> Result<Vec<LetterInfo>, StoreError> {
        self.data().letters(group, query, after, limit)
    }

    async fn parked(&self, group: &str, limit: u32) -> Result<Vec<ParkedKey>, StoreError> {
        self.data().parked(group, limit)
    }

    async fn request_letters(
        &self,
        group: &str,
        query: &LetterQuery,
        request: LetterRequest,
    ) -> Result<u64, StoreError> {
        let requested = self.data().request_letters(group, query, request)?;
        self.wakeup.changed();
        Ok(requested)
    }

    async fn edit_letter(
        &self,
        group: &str,
        partition: u32,
        offset: Offset,
        payload: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.data().edit_letter(group, partition, offset, payload)
    }

    async fn skip(&self, group: &str, partition: u32, park: bool) -> Result<Offset, StoreError> {
        let now = self.now();
        let skipped = self.data().skip(group, partition, park, now)?;
        self.wakeup.changed();
        Ok(skipped)
    }

    async fn reset(&self, reset: &Reset) -> Result<(), StoreError> {
        let now = self.now();
        let data = &mut *self.data();
        data.group(&reset.group)?;
        if !reset.force {
            rules::refuse_active(&data.survey(now), &reset.group, rules::REMEDY_RESET)?;
        }
        for (&partition, &to) in &reset.to {
            let head = data.head_of(&reset.group, partition)?;
            let stream = data.group(&reset.group)?.stream.clone();
            let first = data.stream(&stream)?.partitions[partition as usize].first;
            rules::check_reset(&reset.group, partition, to, first, head)?;
            let letters = data.seat_mut(&reset.group, partition)?.letters.range(to..).count() as u64;
            if letters > 0 {
                return Err(rules::letters_in_range(&reset.group, letters));
            }
            if reset.clear_state.is_none() && !data.seat_mut(&reset.group, partition)?.state.is_empty() {
                return Err(StoreError::HasState { group: reset.group.clone() });
            }
        }
        for (&partition, &to) in reset.to.iter().filter(|_| !reset.dry_run) {
            let seat = data.seat_mut(&reset.group, partition)?;
            seat.end_range();
            (seat.committed, seat.position, seat.committed_at) = (to, to, Some(now));
            (seat.mark, seat.failed_by, seat.given_up_in_row) = (Mark::Clear, None, 0);
            seat.remembered.retain(|_, (offset, _)| *offset < to);
            // Whoever acquires it next gets the next epoch; until then nobody's is the present one.
            seat.owner = None;
            if reset.clear_state == Some(true) {
                seat.state.clear();
            }
        }
        if !reset.dry_run {
            self.wakeup.changed();
        }
        Ok(())
    }

    async fn offset_at(&self, stream: &str, partition: u32, time: Timestamp) -> Result<Offset, StoreError> {
        let data = self.data();
        let found = data.stream(stream)?;
        let partitions = found.partitions.len() as u32;
        let found = found.partitions.get(partition as usize);
        let found = found.ok_or_else(|| rules::unknown_stream_partition(stream, partition, partitions))?;
        Ok(found.start(Start::At(time)))
    }

    async fn delete_group(&self, group: &str, with_letters: bool) -> Result<(), StoreError> {
        let now = self.now();
        let mut data = self.data();
        let letters: usize = data.group(group)?.seats.iter().map(|seat| seat.letters.len()).sum();
        if letters > 0 && !with_letters {
            return Err(rules::letters_to_delete(group, letters as u64));
        }
        rules::refuse_active(&data.survey(now), group, rules::REMEDY_DELETE)?;
        data.groups.remove(group);
        self.wakeup.changed();
        Ok(())
    }

    async fn trim(&self, stream: &str, before: Timestamp, events_max: u32) -> Result<u64, StoreError> {
        self.data().trim(stream, before, events_max, self.now())
    }

    async fn forget(&self, group: &str, before: Timestamp, keep: u64, ids_max: u32) -> Result<u64, StoreError> {
        self.data().forget(group, before, keep, ids_max)
    }

    async fn backup(&self, _to: &Path) -> Result<Backup, StoreError> {
        let (dump, restore) = ("nothing: a store in memory ends with its process".into(), "nothing".into());
        Ok(Backup::Commands { dump, restore })
    }

    async fn register(&self, registration: &Registration) -> Result<Session, StoreError> {
        let now = self.now();
        let data = &mut *self.data();
        for membership in &registration.memberships {
            data.group(&membership.group)?;
        }
        let host: Arc<str> = Arc::from(&*registration.host);
        data.incarnation += 1;
        let session = Session { host: Arc::clone(&host), incarnation: data.incarnation };
        data.locks.insert(Arc::clone(&host));
        data.free_seats_of(&host, None);
        let entry = Host {
            incarnation: session.incarnation,
            registered_at: now,
            last_heartbeat: now,
            labels: registration.labels.clone(),
            restarts: data.restarts,
            expelled: false,
        };
        data.hosts.insert(host, entry);
        // What hosts that are gone reported of their handlers was for those who asked until now.
        let Data { hosts, reports, .. } = data;
        reports.retain(|(_, host), _| hosts.contains_key(&**host));
        data.join(&session, &registration.memberships, now);
        self.wakeup.changed();
        Ok(session)
    }

    async fn join(&self, session: &Session, memberships: &[Membership]) -> Result<bool, StoreError> {
        let now = self.now();
        let data = &mut *self.data();
        for membership in memberships {
            data.group(&membership.group)?;
        }
        let joined = data.stands(session);
        if joined {
            data.join(session, memberships, now);
            self.wakeup.changed();
        }
        Ok(joined)
    }

    async fn heartbeat(&self, sessions: &[Session]) -> Result<Vec<bool>, StoreError> {
        let now = self.now();
        let data = &mut *self.data();
        let beat = |session: &Session| {
            let stands = data.stands(session);
            if let Some(host) = data.hosts.get_mut(&session.host).filter(|_| stands) {
                host.last_heartbeat = now;
            }
            stands
        };
        Ok(sessions.iter().map(beat).collect())
    }

    async fn deregister(&self, session: &Session) -> Result<(), StoreError> {
        let data = &mut *self.data();
        if data.hosts.get(&session.host).is_none_or(|host| host.incarnation != session.incarnation) {
            return Ok(());
        }
        data.hosts.remove(&session.host);
        data.locks.remove(&session.host);
        data.free_seats_of(&session.host, None);
        for group in data.groups.values_mut() {
            if group.members.remove(&session.host).is_some() {
                group.generation += 1;
            }
        }
        self.wakeup.changed();
        Ok(())
    }

    async fn lock_lost(&self) {
        // Nothing takes a lock away from its own process.
        pending().await
    }

    async fn survey(&self) -> Result<Survey, StoreError> {
        Ok(self.data().survey(self.now()))
    }

    async fn decide(&self, decision: &Decision) -> Result<bool, StoreError> {
        let mut data = self.data();
        let done = match decision {
            Decision::Expel { session, group, last_heartbeat, .. } => {
                data.expel(session, group.as_deref(), *last_heartbeat)
            }
            Decision::Assign { group, generation, targets, homes } => data.assign(group, *generation, targets, homes),
        };
        if done {
            self.wakeup.changed();
        }
        Ok(done)
    }

    async fn cleanup(&self) -> Result<Vec<String>, StoreError> {
        let data = &mut *self.data();
        let gone: Vec<Arc<str>> =
            data.hosts.iter().filter(|(_, host)| host.expelled).map(|(name, _)| Arc::clone(name)).collect();
        data.hosts.retain(|_, host| !host.expelled);
        for group in data.groups.values_mut() {
            // A host that was given up here alone keeps the mark until it registers again: without it, its next heartbeat
            // would be told that all is well.
            group.members.retain(|host, _| !gone.contains(host));
        }
        Ok(gone.iter().map(|host| host.to_string()).collect())
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, StoreError> {
        let now = self.now();
        let data = self.data();
        let survey = data.survey(now);
        let info = |((name, host), seen): ((&Arc<str>, &Host), &HostSeen)| HostInfo {
            host: name.to_string(),
            registered_at: host.registered_at,
            last_heartbeat: host.last_heartbeat,
            active: survey.shows_active(seen),
            labels: host.labels.clone(),
            groups: data
                .groups
                .iter()
                .filter(|(_, group)| group.members.contains_key(name))
                .map(|(name, _)| name.clone())
                .collect(),
        };
        Ok(data.hosts.iter().zip(&survey.hosts).map(info).collect())
    }

    async fn report_handlers(&self, reports: &[HandlerReport]) -> Result<(), StoreError> {
        let by_name = |report: &HandlerReport| ((report.handler.clone(), report.host.clone()), report.clone());
        self.data().reports.extend(reports.iter().map(by_name));
        Ok(())
    }

    async fn handlers(&self) -> Result<Vec<HandlerReport>, StoreError> {
        Ok(self.data().reports.values().cloned().collect())
    }

    async fn rollouts_revision(&self) -> Result<u64, StoreError> {
        Ok(self.data().rollouts.values().map(|rollout| rollout.revision).sum())
    }

    async fn rollouts(&self) -> Result<Vec<Rollout>, StoreError> {
        Ok(self.data().rollouts.values().cloned().collect())
    }

    async fn save_rollout(&self, rollout: &Rollout, module: Option<Arc<[u8]>>) -> Result<bool, StoreError> {
        Ok(self.data().save_rollout(rollout, module))
    }

    async fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.data().modules.get(digest).map(|bytes| bytes.to_vec()))
    }

    async fn ranges(&self, handler: &str, limit: u32) -> Result<Vec<HandledRange>, StoreError> {
        Ok(self.data().ranges(handler, limit))
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
                owner: seat.owner.clone(),
                target: seat.target.clone(),
                stopped: matches!(seat.mark, Mark::Stop { .. }),
                held: match seat.mark {
                    Mark::Hold { why, .. } => Some(why),
                    _ => None,
                },
                failed_by: seat.failed_by.clone(),
                control: seat.control,
            }));
        }
        Ok(progress)
    }

    async fn changed(&self, at_most: Duration) -> Changed {
        self.wakeup.sleep(at_most).await;
        let membership = self.wakeup.is_due();
        self.wakeup.tell();
        Changed { membership }
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
            letters: seat.letters.len() as u64,
            skipped: seat.skipped,
            given_up_in_row: seat.given_up_in_row,
        };
        group.seats.iter().zip(self.heads_of(group)).zip(0..).map(info).collect()
    }

    fn consumers_of(&self, name: &str, survey: &Survey) -> Vec<ConsumerInfo> {
        let (Some(group), Some(seen)) = (self.groups.get(name), survey.groups.iter().find(|seen| seen.group == name))
        else {
            return Vec::new();
        };
        let info = |((host, member), seen): ((&Arc<str>, &Member), &MemberSeen)| ConsumerInfo {
            host: host.to_string(),
            registered_at: member.registered_at,
            last_heartbeat: self.hosts.get(host).map_or(member.registered_at, |host| host.last_heartbeat),
            session_timeout_ms: member.session_timeout_ms,
            active: survey.shows_active_member(seen),
        };
        group.members.iter().zip(&seen.members).map(info).collect()
    }

    fn is_registered(&self, session: &Session) -> bool {
        let host = self.hosts.get(&session.host);
        host.is_some_and(|host| host.incarnation == session.incarnation && !host.expelled)
    }

    /// Whether a host counts in a group under this registration.
    fn is_member(&self, group: &str, session: &Session) -> bool {
        let member = self.groups.get(group).and_then(|group| group.members.get(&session.host));
        let stands = member.is_some_and(|member| member.incarnation == session.incarnation && !member.expelled);
        stands && self.is_registered(session)
    }

    /// Whether the host was given up in no group either.
    fn stands(&self, session: &Session) -> bool {
        let mut members = self.groups.values().filter_map(|group| group.members.get(&session.host));
        self.is_registered(session) && !members.any(|member| member.expelled)
    }

    fn join(&mut self, session: &Session, memberships: &[Membership], now: Timestamp) {
        if let Some(host) = self.hosts.get_mut(&session.host) {
            host.last_heartbeat = now;
        }
        for (name, group) in &mut self.groups {
            match memberships.iter().find(|membership| membership.group == *name) {
                Some(Membership { session_timeout_ms, partitions_max, .. }) => {
                    let known = group.members.get(&session.host);
                    let known = known.filter(|known| known.incarnation == session.incarnation);
                    let member = Member {
                        incarnation: session.incarnation,
                        registered_at: known.map_or(now, |known| known.registered_at),
                        session_timeout_ms: *session_timeout_ms,
                        partitions_max: *partitions_max,
                        expelled: false,
                    };
                    group.members.insert(Arc::clone(&session.host), member);
                    group.generation += 1;
                }
                None if group.members.remove(&session.host).is_some() => group.generation += 1,
                None => {}
            }
        }
    }

    /// In one group or all.
    fn free_seats_of(&mut self, host: &str, group: Option<&str>) {
        for (name, found) in &mut self.groups {
            if group.is_none_or(|group| group == name) {
                for seat in found.seats.iter_mut().filter(|seat| seat.owner.as_deref() == Some(host)) {
                    (seat.owner, seat.position) = (None, seat.committed);
                }
            }
        }
    }

    fn survey(&self, now: Timestamp) -> Survey {
        let host = |(name, host): (&Arc<str>, &Host)| HostSeen {
            session: Session { host: Arc::clone(name), incarnation: host.incarnation },
            last_heartbeat: host.last_heartbeat,
            lock: match self.locks.contains(name) {
                true => LockSeen::Held,
                false if host.restarts == self.restarts => LockSeen::Free,
                false => LockSeen::Unknown,
            },
            expelled: host.expelled,
        };
        let member = |(host, member): (&Arc<str>, &Member)| MemberSeen {
            session: Session { host: Arc::clone(host), incarnation: member.incarnation },
            session_timeout_ms: member.session_timeout_ms,
            partitions_max: member.partitions_max,
            expelled: member.expelled,
        };
        let seat = |seat: &Seat| SeatSeen {
            owner: seat.owner.clone(),
            target: seat.target.clone(),
            previous: seat.previous.clone(),
        };
        let group = |(name, group): (&String, &Group)| GroupSeen {
            group: name.clone(),
            generation: group.generation,
            members: group.members.iter().map(member).collect(),
            seats: group.seats.iter().map(seat).collect(),
        };
        Survey {
            now,
            since: self.since,
            hosts: self.hosts.iter().map(host).collect(),
            groups: self.groups.iter().map(group).collect(),
        }
    }

    fn expel(&mut self, session: &Session, group: Option<&str>, last_heartbeat: Timestamp) -> bool {
        let stands = self.is_registered(session);
        let Some(host) = self.hosts.get_mut(&session.host) else { return false };
        if !stands || host.last_heartbeat != last_heartbeat {
            return false;
        }
        host.expelled |= group.is_none();
        for (name, found) in &mut self.groups {
            if group.is_none_or(|group| group == name)
                && let Some(member) = found.members.get_mut(&session.host)
            {
                member.expelled = true;
                found.generation += 1;
            }
        }
        self.free_seats_of(&session.host, group);
        true
    }

    fn assign(
        &mut self,
        group: &str,
        generation: u64,
        targets: &[Option<Arc<str>>],
        homes: &[Option<Arc<str>>],
    ) -> bool {
        let Some(group) = self.groups.get_mut(group).filter(|group| group.generation == generation) else {
            return false;
        };
        group.generation += 1;
        for ((seat, target), home) in group.seats.iter_mut().zip(targets).zip(homes) {
            (seat.target, seat.previous) = (target.clone(), home.clone());
        }
        true
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
        let Partition { first, events, offsets } = &mut self.partitions[partition as usize];
        if let Some(&offset) = offsets.get(&event.id) {
            return Appended { partition, offset, id: event.id, duplicate: true };
        }
        let offset = Offset(first.0 + events.len() as u64);
        let NewEvent { id, key, kind, headers, payload } = event;
        offsets.insert(id.clone(), offset);
        events.push(Event { offset, id: id.clone(), key, kind, time, headers, payload });
        Appended { partition, offset, id, duplicate: false }
    }
}

impl Partition {
    fn head(&self) -> Offset {
        Offset(self.first.0 + self.events.len() as u64)
    }

    fn start(&self, start: Start) -> Offset {
        match start {
            Start::Earliest => self.first,
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
        if let Some(mark) = &commit.mark {
            self.mark = mark.clone();
            self.failed_by.clone_from(&commit.failed_by);
        }
        self.given_up_in_row = commit.given_up_in_row;
        self.skipped += u64::from(commit.skipped);
    }
}
