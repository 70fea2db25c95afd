//! A connection to the server, or to a pooler in front of it.
//!
//! A pooler such as PgBouncer in transaction mode hands each transaction to whichever of its servers is free. What is set
//! or prepared in one transaction is then missing in the next one, and found by strangers. So behind a pooler nothing
//! outlives its transaction: every statement is part of one, has no name, and settings are local to it.

use futures_util::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Connection as _, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

/// In every transaction behind a pooler, what is set on every connection elsewhere. Left out are the keep-alives: they
/// would be those between the pooler and the server.
const LOCAL: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '30s'; \
    SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL plan_cache_mode = force_generic_plan; \
    SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";

#[derive(Debug)]
pub(super) struct Connection {
    raw: PgConnection,
    pooled: bool,
    /// Whether a transaction was begun.
    begun: bool,
}

impl Connection {
    pub(super) fn new(raw: PgConnection, pooled: bool) -> Self {
        Self { raw, pooled, begun: false }
    }

    /// Begins a transaction with a statement such as `BEGIN`.
    pub(super) async fn begin(&mut self, begin: &'static str) -> Result<(), Error> {
        self.begun = true;
        if self.pooled {
            // A level of isolation that somebody else left behind is not what a plain BEGIN is to get here.
            let level = if begin == "BEGIN" { " ISOLATION LEVEL READ COMMITTED" } else { "" };
            let begin = format!("{begin}{level}; {LOCAL}");
            self.raw.execute(sqlx::raw_sql(AssertSqlSafe(begin))).await?;
        } else {
            self.raw.execute(sqlx::raw_sql(begin)).await?;
        }
        Ok(())
    }

    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        self.raw.execute(sqlx::raw_sql("COMMIT")).await?;
        self.begun = false;
        Ok(())
    }

    /// Ends a transaction, if there is one.
    pub(super) async fn rollback(&mut self) -> Result<(), Error> {
        self.raw.execute(sqlx::raw_sql("ROLLBACK")).await?;
        self.begun = false;
        Ok(())
    }

    /// Begins what needs no transaction but behind a pooler, where a statement is prepared in one round trip and run in
    /// another one.
    pub(super) async fn begin_alone(&mut self) -> Result<(), Error> {
        if self.pooled && !self.begun { self.begin("BEGIN").await } else { Ok(()) }
    }

    /// Ends what [`Self::begin_alone`] began.
    pub(super) async fn commit_alone(&mut self) -> Result<(), Error> {
        if self.pooled && self.begun { self.commit().await } else { Ok(()) }
    }

    /// Ends a transaction that was begun and not committed.
    pub(super) async fn rollback_if_begun(&mut self) -> Result<(), Error> {
        if self.begun { self.rollback().await } else { Ok(()) }
    }

    /// Asks whether anybody is there.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        self.raw.ping().await
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        self.raw.close().await
    }
}

/// As sqlx's own connection, except that statements have no names behind a pooler.
impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if self.pooled { self.raw.fetch_many(Nameless(query)) } else { self.raw.fetch_many(query) }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if self.pooled { self.raw.fetch_optional(Nameless(query)) } else { self.raw.fetch_optional(query) }
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.raw.prepare_with(sql, parameters)
    }
}

/// A query whose statement gets no name: a cache of no statements alone would still name them, and never forget them.
struct Nameless<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Nameless<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}
