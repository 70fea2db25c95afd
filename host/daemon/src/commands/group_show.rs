//! `pelton group show`

use std::time::Duration;

use pelton_store::{ConsumerInfo, GroupPartition, ParkedKey, Store, system_clock};
use serde_json::{Value, json};

use super::groups::{State, find, group_json, lag, reason, status};
use crate::{cli::Common, config::show_duration, output, time};

/// How many parked keys are read, and how many a person is shown.
const PARKED_MAX: u32 = 100_000;
const PARKED_SHOWN_MAX: usize = 100;

/// Shows a group with its partitions, consumers and parked keys.
///
/// # Errors
/// A group that does not exist.
pub async fn show(common: &Common, store: &dyn Store, name: &str) -> anyhow::Result<()> {
    let group = &find(store, name).await?;
    let parked = store.parked(name, PARKED_MAX).await?;
    if common.json {
        let mut json = group_json(group);
        json["consumers"] = group.consumers.iter().map(consumer_json).collect();
        json["parked"] = parked.iter().map(parked_json).collect();
        output::json_line(&json)?;
        return Ok(());
    }
    let (stream, handler) = (&group.stream, &group.handler);
    let state = State::of_group(group).word();
    output::line(format_args!("group {} reads {stream} with handler {handler}: {state}\n", group.name))?;
    let rows = group.partitions.iter().map(|partition| {
        let next = partition.mark.next_attempt().map(time::show).unwrap_or_default();
        [
            partition.partition.to_string(),
            partition.committed.to_string(),
            partition.head.to_string(),
            lag(partition).to_string(),
            State::of(partition, group).word().into(),
            partition.owner.clone().unwrap_or_default(),
            partition.epoch.to_string(),
            attempts_shown(partition),
            next,
            Some(partition.letters)
                .filter(|letters| *letters > 0)
                .map(|letters| letters.to_string())
                .unwrap_or_default(),
            reason(partition).unwrap_or_default().lines().next().unwrap_or_default().into(),
        ]
    });
    let heading = [
        "partition",
        "committed",
        "head",
        "lag",
        "state",
        "owner",
        "epoch",
        "attempts",
        "next attempt",
        "dead letters",
        "reason",
    ];
    let if_empty = ["next attempt", "dead letters", "reason"];
    output::table_without(&if_empty, heading, rows, "no partitions")?;
    output::line("")?;
    let rows = group.consumers.iter().map(|consumer| {
        let (since, beat) = (time::show(consumer.registered_at), time::show(consumer.last_heartbeat));
        [consumer.host.clone(), status(consumer.active).into(), since, beat, session_timeout(consumer)]
    });
    let heading = ["consumer", "status", "registered", "last heartbeat", "session timeout"];
    output::table(heading, rows, "no consumers: start `pelton run`")?;
    if !parked.is_empty() {
        output::line("")?;
        show_parked(&parked)?;
    }
    Ok(())
}

fn show_parked(parked: &[ParkedKey]) -> std::io::Result<()> {
    let now = system_clock()();
    let rows = parked.iter().take(PARKED_SHOWN_MAX).map(|parked| {
        [
            parked.key.clone(),
            parked.partition.to_string(),
            parked.events.to_string(),
            time::show(parked.since),
            age(now.0.saturating_sub(parked.since.0)),
            if parked.requested { "to be replayed".into() } else { String::new() },
        ]
    });
    output::table(["parked key", "partition", "events", "since", "age", "note"], rows, "")?;
    let more = parked.len().saturating_sub(PARKED_SHOWN_MAX);
    let all = if parked.len() < PARKED_MAX as usize { "" } else { " or more" };
    if more > 0 {
        output::line(format_args!("and {more}{all} more parked keys; --json lists them"))?;
    }
    Ok(())
}

fn parked_json(parked: &ParkedKey) -> Value {
    let ParkedKey { partition, key, events, since, requested } = parked;
    json!({ "partition": partition, "key": key, "events": events, "since": time::show(*since), "requested": requested })
}

/// An age in its largest unit, as people say it.
fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn consumer_json(consumer: &ConsumerInfo) -> Value {
    json!({
        "host": consumer.host,
        "registered_at": time::show(consumer.registered_at),
        "last_heartbeat": time::show(consumer.last_heartbeat),
        "session_timeout": session_timeout(consumer),
        "status": status(consumer.active),
    })
}

/// As `workers.toml` says it.
fn session_timeout(consumer: &ConsumerInfo) -> String {
    show_duration(Duration::from_millis(consumer.session_timeout_ms))
}

fn attempts_shown(partition: &GroupPartition) -> String {
    match partition.mark.attempts() {
        0 => String::new(),
        attempts => attempts.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let ages = [999, 59_999, 60_000, 7_199_000, 86_400_000 * 3].map(age);
        assert_eq!(ages, ["0s", "59s", "1m", "1h", "3d"]);
    }
}
