//! A dead letter as programs read it, and as people do.

use pelton_core::{DeadLetter, LetterRequest, Offset};
use pelton_sandbox::split_backtrace;
use pelton_store::LetterInfo;
use serde::Serialize;

use crate::{event_json::EventLine, time};

/// How much of a reason a table shows, in characters.
const REASON_SHOWN_MAX: usize = 80;

/// A dead letter as JSON.
#[derive(Serialize)]
pub(super) struct LetterLine<'a> {
    id: String,
    group: &'a str,
    partition: u32,
    event: EventLine<'a>,
    reason: &'a str,
    backtrace: Option<&'a str>,
    class: &'static str,
    attempts: u32,
    first: String,
    last: String,
    digest: Option<&'a str>,
    parks: bool,
    parked_behind: Option<String>,
    requested: Option<&'static str>,
    edited: bool,
}

impl<'a> LetterLine<'a> {
    pub(super) fn of(group: &'a str, stream: &'a str, info: &'a LetterInfo) -> Self {
        let LetterInfo { partition, letter, behind } = info;
        let DeadLetter { event, failure, digest, parks, request, edited } = letter;
        let (reason, backtrace) = split_backtrace(&failure.reason);
        Self {
            id: id_of(info),
            group,
            partition: *partition,
            event: EventLine::of(stream, *partition, event),
            reason,
            backtrace,
            class: failure.class.as_str(),
            attempts: failure.attempts,
            first: time::show(failure.first),
            last: time::show(failure.last),
            digest: digest.as_deref(),
            parks: *parks,
            parked_behind: behind.map(|behind| place(*partition, behind)),
            requested: request.map(LetterRequest::as_str),
            edited: *edited,
        }
    }
}

/// How a dead letter is called: by its place.
pub(in crate::commands) fn place(partition: u32, offset: Offset) -> String {
    format!("{partition}/{offset}")
}

pub(super) fn id_of(info: &LetterInfo) -> String {
    place(info.partition, info.letter.event.offset)
}

/// Reads a place.
pub(in crate::commands) fn parse_place(text: &str) -> Option<(u32, Offset)> {
    let (partition, offset) = text.split_once('/')?;
    Some((partition.parse().ok()?, Offset(offset.parse().ok()?)))
}

/// The first line of a reason, as far as a table has room for it.
pub(super) fn brief(reason: &str) -> String {
    let line = split_backtrace(reason).0.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(REASON_SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < line.len() { format!("{shown}…") } else { shown }
}

/// What else there is to know of a letter, in a few words.
pub(super) fn notes(info: &LetterInfo) -> String {
    let LetterInfo { letter, behind, .. } = info;
    let place = match behind {
        Some(behind) => Some(format!("behind {}", place(info.partition, *behind))),
        None => letter.parks.then(|| "parks its key".to_owned()),
    };
    let requested = letter.request.map(|request| match request {
        LetterRequest::Replay => "to be replayed".to_owned(),
        LetterRequest::Discard => "to be discarded".to_owned(),
    });
    let edited = letter.edited.then(|| "edited".to_owned());
    [place, requested, edited].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        assert_eq!(parse_place("3/120"), Some((3, Offset(120))));
        for bad in ["", "3", "3/", "/1", "3/1/2", "-1/2", "order/7"] {
            assert_eq!(parse_place(bad), None, "{bad:?} passed");
        }
    }

    #[test]
    fn a_table_shows_one_line_of_a_reason_that_fits() {
        assert_eq!(brief("no\tsuch order\nmore"), "no such order");
        assert_eq!(brief(&"é".repeat(200)), format!("{}…", "é".repeat(REASON_SHOWN_MAX)));
        assert_eq!(brief(""), "");
    }
}
