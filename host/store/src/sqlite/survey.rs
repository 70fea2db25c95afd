//! The look at all hosts, members and seats: several times a second, so in three plain reads of one moment.

use std::{collections::BTreeSet, sync::Arc};

use pelton_core::{GroupSeen, HostSeen, MemberSeen, SeatSeen, Session, Survey, Timestamp};
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::{host_locks::HostLocks, sql};
use crate::StoreError;

/// All hosts, members and seats.
pub(super) async fn read(reads: &SqlitePool, locks: &HostLocks, now: Timestamp) -> Result<Survey, StoreError> {
    let survey = async {
        let mut transaction = reads.begin().await?;
        let survey = take(&mut transaction, locks, now).await?;
        transaction.rollback().await?;
        Ok(survey)
    };
    survey.await.map_err(|error| sql::unavailable("looking at hosts and members", &error))
}

/// The same within a transaction.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    locks: &HostLocks,
    now: Timestamp,
) -> Result<Survey, sqlx::Error> {
    let mut names = Names::default();
    let mut hosts = Vec::new();
    let rows = sqlx::query("SELECT host, incarnation, last_heartbeat, expelled FROM hosts ORDER BY host")
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let host: &str = row.try_get(0)?;
        let session = Session { host: names.of(host), incarnation: sql::uint(row.try_get(1)?) };
        // The lock is taken before the row is written, so whoever is in the table was seen with it.
        let lock = locks.look(host);
        hosts.push(HostSeen {
            session,
            last_heartbeat: sql::time(&row, "last_heartbeat")?,
            lock,
            expelled: row.try_get(3)?,
        });
    }

    let mut groups: Vec<GroupSeen> = Vec::new();
    let rows = sqlx::query(
        "SELECT g.name, g.generation, p.owner, p.target, p.previous
         FROM groups g JOIN group_partitions p ON p.group_name = g.name ORDER BY g.name, p.partition",
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let group: &str = row.try_get(0)?;
        if groups.last().is_none_or(|seen| seen.group != group) {
            let generation = sql::uint(row.try_get(1)?);
            groups.push(GroupSeen { group: group.into(), generation, members: Vec::new(), seats: Vec::new() });
        }
        let seat = SeatSeen {
            owner: row.try_get::<Option<&str>, _>(2)?.map(|name| names.of(name)),
            target: row.try_get::<Option<&str>, _>(3)?.map(|name| names.of(name)),
            previous: row.try_get::<Option<&str>, _>(4)?.map(|name| names.of(name)),
        };
        if let Some(seen) = groups.last_mut() {
            seen.seats.push(seat);
        }
    }

    let rows = sqlx::query(
        "SELECT m.group_name, m.host, h.incarnation, m.session_timeout_ms, m.partitions_max, m.expelled
         FROM members m JOIN hosts h ON h.host = m.host ORDER BY m.group_name, m.host",
    )
    .fetch_all(connection)
    .await?;
    let mut at = 0;
    for row in rows {
        let group: &str = row.try_get(0)?;
        while groups.get(at).is_some_and(|seen| seen.group != group) {
            at += 1;
        }
        let Some(seen) = groups.get_mut(at) else { break };
        seen.members.push(MemberSeen {
            session: Session { host: names.of(row.try_get(1)?), incarnation: sql::uint(row.try_get(2)?) },
            session_timeout_ms: sql::uint(row.try_get(3)?),
            partitions_max: sql::number(&row, "partitions_max")?,
            expelled: row.try_get(5)?,
        });
    }
    // A file has no server that was started: whoever could be heard of was.
    Ok(Survey { now, since: Timestamp(0), hosts, groups })
}

/// Few names stand in many rows; each is kept once.
#[derive(Default)]
struct Names(BTreeSet<Arc<str>>);

impl Names {
    fn of(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}
