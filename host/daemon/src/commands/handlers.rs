//! `pelton handlers`

use pelton_store::{HandlerReport, HandlerState};
use serde_json::{Value, json};

use crate::{cli::Common, output, time::show};

/// Prints the handlers as the hosts reported them last.
///
/// # Errors
/// A configuration or store that cannot be read.
pub async fn handlers(common: &Common) -> anyhow::Result<()> {
    let (_, store) = super::open(common, false).await?;
    let handlers = store.handlers().await?;
    let word = |state| match state {
        HandlerState::Live => "live",
        HandlerState::Refused => "refused",
    };
    if common.json {
        let rows = handlers.iter().map(|report| {
            let live = !report.digest.is_empty();
            json!({
                "handler": report.handler,
                "host": report.host,
                "digest": live.then_some(&report.digest),
                "since": live.then(|| show(report.since)),
                "state": word(report.state),
                "error": report.error,
                "calls": report.calls,
                "failures": report.failures,
                "outcomes": outcomes(report).collect::<serde_json::Map<_, _>>(),
            })
        });
        output::json_line(&rows.collect::<Vec<_>>())?;
    } else {
        let rows = handlers.iter().map(|report| {
            // Enough of a digest to tell versions apart.
            let digest: String = report.digest.chars().take("sha256:".len() + 12).collect();
            [
                report.handler.clone(),
                word(report.state).into(),
                digest,
                show(report.since),
                report.calls.to_string(),
                report.failures.to_string(),
                outcomes(report).map(|(class, count)| format!("{class} {count}")).collect::<Vec<_>>().join(", "),
                report.error.clone().unwrap_or_default(),
            ]
        });
        let heading = ["handler", "state", "digest", "since", "calls", "failures", "outcomes", "error"];
        output::table(heading, rows, "no handler was loaded yet: start `pelton run`")?;
    }
    Ok(())
}

/// How many failed in which way.
fn outcomes(report: &HandlerReport) -> impl Iterator<Item = (String, Value)> {
    report.by_class.iter().map(|(class, count)| (class.as_str().to_owned(), Value::from(*count)))
}
