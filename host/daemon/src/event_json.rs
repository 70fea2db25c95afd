//! Events as lines of JSON: what `tail --json` prints and `append --format event` reads.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use pelton_core::{Event, NewEvent};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::time::show;

/// One event of a stream, as a line.
#[derive(Serialize)]
pub(crate) struct EventLine<'a> {
    stream: &'a str,
    partition: u32,
    offset: u64,
    id: &'a str,
    key: Option<&'a str>,
    kind: &'a str,
    time: String,
    headers: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(flatten)]
    payload: Payload,
}

/// A payload: as JSON if it is some, else as base64.
#[derive(Serialize)]
pub(crate) enum Payload {
    #[serde(rename = "payload")]
    Json(Box<RawValue>),
    #[serde(rename = "payload_base64")]
    Bytes(String),
}

impl Payload {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match json(bytes) {
            Some(json) => Self::Json(json),
            None => Self::Bytes(BASE64_STANDARD.encode(bytes)),
        }
    }
}

impl<'a> EventLine<'a> {
    pub(crate) fn of(stream: &'a str, partition: u32, event: &'a Event) -> Self {
        Self {
            stream,
            partition,
            offset: event.offset.0,
            id: &event.id,
            key: event.key.as_deref(),
            kind: &event.kind,
            time: show(event.time),
            headers: headers(&event.headers),
            payload: Payload::of(&event.payload),
        }
    }
}

/// Headers as an object. The values of a name that comes twice are joined, as HTTP does.
pub(crate) fn headers(headers: &[(String, String)]) -> BTreeMap<&str, Cow<'_, str>> {
    let mut object: BTreeMap<&str, Cow<'_, str>> = BTreeMap::new();
    for (name, value) in headers {
        object.entry(name).and_modify(|all| *all = format!("{all}, {value}").into()).or_insert(Cow::Borrowed(value));
    }
    object
}

/// The bytes as JSON on one line, if they are JSON.
pub(crate) fn json(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(bytes).ok()?;
    // Inside a string, JSON has no raw line breaks: those it has are white space.
    let one_line = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text.to_owned() };
    RawValue::from_string(one_line).ok()
}

/// An event that is to be appended, as a line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEventLine<'a> {
    id: Option<String>,
    key: Option<String>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, borrow, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    #[serde(default, rename = "stream", borrow)]
    _stream: Option<&'a RawValue>,
    #[serde(default, rename = "partition", borrow)]
    _partition: Option<&'a RawValue>,
    #[serde(default, rename = "offset", borrow)]
    _offset: Option<&'a RawValue>,
    #[serde(default, rename = "time", borrow)]
    _time: Option<&'a RawValue>,
}

/// Reads an event of the format `event`. Where the line has no id, `made_up` gives one.
///
/// # Errors
/// What is wrong with the line.
pub(crate) fn parse_event(line: &str, made_up: impl FnOnce() -> String) -> Result<NewEvent, String> {
    let event: NewEventLine<'_> = serde_json::from_str(line).map_err(|error| format!("not an event: {error}"))?;
    let payload = match (event.payload, event.payload_base64) {
        (Some(json), None) => json.get().as_bytes().to_vec(),
        (None, Some(text)) => {
            BASE64_STANDARD.decode(&text).map_err(|error| format!("payload_base64 is not base64: {error}"))?
        }
        (None, None) => return Err("payload is missing; expected payload (JSON) or payload_base64".into()),
        (Some(_), Some(_)) => return Err("both payload and payload_base64 are given; expected one of them".into()),
    };
    Ok(NewEvent {
        id: event.id.unwrap_or_else(made_up),
        key: event.key,
        kind: event.kind,
        headers: event.headers.into_iter().collect(),
        payload,
    })
}

/// `null` is a payload like any other, and not the lack of one.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use pelton_core::{Offset, Timestamp};

    use super::*;

    fn line(payload: &[u8]) -> String {
        let event = Event {
            offset: Offset(7),
            id: "e1".into(),
            key: None,
            kind: "k".into(),
            time: Timestamp(0),
            headers: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
            payload: payload.to_vec(),
        };
        serde_json::to_string(&EventLine::of("s", 3, &event)).expect("serializable")
    }

    #[test]
    fn an_event_is_one_line_whatever_its_payload() {
        let head = r#"{"stream":"s","partition":3,"offset":7,"id":"e1","key":null,"kind":"k","time":"1970-01-01T00:00:00.000Z","headers":{"a":"1, 2"},"#;
        assert_eq!(line(b"{\n\"x\": 1.50\r\n}"), format!("{head}\"payload\":{{ \"x\": 1.50  }}}}"));
        assert_eq!(line(&[0xff, 0]), format!("{head}\"payload_base64\":\"/wA=\"}}"));
    }

    #[test]
    fn a_printed_line_can_be_appended_again() {
        for payload in [&b"{\"x\":1}"[..], b"null", b"\xff\x00"] {
            let event = parse_event(&line(payload), String::new).expect("its own output");
            assert_eq!((event.id.as_str(), event.payload.as_slice()), ("e1", payload));
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        let bad = |text| parse_event(text, String::new).expect_err("refused");
        assert!(bad("{").starts_with("not an event:"));
        assert!(bad(r#"{"id":"1","payloud":1}"#).contains("payloud"));
        assert!(bad(r#"{"id":"1"}"#).contains("payload is missing"));
        assert!(bad(r#"{"id":"1","payload":1,"payload_base64":""}"#).contains("one of them"));
        assert!(bad(r#"{"id":"1","payload_base64":"?"}"#).contains("base64"));
    }
}
