//! `pelton handlers`

use std::collections::BTreeSet;

use pelton_core::Rollout;
use pelton_store::{HandlerReport, HandlerState};
use serde_json::{Map, Value, json};

use super::handler::{canary_json, canary_note, short};
use crate::{cli::Common, output, time::show};

/// Prints the handlers: which version is wanted, and what each host reported last.
///
/// # Errors
/// A configuration or store that cannot be read.
pub async fn handlers(common: &Common) -> anyhow::Result<()> {
    let (_, store) = super::open(common, false).await?;
    let (reports, rollouts) = (store.handlers().await?, store.rollouts().await?);
    let rows = rows(&reports, &rollouts);
    if common.json {
        output::json_line(&rows.iter().map(Row::json).collect::<Vec<_>>())?;
    } else {
        let heading = ["handler", "host", "state", "digest", "since", "calls", "failures", "outcomes", "note", "error"];
        output::table(heading, rows.iter().map(Row::cells), "no handler was loaded yet: start `pelton run`")?;
    }
    Ok(())
}

/// A handler on a host; or one that versions are known of and no host reported.
struct Row<'a> {
    handler: &'a str,
    report: Option<&'a HandlerReport>,
    rollout: Option<&'a Rollout>,
}

fn rows<'a>(reports: &'a [HandlerReport], rollouts: &'a [Rollout]) -> Vec<Row<'a>> {
    let rollout_of = |handler: &str| rollouts.iter().find(|rollout| rollout.handler == handler);
    let reported = reports.iter().map(|report| {
        let handler = report.handler.as_str();
        Row { handler, report: Some(report), rollout: rollout_of(handler) }
    });
    let names: BTreeSet<_> = reports.iter().map(|report| &report.handler).collect();
    let unreported = rollouts.iter().filter(|rollout| !names.contains(&rollout.handler));
    let unreported = unreported.map(|rollout| Row { handler: &rollout.handler, report: None, rollout: Some(rollout) });
    let mut rows: Vec<_> = reported.chain(unreported).collect();
    // Stable: the hosts of a handler stay in their order.
    rows.sort_by_key(|row| row.handler);
    rows
}

impl Row<'_> {
    /// What all hosts are to run, if this one runs something else.
    fn differs_from(&self) -> Option<&str> {
        let wanted = self.rollout?.live.as_deref()?;
        let runs = self.report.map(|report| &report.digest).filter(|digest| !digest.is_empty())?;
        (runs != wanted).then_some(wanted)
    }

    fn state(&self) -> Option<&'static str> {
        self.report.map(|report| match report.state {
            HandlerState::Live => "live",
            HandlerState::Refused => "refused",
        })
    }

    fn json(&self) -> Value {
        let Self { handler, report, rollout } = self;
        let loaded = report.filter(|report| !report.digest.is_empty());
        json!({
            "handler": handler,
            "host": report.map(|report| &report.host),
            "digest": loaded.map(|report| &report.digest),
            "since": loaded.map(|report| show(report.since)),
            "state": self.state(),
            "error": report.and_then(|report| report.error.as_ref()),
            "calls": report.map_or(0, |report| report.calls),
            "failures": report.map_or(0, |report| report.failures),
            "outcomes": report.map(outcomes).unwrap_or_default(),
            "usage": report.map(usage).unwrap_or_default(),
            "trial": report.and_then(|report| report.trial.as_ref()),
            "differs": self.differs_from().is_some(),
            "live": rollout.and_then(|rollout| rollout.live.as_ref()),
            "canary": rollout.map(canary_json),
            "pinned": rollout.is_some_and(|rollout| rollout.pinned),
        })
    }

    fn cells(&self) -> [String; 10] {
        let Self { handler, report, rollout } = self;
        let mut state = self.state().unwrap_or("no host").to_owned();
        if let Some(wanted) = self.differs_from() {
            state += &format!(" (another digest than {})", short(wanted));
        }
        let wanted = || rollout.and_then(|rollout| rollout.live.as_deref());
        let pinned = rollout.filter(|rollout| rollout.pinned).map(|_| "pinned".to_owned());
        let notes = [pinned, rollout.and_then(canary_note)];
        let outcomes = report.map(outcomes).unwrap_or_default();
        [
            (*handler).to_owned(),
            report.map(|report| report.host.clone()).unwrap_or_default(),
            state,
            report.map(|report| report.digest.as_str()).or_else(wanted).map(short).unwrap_or_default(),
            report.filter(|report| !report.digest.is_empty()).map(|report| show(report.since)).unwrap_or_default(),
            report.map_or(0, |report| report.calls).to_string(),
            report.map_or(0, |report| report.failures).to_string(),
            outcomes.iter().map(|(class, count)| format!("{class} {count}")).collect::<Vec<_>>().join(", "),
            notes.into_iter().flatten().collect::<Vec<_>>().join(", "),
            report.and_then(|report| report.error.clone()).unwrap_or_default(),
        ]
    }
}

/// How many failed in which way.
fn outcomes(report: &HandlerReport) -> Map<String, Value> {
    report.by_class.iter().map(|(class, count)| (class.as_str().to_owned(), Value::from(*count))).collect()
}

/// What it uses on its host.
fn usage(report: &HandlerReport) -> Map<String, Value> {
    report.usage.iter().map(|(counter, count)| (counter.clone(), Value::from(*count))).collect()
}
