//! Which versions of handlers answer, their modules, and which ones handled what.

use std::borrow::Cow;

use pelton_core::{Commit, Fate, Offset, Rollout, Trial, VersionRecord};
use sqlx::{Executor, Row, postgres::PgRow};

use super::{
    connection::Connection,
    request::{Fault, Request, Transaction},
    sql::{self, Sql, Time},
};
use crate::{HandledRange, store::RANGES_MAX};

/// Stores a rollout over the revision it was made from.
pub(super) struct Save<'a> {
    pub(super) rollout: &'a Rollout,
    /// That of the version that was proposed last.
    pub(super) module: Option<&'a [u8]>,
}

impl Request for Save<'_> {
    type Answer = bool;
    const DOING: &'static str = "saving which version of a handler answers";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        // Whoever comes too late has sent no module.
        if !self.replace(sql, connection).await? {
            return Ok(false);
        }
        self.replace_versions(sql, connection).await?;
        lock_modules(sql, connection).await?;
        if let (Some(module), Some(newest)) = (self.module, self.rollout.versions.last()) {
            // The same digest means the same bytes.
            sqlx::query(sql.text("INSERT INTO @.modules (digest, bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING"))
                .bind(&newest.digest)
                .bind(module)
                .execute(&mut **connection)
                .await?;
        }
        sqlx::query(sql.text(
            "DELETE FROM @.modules m
             WHERE NOT EXISTS (SELECT FROM @.handler_versions v WHERE v.digest = m.digest AND v.kept)",
        ))
        .execute(&mut **connection)
        .await?;
        Ok(true)
    }
}

/// How long a transaction waits for others that write modules, and how long the server waits for a large one to arrive.
const MODULE_WAITS: &str = "SET LOCAL lock_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '30s'";

/// Until the transaction ends, modules and what is kept of them are nobody else's. Whoever holds this lock waits for no
/// other one; and what others kept until now is seen by the statements that follow.
async fn lock_modules(sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(MODULE_WAITS)).await?;
    sqlx::query(sql.text("SELECT pg_advisory_xact_lock(hashtextextended('pelton modules of @schema', 0))"))
        .execute(connection)
        .await?;
    Ok(())
}

impl Save<'_> {
    /// False if what is stored is not what this was made from. Of two that do this at once, the other one waits here.
    async fn replace(&self, sql: &Sql, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let Rollout { handler, revision, live, trial, pinned, .. } = self.rollout;
        let statement = match revision {
            1 => {
                "INSERT INTO @.rollouts
                     (handler, revision, live, trial, trial_since, trial_until, trial_partitions, pinned)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"
            }
            _ => {
                "UPDATE @.rollouts
                 SET revision = $2, live = $3, trial = $4, trial_since = $5, trial_until = $6, trial_partitions = $7,
                     pinned = $8
                 WHERE handler = $1 AND revision = $2 - 1"
            }
        };
        let trial = trial.as_ref();
        let replaced = sqlx::query(sql.text(statement))
            .bind(handler)
            .bind(sql::int(*revision))
            .bind(live)
            .bind(trial.map(|trial| &trial.digest))
            .bind(trial.map(|trial| Time(trial.since)))
            .bind(trial.map(|trial| Time(trial.until)))
            .bind(trial.map(|trial| i64::from(trial.partitions)))
            .bind(pinned)
            .execute(connection)
            .await?;
        Ok(replaced.rows_affected() == 1)
    }

    async fn replace_versions(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let Rollout { handler, versions, .. } = self.rollout;
        sqlx::query(sql.text("DELETE FROM @.handler_versions WHERE handler = $1"))
            .bind(handler)
            .execute(&mut *connection)
            .await?;
        let digests: Vec<&str> = versions.iter().map(|version| &*version.digest).collect();
        let bytes: Vec<i64> = versions.iter().map(|version| sql::int(version.bytes)).collect();
        let hosts: Vec<&str> = versions.iter().map(|version| &*version.host).collect();
        let proposed: Vec<Time> = versions.iter().map(|version| Time(version.proposed_at)).collect();
        let live: Vec<Option<Time>> = versions.iter().map(|version| version.live_at.map(Time)).collect();
        let fates: Vec<&str> = versions.iter().map(|version| version.fate.as_str()).collect();
        let reasons: Vec<Option<Cow<'_, str>>> =
            versions.iter().map(|version| version.reason.as_deref().map(sql::storable)).collect();
        let kept: Vec<bool> = versions.iter().map(|version| version.kept).collect();
        sqlx::query(sql.text(
            "INSERT INTO @.handler_versions
                 (handler, ordinal, digest, bytes, host, proposed_at, live_at, fate, reason, kept)
             SELECT $1, v.n, v.digest, v.bytes, v.host, v.proposed_at, v.live_at, v.fate, v.reason, v.kept
             FROM unnest($2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                         $8::text[], $9::boolean[]) WITH ORDINALITY
                 AS v (digest, bytes, host, proposed_at, live_at, fate, reason, kept, n)",
        ))
        .bind(handler)
        .bind(digests)
        .bind(bytes)
        .bind(hosts)
        .bind(proposed)
        .bind(live)
        .bind(fates)
        .bind(reasons)
        .bind(kept)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The sum of all revisions.
pub(super) struct Revision;

impl Request for Revision {
    type Answer = u64;
    const DOING: &'static str = "looking for new versions of handlers";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<u64, Fault> {
        let sum = transaction.sql.text("SELECT coalesce(sum(revision), 0)::bigint FROM @.rollouts");
        let sum: i64 = sqlx::query_scalar(sum).fetch_one(&mut *transaction.connection).await?;
        Ok(sql::uint(sum))
    }
}

/// Which versions answer, by handler.
pub(super) struct List;

impl Request for List {
    type Answer = Vec<Rollout>;
    const DOING: &'static str = "reading which versions of handlers answer";
    // One statement, so that all of it is of one moment.
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<Rollout>, Fault> {
        let rows = sqlx::query(transaction.sql.text(
            "SELECT r.handler, r.revision, r.live, r.trial, r.trial_since, r.trial_until, r.trial_partitions, r.pinned,
                 v.digest, v.bytes, v.host, v.proposed_at, v.live_at, v.fate, v.reason, v.kept
             FROM @.rollouts r LEFT JOIN @.handler_versions v ON v.handler = r.handler ORDER BY r.handler, v.ordinal",
        ))
        .fetch_all(&mut *transaction.connection)
        .await?;
        let mut rollouts: Vec<Rollout> = Vec::new();
        for row in rows {
            let handler: &str = row.try_get("handler")?;
            if rollouts.last().is_none_or(|rollout| rollout.handler != handler) {
                rollouts.push(rollout(&row)?);
            }
            if let Some(rollout) = rollouts.last_mut() {
                rollout.versions.extend(version(&row)?);
            }
        }
        Ok(rollouts)
    }
}

/// Without its versions.
fn rollout(row: &PgRow) -> Result<Rollout, sqlx::Error> {
    let trial = match row.try_get("trial")? {
        Some(digest) => Some(Trial {
            digest,
            since: sql::time(row, "trial_since")?,
            until: sql::time(row, "trial_until")?,
            partitions: sql::count(row, "trial_partitions")?,
        }),
        None => None,
    };
    Ok(Rollout {
        handler: row.try_get("handler")?,
        revision: sql::uint(row.try_get("revision")?),
        live: row.try_get("live")?,
        trial,
        pinned: row.try_get("pinned")?,
        versions: Vec::new(),
    })
}

/// `None` for a rollout without any.
fn version(row: &PgRow) -> Result<Option<VersionRecord>, sqlx::Error> {
    let Some(digest) = row.try_get("digest")? else { return Ok(None) };
    let live_at: Option<Time> = row.try_get("live_at")?;
    Ok(Some(VersionRecord {
        digest,
        bytes: sql::uint(row.try_get("bytes")?),
        host: row.try_get("host")?,
        proposed_at: sql::time(row, "proposed_at")?,
        live_at: live_at.map(|Time(at)| at),
        // One that only a newer host knows certainly does not answer any more.
        fate: Fate::parse(row.try_get("fate")?).unwrap_or(Fate::Superseded),
        reason: row.try_get("reason")?,
        kept: row.try_get("kept")?,
    }))
}

/// The bytes of a module.
pub(super) struct Module<'a>(pub(super) &'a str);

impl Request for Module<'_> {
    type Answer = Option<Vec<u8>>;
    const DOING: &'static str = "reading a module";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Option<Vec<u8>>, Fault> {
        let bytes = sqlx::query_scalar(transaction.sql.text("SELECT bytes FROM @.modules WHERE digest = $1"));
        Ok(bytes.bind(self.0).fetch_optional(&mut *transaction.connection).await?)
    }
}

/// Which versions took over with commits that passed their fences.
#[derive(Default)]
pub(super) struct Ranges<'a> {
    groups: Vec<&'a str>,
    partitions: Vec<i32>,
    froms: Vec<i64>,
    digests: Vec<Cow<'a, str>>,
    hosts: Vec<&'a str>,
}

impl<'a> Ranges<'a> {
    /// Whether one took over with a commit.
    pub(super) fn are_in(commit: &Commit) -> bool {
        !commit.handled_by.is_empty()
    }

    /// Those of commits, each of another partition.
    pub(super) fn of(commits: impl Iterator<Item = &'a Commit>) -> Self {
        let mut ranges = Self::default();
        for commit in commits {
            // More would be removed again at once.
            for (from, digest) in &commit.handled_by[commit.handled_by.len().saturating_sub(RANGES_MAX)..] {
                ranges.groups.push(&commit.lease.group);
                ranges.partitions.push(sql::partition(commit.lease.partition));
                ranges.froms.push(sql::int(from.0));
                ranges.digests.push(sql::storable(digest));
                ranges.hosts.push(&commit.lease.host);
            }
        }
        ranges
    }

    /// Stores them, in the transaction that moved the positions, in one statement: it ends the ranges of those who handled
    /// until now, never before they began (a host of schema 3 may have moved the position back without a word about them),
    /// and removes what is too old.
    pub(super) async fn store(&self, sql: &Sql, connection: &mut Connection) -> Result<(), sqlx::Error> {
        if self.groups.is_empty() {
            return Ok(());
        }
        sqlx::query(sql.text(
            "WITH given AS MATERIALIZED (
                 SELECT s.*, row_number() OVER w AS rank, lead(s.from_offset) OVER w AS until_offset
                 FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[]) WITH ORDINALITY
                     AS s (group_name, partition, from_offset, digest, host, n)
                 WINDOW w AS (PARTITION BY s.group_name, s.partition ORDER BY s.n)
             ), last AS MATERIALIZED (
                 SELECT g.group_name, g.partition, g.from_offset,
                     coalesce((SELECT max(r.number) FROM @.handled_ranges r
                               WHERE r.group_name = g.group_name AND r.partition = g.partition), 0) AS number,
                     (SELECT max(m.rank) FROM given m
                      WHERE m.group_name = g.group_name AND m.partition = g.partition) AS count
                 FROM given g WHERE g.rank = 1
             ), ended AS (
                 UPDATE @.handled_ranges r SET until_offset = greatest(r.from_offset, l.from_offset) FROM last l
                 WHERE r.group_name = l.group_name AND r.partition = l.partition AND r.number = l.number
                   AND r.until_offset IS NULL AND l.count < $6
             ), removed AS (
                 DELETE FROM @.handled_ranges r USING last l
                 WHERE r.group_name = l.group_name AND r.partition = l.partition
                   AND r.number <= l.number + l.count - $6
             )
             INSERT INTO @.handled_ranges
                 (group_name, partition, number, from_offset, until_offset, handler, digest, host, since)
             SELECT g.group_name, g.partition, l.number + g.rank, g.from_offset, g.until_offset, n.handler, g.digest,
                 g.host, t.now
             FROM given g JOIN last l ON l.group_name = g.group_name AND l.partition = g.partition
             JOIN @.groups n ON n.name = g.group_name, (SELECT @.now() AS now) t",
        ))
        .bind(&self.groups)
        .bind(&self.partitions)
        .bind(&self.froms)
        .bind(&self.digests)
        .bind(&self.hosts)
        .bind(RANGES_MAX as i64)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Ends the ranges of those who handle these partitions, whose rows are locked, at their positions.
pub(super) async fn end_ranges(
    sql: &Sql,
    connection: &mut Connection,
    group: &str,
    partitions: &[i32],
) -> Result<(), sqlx::Error> {
    sqlx::query(sql.text(
        "UPDATE @.handled_ranges r SET until_offset = greatest(r.from_offset, g.committed)
         FROM @.group_partitions g
         WHERE g.group_name = $1 AND g.partition = ANY ($2) AND r.group_name = g.group_name AND r.partition = g.partition
           AND r.until_offset IS NULL
           AND r.number = (SELECT max(l.number) FROM @.handled_ranges l
                           WHERE l.group_name = g.group_name AND l.partition = g.partition)",
    ))
    .bind(group)
    .bind(partitions)
    .execute(connection)
    .await?;
    Ok(())
}

/// Which versions of a handler handled what.
pub(super) struct Handled<'a> {
    pub(super) handler: &'a str,
    pub(super) limit: u32,
}

impl Request for Handled<'_> {
    type Answer = Vec<HandledRange>;
    const DOING: &'static str = "reading which versions handled what";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<HandledRange>, Fault> {
        let rows = sqlx::query(transaction.sql.text(
            "SELECT group_name, partition, from_offset, until_offset, handler, digest, host, since FROM (
                 SELECT * FROM @.handled_ranges WHERE handler = $1
                 ORDER BY since DESC, group_name DESC, partition DESC, number DESC LIMIT $2) newest
             ORDER BY group_name, partition, number",
        ))
        .bind(self.handler)
        .bind(i64::from(self.limit))
        .fetch_all(&mut *transaction.connection)
        .await?;
        Ok(rows.iter().map(range).collect::<Result<_, sqlx::Error>>()?)
    }
}

fn range(row: &PgRow) -> Result<HandledRange, sqlx::Error> {
    let until: Option<i64> = row.try_get("until_offset")?;
    Ok(HandledRange {
        group: row.try_get("group_name")?,
        partition: sql::number(row, "partition")?,
        from: sql::offset(row, "from_offset")?,
        until: until.map(|until| Offset(sql::uint(until))),
        handler: row.try_get("handler")?,
        digest: row.try_get("digest")?,
        host: row.try_get("host")?,
        since: sql::time(row, "since")?,
    })
}
