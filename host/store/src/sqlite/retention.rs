//! What is not kept for ever: events that every group has passed, and ids that groups remember.
//!
//! Both are looked for often and found seldom, so the look is a read beside the writer, and only what it finds is written.

use std::{collections::BTreeSet, sync::LazyLock};

use pelton_core::{Offset, Timestamp};
use sqlx::{SqliteConnection, SqlitePool};

use super::{
    multi_row::MultiRow,
    seats, sql,
    transaction::{Fault, Transaction, Write},
    writer::Writer,
};
use crate::StoreError;

const TRIMMING: &str = "removing old events";
const FORGETTING: &str = "forgetting ids";

/// The offset of a partition `p` up to which all groups are past its events.
macro_rules! passed {
    () => {
        "coalesce((SELECT min(g.committed) FROM groups r
                   CROSS JOIN group_partitions g ON g.group_name = r.name AND g.partition = p.partition
                   WHERE r.stream = p.stream), p.next_offset)"
    };
}

/// Which events are old, and which are of the future: a clock that was wrong has stamped them.
#[derive(Clone, Copy)]
pub(super) struct Old {
    pub(super) before: Timestamp,
    pub(super) now: Timestamp,
}

/// Removes the oldest events of a stream, and says how many. Each partition in a transaction of its own: a stream of many
/// must not hold up all that is to be written meanwhile.
pub(super) async fn trim(
    reads: &SqlitePool,
    writer: &Writer,
    stream: &str,
    old: Old,
    events_max: u32,
) -> Result<u64, StoreError> {
    let mut removed = 0;
    for partition_id in due(reads, stream, old).await? {
        removed += writer.write(Trim { partition_id, old, events_max }).await?;
    }
    Ok(removed)
}

/// The ids of those partitions whose first event may go.
async fn due(reads: &SqlitePool, stream: &str, old: Old) -> Result<Vec<i64>, StoreError> {
    let failed = |error: sqlx::Error| sql::unavailable(TRIMMING, &error);
    let due: Vec<i64> = sqlx::query_scalar(concat!(
        r#"SELECT p.id FROM stream_partitions p
           WHERE p.stream = ?1
             AND EXISTS (SELECT 1 FROM events e WHERE e.partition_id = p.id AND e."offset" = p.first_offset
                           AND (e.time < ?2 OR e.time > ?3))
             AND p.first_offset < "#,
        passed!(),
        " ORDER BY p.partition",
    ))
    .bind(stream)
    .bind(sql::int(old.before.0))
    .bind(sql::int(old.now.0))
    .fetch_all(reads)
    .await
    .map_err(failed)?;
    if due.is_empty() {
        let found: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM streams WHERE name = ?)")
            .bind(stream)
            .fetch_one(reads)
            .await
            .map_err(failed)?;
        if !found {
            return Err(sql::unknown_stream(reads, stream).await.map_err(failed)?);
        }
    }
    Ok(due)
}

/// Removes the oldest events of one partition.
struct Trim {
    partition_id: i64,
    old: Old,
    events_max: u32,
}

impl Write for Trim {
    type Answer = u64;
    const DOING: &'static str = TRIMMING;

    /// What comes back is removed again.
    fn may_be_lost(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        transaction.write_counters().await?;
        let connection = &mut *transaction.connection;
        let (first, passed): (i64, i64) = sqlx::query_as(concat!(
            "SELECT first_offset, min(next_offset, ",
            passed!(),
            ") FROM stream_partitions p WHERE id = ?1",
        ))
        .bind(self.partition_id)
        .fetch_one(&mut *connection)
        .await?;
        let end = self.end(connection, first, passed).await?;
        if end <= first {
            return Ok(0);
        }
        sqlx::query(r#"DELETE FROM events WHERE partition_id = ? AND "offset" < ?"#)
            .bind(self.partition_id)
            .bind(end)
            .execute(&mut *connection)
            .await?;
        sqlx::query("UPDATE stream_partitions SET first_offset = ?2 WHERE id = ?1")
            .bind(self.partition_id)
            .bind(end)
            .execute(connection)
            .await?;
        Ok(sql::uint(end - first))
    }
}

impl Trim {
    /// The offset up to which events go, of those that all groups have passed.
    ///
    /// Clocks step back: an old event behind a younger one stays until that one goes, or there would be a gap. One of the
    /// future would keep the partition for as long as the clock was wrong: it goes with an old one behind it.
    async fn end(&self, connection: &mut SqliteConnection, first: i64, passed: i64) -> Result<i64, sqlx::Error> {
        let step = passed.min(first.saturating_add(i64::from(self.events_max)));
        let (stop, end): (i64, Option<i64>) = sqlx::query_as(
            r#"WITH y AS (
                   SELECT coalesce((SELECT "offset" FROM events
                       WHERE partition_id = ?1 AND "offset" >= ?2 AND "offset" < ?3 AND time >= ?4 AND time <= ?5
                       ORDER BY "offset" LIMIT 1), ?3) AS stop)
               SELECT y.stop, (SELECT "offset" + 1 FROM events
                   WHERE partition_id = ?1 AND "offset" >= ?2 AND "offset" < y.stop AND time < ?4
                   ORDER BY "offset" DESC LIMIT 1)
               FROM y"#,
        )
        .bind(self.partition_id)
        .bind(first)
        .bind(step)
        .bind(sql::int(self.old.before.0))
        .bind(sql::int(self.old.now.0))
        .fetch_one(&mut *connection)
        .await?;
        let all_of_the_future = end.is_none() && stop == step && first < stop && stop < passed;
        if all_of_the_future && self.is_old_behind(connection, stop - 1, passed - 1).await? {
            return Ok(stop);
        }
        Ok(end.unwrap_or(first))
    }

    /// Whether an old event is found behind one of the future, up to a last one. There may be any number of them: the search
    /// for the next that is not of the future goes by halves.
    async fn is_old_behind(
        &self,
        connection: &mut SqliteConnection,
        mut ahead: i64,
        last: i64,
    ) -> Result<bool, sqlx::Error> {
        let (mut looks_at, mut behind) = (last, last);
        while looks_at > ahead {
            let time: i64 = sqlx::query_scalar(r#"SELECT time FROM events WHERE partition_id = ? AND "offset" = ?"#)
                .bind(self.partition_id)
                .bind(looks_at)
                .fetch_one(&mut *connection)
                .await?;
            if time < sql::int(self.old.before.0) {
                return Ok(true);
            }
            if time <= sql::int(self.old.now.0) {
                behind = looks_at;
            } else {
                ahead = looks_at;
            }
            looks_at = ahead + (behind - ahead) / 2;
        }
        Ok(false)
    }
}

/// Which of these ids a group remembers in a partition.
pub(super) async fn remembered(
    reads: &SqlitePool,
    group: &str,
    partition: u32,
    ids: Vec<String>,
) -> Result<BTreeSet<String>, StoreError> {
    let read = async {
        let mut connection = reads.acquire().await?;
        // First a row without an id, if there is such a partition. The join is told its order: the wanted ids are few.
        let rows: Vec<Option<String>> = sqlx::query_scalar(
            "SELECT NULL AS id FROM group_partitions WHERE group_name = ?1 AND partition = ?2
             UNION ALL
             SELECT r.id FROM json_each(?3) wanted
                 CROSS JOIN remembered r ON r.group_name = ?1 AND r.partition = ?2 AND r.id = wanted.value",
        )
        .bind(group)
        .bind(partition)
        .bind(serde_json::Value::from(ids).to_string())
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            seats::check_partition(&mut connection, group, Some(partition)).await?;
        }
        Ok(rows.into_iter().flatten().collect())
    };
    read.await.map_err(|fault: Fault| fault.into_error("looking for remembered ids"))
}

/// Remembers ids of events at these offsets. Costs nothing if there are none.
pub(super) async fn remember(
    transaction: &mut Transaction<'_>,
    group: &str,
    partition: u32,
    ids: &[(Offset, String)],
) -> Result<(), sqlx::Error> {
    static INSERT: LazyLock<MultiRow> = LazyLock::new(|| {
        let into = r#"INSERT INTO remembered (group_name, partition, id, "offset", time) VALUES"#;
        MultiRow::new(into, "(?, ?, ?, ?, ?)", "ON CONFLICT DO NOTHING")
    });
    let mut rest = ids;
    while !rest.is_empty() {
        let (count, statement) = INSERT.first_of(rest.len());
        let (now, later) = rest.split_at(count);
        let mut query = sqlx::query(statement);
        for (offset, id) in now {
            query = query
                .bind(group)
                .bind(partition)
                .bind(id.as_str())
                .bind(sql::int(offset.0))
                .bind(sql::int(transaction.now.0));
        }
        query.execute(&mut *transaction.connection).await?;
        rest = later;
    }
    Ok(())
}

/// Forgets the ids of events at these offsets. Costs nothing if there are none.
pub(super) async fn forget_places(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
    places: &BTreeSet<Offset>,
) -> Result<(), sqlx::Error> {
    if places.is_empty() {
        return Ok(());
    }
    let places: Vec<i64> = places.iter().map(|offset| sql::int(offset.0)).collect();
    sqlx::query(
        r#"DELETE FROM remembered
           WHERE group_name = ? AND partition = ? AND "offset" IN (SELECT value FROM json_each(?))"#,
    )
    .bind(group)
    .bind(partition)
    .bind(serde_json::Value::from(places).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets ids that a group remembered for long enough, and says how many.
pub(super) async fn forget(reads: &SqlitePool, writer: &Writer, forget: Forget) -> Result<u64, StoreError> {
    let look = async {
        let mut connection = reads.acquire().await?;
        seats::check_partition(&mut connection, &forget.group, None).await?;
        Ok(forget.is_due(&mut connection).await?)
    };
    let due = look.await.map_err(|fault: Fault| fault.into_error(FORGETTING))?;
    if due { writer.write(forget).await } else { Ok(0) }
}

/// Which ids to forget.
pub(super) struct Forget {
    pub(super) group: String,
    /// Remembered before this time,
    pub(super) before: Timestamp,
    /// or of an event that lies further behind the position than this.
    pub(super) keep: u64,
    /// At most.
    pub(super) ids_max: u32,
}

/// Ids `r` of a group that were remembered before a time.
macro_rules! old {
    () => {
        "SELECT r.group_name, r.partition, r.id FROM remembered r WHERE r.group_name = ?1 AND r.time < ?2"
    };
}

/// Ids `r` of a group whose events lie further behind the position than a number.
macro_rules! far {
    () => {
        r#"SELECT r.group_name, r.partition, r.id FROM group_partitions g
           CROSS JOIN remembered r
               ON r.group_name = g.group_name AND r.partition = g.partition AND r."offset" < g.committed - ?2
           WHERE g.group_name = ?1"#
    };
}

impl Forget {
    async fn is_due(&self, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let old: bool = sqlx::query_scalar(concat!("SELECT EXISTS (", old!(), ")"))
            .bind(&self.group)
            .bind(sql::int(self.before.0))
            .fetch_one(&mut *connection)
            .await?;
        let far = sqlx::query_scalar(concat!("SELECT EXISTS (", far!(), ")"))
            .bind(&self.group)
            .bind(sql::int(self.keep))
            .fetch_one(connection);
        Ok(old || far.await?)
    }
}

impl Write for Forget {
    type Answer = u64;
    const DOING: &'static str = FORGETTING;

    /// What comes back is forgotten again.
    fn may_be_lost(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        // All of the key is compared: with less, ids would be looked for in whole partitions.
        const OLD: &str =
            concat!("DELETE FROM remembered WHERE (group_name, partition, id) IN (", old!(), " LIMIT ?3)");
        const FAR: &str =
            concat!("DELETE FROM remembered WHERE (group_name, partition, id) IN (", far!(), " LIMIT ?3)");
        let mut forgotten = 0;
        for (statement, bound) in [(OLD, self.before.0), (FAR, self.keep)] {
            let deleted = sqlx::query(statement)
                .bind(&self.group)
                .bind(sql::int(bound))
                .bind(sql::int(u64::from(self.ids_max).saturating_sub(forgotten)))
                .execute(&mut *transaction.connection)
                .await?;
            forgotten += deleted.rows_affected();
        }
        Ok(forgotten)
    }
}
