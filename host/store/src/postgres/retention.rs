//! What goes with time: events that every group has passed, and ids that were remembered for long enough.

use std::collections::BTreeSet;

use pelton_core::Timestamp;
use sqlx::Executor;

use super::{
    connection::Connection,
    groups::check_partition,
    request::{Fault, Request, Transaction},
    sql::{self, Sql, Time},
};

/// How long the end of a trim waits for a counter that an appender holds. An appender may wait in turn for a trim that has
/// removed the id he appends: this is shorter than what it takes the server to notice and to break one of them off, so that
/// it is always the trim that gives way.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '500ms'";

/// Up to which offset all groups of its stream have passed the partition `p`; NULL without groups.
macro_rules! passed {
    () => {
        "(SELECT min(gp.committed) FROM @.groups g
          JOIN @.group_partitions gp ON gp.group_name = g.name AND gp.partition = p.partition WHERE g.stream = p.stream)"
    };
}

/// The rows of a stream's partitions in which there is something to remove. Looks at the first event of each and locks
/// nothing.
pub(super) struct Old<'a> {
    pub(super) stream: &'a str,
    pub(super) before: Timestamp,
}

impl Request for Old<'_> {
    type Answer = Vec<i64>;
    const DOING: &'static str = "looking for old events";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<i64>, Fault> {
        // By its offset: a search for the lowest one would wade through those that were removed before it.
        let old = transaction.sql.text(concat!(
            r#"SELECT p.id FROM @.stream_partitions p
               JOIN @.events e ON e.partition_id = p.id AND e."offset" = p.first_offset
               WHERE p.stream = $1 AND (e.time < $2 OR e.time > (SELECT @.now())) AND e."offset" < coalesce("#,
            passed!(),
            ", p.next_offset) ORDER BY p.id",
        ));
        let query = sqlx::query_scalar(old).bind(self.stream).bind(Time(self.before));
        Ok(query.fetch_all(&mut *transaction.connection).await?)
    }
}

/// Removes the oldest events of one partition, and says how many.
pub(super) struct Trim<'a> {
    pub(super) stream: &'a str,
    pub(super) partition_id: i64,
    pub(super) before: Timestamp,
    pub(super) events_max: u32,
}

impl Request for Trim<'_> {
    type Answer = u64;
    const DOING: &'static str = "removing old events";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        connection.execute(sqlx::raw_sql(LOCK_TIMEOUT)).await?;
        // Whoever puts a position at the first event, a new group's or by hand, holds the stream meanwhile.
        sqlx::query(sql.text("SELECT FROM @.streams WHERE name = $1 FOR NO KEY UPDATE"))
            .bind(self.stream)
            .execute(&mut **connection)
            .await?;
        let (first, last) = self.bounds(sql, connection).await?;
        if last <= first {
            return Ok(0);
        }
        let removed = sqlx::query(
            sql.text(r#"DELETE FROM @.events WHERE partition_id = $1 AND "offset" >= $2 AND "offset" < $3"#),
        )
        .bind(self.partition_id)
        .bind(first)
        .bind(last)
        .execute(&mut **connection)
        .await?;
        // Last of all: appenders wait for this row.
        sqlx::query(sql.text("UPDATE @.stream_partitions SET first_offset = $2 WHERE id = $1"))
            .bind(self.partition_id)
            .bind(last)
            .execute(&mut **connection)
            .await?;
        Ok(removed.rows_affected())
    }
}

impl Trim<'_> {
    /// From which offset to which one there is something to remove.
    ///
    /// Clocks step back: an old event behind a younger one stays until that one goes, or there would be a gap. One of the
    /// future would keep the partition for as long as the clock was wrong: it goes with an old one behind it.
    async fn bounds(&self, sql: &Sql, connection: &mut Connection) -> Result<(i64, i64), sqlx::Error> {
        let found: (i64, i64, i64, i64, Option<i64>) = sqlx::query_as(sql.text(concat!(
            r#"SELECT b.first, b.passed, b.step, y.stop, (
                   SELECT e."offset" + 1 FROM @.events e
                   WHERE e.partition_id = $1 AND e."offset" >= b.first AND e."offset" < y.stop AND e.time < $2
                   ORDER BY e."offset" DESC LIMIT 1)
               FROM (
                   SELECT p.first AS first, p.passed, least(p.first + $3, p.passed) AS step
                   FROM (SELECT p.first_offset AS first, least(p.next_offset, "#,
            passed!(),
            r#") AS passed FROM @.stream_partitions p WHERE p.id = $1) p) b
               CROSS JOIN LATERAL (SELECT coalesce((
                   SELECT e."offset" FROM @.events e
                   WHERE e.partition_id = $1 AND e."offset" >= b.first AND e."offset" < b.step
                     AND e.time >= $2 AND e.time <= (SELECT @.now())
                   ORDER BY e."offset" LIMIT 1), b.step) AS stop) y"#,
        )))
        .bind(self.partition_id)
        .bind(Time(self.before))
        .bind(i64::from(self.events_max))
        .fetch_one(&mut *connection)
        .await?;
        let (first, passed, step, stop, last) = found;
        let all_of_the_future = last.is_none() && stop == step && first < stop && stop < passed;
        if all_of_the_future && self.is_old_behind(sql, connection, stop - 1, passed - 1).await? {
            return Ok((first, stop));
        }
        Ok((first, last.unwrap_or(first)))
    }

    /// Whether an old event is found behind one of the future, up to a last one. There may be any number of them: the search
    /// for the next that is not of the future goes by halves.
    async fn is_old_behind(
        &self,
        sql: &Sql,
        connection: &mut Connection,
        mut ahead: i64,
        last: i64,
    ) -> Result<bool, sqlx::Error> {
        let (mut looks_at, mut behind) = (last, last);
        while looks_at > ahead {
            let (is_old, of_the_future): (bool, bool) = sqlx::query_as(
                sql.text(r#"SELECT time < $3, time > @.now() FROM @.events WHERE partition_id = $1 AND "offset" = $2"#),
            )
            .bind(self.partition_id)
            .bind(looks_at)
            .bind(Time(self.before))
            .fetch_one(&mut *connection)
            .await?;
            if is_old {
                return Ok(true);
            }
            if of_the_future {
                ahead = looks_at;
            } else {
                behind = looks_at;
            }
            looks_at = ahead + (behind - ahead) / 2;
        }
        Ok(false)
    }
}

/// Forgets ids of a group, and says how many.
pub(super) struct Forget<'a> {
    pub(super) group: &'a str,
    pub(super) before: Timestamp,
    /// How many offsets behind the position they are kept.
    pub(super) keep: u64,
    pub(super) ids_max: u32,
}

impl Request for Forget<'_> {
    type Answer = u64;
    const DOING: &'static str = "forgetting ids";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        check_partition(sql, connection, self.group, None).await?;
        let forgotten = sqlx::query(sql.text(
            // By the places of the rows, which nobody changes: so there is no join to plan badly.
            r#"DELETE FROM @.remembered WHERE ctid = ANY (ARRAY (
                   (SELECT r.ctid FROM @.remembered r WHERE r.group_name = $1 AND r.time < $2 ORDER BY r.time LIMIT $4)
                   UNION
                   (SELECT r.ctid FROM @.group_partitions g CROSS JOIN LATERAL (
                        SELECT r.ctid FROM @.remembered r
                        WHERE r.group_name = $1 AND r.partition = g.partition AND r."offset" < g.committed - $3
                        ORDER BY r."offset" LIMIT $4) r
                    WHERE g.group_name = $1 LIMIT $4)
                   LIMIT $4))"#,
        ))
        .bind(self.group)
        .bind(Time(self.before))
        .bind(sql::int(self.keep))
        .bind(i64::from(self.ids_max))
        .execute(&mut **connection)
        .await?;
        Ok(forgotten.rows_affected())
    }
}

/// Which ids a group remembers in a partition.
pub(super) struct Remembered<'a> {
    pub(super) group: &'a str,
    pub(super) partition: u32,
    pub(super) ids: &'a [String],
}

impl Request for Remembered<'_> {
    type Answer = BTreeSet<String>;
    const DOING: &'static str = "looking up remembered ids";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<BTreeSet<String>, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        // One row without an id where there are none: no row is no partition.
        let found: Vec<Option<String>> = sqlx::query_scalar(sql.text(
            // Id by id: without statistics, a join would read all that is remembered in the partition.
            "SELECT (SELECT r.id FROM @.remembered r WHERE r.group_name = $1 AND r.partition = $2 AND r.id = wanted.id)
             FROM @.group_partitions g LEFT JOIN unnest($3::text[]) AS wanted (id) ON true
             WHERE g.group_name = $1 AND g.partition = $2",
        ))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .bind(self.ids)
        .fetch_all(&mut **connection)
        .await?;
        if found.is_empty() {
            check_partition(sql, connection, self.group, Some(self.partition)).await?;
        }
        Ok(found.into_iter().flatten().collect())
    }
}
