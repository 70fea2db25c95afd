//! Events of a file through a module, with no store, and what is expected of each.

use std::{collections::VecDeque, path::Path};

use anyhow::{Context, bail};
use pelton_core::{Event, NewEvent, Offset, Timestamp};
use pelton_sandbox::{Module, Place, split_backtrace};
use serde_json::Value;

use crate::{
    bench::{Bench, Tried},
    cli::Format,
    lines::{Fields, Lines},
};

/// The group and stream that a handler sees here.
pub(crate) const NAME: &str = "test";
/// A field of a line that differs from run to run: it is printed, and not compared.
const NOT_COMPARED: &str = "micros";
/// A field that is compared where it is expected: log lines are for people, and change more often than what is done.
const LOGS: &str = "logs";

/// The events of a file, on their way through a module that begins with no state.
pub(crate) struct Script {
    lines: Lines,
    bench: Bench,
    next: u64,
    /// Events in a call, at least 1.
    batch: usize,
    /// What came of a call and was not asked for yet.
    tried: VecDeque<Tried>,
}

/// An event at which something else was expected.
pub(crate) struct Difference {
    pub(crate) event: String,
    pub(crate) expected: Value,
    pub(crate) found: Value,
}

impl Script {
    pub(crate) fn open(module: &Module, events: &Path, format: Format) -> anyhow::Result<Self> {
        let lines = Lines::open(events, format, Fields::default())?.with_numbers_as_ids();
        let place = Place { group: NAME.into(), stream: NAME.into(), partition: 0 };
        let bench = Bench::new(module, place, None);
        Ok(Self { lines, bench, next: 0, batch: 1, tried: VecDeque::new() })
    }

    /// Hands out so many events in a call, to a handler whose group commits at its word or not.
    pub(crate) fn with(self, batch: usize, manual_commits: bool) -> Self {
        Self { batch: batch.max(1), bench: self.bench.with_manual_commits(manual_commits), ..self }
    }

    /// What came of the next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Tried>> {
        if let Some(tried) = self.tried.pop_front() {
            return Ok(Some(tried));
        }
        let mut events = Vec::new();
        while events.len() < self.batch {
            let Some((_, event)) = self.lines.next()? else { break };
            events.push(event_at(self.next, event));
            self.next += 1;
        }
        self.tried = match events.as_slice() {
            [event] => [self.bench.call(event, 1).await].into(),
            events => self.bench.call_all(events).await.into(),
        };
        Ok(self.tried.pop_front())
    }
}

fn event_at(offset: u64, event: NewEvent) -> Event {
    let NewEvent { id, key, kind, headers, payload } = event;
    // No clock: a run is to give the same output every time.
    Event { offset: Offset(offset), id, key, kind, time: Timestamp(0), headers, payload }
}

/// What of a line is compared. Where a handler trapped moves whenever it is built, so a reason counts without it.
pub(crate) fn compared(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(fields) = result.as_object_mut() {
        fields.retain(|name, _| name != NOT_COMPARED);
    }
    if let Some(reason) = result["reason"].as_str() {
        result["reason"] = split_backtrace(reason).0.into();
    }
    result
}

/// Reads what is expected of the events, one a line.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Value>> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}; --update writes it"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line)| {
        let line: Value =
            serde_json::from_str(line).with_context(|| format!("{name}, line {}: not JSON", index + 1))?;
        Ok(compared(&line))
    };
    lines.map(parse).collect()
}

/// Writes down what came out, to be expected from now on.
pub(crate) fn write(file: &Path, results: &[Value]) -> anyhow::Result<()> {
    let line = |result| {
        let mut line = compared(result);
        line.as_object_mut().map(|fields| fields.remove(LOGS));
        format!("{line}\n")
    };
    let lines: String = results.iter().map(line).collect();
    std::fs::write(file, lines).with_context(|| format!("cannot write {}", file.display()))
}

/// The events at which something else came out than the file says.
///
/// # Errors
/// A file that cannot be read, or that is about another number of events.
pub(crate) fn differences(file: &Path, results: &[Value]) -> anyhow::Result<Vec<Difference>> {
    let expected = read(file)?;
    if expected.len() != results.len() {
        let name = file.display();
        bail!("{name} expects {} events, found {}; --update writes it anew", expected.len(), results.len());
    }
    let pairs = expected.into_iter().zip(results).map(|(expected, result)| {
        let mut found = compared(result);
        if expected.get(LOGS).is_none() {
            found.as_object_mut().map(|fields| fields.remove(LOGS));
        }
        (expected, found, result)
    });
    let differing = pairs.filter(|(expected, found, _)| expected != found);
    let event = |result: &Value| result["event"].to_string();
    Ok(differing.map(|(expected, found, result)| Difference { event: event(result), expected, found }).collect())
}
