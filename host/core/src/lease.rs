//! A host's right to work on one partition of a group, and what it may write under it.

use std::{collections::BTreeSet, sync::Arc};

use crate::{DeadLetter, Effects, Epoch, Failure, Hold, Offset, Settled, Timestamp};

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

/// What is stored about an event that failed and is not given up. It is the one at the committed offset, or under manual
/// commits one further on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: it was not tried yet, or no failure of it counts.
    #[default]
    Clear,
    /// It is tried again.
    Retry {
        /// The failed event.
        at: Offset,
        /// What is known of its failures.
        failure: Failure,
        /// When to try again.
        next: Timestamp,
    },
    /// The partition paused by itself in front of it.
    Hold {
        /// The failed event, or one that has no room among the dead letters.
        at: Offset,
        /// What is known of its failures.
        failure: Failure,
        /// When to try it, alone.
        until: Timestamp,
        /// What for.
        why: Hold,
    },
    /// The partition stopped for the group, whoever owns it, until somebody resumes it or a new module version comes.
    Stop {
        /// The failed event.
        at: Offset,
        /// What is known of its failures.
        failure: Failure,
    },
}

impl Mark {
    /// Which event failed, and how.
    #[must_use]
    pub fn failed(&self) -> Option<(Offset, &Failure)> {
        match self {
            Self::Clear => None,
            Self::Retry { at, failure, .. } | Self::Hold { at, failure, .. } | Self::Stop { at, failure } => {
                Some((*at, failure))
            }
        }
    }

    /// Failed attempts at the event so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.failed().map_or(0, |(_, failure)| failure.attempts)
    }

    /// When it is tried again, if by itself.
    #[must_use]
    pub fn next_attempt(&self) -> Option<Timestamp> {
        match self {
            Self::Clear | Self::Stop { .. } => None,
            Self::Retry { next: at, .. } | Self::Hold { until: at, .. } => Some(*at),
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
    /// How often something was asked of its dead letters. When this grows there may be something to do.
    pub requests: u64,
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
    /// What is known of the event that failed.
    pub mark: Mark,
    /// The digest of the module version under which that event failed, if it did.
    pub failed_by: Option<String>,
    /// What was asked of the partition.
    pub control: Control,
    /// Different events that were given up in a row.
    pub given_up_in_row: u32,
    /// Dead letters that the partition holds.
    pub letters: u64,
    /// Whether something was asked of some of them and not done yet.
    pub letters_requested: bool,
    /// Its parked keys, with how many events wait in each: at least one.
    pub parked: Vec<(String, u64)>,
    /// The digest of the version that handled what came last before `committed`, if that is known.
    pub handled_by: Option<String>,
}

/// What became of an attempt to acquire a partition.
#[allow(clippy::large_enum_variant, reason = "made once a term")]
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
    /// What is to be stored about the event that failed; `None` leaves what is stored as it is.
    pub mark: Option<Mark>,
    /// The digest of the module version under which that event failed, if the mark says that one did.
    pub failed_by: Option<String>,
    /// Different events that were given up in a row.
    pub given_up_in_row: u32,
    /// How many more events were passed over because they failed.
    pub skipped: u32,
    /// What the handled events asked for.
    pub effects: Effects,
    /// Events that are set aside, in order.
    pub set_aside: Vec<DeadLetter>,
    /// What became of dead letters that something was asked of, by their offsets.
    pub settled: Vec<Settled>,
    /// Ids to remember, with their offsets: of events that this group must not handle again. What is set aside is among them,
    /// since a copy of it must not overtake it; what is settled only if it was handled.
    pub remembered: Vec<(Offset, String)>,
    /// Which version handles from which offset on, where that is another one than before: its digest. Mostly empty; in order
    /// of offsets, which lie from `from` to `to`. It is a record and moves nothing.
    pub handled_by: Vec<(Offset, String)>,
}

impl Commit {
    /// A commit that moves the position and nothing else.
    #[must_use]
    pub fn moving(lease: Lease, sequence: u64, from: Offset, to: Offset) -> Self {
        Self {
            lease,
            sequence,
            from,
            to,
            position: to,
            mark: Some(Mark::Clear),
            failed_by: None,
            given_up_in_row: 0,
            skipped: 0,
            effects: Effects::default(),
            set_aside: Vec::new(),
            settled: Vec::new(),
            remembered: Vec::new(),
            handled_by: Vec::new(),
        }
    }

    /// Whether it does nothing but move the position. If such a commit is lost, the same is done again and nothing twice;
    /// a lost mark or count would forget attempts.
    #[must_use]
    pub fn only_moves(&self) -> bool {
        let marks = self.mark.as_ref().is_some_and(|mark| *mark != Mark::Clear) || self.given_up_in_row > 0;
        let writes = !self.effects.is_empty() || !self.set_aside.is_empty() || !self.settled.is_empty();
        !marks && !writes && self.remembered.is_empty() && self.skipped == 0
    }

    /// The places of dead letters that are gone and whose ids are not remembered: those that were discarded, and in a group
    /// that remembers nothing all of them. An id that is remembered from there is to be forgotten: it would speak for an event
    /// that nobody handled and that nobody will.
    #[must_use]
    pub fn forgotten(&self) -> BTreeSet<Offset> {
        let gone = |settled: &Settled| matches!(settled, Settled::Gone(_)).then(|| settled.offset());
        let mut forgotten: BTreeSet<Offset> = self.settled.iter().filter_map(gone).collect();
        if !forgotten.is_empty() {
            for (offset, _) in &self.remembered {
                forgotten.remove(offset);
            }
        }
        forgotten
    }

    /// Bytes of what it stores: what limits on memory count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let letters = self.set_aside.iter().map(|letter| letter.event.bytes() + letter.failure.reason.len());
        let remembered = self.remembered.iter().map(|(_, id)| id.len());
        self.effects.bytes() + letters.sum::<usize>() + remembered.sum::<usize>()
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
