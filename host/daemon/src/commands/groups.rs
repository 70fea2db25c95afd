//! `pelton groups` and `pelton group pause|resume`; the way to the other commands of a group.

use anyhow::bail;
use pelton_core::Mark;
use pelton_store::{ConsumerInfo, GroupInfo, GroupPartition, Store};
use serde_json::{Value, json};

use crate::{
    cli::{Common, GroupArgs, GroupCommand},
    commands::{group_delete, group_export, group_reset, group_show, group_skip},
    output,
    time::show,
};

/// The states of a partition, from best to worst: a group's is the worst of its partitions'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Idle,
    Running,
    Retrying,
    Unowned,
    Paused,
    Stopped,
}

impl State {
    pub(super) fn of(partition: &GroupPartition, group: &GroupInfo) -> Self {
        match partition.mark {
            Mark::Stop { .. } => Self::Stopped,
            _ if partition.control.paused => Self::Paused,
            Mark::Hold { .. } => Self::Paused,
            _ if !has_live_owner(partition, group) => Self::Unowned,
            Mark::Retry { .. } => Self::Retrying,
            Mark::Clear if lag(partition) > 0 => Self::Running,
            Mark::Clear => Self::Idle,
        }
    }

    pub(super) fn of_group(group: &GroupInfo) -> Self {
        group.partitions.iter().map(|partition| Self::of(partition, group)).max().unwrap_or(Self::Idle)
    }

    pub(super) fn word(self) -> &'static str {
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
        GroupCommand::Show { group } => group_show::show(common, &*store, group).await,
        GroupCommand::Pause(args) => {
            store.pause(&args.group, args.partition, true).await?;
            confirm(common, args, "paused", "no more events are handed out; `pelton group resume` lets it go on")
        }
        GroupCommand::Resume(args) => {
            store.resume(&args.group, args.partition).await?;
            confirm(common, args, "resumed", "an event that failed is tried again")
        }
        GroupCommand::Skip(args) => group_skip::skip(common, &*store, args).await,
        GroupCommand::Reset(args) => group_reset::reset(common, &*store, args).await,
        GroupCommand::Export { group } => group_export::export(&*store, group).await,
        GroupCommand::Delete { group, force } => group_delete::delete(common, &config, &*store, group, *force).await,
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

pub(super) fn group_json(group: &GroupInfo) -> Value {
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
    let next_attempt = partition.mark.next_attempt().map(show);
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
        "failed_at": partition.mark.failed().map(|(offset, _)| offset.0),
        "held": held(partition),
        "paused": partition.control.paused,
        "dead_letters": partition.letters,
        "skipped": partition.skipped,
        "committed_at": partition.committed_at.map(show),
    })
}

/// Whether a host that lives holds a partition.
pub(super) fn has_live_owner(partition: &GroupPartition, group: &GroupInfo) -> bool {
    let works = |consumer: &ConsumerInfo| partition.owner.as_ref() == Some(&consumer.host) && consumer.active;
    group.consumers.iter().any(works)
}

/// How a host or consumer is called that counts, and one that does not.
pub(super) fn status(active: bool) -> &'static str {
    if active { "active" } else { "stale" }
}

fn members(group: &GroupInfo) -> usize {
    group.consumers.iter().filter(|consumer| consumer.active).count()
}

pub(super) fn lag(partition: &GroupPartition) -> u64 {
    partition.head.since(partition.committed)
}

/// Why it paused by itself, if it did.
fn held(partition: &GroupPartition) -> Option<&'static str> {
    match &partition.mark {
        Mark::Hold { why, .. } => Some(why.as_str()),
        _ => None,
    }
}

/// Why it waits: the failure, and before it why it paused by itself.
pub(super) fn reason(partition: &GroupPartition) -> Option<String> {
    let (_, failure) = partition.mark.failed()?;
    let failure = format!("{}: {}", failure.class.as_str(), failure.reason);
    Some(match &partition.mark {
        Mark::Hold { why, .. } => format!("{}: {failure}", why.as_str()),
        _ => failure,
    })
}
