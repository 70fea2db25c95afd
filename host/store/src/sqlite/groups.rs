//! Groups: declaring and listing them.

use std::sync::Arc;

use pelton_core::{Hold, MemberSeen, Timestamp};
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use super::{
    host_locks::HostLocks,
    mark, sql, survey,
    transaction::{Fault, Transaction, Write},
};
use crate::{ConsumerInfo, GroupInfo, GroupPartition, GroupSpec, Progress, Start, StoreError};

/// Creates a group with a position in every partition, or checks that it reads the declared stream.
pub(super) struct Declare(pub(super) GroupSpec);

impl Write for Declare {
    type Answer = ();
    const DOING: &'static str = "declaring a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let spec = &self.0;
        if transaction.stream(&spec.stream).await?.is_none() {
            return Err(sql::unknown_stream(&mut *transaction.connection, &spec.stream).await?.into());
        }
        let found: Option<(String, String)> = sqlx::query_as("SELECT stream, handler FROM groups WHERE name = ?")
            .bind(&spec.name)
            .fetch_optional(&mut *transaction.connection)
            .await?;
        match found {
            None => create(transaction, spec).await?,
            Some((found, _)) if found != spec.stream => {
                let (group, declared) = (spec.name.clone(), spec.stream.clone());
                return Err(StoreError::StreamDiffers { group, declared, found }.into());
            }
            Some((_, handler)) if handler != spec.handler => {
                sqlx::query("UPDATE groups SET handler = ? WHERE name = ?")
                    .bind(&spec.handler)
                    .bind(&spec.name)
                    .execute(&mut *transaction.connection)
                    .await?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

async fn create(transaction: &mut Transaction<'_>, spec: &GroupSpec) -> Result<(), sqlx::Error> {
    transaction.write_counters().await?;
    sqlx::query("INSERT INTO groups (name, stream, handler) VALUES (?, ?, ?)")
        .bind(&spec.name)
        .bind(&spec.stream)
        .bind(&spec.handler)
        .execute(&mut *transaction.connection)
        .await?;
    // A time is looked for from the first event on: clocks step back, so times are not sorted and there is no index to
    // trust. It is done once in a group's life.
    let since = match spec.start {
        Start::Earliest => Some(0),
        Start::Latest => None,
        Start::At(time) => Some(sql::int(time.0)),
    };
    let earliest = spec.start == Start::Earliest;
    sqlx::query(
        r#"INSERT INTO group_partitions (group_name, partition, partition_id, committed, position)
           SELECT ?1, partition, id, start, start FROM (
               SELECT partition, id, CASE
                   WHEN ?3 THEN first_offset
                   WHEN ?4 IS NULL THEN next_offset
                   ELSE coalesce((SELECT "offset" FROM events e WHERE e.partition_id = p.id AND e.time >= ?4
                                  ORDER BY "offset" LIMIT 1), next_offset)
               END AS start
               FROM stream_partitions p WHERE stream = ?2)"#,
    )
    .bind(&spec.name)
    .bind(&spec.stream)
    .bind(earliest)
    .bind(since)
    .execute(&mut *transaction.connection)
    .await?;
    transaction.wakes = true;
    Ok(())
}

/// All groups, by name.
pub(super) async fn list(reads: &SqlitePool, locks: &HostLocks, now: Timestamp) -> Result<Vec<GroupInfo>, StoreError> {
    list_inner(reads, locks, now).await.map_err(|error| sql::unavailable("listing groups", &error))
}

async fn list_inner(reads: &SqlitePool, locks: &HostLocks, now: Timestamp) -> Result<Vec<GroupInfo>, sqlx::Error> {
    // Several reads of one moment.
    let mut transaction = reads.begin().await?;
    let rows = sqlx::query(
        "SELECT g.name, g.stream, g.handler, gp.*, p.next_offset AS head
         FROM groups g JOIN group_partitions gp ON gp.group_name = g.name
         JOIN stream_partitions p ON p.id = gp.partition_id ORDER BY g.name, gp.partition",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let members: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT m.host, m.registered_at, h.last_heartbeat
         FROM members m JOIN hosts h ON h.host = m.host ORDER BY m.group_name, m.host",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let survey = survey::take(&mut transaction, locks, now).await?;
    transaction.rollback().await?;

    let mut groups: Vec<GroupInfo> = Vec::new();
    for row in rows {
        let name: &str = row.try_get("name")?;
        if groups.last().is_none_or(|group| group.name != name) {
            let (stream, handler) = (row.try_get("stream")?, row.try_get("handler")?);
            let (name, partitions, consumers) = (name.to_owned(), Vec::new(), Vec::new());
            groups.push(GroupInfo { name, stream, handler, partitions, consumers });
        }
        if let Some(group) = groups.last_mut() {
            group.partitions.push(place(&row)?);
        }
    }
    // Of one moment and in one order, so that each finds its own in the others.
    let mut members = members.into_iter();
    for (group, seen) in groups.iter_mut().zip(&survey.groups) {
        let consumer = |(seen, (host, registered_at, last_heartbeat)): (&MemberSeen, _)| ConsumerInfo {
            host,
            registered_at: Timestamp(sql::uint(registered_at)),
            last_heartbeat: Timestamp(sql::uint(last_heartbeat)),
            session_timeout_ms: seen.session_timeout_ms,
            active: survey.shows_active_member(seen),
        };
        group.consumers = seen.members.iter().zip(members.by_ref().take(seen.members.len())).map(consumer).collect();
    }
    Ok(groups)
}

fn place(row: &SqliteRow) -> Result<GroupPartition, sqlx::Error> {
    let committed_at: Option<i64> = row.try_get("committed_at")?;
    Ok(GroupPartition {
        partition: sql::number(row, "partition")?,
        committed: sql::offset(row, "committed")?,
        position: sql::offset(row, "position")?,
        head: sql::offset(row, "head")?,
        owner: row.try_get("owner")?,
        epoch: sql::epoch(row)?,
        mark: mark::read(row)?,
        control: sql::control(row)?,
        committed_at: committed_at.map(|time| Timestamp(sql::uint(time))),
        letters: sql::uint(row.try_get("letters")?),
        skipped: sql::uint(row.try_get("skipped")?),
        given_up_in_row: sql::number(row, "given_up_in_row")?,
    })
}

/// Where all partitions of all groups stand.
pub(super) async fn progress(reads: &SqlitePool) -> Result<Vec<Progress>, StoreError> {
    let rows = sqlx::query(
        "SELECT g.group_name, g.partition, g.committed, g.epoch, g.owner, g.target, g.stopped, g.failed_by,
             g.paused, g.resumes, g.requests, p.next_offset AS head,
             CASE WHEN g.next_attempt IS NOT NULL AND NOT g.stopped THEN g.held END AS held
         FROM group_partitions g JOIN stream_partitions p ON p.id = g.partition_id ORDER BY g.group_name, g.partition",
    )
    .fetch_all(reads)
    .await;
    let progress = rows.and_then(|rows| rows.iter().map(standing).collect());
    progress.map_err(|error| sql::unavailable("reading progress", &error))
}

fn standing(row: &SqliteRow) -> Result<Progress, sqlx::Error> {
    Ok(Progress {
        group: row.try_get("group_name")?,
        partition: sql::number(row, "partition")?,
        committed: sql::offset(row, "committed")?,
        head: sql::offset(row, "head")?,
        epoch: sql::epoch(row)?,
        owner: row.try_get::<Option<&str>, _>("owner")?.map(Arc::from),
        target: row.try_get::<Option<&str>, _>("target")?.map(Arc::from),
        stopped: row.try_get("stopped")?,
        held: row.try_get::<Option<&str>, _>("held")?.and_then(Hold::parse),
        failed_by: row.try_get("failed_by")?,
        control: sql::control(row)?,
    })
}
