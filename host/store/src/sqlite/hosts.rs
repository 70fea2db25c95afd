//! Hosts: registration, heartbeats, and what they report of their handlers.

use pelton_core::Timestamp;
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use super::{
    sql,
    transaction::{Fault, Transaction, Write},
};
use crate::{HandlerReport, HandlerState, HostInfo, StoreError};

/// Removes all hosts and owners: whoever has taken the daemon's lock knows that none of them is alive.
pub(super) struct ClearDead;

impl Write for ClearDead {
    type Answer = ();
    const DOING: &'static str = "clearing dead hosts";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        // Members go with their hosts. What dead hosts reported of their handlers was for those who asked until now.
        sqlx::query("DELETE FROM hosts").execute(&mut *transaction.connection).await?;
        sqlx::query("DELETE FROM handlers").execute(&mut *transaction.connection).await?;
        sqlx::query("UPDATE group_partitions SET owner = NULL, position = committed WHERE owner IS NOT NULL")
            .execute(&mut *transaction.connection)
            .await?;
        Ok(())
    }
}

/// Registers a host with the groups it works for, or changes them.
pub(super) struct Register {
    pub(super) host: String,
    pub(super) groups: Vec<String>,
}

impl Write for Register {
    type Answer = ();
    const DOING: &'static str = "registering a host";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        for group in &self.groups {
            let found: i64 = sqlx::query_scalar("SELECT count(*) FROM groups WHERE name = ?")
                .bind(group)
                .fetch_one(&mut *transaction.connection)
                .await?;
            if found == 0 {
                return Err(sql::unknown_group(&mut *transaction.connection, group).await?.into());
            }
        }
        let now = sql::int(transaction.now.0);
        sqlx::query(
            "INSERT INTO hosts (host, registered_at, last_heartbeat) VALUES (?1, ?2, ?2)
             ON CONFLICT (host) DO UPDATE SET last_heartbeat = ?2",
        )
        .bind(&self.host)
        .bind(now)
        .execute(&mut *transaction.connection)
        .await?;
        let groups = serde_json::to_string(&self.groups).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query("DELETE FROM members WHERE host = ?1 AND group_name NOT IN (SELECT value FROM json_each(?2))")
            .bind(&self.host)
            .bind(&groups)
            .execute(&mut *transaction.connection)
            .await?;
        sqlx::query(
            "INSERT OR IGNORE INTO members (group_name, host, registered_at) SELECT value, ?1, ?3 FROM json_each(?2)",
        )
        .bind(&self.host)
        .bind(&groups)
        .bind(now)
        .execute(&mut *transaction.connection)
        .await?;
        transaction.wakes = true;
        Ok(())
    }
}

/// Says that a host lives.
pub(super) struct Heartbeat(pub(super) String);

impl Write for Heartbeat {
    type Answer = bool;
    const DOING: &'static str = "sending a heartbeat";

    /// A machine that dies takes its host along.
    fn may_be_lost(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        let beat = sqlx::query("UPDATE hosts SET last_heartbeat = ? WHERE host = ?")
            .bind(sql::int(transaction.now.0))
            .bind(&self.0)
            .execute(&mut *transaction.connection)
            .await?;
        Ok(beat.rows_affected() == 1)
    }
}

/// Removes a host and its registrations.
pub(super) struct Deregister(pub(super) String);

impl Write for Deregister {
    type Answer = ();
    const DOING: &'static str = "deregistering a host";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let gone =
            sqlx::query("DELETE FROM hosts WHERE host = ?").bind(&self.0).execute(&mut *transaction.connection).await?;
        transaction.wakes |= gone.rows_affected() > 0;
        Ok(())
    }
}

/// All registered hosts, by id. `alive` tells whether a daemon holds the lock.
pub(super) async fn list(reads: &SqlitePool, alive: bool) -> Result<Vec<HostInfo>, StoreError> {
    let rows: Vec<(String, i64, i64, Option<String>)> = sqlx::query_as(
        "SELECT h.host, h.registered_at, h.last_heartbeat, m.group_name
         FROM hosts h LEFT JOIN members m ON m.host = h.host ORDER BY h.host, m.group_name",
    )
    .fetch_all(reads)
    .await
    .map_err(|error| sql::unavailable("listing hosts", &error))?;
    let mut hosts: Vec<HostInfo> = Vec::new();
    for (host, registered_at, last_heartbeat, group) in rows {
        match hosts.last_mut().filter(|info| info.host == host) {
            Some(info) => info.groups.extend(group),
            None => hosts.push(HostInfo {
                host,
                registered_at: Timestamp(sql::uint(registered_at)),
                last_heartbeat: Timestamp(sql::uint(last_heartbeat)),
                alive,
                groups: group.into_iter().collect(),
            }),
        }
    }
    Ok(hosts)
}

/// Replaces what hosts report of their handlers.
pub(super) struct Report(pub(super) Vec<HandlerReport>);

impl Write for Report {
    type Answer = ();
    const DOING: &'static str = "reporting handlers";

    /// Counts since the start of a host, which a machine that dies takes along.
    fn may_be_lost(&self) -> bool {
        true
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        for report in &self.0 {
            let state = match report.state {
                HandlerState::Live => "live",
                HandlerState::Refused => "refused",
            };
            sqlx::query(
                "INSERT OR REPLACE INTO handlers (handler, host, digest, since, state, error, calls, failures)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&report.handler)
            .bind(&report.host)
            .bind(&report.digest)
            .bind(sql::int(report.since.0))
            .bind(state)
            .bind(&report.error)
            .bind(sql::int(report.calls))
            .bind(sql::int(report.failures))
            .execute(&mut *transaction.connection)
            .await?;
        }
        Ok(())
    }
}

/// The last report of each handler and host, by name.
pub(super) async fn handlers(reads: &SqlitePool) -> Result<Vec<HandlerReport>, StoreError> {
    let rows = sqlx::query("SELECT * FROM handlers ORDER BY handler, host").fetch_all(reads).await;
    let reports = rows.and_then(|rows| rows.iter().map(report).collect());
    reports.map_err(|error| sql::unavailable("listing handlers", &error))
}

fn report(row: &SqliteRow) -> Result<HandlerReport, sqlx::Error> {
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
    })
}
