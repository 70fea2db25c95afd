//! Hosts: registration, groups they work for, heartbeats.

use std::collections::BTreeSet;

use pelton_core::{Membership, Session, Timestamp};
use serde_json::json;
use sqlx::{SqliteConnection, SqlitePool};

use super::{
    host_locks::HostLocks,
    sql, survey,
    transaction::{Fault, Transaction, Write},
};
use crate::{HostInfo, Registration, StoreError};

/// Registers a host whose lock was taken. An earlier registration of it ends.
pub(super) struct Register(pub(super) Registration);

impl Write for Register {
    type Answer = Session;
    const DOING: &'static str = "registering a host";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Session, Fault> {
        let Registration { host, labels, memberships } = &self.0;
        check_groups(transaction.connection, memberships).await?;
        let incarnation: i64 = sqlx::query_scalar("UPDATE incarnations SET last = last + 1 RETURNING last")
            .fetch_one(&mut *transaction.connection)
            .await?;
        free_seats(transaction.connection, host, None).await?;
        sqlx::query(
            "INSERT INTO hosts (host, incarnation, registered_at, last_heartbeat, labels) VALUES (?1, ?2, ?3, ?3, ?4)
             ON CONFLICT (host) DO UPDATE
             SET incarnation = ?2, registered_at = ?3, last_heartbeat = ?3, labels = ?4, expelled = 0",
        )
        .bind(host)
        .bind(incarnation)
        .bind(sql::int(transaction.now.0))
        .bind(json!(labels).to_string())
        .execute(&mut *transaction.connection)
        .await?;
        join(transaction, host, memberships).await?;
        // Those that were there before too: it joined anew.
        sqlx::query("UPDATE members SET registered_at = ?2, expelled = 0 WHERE host = ?1")
            .bind(host)
            .bind(sql::int(transaction.now.0))
            .execute(&mut *transaction.connection)
            .await?;
        // What hosts that are gone reported of their handlers was for those who asked until now.
        sqlx::query("DELETE FROM handlers WHERE host NOT IN (SELECT host FROM hosts)")
            .execute(&mut *transaction.connection)
            .await?;
        transaction.wakes = true;
        Ok(Session { host: host.as_str().into(), incarnation: sql::uint(incarnation) })
    }
}

/// Changes the groups that a host works for.
pub(super) struct Join {
    pub(super) session: Session,
    pub(super) memberships: Vec<Membership>,
}

impl Write for Join {
    type Answer = bool;
    const DOING: &'static str = "joining groups";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        check_groups(transaction.connection, &self.memberships).await?;
        if beat(transaction, std::slice::from_ref(&self.session)).await?.is_empty() {
            return Ok(false);
        }
        join(transaction, &self.session.host, &self.memberships).await?;
        transaction.wakes = true;
        Ok(true)
    }
}

/// Says that hosts live.
pub(super) struct Heartbeat(pub(super) Vec<Session>);

impl Write for Heartbeat {
    type Answer = Vec<bool>;
    const DOING: &'static str = "sending a heartbeat";

    /// Nobody is left to have said it.
    fn ends_with_machine(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<bool>, Fault> {
        let stand = beat(transaction, &self.0).await?;
        let stands = |session: &Session| stand.contains(&(session.host.to_string(), sql::int(session.incarnation)));
        Ok(self.0.iter().map(stands).collect())
    }
}

/// Removes a host and its memberships, and frees what it holds.
pub(super) struct Deregister(pub(super) Session);

impl Write for Deregister {
    type Answer = ();
    const DOING: &'static str = "deregistering a host";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let host = &*self.0.host;
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM hosts WHERE host = ? AND incarnation = ?")
            .bind(host)
            .bind(sql::int(self.0.incarnation))
            .fetch_one(&mut *transaction.connection)
            .await?;
        if found == 0 {
            return Ok(());
        }
        join(transaction, host, &[]).await?;
        sqlx::query("DELETE FROM hosts WHERE host = ?").bind(host).execute(&mut *transaction.connection).await?;
        free_seats(transaction.connection, host, None).await?;
        transaction.wakes = true;
        Ok(())
    }
}

/// Frees what a host holds, in one group or all.
pub(super) async fn free_seats(
    connection: &mut SqliteConnection,
    host: &str,
    group: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE group_partitions SET owner = NULL, position = committed
         WHERE owner = ?1 AND group_name = coalesce(?2, group_name)",
    )
    .bind(host)
    .bind(group)
    .execute(connection)
    .await?;
    Ok(())
}

/// Refuses groups that are not there.
async fn check_groups(connection: &mut SqliteConnection, memberships: &[Membership]) -> Result<(), Fault> {
    for Membership { group, .. } in memberships {
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM groups WHERE name = ?")
            .bind(group)
            .fetch_one(&mut *connection)
            .await?;
        if found == 0 {
            return Err(sql::unknown_group(connection, group).await?.into());
        }
    }
    Ok(())
}

/// Makes a host a member of these groups and of no others. What it holds in others stays its own.
async fn join(transaction: &mut Transaction<'_>, host: &str, memberships: &[Membership]) -> Result<(), sqlx::Error> {
    let member = |one: &Membership| (one.group.clone(), sql::int(one.session_timeout_ms), one.partitions_max);
    let members = json!(memberships.iter().map(member).collect::<Vec<_>>()).to_string();
    // Also the groups that it leaves, while it still stands in them.
    sqlx::query(
        "UPDATE groups SET generation = generation + 1
         WHERE name IN (SELECT group_name FROM members WHERE host = ?1 UNION SELECT value ->> 0 FROM json_each(?2))",
    )
    .bind(host)
    .bind(&members)
    .execute(&mut *transaction.connection)
    .await?;
    sqlx::query("DELETE FROM members WHERE host = ?1 AND group_name NOT IN (SELECT value ->> 0 FROM json_each(?2))")
        .bind(host)
        .bind(&members)
        .execute(&mut *transaction.connection)
        .await?;
    // `WHERE true` tells the conflict clause from a join's.
    sqlx::query(
        "INSERT INTO members (group_name, host, registered_at, session_timeout_ms, partitions_max)
         SELECT value ->> 0, ?1, ?3, value ->> 1, value ->> 2 FROM json_each(?2) WHERE true
         ON CONFLICT (group_name, host) DO UPDATE
         SET session_timeout_ms = excluded.session_timeout_ms, partitions_max = excluded.partitions_max",
    )
    .bind(host)
    .bind(&members)
    .bind(sql::int(transaction.now.0))
    .execute(&mut *transaction.connection)
    .await?;
    Ok(())
}

/// Notes that hosts live, and says which registrations stand: in no group may the host be given up.
async fn beat(transaction: &mut Transaction<'_>, sessions: &[Session]) -> Result<BTreeSet<(String, i64)>, sqlx::Error> {
    let pair = |session: &Session| (session.host.to_string(), sql::int(session.incarnation));
    let stand: Vec<(String, i64)> = sqlx::query_as(
        "UPDATE hosts SET last_heartbeat = ?1
         WHERE (host, incarnation) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2)) AND NOT expelled
           AND NOT EXISTS (SELECT 1 FROM members m WHERE m.host = hosts.host AND m.expelled)
         RETURNING host, incarnation",
    )
    .bind(sql::int(transaction.now.0))
    .bind(json!(sessions.iter().map(pair).collect::<Vec<_>>()).to_string())
    .fetch_all(&mut *transaction.connection)
    .await?;
    Ok(stand.into_iter().collect())
}

/// All registered hosts, by id.
pub(super) async fn list(reads: &SqlitePool, locks: &HostLocks, now: Timestamp) -> Result<Vec<HostInfo>, StoreError> {
    list_inner(reads, locks, now).await.map_err(|error| sql::unavailable("listing hosts", &error))
}

async fn list_inner(reads: &SqlitePool, locks: &HostLocks, now: Timestamp) -> Result<Vec<HostInfo>, sqlx::Error> {
    let mut transaction = reads.begin().await?;
    let rows: Vec<(String, i64, i64, String, String)> = sqlx::query_as(
        "SELECT host, registered_at, last_heartbeat, labels,
             (SELECT json_group_array(group_name ORDER BY group_name) FROM members m WHERE m.host = hosts.host)
         FROM hosts ORDER BY host",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let survey = survey::take(&mut transaction, locks, now).await?;
    transaction.rollback().await?;

    let undecodable = |error: serde_json::Error| sqlx::Error::Decode(error.into());
    let mut hosts = Vec::new();
    // Of one moment and in one order.
    for ((host, registered_at, last_heartbeat, labels, groups), seen) in rows.into_iter().zip(&survey.hosts) {
        hosts.push(HostInfo {
            host,
            registered_at: Timestamp(sql::uint(registered_at)),
            last_heartbeat: Timestamp(sql::uint(last_heartbeat)),
            active: survey.shows_active(seen),
            labels: serde_json::from_str(&labels).map_err(undecodable)?,
            groups: serde_json::from_str(&groups).map_err(undecodable)?,
        });
    }
    Ok(hosts)
}
