//! A host's right to work on one partition of a group, and what it may write under it.

use std::sync::Arc;

use crate::{Effects, Epoch, Offset, Timestamp};

/// The right to work on one partition of a group, for one epoch. Every write for the partition names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The group.
    pub group: Arc<str>,
    /// The partition of the group's stream.
    pub partition: u32,
    /// Who holds it.
    pub host: Arc<str>,
    /// Which term of office this is.
    pub epoch: Epoch,
}

/// What is stored about the event that a group's committed offset points at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: it was not tried yet, or no failure of it counts.
    #[default]
    Clear,
    /// It failed and is tried again.
    Retry {
        /// Failed attempts so far.
        attempts: u32,
        /// When to try again.
        next: Timestamp,
        /// Why it failed.
        reason: String,
    },
    /// It failed and the partition stopped for the group, whoever owns it, until somebody resumes it or a new module
    /// version comes.
    Stop {
        /// Failed attempts so far.
        attempts: u32,
        /// Why it failed.
        reason: String,
    },
}

impl Mark {
    /// Failed attempts at the event so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Clear => 0,
            Self::Retry { attempts, .. } | Self::Stop { attempts, .. } => *attempts,
        }
    }
}

/// What somebody outside has asked of a partition of a group. Stored, and never undone by a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// No event is handed out while this is set.
    pub paused: bool,
    /// How often the partition was resumed. A stop ends when this grows: a flag read too early could not be told from
    /// an answer to the stop.
    pub resumes: u64,
}

/// What an owner finds when it acquires a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The new term.
    pub epoch: Epoch,
    /// The next offset to read.
    pub committed: Offset,
    /// The offset the next event of the partition will get.
    pub head: Offset,
    /// What is known of the event at `committed`.
    pub mark: Mark,
    /// The digest of the module version under which that event failed, if it did.
    pub failed_by: Option<String>,
    /// What was asked of the partition.
    pub control: Control,
}

/// What became of an attempt to acquire a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Claimed(Claim),
    /// Not now: it is meant for somebody else, or its owner has not let go of it yet, or our registration is over.
    NotYet,
}

/// One write of a partition's owner: the position, all that commits with it, and what follows for the next event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Under which right.
    pub lease: Lease,
    /// Which of the lease's commits this is: each is larger than the one before, and a repetition has the same. It tells a
    /// repetition from a copy that the network delivers late, when the position alone could not.
    pub sequence: u64,
    /// Where the position stands, as far as the owner knows. Another value in the store fences the commit.
    pub from: Offset,
    /// Where it shall stand; may equal `from` if only the mark changes.
    pub to: Offset,
    /// The offset the pump will hand out next: for overviews only, nothing depends on it.
    pub position: Offset,
    /// What is to be stored about the event at `to`.
    pub mark: Mark,
    /// The digest of the module version under which that event failed, if the mark says so.
    pub failed_by: Option<String>,
    /// What the handled events asked for.
    pub effects: Effects,
}

impl Commit {
    /// A commit that moves the position and nothing else.
    #[must_use]
    pub fn moving(lease: Lease, sequence: u64, from: Offset, to: Offset) -> Self {
        let (mark, effects) = (Mark::Clear, Effects::default());
        Self { lease, sequence, from, to, position: to, mark, failed_by: None, effects }
    }
}

/// What became of a commit that the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Position, mark and effects are stored, now or by an earlier try whose answer was lost.
    Committed,
    /// The lease is not the present one, or the position is not where it was thought. Nothing was stored.
    Fenced,
    /// The store will not take this data, however often it is tried. Nothing was stored.
    Refused(String),
}
