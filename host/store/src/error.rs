//! What can go wrong in a store.

use pelton_core::{EventFault, Offset};

/// What can go wrong in a store. Messages name what was found, what was expected and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer, or the answer was lost. Trying again may help; what was asked may have happened.
    #[error("store is unavailable while {doing}: {reason}")]
    Unavailable {
        /// What was asked of it.
        doing: &'static str,
        /// What came back.
        reason: String,
    },
    /// A live host has this id.
    #[error(
        "host id {host:?} is in use{by}; give each host an id of its own with host.id, or stop the other one first"
    )]
    HostInUse {
        /// The id.
        host: String,
        /// ` (…)`: what is known of the other one: its process, or its last heartbeat.
        by: String,
    },
    /// Members are at work in a group that is to be changed by hand.
    #[error("group {group:?} has active members: {}; {remedy}", members.join(", "))]
    GroupActive {
        /// The group.
        group: String,
        /// Their hosts.
        members: Vec<String>,
        /// What to do.
        remedy: &'static str,
    },
    /// A position is to be moved to where there is no event and will be none next.
    #[error(
        "group {group:?}, partition {partition}: offset {found} lies outside {first} to {head}, the first event that is there and the next that will be"
    )]
    OffsetOutOfRange {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// As asked.
        found: Offset,
        /// The oldest offset that is still there.
        first: Offset,
        /// The head.
        head: Offset,
    },
    /// Positions are to be moved, and state was built from what came before them.
    #[error(
        "group {group:?} has state in the partitions to reset, built from the events before their positions; say --state keep or --state clear"
    )]
    HasState {
        /// The group.
        group: String,
    },
    /// Positions are to be moved back over dead letters, or a group is to be deleted that has some.
    #[error(
        "group {group:?} has {letters} dead letters {what}; replay or discard them first (`pelton dead-letters list {group}`){or}"
    )]
    HasLetters {
        /// The group.
        group: String,
        /// How many.
        letters: u64,
        /// Which.
        what: &'static str,
        /// `, or …`: what else to do, if there is something.
        or: &'static str,
    },
    /// Something was asked of a dead letter that rules out what is asked now.
    #[error("dead letter {id} of group {group:?} {is}; {remedy}")]
    LetterBusy {
        /// The group.
        group: String,
        /// Its place: `PARTITION/OFFSET`.
        id: String,
        /// What was asked of it: `is to be replayed`, `is to be discarded`.
        is: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// No such dead letter.
    #[error("group {group:?} has no dead letter {id}; `pelton dead-letters list {group}` shows what there is")]
    NoLetter {
        /// The group.
        group: String,
        /// As asked: `PARTITION/OFFSET`.
        id: String,
    },
    /// An event is to be skipped where none failed.
    #[error("group {group:?}, partition {partition}: {why}")]
    NothingBlocks {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// Why there is nothing to skip, and what to do.
        why: String,
    },
    /// The database was written by a newer Pelton.
    #[error("database has schema {found}, this pelton knows up to {known}; use a newer pelton")]
    SchemaTooNew {
        /// In the database.
        found: i64,
        /// In this binary.
        known: i64,
    },
    /// The database lacks migrations and `auto_migrate` is off.
    #[error(
        "database has schema {found}, this pelton needs {known}; run `pelton migrate`, or set store.auto_migrate = true"
    )]
    SchemaTooOld {
        /// In the database.
        found: i64,
        /// In this binary.
        known: i64,
    },
    /// The URL names no store, or one that cannot be opened.
    #[error("store url {url:?} cannot be opened: {reason}")]
    CannotOpen {
        /// As given, without a password.
        url: String,
        /// Why, and what was expected.
        reason: String,
    },
    /// No such stream.
    #[error("stream {stream:?} does not exist; {known}")]
    UnknownStream {
        /// As asked.
        stream: String,
        /// A sentence that names those there are.
        known: String,
    },
    /// No such group.
    #[error("group {group:?} does not exist; {known}")]
    UnknownGroup {
        /// As asked.
        group: String,
        /// A sentence that names those there are.
        known: String,
    },
    /// No such partition.
    #[error("{what} has no partition {partition}; it has {partitions}, numbered from 0")]
    UnknownPartition {
        /// Of which stream or group.
        what: String,
        /// As asked.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A stream is declared with another number of partitions than it has.
    #[error(
        "stream {stream:?} is declared with {declared} partitions but has {found}; the number is fixed once the stream is created: declare {found}, or a stream of another name"
    )]
    PartitionsDiffer {
        /// The stream.
        stream: String,
        /// In the declaration.
        declared: u32,
        /// In the store.
        found: u32,
    },
    /// A group is declared on another stream than it reads.
    #[error(
        "group {group:?} is declared on stream {declared:?} but reads {found:?}; its positions mean nothing there: use a group of another name"
    )]
    StreamDiffers {
        /// The group.
        group: String,
        /// In the declaration.
        declared: String,
        /// In the store.
        found: String,
    },
    /// An event cannot be appended. Nothing of its batch was.
    #[error("event {index} of the batch (id {id:?}): {fault}")]
    EventRefused {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// Why.
        fault: EventFault,
    },
}

impl StoreError {
    /// Whether trying again may help without anybody doing something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
