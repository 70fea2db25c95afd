//! What is done to a whole group by hand: moving its positions, and removing it.

use std::sync::Arc;

use pelton_core::{Offset, Timestamp};
use sqlx::SqliteConnection;

use super::{
    host_locks::HostLocks,
    mark::clear_mark,
    sql, survey,
    transaction::{Fault, Transaction, Write},
    versions,
    writer::Writer,
};
use crate::{Reset, StoreError, rules};

const RESETTING: &str = "resetting a group";
const DELETING: &str = "deleting a group";

/// Ids that one step forgets: a large group remembers millions, and heartbeats wait for the writer meanwhile.
const IDS_AT_ONCE: u32 = 5_000;

/// Moves positions by hand. The ids that go with it go first, step by step, as far as they are there by then.
///
/// Whoever is interrupted in between leaves a group that stands where it stood and has forgotten some of them. Nobody
/// misses those as long as retention leaves their events alone: these lie behind the new position, which is in the stream,
/// and what is there is not appended again. Once the position is moved they must be gone, or what is handed out again would
/// be passed over.
pub(super) async fn reset(writer: &Writer, reset: &Reset, locks: &Arc<HostLocks>) -> Result<(), StoreError> {
    let moving = || Move { reset: reset.clone(), locks: Arc::clone(locks) };
    if !reset.dry_run {
        while writer.write(ForgetToMove(moving())).await? == u64::from(IDS_AT_ONCE) {}
    }
    writer.write(moving()).await
}

/// Moves positions by hand, in one transaction.
struct Move {
    reset: Reset,
    locks: Arc<HostLocks>,
}

impl Move {
    /// Refuses what cannot be done. Answers with where the positions are.
    async fn check(&self, transaction: &mut Transaction<'_>) -> Result<Vec<Offset>, Fault> {
        let reset = &self.reset;
        check_group(transaction.connection, &reset.group).await?;
        if !reset.force {
            refuse_active(transaction, &reset.group, &self.locks, rules::REMEDY_RESET).await?;
        }
        transaction.write_counters().await?;
        let mut committed = Vec::new();
        for (&partition, &to) in &reset.to {
            committed.push(check(transaction.connection, reset, partition, to).await?);
        }
        Ok(committed)
    }
}

impl Write for Move {
    type Answer = ();
    const DOING: &'static str = RESETTING;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        // All that can be refused is, before anything is moved.
        let committed = self.check(transaction).await?;
        let reset = &self.reset;
        if reset.dry_run {
            return Ok(());
        }
        for ((&partition, &to), committed) in reset.to.iter().zip(committed) {
            versions::end_range(transaction.connection, &reset.group, partition, committed).await?;
            move_one(transaction.connection, reset, partition, to, transaction.now).await?;
        }
        transaction.wakes = true;
        Ok(())
    }
}

/// Forgets some of the ids that a move forgets, and says how many.
struct ForgetToMove(Move);

impl Write for ForgetToMove {
    type Answer = u64;
    const DOING: &'static str = RESETTING;

    /// What comes back is forgotten again.
    fn may_be_lost(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        self.0.check(transaction).await?;
        let (mut forgotten, reset) = (0, &self.0.reset);
        for (&partition, &to) in &reset.to {
            // All of the key is compared: with less, ids would be looked for in whole partitions.
            let deleted = sqlx::query(
                r#"DELETE FROM remembered WHERE (group_name, partition, id) IN (
                       SELECT group_name, partition, id FROM remembered
                       WHERE group_name = ? AND partition = ? AND "offset" >= ? LIMIT ?)"#,
            )
            .bind(&reset.group)
            .bind(partition)
            .bind(sql::int(to.0))
            .bind(sql::int(u64::from(IDS_AT_ONCE).saturating_sub(forgotten)))
            .execute(&mut *transaction.connection)
            .await?;
            forgotten += deleted.rows_affected();
        }
        Ok(forgotten)
    }
}

/// Answers with where the position is.
async fn check(connection: &mut SqliteConnection, reset: &Reset, partition: u32, to: Offset) -> Result<Offset, Fault> {
    let found: Option<(i64, i64, i64, i64, bool)> = sqlx::query_as(
        r#"SELECT g.committed, p.first_offset, p.next_offset,
             (SELECT count(*) FROM dead_letters d
              WHERE d.group_name = g.group_name AND d.partition = g.partition AND d."offset" >= ?3),
             EXISTS (SELECT 1 FROM state s WHERE s.group_name = g.group_name AND s.partition = g.partition)
         FROM group_partitions g JOIN stream_partitions p ON p.id = g.partition_id
         WHERE g.group_name = ?1 AND g.partition = ?2"#,
    )
    .bind(&reset.group)
    .bind(partition)
    .bind(sql::int(to.0))
    .fetch_optional(&mut *connection)
    .await?;
    let Some((committed, first, head, letters, has_state)) = found else {
        let partitions: u32 = sqlx::query_scalar("SELECT count(*) FROM group_partitions WHERE group_name = ?")
            .bind(&reset.group)
            .fetch_one(connection)
            .await?;
        return Err(rules::unknown_group_partition(&reset.group, partition, partitions).into());
    };
    rules::check_reset(&reset.group, partition, to, Offset(sql::uint(first)), Offset(sql::uint(head)))?;
    if letters > 0 {
        return Err(rules::letters_in_range(&reset.group, sql::uint(letters)).into());
    }
    if has_state && reset.clear_state.is_none() {
        return Err(StoreError::HasState { group: reset.group.clone() }.into());
    }
    Ok(Offset(sql::uint(committed)))
}

/// Whoever acquires the partition next gets the next epoch; until then nobody's is the present one.
async fn move_one(
    connection: &mut SqliteConnection,
    reset: &Reset,
    partition: u32,
    to: Offset,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "UPDATE group_partitions
         SET committed = ?3, position = ?3, committed_at = ?4, owner = NULL, given_up_in_row = 0, ",
        clear_mark!(),
        " WHERE group_name = ?1 AND partition = ?2",
    ))
    .bind(&reset.group)
    .bind(partition)
    .bind(sql::int(to.0))
    .bind(sql::int(now.0))
    .execute(&mut *connection)
    .await?;
    sqlx::query(r#"DELETE FROM remembered WHERE group_name = ? AND partition = ? AND "offset" >= ?"#)
        .bind(&reset.group)
        .bind(partition)
        .bind(sql::int(to.0))
        .execute(&mut *connection)
        .await?;
    if reset.clear_state == Some(true) {
        sqlx::query("DELETE FROM state WHERE group_name = ? AND partition = ?")
            .bind(&reset.group)
            .bind(partition)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Removes a group with its positions, state and remembered ids. These go first, step by step: whoever is interrupted in
/// between leaves a group that has forgotten some of them.
pub(super) async fn delete(
    writer: &Writer,
    group: &str,
    with_letters: bool,
    locks: &Arc<HostLocks>,
) -> Result<(), StoreError> {
    let deleting = || Delete { group: group.into(), with_letters, locks: Arc::clone(locks) };
    while writer.write(ForgetToDelete(deleting())).await? == u64::from(IDS_AT_ONCE) {}
    writer.write(deleting()).await
}

/// Removes a group with all that is left of it, in one transaction.
struct Delete {
    group: String,
    with_letters: bool,
    locks: Arc<HostLocks>,
}

impl Delete {
    /// Refuses what cannot be done.
    async fn check(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        check_group(transaction.connection, &self.group).await?;
        if !self.with_letters {
            let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE group_name = ?")
                .bind(&self.group)
                .fetch_one(&mut *transaction.connection)
                .await?;
            if letters > 0 {
                return Err(rules::letters_to_delete(&self.group, sql::uint(letters)).into());
            }
        }
        refuse_active(transaction, &self.group, &self.locks, rules::REMEDY_DELETE).await
    }
}

/// Forgets some of the ids of a group that is to be removed, and says how many.
struct ForgetToDelete(Delete);

impl Write for ForgetToDelete {
    type Answer = u64;
    const DOING: &'static str = DELETING;

    /// What comes back is forgotten again.
    fn may_be_lost(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        self.0.check(transaction).await?;
        let deleted = sqlx::query(
            "DELETE FROM remembered WHERE (group_name, partition, id) IN (
                 SELECT group_name, partition, id FROM remembered WHERE group_name = ? LIMIT ?)",
        )
        .bind(&self.0.group)
        .bind(IDS_AT_ONCE)
        .execute(&mut *transaction.connection)
        .await?;
        Ok(deleted.rows_affected())
    }
}

impl Write for Delete {
    type Answer = ();
    const DOING: &'static str = DELETING;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        self.check(transaction).await?;
        for statement in [
            "DELETE FROM state WHERE group_name = ?",
            "DELETE FROM remembered WHERE group_name = ?",
            "DELETE FROM dead_letters WHERE group_name = ?",
            "DELETE FROM members WHERE group_name = ?",
            "DELETE FROM group_partitions WHERE group_name = ?",
            "DELETE FROM groups WHERE name = ?",
        ] {
            sqlx::query(statement).bind(&self.group).execute(&mut *transaction.connection).await?;
        }
        transaction.wakes = true;
        Ok(())
    }
}

async fn check_group(connection: &mut SqliteConnection, group: &str) -> Result<(), Fault> {
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM groups WHERE name = ?")
        .bind(group)
        .fetch_one(&mut *connection)
        .await?;
    if found == 0 { Err(sql::unknown_group(connection, group).await?.into()) } else { Ok(()) }
}

/// Refuses what cannot be done while members are at work.
async fn refuse_active(
    transaction: &mut Transaction<'_>,
    group: &str,
    locks: &HostLocks,
    remedy: &'static str,
) -> Result<(), Fault> {
    let survey = survey::take(transaction.connection, locks, transaction.now).await?;
    Ok(rules::refuse_active(&survey, group, remedy)?)
}
