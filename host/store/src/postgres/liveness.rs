//! The locks that live and die with this process: one connection that holds an advisory lock for each of its hosts.
//!
//! A task owns the connection and does nothing but listen on it, so that its loss is noticed at once. When the process
//! dies the server ends the session, and with it the locks, within milliseconds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sqlx::{Executor, postgres::PgListener};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{
    connect::{CONNECT_TIMEOUT, Connector, timed_out},
    pool::within,
    pooler,
    sql::{self, Sql},
};
use crate::StoreError;

const DOING: &str = "taking a host's lock";

/// Requests that wait at most.
const QUEUE_MAX: usize = 1024;

/// How long a connection on which nothing comes is trusted. A host must notice that it lost its lock before others trust
/// that it has; those count a grace period from when the server noticed, which no half-open connection hurries.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// How long the end of an earlier connection of ours is waited for, and the wait between two looks.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(3);
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(20);

/// Earlier sessions that are remembered.
const EARLIER_MAX: usize = 16;

/// What came of asking for a lock.
pub(super) enum Taken {
    /// It is ours.
    Held {
        /// The incarnation of the server in which it was taken.
        server: Option<String>,
        /// It was not before.
        new: bool,
    },
    /// It would be, but locks do not outlive their transaction here.
    NotKept,
    /// Another process holds it.
    InUse,
}

enum Command {
    Take { host: String, reply: oneshot::Sender<Result<Taken, sqlx::Error>> },
    Release { host: String, reply: oneshot::Sender<()> },
}

/// The way to the task.
pub(super) struct Liveness {
    commands: mpsc::Sender<Command>,
    lost: Arc<Lost>,
}

/// Counts losses, and remembers up to which one somebody was told.
#[derive(Default)]
struct Lost {
    state: std::sync::Mutex<(u64, u64)>,
    notify: Notify,
}

impl Lost {
    fn state(&self) -> std::sync::MutexGuard<'_, (u64, u64)> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn happened(&self) {
        self.state().0 += 1;
        self.notify.notify_waiters();
    }

    async fn wait(&self) {
        let at_first = self.state().0;
        loop {
            // Made before the count is read: what happens in between finds it waiting.
            let notified = self.notify.notified();
            {
                let mut state = self.state();
                if state.0 != state.1 || state.0 != at_first {
                    state.1 = state.0;
                    return;
                }
            }
            notified.await;
        }
    }
}

impl Liveness {
    /// Starts the task. It ends, and lets go of all locks, when this is dropped.
    pub(super) fn start(connector: &Connector, sql: &Arc<Sql>) -> Self {
        let (commands, requests) = mpsc::channel(QUEUE_MAX);
        let lost = Arc::new(Lost::default());
        let task = Task {
            connector: connector.clone(),
            sql: Arc::clone(sql),
            lost: Arc::clone(&lost),
            held: BTreeSet::new(),
            session: None,
            earlier: Vec::new(),
            warned: false,
        };
        tokio::spawn(task.run(requests));
        Self { commands, lost }
    }

    /// Takes a host's lock, if it is not ours already.
    pub(super) async fn take(&self, host: &str) -> Result<Taken, StoreError> {
        let unavailable = |reason: &str| StoreError::Unavailable { doing: DOING, reason: reason.into() };
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Take { host: host.into(), reply });
        let answered = async {
            sent.await.ok()?;
            answer.await.ok()
        };
        match timeout(4 * CONNECT_TIMEOUT, answered).await {
            Ok(Some(taken)) => taken.map_err(|error| sql::unavailable(DOING, &error)),
            Ok(None) => Err(unavailable("the task that holds locks has ended")),
            Err(_) => Err(unavailable("the server did not answer in time")),
        }
    }

    /// Lets go of a host's lock. If that fails, the connection and with it the lock is gone anyway.
    pub(super) async fn release(&self, host: &str) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Release { host: host.into(), reply }).await.is_ok() {
            let _ = timeout(CONNECT_TIMEOUT, answer).await;
        }
    }

    /// Returns when locks may have been lost.
    pub(super) async fn lost(&self) {
        self.lost.wait().await;
    }
}

struct Task {
    connector: Connector,
    sql: Arc<Sql>,
    lost: Arc<Lost>,
    /// Hosts whose locks this session holds.
    held: BTreeSet<String>,
    session: Option<Session>,
    /// Sessions that were lost on this side and may go on in the server.
    earlier: Vec<Backend>,
    warned: bool,
}

struct Session {
    listener: PgListener,
    backend: Backend,
    server: Option<String>,
    /// Whether locks are kept from one transaction to the next; not known before the first one.
    keeps: Option<bool>,
}

/// A process of the server: its number may be another's later.
#[derive(Clone, PartialEq, Eq)]
struct Backend {
    pid: i32,
    started: String,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Command>) {
        loop {
            let command = match &mut self.session {
                None => requests.recv().await,
                Some(session) => {
                    tokio::select! {
                        command = requests.recv() => command,
                        // Nothing is ever notified here: what comes is the end.
                        heard = timeout(SILENCE_MAX, session.listener.try_recv()) => {
                            self.heard(heard).await;
                            continue;
                        }
                    }
                }
            };
            match command {
                None => break,
                Some(Command::Take { host, reply }) => {
                    let taken = self.take(&host).await;
                    let _ = reply.send(taken);
                }
                Some(Command::Release { host, reply }) => {
                    self.release(&host).await;
                    let _ = reply.send(());
                }
            }
        }
        if let Some(mut session) = self.session.take() {
            // Not left to the end of the connection, which takes its time in the background.
            let unlock = session.listener.execute(sqlx::raw_sql("SELECT pg_advisory_unlock_all()"));
            let _ = timeout(CONNECT_TIMEOUT, unlock).await;
        }
    }

    async fn heard(
        &mut self,
        heard: Result<Result<Option<sqlx::postgres::PgNotification>, sqlx::Error>, tokio::time::error::Elapsed>,
    ) {
        match heard {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None) | Err(_)) => self.lose(),
            Err(_) => {
                let Some(session) = &mut self.session else { return };
                let alive = timeout(SILENCE_MAX, session.listener.execute(sqlx::raw_sql("SELECT 1"))).await;
                if !matches!(alive, Ok(Ok(_))) {
                    self.lose();
                }
            }
        }
    }

    /// The session is gone, on this side at least.
    fn lose(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.earlier.len() == EARLIER_MAX {
            self.earlier.remove(0);
        }
        self.earlier.push(session.backend);
        if !self.held.is_empty() {
            tracing::warn!(hosts = self.held.len(), "the connection that holds the hosts' locks was lost");
            self.held.clear();
            self.lost.happened();
        }
    }

    async fn take(&mut self, host: &str) -> Result<Taken, sqlx::Error> {
        let taken = within(3 * CONNECT_TIMEOUT, self.try_take(host)).await;
        if taken.is_err() {
            self.lose();
        }
        taken
    }

    async fn try_take(&mut self, host: &str) -> Result<Taken, sqlx::Error> {
        if self.session.is_none() {
            self.session = Some(self.connect().await?);
        }
        let Some(session) = &mut self.session else { return Err(timed_out("connecting")) };
        if session.keeps == Some(false) {
            // A lock would stay behind on whichever backend the pooler gave us for a moment.
            return Ok(Taken::NotKept);
        }
        if session.keeps != Some(true) || !self.held.contains(host) {
            let give_up = Instant::now() + TAKE_OVER_TIMEOUT;
            while !try_lock(&self.sql, &mut session.listener, host).await? {
                let holder = holder(&self.sql, &mut session.listener, host).await?;
                // One of ours, whose connection broke on this side only, is ended; one that ended meanwhile is no holder.
                let ours = holder.as_ref().is_none_or(|holder| self.earlier.contains(holder));
                if !ours || Instant::now() >= give_up {
                    return Ok(Taken::InUse);
                }
                if let Some(holder) = holder {
                    sqlx::query("SELECT pg_terminate_backend($1)")
                        .bind(holder.pid)
                        .execute(&mut session.listener)
                        .await?;
                }
                sleep(TAKE_OVER_PAUSE).await;
            }
        }
        if session.keeps.is_none() {
            session.keeps = Some(keeps_locks(&self.connector, &self.sql, session, host).await?);
        }
        if session.keeps == Some(false) {
            if !self.warned {
                self.warned = true;
                pooler::warn(self.connector.url());
            }
            return Ok(Taken::NotKept);
        }
        let new = self.held.insert(host.into());
        Ok(Taken::Held { server: session.server.clone(), new })
    }

    async fn connect(&self) -> Result<Session, sqlx::Error> {
        let mut listener = self.connector.listener().await?;
        sqlx::query(self.sql.text(
            "INSERT INTO @.server_token (one, token, since)
             SELECT 1, gen_random_uuid(), @.now() WHERE NOT EXISTS (SELECT FROM @.server_token) ON CONFLICT DO NOTHING",
        ))
        .execute(&mut listener)
        .await?;
        let (pid, started, server) = sqlx::query_as(self.sql.text(
            "SELECT pid, coalesce(backend_start::text, ''), @.server_incarnation()
             FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        ))
        .fetch_one(&mut listener)
        .await?;
        Ok(Session { listener, backend: Backend { pid, started }, server, keeps: None })
    }

    async fn release(&mut self, host: &str) {
        if !self.held.remove(host) {
            return;
        }
        let Some(session) = &mut self.session else { return };
        let unlock = sqlx::query(self.sql.text("SELECT pg_advisory_unlock(@.lock_key($1))"))
            .bind(host)
            .execute(&mut session.listener);
        if !matches!(timeout(CONNECT_TIMEOUT, unlock).await, Ok(Ok(_))) {
            self.lose();
        }
    }
}

async fn try_lock(sql: &Sql, listener: &mut PgListener, host: &str) -> Result<bool, sqlx::Error> {
    let lock = sql.text("SELECT pg_try_advisory_lock(@.lock_key($1))");
    sqlx::query_scalar(lock).bind(host).fetch_one(listener).await
}

/// The backend that holds a host's lock.
async fn holder(sql: &Sql, listener: &mut PgListener, host: &str) -> Result<Option<Backend>, sqlx::Error> {
    let found: Option<(i32, String)> = sqlx::query_as(sql.text(
        "SELECT a.pid, coalesce(a.backend_start::text, '') FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (l.classid::bigint << 32) | l.objid::bigint = @.lock_key($1)",
    ))
    .bind(host)
    .fetch_optional(listener)
    .await?;
    Ok(found.map(|(pid, started)| Backend { pid, started }))
}

/// Whether a session keeps its locks while another one is in a transaction: a pooler would have given it another backend.
async fn keeps_locks(connector: &Connector, sql: &Sql, session: &mut Session, host: &str) -> Result<bool, sqlx::Error> {
    let mut other = connector.connect().await?;
    other.begin("BEGIN; SELECT 1").await?;
    let keeps: bool = sqlx::query_scalar(sql.text(
        "SELECT EXISTS (SELECT FROM pg_locks l
             WHERE l.locktype = 'advisory' AND l.granted AND l.pid = pg_backend_pid() AND l.objsubid = 1
               AND (l.classid::bigint << 32) | l.objid::bigint = @.lock_key($1))",
    ))
    .bind(host)
    .fetch_one(&mut session.listener)
    .await?;
    if !keeps {
        // The backend that has it now is likely this one; nobody else would ever let go of it.
        other.execute(sqlx::raw_sql("SELECT pg_advisory_unlock_all()")).await?;
    }
    other.rollback().await?;
    super::connect::close(other);
    Ok(keeps)
}
