//! What everybody who looks at hosts and groups sees, and what follows from it.

use std::{collections::BTreeSet, sync::Arc};

use pelton_core::{Decision, GroupSeen, HostSeen, LockSeen, MemberSeen, SeatSeen, Session, Survey, Timestamp};
use sqlx::{Row, postgres::PgRow};

use super::{
    connection::Connection,
    groups,
    request::{Change, Fault, ONE_MOMENT, Request, Transaction},
    sql::{self, Sql, Time},
};

/// One string for each name, however many rows hold it.
#[derive(Default)]
pub(super) struct Names(BTreeSet<Arc<str>>);

impl Names {
    pub(super) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// All hosts, members and seats, of one moment.
pub(super) struct Look;

impl Request for Look {
    type Answer = Survey;
    const DOING: &'static str = "looking at hosts";
    const BEGIN: Option<&'static str> = ONE_MOMENT;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Survey, Fault> {
        Ok(of(transaction.sql, transaction.connection).await?)
    }
}

/// The survey, in a transaction that sees one moment.
pub(super) async fn of(sql: &Sql, connection: &mut Connection) -> Result<Survey, sqlx::Error> {
    let mut names = Names::default();
    // Locks are not of the transaction's moment, but of a later one: a host that registers takes its lock before its row
    // shows. One that leaves lets go of it after its row is gone, and may show as free once; a decision on that fails.
    let hosts = sqlx::query(
        sql.text("SELECT host, incarnation, last_heartbeat, expelled, lock FROM @.hosts_seen ORDER BY host"),
    )
    .fetch_all(&mut *connection)
    .await?;
    let (Time(now), Time(since)): (Time, Time) =
        sqlx::query_as(sql.text("SELECT @.now(), greatest(@.server_started(), (SELECT since FROM @.server_token))"))
            .fetch_one(&mut *connection)
            .await?;
    let hosts = hosts.iter().map(|row| host(row, &mut names)).collect::<Result<_, sqlx::Error>>()?;

    let rows: Vec<(String, i64)> = sqlx::query_as(sql.text("SELECT name, generation FROM @.groups ORDER BY name"))
        .fetch_all(&mut *connection)
        .await?;
    let group = |(group, generation): (String, i64)| GroupSeen {
        group,
        generation: sql::uint(generation),
        members: Vec::new(),
        seats: Vec::new(),
    };
    let mut groups: Vec<GroupSeen> = rows.into_iter().map(group).collect();

    let members = sqlx::query(sql.text(
        "SELECT group_name, host, incarnation, session_timeout_ms, partitions_max, expelled
         FROM @.members ORDER BY group_name, host",
    ))
    .fetch_all(&mut *connection)
    .await?;
    for row in &members {
        let member = member(row, &mut names)?;
        if let Some(group) = find(&mut groups, row)? {
            group.members.push(member);
        }
    }
    let seats = sqlx::query(
        sql.text("SELECT group_name, owner, target, previous FROM @.group_partitions ORDER BY group_name, partition"),
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in &seats {
        let mut host =
            |column| Ok::<_, sqlx::Error>(row.try_get::<Option<&str>, _>(column)?.map(|name| names.share(name)));
        let seat = SeatSeen { owner: host("owner")?, target: host("target")?, previous: host("previous")? };
        if let Some(group) = find(&mut groups, row)? {
            group.seats.push(seat);
        }
    }
    Ok(Survey { now, since, hosts, groups })
}

fn find<'a>(groups: &'a mut [GroupSeen], row: &PgRow) -> Result<Option<&'a mut GroupSeen>, sqlx::Error> {
    let name: &str = row.try_get("group_name")?;
    let found = groups.binary_search_by(|group| group.group.as_str().cmp(name)).ok();
    Ok(found.map(|at| &mut groups[at]))
}

fn session(row: &PgRow, names: &mut Names) -> Result<Session, sqlx::Error> {
    let incarnation = sql::uint(row.try_get("incarnation")?);
    Ok(Session { host: names.share(row.try_get("host")?), incarnation })
}

fn host(row: &PgRow, names: &mut Names) -> Result<HostSeen, sqlx::Error> {
    Ok(HostSeen {
        session: session(row, names)?,
        last_heartbeat: sql::time(row, "last_heartbeat")?,
        lock: match row.try_get("lock")? {
            "held" => LockSeen::Held,
            "free" => LockSeen::Free,
            _ => LockSeen::Unknown,
        },
        expelled: row.try_get("expelled")?,
    })
}

fn member(row: &PgRow, names: &mut Names) -> Result<MemberSeen, sqlx::Error> {
    Ok(MemberSeen {
        session: session(row, names)?,
        session_timeout_ms: sql::uint(row.try_get("session_timeout_ms")?),
        partitions_max: u32::try_from(row.try_get::<i64, _>("partitions_max")?).unwrap_or(u32::MAX),
        expelled: row.try_get("expelled")?,
    })
}

/// Notes the present incarnation of the server, if nobody has yet.
pub(super) struct NoteServer;

impl Request for NoteServer {
    type Answer = ();
    const DOING: &'static str = "looking at the server";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let there = transaction.sql.text("SELECT EXISTS (SELECT FROM @.server_token)");
        let there: bool = sqlx::query_scalar(there).fetch_one(&mut *transaction.connection).await?;
        if !there {
            sqlx::query(transaction.sql.text(
                "INSERT INTO @.server_token (one, token, since) VALUES (1, gen_random_uuid(), @.now())
                 ON CONFLICT DO NOTHING",
            ))
            .execute(&mut *transaction.connection)
            .await?;
        }
        Ok(())
    }
}

/// Carries out a decision, if what it was based on still holds.
pub(super) struct Decide<'a>(pub(super) &'a Decision);

impl Request for Decide<'_> {
    type Answer = bool;
    const DOING: &'static str = "reassigning partitions";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<bool, Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let done = match self.0 {
            Decision::Expel { session, group, last_heartbeat, .. } => {
                expel(sql, connection, session, group.as_deref(), *last_heartbeat).await?
            }
            Decision::Assign { group, generation, targets, homes } => {
                assign(sql, connection, group, *generation, targets, homes).await?
            }
        };
        if done {
            *wakes = Some(Change::Membership);
        }
        Ok(done)
    }
}

async fn expel(
    sql: &Sql,
    connection: &mut Connection,
    session: &Session,
    group: Option<&str>,
    last_heartbeat: Timestamp,
) -> Result<bool, sqlx::Error> {
    // Stronger than what heartbeats and acquisitions take: those under way end before, later ones find what is written.
    let stands = sqlx::query(sql.text(
        "SELECT FROM @.hosts WHERE host = $1 AND incarnation = $2 AND NOT expelled AND last_heartbeat = $3 FOR UPDATE",
    ))
    .bind(&*session.host)
    .bind(sql::int(session.incarnation))
    .bind(Time(last_heartbeat))
    .fetch_optional(&mut *connection)
    .await?;
    if stands.is_none() {
        return Ok(false);
    }
    if group.is_none() {
        sqlx::query(sql.text("UPDATE @.hosts SET expelled = true WHERE host = $1"))
            .bind(&*session.host)
            .execute(&mut *connection)
            .await?;
    }
    let groups: Vec<String> = sqlx::query_scalar(sql.text(
        "UPDATE @.members SET expelled = true WHERE host = $1 AND ($2::text IS NULL OR group_name = $2)
         RETURNING group_name",
    ))
    .bind(&*session.host)
    .bind(group)
    .fetch_all(&mut *connection)
    .await?;
    new_generation(sql, connection, &groups).await?;
    groups::free_seats_of(sql, connection, &session.host, group).await?;
    Ok(true)
}

/// The members of these groups changed.
pub(super) async fn new_generation(
    sql: &Sql,
    connection: &mut Connection,
    groups: &[String],
) -> Result<(), sqlx::Error> {
    if groups.is_empty() {
        return Ok(());
    }
    sqlx::query(sql.text(
        "WITH changed AS MATERIALIZED (
             SELECT name FROM @.groups WHERE name = ANY ($1) ORDER BY name FOR NO KEY UPDATE)
         UPDATE @.groups g SET generation = g.generation + 1 FROM changed WHERE g.name = changed.name",
    ))
    .bind(groups)
    .execute(connection)
    .await?;
    Ok(())
}

async fn assign(
    sql: &Sql,
    connection: &mut Connection,
    group: &str,
    generation: u64,
    targets: &[Option<Arc<str>>],
    homes: &[Option<Arc<str>>],
) -> Result<bool, sqlx::Error> {
    let taken =
        sqlx::query(sql.text("UPDATE @.groups SET generation = generation + 1 WHERE name = $1 AND generation = $2"))
            .bind(group)
            .bind(sql::int(generation))
            .execute(&mut *connection)
            .await?;
    if taken.rows_affected() == 0 {
        return Ok(false);
    }
    let [targets, homes] = [targets, homes].map(|names| names.iter().map(Option::as_deref).collect::<Vec<_>>());
    sqlx::query(sql.text(
        "WITH changed AS MATERIALIZED (
             SELECT g.partition, t.target, t.home
             FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS t (target, home, n)
             JOIN @.group_partitions g ON g.group_name = $1 AND g.partition = t.n - 1
             WHERE (g.target, g.previous) IS DISTINCT FROM (t.target, t.home)
             ORDER BY g.partition FOR NO KEY UPDATE OF g)
         UPDATE @.group_partitions g SET target = changed.target, previous = changed.home
         FROM changed WHERE g.group_name = $1 AND g.partition = changed.partition",
    ))
    .bind(group)
    .bind(targets)
    .bind(homes)
    .execute(&mut *connection)
    .await?;
    Ok(true)
}
