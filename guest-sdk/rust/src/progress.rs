//! How far a batch handler got.

use crate::host;

/// Says that the first `count` events of this batch are handled, and that the effects made so far are theirs.
///
/// They are kept even if the call fails or traps later; the event after them is the one that failed. A handler that
/// never says so is taken as a whole, and a failing batch is split until the event is found.
///
/// For a [`BatchHandler`](crate::BatchHandler) only. The world of a [`Handler`](crate::Handler) does not have it, and a
/// host may refuse a component that asks for it.
pub fn handled(count: usize) {
    host::progress(u32::try_from(count).unwrap_or(u32::MAX));
}
