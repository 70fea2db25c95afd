//! `pelton handler history`

use pelton_core::{Fate, Rollout, VersionRecord};
use pelton_store::{GroupInfo, HandledRange, Store};
use serde_json::{Value, json};

use super::handler::{canary_json, canary_note, find, short};
use crate::{
    cli::{Common, HistoryArgs},
    config::Config,
    output,
    time::show,
};

/// Prints the versions of a handler, the newest first, and which of them handled what.
///
/// # Errors
/// A handler that does not exist.
pub async fn history(common: &Common, config: &Config, store: &dyn Store, args: &HistoryArgs) -> anyhow::Result<()> {
    let rollout = find(config, store, &args.handler).await?;
    let ranges = store.ranges(&args.handler, args.limit).await?;
    let groups = store.groups().await?;
    let handled: Vec<_> = ranges.into_iter().map(|range| Handled::of(range, &groups)).collect();
    if common.json {
        output::json_line(&json!({
            "handler": args.handler,
            "live": rollout.live,
            "canary": canary_json(&rollout),
            "pinned": rollout.pinned,
            "versions": rollout.versions.iter().rev().map(|version| version_json(version, &rollout)).collect::<Vec<_>>(),
            "ranges": handled.iter().map(Handled::json).collect::<Vec<_>>(),
        }))?;
        return Ok(());
    }
    output::line(headline(&rollout))?;
    output::line("")?;
    let heading = ["version", "size", "state", "proposed", "host", "live since", "reason"];
    output::table(heading, rollout.versions.iter().rev().map(version_row), "no version yet: start `pelton run`")?;
    output::line("")?;
    let heading = ["group", "partition", "from", "until", "events", "version", "host", "since"];
    output::table(heading, handled.iter().map(Handled::row), "no version handled anything yet")?;
    if handled.len() >= args.limit as usize {
        output::line(format_args!("these are the newest {}; --limit N shows more", args.limit))?;
    }
    Ok(())
}

fn headline(rollout: &Rollout) -> String {
    let live =
        rollout.live.as_deref().map_or_else(|| "none is live".to_owned(), |live| format!("{} is live", short(live)));
    let pinned = rollout.pinned.then(|| "pinned".to_owned());
    let parts: Vec<_> = [Some(live), pinned, canary_note(rollout)].into_iter().flatten().collect();
    format!("handler {}: {}", rollout.handler, parts.join(", "))
}

fn version_row(version: &VersionRecord) -> [String; 7] {
    [
        short(&version.digest),
        format!("{} KiB", version.bytes.div_ceil(1024)),
        version.fate.as_str().into(),
        show(version.proposed_at),
        version.host.clone(),
        version.live_at.map(show).unwrap_or_default(),
        version.reason.as_deref().unwrap_or_default().lines().next().unwrap_or_default().into(),
    ]
}

fn version_json(version: &VersionRecord, rollout: &Rollout) -> Value {
    json!({
        "digest": version.digest,
        "bytes": version.bytes,
        "proposed_at": show(version.proposed_at),
        "host": version.host,
        "live_since": version.live_at.map(show),
        "state": version.fate.as_str(),
        "pinned": version.fate == Fate::Live && rollout.pinned,
        "kept": version.kept,
        "reason": version.reason,
    })
}

/// What a version handled, up to where its group is now if it goes on.
struct Handled {
    range: HandledRange,
    until: u64,
}

impl Handled {
    fn of(range: HandledRange, groups: &[GroupInfo]) -> Self {
        let group = groups.iter().find(|group| group.name == range.group);
        let partition = group.and_then(|group| group.partitions.iter().find(|at| at.partition == range.partition));
        let committed = partition.map_or(range.from, |partition| partition.committed);
        let until = range.until.unwrap_or(committed).0.max(range.from.0);
        Self { range, until }
    }

    fn events(&self) -> u64 {
        self.until - self.range.from.0
    }

    fn row(&self) -> [String; 8] {
        let Self { range, until } = self;
        [
            range.group.clone(),
            range.partition.to_string(),
            range.from.to_string(),
            if range.until.is_some() { until.to_string() } else { format!("{until} so far") },
            self.events().to_string(),
            short(&range.digest),
            range.host.clone(),
            show(range.since),
        ]
    }

    fn json(&self) -> Value {
        let Self { range, until } = self;
        json!({
            "group": range.group,
            "partition": range.partition,
            "from": range.from.0,
            "until": until,
            "open": range.until.is_none(),
            "events": self.events(),
            "digest": range.digest,
            "host": range.host,
            "since": show(range.since),
        })
    }
}
