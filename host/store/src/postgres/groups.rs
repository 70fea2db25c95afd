//! Groups: where they stand, who holds their partitions, and what is asked of them from outside.

use pelton_core::{Acquired, Claim, Hold, Lease, Offset, Session, Survey, Timestamp};
use sqlx::{Row, postgres::PgRow};

use super::{
    connection::Connection,
    letters::{self, Waiting},
    request::{Change, Fault, ONE_MOMENT, Request, Transaction},
    sql::{self, Sql, Time},
    survey,
};
use crate::{ConsumerInfo, GroupInfo, GroupPartition, GroupSpec, Progress, Start, StoreError, rules};

/// Creates a group with a position in every partition, or checks that it reads the declared stream.
pub(super) struct Declare<'a>(pub(super) &'a GroupSpec);

impl Request for Declare<'_> {
    type Answer = ();
    const DOING: &'static str = "declaring a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let spec = self.0;
        let stream: bool = sqlx::query_scalar(sql.text("SELECT EXISTS (SELECT FROM @.streams WHERE name = $1)"))
            .bind(&spec.stream)
            .fetch_one(&mut **connection)
            .await?;
        if !stream {
            return Err(sql::unknown_stream(sql, connection, &spec.stream).await?.into());
        }
        let found = sql.text("SELECT stream, handler FROM @.groups WHERE name = $1");
        let mut found: Option<(String, String)> =
            sqlx::query_as(found).bind(&spec.name).fetch_optional(&mut **connection).await?;
        if found.is_none() {
            if create(sql, connection, spec).await? {
                *wakes = Some(Change::Membership);
                return Ok(());
            }
            // Somebody was faster.
            let again = sql.text("SELECT stream, handler FROM @.groups WHERE name = $1 FOR SHARE");
            found = sqlx::query_as(again).bind(&spec.name).fetch_optional(&mut **connection).await?;
        }
        match found {
            Some((found, _)) if found != spec.stream => {
                let (group, declared) = (spec.name.clone(), spec.stream.clone());
                Err(StoreError::StreamDiffers { group, declared, found }.into())
            }
            Some((_, handler)) if handler != spec.handler => {
                sqlx::query(sql.text("UPDATE @.groups SET handler = $2 WHERE name = $1"))
                    .bind(&spec.name)
                    .bind(&spec.handler)
                    .execute(&mut **connection)
                    .await?;
                Ok(())
            }
            Some(_) => Ok(()),
            None => Err(sqlx::Error::RowNotFound.into()),
        }
    }
}

/// Holds a stream until the transaction ends: its first events stay.
pub(super) async fn hold_stream(sql: &Sql, connection: &mut Connection, stream: &str) -> Result<(), sqlx::Error> {
    let hold = sqlx::query(sql.text("SELECT FROM @.streams WHERE name = $1 FOR SHARE"));
    hold.bind(stream).execute(connection).await?;
    Ok(())
}

/// False if the group is there already.
async fn create(sql: &Sql, connection: &mut Connection, spec: &GroupSpec) -> Result<bool, sqlx::Error> {
    let created = sqlx::query(
        sql.text("INSERT INTO @.groups (name, stream, handler) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"),
    )
    .bind(&spec.name)
    .bind(&spec.stream)
    .bind(&spec.handler)
    .execute(&mut *connection)
    .await?;
    if created.rows_affected() == 0 {
        return Ok(false);
    }
    hold_stream(sql, connection, &spec.stream).await?;
    // A host of schema 2 that deleted a group of this name knew nothing of these.
    sqlx::query(sql.text("DELETE FROM @.remembered WHERE group_name = $1"))
        .bind(&spec.name)
        .execute(&mut *connection)
        .await?;
    let since = match spec.start {
        Start::At(time) => Some(Time(time)),
        Start::Earliest | Start::Latest => None,
    };
    // A time is looked for from the first event on: clocks step back, so times are not sorted and there is no index to
    // trust. It is done once in a group's life.
    sqlx::query(sql.text(
        r#"INSERT INTO @.group_partitions (group_name, partition, partition_id, committed, position)
           SELECT $1, partition, id, start, start FROM (
               SELECT partition, id, CASE
                   WHEN $3 THEN first_offset
                   WHEN $4::timestamptz IS NULL THEN next_offset
                   ELSE coalesce((SELECT e."offset" FROM @.events e WHERE e.partition_id = p.id AND e.time >= $4
                                  ORDER BY e."offset" LIMIT 1), next_offset)
               END AS start
               FROM @.stream_partitions p WHERE stream = $2) starts"#,
    ))
    .bind(&spec.name)
    .bind(&spec.stream)
    .bind(spec.start == Start::Earliest)
    .bind(since)
    .execute(&mut *connection)
    .await?;
    Ok(true)
}

/// Takes a partition.
pub(super) struct Acquire<'a> {
    pub(super) group: &'a str,
    pub(super) partition: u32,
    pub(super) session: &'a Session,
}

impl Request for Acquire<'_> {
    type Answer = Acquired;
    const DOING: &'static str = "acquiring a partition";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Acquired, Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        // The host's row is locked before the seat is looked at: whoever expels the host locks it too, so that an
        // acquisition comes whole before an expulsion, which frees the seat again, or finds the registration over.
        let row = sqlx::query(sql.text(concat!(
            "WITH h AS MATERIALIZED (
                 SELECT h.host FROM @.hosts h JOIN @.members m ON m.host = h.host AND m.group_name = $1
                 WHERE h.host = $3 AND h.incarnation = $4 AND NOT h.expelled AND NOT m.expelled
                 FOR KEY SHARE OF h FOR SHARE OF m)
             UPDATE @.group_partitions g SET epoch = g.epoch + 1, sequence = 0, owner = h.host, position = g.committed
             FROM h
             WHERE g.group_name = $1 AND g.partition = $2 AND g.target = h.host AND (g.owner IS NULL OR g.owner = h.host)
             RETURNING g.epoch, g.failed_by, g.paused, g.resumes, g.requests, g.given_up_in_row, g.letters,
                 (SELECT p.next_offset FROM @.stream_partitions p WHERE p.id = g.partition_id) AS head,
                 @.handled_by(g.group_name, g.partition), ",
            sql::mark_columns!(),
        )))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .bind(&*self.session.host)
        .bind(sql::int(self.session.incarnation))
        .fetch_optional(&mut **connection)
        .await?;
        if let Some(row) = row {
            *wakes = Some(Change::Membership);
            let mut claim = claim(&row)?;
            if claim.letters > 0 {
                // Nobody changes any of it now: the row is locked.
                let Waiting { requested, parked } =
                    letters::waiting(sql, connection, self.group, self.partition).await?;
                (claim.letters_requested, claim.parked) = (requested, parked);
            }
            return Ok(Acquired::Claimed(claim));
        }
        check_partition(sql, connection, self.group, Some(self.partition)).await?;
        Ok(Acquired::NotYet)
    }
}

/// Without what is known of dead letters besides their number.
fn claim(row: &PgRow) -> Result<Claim, sqlx::Error> {
    Ok(Claim {
        epoch: sql::epoch(row)?,
        committed: sql::offset(row, "committed")?,
        head: sql::offset(row, "head")?,
        mark: sql::mark(row)?,
        failed_by: row.try_get("failed_by")?,
        control: sql::control(row)?,
        given_up_in_row: sql::count(row, "given_up_in_row")?,
        letters: sql::uint(row.try_get("letters")?),
        letters_requested: false,
        parked: Vec::new(),
        handled_by: row.try_get("handled_by")?,
    })
}

/// Gives a partition back.
pub(super) struct Release<'a>(pub(super) &'a Lease);

impl Request for Release<'_> {
    type Answer = ();
    const DOING: &'static str = "releasing a partition";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let released = sqlx::query(transaction.sql.text(
            "UPDATE @.group_partitions SET owner = NULL, position = committed
             WHERE group_name = $1 AND partition = $2 AND owner = $3 AND epoch = $4",
        ))
        .bind(&*self.0.group)
        .bind(sql::partition(self.0.partition))
        .bind(&*self.0.host)
        .bind(sql::int(self.0.epoch.0))
        .execute(&mut *transaction.connection)
        .await?;
        if released.rows_affected() > 0 {
            transaction.wakes = Some(Change::Membership);
        }
        Ok(())
    }
}

/// Frees all that a host holds, in one group or all. Rows are locked in the order of commits.
pub(super) async fn free_seats_of(
    sql: &Sql,
    connection: &mut Connection,
    host: &str,
    group: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(sql.text(
        "WITH held AS MATERIALIZED (
             SELECT group_name, partition FROM @.group_partitions
             WHERE owner = $1 AND ($2::text IS NULL OR group_name = $2)
             ORDER BY group_name, partition FOR NO KEY UPDATE)
         UPDATE @.group_partitions g SET owner = NULL, position = g.committed
         FROM held WHERE g.group_name = held.group_name AND g.partition = held.partition AND g.owner = $1",
    ))
    .bind(host)
    .bind(group)
    .execute(connection)
    .await?;
    Ok(())
}

/// Pauses a partition or all of them, or lets them go on.
pub(super) struct Pause<'a> {
    pub(super) group: &'a str,
    pub(super) partition: Option<u32>,
    pub(super) paused: bool,
}

impl Request for Pause<'_> {
    type Answer = ();
    const DOING: &'static str = "pausing a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        lock_partitions(sql, connection, self.group, self.partition).await?;
        sqlx::query(sql.text(
            "UPDATE @.group_partitions SET paused = $3 WHERE group_name = $1 AND partition = coalesce($2, partition)",
        ))
        .bind(self.group)
        .bind(self.partition.map(sql::partition))
        .bind(self.paused)
        .execute(&mut **connection)
        .await?;
        *wakes = Some(Change::Events);
        Ok(())
    }
}

/// Ends a pause and a stop.
pub(super) struct Resume<'a> {
    pub(super) group: &'a str,
    pub(super) partition: Option<u32>,
}

impl Request for Resume<'_> {
    type Answer = ();
    const DOING: &'static str = "resuming a group";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        lock_partitions(sql, connection, self.group, self.partition).await?;
        sqlx::query(sql.text(concat!(
            "UPDATE @.group_partitions SET paused = false, resumes = resumes + 1, ",
            sql::unmarked!(),
            " WHERE group_name = $1 AND partition = coalesce($2, partition)",
        )))
        .bind(self.group)
        .bind(self.partition.map(sql::partition))
        .execute(&mut **connection)
        .await?;
        *wakes = Some(Change::Events);
        Ok(())
    }
}

/// Refuses a group or a partition that is not there, and locks the rows in the order of commits.
pub(super) async fn lock_partitions(
    sql: &Sql,
    connection: &mut Connection,
    group: &str,
    partition: Option<u32>,
) -> Result<(), Fault> {
    check_partition(sql, connection, group, partition).await?;
    sqlx::query(sql.text(
        "SELECT FROM @.group_partitions WHERE group_name = $1 AND partition = coalesce($2, partition)
         ORDER BY partition FOR NO KEY UPDATE",
    ))
    .bind(group)
    .bind(partition.map(sql::partition))
    .execute(connection)
    .await?;
    Ok(())
}

/// Refuses a group or a partition that is not there.
pub(super) async fn check_partition(
    sql: &Sql,
    connection: &mut Connection,
    group: &str,
    partition: Option<u32>,
) -> Result<(), Fault> {
    let count = sql.text("SELECT count(*) FROM @.group_partitions WHERE group_name = $1");
    let partitions: i64 = sqlx::query_scalar(count).bind(group).fetch_one(&mut *connection).await?;
    let partitions = u32::try_from(partitions).unwrap_or_default();
    match partition {
        _ if partitions == 0 => Err(sql::unknown_group(sql, connection, group).await?.into()),
        Some(partition) if partition >= partitions => {
            Err(rules::unknown_group_partition(group, partition, partitions).into())
        }
        _ => Ok(()),
    }
}

/// A value of a group's state in a partition.
pub(super) struct State<'a> {
    pub(super) group: &'a str,
    pub(super) partition: u32,
    pub(super) key: &'a str,
}

impl Request for State<'_> {
    type Answer = Option<Vec<u8>>;
    const DOING: &'static str = "reading state";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Option<Vec<u8>>, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        let found: Option<(i32, Option<Vec<u8>>)> = sqlx::query_as(sql.text(
            "SELECT s.partitions, v.value FROM @.groups g JOIN @.streams s ON s.name = g.stream
             LEFT JOIN @.state v ON v.group_name = g.name AND v.partition = $2 AND v.key = $3 WHERE g.name = $1",
        ))
        .bind(self.group)
        .bind(sql::partition(self.partition))
        .bind(self.key)
        .fetch_optional(&mut **connection)
        .await?;
        let Some((partitions, value)) = found else {
            return Err(sql::unknown_group(sql, connection, self.group).await?.into());
        };
        let partitions = u32::try_from(partitions).unwrap_or_default();
        if self.partition >= partitions {
            return Err(rules::unknown_group_partition(self.group, self.partition, partitions).into());
        }
        Ok(value)
    }
}

/// All groups, by name.
pub(super) struct List;

impl Request for List {
    type Answer = Vec<GroupInfo>;
    const DOING: &'static str = "listing groups";
    const BEGIN: Option<&'static str> = ONE_MOMENT;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<GroupInfo>, Fault> {
        let Transaction { connection, sql, .. } = transaction;
        let survey = survey::of(sql, connection).await?;
        // Every column by its name: a statement that is prepared fails when a later migration adds one to a `*`.
        let rows = sqlx::query(sql.text(concat!(
            "SELECT n.name, n.stream, n.handler, g.partition, g.position, g.owner, g.epoch, g.paused, g.resumes, g.requests,
                 g.committed_at, g.letters, g.skipped, g.given_up_in_row, p.next_offset AS head, ",
            sql::mark_columns!(),
            " FROM @.groups n JOIN @.group_partitions g ON g.group_name = n.name
             JOIN @.stream_partitions p ON p.id = g.partition_id ORDER BY n.name, g.partition",
        )))
        .fetch_all(&mut **connection)
        .await?;
        let mut groups: Vec<GroupInfo> = Vec::new();
        for row in rows {
            let name: &str = row.try_get("name")?;
            if groups.last().is_none_or(|group| group.name != name) {
                let (stream, handler) = (row.try_get("stream")?, row.try_get("handler")?);
                let (name, partitions, consumers) = (name.to_owned(), Vec::new(), Vec::new());
                groups.push(GroupInfo { name, stream, handler, partitions, consumers });
            }
            if let Some(group) = groups.last_mut() {
                group.partitions.push(place(&row)?);
            }
        }
        let joined: Vec<(String, String, Time)> =
            sqlx::query_as(sql.text("SELECT group_name, host, registered_at FROM @.members ORDER BY group_name, host"))
                .fetch_all(&mut **connection)
                .await?;
        for (name, host, Time(registered_at)) in joined {
            if let Ok(at) = groups.binary_search_by(|info| info.name.cmp(&name)) {
                groups[at].consumers.extend(consumer(&survey, &name, host, registered_at));
            }
        }
        Ok(groups)
    }
}

fn consumer(survey: &Survey, group: &str, host: String, registered_at: Timestamp) -> Option<ConsumerInfo> {
    let group = survey.groups.iter().find(|seen| seen.group == group)?;
    let at = group.members.binary_search_by(|seen| (*seen.session.host).cmp(&*host)).ok()?;
    let member = &group.members[at];
    let known = survey.hosts.binary_search_by(|seen| (*seen.session.host).cmp(&*host));
    Some(ConsumerInfo {
        registered_at,
        last_heartbeat: known.map_or(registered_at, |at| survey.hosts[at].last_heartbeat),
        session_timeout_ms: member.session_timeout_ms,
        active: survey.shows_active_member(member),
        host,
    })
}

fn place(row: &PgRow) -> Result<GroupPartition, sqlx::Error> {
    let committed_at: Option<Time> = row.try_get("committed_at")?;
    Ok(GroupPartition {
        partition: sql::number(row, "partition")?,
        committed: sql::offset(row, "committed")?,
        position: sql::offset(row, "position")?,
        head: sql::offset(row, "head")?,
        owner: row.try_get("owner")?,
        epoch: sql::epoch(row)?,
        mark: sql::mark(row)?,
        control: sql::control(row)?,
        committed_at: committed_at.map(|Time(time)| time),
        letters: sql::uint(row.try_get("letters")?),
        skipped: sql::uint(row.try_get("skipped")?),
        given_up_in_row: sql::count(row, "given_up_in_row")?,
    })
}

/// Where all partitions of all groups stand.
pub(super) struct Standing;

impl Request for Standing {
    type Answer = Vec<Progress>;
    const DOING: &'static str = "reading progress";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<Progress>, Fault> {
        let rows = sqlx::query(transaction.sql.text(
            "SELECT g.group_name, g.partition, g.committed, g.epoch, g.owner, g.target, g.stopped, g.failed_by, g.paused,
                 g.resumes, g.requests, p.next_offset AS head,
                 CASE WHEN g.next_attempt IS NOT NULL AND NOT g.stopped THEN g.held END AS held
             FROM @.group_partitions g JOIN @.stream_partitions p ON p.id = g.partition_id
             ORDER BY g.group_name, g.partition",
        ))
        .fetch_all(&mut *transaction.connection)
        .await?;
        let mut names = survey::Names::default();
        Ok(rows.iter().map(|row| standing(row, &mut names)).collect::<Result<_, sqlx::Error>>()?)
    }
}

fn standing(row: &PgRow, names: &mut survey::Names) -> Result<Progress, sqlx::Error> {
    let mut host = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<&str>, _>(column)?.map(|name| names.share(name)));
    Ok(Progress {
        owner: host("owner")?,
        target: host("target")?,
        group: row.try_get("group_name")?,
        partition: sql::number(row, "partition")?,
        committed: sql::offset(row, "committed")?,
        head: sql::offset(row, "head")?,
        epoch: sql::epoch(row)?,
        stopped: row.try_get("stopped")?,
        held: row.try_get::<Option<&str>, _>("held")?.and_then(Hold::parse),
        failed_by: row.try_get("failed_by")?,
        control: sql::control(row)?,
    })
}

/// The first offset of a partition whose event was appended at a time or later.
pub(super) struct OffsetAt {
    pub(super) partition_id: i64,
    pub(super) time: Timestamp,
}

impl Request for OffsetAt {
    type Answer = Offset;
    const DOING: &'static str = "looking for a time";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Offset, Fault> {
        let found: i64 = sqlx::query_scalar(transaction.sql.text(
            r#"SELECT coalesce((SELECT e."offset" FROM @.events e WHERE e.partition_id = p.id AND e.time >= $2
                                ORDER BY e."offset" LIMIT 1), p.next_offset)
               FROM @.stream_partitions p WHERE p.id = $1"#,
        ))
        .bind(self.partition_id)
        .bind(Time(self.time))
        .fetch_one(&mut *transaction.connection)
        .await?;
        Ok(Offset(sql::uint(found)))
    }
}
