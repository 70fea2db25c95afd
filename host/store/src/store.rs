//! The trait that every store implements, and the values that go through it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pelton_core::{Claim, Commit, CommitOutcome, Control, Epoch, Event, Lease, Mark, NewEvent, Offset, Timestamp};

use crate::StoreError;

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
    /// What is known of the event at `committed`.
    pub mark: Mark,
    /// What was asked of the partition.
    pub control: Control,
    /// When the position last moved.
    pub committed_at: Option<Timestamp>,
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
    /// As [`HostInfo::alive`].
    pub alive: bool,
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
    /// Whether its process is there, as far as the store can tell at once (a lock that dies with the process); the age
    /// of the heartbeat says the rest.
    pub alive: bool,
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
}

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
    /// Whether the partition waits for somebody to resume it.
    pub stopped: bool,
    /// The digest of the module version under which the event at `committed` failed, if it did.
    pub failed_by: Option<String>,
    /// What was asked of it.
    pub control: Control,
}

/// Persistent, partitioned streams, and the groups that read them.
///
/// Every method either happened whole or not at all, but an error of class [`StoreError::Unavailable`] leaves open
/// which: `commit` is safe to repeat as it is, and so are all others but `append`, which ids make safe.
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

    /// Takes a partition: the epoch grows, whoever held it is fenced from now on.
    async fn acquire(&self, group: &str, partition: u32, host: &str) -> Result<Claim, StoreError>;

    /// Moves the position and stores what goes with it, in one transaction: fence first, then state, then emitted events
    /// in partition order. A commit that was stored before (same epoch, and the position is where this one puts it) is
    /// answered with `Committed` and stores nothing twice.
    async fn commit(&self, commit: Arc<Commit>) -> Result<CommitOutcome, StoreError>;

    /// Gives a partition back. Nothing happens if the lease is not the present one.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// A value of a group's state in a partition.
    async fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    // --- Asked from outside ----------------------------------------------------------------------------------------

    /// Pauses a partition of a group, or all of them, or lets them go on.
    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Result<(), StoreError>;

    /// Ends a pause and a stop of a partition, or of all of them: the event that failed is tried again, from its first
    /// attempt.
    async fn resume(&self, group: &str, partition: Option<u32>) -> Result<(), StoreError>;

    // --- Hosts --------------------------------------------------------------------------------------------------

    /// Registers a host with the groups it works for, or changes them; its first heartbeat.
    async fn register(&self, host: &str, groups: &[String]) -> Result<(), StoreError>;

    /// Says that a host lives. False if the host is not registered (any more).
    async fn heartbeat(&self, host: &str) -> Result<bool, StoreError>;

    /// Removes a host and its registrations. What it reported of its handlers stays, for who asks later.
    async fn deregister(&self, host: &str) -> Result<(), StoreError>;

    /// All registered hosts, by id.
    async fn hosts(&self) -> Result<Vec<HostInfo>, StoreError>;

    /// Replaces what hosts report of their handlers: one row a handler and host.
    async fn report_handlers(&self, reports: &[HandlerReport]) -> Result<(), StoreError>;

    /// The last report of each handler and host, by name.
    async fn handlers(&self) -> Result<Vec<HandlerReport>, StoreError>;

    // --- Wake-ups -----------------------------------------------------------------------------------------------

    /// Where all partitions of all groups stand, in one cheap read of one moment.
    async fn progress(&self) -> Result<Vec<Progress>, StoreError>;

    /// Returns when something may have changed since the last call, or after `at_most`. A hint and no more: a caller
    /// that reads `progress` after each return misses nothing, even if every hint is lost.
    async fn changed(&self, at_most: Duration);
}
