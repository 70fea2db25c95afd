//! The trait that every store implements, and the values that go through it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use pelton_core::{
    Acquired, Class, Commit, CommitOutcome, Control, DeadLetter, Decision, Epoch, Event, Hold, Lease, LetterRequest,
    Mark, Membership, NewEvent, Offset, Rollout, Session, Survey, Timestamp,
};
use tokio::time::{Instant, sleep};

use crate::StoreError;

/// The least time between two looks for a change of membership.
const PAUSE_BETWEEN_CHANGES: Duration = Duration::from_millis(10);

/// Where a store takes the time from. Passed in, so that tests and the simulation turn it themselves.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's own clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_millis() as u64)
    })
}

/// Whether a commit that moves only positions must reach the disk before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It must.
    #[default]
    Durable,
    /// It may be lost when the machine (not the process) dies; the events are handled again then. Effects are always
    /// durable.
    Relaxed,
}

/// A stream as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    /// How many partitions; fixed once created.
    pub partitions: u32,
    /// The largest payload, in bytes.
    pub payload_bytes_max: u64,
    /// How long an event is kept, in milliseconds, once every group has passed it; `None` for ever.
    pub retention_ms: Option<u64>,
}

/// Where a new group begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first event that is still there.
    #[default]
    Earliest,
    /// At the head.
    Latest,
    /// At the first event appended at this time or later.
    At(Timestamp),
}

/// A group as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// The stream it reads.
    pub stream: String,
    /// The handler it calls.
    pub handler: String,
    /// Where it begins, if it is new.
    pub start: Start,
}

/// What became of an event that was to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The partition of its key.
    pub partition: u32,
    /// Its offset; that of the event already there, if it is a duplicate.
    pub offset: Offset,
    /// Its id.
    pub id: String,
    /// The partition held an event of this id already; nothing was appended.
    pub duplicate: bool,
}

/// How much one read may return: whichever limit is met first, but always at least one event if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Events.
    pub events: u32,
    /// Bytes of the events, payload and all.
    pub bytes: u64,
}

/// A partition of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPartition {
    /// The oldest offset that is still there.
    pub first: Offset,
    /// The offset the next event will get.
    pub head: Offset,
}

/// A stream as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// As declared.
    pub spec: StreamSpec,
    /// By number.
    pub partitions: Vec<StreamPartition>,
}

/// A group's place in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPartition {
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub committed: Offset,
    /// What the owner would hand out next, as of its last commit.
    pub position: Offset,
    /// The offset the next event of the partition will get.
    pub head: Offset,
    /// Who acquired it last and has not released it.
    pub owner: Option<String>,
    /// The term.
    pub epoch: Epoch,
    /// What is known of the event that failed.
    pub mark: Mark,
    /// What was asked of the partition.
    pub control: Control,
    /// When the position last moved.
    pub committed_at: Option<Timestamp>,
    /// Dead letters it holds, parked events among them.
    pub letters: u64,
    /// Events that were passed over because they failed, in all.
    pub skipped: u64,
    /// Different events that were given up in a row.
    pub given_up_in_row: u32,
}

/// A group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// The stream it reads.
    pub stream: String,
    /// The handler that was declared last.
    pub handler: String,
    /// By number.
    pub partitions: Vec<GroupPartition>,
    /// Hosts that are registered in it.
    pub consumers: Vec<ConsumerInfo>,
}

/// A host's registration in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// The host.
    pub host: String,
    /// When it joined.
    pub registered_at: Timestamp,
    /// When its host last said that it lives.
    pub last_heartbeat: Timestamp,
    /// Without a heartbeat for so long, it loses its partitions, in milliseconds.
    pub session_timeout_ms: u64,
    /// Whether it counts, or is stale: given up, silent for too long, or its process is gone.
    pub active: bool,
}

/// A host that registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// Its id.
    pub host: String,
    /// When it registered.
    pub registered_at: Timestamp,
    /// When it last said that it lives.
    pub last_heartbeat: Timestamp,
    /// Whether it counts, or is stale: given up, silent for too long, or its process is gone.
    pub active: bool,
    /// Free words about it.
    pub labels: BTreeMap<String, String>,
    /// The groups it works for.
    pub groups: Vec<String>,
}

/// Whether a host runs the newest module it has seen of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerState {
    /// It does.
    Live,
    /// The newest one was refused; an older one goes on, if there is one.
    Refused,
}

/// What a host reports of one of its handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerReport {
    /// Its name.
    pub handler: String,
    /// The host.
    pub host: String,
    /// The digest of the module that answers, `sha256:…`; empty if none ever did.
    pub digest: String,
    /// Since when it answers.
    pub since: Timestamp,
    /// Whether the newest file was taken.
    pub state: HandlerState,
    /// Why it was not.
    pub error: Option<String>,
    /// Events handed to it, since the host started.
    pub calls: u64,
    /// How many of those failed.
    pub failures: u64,
    /// How many failed in which way; classes without a failure are left out.
    pub by_class: BTreeMap<Class, u64>,
    /// The digest of the version that this host tries in some partitions, if it does.
    pub trial: Option<String>,
    /// What it uses on this host, by the names of the counters.
    pub usage: BTreeMap<String, u64>,
}

/// Events of one partition that one version of a handler handled, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandledRange {
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last; `None` while the version goes on: up to the committed one.
    pub until: Option<Offset>,
    /// The handler that the group had then.
    pub handler: String,
    /// The version's digest.
    pub digest: String,
    /// On which host it took over.
    pub host: String,
    /// When the first of them was committed.
    pub since: Timestamp,
}

/// The newest ranges of a partition of a group that are kept.
pub const RANGES_MAX: usize = 1_000;

/// Where one partition of a group stands: what a host must know of many partitions, many times a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub committed: Offset,
    /// The offset the next event will get.
    pub head: Offset,
    /// The term.
    pub epoch: Epoch,
    /// Who holds it.
    pub owner: Option<Arc<str>>,
    /// Who is to hold it.
    pub target: Option<Arc<str>>,
    /// Whether the partition waits for somebody to resume it.
    pub stopped: bool,
    /// Why it is paused by itself, if it is.
    pub held: Option<Hold>,
    /// The digest of the module version under which the event at `committed` failed, if it did.
    pub failed_by: Option<String>,
    /// What was asked of it.
    pub control: Control,
}

/// A host that registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub host: String,
    /// Free words about it, shown with it.
    pub labels: BTreeMap<String, String>,
    /// The groups it works for.
    pub memberships: Vec<Membership>,
}

/// How a group's positions are moved by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// The group.
    pub group: String,
    /// Partitions and where each shall stand; those that are not named stay.
    pub to: BTreeMap<u32, Offset>,
    /// Whether the state of these partitions is kept or cleared; `None` refuses if there is some.
    pub clear_state: Option<bool>,
    /// Whether to take the partitions away from members at work. Without it, a group with active members is refused.
    pub force: bool,
    /// Whether to only check.
    pub dry_run: bool,
}

/// Which dead letters of a group are meant. Everything that is given must fit; nothing given means all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterQuery {
    /// Those of this partition.
    pub partition: Option<u32>,
    /// The one at this offset (of a partition, which should be given too).
    pub offset: Option<Offset>,
    /// Those whose event has this id.
    pub event_id: Option<String>,
    /// Those whose event has this key.
    pub key: Option<String>,
    /// Those that failed in this way.
    pub class: Option<Class>,
    /// Those whose reason contains this text, to the letter.
    pub reason: Option<String>,
    /// Those that failed, or were parked, last before this time.
    pub before: Option<Timestamp>,
    /// Only those that wait behind no other: plain ones, and the first of each parked key.
    pub first: bool,
    /// Only those of which nothing was asked; for a parked key that is to be replayed, of none that waits in it.
    pub idle: bool,
}

/// Of so many dead letters something is asked in one transaction. One that replays parked keys takes what else waits in them
/// along: of a partition no more than all that it holds.
pub const LETTERS_AT_ONCE: u32 = 10_000;

/// A dead letter as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterInfo {
    /// Its partition.
    pub partition: u32,
    /// The letter.
    pub letter: DeadLetter,
    /// The first of its parked key, if that is another one: it waits behind it.
    pub behind: Option<Offset>,
}

/// A parked key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedKey {
    /// The partition.
    pub partition: u32,
    /// The key.
    pub key: String,
    /// How many events wait, the first one included.
    pub events: u64,
    /// When the first one failed for the first time (or was parked, if it never was tried).
    pub since: Timestamp,
    /// Whether it is to be replayed.
    pub requested: bool,
}

/// What there is after asking for a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backup {
    /// A consistent copy was written, of so many bytes.
    Written(u64),
    /// The engine has better means of its own: these commands make the copy and restore it.
    Commands {
        /// Makes it.
        dump: String,
        /// Brings it back.
        restore: String,
    },
}

/// What a wait for changes ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Hosts, members, targets or owners may have changed, and not only streams and positions.
    pub membership: bool,
}

/// Persistent, partitioned streams, and the groups that read them.
///
/// Every method either happened whole or not at all, but an error of class [`StoreError::Unavailable`] leaves open
/// which: `commit` is safe to repeat as it is, and so are all others but `append`, which ids make safe, `register`, of
/// which the last one counts, and `skip`: a repeated one is refused with [`StoreError::NothingBlocks`] if the first one
/// happened, unless the next event blocks by then, which it would pass over too.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // --- What there is ------------------------------------------------------------------------------------------

    /// Creates a stream, or checks that it is as declared. `payload_bytes_max` may change; the number of partitions may not.
    async fn declare_stream(&self, spec: &StreamSpec) -> Result<(), StoreError>;

    /// Creates a group with a position in every partition, or checks that it reads the declared stream. All positions
    /// are written at once: a group that begins at the head must not skip what comes before its first commit.
    async fn declare_group(&self, spec: &GroupSpec) -> Result<(), StoreError>;

    /// All streams, by name.
    async fn streams(&self) -> Result<Vec<StreamInfo>, StoreError>;

    /// All groups, by name; of one moment.
    async fn groups(&self) -> Result<Vec<GroupInfo>, StoreError>;

    // --- The log ------------------------------------------------------------------------------------------------

    /// Appends events in one transaction, in their order within each partition, and answers for each in the order given.
    async fn append(&self, stream: &str, events: Vec<NewEvent>) -> Result<Vec<Appended>, StoreError>;

    /// Events of a partition from an offset on, in order, with no gap. Empty at the head.
    async fn read(
        &self,
        stream: &str,
        partition: u32,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Event>, StoreError>;

    // --- One partition of one group, under a lease -----------------------------------------------------------------

    /// Takes a partition that is meant for the session's host, a member in good standing, and that nobody else holds: the
    /// epoch grows, whoever held it is fenced from now on. The session's own host may hold it already: an earlier answer was lost.
    async fn acquire(&self, group: &str, partition: u32, session: &Session) -> Result<Acquired, StoreError>;

    /// Moves the position and stores what goes with it, in one transaction: fence first, then state, remembered ids, what
    /// was settled of dead letters, events that are set aside, which version handled what, and emitted events in partition
    /// order. Ids that are remembered from [`Commit::forgotten`] places are forgotten. An event that is set aside behind others
    /// of its parked key, of which a replay was asked, is replayed with them. A commit that was stored before (same epoch, and
    /// the position is where this one puts it) is answered with `Committed` and stores nothing twice.
    async fn commit(&self, commit: Arc<Commit>) -> Result<CommitOutcome, StoreError>;

    /// Gives a partition back. Nothing happens if the lease is not the present one.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Dead letters of a partition that something was asked of, in order of their offsets. For the owner.
    async fn letters_requested(
        &self,
        group: &str,
        partition: u32,
        limit: ReadLimit,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// Which of these ids the group remembers in a partition.
    async fn remembered(&self, group: &str, partition: u32, ids: Vec<String>) -> Result<BTreeSet<String>, StoreError>;

    /// A value of a group's state in a partition.
    async fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    // --- Asked from outside ----------------------------------------------------------------------------------------

    /// Pauses a partition of a group, or all of them, or lets them go on.
    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Result<(), StoreError>;

    /// Ends a pause and a stop of a partition, or of all of them: the event that failed is tried again, from its first
    /// attempt.
    async fn resume(&self, group: &str, partition: Option<u32>) -> Result<(), StoreError>;

    /// Dead letters of a group by partition and offset, beginning after a place.
    async fn letters(
        &self,
        group: &str,
        query: &LetterQuery,
        after: Option<(u32, Offset)>,
        limit: ReadLimit,
    ) -> Result<Vec<LetterInfo>, StoreError>;

    /// The parked keys of a group, by partition and key; at most `limit`.
    async fn parked(&self, group: &str, limit: u32) -> Result<Vec<ParkedKey>, StoreError>;

    /// Asks something of dead letters, for the owners of their partitions to carry out, and says of how many. A replay of
    /// any event of a parked key is one of all that waits in it. Refused with [`StoreError::LetterBusy`] if something else
    /// was asked of one of them; and then nothing is asked of any in its piece.
    ///
    /// More than [`LETTERS_AT_ONCE`] are asked in pieces, by partition and offset, each whole or not at all; what waits in a
    /// parked key is in one piece. After an error what was asked of earlier pieces stays asked: asking again asks for the
    /// rest.
    async fn request_letters(
        &self,
        group: &str,
        query: &LetterQuery,
        request: LetterRequest,
    ) -> Result<u64, StoreError>;

    /// Replaces the payload of a dead letter. Refused with [`StoreError::LetterBusy`] if something was asked of it, with
    /// [`StoreError::NoLetter`] if there is none.
    async fn edit_letter(
        &self,
        group: &str,
        partition: u32,
        offset: Offset,
        payload: Vec<u8>,
    ) -> Result<(), StoreError>;

    /// Sets the event aside that a partition waits for or is stopped at, remembers its id, moves the position past it, and
    /// answers with its offset. With `park` its key is parked; so it is if it was parked before. Whoever holds the partition is fenced, and
    /// the next owner gets a higher epoch. Refused with [`StoreError::NothingBlocks`].
    async fn skip(&self, group: &str, partition: u32, park: bool) -> Result<Offset, StoreError>;

    /// Moves positions by hand, and clears what was known of the event at them. Whoever holds one of the partitions is
    /// fenced, and the next owner gets a higher epoch. Ids that are remembered of events from the new position on are
    /// forgotten. What a version handled ends at the old position. Refused with [`StoreError::OffsetOutOfRange`], [`StoreError::GroupActive`], [`StoreError::HasState`],
    /// and with [`StoreError::HasLetters`] if events from the new position on are dead letters; and then nothing was moved.
    /// Where many ids are to be forgotten, an error may leave some of them forgotten and the positions where they were: ask
    /// again.
    async fn reset(&self, reset: &Reset) -> Result<(), StoreError>;

    /// The first offset of a partition whose event was appended at this time or later; the head if there is none.
    async fn offset_at(&self, stream: &str, partition: u32, time: Timestamp) -> Result<Offset, StoreError>;

    /// Removes a group with its positions, state and remembered ids. Refused with [`StoreError::GroupActive`] while members
    /// are active, and with [`StoreError::HasLetters`] while it has dead letters, unless they are to go `with_letters`. Where
    /// it remembers many ids, an error may leave a group that has forgotten some of them: ask again.
    async fn delete_group(&self, group: &str, with_letters: bool) -> Result<(), StoreError>;

    /// Removes the oldest events of a stream that were appended before a time and that every group has passed: at most
    /// `events_max` of each partition. Says how many it removed. Dead letters keep their events. A younger event keeps all
    /// behind it; one whose time has not come yet, of a clock that was wrong, goes with a later one that is old enough.
    async fn trim(&self, stream: &str, before: Timestamp, events_max: u32) -> Result<u64, StoreError>;

    /// Forgets at most `ids_max` ids of a group that were remembered before a time, or whose offset lies more than `keep`
    /// behind the position. Says how many.
    async fn forget(&self, group: &str, before: Timestamp, keep: u64, ids_max: u32) -> Result<u64, StoreError>;

    /// Writes a consistent copy to a file that does not exist yet, or says how to get one.
    async fn backup(&self, to: &Path) -> Result<Backup, StoreError>;

    // --- Hosts and members --------------------------------------------------------------------------------------

    /// Registers a host and takes its lock, which lives as long as this store or the process, whichever ends first. An
    /// earlier registration of the same id ends, and what it held is free: the same host finds its targets again.
    /// Refused with [`StoreError::HostInUse`] while another process holds the lock, or, where locks do not hold, while the
    /// earlier registration is not silent for its session timeout.
    async fn register(&self, registration: &Registration) -> Result<Session, StoreError>;

    /// Changes the groups that a host works for; its first heartbeat in new ones. Partitions of groups it leaves stay its
    /// own until it releases them. False if the registration is over.
    async fn join(&self, session: &Session, memberships: &[Membership]) -> Result<bool, StoreError>;

    /// Says that hosts live, all in one statement, and answers for each whether its registration stands. One that is over,
    /// even for a single group, must register again.
    async fn heartbeat(&self, sessions: &[Session]) -> Result<Vec<bool>, StoreError>;

    /// Removes a host with its memberships, frees what it holds and lets go of its lock. Nothing happens if the
    /// registration is over. What it reported of its handlers stays, for who asks before the next host registers.
    async fn deregister(&self, session: &Session) -> Result<(), StoreError>;

    /// Returns when a lock that [`Self::register`] took may be lost: the host breaks off its calls and registers again.
    async fn lock_lost(&self);

    /// All hosts, members and seats, of one moment.
    async fn survey(&self) -> Result<Survey, StoreError>;

    /// Carries out a decision, if what it was based on still holds; false if not.
    async fn decide(&self, decision: &Decision) -> Result<bool, StoreError>;

    /// Removes expelled hosts and members for good, and says whom.
    async fn cleanup(&self) -> Result<Vec<String>, StoreError>;

    /// All registered hosts, by id.
    async fn hosts(&self) -> Result<Vec<HostInfo>, StoreError>;

    /// Replaces what hosts report of their handlers: one row a handler and host.
    async fn report_handlers(&self, reports: &[HandlerReport]) -> Result<(), StoreError>;

    /// The last report of each handler and host, by name.
    async fn handlers(&self) -> Result<Vec<HandlerReport>, StoreError>;

    // --- Versions of handlers -------------------------------------------------------------------------------------

    /// The sum of all revisions of rollouts: it grows whenever one changes. Cheap, for hosts to ask often.
    async fn rollouts_revision(&self) -> Result<u64, StoreError>;

    /// Which versions answer, by handler.
    async fn rollouts(&self) -> Result<Vec<Rollout>, StoreError>;

    /// Stores a rollout over the revision it was made from (one less than its own; none where that is 0); false, and nothing
    /// happened, if it is another one by now. With it goes the module that is new in it. Modules that no rollout keeps
    /// ([`Rollout::kept`]) any more are removed.
    async fn save_rollout(&self, rollout: &Rollout, module: Option<Arc<[u8]>>) -> Result<bool, StoreError>;

    /// The bytes of a module that a rollout keeps.
    async fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Which versions of a handler handled what, by group and partition in the order in which they took over; of all,
    /// the newest `limit`.
    async fn ranges(&self, handler: &str, limit: u32) -> Result<Vec<HandledRange>, StoreError>;

    // --- Wake-ups -----------------------------------------------------------------------------------------------

    /// Where all partitions of all groups stand, in one cheap read of one moment.
    async fn progress(&self) -> Result<Vec<Progress>, StoreError>;

    /// Returns when something may have changed since the last call, or after `at_most`. A hint and no more: a caller
    /// that reads `progress` after each return misses nothing, even if every hint is lost.
    async fn changed(&self, at_most: Duration) -> Changed;

    /// As [`Self::changed`], but events and positions wake nobody: for who looks after hosts and members.
    async fn membership_changed(&self, at_most: Duration) {
        let asked = Instant::now();
        loop {
            let left = at_most.saturating_sub(asked.elapsed());
            if left.is_zero() || self.changed(left).await.membership {
                return;
            }
            // Other changes may come many times a millisecond.
            sleep(PAUSE_BETWEEN_CHANGES.min(left)).await;
        }
    }
}
