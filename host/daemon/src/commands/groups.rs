//! `pelton groups` and `pelton group show|pause|resume`; the way to the other commands of a group.

use std::time::Duration;

use anyhow::bail;
use pelton_core::Mark;
use pelton_store::{ConsumerInfo, GroupInfo, GroupPartition, Store};
use serde_json::{Value, json};

use crate::{
    cli::{Common, GroupArgs, GroupCommand},
    commands::{group_delete, group_export, group_reset},
    config::show_duration,
    output,
    time::show,
};

/// The states of a partition, from best to worst: a group's is the worst of its partitions'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Idle,
    Running,
    Retrying,
    Unowned,
    Paused,
    Stopped,
}

impl State {
    fn of(partition: &GroupPartition, group: &GroupInfo) -> Self {
        let works = |consumer: &ConsumerInfo| partition.owner.as_ref() == Some(&consumer.host) && consumer.active;
        match partition.mark {
            Mark::Stop { .. } => Self::Stopped,
            _ if partition.control.paused => Self::Paused,
            _ if !group.consumers.iter().any(works) => Self::Unowned,
            Mark::Retry { .. } => Self::Retrying,
            Mark::Clear if lag(partition) > 0 => Self::Running,
            Mark::Clear => Self::Idle,
        }
    }

    fn of_group(group: &GroupInfo) -> Self {
        group.partitions.iter().map(|partition| Self::of(partition, group)).max().unwrap_or(Self::Idle)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Unowned => "unowned",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// `pelton groups`
///
/// # Errors
/// A configuration or store that cannot be read.
pub async fn groups(common: &Common) -> anyhow::Result<()> {
    let (_, store) = super::open(common, false).await?;
    let groups = store.groups().await?;
    if common.json {
        output::json_line(&groups.iter().map(group_json).collect::<Vec<_>>())?;
    } else {
        let rows = groups.iter().map(|group| {
            [
                group.name.clone(),
                group.stream.clone(),
                group.handler.clone(),
                State::of_group(group).word().into(),
                members(group).to_string(),
                group.partitions.iter().map(|partition| partition.committed.0).sum::<u64>().to_string(),
                group.partitions.iter().map(lag).sum::<u64>().to_string(),
            ]
        });
        let heading = ["group", "stream", "handler", "state", "members", "committed", "lag"];
        output::table(heading, rows, "no groups yet: declare one in workers.toml and start `pelton run`")?;
    }
    Ok(())
}

/// `pelton group …`
///
/// # Errors
/// A configuration or store that cannot be read, a group or partition that does not exist; whatever the command refuses.
pub async fn group(common: &Common, command: &GroupCommand) -> anyhow::Result<()> {
    let (config, store) = super::open(common, false).await?;
    match command {
        GroupCommand::Show { group } => show_group(common, &find(&*store, group).await?),
        GroupCommand::Pause(args) => {
            store.pause(&args.group, args.partition, true).await?;
            confirm(common, args, "paused", "no more events are handed out; `pelton group resume` lets it go on")
        }
        GroupCommand::Resume(args) => {
            store.resume(&args.group, args.partition).await?;
            confirm(common, args, "resumed", "an event that failed is tried again")
        }
        GroupCommand::Reset(args) => group_reset::reset(common, &*store, args).await,
        GroupCommand::Export { group } => group_export::export(&*store, group).await,
        GroupCommand::Delete { group } => group_delete::delete(common, &config, &*store, group).await,
    }
}

fn confirm(common: &Common, args: &GroupArgs, done: &str, meaning: &str) -> anyhow::Result<()> {
    let GroupArgs { group, partition } = args;
    if common.json {
        output::json_line(&json!({ "group": group, "partition": partition, "done": done }))?;
    } else {
        let what = partition.map_or_else(|| "all partitions".to_owned(), |partition| format!("partition {partition}"));
        output::line(format_args!("{done} {what} of group {group}: {meaning}"))?;
    }
    Ok(())
}

/// The group of this name, or an error that names those there are.
pub(super) async fn find(store: &dyn Store, name: &str) -> anyhow::Result<GroupInfo> {
    let groups = store.groups().await?;
    let names: Vec<_> = groups.iter().map(|group| format!("{:?}", group.name)).collect();
    match groups.into_iter().find(|group| group.name == name) {
        Some(group) => Ok(group),
        None if names.is_empty() => bail!("group {name:?} does not exist; there are no groups yet"),
        None => bail!("group {name:?} does not exist; known groups: {}", names.join(", ")),
    }
}

fn show_group(common: &Common, group: &GroupInfo) -> anyhow::Result<()> {
    if common.json {
        let mut json = group_json(group);
        json["consumers"] = group.consumers.iter().map(consumer_json).collect();
        json["parked"] = json!([]);
        output::json_line(&json)?;
        return Ok(());
    }
    let (stream, handler) = (&group.stream, &group.handler);
    let state = State::of_group(group).word();
    output::line(format_args!("group {} reads {stream} with handler {handler}: {state}\n", group.name))?;
    let rows = group.partitions.iter().map(|partition| {
        let next = match &partition.mark {
            Mark::Retry { next, .. } => show(*next),
            Mark::Clear | Mark::Stop { .. } => String::new(),
        };
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
            reason(partition).unwrap_or_default().lines().next().unwrap_or_default().into(),
        ]
    });
    let heading =
        ["partition", "committed", "head", "lag", "state", "owner", "epoch", "attempts", "next attempt", "reason"];
    output::table(heading, rows, "no partitions")?;
    output::line("")?;
    let rows = group.consumers.iter().map(|consumer| {
        let (since, beat) = (show(consumer.registered_at), show(consumer.last_heartbeat));
        [consumer.host.clone(), status(consumer.active).into(), since, beat, session_timeout(consumer)]
    });
    let heading = ["consumer", "status", "registered", "last heartbeat", "session timeout"];
    output::table(heading, rows, "no consumers: start `pelton run`")?;
    Ok(())
}

fn group_json(group: &GroupInfo) -> Value {
    json!({
        "group": group.name,
        "stream": group.stream,
        "handler": group.handler,
        "state": State::of_group(group).word(),
        "members": members(group),
        "lag": group.partitions.iter().map(lag).sum::<u64>(),
        "partitions": group.partitions.iter().map(|partition| partition_json(partition, group)).collect::<Vec<_>>(),
    })
}

fn partition_json(partition: &GroupPartition, group: &GroupInfo) -> Value {
    let next_attempt = match &partition.mark {
        Mark::Retry { next, .. } => Some(show(*next)),
        Mark::Clear | Mark::Stop { .. } => None,
    };
    json!({
        "partition": partition.partition,
        "committed": partition.committed.0,
        "position": partition.position.0.max(partition.committed.0),
        "head": partition.head.0,
        "lag": lag(partition),
        "owner": partition.owner,
        "epoch": partition.epoch.0,
        "state": State::of(partition, group).word(),
        "attempts": partition.mark.attempts(),
        "next_attempt": next_attempt,
        "reason": reason(partition),
        "paused": partition.control.paused,
        "committed_at": partition.committed_at.map(show),
    })
}

fn consumer_json(consumer: &ConsumerInfo) -> Value {
    json!({
        "host": consumer.host,
        "registered_at": show(consumer.registered_at),
        "last_heartbeat": show(consumer.last_heartbeat),
        "session_timeout": session_timeout(consumer),
        "status": status(consumer.active),
    })
}

/// How a host or consumer is called that counts, and one that does not.
pub(super) fn status(active: bool) -> &'static str {
    if active { "active" } else { "stale" }
}

/// As `workers.toml` says it.
fn session_timeout(consumer: &ConsumerInfo) -> String {
    show_duration(Duration::from_millis(consumer.session_timeout_ms))
}

fn members(group: &GroupInfo) -> usize {
    group.consumers.iter().filter(|consumer| consumer.active).count()
}

fn lag(partition: &GroupPartition) -> u64 {
    partition.head.since(partition.committed)
}

fn attempts_shown(partition: &GroupPartition) -> String {
    match partition.mark.attempts() {
        0 => String::new(),
        attempts => attempts.to_string(),
    }
}

fn reason(partition: &GroupPartition) -> Option<&str> {
    match &partition.mark {
        Mark::Clear => None,
        Mark::Retry { reason, .. } | Mark::Stop { reason, .. } => Some(reason),
    }
}
