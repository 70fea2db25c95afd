//! Groups: where they stand, who holds their partitions, and what is asked of them from outside.

use pelton_core::{Claim, Lease, Timestamp};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    sql,
    transaction::{Fault, Transaction, Write},
};
use crate::{ConsumerInfo, GroupInfo, GroupPartition, GroupSpec, Progress, Start, StoreError, rules};

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

/// Takes a partition.
pub(super) struct Acquire {
    pub(super) group: String,
    pub(super) partition: u32,
    pub(super) host: String,
}

impl Write for Acquire {
    type Answer = Claim;
    const DOING: &'static str = "acquiring a partition";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Claim, Fault> {
        check_partition(transaction.connection, &self.group, Some(self.partition)).await?;
        transaction.write_counters().await?;
        // An alias would not be seen from within RETURNING.
        let row = sqlx::query(
            "UPDATE group_partitions SET epoch = epoch + 1, sequence = 0, owner = ?3, position = committed
             WHERE group_name = ?1 AND partition = ?2
             RETURNING epoch, committed, attempts, next_attempt, stopped, reason, failed_by, paused, resumes,
                 (SELECT next_offset FROM stream_partitions p WHERE p.id = group_partitions.partition_id) AS head",
        )
        .bind(&self.group)
        .bind(self.partition)
        .bind(&self.host)
        .fetch_one(&mut *transaction.connection)
        .await?;
        transaction.wakes = true;
        Ok(claim(&row)?)
    }
}

fn claim(row: &SqliteRow) -> Result<Claim, sqlx::Error> {
    Ok(Claim {
        epoch: sql::epoch(row)?,
        committed: sql::offset(row, "committed")?,
        head: sql::offset(row, "head")?,
        mark: sql::mark(row)?,
        failed_by: row.try_get("failed_by")?,
        control: sql::control(row)?,
    })
}

/// Gives a partition back.
pub(super) struct Release(pub(super) Lease);

impl Write for Release {
    type Answer = ();
    const DOING: &'static str = "releasing a partition";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let released = sqlx::query(
            "UPDATE group_partitions SET owner = NULL, position = committed
             WHERE group_name = ? AND partition = ? AND owner = ? AND epoch = ?",
        )
        .bind(&*self.0.group)
        .bind(self.0.partition)
        .bind(&*self.0.host)
        .bind(sql::int(self.0.epoch.0))
        .execute(&mut *transaction.connection)
        .await?;
        transaction.wakes |= released.rows_affected() > 0;
        Ok(())
    }
}

/// Pauses a partition or all of them, or lets them go on.
pub(super) struct Pause {
    pub(super) group: String,
    pub(super) partition: Option<u32>,
    pub(super) paused: bool,
}

impl Write for Pause {
    type Answer = ();
    const DOING: &'static str = "pausing a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        check_partition(transaction.connection, &self.group, self.partition).await?;
        sqlx::query(
            "UPDATE group_partitions SET paused = ?3 WHERE group_name = ?1 AND partition = coalesce(?2, partition)",
        )
        .bind(&self.group)
        .bind(self.partition)
        .bind(self.paused)
        .execute(&mut *transaction.connection)
        .await?;
        transaction.wakes = true;
        Ok(())
    }
}

/// Ends a pause and a stop.
pub(super) struct Resume {
    pub(super) group: String,
    pub(super) partition: Option<u32>,
}

impl Write for Resume {
    type Answer = ();
    const DOING: &'static str = "resuming a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        check_partition(transaction.connection, &self.group, self.partition).await?;
        sqlx::query(
            "UPDATE group_partitions
             SET paused = 0, resumes = resumes + 1, attempts = 0, next_attempt = NULL, stopped = 0, reason = NULL,
                 failed_by = NULL
             WHERE group_name = ?1 AND partition = coalesce(?2, partition)",
        )
        .bind(&self.group)
        .bind(self.partition)
        .execute(&mut *transaction.connection)
        .await?;
        transaction.wakes = true;
        Ok(())
    }
}

/// Refuses a group or a partition that is not there.
async fn check_partition(connection: &mut SqliteConnection, group: &str, partition: Option<u32>) -> Result<(), Fault> {
    let partitions: u32 = sqlx::query_scalar("SELECT count(*) FROM group_partitions WHERE group_name = ?")
        .bind(group)
        .fetch_one(&mut *connection)
        .await?;
    match partition {
        _ if partitions == 0 => Err(sql::unknown_group(connection, group).await?.into()),
        Some(partition) if partition >= partitions => {
            Err(rules::unknown_group_partition(group, partition, partitions).into())
        }
        _ => Ok(()),
    }
}

/// A value of a group's state in a partition.
pub(super) async fn state(
    reads: &SqlitePool,
    group: &str,
    partition: u32,
    key: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = |error: sqlx::Error| sql::unavailable("reading state", &error);
    let found: Option<(u32, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT s.partitions, v.value FROM groups g JOIN streams s ON s.name = g.stream
         LEFT JOIN state v ON v.group_name = g.name AND v.partition = ?2 AND v.key = ?3 WHERE g.name = ?1",
    )
    .bind(group)
    .bind(partition)
    .bind(key)
    .fetch_optional(reads)
    .await
    .map_err(failed)?;
    match found {
        None => Err(sql::unknown_group(reads, group).await.map_err(failed)?),
        Some((partitions, _)) if partition >= partitions => {
            Err(rules::unknown_group_partition(group, partition, partitions))
        }
        Some((_, value)) => Ok(value),
    }
}

/// All groups, by name. `alive` tells whether a daemon holds the lock.
pub(super) async fn list(reads: &SqlitePool, alive: bool) -> Result<Vec<GroupInfo>, StoreError> {
    list_inner(reads, alive).await.map_err(|error| sql::unavailable("listing groups", &error))
}

async fn list_inner(reads: &SqlitePool, alive: bool) -> Result<Vec<GroupInfo>, sqlx::Error> {
    // Two reads of one moment.
    let mut transaction = reads.begin().await?;
    let rows = sqlx::query(
        "SELECT g.name, g.stream, g.handler, gp.*, p.next_offset AS head
         FROM groups g JOIN group_partitions gp ON gp.group_name = g.name
         JOIN stream_partitions p ON p.id = gp.partition_id ORDER BY g.name, gp.partition",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let members: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "SELECT m.group_name, m.host, m.registered_at, h.last_heartbeat
         FROM members m JOIN hosts h ON h.host = m.host ORDER BY m.group_name, m.host",
    )
    .fetch_all(&mut *transaction)
    .await?;
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
    for (group, host, registered_at, last_heartbeat) in members {
        if let Ok(at) = groups.binary_search_by(|info| info.name.cmp(&group)) {
            let (registered_at, last_heartbeat) =
                (Timestamp(sql::uint(registered_at)), Timestamp(sql::uint(last_heartbeat)));
            groups[at].consumers.push(ConsumerInfo { host, registered_at, last_heartbeat, alive });
        }
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
        mark: sql::mark(row)?,
        control: sql::control(row)?,
        committed_at: committed_at.map(|time| Timestamp(sql::uint(time))),
    })
}

/// Where all partitions of all groups stand.
pub(super) async fn progress(reads: &SqlitePool) -> Result<Vec<Progress>, StoreError> {
    let rows = sqlx::query(
        "SELECT g.group_name, g.partition, g.committed, g.epoch, g.stopped, g.failed_by, g.paused, g.resumes, p.next_offset AS head
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
        stopped: row.try_get("stopped")?,
        failed_by: row.try_get("failed_by")?,
        control: sql::control(row)?,
    })
}
