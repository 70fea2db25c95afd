//! Hosts: registration, heartbeats, and what they report of their handlers.

use std::{collections::BTreeMap, sync::Arc};

use pelton_core::{Class, Membership, SESSION_TIMEOUT_MS_DEFAULT, Session};
use sqlx::{Row, postgres::PgRow};

use super::{
    connection::Connection,
    groups,
    request::{Change, Fault, ONE_MOMENT, Request, Transaction},
    sql::{self, Sql, Time},
    survey,
};
use crate::{HandlerReport, HandlerState, HostInfo, Registration, StoreError};

/// Registers a host.
pub(super) struct Register<'a> {
    pub(super) registration: &'a Registration,
    pub(super) by: By<'a>,
}

/// What tells others that the host lives.
pub(super) enum By<'a> {
    /// Its lock, taken in this incarnation of the server.
    Lock { server: Option<&'a str> },
    /// Its heartbeats alone: locks do not hold here.
    Heartbeats {
        /// The incarnation of this registration: drawn before, so that it is known even if the answer is lost.
        incarnation: i64,
        /// Registrations that are this process's own.
        own: &'a [i64],
    },
}

/// An incarnation for a registration to come.
pub(super) struct Draw;

impl Request for Draw {
    type Answer = i64;
    const DOING: &'static str = "registering a host";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<i64, Fault> {
        let draw = transaction.sql.text("SELECT nextval('@.incarnations')");
        Ok(sqlx::query_scalar(draw).fetch_one(&mut *transaction.connection).await?)
    }
}

impl Request for Register<'_> {
    type Answer = Session;
    const DOING: &'static str = "registering a host";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Session, Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let host = &self.registration.host;
        check_groups(sql, connection, &self.registration.memberships).await?;
        sqlx::query(sql.text("SELECT FROM @.hosts WHERE host = $1 FOR UPDATE"))
            .bind(host)
            .execute(&mut **connection)
            .await?;
        let (server, drawn) = match self.by {
            By::Lock { server } => (server, None),
            By::Heartbeats { incarnation, own } => {
                refuse_heard_of(sql, connection, host, own).await?;
                (None, Some(incarnation))
            }
        };
        let labels =
            serde_json::to_string(&self.registration.labels).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let incarnation: i64 = sqlx::query_scalar(sql.text(
            "INSERT INTO @.hosts (host, incarnation, registered_at, last_heartbeat, labels, lock_key, server)
             SELECT $1, coalesce($4, nextval('@.incarnations')), n.now, n.now, $2::text::jsonb, @.lock_key($1), $3
             FROM (SELECT @.now() AS now) n
             ON CONFLICT (host) DO UPDATE SET incarnation = excluded.incarnation, registered_at = excluded.registered_at,
                 last_heartbeat = excluded.last_heartbeat, labels = excluded.labels, lock_key = excluded.lock_key,
                 server = excluded.server, expelled = false
             RETURNING incarnation",
        ))
        .bind(host)
        .bind(labels)
        .bind(server)
        .bind(drawn)
        .fetch_one(&mut **connection)
        .await?;
        let session = Session { host: Arc::from(host.as_str()), incarnation: sql::uint(incarnation) };
        join(sql, connection, &session, &self.registration.memberships).await?;
        groups::free_seats_of(sql, connection, host, None).await?;
        // What hosts that are gone reported of their handlers was for those who asked until now.
        sqlx::query(
            sql.text("DELETE FROM @.handlers r WHERE NOT EXISTS (SELECT FROM @.hosts h WHERE h.host = r.host)"),
        )
        .execute(&mut **connection)
        .await?;
        *wakes = Some(Change::Membership);
        Ok(session)
    }
}

/// Where no lock tells, another process's registration counts until it has been silent for the longest of its session
/// timeouts.
async fn refuse_heard_of(sql: &Sql, connection: &mut Connection, host: &str, own: &[i64]) -> Result<(), Fault> {
    let silent: Option<f64> = sqlx::query_scalar(sql.text(
        "SELECT s.ms::float8 FROM @.hosts h
         CROSS JOIN LATERAL (
             SELECT coalesce(max(m.session_timeout_ms), $2) AS longest
             FROM @.members m WHERE m.host = h.host AND m.incarnation = h.incarnation) m
         CROSS JOIN LATERAL (SELECT extract(epoch FROM @.now() - h.last_heartbeat) * 1000 AS ms) s
         WHERE h.host = $1 AND NOT h.expelled AND s.ms <= m.longest AND h.incarnation <> ALL ($3)",
    ))
    .bind(host)
    .bind(sql::int(SESSION_TIMEOUT_MS_DEFAULT))
    .bind(own)
    .fetch_optional(connection)
    .await?;
    match silent {
        None => Ok(()),
        Some(ms) => Err(in_use(host, Some(ms)).into()),
    }
}

fn in_use(host: &str, silent_ms: Option<f64>) -> StoreError {
    let by = silent_ms.map_or_else(String::new, |ms| format!(" (last heartbeat {:.1} s ago)", ms.max(0.0) / 1_000.0));
    StoreError::HostInUse { host: host.into(), by }
}

/// What is known of the host that holds a lock.
pub(super) struct InUse<'a>(pub(super) &'a str);

impl Request for InUse<'_> {
    type Answer = StoreError;
    const DOING: &'static str = "registering a host";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<StoreError, Fault> {
        let silent: Option<f64> =
            sqlx::query_scalar(transaction.sql.text(
                "SELECT (extract(epoch FROM @.now() - last_heartbeat) * 1000)::float8 FROM @.hosts WHERE host = $1",
            ))
            .bind(self.0)
            .fetch_optional(&mut *transaction.connection)
            .await?;
        Ok(in_use(self.0, silent))
    }
}

/// Refuses groups that are not there, and holds them until the transaction ends.
async fn check_groups(sql: &Sql, connection: &mut Connection, memberships: &[Membership]) -> Result<(), Fault> {
    let wanted: Vec<&str> = memberships.iter().map(|membership| membership.group.as_str()).collect();
    let found: Vec<String> =
        sqlx::query_scalar(sql.text("SELECT name FROM @.groups WHERE name = ANY ($1) ORDER BY name FOR KEY SHARE"))
            .bind(&wanted)
            .fetch_all(&mut *connection)
            .await?;
    match wanted.iter().find(|group| !found.iter().any(|name| name == *group)) {
        Some(group) => Err(sql::unknown_group(sql, connection, group).await?.into()),
        None => Ok(()),
    }
}

async fn join(
    sql: &Sql,
    connection: &mut Connection,
    session: &Session,
    memberships: &[Membership],
) -> Result<(), sqlx::Error> {
    let by_group: BTreeMap<&str, &Membership> =
        memberships.iter().map(|membership| (membership.group.as_str(), membership)).collect();
    let wanted: Vec<&str> = by_group.keys().copied().collect();
    let timeouts: Vec<i64> = by_group.values().map(|membership| sql::int(membership.session_timeout_ms)).collect();
    let maxima: Vec<i64> = by_group.values().map(|membership| i64::from(membership.partitions_max)).collect();
    let left: Vec<String> = sqlx::query_scalar(
        sql.text("DELETE FROM @.members WHERE host = $1 AND group_name <> ALL ($2) RETURNING group_name"),
    )
    .bind(&*session.host)
    .bind(&wanted)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(sql.text(
        "INSERT INTO @.members AS m
             (group_name, host, incarnation, registered_at, session_timeout_ms, partitions_max)
         SELECT w.group_name, $1, $2, n.now, w.session_timeout_ms, w.partitions_max
         FROM unnest($3::text[], $4::bigint[], $5::bigint[]) AS w (group_name, session_timeout_ms, partitions_max),
             (SELECT @.now() AS now) n
         ON CONFLICT (group_name, host) DO UPDATE SET
             registered_at = CASE WHEN m.incarnation = excluded.incarnation THEN m.registered_at
                                  ELSE excluded.registered_at END,
             incarnation = excluded.incarnation, session_timeout_ms = excluded.session_timeout_ms,
             partitions_max = excluded.partitions_max, expelled = false",
    ))
    .bind(&*session.host)
    .bind(sql::int(session.incarnation))
    .bind(&wanted)
    .bind(timeouts)
    .bind(maxima)
    .execute(&mut *connection)
    .await?;
    let mut changed: Vec<String> = wanted.into_iter().map(Into::into).collect();
    changed.extend(left);
    survey::new_generation(sql, connection, &changed).await
}

/// Changes the groups that a host works for.
pub(super) struct Join<'a> {
    pub(super) session: &'a Session,
    pub(super) memberships: &'a [Membership],
}

impl Request for Join<'_> {
    type Answer = bool;
    const DOING: &'static str = "joining groups";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        check_groups(sql, connection, self.memberships).await?;
        let beat = sqlx::query(sql.text(
            "UPDATE @.hosts h SET last_heartbeat = @.now() WHERE h.host = $1 AND h.incarnation = $2 AND NOT h.expelled
               AND NOT EXISTS (SELECT FROM @.members m WHERE m.host = h.host AND m.expelled)",
        ))
        .bind(&*self.session.host)
        .bind(sql::int(self.session.incarnation))
        .execute(&mut **connection)
        .await?;
        if beat.rows_affected() == 0 {
            return Ok(false);
        }
        join(sql, connection, self.session, self.memberships).await?;
        *wakes = Some(Change::Membership);
        Ok(true)
    }
}

/// Says that hosts live, all in one statement.
pub(super) struct Heartbeat<'a>(pub(super) &'a [Session]);

impl Request for Heartbeat<'_> {
    type Answer = Vec<bool>;
    const DOING: &'static str = "sending heartbeats";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<bool>, Fault> {
        let hosts: Vec<&str> = self.0.iter().map(|session| &*session.host).collect();
        let incarnations: Vec<i64> = self.0.iter().map(|session| sql::int(session.incarnation)).collect();
        let stand = sqlx::query_scalar(transaction.sql.text(
            "WITH beating AS MATERIALIZED (
                 SELECT s.host, s.incarnation, s.n
                 FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS s (host, incarnation, n)
             ), standing AS MATERIALIZED (
                 SELECT h.host, h.incarnation FROM @.hosts h
                 WHERE (h.host, h.incarnation) IN (SELECT b.host, b.incarnation FROM beating b) AND NOT h.expelled
                   AND NOT EXISTS (SELECT FROM @.members m WHERE m.host = h.host AND m.expelled)
                 ORDER BY h.host FOR NO KEY UPDATE
             ), beat AS (
                 UPDATE @.hosts h SET last_heartbeat = n.now FROM standing s, (SELECT @.now() AS now) n
                 WHERE h.host = s.host RETURNING h.host, h.incarnation
             )
             SELECT beat.host IS NOT NULL FROM beating b
             LEFT JOIN beat ON beat.host = b.host AND beat.incarnation = b.incarnation ORDER BY b.n",
        ))
        .bind(hosts)
        .bind(incarnations)
        .fetch_all(&mut *transaction.connection)
        .await?;
        Ok(stand)
    }
}

/// Removes a host with its memberships and frees what it holds. False if the registration is over.
pub(super) struct Deregister<'a>(pub(super) &'a Session);

impl Request for Deregister<'_> {
    type Answer = bool;
    const DOING: &'static str = "deregistering a host";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let host = &*self.0.host;
        let found = sqlx::query(sql.text("SELECT FROM @.hosts WHERE host = $1 AND incarnation = $2 FOR UPDATE"))
            .bind(host)
            .bind(sql::int(self.0.incarnation))
            .fetch_optional(&mut **connection)
            .await?;
        if found.is_none() {
            return Ok(false);
        }
        let left: Vec<String> =
            sqlx::query_scalar(sql.text("DELETE FROM @.members WHERE host = $1 RETURNING group_name"))
                .bind(host)
                .fetch_all(&mut **connection)
                .await?;
        sqlx::query(sql.text("DELETE FROM @.hosts WHERE host = $1")).bind(host).execute(&mut **connection).await?;
        survey::new_generation(sql, connection, &left).await?;
        groups::free_seats_of(sql, connection, host, None).await?;
        *wakes = Some(Change::Membership);
        Ok(true)
    }
}

/// Removes expelled hosts for good.
pub(super) struct Cleanup;

impl Request for Cleanup {
    type Answer = Vec<String>;
    const DOING: &'static str = "removing stale hosts";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<String>, Fault> {
        // Members go with their hosts. A host that was given up in a single group keeps the mark until it registers again:
        // without it, its next heartbeat would be told that all is well.
        let mut gone: Vec<String> = sqlx::query_scalar(transaction.sql.text(
            "WITH expelled AS MATERIALIZED (SELECT host FROM @.hosts WHERE expelled ORDER BY host FOR UPDATE)
             DELETE FROM @.hosts h USING expelled e WHERE h.host = e.host AND h.expelled RETURNING h.host",
        ))
        .fetch_all(&mut *transaction.connection)
        .await?;
        gone.sort();
        Ok(gone)
    }
}

/// All registered hosts, by id.
pub(super) struct List;

impl Request for List {
    type Answer = Vec<HostInfo>;
    const DOING: &'static str = "listing hosts";
    const BEGIN: Option<&'static str> = ONE_MOMENT;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<HostInfo>, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        let survey = survey::of(sql, connection).await?;
        let rows: Vec<(Time, String, Vec<String>)> = sqlx::query_as(sql.text(
            "SELECT h.registered_at, h.labels::text,
                 array(SELECT m.group_name FROM @.members m WHERE m.host = h.host ORDER BY m.group_name)
             FROM @.hosts h ORDER BY h.host",
        ))
        .fetch_all(&mut **connection)
        .await?;
        let info = |(seen, (Time(registered_at), labels, groups)): (_, (_, String, _))| {
            let seen: &pelton_core::HostSeen = seen;
            let labels = serde_json::from_str(&labels).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(HostInfo {
                host: seen.session.host.to_string(),
                registered_at,
                last_heartbeat: seen.last_heartbeat,
                active: survey.shows_active(seen),
                labels,
                groups,
            })
        };
        Ok(survey.hosts.iter().zip(rows).map(info).collect::<Result<_, sqlx::Error>>()?)
    }
}

/// Replaces what hosts report of their handlers.
pub(super) struct Report<'a>(pub(super) &'a [HandlerReport]);

impl Request for Report<'_> {
    type Answer = ();
    const DOING: &'static str = "reporting handlers";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        // By name, as rows are locked; of two reports of one handler the last one counts.
        let reports: BTreeMap<(&str, &str), &HandlerReport> =
            self.0.iter().map(|report| ((report.handler.as_str(), report.host.as_str()), report)).collect();
        for report in reports.values() {
            let state = match report.state {
                HandlerState::Live => "live",
                HandlerState::Refused => "refused",
            };
            sqlx::query(transaction.sql.text(
                "INSERT INTO @.handlers
                     (handler, host, digest, since, state, error, calls, failures, by_class, trial, usage)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11::text::jsonb)
                 ON CONFLICT (handler, host) DO UPDATE SET digest = $3, since = $4, state = $5, error = $6, calls = $7,
                     failures = $8, by_class = excluded.by_class, trial = $10, usage = excluded.usage",
            ))
            .bind(&report.handler)
            .bind(&report.host)
            .bind(&report.digest)
            .bind(Time(report.since))
            .bind(state)
            .bind(report.error.as_deref().map(sql::storable))
            .bind(sql::int(report.calls))
            .bind(sql::int(report.failures))
            .bind(words(&report.by_class)?)
            .bind(&report.trial)
            .bind(counters(&report.usage)?)
            .execute(&mut *transaction.connection)
            .await?;
        }
        Ok(())
    }
}

/// The last report of each handler and host, by name.
pub(super) struct Handlers;

impl Request for Handlers {
    type Answer = Vec<HandlerReport>;
    const DOING: &'static str = "listing handlers";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<HandlerReport>, Fault> {
        let all = transaction.sql.text(
            "SELECT handler, host, digest, since, state, error, calls, failures, by_class::text, trial,
                 usage::text
             FROM @.handlers ORDER BY handler, host",
        );
        let rows = sqlx::query(all).fetch_all(&mut *transaction.connection).await?;
        Ok(rows.iter().map(report).collect::<Result<_, sqlx::Error>>()?)
    }
}

fn report(row: &PgRow) -> Result<HandlerReport, sqlx::Error> {
    let state = match row.try_get("state")? {
        "live" => HandlerState::Live,
        _ => HandlerState::Refused,
    };
    Ok(HandlerReport {
        handler: row.try_get("handler")?,
        host: row.try_get("host")?,
        digest: row.try_get("digest")?,
        since: sql::time(row, "since")?,
        state,
        error: row.try_get("error")?,
        calls: sql::uint(row.try_get("calls")?),
        failures: sql::uint(row.try_get("failures")?),
        by_class: classes(row.try_get("by_class")?)?,
        trial: row.try_get("trial")?,
        usage: usage(row.try_get("usage")?)?,
    })
}

/// As a JSON object of words and numbers.
fn words(by_class: &BTreeMap<Class, u64>) -> Result<String, sqlx::Error> {
    let words: BTreeMap<&str, u64> = by_class.iter().map(|(class, count)| (class.as_str(), *count)).collect();
    serde_json::to_string(&words).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Back again. A newer host may know classes that we do not.
fn classes(json: &str) -> Result<BTreeMap<Class, u64>, sqlx::Error> {
    let words: BTreeMap<String, u64> = serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(words.into_iter().filter_map(|(word, count)| Some((Class::parse(&word)?, count))).collect())
}

/// As a JSON object too.
fn counters(usage: &BTreeMap<String, u64>) -> Result<String, sqlx::Error> {
    serde_json::to_string(usage).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Back again. A newer host may count what is no number of ours.
fn usage(json: &str) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let counters: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(counters.into_iter().filter_map(|(counter, count)| Some((counter, count.as_u64()?))).collect())
}
