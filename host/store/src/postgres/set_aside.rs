//! What commits do to dead letters: events that are set aside, and what became of those that something was asked of; and to
//! the ids that are remembered from them.
//!
//! All of it follows the move of the position in the same transaction. The move locks the partition's row, and so does
//! whoever asks something of its dead letters, before he looks at them: what was asked until then is seen here.

use std::borrow::Cow;

use pelton_core::{Commit, DeadLetter, Failure, Offset, Settled};
use sqlx::{Postgres, Row, postgres::PgArguments, query::Query};

use super::{
    append::headers,
    connection::Connection,
    sql::{self, Sql, Time},
};

/// Dead letters that go, come back and are added, of commits that passed their fences.
#[derive(Default)]
pub(super) struct Letters<'a> {
    gone: Places<'a>,
    forgotten: Places<'a>,
    back: Back<'a>,
    aside: Aside<'a>,
}

impl<'a> Letters<'a> {
    /// Whether a commit has some.
    pub(super) fn are_in(commit: &Commit) -> bool {
        !commit.settled.is_empty() || !commit.set_aside.is_empty()
    }

    /// Those of commits.
    pub(super) fn of(commits: impl Iterator<Item = &'a Commit>) -> Result<Self, sqlx::Error> {
        let mut letters = Self::default();
        for commit in commits {
            for settled in &commit.settled {
                match settled {
                    Settled::Gone(offset) => letters.gone.add(commit, *offset),
                    Settled::Back { offset, failure, digest } => {
                        letters.back.places.add(commit, *offset);
                        letters.back.failures.add(failure, digest.as_deref());
                    }
                }
            }
            commit.forgotten().into_iter().for_each(|offset| letters.forgotten.add(commit, offset));
            for letter in &commit.set_aside {
                // One that is there already is replaced.
                letters.gone.add(commit, letter.event.offset);
                letters.aside.add(commit, letter)?;
            }
        }
        Ok(letters)
    }

    /// Stores them, in the transaction that moved the positions.
    pub(super) async fn store(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        if !self.gone.groups.is_empty() {
            self.remove(sql, connection).await?;
        }
        if !self.forgotten.groups.is_empty() {
            self.forget(sql, connection).await?;
        }
        if !self.back.places.groups.is_empty() {
            self.put_back(sql, connection).await?;
        }
        if !self.aside.places.groups.is_empty() {
            self.set_aside(sql, connection).await?;
        }
        Ok(())
    }

    async fn remove(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let query = sqlx::query(sql.text(
            r#"WITH gone AS (
                   DELETE FROM @.dead_letters d
                   USING unnest($1::text[], $2::int[], $3::bigint[]) AS s (group_name, partition, "offset")
                   WHERE d.group_name = s.group_name AND d.partition = s.partition AND d."offset" = s."offset"
                   RETURNING d.group_name, d.partition)
               UPDATE @.group_partitions g SET letters = greatest(0, g.letters - n.count)
               FROM (SELECT group_name, partition, count(*) FROM gone GROUP BY group_name, partition) n
               WHERE g.group_name = n.group_name AND g.partition = n.partition"#,
        ));
        self.gone.bind(query).execute(connection).await?;
        Ok(())
    }

    /// Ids that were remembered from places of letters that are gone.
    async fn forget(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let query = sqlx::query(sql.text(
            // By the places of the rows, which nobody changes, and place by place: without statistics, a join would read all
            // that is remembered in the partition.
            r#"DELETE FROM @.remembered WHERE ctid = ANY (ARRAY (
                   SELECT r.ctid
                   FROM unnest($1::text[], $2::int[], $3::bigint[]) AS s (group_name, partition, "offset")
                   CROSS JOIN LATERAL (
                       SELECT r.ctid FROM @.remembered r
                       WHERE r.group_name = s.group_name AND r.partition = s.partition AND r."offset" = s."offset"
                       OFFSET 0) r))"#,
        ));
        self.forgotten.bind(query).execute(connection).await?;
        Ok(())
    }

    /// With it, the replay of its key is over for all that waits there.
    async fn put_back(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let query = sqlx::query(sql.text(
            r#"UPDATE @.dead_letters d
               SET class = s.class, reason = s.reason, attempts = s.attempts, first_failed = s.first_failed,
                   last_failed = s.last_failed, digest = s.digest, request = NULL
               FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[],
                           $8::timestamptz[], $9::text[])
                   AS s (group_name, partition, "offset", class, reason, attempts, first_failed, last_failed, digest)
               WHERE d.group_name = s.group_name AND d.partition = s.partition AND d."offset" = s."offset"
               RETURNING d.group_name, d.partition, CASE WHEN d.parks THEN d.key END"#,
        ));
        let back = self.back.failures.bind(self.back.places.bind(query)).fetch_all(&mut *connection).await?;
        let mut keys = (Vec::new(), Vec::new(), Vec::new());
        for row in &back {
            if let Some(key) = row.try_get::<Option<String>, _>(2)? {
                keys.0.push(row.try_get::<String, _>(0)?);
                keys.1.push(row.try_get::<i32, _>(1)?);
                keys.2.push(key);
            }
        }
        if keys.2.is_empty() {
            return Ok(());
        }
        sqlx::query(sql.text(
            "UPDATE @.dead_letters d SET request = NULL
             FROM unnest($1::text[], $2::int[], $3::text[]) AS s (group_name, partition, key)
             WHERE d.group_name = s.group_name AND d.partition = s.partition AND d.parks AND d.key = s.key
               AND d.request = 'replay'",
        ))
        .bind(&keys.0)
        .bind(&keys.1)
        .bind(&keys.2)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn set_aside(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let query = sqlx::query(sql.text(
            r#"WITH added AS (
                   INSERT INTO @.dead_letters
                       (group_name, partition, "offset", class, reason, attempts, first_failed, last_failed, digest, id, key,
                        kind, time, headers, payload, parks, edited, request)
                   SELECT s.*, CASE WHEN s.parks AND EXISTS (
                       SELECT FROM @.dead_letters a
                       WHERE a.group_name = s.group_name AND a.partition = s.partition AND a.parks AND a.key = s.key
                         AND a.request = 'replay') THEN 'replay' END
                   FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
                               $7::timestamptz[], $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[],
                               $13::timestamptz[], $14::bytea[], $15::bytea[], $16::boolean[], $17::boolean[])
                       AS s (group_name, partition, "offset", class, reason, attempts, first_failed, last_failed, digest,
                             id, key, kind, time, headers, payload, parks, edited)
                   RETURNING group_name, partition)
               UPDATE @.group_partitions g SET letters = g.letters + n.count
               FROM (SELECT group_name, partition, count(*) FROM added GROUP BY group_name, partition) n
               WHERE g.group_name = n.group_name AND g.partition = n.partition"#,
        ));
        let query = self.aside.failures.bind(self.aside.places.bind(query));
        self.aside.bind(query).execute(connection).await?;
        Ok(())
    }
}

type Bound<'q> = Query<'q, Postgres, PgArguments>;

/// Where dead letters are.
#[derive(Default)]
struct Places<'a> {
    groups: Vec<&'a str>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
}

impl<'a> Places<'a> {
    fn add(&mut self, commit: &'a Commit, offset: Offset) {
        self.groups.push(&commit.lease.group);
        self.partitions.push(sql::partition(commit.lease.partition));
        self.offsets.push(sql::int(offset.0));
    }

    fn bind<'q>(&'q self, query: Bound<'q>) -> Bound<'q> {
        query.bind(&self.groups).bind(&self.partitions).bind(&self.offsets)
    }
}

/// What is known of their failures.
#[derive(Default)]
struct Failures<'a> {
    classes: Vec<&'a str>,
    reasons: Vec<Cow<'a, str>>,
    attempts: Vec<i64>,
    firsts: Vec<Time>,
    lasts: Vec<Time>,
    digests: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Failures<'a> {
    fn add(&mut self, failure: &'a Failure, digest: Option<&'a str>) {
        self.classes.push(failure.class.as_str());
        self.reasons.push(sql::storable(&failure.reason));
        self.attempts.push(i64::from(failure.attempts));
        self.firsts.push(Time(failure.first));
        self.lasts.push(Time(failure.last));
        self.digests.push(digest.map(sql::storable));
    }

    fn bind<'q>(&'q self, query: Bound<'q>) -> Bound<'q> {
        query
            .bind(&self.classes)
            .bind(&self.reasons)
            .bind(&self.attempts)
            .bind(&self.firsts)
            .bind(&self.lasts)
            .bind(&self.digests)
    }
}

/// Those that failed again.
#[derive(Default)]
struct Back<'a> {
    places: Places<'a>,
    failures: Failures<'a>,
}

/// Those that are new.
#[derive(Default)]
struct Aside<'a> {
    places: Places<'a>,
    failures: Failures<'a>,
    ids: Vec<&'a str>,
    keys: Vec<Option<&'a str>>,
    kinds: Vec<&'a str>,
    times: Vec<Time>,
    headers: Vec<Option<Vec<u8>>>,
    payloads: Vec<&'a [u8]>,
    parks: Vec<bool>,
    edited: Vec<bool>,
}

impl<'a> Aside<'a> {
    fn add(&mut self, commit: &'a Commit, letter: &'a DeadLetter) -> Result<(), sqlx::Error> {
        let DeadLetter { event, failure, digest, parks, edited, .. } = letter;
        self.places.add(commit, event.offset);
        self.failures.add(failure, digest.as_deref());
        self.ids.push(&event.id);
        self.keys.push(event.key.as_deref());
        self.kinds.push(&event.kind);
        self.times.push(Time(event.time));
        self.headers.push(headers(&event.headers)?);
        self.payloads.push(&event.payload);
        self.parks.push(*parks);
        self.edited.push(*edited);
        Ok(())
    }

    fn bind<'q>(&'q self, query: Bound<'q>) -> Bound<'q> {
        query
            .bind(&self.ids)
            .bind(&self.keys)
            .bind(&self.kinds)
            .bind(&self.times)
            .bind(&self.headers)
            .bind(&self.payloads)
            .bind(&self.parks)
            .bind(&self.edited)
    }
}
