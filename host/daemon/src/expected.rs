//! Events of a file through a module, with no store, and what is expected of each.

use std::{collections::VecDeque, fs::File, path::Path};

use anyhow::{Context, bail};
use pelton_core::{Event, NewEvent, Offset, Timestamp};
use pelton_sandbox::{Module, Place, split_backtrace};
use serde_json::Value;

use crate::{
    bench::{Bench, Tried},
    cli::Format,
    lines::{Fields, LINE_BYTES_MAX, Lines, TextLines},
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
        Ok(Self::of(module, Lines::open(events, format, Fields::default())?))
    }

    pub(crate) fn of(module: &Module, events: Lines) -> Self {
        let lines = events.with_numbers_as_ids();
        let place = Place { group: NAME.into(), stream: NAME.into(), partition: 0 };
        let bench = Bench::new(module, place, None);
        Self { lines, bench, next: 0, batch: 1, tried: VecDeque::new() }
    }

    /// How much memory the state takes that the handler wrote.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bench.held_bytes()
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

/// What is expected of the events, one a line, read as it is asked for.
pub(crate) struct Expected {
    lines: TextLines,
}

impl Expected {
    /// What a file says, in lines of up to so many bytes.
    pub(crate) fn of(file: File, path: &Path, line_bytes_max: u64) -> Self {
        Self { lines: TextLines::new(file, path.display().to_string(), line_bytes_max) }
    }

    pub(crate) fn name(&self) -> &str {
        self.lines.name()
    }

    /// What is expected of the next event; `None` after the last.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Value>> {
        let Some((number, line)) = self.lines.next()? else { return Ok(None) };
        match serde_json::from_str(line) {
            Ok(line) => Ok(Some(compared(&line))),
            Err(error) => Err(error).with_context(|| format!("{}, line {number}: not JSON", self.name())),
        }
    }
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
    let name = file.display();
    let opened = File::open(file).with_context(|| format!("cannot read {name}; --update writes it"))?;
    let mut lines = Expected::of(opened, file, LINE_BYTES_MAX);
    let mut expected = Vec::new();
    while let Some(line) = lines.next()? {
        expected.push(line);
    }
    if expected.len() != results.len() {
        bail!("{name} expects {} events, found {}; --update writes it anew", expected.len(), results.len());
    }
    Ok(expected.into_iter().zip(results).filter_map(|(expected, result)| difference(expected, result)).collect())
}

/// In what an event came out otherwise than expected.
pub(crate) fn difference(expected: Value, result: &Value) -> Option<Difference> {
    let mut found = compared(result);
    if expected.get(LOGS).is_none() {
        found.as_object_mut().map(|fields| fields.remove(LOGS));
    }
    (expected != found).then(|| Difference { event: result["event"].to_string(), expected, found })
}
