//! Events of a file through a module, with no store, and what is expected of each.

use std::path::Path;

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
/// Fields of a line that differ from run to run: they are printed, and not compared.
const NOT_COMPARED: [&str; 2] = ["micros", "logs"];

/// The events of a file, on their way through a module that begins with no state.
pub(crate) struct Script {
    lines: Lines,
    bench: Bench,
    next: u64,
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
        Ok(Self { lines, bench: Bench::new(module, place, None), next: 0 })
    }

    /// What came of the next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Tried>> {
        let Some((_, event)) = self.lines.next()? else { return Ok(None) };
        let event = event_at(self.next, event);
        self.next += 1;
        Ok(Some(self.bench.call(&event, 1).await))
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
        fields.retain(|name, _| !NOT_COMPARED.contains(&name.as_str()));
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
    let lines: String = results.iter().map(|result| format!("{}\n", compared(result))).collect();
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
    let pairs = expected.into_iter().zip(results).map(|(expected, result)| (expected, compared(result), result));
    let differing = pairs.filter(|(expected, found, _)| expected != found);
    let event = |result: &Value| result["event"].to_string();
    Ok(differing.map(|(expected, found, result)| Difference { event: event(result), expected, found }).collect())
}
