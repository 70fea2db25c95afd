//! The schema and its versions, by the same numbers as SQLite's.

use sqlx::{AssertSqlSafe, Executor};

use super::{
    connect::Connector,
    connection::Connection,
    sql::{self, Sql},
};
use crate::{StoreError, StoreOptions};

struct Migration {
    sql: &'static str,
    /// The oldest schema that a program must know to work with a database that has this one.
    min_compatible: i64,
}

/// In order: a migration's number is its place, from 1.
const MIGRATIONS: [Migration; 4] = [
    Migration { sql: include_str!("../../../../migrations/postgres/0001_streams_and_groups.sql"), min_compatible: 1 },
    Migration { sql: include_str!("../../../../migrations/postgres/0002_hosts_and_assignment.sql"), min_compatible: 2 },
    Migration {
        sql: include_str!("../../../../migrations/postgres/0003_dead_letters_and_retention.sql"),
        min_compatible: 2,
    },
    Migration { sql: include_str!("../../../../migrations/postgres/0004_versions_of_handlers.sql"), min_compatible: 2 },
];

const KNOWN: i64 = MIGRATIONS.len() as i64;

/// The time that a process waits for another one that migrates.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '30s'";

struct Found {
    schema: i64,
    min_compatible: i64,
}

/// Applies the migrations that are missing, or says that some are. A newer schema passes if it says that it can.
pub(super) async fn run(
    connection: &mut Connection,
    connector: &Connector,
    sql: &Sql,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| connector.cannot_open(&error);
    let cannot = |reason: String| StoreError::CannotOpen { url: connector.url().into(), reason };
    connection.begin_alone().await.map_err(failed)?;
    let encoding: String =
        sqlx::query_scalar("SHOW server_encoding").fetch_one(&mut *connection).await.map_err(failed)?;
    let found = found(connection, sql).await.map_err(failed)?;
    connection.commit_alone().await.map_err(failed)?;
    if encoding != "UTF8" {
        return Err(cannot(format!("the database's encoding is {encoding}; expected UTF8: use another database")));
    }
    if let Some(found) = &found {
        if found.min_compatible > KNOWN {
            return Err(StoreError::SchemaTooNew { found: found.schema, known: KNOWN });
        }
        if found.schema >= KNOWN {
            return Ok(());
        }
    }
    if found.is_none() && !(options.create && options.auto_migrate) {
        let schema = sql.schema();
        return Err(cannot(format!("it has no schema {schema:?}; `pelton run` or `pelton migrate` creates it")));
    }
    if !options.auto_migrate {
        let found = found.map_or(0, |found| found.schema);
        return Err(StoreError::SchemaTooOld { found, known: KNOWN });
    }
    migrate(connection, sql).await.map_err(failed)
}

/// `None` if nothing was ever created.
async fn found(connection: &mut Connection, sql: &Sql) -> Result<Option<Found>, sqlx::Error> {
    let there: bool =
        sqlx::query_scalar(sql.text("SELECT to_regclass('@.meta') IS NOT NULL")).fetch_one(&mut *connection).await?;
    if !there {
        return Ok(None);
    }
    let row: Option<(i64, i64)> =
        sqlx::query_as(sql.text("SELECT schema, min_compatible FROM @.meta")).fetch_optional(&mut *connection).await?;
    Ok(row.map(|(schema, min_compatible)| Found { schema, min_compatible }))
}

async fn migrate(connection: &mut Connection, sql: &Sql) -> Result<(), sqlx::Error> {
    connection.begin("BEGIN").await?;
    let done = migrate_locked(connection, sql).await;
    if done.is_ok() {
        connection.commit().await?
    } else {
        connection.rollback().await?
    }
    done
}

async fn migrate_locked(connection: &mut Connection, sql: &Sql) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(LOCK_TIMEOUT)).await?;
    // Until the transaction ends: two processes that find nothing must not both create it.
    sqlx::query(sql.text("SELECT pg_advisory_xact_lock(hashtextextended('pelton migrations of @schema', 0))"))
        .execute(&mut *connection)
        .await?;
    let there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(sql.schema())
        .fetch_one(&mut *connection)
        .await?;
    // Asked first: whoever may not create schemas may still use one that was created for him.
    if !there {
        connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{}\"", sql.schema())))).await?;
    }
    // Looked up again under the lock: another process may have been faster.
    let done = found(connection, sql).await?.map_or(0, |found| sql::uint(found.schema) as usize);
    for (migration, number) in MIGRATIONS.iter().zip(1_i64..).skip(done) {
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.in_schema(migration.sql)))).await?;
        sqlx::query(sql.text(
            "INSERT INTO @.meta (one, schema, min_compatible) VALUES (1, $1, $2)
             ON CONFLICT (one) DO UPDATE SET schema = $1, min_compatible = $2",
        ))
        .bind(number)
        .bind(migration.min_compatible)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
