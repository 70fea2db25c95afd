//! The schema and its versions.
//!
//! Not sqlx's `Migrator`: on SQLite it takes no lock, so two processes that open a new file run the same migration, and
//! it refuses every database that has a migration it does not know, while ours say from which version on they can be
//! worked with.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use sqlx::{Connection, SqliteConnection};

use super::connect::cannot_open;
use crate::StoreError;

struct Migration {
    sql: &'static str,
    /// The oldest schema that a program must know to work with a database that has this one.
    min_compatible: i64,
}

/// In order: a migration's number is its place, from 1.
const MIGRATIONS: [Migration; 4] = [
    Migration { sql: include_str!("../../../../migrations/sqlite/0001_streams_and_groups.sql"), min_compatible: 1 },
    // A program that knows only the first takes partitions whoever they are meant for, and clears all hosts when it opens.
    Migration { sql: include_str!("../../../../migrations/sqlite/0002_hosts_and_assignment.sql"), min_compatible: 2 },
    // A program that knows only the second hands out events whose keys are parked, and moves positions over dead letters.
    Migration {
        sql: include_str!("../../../../migrations/sqlite/0003_dead_letters_and_retention.sql"),
        min_compatible: 3,
    },
    // A program that knows only the third leaves out what the fourth records, and its statements work on all the rest.
    Migration { sql: include_str!("../../../../migrations/sqlite/0004_versions_of_handlers.sql"), min_compatible: 3 },
];

const KNOWN: i64 = MIGRATIONS.len() as i64;

struct Found {
    schema: i64,
    min_compatible: i64,
}

/// Applies the migrations that are missing, or says that some are. A newer schema passes if it says that it can.
pub(super) async fn run(connection: &mut SqliteConnection, path: &Path, auto_migrate: bool) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| cannot_open(path, &error);
    let found = found(connection).await.map_err(failed)?;
    if found.min_compatible > KNOWN {
        return Err(StoreError::SchemaTooNew { found: found.schema, known: KNOWN });
    }
    if found.schema >= KNOWN {
        return Ok(());
    }
    if !auto_migrate {
        return Err(StoreError::SchemaTooOld { found: found.schema, known: KNOWN });
    }
    if found.schema == 1 && is_locked_as_a_whole(path) {
        let url = format!("sqlite://{}", path.display());
        let reason = "an older pelton works on it, which the new schema would break; stop it first".into();
        return Err(StoreError::CannotOpen { url, reason });
    }
    migrate(connection).await.map_err(failed)
}

/// Programs that know no schema but the first let one daemon hold a lock on this file for as long as it works.
fn is_locked_as_a_whole(database: &Path) -> bool {
    let mut lock = database.canonicalize().unwrap_or_else(|_| database.into()).into_os_string();
    lock.push(".lock");
    File::open(lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

async fn found(connection: &mut SqliteConnection) -> Result<Found, sqlx::Error> {
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'")
        .fetch_one(&mut *connection)
        .await?;
    if tables == 0 {
        return Ok(Found { schema: 0, min_compatible: 0 });
    }
    let (schema, min_compatible) =
        sqlx::query_as("SELECT schema, min_compatible FROM meta").fetch_one(&mut *connection).await?;
    Ok(Found { schema, min_compatible })
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    // Looked up again under the lock: another process may have been faster.
    let done = usize::try_from(found(&mut transaction).await?.schema).unwrap_or_default();
    for (migration, number) in MIGRATIONS.iter().zip(1_i64..).skip(done) {
        sqlx::raw_sql(migration.sql).execute(&mut *transaction).await?;
        sqlx::query("INSERT OR REPLACE INTO meta (one, schema, min_compatible) VALUES (1, ?, ?)")
            .bind(number)
            .bind(migration.min_compatible)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
