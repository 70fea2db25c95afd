//! What a replay prints: a line an event for programs, what was and what is for people, and a summary for both.

use serde_json::{Value, json};

use super::{Task, range::Plan};
use crate::{
    bench::Tried,
    commands::{bench, dead_letters::place},
    history::{Side, Step, Totals, said},
    output,
};

/// How many differing events a person is shown.
const EVENTS_SHOWN_MAX: u64 = 20;
/// How many differences of one event.
const DIFFERENCES_SHOWN_MAX: usize = 10;
/// How much of a value, in characters.
const VALUE_SHOWN_MAX: usize = 120;
/// How much of it before the place where it differs.
const VALUE_BEFORE_MAX: usize = 20;

/// Prints the events of one replay.
pub(super) struct Printer {
    json: bool,
    diff: bool,
    differing: u64,
}

impl Printer {
    pub(super) fn new(json: bool, diff: bool) -> Self {
        Self { json, diff, differing: 0 }
    }

    /// Whether this event is worth a line.
    pub(super) fn shows(&self, step: &Step) -> bool {
        !self.diff || step.differs.any()
    }

    /// Prints what came of an event.
    pub(super) fn step(&mut self, step: &Step) -> std::io::Result<()> {
        let at = place(step.partition, step.event.offset);
        match (self.diff, self.json) {
            (true, true) => output::json_line(&json!({
                "partition": step.partition,
                "offset": step.event.offset.0,
                "event": step.event.id,
                "differs": step.differs.words(),
                "old": step.old.as_ref().map(Tried::json),
                "new": step.new.json(),
            })),
            (true, false) => {
                self.differing += 1;
                match self.differing {
                    ..=EVENTS_SHOWN_MAX => differences(&at, step),
                    n if n == EVENTS_SHOWN_MAX + 1 => {
                        output::line("… more events differ; --json shows all of them, --event P/OFFSET one in full")
                    }
                    _ => Ok(()),
                }
            }
            (false, true) => {
                let mut line = step.new.json();
                line["partition"] = step.partition.into();
                line["offset"] = step.event.offset.0.into();
                output::json_line(&line)
            }
            (false, false) => bench::print(&format!("{at}  {}", step.event.id), &step.new.json()),
        }
    }

    /// Prints what came of all of them.
    pub(super) fn summary(&self, task: &Task<'_>, plan: &Plan, totals: &Totals) -> std::io::Result<()> {
        if self.json { output::json_line(&json(task, plan, totals)) } else { people(task, plan, totals) }
    }
}

fn json(task: &Task<'_>, plan: &Plan, totals: &Totals) -> Value {
    let side = |digest: &str, side: &Side| {
        json!({
            "digest": digest,
            "errors": side.errors,
            "micros_per_event": to_tenths(side.mean_micros()),
            "median_micros": to_tenths(side.median_micros()),
        })
    };
    let (old, new) = (task.versions.old.as_ref(), &task.versions.new);
    let told = |count: u64| old.map(|_| count);
    json!({
        "group": task.group.name,
        "stream": task.group.stream,
        "module": task.file.display().to_string(),
        "digest": &**new.digest(),
        "state": plan.state,
        "partitions": plan.spans.iter().map(|span| json!({
            "partition": span.partition, "from": span.from.0, "to": span.to.0,
        })).collect::<Vec<_>>(),
        "compared": totals.compared,
        "differing": told(totals.differing),
        "differs": old.map(|_| json!({
            "emitted": totals.emitted, "state": totals.state, "outcome": totals.outcome,
        })),
        "new_errors": told(totals.new_errors),
        "old": old.map(|old| side(old.digest(), &totals.old)),
        "new": side(new.digest(), &totals.new),
    })
}

fn to_tenths(micros: f64) -> f64 {
    (micros * 10.0).round() / 10.0
}

fn people(task: &Task<'_>, plan: &Plan, totals: &Totals) -> std::io::Result<()> {
    let state = match plan.state {
        "today" => "from the state as it is today",
        "rebuilt" => "from the state that each version makes of what came before",
        _ => "from an empty state",
    };
    let (group, stream) = (&task.group.name, &task.group.stream);
    output::line(format_args!("group {group} on {stream}: {}, {state}", events(totals.compared)))?;
    let side = |name: &str, digest: &str, side: &Side| {
        let (median, mean) = (side.median_micros(), side.mean_micros());
        output::line(format_args!(
            "{name}  {digest}  {} failed, {median:.0} µs an event (median; mean {mean:.0} µs)",
            side.errors
        ))
    };
    let Some(old) = &task.versions.old else {
        return side("module", task.versions.new.digest(), &totals.new);
    };
    side("old", old.digest(), &totals.old)?;
    side("new", task.versions.new.digest(), &totals.new)?;
    if totals.compared == 0 {
        return output::line("nothing was compared: no event of this range is there, or the group's filter wants none");
    }
    if totals.differing == 0 {
        let is_itself = old.digest() == task.versions.new.digest();
        return output::line(if is_itself {
            "no difference: this is the version that is live"
        } else {
            "no difference"
        });
    }
    let Totals { emitted, state, outcome, new_errors, .. } = totals;
    output::line(format_args!(
        "{} differ: {emitted} in what they emit, {state} in state, {outcome} in the outcome; {new_errors} new errors",
        events(totals.differing)
    ))
}

fn events(count: u64) -> String {
    if count == 1 { "1 event".into() } else { format!("{count} events") }
}

/// Prints what was and what is.
fn differences(at: &str, step: &Step) -> std::io::Result<()> {
    let words = step.differs.words().join(", ");
    output::line(format_args!("{at}  {}  {words}", output::in_one_line(&step.event.id)))?;
    let Some(old) = &step.old else { return Ok(()) };
    let mut found = Vec::new();
    walk("", Some(&comparable(old)), Some(&comparable(&step.new)), &mut found);
    for (place, old, new) in found.iter().take(DIFFERENCES_SHOWN_MAX) {
        let (old, new) = excerpts(old, new);
        output::line(format_args!("    {}: {old} → {new}", output::visible(place)))?;
    }
    match found.len().saturating_sub(DIFFERENCES_SHOWN_MAX) {
        0 => Ok(()),
        more => output::line(format_args!("    … and {more} more")),
    }
}

/// What came of an event, without what is no difference.
fn comparable(tried: &Tried) -> Value {
    let mut json = tried.json();
    json["reason"] = Some(said(&tried.outcome)).filter(|said| !said.is_empty()).into();
    if let Some(fields) = json.as_object_mut() {
        fields.retain(|name, _| ["outcome", "reason", "emitted", "state"].contains(&name.as_str()));
    }
    json
}

/// A value, by its way from the top.
type Difference = (String, String, String);

/// Finds the places at which two values differ.
fn walk(place: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") };
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                walk(&below(name), old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                walk(&below(&index.to_string()), old.get(index), new.get(index), found);
            }
        }
        (Some(Value::String(old_text)), Some(Value::String(new_text))) => match (within(old_text), within(new_text)) {
            // State is text that often is JSON.
            (Some(old), Some(new)) => walk(place, Some(&old), Some(&new), found),
            _ => found.push((place.into(), shown(old), shown(new))),
        },
        _ => found.push((place.into(), shown(old), shown(new))),
    }
}

/// The JSON in a text, if it is an object or a list.
fn within(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(|value: &Value| value.is_object() || value.is_array())
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "(none)".into(), |value| output::visible(&value.to_string()).into_owned())
}

/// Both values, as far as there is room: around the first place at which they differ.
fn excerpts(old: &str, new: &str) -> (String, String) {
    let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
    let excerpt = |text: &str| {
        let length = text.chars().count();
        if length <= VALUE_SHOWN_MAX {
            return text.to_owned();
        }
        let begin = same.saturating_sub(VALUE_BEFORE_MAX);
        let part: String = text.chars().skip(begin).take(VALUE_SHOWN_MAX).collect();
        let (before, after) =
            (if begin > 0 { "…" } else { "" }, if begin + VALUE_SHOWN_MAX < length { "…" } else { "" });
        format!("{before}{part}{after}")
    };
    (excerpt(old), excerpt(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(old: &Value, new: &Value) -> Vec<String> {
        let mut found = Vec::new();
        walk("", Some(old), Some(new), &mut found);
        found.into_iter().map(|(place, old, new)| format!("{place}: {old} → {new}")).collect()
    }

    #[test]
    fn what_differs_is_named_by_its_place() {
        let old =
            json!({ "emitted": [{ "kind": "a", "payload": { "n": 1, "m": 1 } }], "state": { "k": "{\"total\":1}" } });
        let new = json!({ "emitted": [{ "kind": "a", "payload": { "n": 2, "m": 1 } }, 7], "state": { "k": "{\"total\":2}" } });
        assert_eq!(found(&old, &new), ["emitted/0/payload/n: 1 → 2", "emitted/1: (none) → 7", "state/k/total: 1 → 2"]);
    }

    #[test]
    fn a_long_value_is_shown_where_it_differs() {
        let long = |end: &str| format!("{}{end}{}", "a".repeat(500), "z".repeat(500));
        let (old, new) = excerpts(&long("1"), &long("2"));
        assert!(old.starts_with("…aaa") && old.contains("a1z") && old.ends_with("zz…"), "{old}");
        assert!(new.contains("a2z") && new.chars().count() == VALUE_SHOWN_MAX + 2, "{new}");
    }
}
