//! What hosts report of their handlers.

use std::collections::BTreeMap;

use pelton_core::Class;
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use super::{
    sql,
    transaction::{Fault, Transaction, Write},
};
use crate::{HandlerReport, HandlerState, StoreError};

/// Replaces what hosts report of their handlers.
pub(super) struct Report(pub(super) Vec<HandlerReport>);

impl Write for Report {
    type Answer = ();
    const DOING: &'static str = "reporting handlers";

    /// Counts since the start of a host.
    fn ends_with_machine(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        for report in &self.0 {
            let state = match report.state {
                HandlerState::Live => "live",
                HandlerState::Refused => "refused",
            };
            let by_class = report.by_class.iter().map(|(class, events)| (class.as_str(), *events));
            let usage = report.usage.iter().map(|(counter, count)| (counter.as_str(), *count));
            sqlx::query(
                "INSERT OR REPLACE INTO handlers
                     (handler, host, digest, since, state, error, calls, failures, by_class, trial, usage)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&report.handler)
            .bind(&report.host)
            .bind(&report.digest)
            .bind(sql::int(report.since.0))
            .bind(state)
            .bind(&report.error)
            .bind(sql::int(report.calls))
            .bind(sql::int(report.failures))
            .bind(serde_json::Value::from_iter(by_class).to_string())
            .bind(&report.trial)
            .bind(serde_json::Value::from_iter(usage).to_string())
            .execute(&mut *transaction.connection)
            .await?;
        }
        Ok(())
    }
}

/// The last report of each handler and host, by name.
pub(super) async fn list(reads: &SqlitePool) -> Result<Vec<HandlerReport>, StoreError> {
    let rows = sqlx::query("SELECT * FROM handlers ORDER BY handler, host").fetch_all(reads).await;
    let reports = rows.and_then(|rows| rows.iter().map(report).collect());
    reports.map_err(|error| sql::unavailable("listing handlers", &error))
}

fn report(row: &SqliteRow) -> Result<HandlerReport, sqlx::Error> {
    let state = match row.try_get("state")? {
        "live" => HandlerState::Live,
        _ => HandlerState::Refused,
    };
    Ok(HandlerReport {
        handler: row.try_get("handler")?,
        host: row.try_get("host")?,
        digest: row.try_get("digest")?,
        since: sql::time(row, "since")?,
        state,
        error: row.try_get("error")?,
        calls: sql::uint(row.try_get("calls")?),
        failures: sql::uint(row.try_get("failures")?),
        by_class: by_class(row.try_get("by_class")?)?,
        trial: row.try_get("trial")?,
        usage: usage(row.try_get("usage")?)?,
    })
}

/// Classes that only a newer program knows are left out.
fn by_class(json: &str) -> Result<BTreeMap<Class, u64>, sqlx::Error> {
    let words: BTreeMap<String, u64> = serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(words.into_iter().filter_map(|(word, events)| Some((Class::parse(&word)?, events))).collect())
}

/// A newer program may count what is no number of ours.
fn usage(json: &str) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let counters: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(counters.into_iter().filter_map(|(counter, count)| Some((counter, count.as_u64()?))).collect())
}
