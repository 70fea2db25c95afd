//! Groups moved and removed by hand.

use std::collections::BTreeMap;

use pelton_core::Offset;

use super::{
    connection::Connection,
    request::{Change, Fault, Request, Transaction},
    sql::{self, Sql},
    survey,
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
        lock_group(sql, connection, group).await?;
        if !reset.force {
            rules::refuse_active(&survey::of(sql, connection).await?, group, rules::REMEDY_RESET)?;
        }
        let rows: Vec<(i32, i64, i64, bool)> = sqlx::query_as(sql.text(
            "SELECT g.partition, p.first_offset, p.next_offset,
                 EXISTS (SELECT FROM @.state s WHERE s.group_name = g.group_name AND s.partition = g.partition)
             FROM @.group_partitions g JOIN @.stream_partitions p ON p.id = g.partition_id
             WHERE g.group_name = $1 ORDER BY g.partition FOR NO KEY UPDATE OF g",
        ))
        .bind(group)
        .fetch_all(&mut **connection)
        .await?;
        check(reset, &rows)?;
        if reset.dry_run {
            return Ok(());
        }
        let (partitions, offsets) = numbers(&reset.to);
        // Whoever acquires a partition next gets the next epoch; until then nobody's is the present one.
        sqlx::query(sql.text(
            "UPDATE @.group_partitions g
             SET committed = t.to_offset, position = t.to_offset, committed_at = n.now, owner = NULL, attempts = 0,
                 next_attempt = NULL, stopped = false, reason = NULL, failed_by = NULL
             FROM unnest($2::int[], $3::bigint[]) AS t (partition, to_offset), (SELECT @.now() AS now) n
             WHERE g.group_name = $1 AND g.partition = t.partition",
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

fn check(reset: &Reset, rows: &[(i32, i64, i64, bool)]) -> Result<(), StoreError> {
    for (&partition, &to) in &reset.to {
        let Some((_, first, head, has_state)) = rows.get(partition as usize) else {
            return Err(rules::unknown_group_partition(&reset.group, partition, rows.len() as u32));
        };
        let (first, head) = (Offset(sql::uint(*first)), Offset(sql::uint(*head)));
        rules::check_reset(&reset.group, partition, to, first, head)?;
        if *has_state && reset.clear_state.is_none() {
            return Err(StoreError::HasState { group: reset.group.clone() });
        }
    }
    Ok(())
}

fn numbers(to: &BTreeMap<u32, Offset>) -> (Vec<i32>, Vec<i64>) {
    to.iter().map(|(&partition, &to)| (sql::partition(partition), sql::int(to.0))).unzip()
}

/// Removes a group with its positions and state.
pub(super) struct Delete<'a>(pub(super) &'a str);

impl Request for Delete<'_> {
    type Answer = ();
    const DOING: &'static str = "deleting a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        lock_group(sql, connection, self.0).await?;
        rules::refuse_active(&survey::of(sql, connection).await?, self.0, rules::REMEDY_DELETE)?;
        // In the order in which everybody locks rows.
        for statement in [
            "DELETE FROM @.members WHERE group_name = $1",
            "DELETE FROM @.group_partitions WHERE group_name = $1",
            "DELETE FROM @.state WHERE group_name = $1",
            "DELETE FROM @.groups WHERE name = $1",
        ] {
            sqlx::query(sql.text(statement)).bind(self.0).execute(&mut **connection).await?;
        }
        *wakes = Some(Change::Membership);
        Ok(())
    }
}

/// Whoever joins waits; refuses a group that is not there.
async fn lock_group(sql: &Sql, connection: &mut Connection, group: &str) -> Result<(), Fault> {
    let locked = sqlx::query(sql.text("SELECT FROM @.groups WHERE name = $1 FOR UPDATE"))
        .bind(group)
        .fetch_optional(&mut *connection)
        .await?;
    match locked {
        Some(_) => Ok(()),
        None => Err(sql::unknown_group(sql, connection, group).await?.into()),
    }
}
