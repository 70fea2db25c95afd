//! What every engine decides in the same way and says in the same words.

use pelton_core::{Commit, Epoch, LetterRequest, NewEvent, Offset, Survey};

use crate::{StoreError, StreamSpec};

/// How many names an error lists before it says that there are more.
const NAMES_MAX: usize = 20;

/// What to do about members at work in a group whose positions are to be moved.
pub(crate) const REMEDY_RESET: &str = "stop them first, or take the partitions away from them with --force";

/// What to do about members at work in a group that is to be deleted.
pub(crate) const REMEDY_DELETE: &str = "stop them first";

/// How many partitions a stream is declared with: at least one, as `partition_of` takes it.
pub(crate) fn partitions(spec: &StreamSpec) -> u32 {
    spec.partitions.max(1)
}

/// Checks a whole batch before any of it is appended.
pub(crate) fn check_events(events: &[NewEvent], payload_bytes_max: u64) -> Result<(), StoreError> {
    for (index, event) in events.iter().enumerate() {
        event.check(payload_bytes_max).map_err(|fault| StoreError::EventRefused {
            index,
            id: event.id.clone(),
            fault,
        })?;
    }
    Ok(())
}

/// What a commit finds in the row of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// The lease holds and the position is where the owner thinks it is.
    Passes,
    /// This very commit is the last one stored under the lease: an earlier try worked and its answer was lost.
    Repeated,
    /// Somebody else's partition, another term, another position, or a copy that comes after later commits.
    Fenced,
}

/// The fence of a commit, in the order in which a store decides it.
pub(crate) fn fence(commit: &Commit, owner: Option<&str>, epoch: Epoch, sequence: u64, committed: Offset) -> Fence {
    let holds = owner == Some(&*commit.lease.host) && epoch == commit.lease.epoch;
    match holds {
        true if sequence == commit.sequence => Fence::Repeated,
        true if sequence < commit.sequence && committed == commit.from => Fence::Passes,
        _ => Fence::Fenced,
    }
}

/// Why no store takes a commit's move, if so: a position moves forward, and never past the head.
pub(crate) fn refuse_move(commit: &Commit, head: Offset) -> Option<String> {
    if commit.to < commit.from {
        return Some(format!("position would move back from {} to {}", commit.from, commit.to));
    }
    (commit.to > head).then(|| format!("position would move to {}, past the head at {head}", commit.to))
}

/// Why an emitted event is not taken, if its stream is unknown.
pub(crate) fn refuse_emit_stream(stream: &str) -> String {
    format!("emitted to stream {stream:?}, which does not exist")
}

/// Why an emitted event is not taken, if it is checked and faulty.
pub(crate) fn refuse_emit(event: &NewEvent, stream: &str, payload_bytes_max: u64) -> Option<String> {
    let fault = event.check(payload_bytes_max).err()?;
    Some(format!("event {:?} emitted to stream {stream:?}: {fault}", event.id))
}

/// An error that names the streams there are.
pub(crate) fn unknown_stream<'a>(stream: &str, all: impl IntoIterator<Item = &'a str>) -> StoreError {
    StoreError::UnknownStream { stream: stream.into(), known: known("streams", all) }
}

/// An error that names the groups there are.
pub(crate) fn unknown_group<'a>(group: &str, all: impl IntoIterator<Item = &'a str>) -> StoreError {
    StoreError::UnknownGroup { group: group.into(), known: known("groups", all) }
}

/// An error that says how many partitions the stream has.
pub(crate) fn unknown_stream_partition(stream: &str, partition: u32, partitions: u32) -> StoreError {
    StoreError::UnknownPartition { what: format!("stream {stream:?}"), partition, partitions }
}

/// An error that says how many partitions the group has.
pub(crate) fn unknown_group_partition(group: &str, partition: u32, partitions: u32) -> StoreError {
    StoreError::UnknownPartition { what: format!("group {group:?}"), partition, partitions }
}

/// Refuses a position where there is no event and will be none next.
pub(crate) fn check_reset(
    group: &str,
    partition: u32,
    to: Offset,
    first: Offset,
    head: Offset,
) -> Result<(), StoreError> {
    if (first..=head).contains(&to) {
        return Ok(());
    }
    Err(StoreError::OffsetOutOfRange { group: group.into(), partition, found: to, first, head })
}

/// Refuses what cannot be done while members are at work in a group.
pub(crate) fn refuse_active(survey: &Survey, group: &str, remedy: &'static str) -> Result<(), StoreError> {
    let found = survey.groups.iter().filter(|seen| seen.group == group).flat_map(|seen| &seen.members);
    let active = found.filter(|member| survey.shows_active_member(member));
    let members: Vec<String> = active.map(|member| member.session.host.to_string()).collect();
    if members.is_empty() { Ok(()) } else { Err(StoreError::GroupActive { group: group.into(), members, remedy }) }
}

/// How a dead letter is named.
pub(crate) fn letter_id(partition: u32, offset: Offset) -> String {
    format!("{partition}/{offset}")
}

/// Refuses what cannot be done to a dead letter of which something was asked.
pub(crate) fn letter_busy(group: &str, partition: u32, offset: Offset, asked: LetterRequest) -> StoreError {
    let (is, remedy) = match asked {
        LetterRequest::Replay => ("is to be replayed", "wait until it was handled or is back"),
        LetterRequest::Discard => ("is to be discarded", "wait until it is gone"),
    };
    StoreError::LetterBusy { group: group.into(), id: letter_id(partition, offset), is, remedy }
}

/// Refuses to skip where there is nothing to skip.
pub(crate) fn nothing_blocks(group: &str, partition: u32, committed: Offset) -> StoreError {
    let why = format!("no event has failed at offset {committed}; there is nothing to skip");
    StoreError::NothingBlocks { group: group.into(), partition, why }
}

/// Refuses to skip an event with others in front of it that are not committed.
pub(crate) fn skips_more(group: &str, partition: u32, committed: Offset, failed: Offset) -> StoreError {
    let why = format!(
        "the event that failed is at offset {failed}, but the handler has not committed those from {committed} on yet (commit = \"manual\"), and they would be passed over with it; move the position by hand with `pelton group reset` if that is meant"
    );
    StoreError::NothingBlocks { group: group.into(), partition, why }
}

/// Refuses to hand out events again that are dead letters.
pub(crate) fn letters_in_range(group: &str, letters: u64) -> StoreError {
    let what = "from the new position on, which would be handled twice";
    StoreError::HasLetters { group: group.into(), letters, what, or: "" }
}

/// Refuses to delete a group with dead letters.
pub(crate) fn letters_to_delete(group: &str, letters: u64) -> StoreError {
    let what = "that would be lost with it";
    StoreError::HasLetters { group: group.into(), letters, what, or: ", or delete them too with --force" }
}

/// Refuses an edit of a dead letter that is not there.
pub(crate) fn no_letter(group: &str, partition: u32, offset: Offset) -> StoreError {
    StoreError::NoLetter { group: group.into(), id: letter_id(partition, offset) }
}

fn known<'a>(what: &str, all: impl IntoIterator<Item = &'a str>) -> String {
    let mut all = all.into_iter();
    let named: Vec<String> = all.by_ref().take(NAMES_MAX).map(|name| format!("{name:?}")).collect();
    match (named.is_empty(), all.count()) {
        (true, _) => format!("there are no {what} yet"),
        (false, 0) => format!("known {what}: {}", named.join(", ")),
        (false, more) => format!("known {what}: {} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_up_to_a_bound() {
        assert_eq!(known("streams", []), "there are no streams yet");
        assert_eq!(known("streams", ["a", "b"]), r#"known streams: "a", "b""#);
        let many: Vec<String> = (0..NAMES_MAX + 3).map(|n| n.to_string()).collect();
        assert!(known("groups", many.iter().map(String::as_str)).ends_with(r#""19" and 3 more"#));
    }
}
