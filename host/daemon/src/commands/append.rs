//! `pelton append`

use anyhow::Context;
use pelton_core::NewEvent;
use pelton_store::{Appended, Store, StoreError};
use serde_json::json;

use crate::{
    cli::{AppendArgs, Common},
    host::declare,
    lines::{Fields, Lines, Source},
    output,
};

/// Appends the events of a file in batches, each in one transaction. Whether anybody reads what is printed of it makes no
/// difference.
///
/// # Errors
/// A line that is no event, with its number; nothing of its batch is appended then. A stream that does not exist.
pub async fn append(common: &Common, args: &AppendArgs) -> anyhow::Result<()> {
    let (config, store) = super::open(common, true).await?;
    declare(&*store, &config).await?;
    // Before reading anything: standard input may be a person who types.
    store.append(&args.stream, Vec::new()).await?;

    let source = |text: &Option<String>| text.as_deref().map(Source::of);
    let fields = Fields { key: source(&args.key), kind: source(&args.kind), id: source(&args.id) };
    let mut lines = Lines::open(&args.file, args.format, fields)?;
    let bar = output::progress(lines.total_bytes);
    let (mut appended, mut duplicates) = (0, 0);
    let done = loop {
        match next_batch(&mut lines, args.batch as usize) {
            Ok(batch) if batch.is_empty() => break Ok(()),
            Ok(batch) => match append_batch(&*store, &args.stream, batch, &lines).await {
                Ok(answers) => {
                    let doubled = answers.iter().filter(|answer| answer.duplicate).count();
                    appended += answers.len() - doubled;
                    duplicates += doubled;
                    if common.json {
                        print(&args.stream, &answers).with_context(|| {
                            format!("appended {appended} events to {}, then stopped: cannot print them", args.stream)
                        })?;
                    }
                }
                Err(error) => break Err(error),
            },
            Err(error) => break Err(error),
        }
        bar.set_position(lines.bytes());
        bar.set_message(format!("{appended} events"));
    };
    bar.finish_and_clear();
    let events = if appended == 1 { "event" } else { "events" };
    let sum = format!("appended {appended} {events} to {}", args.stream);
    let sum = if duplicates > 0 { format!("{sum}; {duplicates} were there already") } else { sum };
    if !common.json && (done.is_ok() || appended + duplicates > 0) {
        output::line(&sum)?;
    }
    done.with_context(|| format!("{sum}, then stopped; nothing of the batch of this line was appended"))
}

fn next_batch(lines: &mut Lines, events_max: usize) -> anyhow::Result<Vec<(u64, NewEvent)>> {
    let mut batch = Vec::new();
    while batch.len() < events_max {
        match lines.next()? {
            Some(event) => batch.push(event),
            None => break,
        }
    }
    Ok(batch)
}

async fn append_batch(
    store: &dyn Store,
    stream: &str,
    batch: Vec<(u64, NewEvent)>,
    lines: &Lines,
) -> anyhow::Result<Vec<Appended>> {
    let (numbers, events): (Vec<u64>, Vec<NewEvent>) = batch.into_iter().unzip();
    match store.append(stream, events).await {
        Err(StoreError::EventRefused { index, fault, .. }) => {
            Err(anyhow::anyhow!("{}: {fault}", lines.place(numbers.get(index).copied().unwrap_or(0))))
        }
        answers => Ok(answers?),
    }
}

fn print(stream: &str, answers: &[Appended]) -> anyhow::Result<()> {
    for Appended { partition, offset, id, duplicate } in answers {
        let offset = offset.0;
        output::json_line(
            &json!({ "stream": stream, "partition": partition, "offset": offset, "id": id, "duplicate": duplicate }),
        )?;
    }
    Ok(())
}
