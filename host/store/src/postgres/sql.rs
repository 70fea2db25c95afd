//! Small things every statement needs: the schema's name, times, numbers, errors.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use pelton_core::{Class, Control, Epoch, Failure, Hold, Mark, Offset, Timestamp};
use sqlx::{
    AssertSqlSafe, Decode, Encode, Postgres, Row, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid},
};

use super::connection::Connection;
use crate::{StoreError, rules};

/// A stream's limit is not the one that was checked against.
const LIMIT_CHANGED: &str = "PLT01";
/// A commit did not pass its fence where all had to.
const NOT_ALL_PASSED: &str = "PLT02";

/// Statements with the schema's name in them. Not left to `search_path`, which a pooler between us and the server may
/// lose from one transaction to the next.
pub(super) struct Sql {
    schema: String,
    /// By the address and length of the text it was made from.
    texts: RwLock<HashMap<(usize, usize), Arc<str>>>,
}

impl Sql {
    /// For a name that was checked with [`check_schema`].
    pub(super) fn new(schema: &str) -> Self {
        Self { schema: schema.into(), texts: RwLock::default() }
    }

    /// The schema's name; also that of the channel for notifications.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// A text in which `@.` stands for the schema, and `@schema` for its name.
    pub(super) fn text(&self, text: &'static str) -> AssertSqlSafe<Arc<str>> {
        let place = (text.as_ptr() as usize, text.len());
        let known = self.texts.read().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        AssertSqlSafe(known.unwrap_or_else(|| {
            let made: Arc<str> = self.in_schema(text).into();
            self.texts.write().unwrap_or_else(PoisonError::into_inner).insert(place, Arc::clone(&made));
            made
        }))
    }

    /// As [`Self::text`], for what is used once.
    pub(super) fn in_schema(&self, text: &str) -> String {
        text.replace("@schema", &self.schema).replace("@.", &format!("\"{}\".", self.schema))
    }
}

/// Whether a name can stand in statements as it is.
pub(super) fn check_schema(schema: &str) -> Result<(), String> {
    let mut bytes = schema.bytes();
    let begins = bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_');
    let goes_on = bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if begins && goes_on && schema.len() <= 63 && !schema.starts_with("pg_") {
        return Ok(());
    }
    Err(format!(
        "{schema:?} cannot be a schema; expected at most 63 of a to z, 0 to 9 and _, not beginning with a digit or pg_"
    ))
}

/// PostgreSQL's integers end at 2⁶³ − 1; nothing Pelton counts gets there, but what is passed in may.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back again. A negative number was written by somebody else; 0 is the nearest that means anything.
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A partition's number.
pub(super) fn partition(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A `timestamptz`: microseconds since the year 2000 on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Timestamp);

impl Time {
    const EPOCH_MS: i64 = 946_684_800_000;
    /// The last one there is, in milliseconds since 1970: in the year 294276.
    const LAST_MS: i64 = 9_224_318_015_999_999;
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = (int(self.0.0).min(Self::LAST_MS) - Self::EPOCH_MS) * 1_000;
        buffer.extend_from_slice(&micros.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("a time came as text".into());
        }
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(Timestamp(uint(micros.div_euclid(1_000).saturating_add(Self::EPOCH_MS)))))
    }
}

pub(super) fn offset(row: &PgRow, column: &str) -> Result<Offset, sqlx::Error> {
    row.try_get(column).map(|number| Offset(uint(number)))
}

pub(super) fn epoch(row: &PgRow) -> Result<Epoch, sqlx::Error> {
    row.try_get("epoch").map(|number| Epoch(uint(number)))
}

pub(super) fn time(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(|Time(time)| time)
}

pub(super) fn number(row: &PgRow, column: &str) -> Result<u32, sqlx::Error> {
    row.try_get::<i32, _>(column).map(|number| u32::try_from(number).unwrap_or_default())
}

pub(super) fn control(row: &PgRow) -> Result<Control, sqlx::Error> {
    Ok(Control {
        paused: row.try_get("paused")?,
        resumes: uint(row.try_get("resumes")?),
        requests: uint(row.try_get("requests")?),
    })
}

/// A count that is a `bigint` here and fewer bits elsewhere.
pub(super) fn count(row: &PgRow, column: &str) -> Result<u32, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|count| u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

/// The columns that [`mark`] reads. `g` stands for `group_partitions`.
macro_rules! mark_columns {
    () => {
        "g.committed, g.failed_at, g.attempts, g.next_attempt, g.stopped, g.reason, g.class, g.first_failed,
             g.last_failed, g.held"
    };
}

/// What `group_partitions` is set to when nothing that failed counts any more.
macro_rules! unmarked {
    () => {
        "attempts = 0, next_attempt = NULL, stopped = false, reason = NULL, failed_by = NULL, failed_at = NULL,
             class = NULL, first_failed = NULL, last_failed = NULL, held = NULL, given_up_in_row = 0"
    };
}

pub(super) use {mark_columns, unmarked};

/// From the [`mark_columns`].
pub(super) fn mark(row: &PgRow) -> Result<Mark, sqlx::Error> {
    let next: Option<Time> = row.try_get("next_attempt")?;
    let stopped: bool = row.try_get("stopped")?;
    if !stopped && next.is_none() {
        return Ok(Mark::Clear);
    }
    let at = match row.try_get("failed_at")? {
        Some(at) => Offset(uint(at)),
        None => offset(row, "committed")?,
    };
    let failure = failure(row)?;
    let held: Option<&str> = row.try_get("held")?;
    Ok(match (next, held) {
        (Some(Time(until)), Some("full")) if !stopped => Mark::Hold { at, failure, until, why: Hold::Full },
        (Some(Time(until)), Some(_)) if !stopped => Mark::Hold { at, failure, until, why: Hold::Breaker },
        (Some(Time(next)), None) if !stopped => Mark::Retry { at, failure, next },
        _ => Mark::Stop { at, failure },
    })
}

/// From the columns `class`, `reason`, `attempts`, `first_failed` and `last_failed`. A host of schema 2 knows no class and
/// no times.
pub(super) fn failure(row: &PgRow) -> Result<Failure, sqlx::Error> {
    let class: Option<&str> = row.try_get("class")?;
    let time = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<Time>, _>(column)?.map_or(Timestamp(0), |Time(t)| t));
    Ok(Failure {
        class: class.and_then(Class::parse).unwrap_or(Class::Transient),
        reason: row.try_get::<Option<String>, _>("reason")?.unwrap_or_default(),
        attempts: count(row, "attempts")?,
        first: time("first_failed")?,
        last: time("last_failed")?,
    })
}

/// PostgreSQL has no text with NUL in it, and why something failed must be stored whatever the handler said.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// What an error calls for: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Two transactions stood in each other's way: the same again.
    Conflict,
    /// Somebody held a lock for too long.
    Locked,
    /// No other try will end differently.
    FaultOfData,
    /// What is known of a stream is out of date.
    LimitChanged,
    /// A commit was not stored where all had to be.
    NotAllPassed,
    /// The connection is good for nothing any more, or the server for the moment.
    Broken,
    /// Anything else the server says.
    Other,
}

pub(super) fn verdict(error: &sqlx::Error) -> Verdict {
    if matches!(error, sqlx::Error::Encode(_)) {
        return Verdict::FaultOfData;
    }
    let Some(error) = error.as_database_error() else { return Verdict::Broken };
    match error.code().as_deref().unwrap_or_default() {
        "40001" | "40P01" => Verdict::Conflict,
        "55P03" | "57014" => Verdict::Locked,
        LIMIT_CHANGED => Verdict::LimitChanged,
        NOT_ALL_PASSED => Verdict::NotAllPassed,
        code => match code.get(..2) {
            Some("22" | "23" | "54") => Verdict::FaultOfData,
            Some("57" | "08" | "53" | "58" | "25") => Verdict::Broken,
            _ => Verdict::Other,
        },
    }
}

/// What the caller is told of an error that time may heal.
pub(super) fn unavailable(doing: &'static str, error: &sqlx::Error) -> StoreError {
    let reason = match verdict(error) {
        Verdict::Locked if code(error).as_deref() == Some("57014") => {
            format!("the server broke off a statement that took too long ({})", text(error))
        }
        Verdict::Locked => format!("another transaction held a lock for too long ({})", text(error)),
        _ => text(error),
    };
    StoreError::Unavailable { doing, reason }
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Without the line of the server's own source, which sqlx would add.
fn text(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// An error that names the streams there are.
pub(super) async fn unknown_stream(
    sql: &Sql,
    connection: &mut Connection,
    stream: &str,
) -> Result<StoreError, sqlx::Error> {
    let all: Vec<String> =
        sqlx::query_scalar(sql.text("SELECT name FROM @.streams ORDER BY name")).fetch_all(connection).await?;
    Ok(rules::unknown_stream(stream, all.iter().map(String::as_str)))
}

/// An error that names the groups there are.
pub(super) async fn unknown_group(
    sql: &Sql,
    connection: &mut Connection,
    group: &str,
) -> Result<StoreError, sqlx::Error> {
    let all: Vec<String> =
        sqlx::query_scalar(sql.text("SELECT name FROM @.groups ORDER BY name")).fetch_all(connection).await?;
    Ok(rules::unknown_group(group, all.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_a_plain_name() {
        for good in ["pelton", "_a1", &"x".repeat(63)] {
            assert_eq!(check_schema(good), Ok(()), "{good}");
        }
        for bad in ["", "1a", "Pelton", "a-b", "a\"b", "a.b", "ä", "pg_x", &"x".repeat(64)] {
            assert!(check_schema(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn statements_name_the_schema() {
        assert_eq!(Sql::new("s").in_schema("SELECT @.now(), '@schema'"), "SELECT \"s\".now(), 's'");
    }
}
