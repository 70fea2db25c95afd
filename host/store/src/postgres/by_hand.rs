//! Groups moved and removed by hand.

use std::collections::BTreeMap;

use pelton_core::{LetterRequest, Offset};

use super::{
    connection::Connection,
    groups::{hold_stream, lock_partitions},
    request::{Change, Fault, Request, Transaction},
    sql::{self, Sql},
    survey, versions,
};
use crate::{Reset, StoreError, rules};

/// Moves positions.
pub(super) struct Move<'a>(pub(super) &'a Reset);

impl Request for Move<'_> {
    type Answer = ();
    const DOING: &'static str = "resetting a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let reset = self.0;
        let group = &reset.group;
        let stream = lock_group(sql, connection, group).await?;
        hold_stream(sql, connection, &stream).await?;
        if !reset.force {
            rules::refuse_active(&survey::of(sql, connection).await?, group, rules::REMEDY_RESET)?;
        }
        let (partitions, offsets) = numbers(&reset.to);
        // First locked and then looked at, so that what commits have written until now is seen.
        lock_partitions(sql, connection, group, None).await?;
        let rows: Vec<Found> = sqlx::query_as(sql.text(
            r#"SELECT p.first_offset, p.next_offset,
                   EXISTS (SELECT FROM @.state s WHERE s.group_name = g.group_name AND s.partition = g.partition),
                   (SELECT count(*) FROM @.dead_letters d WHERE d.group_name = g.group_name AND d.partition = g.partition
                      AND d."offset" >= t.to_offset)
               FROM @.group_partitions g JOIN @.stream_partitions p ON p.id = g.partition_id
               LEFT JOIN unnest($2::int[], $3::bigint[]) AS t (partition, to_offset) ON t.partition = g.partition
               WHERE g.group_name = $1 ORDER BY g.partition"#,
        ))
        .bind(group)
        .bind(&partitions)
        .bind(&offsets)
        .fetch_all(&mut **connection)
        .await?;
        check(reset, &rows)?;
        if reset.dry_run {
            return Ok(());
        }
        versions::end_ranges(sql, connection, group, &partitions).await?;
        // Whoever acquires a partition next gets the next epoch; until then nobody's is the present one.
        sqlx::query(sql.text(concat!(
            "UPDATE @.group_partitions g
             SET committed = t.to_offset, position = t.to_offset, committed_at = n.now, owner = NULL, ",
            sql::unmarked!(),
            " FROM unnest($2::int[], $3::bigint[]) AS t (partition, to_offset), (SELECT @.now() AS now) n
             WHERE g.group_name = $1 AND g.partition = t.partition",
        )))
        .bind(group)
        .bind(&partitions)
        .bind(&offsets)
        .execute(&mut **connection)
        .await?;
        // What lies before them was handled still.
        sqlx::query(sql.text(
            r#"DELETE FROM @.remembered r USING unnest($2::int[], $3::bigint[]) AS t (partition, to_offset)
               WHERE r.group_name = $1 AND r.partition = t.partition AND r."offset" >= t.to_offset"#,
        ))
        .bind(group)
        .bind(&partitions)
        .bind(&offsets)
        .execute(&mut **connection)
        .await?;
        if reset.clear_state == Some(true) {
            sqlx::query(sql.text("DELETE FROM @.state WHERE group_name = $1 AND partition = ANY ($2)"))
                .bind(group)
                .bind(&partitions)
                .execute(&mut **connection)
                .await?;
        }
        *wakes = Some(Change::Membership);
        Ok(())
    }
}

/// The first offset of a partition, its head, whether the group has state there, and how many of its dead letters lie in
/// what would be handed out again.
type Found = (i64, i64, bool, i64);

fn check(reset: &Reset, rows: &[Found]) -> Result<(), StoreError> {
    for (&partition, &to) in &reset.to {
        let Some((first, head, has_state, letters)) = rows.get(partition as usize) else {
            return Err(rules::unknown_group_partition(&reset.group, partition, rows.len() as u32));
        };
        let (first, head) = (Offset(sql::uint(*first)), Offset(sql::uint(*head)));
        rules::check_reset(&reset.group, partition, to, first, head)?;
        if *letters > 0 {
            return Err(rules::letters_in_range(&reset.group, sql::uint(*letters)));
        }
        if *has_state && reset.clear_state.is_none() {
            return Err(StoreError::HasState { group: reset.group.clone() });
        }
    }
    Ok(())
}

fn numbers(to: &BTreeMap<u32, Offset>) -> (Vec<i32>, Vec<i64>) {
    to.iter().map(|(&partition, &to)| (sql::partition(partition), sql::int(to.0))).unzip()
}

/// Sets the event aside that a partition waits for or is stopped at, and answers with its offset.
pub(super) struct Skip<'a> {
    pub(super) group: &'a str,
    pub(super) partition: u32,
    /// Whether its key is to be parked.
    pub(super) park: bool,
}

impl Request for Skip<'_> {
    type Answer = Offset;
    const DOING: &'static str = "skipping an event";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Offset, Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let Self { group, partition, .. } = *self;
        lock_partitions(sql, connection, group, Some(partition)).await?;
        let row = sqlx::query(sql.text(concat!(
            "SELECT ",
            sql::mark_columns!(),
            " FROM @.group_partitions g WHERE g.group_name = $1 AND g.partition = $2",
        )))
        .bind(group)
        .bind(sql::partition(partition))
        .fetch_one(&mut **connection)
        .await?;
        let committed = sql::offset(&row, "committed")?;
        match sql::mark(&row)?.failed() {
            None => return Err(rules::nothing_blocks(group, partition, committed).into()),
            Some((at, _)) if at != committed => {
                return Err(rules::skips_more(group, partition, committed, at).into());
            }
            Some(_) => {}
        }
        if !self.set_aside(sql, connection).await? {
            return Err(rules::nothing_blocks(group, partition, committed).into());
        }
        self.remember(sql, connection).await?;
        sqlx::query(sql.text(concat!(
            "UPDATE @.group_partitions
             SET committed = committed + 1, position = committed + 1, committed_at = @.now(), owner = NULL,
                 letters = letters + 1, ",
            sql::unmarked!(),
            " WHERE group_name = $1 AND partition = $2",
        )))
        .bind(group)
        .bind(sql::partition(partition))
        .execute(&mut **connection)
        .await?;
        *wakes = Some(Change::Membership);
        Ok(committed)
    }
}

impl Skip<'_> {
    /// False if the event is not there.
    async fn set_aside(&self, sql: &Sql, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let added = sqlx::query(sql.text(
            r#"INSERT INTO @.dead_letters
                   (group_name, partition, "offset", id, key, kind, time, headers, payload, class, reason, attempts,
                    first_failed, last_failed, digest, parks, request)
               SELECT g.group_name, g.partition, e."offset", e.id, e.key, e.kind, e.time, e.headers, e.payload,
                   coalesce(g.class, 'transient'), coalesce(g.reason, ''), g.attempts,
                   coalesce(g.first_failed, to_timestamp(0)), coalesce(g.last_failed, to_timestamp(0)), g.failed_by,
                   e.key IS NOT NULL AND ($3 OR q.events > 0),
                   CASE WHEN q.replayed THEN $4 END
               FROM @.group_partitions g
               JOIN @.events e ON e.partition_id = g.partition_id AND e."offset" = g.committed
               CROSS JOIN LATERAL (
                   SELECT count(*) AS events, bool_or(d.request IS NOT DISTINCT FROM $4) AS replayed
                   FROM @.dead_letters d
                   WHERE d.group_name = $1 AND d.partition = $2 AND d.parks AND d.key = e.key) q
               WHERE g.group_name = $1 AND g.partition = $2"#,
        ))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .bind(self.park)
        .bind(LetterRequest::Replay.as_str())
        .execute(connection)
        .await?;
        Ok(added.rows_affected() > 0)
    }

    /// The next owner must not handle a copy of it, as if it had set the event aside itself. Whether the group remembers ids is
    /// not known here; if not, the row goes with the letter.
    async fn remember(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        sqlx::query(sql.text(
            r#"INSERT INTO @.remembered (group_name, partition, id, "offset", time)
               SELECT d.group_name, d.partition, d.id, d."offset", @.now()
               FROM @.group_partitions g
               JOIN @.dead_letters d
                   ON d.group_name = g.group_name AND d.partition = g.partition AND d."offset" = g.committed
               WHERE g.group_name = $1 AND g.partition = $2
               ON CONFLICT DO NOTHING"#,
        ))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Removes a group with all that it has.
pub(super) struct Delete<'a> {
    pub(super) group: &'a str,
    /// Also if it has dead letters.
    pub(super) with_letters: bool,
}

impl Request for Delete<'_> {
    type Answer = ();
    const DOING: &'static str = "deleting a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let group = self.group;
        lock_group(sql, connection, group).await?;
        let survey = survey::of(sql, connection).await?;
        // In the order in which everybody locks rows; whoever is refused has deleted nothing.
        self.delete(sql, connection, "DELETE FROM @.members WHERE group_name = $1").await?;
        lock_partitions(sql, connection, group, None).await?;
        if !self.with_letters {
            let letters = sql.text("SELECT count(*) FROM @.dead_letters WHERE group_name = $1");
            let letters: i64 = sqlx::query_scalar(letters).bind(group).fetch_one(&mut **connection).await?;
            if letters > 0 {
                return Err(rules::letters_to_delete(group, sql::uint(letters)).into());
            }
        }
        rules::refuse_active(&survey, group, rules::REMEDY_DELETE)?;
        for statement in [
            "DELETE FROM @.dead_letters WHERE group_name = $1",
            "DELETE FROM @.group_partitions WHERE group_name = $1",
            "DELETE FROM @.state WHERE group_name = $1",
            "DELETE FROM @.remembered WHERE group_name = $1",
            "DELETE FROM @.groups WHERE name = $1",
        ] {
            self.delete(sql, connection, statement).await?;
        }
        *wakes = Some(Change::Membership);
        Ok(())
    }
}

impl Delete<'_> {
    async fn delete(&self, sql: &Sql, connection: &mut Connection, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(sql.text(statement)).bind(self.group).execute(connection).await?;
        Ok(())
    }
}

/// Whoever joins waits; refuses a group that is not there. Answers with its stream.
async fn lock_group(sql: &Sql, connection: &mut Connection, group: &str) -> Result<String, Fault> {
    let locked = sqlx::query_scalar(sql.text("SELECT stream FROM @.groups WHERE name = $1 FOR UPDATE"))
        .bind(group)
        .fetch_optional(&mut *connection)
        .await?;
    match locked {
        Some(stream) => Ok(stream),
        None => Err(sql::unknown_group(sql, connection, group).await?.into()),
    }
}
