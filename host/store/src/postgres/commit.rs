//! Commits: the position and all that goes with it.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use pelton_core::{Commit, CommitOutcome, Effects, Epoch, Mark, NewEvent, Offset};
use sqlx::{Postgres, Row, postgres::PgArguments, postgres::PgRow, query::Query};

use super::{
    append::{Arrays, Rows},
    connection::Connection,
    lane::Kind,
    request::Change,
    set_aside::Letters,
    sql::{self, Sql, Time, Verdict},
    streams::{Known, Streams},
    versions::Ranges,
    wake::Wake,
};
use crate::{Durability, StoreError, rules, rules::Fence};

/// What commits share.
pub(super) struct Commits {
    pub(super) sql: Arc<Sql>,
    pub(super) streams: Arc<Streams>,
    pub(super) wake: Arc<Wake>,
    pub(super) durability: Durability,
}

impl Kind for Commits {
    type Work = Arc<Commit>;
    type Answer = CommitOutcome;
    const DOING: &'static str = "committing a position";

    fn bytes(commit: &Arc<Commit>) -> usize {
        commit.bytes()
    }

    fn seat(commit: &Arc<Commit>) -> Option<(Arc<str>, u32)> {
        Some((Arc::clone(&commit.lease.group), commit.lease.partition))
    }

    fn forget(&self) {
        self.streams.forget();
    }

    fn refused(error: &sqlx::Error) -> Result<CommitOutcome, StoreError> {
        Ok(CommitOutcome::Refused(error.to_string()))
    }

    async fn run(
        &self,
        connection: &mut Connection,
        commits: &[&Arc<Commit>],
    ) -> Result<Vec<Result<CommitOutcome, StoreError>>, sqlx::Error> {
        connection.begin_alone().await?;
        let mut streams = BTreeMap::new();
        for emit in commits.iter().flat_map(|commit| &commit.effects.emits) {
            if !streams.contains_key(&*emit.stream) {
                streams.insert(&*emit.stream, self.streams.find(&self.sql, connection, &emit.stream).await?);
            }
        }
        let relaxed = self.durability == Durability::Relaxed && commits.iter().all(|commit| commit.only_moves());
        let mut merge = Merge::of(commits, &streams, relaxed);
        let left_out = if merge.takes_steps() {
            connection.commit_alone().await?;
            merge.step_by_step(&self.sql, connection, &streams).await?
        } else if !merge.emits() {
            merge.move_positions(&self.sql, connection).await?
        } else {
            match merge.all_at_once(&self.sql, connection, &streams).await {
                Ok(()) => Vec::new(),
                Err(error) if sql::verdict(&error) == Verdict::NotAllPassed => {
                    connection.rollback_if_begun().await?;
                    merge.step_by_step(&self.sql, connection, &streams).await?
                }
                Err(error) => return Err(error),
            }
        };
        connection.commit_alone().await?;
        if merge.emits() {
            self.wake.changed(Some(Change::Events));
        }
        Ok(merge.answers(&left_out))
    }
}

/// Streams that are emitted to; `None` for those that do not exist.
type Emitted<'a> = BTreeMap<&'a str, Option<Arc<Known>>>;

/// Why effects cannot be stored, as far as that shows before anything is written.
fn refusal(effects: &Effects, streams: &Emitted<'_>) -> Option<String> {
    effects.emits.iter().find_map(|emit| match streams.get(&*emit.stream).and_then(Option::as_ref) {
        None => Some(rules::refuse_emit_stream(&emit.stream)),
        Some(known) => rules::refuse_emit(&emit.event, &emit.stream, known.payload_bytes_max()),
    })
}

/// What the store held of a commit that was not stored.
struct Found {
    /// In the merge, from 1.
    n: usize,
    owner: Option<String>,
    epoch: Epoch,
    sequence: u64,
    committed: Offset,
    head: Offset,
}

/// Commits that go together, by group and partition.
struct Merge<'a> {
    commits: Vec<&'a Commit>,
    /// Where each of them stands in the order given.
    order: Vec<usize>,
    refusals: Vec<Option<String>>,
    relaxed: bool,
    state_of: Vec<i32>,
    state_keys: Vec<&'a str>,
    state_values: Vec<Option<&'a [u8]>>,
    id_of: Vec<i32>,
    id_offsets: Vec<i64>,
    ids: Vec<&'a str>,
}

impl<'a> Merge<'a> {
    fn of(commits: &[&'a Arc<Commit>], streams: &Emitted<'_>, relaxed: bool) -> Self {
        let mut order: Vec<usize> = (0..commits.len()).collect();
        order.sort_by_key(|&index| (&*commits[index].lease.group, commits[index].lease.partition));
        let commits: Vec<&Commit> = order.iter().map(|&index| &**commits[index]).collect();
        let refusals = commits.iter().map(|commit| refusal(&commit.effects, streams)).collect();
        let mut merge = Self {
            order,
            refusals,
            relaxed,
            state_of: Vec::new(),
            state_keys: Vec::new(),
            state_values: Vec::new(),
            id_of: Vec::new(),
            id_offsets: Vec::new(),
            ids: Vec::new(),
            commits,
        };
        for (n, commit) in (1..).zip(&merge.commits) {
            for (key, value) in &commit.effects.state {
                merge.state_of.push(n);
                merge.state_keys.push(key);
                merge.state_values.push(value.as_deref());
            }
            for (offset, id) in &commit.remembered {
                merge.id_of.push(n);
                merge.id_offsets.push(sql::int(offset.0));
                merge.ids.push(id);
            }
        }
        merge
    }

    fn emits(&self) -> bool {
        self.commits.iter().any(|commit| !commit.effects.emits.is_empty())
    }

    /// Whether something follows the move of the positions that is no part of its statement, as is rare.
    fn takes_steps(&self) -> bool {
        self.commits.iter().any(|commit| Letters::are_in(commit) || Ranges::are_in(commit))
    }

    /// Moves positions and stores state and remembered ids, in one statement; says which were left out.
    async fn move_positions(&self, sql: &Sql, connection: &mut Connection) -> Result<Vec<Found>, sqlx::Error> {
        let columns = Columns::of(self);
        let query = sqlx::query(sql.text(
            "SELECT n, owner, epoch, sequence, committed, head FROM @.store_commits($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                 $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30)",
        ));
        let rows = columns.bind(self, false, query).fetch_all(connection).await?;
        rows.iter().map(found).collect()
    }

    /// Everything in one statement, if every commit passes its fence.
    async fn all_at_once(
        &self,
        sql: &Sql,
        connection: &mut Connection,
        streams: &Emitted<'a>,
    ) -> Result<(), sqlx::Error> {
        let rows = self.rows(streams, &[]);
        let (columns, arrays) = (Columns::of(self), Arrays::of(&rows)?);
        let query = sqlx::query(sql.text(
            "SELECT @.store_commits_and_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38,
                 $39, $40, $41, $42)",
        ));
        arrays.bind(columns.bind(self, true, query)).execute(connection).await?;
        Ok(())
    }

    /// First the positions; then the dead letters, which versions took over, and the emits, of those that passed.
    async fn step_by_step(
        &self,
        sql: &Sql,
        connection: &mut Connection,
        streams: &Emitted<'a>,
    ) -> Result<Vec<Found>, sqlx::Error> {
        connection.begin("BEGIN").await?;
        let left_out = self.move_positions(sql, connection).await?;
        Letters::of(self.passed(&left_out))?.store(sql, connection).await?;
        Ranges::of(self.passed(&left_out)).store(sql, connection).await?;
        let rows = self.rows(streams, &left_out);
        if rows.len() > 0 {
            rows.append(sql, connection).await?;
        }
        connection.commit().await?;
        Ok(left_out)
    }

    /// Those that were not left out.
    fn passed(&self, left_out: &[Found]) -> impl Iterator<Item = &'a Commit> {
        let stored = |n: &usize| self.refusals[n - 1].is_none() && !left_out.iter().any(|found| found.n == *n);
        (1..=self.commits.len()).filter(stored).map(|n| self.commits[n - 1])
    }

    /// What is emitted, without that of those who were left out.
    fn rows(&self, streams: &Emitted<'a>, left_out: &[Found]) -> Rows<'a> {
        let mut rows = Rows::default();
        for commit in self.passed(left_out) {
            let mut by_stream: BTreeMap<&str, Vec<&NewEvent>> = BTreeMap::new();
            for emit in &commit.effects.emits {
                by_stream.entry(&emit.stream).or_default().push(&emit.event);
            }
            for (stream, events) in by_stream {
                if let Some(Some(known)) = streams.get(stream) {
                    rows.add(stream, known, events.into_iter());
                }
            }
        }
        rows
    }

    /// The answers, in the order given.
    fn answers(&mut self, left_out: &[Found]) -> Vec<Result<CommitOutcome, StoreError>> {
        let mut answers: Vec<_> = self.commits.iter().map(|_| Ok(CommitOutcome::Committed)).collect();
        for found in left_out {
            let Some(at) = found.n.checked_sub(1).filter(|at| *at < self.order.len()) else { continue };
            answers[self.order[at]] = why_not(self.commits[at], found, self.refusals[at].take());
        }
        answers
    }
}

/// What became of a commit that moved nothing.
fn why_not(commit: &Commit, found: &Found, refusal: Option<String>) -> Result<CommitOutcome, StoreError> {
    match rules::fence(commit, found.owner.as_deref(), found.epoch, found.sequence, found.committed) {
        Fence::Fenced => Ok(CommitOutcome::Fenced),
        Fence::Repeated => Ok(CommitOutcome::Committed),
        Fence::Passes => match rules::refuse_move(commit, found.head).or(refusal) {
            Some(refusal) => Ok(CommitOutcome::Refused(refusal)),
            // It would pass now.
            None => Err(StoreError::Unavailable {
                doing: Commits::DOING,
                reason: "the partition was changed at the same time".into(),
            }),
        },
    }
}

fn found(row: &PgRow) -> Result<Found, sqlx::Error> {
    Ok(Found {
        n: usize::try_from(row.try_get::<i32, _>(0)?).unwrap_or_default(),
        owner: row.try_get(1)?,
        epoch: Epoch(sql::uint(row.try_get(2)?)),
        sequence: sql::uint(row.try_get(3)?),
        committed: Offset(sql::uint(row.try_get(4)?)),
        head: Offset(sql::uint(row.try_get(5)?)),
    })
}

/// The arguments of `store_commits`, but for the state and the ids.
#[derive(Default)]
struct Columns<'a> {
    looks: Vec<bool>,
    groups: Vec<&'a str>,
    partitions: Vec<i32>,
    hosts: Vec<&'a str>,
    epochs: Vec<i64>,
    sequences: Vec<i64>,
    froms: Vec<i64>,
    tos: Vec<i64>,
    positions: Vec<i64>,
    counts: Counts,
    marks: Marks<'a>,
}

impl<'a> Columns<'a> {
    fn of(merge: &Merge<'a>) -> Self {
        let mut columns = Self { counts: Counts::of(merge), marks: Marks::of(merge), ..Self::default() };
        for (commit, refusal) in merge.commits.iter().zip(&merge.refusals) {
            columns.looks.push(refusal.is_some() || commit.to < commit.from);
            columns.groups.push(&commit.lease.group);
            columns.partitions.push(sql::partition(commit.lease.partition));
            columns.hosts.push(&commit.lease.host);
            columns.epochs.push(sql::int(commit.lease.epoch.0));
            columns.sequences.push(sql::int(commit.sequence));
            columns.froms.push(sql::int(commit.from.0));
            columns.tos.push(sql::int(commit.to.0));
            columns.positions.push(sql::int(commit.position.0));
        }
        columns
    }

    fn bind<'q>(
        &'q self,
        merge: &'q Merge<'_>,
        all_or_nothing: bool,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        let query = query
            .bind(merge.relaxed)
            .bind(all_or_nothing)
            .bind(&self.looks)
            .bind(&self.groups)
            .bind(&self.partitions)
            .bind(&self.hosts)
            .bind(&self.epochs)
            .bind(&self.sequences)
            .bind(&self.froms)
            .bind(&self.tos)
            .bind(&self.positions);
        self.marks
            .bind(self.counts.bind(query))
            .bind(&merge.state_of)
            .bind(&merge.state_keys)
            .bind(&merge.state_values)
            .bind(&merge.id_of)
            .bind(&merge.id_offsets)
            .bind(&merge.ids)
    }
}

/// How much was given up. Empty if nothing was, as nearly always.
#[derive(Default)]
struct Counts {
    given_ups: Vec<i64>,
    skips: Vec<i64>,
}

impl Counts {
    fn of(merge: &Merge<'_>) -> Self {
        if merge.commits.iter().all(|commit| commit.given_up_in_row == 0 && commit.skipped == 0) {
            return Self::default();
        }
        let counts = merge.commits.iter().map(|commit| (i64::from(commit.given_up_in_row), i64::from(commit.skipped)));
        let (given_ups, skips) = counts.unzip();
        Self { given_ups, skips }
    }

    fn bind<'q>(&'q self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query.bind(&self.given_ups).bind(&self.skips)
    }
}

/// What is to be stored of failures. Empty if all marks are to be clear, as they nearly always are.
#[derive(Default)]
struct Marks<'a> {
    keeps: Vec<bool>,
    attempts: Vec<i64>,
    nexts: Vec<Option<Time>>,
    stops: Vec<bool>,
    reasons: Vec<Option<Cow<'a, str>>>,
    failed_bys: Vec<Option<Cow<'a, str>>>,
    failed_ats: Vec<Option<i64>>,
    classes: Vec<Option<&'a str>>,
    firsts: Vec<Option<Time>>,
    lasts: Vec<Option<Time>>,
    helds: Vec<Option<&'a str>>,
}

impl<'a> Marks<'a> {
    fn of(merge: &Merge<'a>) -> Self {
        let mut marks = Self::default();
        if merge.commits.iter().any(|commit| commit.mark != Some(Mark::Clear) || commit.failed_by.is_some()) {
            merge.commits.iter().for_each(|commit| marks.add(commit));
        }
        marks
    }

    fn add(&mut self, commit: &'a Commit) {
        let mark = commit.mark.as_ref().unwrap_or(&Mark::Clear);
        let (at, failure) = mark.failed().unzip();
        self.keeps.push(commit.mark.is_none());
        self.attempts.push(i64::from(mark.attempts()));
        self.nexts.push(mark.next_attempt().map(Time));
        self.stops.push(matches!(mark, Mark::Stop { .. }));
        self.reasons.push(failure.map(|failure| sql::storable(&failure.reason)));
        self.failed_bys.push(commit.failed_by.as_deref().map(sql::storable));
        self.failed_ats.push(at.map(|at| sql::int(at.0)));
        self.classes.push(failure.map(|failure| failure.class.as_str()));
        self.firsts.push(failure.map(|failure| Time(failure.first)));
        self.lasts.push(failure.map(|failure| Time(failure.last)));
        self.helds.push(if let Mark::Hold { why, .. } = mark { Some(why.as_str()) } else { None });
    }

    fn bind<'q>(&'q self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(&self.keeps)
            .bind(&self.attempts)
            .bind(&self.nexts)
            .bind(&self.stops)
            .bind(&self.reasons)
            .bind(&self.failed_bys)
            .bind(&self.failed_ats)
            .bind(&self.classes)
            .bind(&self.firsts)
            .bind(&self.lasts)
            .bind(&self.helds)
    }
}
