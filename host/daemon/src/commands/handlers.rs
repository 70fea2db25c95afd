//! `pelton handlers`

use std::collections::BTreeSet;

use pelton_core::Rollout;
use pelton_store::{HandlerReport, HandlerState, HostInfo};
use serde_json::{Map, Value, json};

use super::handler::{canary_json, canary_note, short};
use crate::{cli::Common, output, time::show};

/// Prints the handlers: which version is wanted, and what each host reported last.
///
/// # Errors
/// A configuration or store that cannot be read.
pub async fn handlers(common: &Common) -> anyhow::Result<()> {
    let (_, store) = super::open(common, false).await?;
    let (reports, rollouts, hosts) = (store.handlers().await?, store.rollouts().await?, store.hosts().await?);
    let rows = rows(&reports, &rollouts, &hosts);
    if common.json {
        output::json_line(&rows.iter().map(Row::json).collect::<Vec<_>>())?;
    } else {
        let heading = ["handler", "host", "state", "digest", "since", "calls", "failures", "outcomes", "note"];
        let cells = rows.iter().map(Row::cells);
        output::table_without(&["outcomes", "note"], heading, cells, "no handler was loaded yet: start `pelton run`")?;
        errors(&rows)?;
    }
    Ok(())
}

/// Under the table: a reason is a sentence or two, and would be wider than any terminal.
fn errors(rows: &[Row<'_>]) -> std::io::Result<()> {
    let found = rows.iter().filter_map(|row| {
        let report = row.report?;
        Some((row.handler, &report.host, report.error.as_deref()?))
    });
    for (index, (handler, host, error)) in found.enumerate() {
        if index == 0 {
            output::line("")?;
        }
        output::line(format_args!("error handler {handler} on {host}: {}", output::visible(error)))?;
    }
    Ok(())
}

/// A handler on a host; or one that versions are known of and no host reported.
struct Row<'a> {
    handler: &'a str,
    report: Option<&'a HandlerReport>,
    rollout: Option<&'a Rollout>,
    /// What it says is what its host said last, which runs no more.
    gone: bool,
}

fn rows<'a>(reports: &'a [HandlerReport], rollouts: &'a [Rollout], hosts: &[HostInfo]) -> Vec<Row<'a>> {
    let lives = |name: &str| hosts.iter().any(|host| host.active && host.host == name);
    let rollout_of = |handler: &str| rollouts.iter().find(|rollout| rollout.handler == handler);
    let reported = reports.iter().map(|report| {
        let handler = report.handler.as_str();
        Row { handler, report: Some(report), rollout: rollout_of(handler), gone: !lives(&report.host) }
    });
    let names: BTreeSet<_> = reports.iter().map(|report| &report.handler).collect();
    let unreported = rollouts.iter().filter(|rollout| !names.contains(&rollout.handler));
    let unreported = unreported.map(|rollout| {
        let handler = rollout.handler.as_str();
        Row { handler, report: None, rollout: Some(rollout), gone: false }
    });
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
        let Self { handler, report, rollout, gone } = self;
        let loaded = report.filter(|report| !report.digest.is_empty());
        json!({
            "handler": handler,
            "host": report.map(|report| &report.host),
            "digest": loaded.map(|report| &report.digest),
            "since": loaded.map(|report| show(report.since)),
            "state": self.state(),
            "gone": gone,
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

    fn cells(&self) -> [String; 9] {
        let Self { handler, report, rollout, gone } = self;
        let mut state = if *gone { "gone" } else { self.state().unwrap_or("no host") }.to_owned();
        if let Some(wanted) = self.differs_from().filter(|_| !gone) {
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
