//! Dead letters as they are shown, and what is asked of them from outside.

use std::collections::BTreeSet;

use pelton_core::{Class, DeadLetter, Event, Failure, LetterRequest, Offset};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    read, seats, sql,
    transaction::{Fault, Transaction, Write},
    writer::Writer,
};
use crate::{LETTERS_AT_ONCE, LetterInfo, LetterQuery, ParkedKey, ReadLimit, StoreError, rules};

const LISTING: &str = "listing dead letters";

/// The partition and the offset of a letter.
type Place = (u32, Offset);

/// Those of a partition that something was asked of.
pub(super) async fn requested(
    reads: &SqlitePool,
    group: &str,
    partition: u32,
    limit: ReadLimit,
) -> Result<Vec<DeadLetter>, StoreError> {
    let read = async {
        let mut connection = reads.acquire().await?;
        seats::check_partition(&mut connection, group, Some(partition)).await?;
        let mut chosen = choose(group, &LetterQuery { partition: Some(partition), ..LetterQuery::default() });
        chosen.push(" AND d.request IS NOT NULL");
        Ok(fetch(&mut connection, chosen, limit).await?)
    };
    let found = read.await.map_err(|fault: Fault| fault.into_error(LISTING))?;
    Ok(found.into_iter().map(|info| info.letter).collect())
}

/// Those that a query means, after a place.
pub(super) async fn list(
    reads: &SqlitePool,
    group: &str,
    query: &LetterQuery,
    after: Option<Place>,
    limit: ReadLimit,
) -> Result<Vec<LetterInfo>, StoreError> {
    let read = async {
        let mut connection = reads.acquire().await?;
        seats::check_partition(&mut connection, group, None).await?;
        let mut chosen = choose(group, query);
        push_piece(&mut chosen, after, None);
        Ok(fetch(&mut connection, chosen, limit).await?)
    };
    read.await.map_err(|fault: Fault| fault.into_error(LISTING))
}

/// The beginning of a statement that names the letters which a query means `chosen`; more conditions may follow.
fn choose(group: &str, query: &LetterQuery) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(
        r#"WITH chosen AS (SELECT d.rowid AS row, d.partition, d."offset", d.key, d.parks, d.request,
               length(d.payload) AS bytes
           FROM dead_letters d"#,
    );
    if query.event_id.is_some() {
        // By itself SQLite goes through all letters of the group, because they come in order.
        sql.push(" INDEXED BY dead_letters_by_id");
    }
    sql.push(" WHERE ");
    push_matching(&mut sql, group, query);
    sql
}

/// The conditions under which a query means a letter `d`.
fn push_matching(sql: &mut QueryBuilder<Sqlite>, group: &str, query: &LetterQuery) {
    let LetterQuery { partition, offset, event_id, key, class, reason, before, first, idle } = query;
    sql.push("d.group_name = ").push_bind(group);
    if let Some(partition) = partition {
        sql.push(" AND d.partition = ").push_bind(*partition);
    }
    if let Some(offset) = offset {
        sql.push(r#" AND d."offset" = "#).push_bind(sql::int(offset.0));
    }
    if let Some(id) = event_id {
        sql.push(" AND d.id = ").push_bind(id);
    }
    if let Some(key) = key {
        sql.push(" AND d.key = ").push_bind(key);
    }
    if let Some(class) = class {
        sql.push(" AND d.class = ").push_bind(class.as_str());
    }
    if let Some(reason) = reason {
        // LIKE would know letters of either case and have signs that mean others.
        sql.push(" AND instr(d.reason, ").push_bind(reason).push(") > 0");
    }
    if let Some(before) = before {
        sql.push(" AND d.last_failed < ").push_bind(sql::int(before.0));
    }
    if *first {
        sql.push(
            r#" AND (NOT d.parks OR NOT EXISTS (
                SELECT 1 FROM dead_letters ahead
                WHERE ahead.group_name = d.group_name AND ahead.partition = d.partition AND ahead.parks
                  AND ahead.key = d.key AND ahead."offset" < d."offset"))"#,
        );
    }
    if *idle {
        sql.push(" AND d.request IS NULL");
    }
}

/// More conditions: those of a piece.
fn push_piece(sql: &mut QueryBuilder<Sqlite>, after: Option<Place>, until: Option<Place>) {
    for (place, beyond) in [(after, ">"), (until, "<=")] {
        if let Some((partition, offset)) = place {
            sql.push(format_args!(r#" AND (d.partition, d."offset") {beyond} ("#)).push_bind(partition);
            sql.push(", ").push_bind(sql::int(offset.0)).push(")");
        }
    }
}

/// Reads the letters that are chosen, as many as a limit allows, but at least one.
async fn fetch(
    connection: &mut SqliteConnection,
    mut sql: QueryBuilder<Sqlite>,
    limit: ReadLimit,
) -> Result<Vec<LetterInfo>, sqlx::Error> {
    // Rows are handed over faster than they are looked at, so what is too much must not be read to begin with. The payload
    // is all that can be large; its length is known without reading it.
    sql.push(r#" ORDER BY d.partition, d."offset" LIMIT "#).push_bind(limit.events.max(1));
    sql.push(
        r#"), sized AS (
             SELECT row, sum(bytes) OVER (ORDER BY partition, "offset") - bytes AS ahead, bytes FROM chosen)
           SELECT d."offset", d.time, d.id, d.key, d.kind, d.headers, d.payload, d.partition, d.class, d.reason,
               d.attempts, d.first_failed, d.last_failed, d.digest, d.parks, d.request, d.edited,
               CASE WHEN d.parks THEN (
                   SELECT min(first."offset") FROM dead_letters first
                   WHERE first.group_name = d.group_name AND first.partition = d.partition AND first.parks
                     AND first.key = d.key) END AS first
           FROM sized CROSS JOIN dead_letters d ON d.rowid = sized.row
           WHERE sized.ahead = 0 OR sized.ahead + sized.bytes <= "#,
    );
    sql.push_bind(sql::int(limit.bytes)).push(r#" ORDER BY d.partition, d."offset""#);
    let rows = sql.build().fetch_all(connection).await?;

    let mut found = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for row in rows {
        let info = info(&row)?;
        bytes += info.letter.event.bytes() as u64;
        if bytes > limit.bytes && !found.is_empty() {
            break;
        }
        found.push(info);
    }
    Ok(found)
}

fn info(row: &SqliteRow) -> Result<LetterInfo, sqlx::Error> {
    let event = read::event(row)?;
    let first: Option<i64> = row.try_get("first")?;
    let behind = first.map(|offset| Offset(sql::uint(offset))).filter(|first| *first != event.offset);
    Ok(LetterInfo { partition: sql::number(row, "partition")?, letter: letter(row, event)?, behind })
}

fn letter(row: &SqliteRow, event: Event) -> Result<DeadLetter, sqlx::Error> {
    let request: Option<&str> = row.try_get("request")?;
    let failure = Failure {
        class: Class::parse(row.try_get("class")?).unwrap_or(Class::Transient),
        reason: row.try_get("reason")?,
        attempts: sql::number(row, "attempts")?,
        first: sql::time(row, "first_failed")?,
        last: sql::time(row, "last_failed")?,
    };
    Ok(DeadLetter {
        event,
        failure,
        digest: row.try_get("digest")?,
        parks: row.try_get("parks")?,
        request: request.and_then(LetterRequest::parse),
        edited: row.try_get("edited")?,
    })
}

/// The parked keys of a group, by partition and key.
pub(super) async fn parked(reads: &SqlitePool, group: &str, limit: u32) -> Result<Vec<ParkedKey>, StoreError> {
    let read = async {
        let mut connection = reads.acquire().await?;
        seats::check_partition(&mut connection, group, None).await?;
        // With a single min(), SQLite takes the other columns from the row that has it.
        let rows = sqlx::query(
            r#"SELECT partition, key, count(*) AS events, min("offset"), first_failed,
                   total(request IS 'replay') > 0 AS requested
               FROM dead_letters WHERE group_name = ? AND parks AND key IS NOT NULL
               GROUP BY partition, key ORDER BY partition, key LIMIT ?"#,
        )
        .bind(group)
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows.iter().map(parked_key).collect::<Result<_, _>>()?)
    };
    read.await.map_err(|fault: Fault| fault.into_error("listing parked keys"))
}

fn parked_key(row: &SqliteRow) -> Result<ParkedKey, sqlx::Error> {
    Ok(ParkedKey {
        partition: sql::number(row, "partition")?,
        key: row.try_get("key")?,
        events: sql::uint(row.try_get("events")?),
        since: sql::time(row, "first_failed")?,
        requested: row.try_get("requested")?,
    })
}

/// The parked keys of a partition, with how many events wait in each; and whether something is asked of any of its letters.
pub(super) async fn of_partition(
    connection: &mut SqliteConnection,
    group: &str,
    partition: u32,
) -> Result<(Vec<(String, u64)>, bool), sqlx::Error> {
    let parked: Vec<(String, i64)> = sqlx::query_as(
        r#"SELECT key, count(*) FROM dead_letters
           WHERE group_name = ? AND partition = ? AND parks AND key IS NOT NULL
           GROUP BY key ORDER BY min("offset")"#,
    )
    .bind(group)
    .bind(partition)
    .fetch_all(&mut *connection)
    .await?;
    let requested = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM dead_letters
                        WHERE group_name = ? AND partition = ? AND request IS NOT NULL)",
    )
    .bind(group)
    .bind(partition)
    .fetch_one(connection)
    .await?;
    Ok((parked.into_iter().map(|(key, events)| (key, sql::uint(events))).collect(), requested))
}

/// Asks something of dead letters, piece by piece, and says of how many. Heartbeats get their turn between two pieces.
pub(super) async fn request(
    writer: &Writer,
    group: &str,
    query: &LetterQuery,
    request: LetterRequest,
) -> Result<u64, StoreError> {
    let (mut count, mut after) = (0, None);
    loop {
        let piece = writer.write(Request { group: group.into(), query: query.clone(), request, after }).await?;
        count += piece.count;
        after = piece.until;
        if after.is_none() {
            return Ok(count);
        }
    }
}

/// Asks something of the next of the dead letters that a query means.
struct Request {
    group: String,
    query: LetterQuery,
    request: LetterRequest,
    after: Option<Place>,
}

/// What came of it.
struct Piece {
    count: u64,
    /// The last one, if there may be more behind it.
    until: Option<Place>,
}

impl Write for Request {
    type Answer = Piece;
    const DOING: &'static str = "asking something of dead letters";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Piece, Fault> {
        let connection = &mut *transaction.connection;
        seats::check_partition(connection, &self.group, None).await?;
        let until = self.until(connection).await?;
        let reached = self.reached(connection, until).await?;
        for Reached { partition, offset, asked, .. } in &reached {
            if let Some(asked) = asked.filter(|asked| *asked != self.request) {
                return Err(rules::letter_busy(&self.group, *partition, *offset, asked).into());
            }
        }
        if reached.is_empty() {
            return Ok(Piece { count: 0, until });
        }
        let rows: Vec<i64> = reached.iter().filter(|one| one.asked.is_none()).map(|one| one.row).collect();
        sqlx::query("UPDATE dead_letters SET request = ? WHERE rowid IN (SELECT value FROM json_each(?))")
            .bind(self.request.as_str())
            .bind(serde_json::Value::from(rows).to_string())
            .execute(&mut *connection)
            .await?;
        let partitions: BTreeSet<u32> = reached.iter().map(|one| one.partition).collect();
        sqlx::query(
            "UPDATE group_partitions SET requests = requests + 1
             WHERE group_name = ? AND partition IN (SELECT value FROM json_each(?))",
        )
        .bind(&self.group)
        .bind(serde_json::Value::from_iter(partitions).to_string())
        .execute(&mut *connection)
        .await?;
        transaction.wakes = true;
        Ok(Piece { count: reached.len() as u64, until })
    }
}

/// A letter that a request reaches.
struct Reached {
    row: i64,
    partition: u32,
    offset: Offset,
    asked: Option<LetterRequest>,
}

impl Request {
    /// The last letter of the piece, if it is not the last of all.
    async fn until(&self, connection: &mut SqliteConnection) -> Result<Option<Place>, sqlx::Error> {
        let mut sql = choose(&self.group, &self.query);
        push_piece(&mut sql, self.after, None);
        sql.push(r#") SELECT partition, "offset" FROM chosen ORDER BY partition, "offset" LIMIT 1 OFFSET "#);
        sql.push_bind(LETTERS_AT_ONCE - 1);
        let last: Option<(u32, i64)> = sql.build_query_as().fetch_optional(connection).await?;
        Ok(last.map(|(partition, offset)| (partition, Offset(sql::uint(offset)))))
    }

    /// The letters of the piece, and with a replay all that wait in the same parked keys; by partition and offset.
    async fn reached(
        &self,
        connection: &mut SqliteConnection,
        until: Option<Place>,
    ) -> Result<Vec<Reached>, sqlx::Error> {
        let mut sql = choose(&self.group, &self.query);
        push_piece(&mut sql, self.after, until);
        match self.request {
            LetterRequest::Discard => {
                sql.push(r#") SELECT row, partition, "offset", request FROM chosen"#);
            }
            LetterRequest::Replay => {
                sql.push("), keys AS (SELECT DISTINCT partition, key FROM chosen WHERE parks AND key IS NOT NULL");
                if let Some((partition, offset)) = self.after {
                    // An earlier piece has taken those along of which it had a letter.
                    sql.push(" AND (partition <> ").push_bind(partition);
                    sql.push(" OR NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.parks AND d.key = chosen.key AND ");
                    sql.push("d.partition = ").push_bind(partition);
                    sql.push(r#" AND d."offset" <= "#).push_bind(sql::int(offset.0)).push(" AND ");
                    push_matching(&mut sql, &self.group, &self.query);
                    sql.push("))");
                }
                sql.push(
                    r#") SELECT row, partition, "offset", request FROM chosen WHERE NOT parks OR key IS NULL
                        UNION ALL
                        SELECT d.rowid, d.partition, d."offset", d.request
                        FROM keys CROSS JOIN dead_letters d
                            ON d.partition = keys.partition AND d.key = keys.key AND d.parks
                        WHERE d.group_name = "#,
                );
                sql.push_bind(&self.group);
                if self.query.idle {
                    sql.push(
                        " AND NOT EXISTS (
                            SELECT 1 FROM dead_letters other
                            WHERE other.group_name = d.group_name AND other.partition = d.partition AND other.parks
                              AND other.key = d.key AND other.request IS NOT NULL)",
                    );
                }
            }
        }
        sql.push(r#" ORDER BY partition, "offset""#);
        let rows: Vec<(i64, u32, i64, Option<String>)> = sql.build_query_as().fetch_all(connection).await?;
        let reached = |(row, partition, offset, asked): (i64, u32, i64, Option<String>)| {
            let asked = asked.as_deref().and_then(LetterRequest::parse);
            Reached { row, partition, offset: Offset(sql::uint(offset)), asked }
        };
        Ok(rows.into_iter().map(reached).collect())
    }
}

/// Replaces the payload of a dead letter.
pub(super) struct Edit {
    pub(super) group: String,
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) payload: Vec<u8>,
}

impl Write for Edit {
    type Answer = ();
    const DOING: &'static str = "editing a dead letter";

    fn bytes(&self) -> usize {
        self.payload.len()
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Self { group, partition, offset, payload } = self;
        seats::check_partition(transaction.connection, group, Some(*partition)).await?;
        let found: Option<(i64, Option<String>)> = sqlx::query_as(
            r#"SELECT rowid, request FROM dead_letters WHERE group_name = ? AND partition = ? AND "offset" = ?"#,
        )
        .bind(group)
        .bind(partition)
        .bind(sql::int(offset.0))
        .fetch_optional(&mut *transaction.connection)
        .await?;
        let Some((row, asked)) = found else { return Err(rules::no_letter(group, *partition, *offset).into()) };
        if let Some(asked) = asked.as_deref().and_then(LetterRequest::parse) {
            return Err(rules::letter_busy(group, *partition, *offset, asked).into());
        }
        sqlx::query("UPDATE dead_letters SET payload = ?, edited = 1 WHERE rowid = ?")
            .bind(payload)
            .bind(row)
            .execute(&mut *transaction.connection)
            .await?;
        Ok(())
    }
}
