//! A group's place in one partition: who takes it and gives it back, and what is asked of it from outside.

use pelton_core::{Acquired, Claim, Lease, Session};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    letters,
    mark::{self, clear_mark, mark_columns},
    sql,
    transaction::{Fault, Transaction, Write},
};
use crate::{StoreError, rules};

/// Takes a partition that is meant for the session's host and that nobody else holds.
pub(super) struct Acquire {
    pub(super) group: String,
    pub(super) partition: u32,
    pub(super) session: Session,
}

impl Write for Acquire {
    type Answer = Acquired;
    const DOING: &'static str = "acquiring a partition";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Acquired, Fault> {
        check_partition(transaction.connection, &self.group, Some(self.partition)).await?;
        transaction.write_counters().await?;
        // An alias would not be seen from within RETURNING.
        let row = sqlx::query(concat!(
            "UPDATE group_partitions SET epoch = epoch + 1, sequence = 0, owner = ?3, position = committed
             WHERE group_name = ?1 AND partition = ?2 AND target = ?3 AND (owner IS NULL OR owner = ?3)
               AND EXISTS (SELECT 1 FROM hosts h JOIN members m ON m.host = h.host AND m.group_name = ?1
                           WHERE h.host = ?3 AND h.incarnation = ?4 AND NOT h.expelled AND NOT m.expelled)
             RETURNING epoch, committed, paused, resumes, requests, given_up_in_row, letters,
                 (SELECT next_offset FROM stream_partitions p WHERE p.id = group_partitions.partition_id) AS head,
                 (SELECT CASE WHEN until_offset IS NULL THEN digest END FROM handled_ranges r
                  WHERE r.group_name = ?1 AND r.partition = ?2 ORDER BY r.number DESC LIMIT 1) AS handled_by, ",
            mark_columns!(),
        ))
        .bind(&self.group)
        .bind(self.partition)
        .bind(&*self.session.host)
        .bind(sql::int(self.session.incarnation))
        .fetch_optional(&mut *transaction.connection)
        .await?;
        let Some(row) = row else { return Ok(Acquired::NotYet) };
        transaction.wakes = true;
        let mut claim = claim(&row)?;
        if claim.letters > 0 {
            (claim.parked, claim.letters_requested) =
                letters::of_partition(transaction.connection, &self.group, self.partition).await?;
        }
        Ok(Acquired::Claimed(claim))
    }
}

/// All but what only the letters themselves can tell.
fn claim(row: &SqliteRow) -> Result<Claim, sqlx::Error> {
    Ok(Claim {
        epoch: sql::epoch(row)?,
        committed: sql::offset(row, "committed")?,
        head: sql::offset(row, "head")?,
        mark: mark::read(row)?,
        failed_by: row.try_get("failed_by")?,
        control: sql::control(row)?,
        given_up_in_row: sql::number(row, "given_up_in_row")?,
        letters: sql::uint(row.try_get("letters")?),
        letters_requested: false,
        parked: Vec::new(),
        handled_by: row.try_get("handled_by")?,
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
        sqlx::query(concat!(
            "UPDATE group_partitions SET paused = 0, resumes = resumes + 1, given_up_in_row = 0, ",
            clear_mark!(),
            " WHERE group_name = ?1 AND partition = coalesce(?2, partition)",
        ))
        .bind(&self.group)
        .bind(self.partition)
        .execute(&mut *transaction.connection)
        .await?;
        transaction.wakes = true;
        Ok(())
    }
}

/// Refuses a group or a partition that is not there.
pub(super) async fn check_partition(
    connection: &mut SqliteConnection,
    group: &str,
    partition: Option<u32>,
) -> Result<(), Fault> {
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
