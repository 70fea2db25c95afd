//! The rules of Pelton, with no I/O, no clock, no chance and no async runtime: events and offsets, the effects of a
//! handler, the verdict on a failure, and the state machine that drives one partition of one group,
//! who works for a group, and who gets which partition.
//!
//! Time and chance are passed in, so that a seed replays a run to the letter. `clippy.toml` beside this crate bans the
//! calls that would break that.

mod assignment;
mod dead_letter;
mod effects;
mod event;
mod failure;
mod filter;
mod lease;
mod membership;
mod names;
mod outcome;
mod partition;
mod pump;
mod rollout;
mod time;

pub use assignment::{Candidate, Seat, assign};
pub use dead_letter::{DeadLetter, LetterRequest, Settled};
pub use effects::{Effects, Emit, Journal};
pub use event::{Event, EventFault, HEADERS_BYTES_MAX, NAME_BYTES_MAX, NewEvent};
pub use failure::{
    Aside, Backoff, Breaker, Circumstances, Class, FULL_WAIT_MS, Failure, FailurePolicy, Hold, RETRY_AFTER_MS_MAX,
    Retry, Then, Verdict, verdict,
};
pub use filter::Filter;
pub use lease::{Acquired, Claim, Commit, CommitOutcome, Control, Lease, Mark};
pub use membership::{
    Decision, Expelled, GroupSeen, HostSeen, LOCK_GRACE_MS, LockSeen, MemberSeen, Membership, Observer,
    SESSION_TIMEOUT_MS_DEFAULT, SeatSeen, Session, Survey,
};
pub use names::{NameFault, check_name};
pub use outcome::{Invocation, Outcome};
pub use partition::partition_of;
pub use pump::{Action, CommitMode, End, Holder, Input, Invoked, Phase, Pump, PumpSettings, Replayed, Request};
pub use rollout::{
    Canary, Fate, Found, MODULES_KEPT, Proposal, Refusal, Rollout, Seen, Tolerance, Trial, VERSIONS_MAX, VersionRecord,
};
pub use time::{Epoch, Offset, Timestamp};
