//! The mark: what is known of the event that failed, in the columns of its partition's row.

use pelton_core::{Class, Failure, Hold, Mark, Offset, Timestamp};
use sqlx::{Row, Sqlite, query::Query, sqlite::SqliteArguments, sqlite::SqliteRow};

use super::sql;

/// The columns that [`read`] wants, besides `committed`.
macro_rules! mark_columns {
    () => {
        "attempts, next_attempt, stopped, reason, failed_by, failed_at, class, first_failed, last_failed, held"
    };
}

/// Sets them to [`Mark::Clear`]: for the `SET` of an `UPDATE`.
macro_rules! clear_mark {
    () => {
        "attempts = 0, next_attempt = NULL, stopped = 0, reason = NULL, failed_by = NULL, failed_at = NULL,
         class = NULL, first_failed = NULL, last_failed = NULL, held = NULL"
    };
}

pub(super) use {clear_mark, mark_columns};

/// Binds a mark's columns in the order of [`mark_columns`], but for `failed_by`, which comes from elsewhere.
pub(super) fn bind<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    mark: &'q Mark,
    failed_by: Option<&'q str>,
) -> Query<'q, Sqlite, SqliteArguments> {
    let failed = mark.failed();
    let failure = failed.map(|(_, failure)| failure);
    let held = match mark {
        Mark::Hold { why, .. } => Some(why.as_str()),
        _ => None,
    };
    query
        .bind(mark.attempts())
        .bind(mark.next_attempt().map(|time| sql::int(time.0)))
        .bind(matches!(mark, Mark::Stop { .. }))
        .bind(failure.map(|failure| failure.reason.as_str()))
        .bind(failed_by)
        .bind(failed.map(|(at, _)| sql::int(at.0)))
        .bind(failure.map(|failure| failure.class.as_str()))
        .bind(failure.map(|failure| sql::int(failure.first.0)))
        .bind(failure.map(|failure| sql::int(failure.last.0)))
        .bind(held)
}

/// From the columns of [`mark_columns`] and `committed`.
pub(super) fn read(row: &SqliteRow) -> Result<Mark, sqlx::Error> {
    let next: Option<i64> = row.try_get("next_attempt")?;
    let next = next.map(|time| Timestamp(sql::uint(time)));
    let stopped: bool = row.try_get("stopped")?;
    if !stopped && next.is_none() {
        return Ok(Mark::Clear);
    }
    let (at, failure) = (failed_at(row)?, failure(row)?);
    let held: Option<&str> = row.try_get("held")?;
    Ok(match next {
        Some(until) if !stopped => match held.and_then(Hold::parse) {
            Some(why) => Mark::Hold { at, failure, until, why },
            None => Mark::Retry { at, failure, next: until },
        },
        _ => Mark::Stop { at, failure },
    })
}

/// Rows of the schema before say nothing of it: there it always was the event at the position.
fn failed_at(row: &SqliteRow) -> Result<Offset, sqlx::Error> {
    let found: Option<i64> = row.try_get("failed_at")?;
    found.map_or_else(|| sql::offset(row, "committed"), |offset| Ok(Offset(sql::uint(offset))))
}

/// Rows of the schema before know neither the class nor when it was.
fn failure(row: &SqliteRow) -> Result<Failure, sqlx::Error> {
    let class: Option<&str> = row.try_get("class")?;
    let time = |column| {
        let found: Option<i64> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(Timestamp(found.map_or(0, sql::uint)))
    };
    Ok(Failure {
        class: class.and_then(Class::parse).unwrap_or(Class::Transient),
        reason: row.try_get::<Option<String>, _>("reason")?.unwrap_or_default(),
        attempts: sql::number(row, "attempts")?,
        first: time("first_failed")?,
        last: time("last_failed")?,
    })
}
