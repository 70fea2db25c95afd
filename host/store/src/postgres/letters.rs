//! Dead letters as they are seen, and what is asked of them.
//!
//! Whoever asks something locks the rows of the partitions first, and looks at their dead letters in a later statement: an
//! event that a commit sets aside meanwhile is either there then, or finds what was asked.

use pelton_core::{DeadLetter, Event, LetterRequest, Offset};
use sqlx::{Postgres, Row, postgres::PgArguments, postgres::PgRow, query::Query};

use super::{
    connection::Connection,
    groups::check_partition,
    read::headers_of,
    request::{Change, Database, Fault, Request, Transaction},
    sql::{self, Sql, Time},
};
use crate::{LETTERS_AT_ONCE, LetterInfo, LetterQuery, ParkedKey, ReadLimit, StoreError, rules};

/// A dead letter's columns.
macro_rules! letter_columns {
    () => {
        r#"partition, "offset", id, key, kind, time, headers, payload, class, reason, attempts, first_failed, last_failed,
           digest, parks, request, edited"#
    };
}

/// What a [`LetterQuery`] asks for of `d`, from $1 (the group) to $10, bound by [`bind`].
///
/// A reason is looked for with `strpos`: `LIKE` has letters of its own.
macro_rules! matching {
    () => {
        r#"d.group_name = $1
           AND ($2::int IS NULL OR d.partition = $2)
           AND ($3::bigint IS NULL OR d."offset" = $3)
           AND ($4::text IS NULL OR d.id = $4)
           AND ($5::text IS NULL OR d.key = $5)
           AND ($6::text IS NULL OR d.class = $6)
           AND ($7::text IS NULL OR strpos(d.reason, $7) > 0)
           AND ($8::timestamptz IS NULL OR d.last_failed < $8)
           AND (NOT $9::boolean OR NOT d.parks OR NOT EXISTS (
               SELECT FROM @.dead_letters h WHERE h.group_name = d.group_name AND h.partition = d.partition AND h.parks
                 AND h.key = d.key AND h."offset" < d."offset"))
           AND (NOT $10::boolean OR d.request IS NULL)"#
    };
}

type Bound<'q> = Query<'q, Postgres, PgArguments>;

/// Binds what [`matching`] takes.
fn bind<'q>(group: &'q str, query: &'q LetterQuery, statement: Bound<'q>) -> Bound<'q> {
    statement
        .bind(group)
        .bind(query.partition.map(sql::partition))
        .bind(query.offset.map(|offset| sql::int(offset.0)))
        .bind(query.event_id.as_deref().map(sql::storable))
        .bind(query.key.as_deref().map(sql::storable))
        .bind(query.class.map(|class| class.as_str()))
        .bind(query.reason.as_deref().map(sql::storable))
        .bind(query.before.map(Time))
        .bind(query.first)
        .bind(query.idle)
}

/// Dead letters by partition and offset, beginning after a place.
pub(super) struct List<'a> {
    pub(super) group: &'a str,
    pub(super) query: &'a LetterQuery,
    pub(super) after: Option<(u32, Offset)>,
    pub(super) limit: ReadLimit,
}

impl Request for List<'_> {
    type Answer = Vec<LetterInfo>;
    const DOING: &'static str = "listing dead letters";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<LetterInfo>, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        check_partition(sql, connection, self.group, None).await?;
        let (partition, offset) = self.after.map_or((-1, -1), |(n, after)| (sql::partition(n), sql::int(after.0)));
        let statement = sqlx::query(sql.text(concat!(
            "SELECT ",
            letter_columns!(),
            r#", (SELECT min(h."offset") FROM @.dead_letters h
                  WHERE h.group_name = $1 AND h.partition = f.partition AND h.parks AND h.key = f.key AND f.parks) AS head
               FROM (
                   SELECT d.*, sum(octet_length(d.payload)) OVER (ORDER BY d.partition, d."offset")
                       - octet_length(d.payload) AS bytes_before
                   FROM (SELECT d.* FROM @.dead_letters d WHERE "#,
            matching!(),
            r#" AND (d.partition, d."offset") > ($11, $12) ORDER BY d.partition, d."offset" LIMIT $13) d
               ) f
               WHERE bytes_before <= $14 ORDER BY partition, "offset""#,
        )));
        let rows = bind(self.group, self.query, statement)
            .bind(partition)
            .bind(offset)
            .bind(i64::from(self.limit.events.max(1)))
            .bind(sql::int(self.limit.bytes))
            .fetch_all(&mut **connection)
            .await?;
        Ok(within(self.limit, &rows, info, |info| &info.letter.event)?)
    }
}

fn info(row: &PgRow) -> Result<LetterInfo, sqlx::Error> {
    let letter = letter(row)?;
    let head: Option<i64> = row.try_get("head")?;
    let behind = head.map(|head| Offset(sql::uint(head))).filter(|head| *head != letter.event.offset);
    Ok(LetterInfo { partition: sql::number(row, "partition")?, letter, behind })
}

/// From the [`letter_columns`].
fn letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    let request: Option<&str> = row.try_get("request")?;
    let event = Event {
        offset: sql::offset(row, "offset")?,
        id: row.try_get("id")?,
        key: row.try_get("key")?,
        kind: row.try_get("kind")?,
        time: sql::time(row, "time")?,
        headers: headers_of(row.try_get("headers")?)?,
        payload: row.try_get("payload")?,
    };
    Ok(DeadLetter {
        event,
        failure: sql::failure(row)?,
        digest: row.try_get("digest")?,
        parks: row.try_get("parks")?,
        request: request.and_then(LetterRequest::parse),
        edited: row.try_get("edited")?,
    })
}

/// As many as fit, but at least one. The statement has counted payloads only.
fn within<T>(
    limit: ReadLimit,
    rows: &[PgRow],
    decode: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
    event: impl Fn(&T) -> &Event,
) -> Result<Vec<T>, sqlx::Error> {
    let mut found = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for row in rows {
        let one = decode(row)?;
        bytes += event(&one).bytes() as u64;
        if bytes > limit.bytes && !found.is_empty() {
            break;
        }
        found.push(one);
    }
    Ok(found)
}

/// The parked keys of a group, by partition and key.
pub(super) struct Parked<'a> {
    pub(super) group: &'a str,
    pub(super) limit: u32,
}

impl Request for Parked<'_> {
    type Answer = Vec<ParkedKey>;
    const DOING: &'static str = "listing parked keys";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<ParkedKey>, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        check_partition(sql, connection, self.group, None).await?;
        let rows: Vec<(i32, String, i64, Time, bool)> = sqlx::query_as(sql.text(
            r#"SELECT k.partition, k.key, k.events, h.first_failed, k.requested
               FROM (
                   SELECT d.partition, d.key, count(*) AS events, min(d."offset") AS head,
                       bool_or(d.request IS NOT DISTINCT FROM 'replay') AS requested
                   FROM @.dead_letters d WHERE d.group_name = $1 AND d.parks AND d.key IS NOT NULL
                   GROUP BY d.partition, d.key ORDER BY d.partition, d.key LIMIT $2
               ) k
               JOIN @.dead_letters h ON h.group_name = $1 AND h.partition = k.partition AND h."offset" = k.head
               ORDER BY k.partition, k.key"#,
        ))
        .bind(self.group)
        .bind(i64::from(self.limit))
        .fetch_all(&mut **connection)
        .await?;
        let parked = |(partition, key, events, Time(since), requested): (i32, _, i64, _, _)| ParkedKey {
            partition: u32::try_from(partition).unwrap_or_default(),
            key,
            events: sql::uint(events),
            since,
            requested,
        };
        Ok(rows.into_iter().map(parked).collect())
    }
}

/// Dead letters of a partition that something was asked of, in order.
pub(super) struct Requested<'a> {
    pub(super) group: &'a str,
    pub(super) partition: u32,
    pub(super) limit: ReadLimit,
}

impl Request for Requested<'_> {
    type Answer = Vec<DeadLetter>;
    const DOING: &'static str = "reading dead letters";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<DeadLetter>, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        let rows = sqlx::query(sql.text(concat!(
            "SELECT ",
            letter_columns!(),
            r#" FROM (
                   SELECT d.*, sum(octet_length(d.payload)) OVER (ORDER BY d."offset")
                       - octet_length(d.payload) AS bytes_before
                   FROM (SELECT * FROM @.dead_letters
                         WHERE group_name = $1 AND partition = $2 AND request IS NOT NULL
                         ORDER BY "offset" LIMIT $3) d
               ) f
               WHERE bytes_before <= $4 ORDER BY "offset""#,
        )))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .bind(i64::from(self.limit.events.max(1)))
        .bind(sql::int(self.limit.bytes))
        .fetch_all(&mut **connection)
        .await?;
        if rows.is_empty() {
            check_partition(sql, connection, self.group, Some(self.partition)).await?;
        }
        Ok(within(self.limit, &rows, letter, |letter| &letter.event)?)
    }
}

/// What an owner must know of a partition's dead letters.
pub(super) struct Waiting {
    /// Whether something was asked of some of them.
    pub(super) requested: bool,
    /// The parked keys by their first events, and how many wait in each.
    pub(super) parked: Vec<(String, u64)>,
}

/// What waits in a partition.
pub(super) async fn waiting(
    sql: &Sql,
    connection: &mut Connection,
    group: &str,
    partition: u32,
) -> Result<Waiting, sqlx::Error> {
    let requested = sqlx::query_scalar(sql.text(
        "SELECT EXISTS (SELECT FROM @.dead_letters WHERE group_name = $1 AND partition = $2 AND request IS NOT NULL)",
    ))
    .bind(group)
    .bind(sql::partition(partition))
    .fetch_one(&mut *connection)
    .await?;
    let parked: Vec<(String, i64)> = sqlx::query_as(sql.text(
        r#"SELECT key, count(*) FROM @.dead_letters
           WHERE group_name = $1 AND partition = $2 AND parks AND key IS NOT NULL GROUP BY key ORDER BY min("offset")"#,
    ))
    .bind(group)
    .bind(sql::partition(partition))
    .fetch_all(connection)
    .await?;
    let parked = parked.into_iter().map(|(key, events)| (key, sql::uint(events))).collect();
    Ok(Waiting { requested, parked })
}

/// Asks something of dead letters, piece by piece, and says of how many. Nobody waits for a piece longer than it takes to
/// write so many rows.
pub(super) async fn ask(
    database: &Database,
    group: &str,
    query: &LetterQuery,
    request: LetterRequest,
) -> Result<u64, StoreError> {
    let (mut count, mut after) = (0, (-1, -1));
    loop {
        let until = database.ask(&End { group, query, after }).await?;
        let piece = Piece { after, until: until.unwrap_or((i32::MAX, i64::MAX)) };
        count += database.ask(&Ask { group, query, request, piece }).await?;
        match until {
            Some(until) => after = until,
            None => return Ok(count),
        }
    }
}

/// The partition and the offset of a letter.
type Place = (i32, i64);

/// The letters behind one place, up to another.
#[derive(Clone, Copy)]
struct Piece {
    after: Place,
    until: Place,
}

/// The last letter of the next piece, if there are as many.
struct End<'a> {
    group: &'a str,
    query: &'a LetterQuery,
    after: Place,
}

impl Request for End<'_> {
    type Answer = Option<Place>;
    const DOING: &'static str = "looking for dead letters";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Option<Place>, Fault> {
        let statement = sqlx::query(transaction.sql.text(concat!(
            r#"SELECT d.partition, d."offset" FROM @.dead_letters d WHERE "#,
            matching!(),
            r#" AND (d.partition, d."offset") > ($11, $12) ORDER BY d.partition, d."offset" LIMIT 1 OFFSET $13"#,
        )));
        let last = bind(self.group, self.query, statement)
            .bind(self.after.0)
            .bind(self.after.1)
            .bind(i64::from(LETTERS_AT_ONCE) - 1)
            .fetch_optional(&mut *transaction.connection)
            .await?;
        Ok(last.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?)
    }
}

/// Asks something of the dead letters of a piece.
struct Ask<'a> {
    group: &'a str,
    query: &'a LetterQuery,
    request: LetterRequest,
    piece: Piece,
}

impl Request for Ask<'_> {
    type Answer = u64;
    const DOING: &'static str = "asking something of dead letters";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        check_partition(sql, connection, self.group, None).await?;
        let locked = self.lock(sql, connection).await?;
        let row = self.ask(sql, connection, &locked).await?;
        if let Some(busy) = self.busy(&row)? {
            return Err(busy.into());
        }
        let count = sql::uint(row.try_get("count")?);
        if count > 0 {
            *wakes = Some(Change::Events);
        }
        Ok(count)
    }
}

impl Ask<'_> {
    /// Locks the partitions of the piece that have dead letters, in the order of commits, and says which. What is set aside in
    /// others from now on comes later than this.
    async fn lock(&self, sql: &Sql, connection: &mut Connection) -> Result<Vec<i32>, sqlx::Error> {
        sqlx::query_scalar(sql.text(
            "SELECT partition FROM @.group_partitions
             WHERE group_name = $1 AND ($2::int IS NULL OR partition = $2) AND partition BETWEEN $3 AND $4 AND letters > 0
             ORDER BY partition FOR NO KEY UPDATE",
        ))
        .bind(self.group)
        .bind(self.query.partition.map(sql::partition))
        .bind(self.piece.after.0)
        .bind(self.piece.until.0)
        .fetch_all(connection)
        .await
    }

    /// Says how many were reached, and names one of which something else was asked.
    async fn ask(&self, sql: &Sql, connection: &mut Connection, locked: &[i32]) -> Result<PgRow, sqlx::Error> {
        let statement = sqlx::query(sql.text(concat!(
            r#"WITH found AS MATERIALIZED (
                   SELECT d.partition, d."offset", d.key, $11 = 'replay' AND d.parks AND d.key IS NOT NULL AS whole_key
                   FROM @.dead_letters d
                   WHERE d.partition = ANY ($12) AND (d.partition, d."offset") > ($13, $14)
                     AND (d.partition, d."offset") <= ($15, $16) AND "#,
            matching!(),
            // An earlier piece has taken those keys along of which it had a letter.
            r#"), keys AS MATERIALIZED (
                   SELECT k.* FROM (SELECT DISTINCT partition, key FROM found WHERE whole_key) k
                   WHERE NOT (k.partition = $13 AND EXISTS (
                       SELECT FROM @.dead_letters d WHERE d.partition = k.partition AND d.parks AND d.key = k.key
                         AND d."offset" <= $14 AND "#,
            matching!(),
            r#")) AND NOT ($10 AND EXISTS (
                       SELECT FROM @.dead_letters q WHERE q.group_name = $1 AND q.partition = k.partition AND q.parks
                         AND q.key = k.key AND q.request IS NOT NULL))
               ), reached AS MATERIALIZED (
                   SELECT d.partition, d."offset", d.request FROM found f
                   JOIN @.dead_letters d ON d.group_name = $1 AND d.partition = f.partition AND d."offset" = f."offset"
                   WHERE NOT f.whole_key
                   UNION ALL
                   SELECT q.partition, q."offset", q.request FROM keys k
                   JOIN @.dead_letters q ON q.group_name = $1 AND q.partition = k.partition AND q.parks AND q.key = k.key
               ), asked AS (
                   UPDATE @.dead_letters d SET request = $11 FROM reached r
                   WHERE d.group_name = $1 AND d.partition = r.partition AND d."offset" = r."offset" AND r.request IS NULL
               ), told AS (
                   UPDATE @.group_partitions g SET requests = g.requests + 1
                   FROM (SELECT DISTINCT partition FROM reached) r
                   WHERE g.group_name = $1 AND g.partition = r.partition
               )
               SELECT (SELECT count(*) FROM reached) AS count, busy.partition, busy."offset", busy.request
               FROM (VALUES (1)) one LEFT JOIN (
                   SELECT partition, "offset", request FROM reached WHERE request <> $11
                   ORDER BY partition, "offset" LIMIT 1) busy ON true"#,
        )));
        let Piece { after, until } = self.piece;
        bind(self.group, self.query, statement)
            .bind(self.request.as_str())
            .bind(locked)
            .bind(after.0)
            .bind(after.1)
            .bind(until.0)
            .bind(until.1)
            .fetch_one(connection)
            .await
    }

    /// Why nothing is asked, if so: what was written is rolled back then.
    fn busy(&self, row: &PgRow) -> Result<Option<StoreError>, sqlx::Error> {
        let request: Option<&str> = row.try_get("request")?;
        let Some(asked) = request.and_then(LetterRequest::parse) else { return Ok(None) };
        let (partition, offset) = (sql::number(row, "partition")?, sql::offset(row, "offset")?);
        Ok(Some(rules::letter_busy(self.group, partition, offset, asked)))
    }
}

/// Replaces the payload of a dead letter.
pub(super) struct Edit<'a> {
    pub(super) group: &'a str,
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) payload: &'a [u8],
}

impl Request for Edit<'_> {
    type Answer = ();
    const DOING: &'static str = "editing a dead letter";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, .. } = transaction;
        check_partition(sql, connection, self.group, Some(self.partition)).await?;
        let found: Option<Option<String>> = sqlx::query_scalar(sql.text(
            r#"SELECT request FROM @.dead_letters WHERE group_name = $1 AND partition = $2 AND "offset" = $3 FOR UPDATE"#,
        ))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .bind(sql::int(self.offset.0))
        .fetch_optional(&mut **connection)
        .await?;
        let asked = found.ok_or_else(|| rules::no_letter(self.group, self.partition, self.offset))?;
        if let Some(asked) = asked.as_deref().and_then(LetterRequest::parse) {
            return Err(rules::letter_busy(self.group, self.partition, self.offset, asked).into());
        }
        sqlx::query(sql.text(
            r#"UPDATE @.dead_letters SET payload = $4, edited = true
               WHERE group_name = $1 AND partition = $2 AND "offset" = $3"#,
        ))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .bind(sql::int(self.offset.0))
        .bind(self.payload)
        .execute(&mut **connection)
        .await?;
        Ok(())
    }
}
