//! `pelton dead-letters replay` and `discard`: both are asked for, and the owners of the partitions carry them out.

use std::time::Duration;

use pelton_core::{LetterRequest, Mark};
use pelton_store::{GroupInfo, GroupPartition, ReadLimit, Store, StoreError};
use serde_json::{Value, json};

use super::{
    select::{Places, Selected, reached},
    wait::{Waited, wait},
};
use crate::{
    cli::Common,
    commands::groups::{find, has_live_owner},
    output,
};

/// A look whether there is anything.
const ANY: ReadLimit = ReadLimit { events: 1, bytes: 1 };

/// A partition that nobody works on now, and why.
struct Queued {
    partition: u32,
    why: &'static str,
}

/// Asks for it, says what happens, and waits if that is wanted.
pub(super) async fn request(
    common: &Common,
    store: &dyn Store,
    group: &GroupInfo,
    selected: &Selected,
    request: LetterRequest,
    patience: Option<Duration>,
) -> anyhow::Result<u8> {
    let (name, query) = (&*group.name, &selected.query);
    let places = match patience {
        Some(_) => reached(store, name, query, request).await?,
        None => Places::default(),
    };
    let requested = store.request_letters(name, query, request).await?;
    let queued = if requested > 0 { queued(store, name, query.partition).await? } else { Vec::new() };
    if !common.json {
        announce(name, selected, request, requested)?;
        queued.iter().try_for_each(|queued| output::line(queued.sentence(name, request, requested)))?;
    }
    let waited = match patience {
        Some(patience) if requested > 0 => Some(wait(store, name, &places, request, patience).await?),
        _ => None,
    };
    if common.json {
        let queued: Vec<_> = queued.iter().map(Queued::json).collect();
        let mut report =
            json!({ "group": name, "request": request.as_str(), "requested": requested, "queued": queued });
        if let Some(waited) = &waited {
            report["waited"] = waited.json();
        }
        output::json_line(&report)?;
    } else if let Some(waited) = &waited {
        waited.print(name, request)?;
    }
    Ok(u8::from(waited.is_some_and(|waited| !waited.is_well())))
}

fn announce(group: &str, selected: &Selected, request: LetterRequest, requested: u64) -> std::io::Result<()> {
    let done = match request {
        LetterRequest::Replay => "replayed",
        LetterRequest::Discard => "discarded",
    };
    match requested {
        0 => return output::line(format_args!("group {group} has no such dead letters; nothing is {done}")),
        1 => output::line(format_args!("1 dead letter of group {group} is to be {done}"))?,
        _ => output::line(format_args!("{requested} dead letters of group {group} are to be {done}"))?,
    }
    let parks = selected.one.as_ref().filter(|one| one.letter.parks);
    match parks.and_then(|one| one.letter.event.key.as_deref()) {
        Some(key) if request == LetterRequest::Replay => {
            output::line(format_args!("- key {key:?} is parked: all that waits in it is replayed, in order"))
        }
        Some(key) if selected.one.as_ref().is_some_and(|one| one.behind.is_none()) => {
            output::line(format_args!("- key {key:?} stays parked as long as later events wait in it"))
        }
        _ => Ok(()),
    }
}

/// Partitions in which something is asked for, and that nobody works on now.
async fn queued(store: &dyn Store, group: &str, partition: Option<u32>) -> anyhow::Result<Vec<Queued>> {
    let group = find(store, group).await?;
    let mut queued = Vec::new();
    for at in group.partitions.iter().filter(|at| partition.is_none_or(|partition| partition == at.partition)) {
        let Some(why) = at_rest(at, &group) else { continue };
        if has_requests(store, &group.name, at.partition).await? {
            queued.push(Queued { partition: at.partition, why });
        }
    }
    Ok(queued)
}

async fn has_requests(store: &dyn Store, group: &str, partition: u32) -> Result<bool, StoreError> {
    Ok(!store.letters_requested(group, partition, ANY).await?.is_empty())
}

/// Why nothing is carried out in a partition now. One that waits for its next attempt, or paused by itself, carries on.
fn at_rest(partition: &GroupPartition, group: &GroupInfo) -> Option<&'static str> {
    match partition.mark {
        _ if partition.control.paused => Some("paused"),
        Mark::Stop { .. } => Some("stopped"),
        _ if !has_live_owner(partition, group) => Some("no owner"),
        _ => None,
    }
}

impl Queued {
    fn sentence(&self, group: &str, request: LetterRequest, requested: u64) -> String {
        let done = match request {
            LetterRequest::Replay => "replayed",
            LetterRequest::Discard => "discarded",
        };
        let (is, until) = match self.why {
            "paused" => ("is paused", format!("after `pelton group resume {group}`")),
            "stopped" => ("is stopped", format!("after `pelton group resume {group}`, or with a new module version")),
            _ => ("has no owner", "when a host runs the group".to_owned()),
        };
        let they = if requested == 1 { "it is" } else { "they are" };
        format!("queued: partition {} {is}; {they} {done} {until}", self.partition)
    }

    fn json(&self) -> Value {
        json!({ "partition": self.partition, "why": self.why })
    }
}

impl Waited {
    fn json(&self) -> Value {
        json!({ "gone": self.gone, "back": self.back, "left": self.left })
    }

    fn print(&self, group: &str, request: LetterRequest) -> std::io::Result<()> {
        let (done, kept) = match request {
            LetterRequest::Replay => ("handled", "back, failed again or behind one that did"),
            LetterRequest::Discard => ("discarded", "still there"),
        };
        output::line(format_args!("{} {done}", self.gone))?;
        if !self.back.is_empty() {
            output::line(format_args!("{} {kept}: {}", self.back.len(), some(&self.back)))?;
            output::line(format_args!("- `pelton dead-letters list {group}` tells why"))?;
        }
        if !self.left.is_empty() {
            output::line(format_args!("{} not done in time, still asked for: {}", self.left.len(), some(&self.left)))?;
        }
        Ok(())
    }
}

/// As many as fit into a line.
fn some(ids: &[String]) -> String {
    const SHOWN_MAX: usize = 20;
    let shown = ids.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match ids.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
