//! Requests that take a connection of the pool, most of them in a transaction of their own.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    connect::REQUEST_TIMEOUT,
    connection::Connection,
    pool::{Pool, within},
    sql::{self, Sql, Verdict},
    wake::Wake,
};
use crate::StoreError;

/// How often a request is tried again that ran into another one.
pub(super) const CONFLICTS_MAX: u32 = 5;

/// The wait before the first of these; it grows with each.
pub(super) const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// One request. It may run several times; what an earlier run wrote was rolled back then.
pub(super) trait Request: Send + Sync {
    /// What the caller gets.
    type Answer: Send;

    /// For messages: "store is unavailable while …".
    const DOING: &'static str;

    /// How its transaction begins; `None` for a single statement, which needs none.
    const BEGIN: Option<&'static str> = Some("BEGIN");

    /// Runs it. What a request that is refused has written is rolled back.
    fn run(&self, transaction: &mut Transaction<'_>) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

/// All statements of a transaction see what was committed when its first one began.
pub(super) const ONE_MOMENT: Option<&str> = Some("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");

/// What a request sees.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) sql: &'a Sql,
    /// Who is to be woken after the commit.
    pub(super) wakes: Option<Change>,
}

/// What there is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Events, positions, or what is asked of groups.
    Events,
    /// Also hosts, members, targets or owners.
    Membership,
}

/// Why a request did not go through.
pub(super) enum Fault {
    /// It asks for something that cannot be.
    Refused(StoreError),
    /// A statement failed.
    Failed(sqlx::Error),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

/// The database, as requests see it.
pub(super) struct Database {
    pub(super) sql: Arc<Sql>,
    pub(super) pool: Pool,
    pub(super) wake: Arc<Wake>,
}

impl Database {
    /// Runs a request, again if it ran into another one.
    pub(super) async fn ask<R: Request>(&self, request: &R) -> Result<R::Answer, StoreError> {
        let mut conflicts = 0;
        loop {
            match self.try_ask(request).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Refused(error)) => return Err(error),
                Err(Fault::Failed(error)) => {
                    conflicts += 1;
                    if sql::verdict(&error) != Verdict::Conflict || conflicts > CONFLICTS_MAX {
                        return Err(sql::unavailable(R::DOING, &error));
                    }
                    sleep(CONFLICT_PAUSE * conflicts).await;
                }
            }
        }
    }

    async fn try_ask<R: Request>(&self, request: &R) -> Result<R::Answer, Fault> {
        let mut lent = self.pool.lend().await?;
        let connection = &mut lent.connection;
        let mut refused = None;
        let answered = within(REQUEST_TIMEOUT, async {
            match run(request, connection, &self.sql).await {
                Ok(answer) => Ok(Some(answer)),
                Err(Fault::Refused(error)) => {
                    refused = Some(error);
                    connection.rollback_if_begun().await?;
                    Ok(None)
                }
                Err(Fault::Failed(error)) => {
                    if sql::verdict(&error) != Verdict::Broken {
                        connection.rollback_if_begun().await?;
                    }
                    Err(error)
                }
            }
        });
        match answered.await {
            Ok(answer) => {
                lent.give_back();
                match (answer, refused) {
                    (Some((answer, wakes)), _) => {
                        self.wake.changed(wakes);
                        Ok(answer)
                    }
                    (None, Some(error)) => Err(error.into()),
                    (None, None) => Err(sqlx::Error::WorkerCrashed.into()),
                }
            }
            Err(error) => {
                if sql::verdict(&error) == Verdict::Broken {
                    self.pool.forget_idle();
                } else {
                    lent.give_back();
                }
                Err(error.into())
            }
        }
    }
}

async fn run<R: Request>(
    request: &R,
    connection: &mut Connection,
    sql: &Sql,
) -> Result<(R::Answer, Option<Change>), Fault> {
    match R::BEGIN {
        Some(begin) => connection.begin(begin).await?,
        None => connection.begin_alone().await?,
    }
    let mut transaction = Transaction { connection, sql, wakes: None };
    let answer = request.run(&mut transaction).await?;
    let wakes = transaction.wakes;
    if let Some(change) = wakes {
        let payload = match change {
            Change::Events => "e",
            Change::Membership => "m",
        };
        sqlx::query("SELECT pg_notify($1, $2)").bind(sql.schema()).bind(payload).execute(&mut *connection).await?;
    }
    match R::BEGIN {
        Some(_) => connection.commit().await?,
        None => connection.commit_alone().await?,
    }
    Ok((answer, wakes))
}
