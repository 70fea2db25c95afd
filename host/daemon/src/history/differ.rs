//! In what two versions differ at one event.

use std::{borrow::Cow, collections::BTreeMap, iter::zip};

use pelton_core::{Emit, Outcome};
use pelton_sandbox::split_backtrace;
use serde_json::value::RawValue;

use crate::bench::{Bench, Tried};

/// Lists and objects within each other that are taken apart; what lies deeper is compared to the letter.
const DEPTH_MAX: u32 = 64;

/// In what two versions differ. Time and logs are no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differs {
    /// The emitted events, or their order.
    pub(crate) emitted: bool,
    /// A key that one of them wrote has another value afterwards.
    pub(crate) state: bool,
    /// One failed, or both for other reasons.
    pub(crate) outcome: bool,
}

impl Differs {
    pub(super) async fn between(old: (&Tried, &Bench), new: (&Tried, &Bench)) -> Result<Self, String> {
        Ok(Self {
            emitted: !same_emits(&old.0.effects.emits, &new.0.effects.emits),
            state: !same_state(old, new).await?,
            outcome: !same_outcome(&old.0.outcome, &new.0.outcome),
        })
    }

    /// Whether there is any difference.
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }

    /// The words for it.
    pub(crate) fn words(self) -> Vec<&'static str> {
        let words = [("emitted", self.emitted), ("state", self.state), ("outcome", self.outcome)];
        words.into_iter().filter(|(_, differs)| *differs).map(|(word, _)| word).collect()
    }
}

fn same_emits(old: &[Emit], new: &[Emit]) -> bool {
    let same = |(old, new): (&Emit, &Emit)| {
        let (a, b) = (&old.event, &new.event);
        old.stream == new.stream
            && (&a.id, &a.key, &a.kind, &a.headers) == (&b.id, &b.key, &b.kind, &b.headers)
            && same_bytes(&a.payload, &b.payload)
    };
    old.len() == new.len() && zip(old, new).all(same)
}

/// Whether every key that one of them wrote has the same value with the other. Whether it was written anew is no
/// difference: no later event can tell.
async fn same_state((old, old_bench): (&Tried, &Bench), (new, new_bench): (&Tried, &Bench)) -> Result<bool, String> {
    let (old, new) = (&old.effects.state, &new.effects.state);
    for (key, value) in old {
        let other = match new.get(key) {
            Some(other) => Cow::Borrowed(other),
            None => Cow::Owned(new_bench.state(key).await?),
        };
        if !same_value(value.as_deref(), other.as_deref()) {
            return Ok(false);
        }
    }
    for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        if !same_value(old_bench.state(key).await?.as_deref(), value.as_deref()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_value(old: Option<&[u8]>, new: Option<&[u8]>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => same_bytes(old, new),
        (old, new) => old == new,
    }
}

fn same_outcome(old: &Outcome, new: &Outcome) -> bool {
    let after_ms = |outcome: &Outcome| if let Outcome::RetryAfter(ms, _) = outcome { Some(*ms) } else { None };
    old.class() == new.class() && after_ms(old) == after_ms(new) && said(old) == said(new)
}

/// What a handler or the host said of a failure: without the backtrace, and without the line of the source that a panic
/// names. Both move whenever the handler is built.
pub(crate) fn said(outcome: &Outcome) -> String {
    let (reason, _) = split_backtrace(outcome.reason());
    let is_trap = matches!(outcome, Outcome::Trapped(_) | Outcome::OutOfMemory(_));
    let line = |line| if is_trap { without_place(line) } else { line };
    reason.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// `boom (at src/lib.rs:7:13)` → `boom`: as the SDK says where a handler panicked.
fn without_place(line: &str) -> &str {
    let Some((said, place)) = line.strip_suffix(')').and_then(|line| line.rsplit_once(" (at ")) else { return line };
    let mut parts = place.rsplit(':');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    if is_number(parts.next()) && is_number(parts.next()) { said } else { line }
}

/// The same bytes or, if both are JSON, the same JSON: blanks and the order of names mean nothing there.
fn same_bytes(old: &[u8], new: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<&RawValue>(bytes).ok().map(RawValue::get);
    old == new || matches!((json(old), json(new)), (Some(old), Some(new)) if same_json(old, new, DEPTH_MAX))
}

/// Numbers are compared as they are written: two that differ beyond what a float can hold are two numbers.
fn same_json(old: &str, new: &str, depth: u32) -> bool {
    if old == new || depth == 0 {
        return old == new;
    }
    let same = |(old, new): (&RawValue, &RawValue)| same_json(old.get(), new.get(), depth - 1);
    match (old.as_bytes().first(), new.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => {
            let (Some(old), Some(new)) = (object(old), object(new)) else { return false };
            old.keys().eq(new.keys()) && zip(old.values(), new.values()).all(|(old, new)| same((old, new)))
        }
        (Some(b'['), Some(b'[')) => {
            let list = |text| serde_json::from_str::<Vec<&RawValue>>(text).ok();
            let (Some(old), Some(new)) = (list(old), list(new)) else { return false };
            old.len() == new.len() && zip(old, new).all(same)
        }
        (Some(b'"'), Some(b'"')) => {
            let text = |text| serde_json::from_str::<String>(text).ok();
            text(old).is_some_and(|old| text(new) == Some(old))
        }
        _ => false,
    }
}

fn object(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_whatever_its_blanks_and_the_order_of_its_names() {
        for (old, new) in [
            (r#"{"a":1,"b":[true,null]}"#, "{ \"b\": [true,\n null], \"a\": 1 }"),
            (r#"{"a":{"x":"é","y":{}}}"#, r#"{"a":{"y":{},"x":"\u00e9"}}"#),
            (" 1", "1 "),
        ] {
            assert!(same_bytes(old.as_bytes(), new.as_bytes()), "{old} {new}");
        }
    }

    #[test]
    fn json_differs_where_a_reader_could_tell() {
        for (old, new) in [
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":1,"c":1}"#, r#"{"a":1,"b":1}"#),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("1", "1.0"),
            ("100000000000000000000001", "100000000000000000000002"),
            ("1", "\"1\""),
            ("null", "{}"),
            ("no json", "no  json"),
        ] {
            assert!(!same_bytes(old.as_bytes(), new.as_bytes()), "{old} {new}");
        }
    }

    #[test]
    fn json_of_any_depth_is_compared_without_falling_over() {
        let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(same_bytes(nested("1").as_bytes(), nested("1").as_bytes()));
        assert!(!same_bytes(nested("1").as_bytes(), nested("2").as_bytes()));
    }

    #[test]
    fn where_a_handler_panicked_is_no_difference_and_why_is_one() {
        let trap = |said: &str, frame: &str| {
            Outcome::Trapped(format!("{said}\nunreachable\nerror while executing at wasm backtrace:\n    0: {frame}"))
        };
        let old = trap("boom: 1 (at src/lib.rs:7:13)", "0x1 - m!a");
        assert!(same_outcome(&old, &trap("boom: 1 (at src/price.rs:120:9)", "0x2 - m!b")));
        assert!(!same_outcome(&old, &trap("boom: 2 (at src/lib.rs:7:13)", "0x1 - m!a")));
        assert_eq!(without_place("no such order (at noon)"), "no such order (at noon)");
    }

    #[test]
    fn how_long_to_wait_is_part_of_the_outcome() {
        let after = |ms| Outcome::RetryAfter(ms, "busy".into());
        assert!(same_outcome(&after(5), &after(5)));
        assert!(!same_outcome(&after(5), &after(6)));
        assert!(!same_outcome(&after(5), &Outcome::Transient("busy".into())));
    }
}
