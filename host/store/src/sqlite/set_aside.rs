//! Dead letters as a partition's owner writes them, and as somebody does who skips an event for it.

use std::sync::LazyLock;

use pelton_core::{Commit, DeadLetter, Failure, Offset, Settled};
use sqlx::{Row, SqliteConnection};

use super::{
    mark::{self, clear_mark, mark_columns},
    multi_row::{self, MultiRow},
    read, retention, seats, sql,
    transaction::{Fault, Transaction, Write},
};
use crate::rules;

/// Stores what a commit does to the dead letters of its partition. Costs nothing if that is nothing.
pub(super) async fn store(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), sqlx::Error> {
    if commit.settled.is_empty() && commit.set_aside.is_empty() {
        return Ok(());
    }
    let (group, partition) = (&*commit.lease.group, commit.lease.partition);
    let gone = remove(connection, group, partition, &commit.settled).await?;
    for settled in &commit.settled {
        if let Settled::Back { offset, failure, digest } = settled {
            put_back(connection, group, partition, *offset, failure, digest.as_deref()).await?;
        }
    }
    let new = insert(connection, group, partition, &commit.set_aside).await?;
    count(connection, group, partition, new - gone).await?;
    retention::forget_places(connection, group, partition, &commit.forgotten()).await
}

/// Removes those that are gone, and says how many were there.
async fn remove(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
    settled: &[Settled],
) -> Result<i64, sqlx::Error> {
    let gone = |settled: &Settled| match settled {
        Settled::Gone(offset) => Some(sql::int(offset.0)),
        Settled::Back { .. } => None,
    };
    let gone: Vec<i64> = settled.iter().filter_map(gone).collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let removed = sqlx::query(
        r#"DELETE FROM dead_letters
           WHERE group_name = ? AND partition = ? AND "offset" IN (SELECT value FROM json_each(?))"#,
    )
    .bind(group)
    .bind(partition)
    .bind(serde_json::Value::from(gone).to_string())
    .execute(connection)
    .await?;
    Ok(removed.rows_affected().cast_signed())
}

/// It failed again: the replay of its key is over.
async fn put_back(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
    offset: Offset,
    failure: &Failure,
    digest: Option<&str>,
) -> Result<(), sqlx::Error> {
    let found: Option<(Option<String>, bool)> = sqlx::query_as(
        r#"UPDATE dead_letters
           SET class = ?4, reason = ?5, attempts = ?6, first_failed = ?7, last_failed = ?8, digest = ?9, request = NULL
           WHERE group_name = ?1 AND partition = ?2 AND "offset" = ?3 RETURNING key, parks"#,
    )
    .bind(group)
    .bind(partition)
    .bind(sql::int(offset.0))
    .bind(failure.class.as_str())
    .bind(&failure.reason)
    .bind(failure.attempts)
    .bind(sql::int(failure.first.0))
    .bind(sql::int(failure.last.0))
    .bind(digest)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((Some(key), true)) = found else { return Ok(()) };
    sqlx::query(
        "UPDATE dead_letters SET request = NULL
         WHERE group_name = ? AND partition = ? AND parks AND key = ? AND request = 'replay'",
    )
    .bind(group)
    .bind(partition)
    .bind(key)
    .execute(connection)
    .await?;
    Ok(())
}

/// Inserts letters, whatever they say of a request, and says how many are new.
async fn insert(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
    letters: &[DeadLetter],
) -> Result<i64, sqlx::Error> {
    static INSERT: LazyLock<MultiRow> = LazyLock::new(|| {
        let into = r#"INSERT INTO dead_letters (group_name, partition, "offset", id, key, kind, time, headers, payload,
            class, reason, attempts, first_failed, last_failed, digest, parks, edited) VALUES"#;
        MultiRow::new(into, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "ON CONFLICT DO NOTHING")
    });
    let mut new = 0;
    let mut rest = letters;
    while !rest.is_empty() {
        let sizes = rest.iter().map(|letter| letter.event.payload.len());
        let (count, statement) = INSERT.first_of(multi_row::fitting(sizes));
        let (now, later) = rest.split_at(count);
        let mut query = sqlx::query(statement);
        for DeadLetter { event, failure, digest, parks, edited, .. } in now {
            query = query
                .bind(group)
                .bind(partition)
                .bind(sql::int(event.offset.0))
                .bind(event.id.as_str())
                .bind(event.key.as_deref())
                .bind(event.kind.as_str())
                .bind(sql::int(event.time.0))
                .bind(sql::headers(&event.headers)?)
                .bind(event.payload.as_slice())
                .bind(failure.class.as_str())
                .bind(failure.reason.as_str())
                .bind(failure.attempts)
                .bind(sql::int(failure.first.0))
                .bind(sql::int(failure.last.0))
                .bind(digest.as_deref())
                .bind(parks)
                .bind(edited);
        }
        new += query.execute(&mut *connection).await?.rows_affected().cast_signed();
        rest = later;
    }
    inherit(connection, group, partition, letters).await?;
    Ok(new)
}

/// Letters behind others of their key, of which a replay was asked, are replayed with them.
///
/// Of a key either everything is to be replayed or nothing, so its first letter speaks for all of them.
async fn inherit(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
    letters: &[DeadLetter],
) -> Result<(), sqlx::Error> {
    let parked: Vec<i64> =
        letters.iter().filter(|letter| letter.parks).map(|letter| sql::int(letter.event.offset.0)).collect();
    if parked.is_empty() {
        return Ok(());
    }
    sqlx::query(
        r#"UPDATE dead_letters AS d SET request = 'replay'
           WHERE group_name = ?1 AND partition = ?2 AND "offset" IN (SELECT value FROM json_each(?3)) AND parks
             AND (SELECT first.request FROM dead_letters first
                  WHERE first.group_name = ?1 AND first.partition = ?2 AND first.parks AND first.key = d.key
                  ORDER BY first."offset" LIMIT 1) = 'replay'"#,
    )
    .bind(group)
    .bind(partition)
    .bind(serde_json::Value::from(parked).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps the count in the partition's row, so that nobody counts letters to learn that there are none.
async fn count(connection: &mut SqliteConnection, group: &str, partition: u32, more: i64) -> Result<(), sqlx::Error> {
    if more != 0 {
        sqlx::query("UPDATE group_partitions SET letters = letters + ?3 WHERE group_name = ?1 AND partition = ?2")
            .bind(group)
            .bind(partition)
            .bind(more)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Sets the event aside that a partition waits for or is stopped at.
pub(super) struct Skip {
    pub(super) group: String,
    pub(super) partition: u32,
    pub(super) park: bool,
}

impl Write for Skip {
    type Answer = Offset;
    const DOING: &'static str = "skipping an event";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Offset, Fault> {
        let (group, partition) = (&*self.group, self.partition);
        seats::check_partition(transaction.connection, group, Some(partition)).await?;
        let letter = self.blocking(transaction.connection).await?;
        let at = letter.event.offset;
        // The next owner must not handle a copy of it, as if it had set the event aside itself. Whether the group remembers
        // ids is not known here; if not, the row goes with the letter.
        retention::remember(transaction, group, partition, &[(at, letter.event.id.clone())]).await?;
        let new = insert(transaction.connection, group, partition, &[letter]).await?;
        count(transaction.connection, group, partition, new).await?;
        // Whoever acquires it next gets the next epoch; until then nobody's is the present one.
        sqlx::query(concat!(
            "UPDATE group_partitions
             SET committed = ?3, position = ?3, committed_at = ?4, owner = NULL, given_up_in_row = 0, ",
            clear_mark!(),
            " WHERE group_name = ?1 AND partition = ?2",
        ))
        .bind(group)
        .bind(partition)
        .bind(sql::int(at.next().0))
        .bind(sql::int(transaction.now.0))
        .execute(&mut *transaction.connection)
        .await?;
        transaction.wakes = true;
        Ok(at)
    }
}

impl Skip {
    /// The event that blocks, as a dead letter.
    async fn blocking(&self, connection: &mut SqliteConnection) -> Result<DeadLetter, Fault> {
        let (group, partition) = (&*self.group, self.partition);
        let row = sqlx::query(concat!(
            "SELECT committed, partition_id, ",
            mark_columns!(),
            " FROM group_partitions WHERE group_name = ? AND partition = ?",
        ))
        .bind(group)
        .bind(partition)
        .fetch_one(&mut *connection)
        .await?;
        let committed = sql::offset(&row, "committed")?;
        let nothing = || rules::nothing_blocks(group, partition, committed);
        let mark = mark::read(&row)?;
        let (at, failure) = mark.failed().ok_or_else(nothing)?;
        if at != committed {
            return Err(rules::skips_more(group, partition, committed, at).into());
        }
        let event = read::event_at(connection, row.try_get("partition_id")?, at).await?.ok_or_else(nothing)?;
        let parks = match &event.key {
            Some(key) => self.park || is_parked(connection, group, partition, key).await?,
            None => false,
        };
        let (failure, digest) = (failure.clone(), row.try_get("failed_by")?);
        Ok(DeadLetter { event, failure, digest, parks, request: None, edited: false })
    }
}

async fn is_parked(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
    key: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM dead_letters WHERE group_name = ? AND partition = ? AND parks AND key = ?)",
    )
    .bind(group)
    .bind(partition)
    .bind(key)
    .fetch_one(connection)
    .await
}
