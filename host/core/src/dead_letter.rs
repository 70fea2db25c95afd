//! Events that are set aside for a group, and what is asked of them from outside.

use crate::{Event, Failure, Offset};

/// An event that is set aside for a group, payload and all: retention of the stream never waits for it. Its id, for
/// people, is its place: `PARTITION/OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event as it stood in the stream, or as somebody edited it since.
    pub event: Event,
    /// Why it was not handled.
    pub failure: Failure,
    /// The digest of the module version that failed; none for an event that was never tried.
    pub digest: Option<String>,
    /// Whether later events of its key wait behind it: its key is parked.
    pub parks: bool,
    /// What somebody asked of it and the partition's owner has not done yet.
    pub request: Option<LetterRequest>,
    /// Whether its payload was edited.
    pub edited: bool,
}

/// What can be asked of a dead letter. The owner of its partition carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterRequest {
    /// Hand it to the handler again; of a parked key, all that waits, in order.
    Replay,
    /// Forget it.
    Discard,
}

impl LetterRequest {
    /// The word for it, in every store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    /// The request of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Replay, Self::Discard].into_iter().find(|request| request.as_str() == word)
    }
}

/// What became of a dead letter that something was asked of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was handled or discarded: it is gone.
    Gone(Offset),
    /// It failed again and goes back with its history. What was asked of its key is over for all that waits in it.
    Back {
        /// Which one.
        offset: Offset,
        /// Its failures, this one and those before.
        failure: Failure,
        /// By which module version.
        digest: Option<String>,
    },
}

impl Settled {
    /// Which dead letter.
    #[must_use]
    pub fn offset(&self) -> Offset {
        match self {
            Self::Gone(offset) | Self::Back { offset, .. } => *offset,
        }
    }
}
