//! Commits at the handler's own word, for groups with `commit = "manual"`.

use crate::host;

/// Lets everything up to and including the event in hand be committed once the handler returned successfully. Without
/// effect under any other commit strategy.
///
/// For a [`Handler`](crate::Handler) only. The world of a [`BatchHandler`](crate::BatchHandler) does not have it, and a
/// host may refuse a component that asks for it.
pub fn commit() {
    host::checkpoint();
}
