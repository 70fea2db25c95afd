//! Commits: the position and all that goes with it.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use pelton_core::{Commit, CommitOutcome, Effects, Mark, NewEvent};
use sqlx::Row;

use super::{
    append,
    mark::{self, clear_mark, mark_columns},
    multi_row::MultiRow,
    retention, set_aside, sql,
    transaction::{Fault, Transaction, Write},
    versions,
};
use crate::{StoreError, rules, rules::Fence};

impl Write for Arc<Commit> {
    type Answer = CommitOutcome;
    const DOING: &'static str = "committing a position";

    fn bytes(&self) -> usize {
        Commit::bytes(self)
    }

    /// A lost move is made again, with nothing to do twice. A lost mark would forget attempts that were counted.
    fn may_be_lost(&self) -> bool {
        self.only_moves()
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<CommitOutcome, Fault> {
        let refusal = refusal(transaction, &self.effects).await?;
        if refusal.is_none() && self.to >= self.from && move_position(transaction, self).await? {
            store_state(transaction, self).await?;
            let lease = &self.lease;
            retention::remember(transaction, &lease.group, lease.partition, &self.remembered).await?;
            set_aside::store(transaction.connection, self).await?;
            versions::store_ranges(transaction, self).await?;
            append_emits(transaction, &self.effects).await?;
            return Ok(CommitOutcome::Committed);
        }
        Ok(why_not(transaction, self, refusal).await?)
    }

    fn refused(&self, reason: &sqlx::Error) -> Result<CommitOutcome, StoreError> {
        Ok(CommitOutcome::Refused(reason.to_string()))
    }
}

/// Why effects cannot be stored, as far as that shows before anything is written.
async fn refusal(transaction: &mut Transaction<'_>, effects: &Effects) -> Result<Option<String>, sqlx::Error> {
    for emit in &effects.emits {
        let Some(payload_bytes_max) = append::payload_bytes_max(transaction, &emit.stream).await? else {
            return Ok(Some(rules::refuse_emit_stream(&emit.stream)));
        };
        let refusal = rules::refuse_emit(&emit.event, &emit.stream, payload_bytes_max);
        if refusal.is_some() {
            return Ok(refusal);
        }
    }
    Ok(None)
}

/// The statement of a move, with what it sets besides.
macro_rules! update {
    ($($set:tt)*) => {
        concat!(
            "UPDATE group_partitions AS g
             SET committed = ?1, position = ?2, sequence = ?3, given_up_in_row = ?4, skipped = skipped + ?5,
                 committed_at = CASE WHEN committed = ?1 THEN committed_at ELSE ?6 END",
            $($set)*,
            " WHERE group_name = ?7 AND partition = ?8 AND owner = ?9 AND epoch = ?10 AND committed = ?11
                AND sequence < ?3
                AND ?1 <= (SELECT next_offset FROM stream_partitions p WHERE p.id = g.partition_id)"
        )
    };
}

const MOVE: &str = update!("");
const MOVE_AND_CLEAR: &str = update!(", ", clear_mark!());
const MOVE_AND_MARK: &str = update!(", (", mark_columns!(), ") = (?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)");

/// The fence and the move in one: false if the row is not as the owner thinks, or the head is nearer than `to`.
async fn move_position(transaction: &mut Transaction<'_>, commit: &Commit) -> Result<bool, sqlx::Error> {
    let failed_by = commit.failed_by.as_deref();
    let (statement, mark) = match &commit.mark {
        None => (MOVE, None),
        // What most commits do.
        Some(Mark::Clear) if failed_by.is_none() => (MOVE_AND_CLEAR, None),
        Some(mark) => (MOVE_AND_MARK, Some(mark)),
    };
    let mut query = sqlx::query(statement)
        .bind(sql::int(commit.to.0))
        .bind(sql::int(commit.position.0))
        .bind(sql::int(commit.sequence))
        .bind(commit.given_up_in_row)
        .bind(commit.skipped)
        .bind(sql::int(transaction.now.0))
        .bind(&*commit.lease.group)
        .bind(commit.lease.partition)
        .bind(&*commit.lease.host)
        .bind(sql::int(commit.lease.epoch.0))
        .bind(sql::int(commit.from.0));
    if let Some(mark) = mark {
        query = mark::bind(query, mark, failed_by);
    }
    let moved = query.execute(&mut *transaction.connection).await?;
    Ok(moved.rows_affected() == 1)
}

/// What became of a commit that moved nothing.
async fn why_not(
    transaction: &mut Transaction<'_>,
    commit: &Commit,
    refusal: Option<String>,
) -> Result<CommitOutcome, sqlx::Error> {
    let row = sqlx::query(
        "SELECT owner, epoch, sequence, committed, next_offset
         FROM group_partitions g JOIN stream_partitions p ON p.id = g.partition_id
         WHERE group_name = ? AND g.partition = ?",
    )
    .bind(&*commit.lease.group)
    .bind(commit.lease.partition)
    .fetch_optional(&mut *transaction.connection)
    .await?;
    let Some(row) = row else { return Ok(CommitOutcome::Fenced) };
    let owner: Option<&str> = row.try_get("owner")?;
    let committed = sql::offset(&row, "committed")?;
    let head = sql::offset(&row, "next_offset")?;
    let sequence = sql::uint(row.try_get("sequence")?);
    Ok(match rules::fence(commit, owner, sql::epoch(&row)?, sequence, committed) {
        Fence::Fenced => CommitOutcome::Fenced,
        Fence::Repeated => CommitOutcome::Committed,
        Fence::Passes => {
            let refusal = rules::refuse_move(commit, head).or(refusal);
            CommitOutcome::Refused(refusal.unwrap_or_else(|| "the position could not be moved".into()))
        }
    })
}

async fn store_state(transaction: &mut Transaction<'_>, commit: &Commit) -> Result<(), sqlx::Error> {
    static UPSERT: LazyLock<MultiRow> = LazyLock::new(|| {
        let update = "ON CONFLICT (group_name, partition, key) DO UPDATE SET value = excluded.value";
        MultiRow::new("INSERT INTO state (group_name, partition, key, value) VALUES", "(?, ?, ?, ?)", update)
    });
    let (group, partition) = (&*commit.lease.group, commit.lease.partition);
    let mut written = Vec::new();
    for (key, value) in &commit.effects.state {
        match value {
            Some(value) => written.push((key, value)),
            None => {
                sqlx::query("DELETE FROM state WHERE group_name = ? AND partition = ? AND key = ?")
                    .bind(group)
                    .bind(partition)
                    .bind(key)
                    .execute(&mut *transaction.connection)
                    .await?;
            }
        }
    }
    let mut rest = &written[..];
    while !rest.is_empty() {
        let (count, statement) = UPSERT.first_of(rest.len());
        let (now, later) = rest.split_at(count);
        let mut query = sqlx::query(statement);
        for (key, value) in now {
            query = query.bind(group).bind(partition).bind(key.as_str()).bind(value.as_slice());
        }
        query.execute(&mut *transaction.connection).await?;
        rest = later;
    }
    Ok(())
}

async fn append_emits(transaction: &mut Transaction<'_>, effects: &Effects) -> Result<(), sqlx::Error> {
    let mut by_stream: BTreeMap<&str, Vec<&NewEvent>> = BTreeMap::new();
    for emit in &effects.emits {
        by_stream.entry(&emit.stream).or_default().push(&emit.event);
    }
    for (stream, events) in by_stream {
        append::append(transaction, stream, &events).await?;
    }
    Ok(())
}
