//! The rules of Pelton, with no I/O, no clock, no chance and no async runtime: events and offsets, the effects of a
//! handler, the verdict on a failure, and the state machine that drives one partition of one group.
//!
//! Time and chance are passed in, so that a seed replays a run to the letter. `clippy.toml` beside this crate bans the
//! calls that would break that.

mod effects;
mod event;
mod failure;
mod lease;
mod names;
mod outcome;
mod partition;
mod pump;
mod time;

pub use effects::{Effects, Emit, Journal};
pub use event::{Event, EventFault, HEADERS_BYTES_MAX, NAME_BYTES_MAX, NewEvent};
pub use failure::{Backoff, FailurePolicy, RETRY_AFTER_MS_MAX, Then, Verdict, verdict};
pub use lease::{Claim, Commit, CommitOutcome, Control, Lease, Mark};
pub use names::{NameFault, check_name};
pub use outcome::{Invocation, Outcome};
pub use partition::partition_of;
pub use pump::{Action, End, Input, Phase, Pump, PumpSettings, Request};
pub use time::{Epoch, Offset, Timestamp};
