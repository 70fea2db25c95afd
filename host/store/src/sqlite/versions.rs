//! Which versions of handlers answer, their modules, and which ones handled what.

use std::sync::Arc;

use pelton_core::{Commit, Fate, Offset, Rollout, Timestamp, Trial, VersionRecord};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    sql,
    transaction::{Fault, Transaction, Write},
};
use crate::{HandledRange, StoreError, store::RANGES_MAX};

/// Stores a rollout over the revision it was made from.
pub(super) struct Save {
    pub(super) rollout: Rollout,
    /// That of the version that was proposed last.
    pub(super) module: Option<Arc<[u8]>>,
}

impl Write for Save {
    type Answer = bool;
    const DOING: &'static str = "saving which version of a handler answers";

    fn bytes(&self) -> usize {
        self.module.as_ref().map_or(0, |module| module.len())
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        let connection = &mut *transaction.connection;
        if !self.replace(connection).await? {
            return Ok(false);
        }
        self.replace_versions(connection).await?;
        if let (Some(module), Some(newest)) = (&self.module, self.rollout.versions.last()) {
            // The same digest means the same bytes.
            sqlx::query("INSERT INTO modules (digest, bytes) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(&newest.digest)
                .bind(&module[..])
                .execute(&mut *connection)
                .await?;
        }
        sqlx::query(
            "DELETE FROM modules
             WHERE NOT EXISTS (SELECT 1 FROM handler_versions v WHERE v.digest = modules.digest AND v.kept)",
        )
        .execute(connection)
        .await?;
        Ok(true)
    }
}

impl Save {
    /// False if what is stored is not what this was made from.
    async fn replace(&self, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let Rollout { handler, revision, live, trial, pinned, .. } = &self.rollout;
        let statement = match revision {
            1 => {
                "INSERT INTO rollouts
                     (handler, revision, live, trial, trial_since, trial_until, trial_partitions, pinned)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING"
            }
            _ => {
                "UPDATE rollouts
                 SET revision = ?2, live = ?3, trial = ?4, trial_since = ?5, trial_until = ?6, trial_partitions = ?7,
                     pinned = ?8
                 WHERE handler = ?1 AND revision = ?2 - 1"
            }
        };
        let trial = trial.as_ref();
        let replaced = sqlx::query(statement)
            .bind(handler)
            .bind(sql::int(*revision))
            .bind(live)
            .bind(trial.map(|trial| &trial.digest))
            .bind(trial.map(|trial| sql::int(trial.since.0)))
            .bind(trial.map(|trial| sql::int(trial.until.0)))
            .bind(trial.map(|trial| trial.partitions))
            .bind(pinned)
            .execute(connection)
            .await?;
        Ok(replaced.rows_affected() == 1)
    }

    async fn replace_versions(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM handler_versions WHERE handler = ?")
            .bind(&self.rollout.handler)
            .execute(&mut *connection)
            .await?;
        for (ordinal, version) in (0_i64..).zip(&self.rollout.versions) {
            sqlx::query(
                "INSERT INTO handler_versions
                     (handler, ordinal, digest, bytes, host, proposed_at, live_at, fate, reason, kept)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&self.rollout.handler)
            .bind(ordinal)
            .bind(&version.digest)
            .bind(sql::int(version.bytes))
            .bind(&version.host)
            .bind(sql::int(version.proposed_at.0))
            .bind(version.live_at.map(|at| sql::int(at.0)))
            .bind(version.fate.as_str())
            .bind(&version.reason)
            .bind(version.kept)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

/// The sum of all revisions.
pub(super) async fn revision(reads: &SqlitePool) -> Result<u64, StoreError> {
    let sum: Result<i64, _> =
        sqlx::query_scalar("SELECT coalesce(sum(revision), 0) FROM rollouts").fetch_one(reads).await;
    sum.map(sql::uint).map_err(|error| sql::unavailable("looking for new versions of handlers", &error))
}

/// Which versions answer, by handler.
pub(super) async fn list(reads: &SqlitePool) -> Result<Vec<Rollout>, StoreError> {
    list_inner(reads).await.map_err(|error| sql::unavailable("reading which versions of handlers answer", &error))
}

async fn list_inner(reads: &SqlitePool) -> Result<Vec<Rollout>, sqlx::Error> {
    // One statement, so that all of it is of one moment.
    let rows = sqlx::query(
        "SELECT r.handler, r.revision, r.live, r.trial, r.trial_since, r.trial_until, r.trial_partitions, r.pinned,
             v.digest, v.bytes, v.host, v.proposed_at, v.live_at, v.fate, v.reason, v.kept
         FROM rollouts r LEFT JOIN handler_versions v ON v.handler = r.handler ORDER BY r.handler, v.ordinal",
    )
    .fetch_all(reads)
    .await?;
    let mut rollouts: Vec<Rollout> = Vec::new();
    for row in rows {
        let handler: &str = row.try_get("handler")?;
        if rollouts.last().is_none_or(|rollout| rollout.handler != handler) {
            rollouts.push(rollout(&row)?);
        }
        if let Some(rollout) = rollouts.last_mut() {
            rollout.versions.extend(version(&row)?);
        }
    }
    Ok(rollouts)
}

/// Without its versions.
fn rollout(row: &SqliteRow) -> Result<Rollout, sqlx::Error> {
    let trial = match row.try_get("trial")? {
        Some(digest) => Some(Trial {
            digest,
            since: sql::time(row, "trial_since")?,
            until: sql::time(row, "trial_until")?,
            partitions: sql::number(row, "trial_partitions")?,
        }),
        None => None,
    };
    Ok(Rollout {
        handler: row.try_get("handler")?,
        revision: sql::uint(row.try_get("revision")?),
        live: row.try_get("live")?,
        trial,
        pinned: row.try_get("pinned")?,
        versions: Vec::new(),
    })
}

/// `None` for a rollout without any.
fn version(row: &SqliteRow) -> Result<Option<VersionRecord>, sqlx::Error> {
    let Some(digest) = row.try_get("digest")? else { return Ok(None) };
    let live_at: Option<i64> = row.try_get("live_at")?;
    Ok(Some(VersionRecord {
        digest,
        bytes: sql::uint(row.try_get("bytes")?),
        host: row.try_get("host")?,
        proposed_at: sql::time(row, "proposed_at")?,
        live_at: live_at.map(|at| Timestamp(sql::uint(at))),
        // One that only a newer program knows certainly does not answer any more.
        fate: Fate::parse(row.try_get("fate")?).unwrap_or(Fate::Superseded),
        reason: row.try_get("reason")?,
        kept: row.try_get("kept")?,
    }))
}

/// The bytes of a module.
pub(super) async fn module(reads: &SqlitePool, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let bytes = sqlx::query_scalar("SELECT bytes FROM modules WHERE digest = ?").bind(digest).fetch_optional(reads);
    bytes.await.map_err(|error| sql::unavailable("reading a module", &error))
}

/// Stores which versions took over with a commit. Costs nothing if none did.
pub(super) async fn store_ranges(transaction: &mut Transaction<'_>, commit: &Commit) -> Result<(), sqlx::Error> {
    // More would be removed again at once.
    let taken_over = &commit.handled_by[commit.handled_by.len().saturating_sub(RANGES_MAX)..];
    let Some((first, _)) = taken_over.first() else { return Ok(()) };
    let (group, partition) = (&*commit.lease.group, commit.lease.partition);
    end_range(transaction.connection, group, partition, *first).await?;
    let last: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(number), 0) FROM handled_ranges WHERE group_name = ? AND partition = ?",
    )
    .bind(group)
    .bind(partition)
    .fetch_one(&mut *transaction.connection)
    .await?;
    let ends = taken_over.iter().skip(1).map(|(from, _)| Some(*from)).chain([None]);
    let mut number = last;
    for ((from, digest), until) in taken_over.iter().zip(ends) {
        number += 1;
        sqlx::query(
            "INSERT INTO handled_ranges
                 (group_name, partition, number, from_offset, until_offset, handler, digest, host, since)
             SELECT name, ?2, ?3, ?4, ?5, handler, ?6, ?7, ?8 FROM groups WHERE name = ?1",
        )
        .bind(group)
        .bind(partition)
        .bind(number)
        .bind(sql::int(from.0))
        .bind(until.map(|until| sql::int(until.0)))
        .bind(digest)
        .bind(&*commit.lease.host)
        .bind(sql::int(transaction.now.0))
        .execute(&mut *transaction.connection)
        .await?;
    }
    sqlx::query("DELETE FROM handled_ranges WHERE group_name = ? AND partition = ? AND number <= ?")
        .bind(group)
        .bind(partition)
        .bind(number - RANGES_MAX as i64)
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// Ends the range of the version that handles a partition, if one is on record. Never before its own beginning: a program
/// of schema 3 may have moved the position back without a word about it.
pub(super) async fn end_range(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
    at: Offset,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE handled_ranges SET until_offset = max(from_offset, ?3)
         WHERE group_name = ?1 AND partition = ?2 AND until_offset IS NULL
           AND number = (SELECT max(number) FROM handled_ranges WHERE group_name = ?1 AND partition = ?2)",
    )
    .bind(group)
    .bind(partition)
    .bind(sql::int(at.0))
    .execute(connection)
    .await?;
    Ok(())
}

/// Which versions of a handler handled what.
pub(super) async fn ranges(reads: &SqlitePool, handler: &str, limit: u32) -> Result<Vec<HandledRange>, StoreError> {
    let rows = sqlx::query(
        "SELECT group_name, partition, from_offset, until_offset, handler, digest, host, since FROM (
             SELECT * FROM handled_ranges WHERE handler = ?
             ORDER BY since DESC, group_name DESC, partition DESC, number DESC LIMIT ?)
         ORDER BY group_name, partition, number",
    )
    .bind(handler)
    .bind(limit)
    .fetch_all(reads)
    .await;
    let ranges = rows.and_then(|rows| rows.iter().map(range).collect());
    ranges.map_err(|error| sql::unavailable("reading which versions handled what", &error))
}

fn range(row: &SqliteRow) -> Result<HandledRange, sqlx::Error> {
    let until: Option<i64> = row.try_get("until_offset")?;
    Ok(HandledRange {
        group: row.try_get("group_name")?,
        partition: sql::number(row, "partition")?,
        from: sql::offset(row, "from_offset")?,
        until: until.map(|until| Offset(sql::uint(until))),
        handler: row.try_get("handler")?,
        digest: row.try_get("digest")?,
        host: row.try_get("host")?,
        since: sql::time(row, "since")?,
    })
}
