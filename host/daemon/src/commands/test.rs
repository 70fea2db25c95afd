//! `pelton test`: events through a module, with no store.

use std::path::Path;

use anyhow::{Context, bail};
use pelton_core::{Event, NewEvent, Offset, Timestamp};
use pelton_sandbox::{EmitGrant, Grants, Limits, Place, Sandbox, SandboxOptions};
use serde_json::Value;

use super::bench::{self, Bench};
use crate::{
    cli::{Common, TestArgs},
    config::Config,
    lines::{Fields, Lines},
    modules::grants_of,
    output,
};

/// The group and stream that a handler sees here.
const NAME: &str = "test";
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
const REUSE_CALLS: u64 = 10_000;
/// Fields of a line that differ from run to run: they are printed, and not compared.
const NOT_COMPARED: [&str; 2] = ["micros", "logs"];

/// Hands the events of a file to a module, one at a time, and prints what came of each.
///
/// # Errors
/// A module or file that cannot be read. What differs from the expectation is printed and gives status 1.
pub async fn test(common: &Common, args: &TestArgs) -> anyhow::Result<u8> {
    let mut bench = on_bench(common, args).await?;
    let mut lines = Lines::open(&args.events, args.format, Fields::default())?.with_numbers_as_ids();
    let (mut results, mut failed) = (Vec::new(), 0);
    while let Some((_, event)) = lines.next()? {
        let event = event_at(results.len() as u64, event);
        let result = bench.call(&event, 1).await;
        failed += usize::from(!bench::is_done(&result));
        if common.json {
            output::json_line(&result)?;
        } else {
            bench::print(&event.id, &result)?;
        }
        results.push(result);
    }
    let done = results.len() - failed;
    match &args.expect {
        Some(file) if args.update => {
            write_expected(file, &results)?;
            summary(common, format_args!("{} written with {} lines", file.display(), results.len()))?;
            Ok(0)
        }
        Some(file) => compare(common, file, &results),
        None => {
            summary(common, format_args!("{done} done, {failed} failed"))?;
            Ok(u8::from(failed > 0))
        }
    }
}

fn summary(common: &Common, text: impl std::fmt::Display) -> std::io::Result<()> {
    if common.json { Ok(()) } else { output::line(text) }
}

/// The module on a bench, with no state.
async fn on_bench(common: &Common, args: &TestArgs) -> anyhow::Result<Bench> {
    let file = args.module.display();
    let bytes = std::fs::read(&args.module).with_context(|| format!("cannot read module {file}"))?;
    let sandbox = Sandbox::new(SandboxOptions::default())?;
    let grants = grants(common, &args.module)?;
    let module = sandbox.load(bytes, grants).await.with_context(|| format!("module {file}"))?;
    let place = Place { group: NAME.into(), stream: NAME.into(), partition: 0 };
    Ok(Bench::new(&module, place, None))
}

fn event_at(offset: u64, event: NewEvent) -> Event {
    let NewEvent { id, key, kind, headers, payload } = event;
    // No clock: a run is to give the same output every time.
    Event { offset: Offset(offset), id, key, kind, time: Timestamp(0), headers, payload }
}

/// What the configuration grants the handler of this module, if there is one; else every stream and the usual limits.
fn grants(common: &Common, module: &Path) -> anyhow::Result<Grants> {
    let module = std::path::absolute(module)?;
    let config = if common.config.exists() { Some(Config::load(&common.config)?) } else { None };
    let declared = config.as_ref().and_then(|config| {
        let (name, handler) = config.handlers.iter().find(|(_, handler)| handler.module == module)?;
        Some(grants_of(name, handler, &config.streams))
    });
    Ok(declared.unwrap_or_else(|| Grants {
        handler: NAME.into(),
        emit: EmitGrant::Any { payload_bytes_max: PAYLOAD_BYTES_MAX },
        config: Vec::new(),
        limits: Limits::default(),
        reuse_calls: REUSE_CALLS,
    }))
}

fn compared(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(fields) = result.as_object_mut() {
        fields.retain(|name, _| !NOT_COMPARED.contains(&name.as_str()));
    }
    result
}

fn write_expected(file: &Path, results: &[Value]) -> anyhow::Result<()> {
    let lines: String = results.iter().map(|result| format!("{}\n", compared(result))).collect();
    std::fs::write(file, lines).with_context(|| format!("cannot write {}", file.display()))
}

fn compare(common: &Common, file: &Path, results: &[Value]) -> anyhow::Result<u8> {
    let name = file.display();
    let expected = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}; --update writes it"))?;
    let mut lines = Vec::new();
    for (index, line) in expected.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Value =
            serde_json::from_str(line).with_context(|| format!("{name}, line {}: not JSON", index + 1))?;
        lines.push(compared(&line));
    }
    if lines.len() != results.len() {
        bail!("{name} expects {} events, found {}; --update writes it anew", lines.len(), results.len());
    }
    let differing: Vec<_> = lines.iter().zip(results).filter(|(line, result)| **line != compared(result)).collect();
    for (expected, found) in &differing {
        eprintln!("event {} differs:\n  expected {expected}\n  found    {}", found["event"], compared(found));
    }
    let same = results.len() - differing.len();
    summary(common, format_args!("{same} as expected, {} differ", differing.len()))?;
    Ok(u8::from(!differing.is_empty()))
}
