//! What hosts decide about each other, and what is cleaned up after it.

use std::sync::Arc;

use pelton_core::{Decision, Session, Timestamp};
use serde_json::json;

use super::{
    hosts, sql,
    transaction::{Fault, Transaction, Write},
};

impl Write for Decision {
    type Answer = bool;
    const DOING: &'static str = "deciding about hosts and members";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        let done = match self {
            Self::Expel { session, group, last_heartbeat, .. } => {
                expel(transaction, session, group.as_deref(), *last_heartbeat).await?
            }
            Self::Assign { group, generation, targets, homes } => {
                assign(transaction, group, *generation, targets, homes).await?
            }
        };
        transaction.wakes |= done;
        Ok(done)
    }
}

async fn expel(
    transaction: &mut Transaction<'_>,
    session: &Session,
    group: Option<&str>,
    last_heartbeat: Timestamp,
) -> Result<bool, sqlx::Error> {
    let host = &*session.host;
    let found = sqlx::query(
        "UPDATE hosts SET expelled = ?4 IS NULL
         WHERE host = ?1 AND incarnation = ?2 AND last_heartbeat = ?3 AND NOT expelled",
    )
    .bind(host)
    .bind(sql::int(session.incarnation))
    .bind(sql::int(last_heartbeat.0))
    .bind(group)
    .execute(&mut *transaction.connection)
    .await?;
    if found.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE groups SET generation = generation + 1
         WHERE name IN (SELECT group_name FROM members WHERE host = ?1 AND group_name = coalesce(?2, group_name))",
    )
    .bind(host)
    .bind(group)
    .execute(&mut *transaction.connection)
    .await?;
    sqlx::query("UPDATE members SET expelled = 1 WHERE host = ?1 AND group_name = coalesce(?2, group_name)")
        .bind(host)
        .bind(group)
        .execute(&mut *transaction.connection)
        .await?;
    hosts::free_seats(transaction.connection, host, group).await?;
    Ok(true)
}

async fn assign(
    transaction: &mut Transaction<'_>,
    group: &str,
    generation: u64,
    targets: &[Option<Arc<str>>],
    homes: &[Option<Arc<str>>],
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query("UPDATE groups SET generation = generation + 1 WHERE name = ? AND generation = ?")
        .bind(group)
        .bind(sql::int(generation))
        .execute(&mut *transaction.connection)
        .await?;
    if found.rows_affected() == 0 {
        return Ok(false);
    }
    let seats = targets.iter().zip(homes).map(|(target, home)| json!([target.as_deref(), home.as_deref()]));
    sqlx::query(
        "UPDATE group_partitions SET target = new.value ->> 0, previous = new.value ->> 1
         FROM json_each(?2) AS new
         WHERE group_name = ?1 AND partition = new.key
           AND (target IS NOT new.value ->> 0 OR previous IS NOT new.value ->> 1)",
    )
    .bind(group)
    .bind(serde_json::Value::from_iter(seats).to_string())
    .execute(&mut *transaction.connection)
    .await?;
    Ok(true)
}

/// Removes expelled hosts for good. A host that was given up in one group only keeps that mark until it registers again:
/// without it, its next heartbeat would be told that all is well.
pub(super) struct Cleanup;

impl Write for Cleanup {
    type Answer = Vec<String>;
    const DOING: &'static str = "cleaning up hosts";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<String>, Fault> {
        // Their memberships go with them.
        let mut gone: Vec<String> = sqlx::query_scalar("DELETE FROM hosts WHERE expelled RETURNING host")
            .fetch_all(&mut *transaction.connection)
            .await?;
        gone.sort();
        Ok(gone)
    }
}
