//! Small things every statement needs: numbers, errors, headers.

use pelton_core::{Control, Epoch, Offset, Timestamp};
use sqlx::{Row, SqliteExecutor, sqlite::SqliteRow};

use crate::{StoreError, rules};

/// SQLite's primary result codes that are told apart: <https://www.sqlite.org/rescode.html>.
pub(super) const PERMISSION: i32 = 3;
pub(super) const BUSY: i32 = 5;
pub(super) const LOCKED: i32 = 6;
pub(super) const READ_ONLY: i32 = 8;
pub(super) const CANNOT_OPEN: i32 = 14;
pub(super) const NOT_A_DATABASE: i32 = 26;
const TOO_BIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const OUT_OF_RANGE: i32 = 25;

/// The primary result code of an error, if SQLite gave it.
pub(super) fn code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Whether the data is at fault, so that no other try will end differently.
pub(super) fn is_fault_of_data(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Encode(_))
        || matches!(code(error), Some(TOO_BIG | CONSTRAINT | MISMATCH | OUT_OF_RANGE))
}

/// Whether a row with this key is there already.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

/// Any other error: a busy file, a full disk, a broken connection.
pub(super) fn unavailable(doing: &'static str, error: &sqlx::Error) -> StoreError {
    let reason = match code(error) {
        Some(BUSY) => "another process has been writing for too long (database is locked)".into(),
        Some(READ_ONLY) => {
            "this user may not write to the database file, or to the files beside it; run pelton as the owner, or give them to this user".into()
        }
        _ => error.to_string(),
    };
    StoreError::Unavailable { doing, reason }
}

/// SQLite's integers end at 2⁶³ − 1; nothing Pelton counts gets there, but what is passed in may.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back again. A negative number was written by somebody else; 0 is the nearest that means anything.
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn offset(row: &SqliteRow, column: &str) -> Result<Offset, sqlx::Error> {
    row.try_get(column).map(|number| Offset(uint(number)))
}

pub(super) fn epoch(row: &SqliteRow) -> Result<Epoch, sqlx::Error> {
    row.try_get("epoch").map(|number| Epoch(uint(number)))
}

pub(super) fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(|number| Timestamp(uint(number)))
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u32, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|number| u32::try_from(number).unwrap_or_default())
}

pub(super) fn control(row: &SqliteRow) -> Result<Control, sqlx::Error> {
    Ok(Control {
        paused: row.try_get("paused")?,
        resumes: uint(row.try_get("resumes")?),
        requests: uint(row.try_get("requests")?),
    })
}

/// An event's headers as a JSON array of pairs; NULL for none.
pub(super) fn headers(headers: &[(String, String)]) -> Result<Option<String>, sqlx::Error> {
    if headers.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(headers).map(Some).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// An error that names the streams there are.
pub(super) async fn unknown_stream(
    connection: impl SqliteExecutor<'_>,
    stream: &str,
) -> Result<StoreError, sqlx::Error> {
    let all: Vec<String> = sqlx::query_scalar("SELECT name FROM streams ORDER BY name").fetch_all(connection).await?;
    Ok(rules::unknown_stream(stream, all.iter().map(String::as_str)))
}

/// An error that names the groups there are.
pub(super) async fn unknown_group(connection: impl SqliteExecutor<'_>, group: &str) -> Result<StoreError, sqlx::Error> {
    let all: Vec<String> = sqlx::query_scalar("SELECT name FROM groups ORDER BY name").fetch_all(connection).await?;
    Ok(rules::unknown_group(group, all.iter().map(String::as_str)))
}
