//! What recorded events must show of a new version before it is called.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use indicatif::ProgressBar;
use pelton_core::{Filter, Offset};
use pelton_sandbox::Module;
use pelton_store::{GroupInfo, Store, StreamInfo};

use super::{Base, Reader, Run, STATE_BYTES_MAX, Span, Step, TooMuchState, Versions};
use crate::config::{Gate, Require};

/// What a gate may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// A swap waits for its gate so long at most.
    pub(super) time: Duration,
    /// State in memory, of one partition.
    pub(super) state_bytes: usize,
}

pub(super) const BOUNDS: Bounds = Bounds { time: Duration::from_secs(60), state_bytes: STATE_BYTES_MAX };

/// Why a gate does not let a version through.
#[derive(Debug)]
pub(crate) enum GateFault {
    /// It does not show what is required.
    Refused(String),
    /// It is not known whether it does: the store did not answer, or the events went meanwhile.
    NotRun(String),
}

/// Runs the last handled events of each group (by name, with its stream and its filter) through both versions, from the
/// state as it is now, and refuses the new one if it does not show what the gate requires. Of each group so many events
/// as the gate says are read, spread over its partitions, at least one of each where there is one; those that the group
/// does not want are not called.
///
/// Both modules are called as they are: give them with their grants held back. Reads the store and changes nothing, so
/// that it is safe beside live traffic. A gate that does not come to its end within a minute refuses, and so does one for
/// which state takes too much memory: both would come to the same the next time.
///
/// # Errors
/// A sentence for the log and for `pelton handlers`: the first event at which the new version fails the gate, and the
/// command that shows it; or why the gate could not be run.
pub(crate) async fn check_gate(
    store: &Arc<dyn Store>,
    groups: &[(String, String, Filter)],
    live: &Module,
    new: &Module,
    gate: Gate,
) -> Result<(), GateFault> {
    check_within(BOUNDS, store, groups, live, new, gate).await
}

pub(super) async fn check_within(
    Bounds { time, state_bytes }: Bounds,
    store: &Arc<dyn Store>,
    groups: &[(String, String, Filter)],
    live: &Module,
    new: &Module,
    gate: Gate,
) -> Result<(), GateFault> {
    let versions = Versions { old: Some(live.clone()), new: new.clone() };
    match tokio::time::timeout(time, check(store, groups, &versions, gate, state_bytes)).await {
        Ok(Ok(refused)) => refused.map_err(GateFault::Refused),
        Ok(Err(error)) => Err(match error.downcast_ref() {
            Some(TooMuchState(stopped)) => GateFault::Refused(format!(
                "rollout.replay {stopped}; lower rollout.replay.last (it is {}), or leave rollout.replay out",
                gate.last
            )),
            None => GateFault::NotRun(format!("rollout.replay could not be run: {error:#}; it is tried again")),
        }),
        Err(_) => Err(GateFault::Refused(format!(
            "rollout.replay did not come to its end within {time:?}; lower rollout.replay.last (it is {})",
            gate.last
        ))),
    }
}

async fn check(
    store: &Arc<dyn Store>,
    groups: &[(String, String, Filter)],
    versions: &Versions,
    gate: Gate,
    state_bytes_max: usize,
) -> anyhow::Result<Result<(), String>> {
    let (known, streams) = (store.groups().await?, store.streams().await?);
    for (group, stream, filter) in groups {
        let info = known.iter().find(|info| info.name == *group && info.stream == *stream);
        let bounds = streams.iter().find(|info| info.spec.name == *stream);
        // What is not in the store yet has handled nothing.
        let (Some(info), Some(bounds)) = (info, bounds) else { continue };
        let spans = last_handled(info, bounds, gate.last);
        let reader = Reader { group: group.as_str().into(), stream: stream.as_str().into(), filter: filter.clone() };
        let (store, versions) = (Arc::clone(store), versions.clone());
        let mut run = Run::new(store, reader, Base::Today, versions, spans.clone(), ProgressBar::hidden());
        run.state_bytes_max = state_bytes_max;
        while let Some(step) = run.next().await? {
            if let Some(fault) = fault(&step, gate.require) {
                return Ok(Err(refusal(group, &step, &fault, &spans)));
            }
        }
    }
    Ok(Ok(()))
}

/// The last events before the committed offset: so many in all, and as evenly as the partitions have them.
fn last_handled(group: &GroupInfo, stream: &StreamInfo, last: u32) -> Vec<Span> {
    let handled = group.partitions.iter().filter_map(|at| {
        let first = stream.partitions.get(at.partition as usize)?.first;
        Some((at.committed.since(first), at.partition, at.committed)).filter(|(events, ..)| *events > 0)
    });
    // The emptiest ones first: what they lack, the others have to bring.
    let mut handled: Vec<_> = handled.collect();
    handled.sort_unstable();
    let (mut left, mut partitions) = (u64::from(last), handled.len() as u64);
    let mut spans = BTreeMap::new();
    for (events, partition, committed) in handled {
        let share = events.min(left.div_ceil(partitions)).max(1);
        (left, partitions) = (left.saturating_sub(share), partitions - 1);
        let from = Offset(committed.0 - share);
        spans.insert(partition, Span { partition, start: from, from, to: committed });
    }
    spans.into_values().collect()
}

/// What the gate has against an event.
fn fault(step: &Step, require: Require) -> Option<String> {
    match require {
        Require::Same if step.differs.any() => Some(format!("differs in {}", step.differs.words().join(", "))),
        Require::NoNewErrors if step.is_new_error() => {
            let said = super::said(&step.new.outcome);
            let said = said.lines().next().unwrap_or_default();
            Some(format!("fails ({}: {said})", step.new.outcome.class()))
        }
        _ => None,
    }
}

fn refusal(group: &str, step: &Step, fault: &str, spans: &[Span]) -> String {
    let Step { partition, event, .. } = step;
    let from = spans.iter().find(|span| span.partition == *partition).map_or(event.offset, |span| span.from);
    format!(
        "rollout.replay: event {partition}/{} of group {group:?} {fault}; \
         `pelton replay {group} --partition {partition} --from {from} --to {} --state today --diff` shows it",
        event.offset,
        event.offset.next(),
    )
}
