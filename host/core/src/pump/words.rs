//! What is said between the state machine and its driver.

use crate::{Aside, Claim, Control, Epoch, Failure, FailurePolicy, Hold, Mark, Offset, Outcome, Timestamp};

/// When a partition commits what is handled. A verdict that moves past an event is a commit point in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitMode {
    /// As soon as a batch is handled.
    #[default]
    AfterBatch,
    /// As soon as an event is handled, and before the next one is.
    AfterEach,
    /// When so many milliseconds have passed since the first event that is not committed was handled.
    Every(u64),
    /// When the handler says so.
    Manual,
}

/// What a group's configuration says about its pumps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PumpSettings {
    /// Events handed to the handler at once, at most; at least 1.
    pub batch_events_max: u32,
    /// When to commit.
    pub commit: CommitMode,
    /// Batches that may be handled while earlier ones are being committed.
    pub commit_ahead: u32,
    /// What to do with an event that fails.
    pub on_failure: FailurePolicy,
    /// Dead letters that a partition may hold; then it pauses.
    pub letters_max: u64,
}

impl Default for PumpSettings {
    fn default() -> Self {
        Self {
            batch_events_max: 100,
            commit: CommitMode::default(),
            commit_ahead: 1,
            on_failure: FailurePolicy::default(),
            letters_max: 100_000,
        }
    }
}

/// What the driver is to do next. It answers each with an [`Input`], some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the partition: answered by `Acquired`, `NotAcquired` or `StoreFailed`.
    Acquire,
    /// Read up to `events` events from `from` on: answered by `Fetched` or `StoreFailed`.
    Fetch {
        /// The first offset.
        from: Offset,
        /// How many at most.
        events: u32,
    },
    /// Deal with the first `events` of those held: pass over what the group does not want, set aside what waits behind a
    /// parked key, hand the rest to the handler. Answered by `Invoked`, or by `NoRoom` if the first has to be set aside and
    /// there is no room for it.
    Invoke {
        /// How many.
        events: u32,
        /// How many of them may be handed to the handler.
        calls: u32,
        /// How many of them may be set aside.
        room: u64,
        /// Which delivery this is for the first of them; for the others it is the first.
        attempt: u32,
    },
    /// Take the first of the events that are held off the partition: the commit that is asked for next stores what becomes
    /// of it. Not answered.
    SetAside {
        /// What becomes of it.
        aside: Aside,
        /// Why.
        failure: Failure,
    },
    /// See to dead letters of which something was asked: at most so many are handed to the handler. Answered by `Replayed`
    /// or `StoreFailed`.
    Replay {
        /// How many.
        events: u32,
        /// The store has refused what came of the first one: it failed for this reason, and is not to be called again.
        refused: Option<String>,
    },
    /// Commit what was handled from `from` up to `to`: answered by `Committed`, `Fenced`, `Refused` or `StoreFailed`.
    /// After `StoreFailed` the same commit is asked for again, to the letter: the first may have happened.
    Commit {
        /// The position as the store should have it.
        from: Offset,
        /// The new one.
        to: Offset,
        /// What to store about the event that failed; `None` leaves it as it is.
        mark: Option<Mark>,
        /// How many different events were given up in a row.
        given_up_in_row: u32,
        /// Whether the effects that are held go with it. If not, they stay: under manual commits, a failed attempt is
        /// stored without what was handled before it.
        with_effects: bool,
    },
    /// Drop the events and effects that are held, the state overlay, and the instance if it is in a call: nothing past
    /// `committed` ever happened. The fetch and the call that are under way are broken off and not answered; nor is this.
    Rewind,
    /// Give the partition back: answered by `Released` or `StoreFailed`.
    Release,
    /// Nothing more will come of this machine.
    Finish(End),
}

/// Why a machine finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to drain; everything handled is committed and the partition is released.
    Drained,
    /// Somebody else acquired the partition. Nothing that was under way is kept.
    Fenced,
}

/// Which request a store did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `Action::Acquire`.
    Acquire,
    /// `Action::Fetch`.
    Fetch,
    /// `Action::Replay`.
    Replay,
    /// `Action::Commit`.
    Commit,
    /// `Action::Release`.
    Release,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The partition is ours.
    Acquired(Claim),
    /// It is not, yet: its owner has not let go of it, or it is meant for somebody else.
    NotAcquired,
    /// So many events from the asked offset on were read, and the next one to read is `next`. None: the head is there.
    Fetched {
        /// How many.
        events: u32,
        /// The offset after the last one; the asked one if there was none.
        next: Offset,
    },
    /// A batch was dealt with, or as much of it as possible.
    Invoked(Invoked),
    /// The first event of the batch has to be set aside, and there is no room for it.
    NoRoom,
    /// Dead letters were seen to.
    Replayed(Replayed),
    /// The commit under way is stored.
    Committed,
    /// The lease is not the present one.
    Fenced,
    /// The store will never take the data of the commit under way.
    Refused {
        /// Why.
        reason: String,
        /// Uniform in 0 to 1.
        chance: f64,
    },
    /// The store did not answer; the request may have been carried out.
    StoreFailed(Request),
    /// The partition is given back.
    Released,
    /// What others found out about the partition.
    Told {
        /// Its head is at least here.
        head: Offset,
        /// What is asked of it from outside.
        control: Control,
        /// Its term. A later one than ours says that somebody else acquired it.
        epoch: Epoch,
        /// Who holds it in that term. In our term anybody but us says that it was taken from us.
        holder: Holder,
    },
    /// A new version of the handler takes over from the next batch on.
    HandlerChanged,
    /// The group's settings changed.
    Settings(PumpSettings),
    /// Finish what is under way, commit, release, end.
    Drain,
}

/// What came of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Invoked {
    /// How many events, from the first, are done with: handled, passed over or set aside.
    pub done: u32,
    /// How many of them the handler handled.
    pub handled: u32,
    /// How many of them were set aside behind their keys.
    pub parked: u32,
    /// The offset after the last that is done with. After a failure that is located, that of the failed event.
    pub next: Offset,
    /// How the call ended; `Done` if there was none.
    pub outcome: Outcome,
    /// Whether the event at `next` is known to be the one that failed.
    pub located: bool,
    /// Under manual commits: whether all so far may be committed.
    pub checkpoint: bool,
    /// Whether the effects that are held are so many that they should be committed first.
    pub full: bool,
    /// Uniform in 0 to 1.
    pub chance: f64,
}

/// What came of seeing to dead letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// How many there were to see to. None: what was asked is done.
    pub found: u32,
    /// How many of them were handed to the handler.
    pub called: u32,
    /// How many, from the first, are settled: gone or back.
    pub settled: u32,
    /// How many of those are gone.
    pub gone: u32,
    /// How the call ended; `Done` if there was none.
    pub outcome: Outcome,
}

/// Who holds a partition, as a hint tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: it was released, or taken away.
    Nobody,
    /// This host.
    Us,
    /// Another one; or nothing is known yet.
    #[default]
    Other,
}

/// Where a partition stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not ours yet.
    Acquiring,
    /// Events are handled as they come.
    Running,
    /// The event at the position failed; it is tried again at this time.
    Retrying(Timestamp),
    /// It paused by itself until this time.
    Held(Timestamp, Hold),
    /// The event at the position failed and waits for somebody to resume the partition.
    Stopped,
    /// It ends.
    Draining,
    /// It has ended.
    Ended,
}
