//! `pelton replay --event`: one event alone, with everything there is to know of it.

use std::sync::Arc;

use anyhow::bail;
use indicatif::ProgressBar;
use pelton_core::{Event, Offset};
use pelton_sandbox::split_backtrace;
use pelton_store::ReadLimit;
use serde_json::json;

use super::{Task, range};
use crate::{
    bench::Tried,
    cli::Beginning,
    commands::{bench, dead_letters},
    event_json::EventLine,
    history::{Run, Span, Step},
    output,
};

/// Hands the event to the versions and prints all that came of it.
pub(super) async fn replay(task: &Task<'_>, partition: u32, offset: Offset) -> anyhow::Result<u8> {
    let (event, is_letter) = find(task, partition, offset).await?;
    let (base, _) = range::base(task.args.state.unwrap_or(Beginning::Today));
    let rebuilt = task.args.state == Some(Beginning::Rebuild);
    let before = rebuilt.then_some(Span { partition, start: Offset(0), from: offset, to: offset });
    let bar = match before {
        Some(before) if !task.common.json => output::progress(Some(before.events())),
        _ => ProgressBar::hidden(),
    };
    bar.set_message("of the events before it");
    let is_wanted = task.reader.filter.wants(&event);
    let (store, reader, versions) = (Arc::clone(&task.store), task.reader.clone(), task.versions.clone());
    let mut run = Run::new(store, reader, base, versions, before, bar.clone());
    // Nothing of what comes before is told of: this runs all of it.
    let rebuilding = run.next().await;
    bar.finish_and_clear();
    rebuilding?;
    let step = run.step(partition, event).await?;

    let line = EventLine::of(&task.group.stream, partition, &step.event);
    if task.common.json {
        output::json_line(&json!({
            "partition": partition,
            "offset": offset.0,
            "event": line,
            "source": if is_letter { "dead-letter" } else { "stream" },
            "wanted": is_wanted,
            "differs": task.args.diff.then(|| step.differs.words()),
            "old": step.old.as_ref().map(Tried::json),
            "new": step.new.json(),
        }))?;
    } else {
        output::json_line(&line)?;
        if is_letter {
            output::line("not in the stream any more: this is the copy that is kept as a dead letter")?;
        }
        if !is_wanted {
            output::line("the group's filter passes this event over: its handler was never called with it")?;
        }
        print(task, &step)?;
    }
    Ok(u8::from(if task.args.diff { step.differs.any() } else { !step.new.is_done() }))
}

fn print(task: &Task<'_>, step: &Step) -> std::io::Result<()> {
    let versions = &task.versions;
    if let (Some(module), Some(old)) = (&versions.old, &step.old) {
        version("old", module.digest(), old)?;
        version("new", versions.new.digest(), &step.new)?;
        return match step.differs.words().as_slice() {
            [] => output::line("\nno difference"),
            words => output::line(format_args!("\ndiffers in {}", words.join(", "))),
        };
    }
    version("module", versions.new.digest(), &step.new)
}

fn version(name: &str, digest: &str, tried: &Tried) -> std::io::Result<()> {
    let (reason, backtrace) = split_backtrace(tried.outcome.reason());
    output::line(format_args!("\n{name}  {digest}"))?;
    output::line(format_args!("  {}  {} µs", tried.outcome.class(), tried.took.as_micros()))?;
    for said in reason.lines() {
        output::line(format_args!("    reason {}", output::visible(said)))?;
    }
    for frame in backtrace.unwrap_or_default().lines() {
        output::line(format_args!("    at     {}", output::visible(frame.trim())))?;
    }
    bench::details(&tried.json())
}

/// The event, and whether it is a dead letter that the stream does not hold any more.
async fn find(task: &Task<'_>, partition: u32, offset: Offset) -> anyhow::Result<(Event, bool)> {
    let (store, group) = (&*task.store, &task.group);
    let limit = ReadLimit { events: 1, bytes: u64::MAX };
    let bounds = task.stream.partitions.get(partition as usize).copied();
    if bounds.is_some_and(|bounds| (bounds.first..bounds.head).contains(&offset)) {
        let found = store.read(&group.stream, partition, offset, limit).await?;
        if let Some(event) = found.into_iter().next().filter(|event| event.offset == offset) {
            return Ok((event, false));
        }
    }
    match dead_letters::one(store, &group.name, partition, offset).await? {
        Some(info) => Ok((info.letter.event, true)),
        None => {
            let bounds = bounds.map(|bounds| format!("{} to {}", bounds.first, bounds.head));
            bail!(
                "there is no event {}: partition {partition} of stream {:?} holds offsets {} (not included), and it is no dead letter of group {:?}",
                dead_letters::place(partition, offset),
                group.stream,
                bounds.unwrap_or_default(),
                group.name,
            )
        }
    }
}
