//! The one task that writes.
//!
//! It takes what is queued, runs it in one transaction and answers each request after the commit: a hundred commits
//! that wait together cost one flush of the disk. The task owns the connection, so a caller that gives up cannot leave half
//! a transaction behind.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::SqliteConnection;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{
    connect,
    host_locks::HostLocks,
    sql,
    transaction::{Fault, Log, Transaction, Write},
};
use crate::{Clock, Durability, StoreError, StoreOptions, wakeup::Wakeup};

/// Requests that wait at most; whoever comes later waits for a place.
const QUEUE_MAX: usize = 1024;

/// At most this much is merged into one transaction, which others wait for.
const MERGED_MAX: usize = 256;
const MERGED_BYTES_MAX: usize = 8 << 20;

/// The wait between two tries to get the write lock.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// How long a request waits for its answer: its own transaction and the one before it may each wait for another process
/// as long as [`connect::BUSY_TIMEOUT`], and disks stall.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to the writer.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
}

enum Message {
    Write(Box<dyn Job>),
    /// Look whether another process wrote.
    Look,
}

impl Writer {
    /// Starts the task. It ends when the last way to it is gone, and lets go of the hosts' locks then and no earlier.
    pub(super) fn start(
        connection: SqliteConnection,
        path: &Path,
        options: &StoreOptions,
        locks: Arc<HostLocks>,
        wakeup: Arc<Wakeup>,
    ) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let task = Task {
            path: path.into(),
            clock: options.clock.clone(),
            durability: options.durability,
            wakeup,
            connection: Some(Connection { sqlite: connection, synchronous: None, version: None }),
            log: Log::default(),
            _locks: locks,
        };
        tokio::spawn(task.run(requests));
        Self { queue }
    }

    /// Queues a write and waits until it is committed.
    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let unavailable = |reason: &str| StoreError::Unavailable { doing: W::DOING, reason: reason.into() };
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Queued { write, end: None, reply });
        let answered = async {
            self.queue.send(Message::Write(job)).await.ok()?;
            answer.await.ok()
        };
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(unavailable("the store's writer has ended")),
            Err(_) => Err(unavailable("the writer did not answer in time")),
        }
    }

    /// Asks the writer to look whether another process wrote, when it has nothing else to do.
    pub(super) fn look_for_changes(&self) {
        // A full queue means transactions, and each of them looks.
        let _ = self.queue.try_send(Message::Look);
    }
}

/// A queued write with its answer, of whatever type.
#[async_trait]
trait Job: Send {
    fn is_wanted(&self) -> bool;
    fn bytes(&self) -> usize;
    fn may_be_lost(&self) -> bool;
    fn ends_with_machine(&self) -> bool;
    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<(), sqlx::Error>;
    fn answer(self: Box<Self>);
    fn fail(self: Box<Self>, error: &sqlx::Error);
}

struct Queued<W: Write> {
    write: W,
    /// How it ended, to be told after the commit.
    end: Option<Result<W::Answer, StoreError>>,
    reply: oneshot::Sender<Result<W::Answer, StoreError>>,
}

#[async_trait]
impl<W: Write> Job for Queued<W> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn bytes(&self) -> usize {
        self.write.bytes()
    }

    fn may_be_lost(&self) -> bool {
        self.write.may_be_lost()
    }

    fn ends_with_machine(&self) -> bool {
        self.write.ends_with_machine()
    }

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        self.end = match self.write.run(transaction).await {
            Ok(answer) => Some(Ok(answer)),
            Err(Fault::Refused(error)) => Some(Err(error)),
            Err(Fault::Failed(error)) => return Err(error),
        };
        Ok(())
    }

    // A caller that went away is answered in vain.
    fn answer(self: Box<Self>) {
        if let Some(end) = self.end {
            let _ = self.reply.send(end);
        }
    }

    fn fail(self: Box<Self>, error: &sqlx::Error) {
        let end = if sql::is_fault_of_data(error) {
            self.write.refused(error)
        } else {
            Err(sql::unavailable(W::DOING, error))
        };
        let _ = self.reply.send(end);
    }
}

struct Task {
    path: PathBuf,
    clock: Clock,
    durability: Durability,
    wakeup: Arc<Wakeup>,
    /// None after it broke; the next transaction opens another.
    connection: Option<Connection>,
    log: Log,
    _locks: Arc<HostLocks>,
}

struct Connection {
    sqlite: SqliteConnection,
    synchronous: Option<Synchronous>,
    /// Changes when another connection writes, and only then.
    version: Option<i64>,
}

/// When a commit reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Synchronous {
    /// Before it is answered.
    Full,
    /// With the next one that is full, or the next checkpoint. The order is kept: what a machine's death takes is the end.
    Normal,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Message>) {
        while let Some(first) = requests.recv().await {
            let jobs = merge(first, &mut requests);
            if !jobs.is_empty() {
                self.perform(jobs).await;
            } else if let Err(error) = self.look().await {
                tracing::debug!(%error, "cannot look for changes by other processes");
            }
        }
    }

    /// Runs writes together; if the data of one is at fault, each alone, so that only the culprit fails.
    async fn perform(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        match self.transact(&mut jobs).await {
            Ok(()) => jobs.into_iter().for_each(|job| job.answer()),
            Err(error) if jobs.len() > 1 && sql::is_fault_of_data(&error) => self.perform_each(jobs).await,
            Err(error) => jobs.into_iter().for_each(|job| job.fail(&error)),
        }
    }

    async fn perform_each(&mut self, jobs: Vec<Box<dyn Job>>) {
        // Not to wait for a busy file once for each.
        let mut outage = None;
        for job in jobs {
            if let Some(error) = &outage {
                job.fail(error);
                continue;
            }
            let mut alone = [job];
            let end = self.transact(&mut alone).await;
            let [job] = alone;
            match end {
                Ok(()) => job.answer(),
                Err(error) => {
                    job.fail(&error);
                    outage = Some(error).filter(|error| !sql::is_fault_of_data(error));
                }
            }
        }
    }

    async fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), sqlx::Error> {
        let may_relax = self.durability == Durability::Relaxed;
        let relaxed = jobs.iter().all(|job| job.ends_with_machine() || (may_relax && job.may_be_lost()));
        let end = self.try_transact(jobs, if relaxed { Synchronous::Normal } else { Synchronous::Full }).await;
        match end {
            Ok(wakes) => {
                if wakes {
                    self.wakeup.changed();
                }
                Ok(())
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    /// True if those who wait are to be woken.
    async fn try_transact(&mut self, jobs: &mut [Box<dyn Job>], synchronous: Synchronous) -> Result<bool, sqlx::Error> {
        self.begin(synchronous).await?;
        let now = (self.clock)();
        let Some(connection) = &mut self.connection else { return Err(sqlx::Error::WorkerCrashed) };
        let mut transaction = Transaction { connection: &mut connection.sqlite, log: &mut self.log, now, wakes: false };
        for job in jobs {
            job.run(&mut transaction).await?;
        }
        transaction.write_counters().await?;
        let wakes = transaction.wakes;
        sqlx::query("COMMIT").execute(&mut connection.sqlite).await?;
        Ok(wakes)
    }

    /// Begins with the write lock: a transaction that reads first and then wants to write fails at once, whatever the
    /// timeout, if somebody else wrote in between.
    async fn begin(&mut self, synchronous: Synchronous) -> Result<(), sqlx::Error> {
        let connection = self.connected().await?;
        if connection.synchronous.is_none() {
            sqlx::query("PRAGMA busy_timeout = 0").execute(&mut connection.sqlite).await?;
        }
        // Has no effect inside a transaction.
        if connection.synchronous != Some(synchronous) {
            let pragma = match synchronous {
                Synchronous::Full => "PRAGMA synchronous = FULL",
                Synchronous::Normal => "PRAGMA synchronous = NORMAL",
            };
            sqlx::query(pragma).execute(&mut connection.sqlite).await?;
            connection.synchronous = Some(synchronous);
        }
        // SQLite's own wait looks every 100 ms, and would hardly ever meet the moment in which a busy process beside this one
        // is between two transactions.
        let give_up = Instant::now() + connect::BUSY_TIMEOUT;
        let version = loop {
            let begin = sqlx::query_scalar("BEGIN IMMEDIATE; PRAGMA data_version");
            match begin.fetch_one(&mut connection.sqlite).await {
                Err(error) if sql::code(&error) == Some(sql::BUSY) && Instant::now() < give_up => {
                    sleep(BUSY_PAUSE).await;
                }
                begun => break begun?,
            }
        };
        self.note_version(version);
        Ok(())
    }

    async fn look(&mut self) -> Result<(), sqlx::Error> {
        let connection = self.connected().await?;
        let version = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut connection.sqlite).await?;
        self.note_version(version);
        Ok(())
    }

    /// If another process wrote, counters may have moved and somebody may want to know.
    fn note_version(&mut self, version: i64) {
        let Some(connection) = &mut self.connection else { return };
        if connection.version.replace(version).is_some_and(|before| before != version) {
            self.log.forget();
            self.wakeup.changed();
        }
    }

    async fn connected(&mut self) -> Result<&mut Connection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // Versions of two connections cannot be compared: anything may have happened.
                self.log.forget();
                self.wakeup.changed();
                Connection { sqlite: connect::write_again(&self.path).await?, synchronous: None, version: None }
            }
        };
        Ok(self.connection.insert(connection))
    }

    async fn roll_back(&mut self) {
        self.log.forget();
        let Some(connection) = &mut self.connection else { return };
        // Fails also if there is no transaction, because it never began or SQLite ended it already; which of these it
        // was does not matter: another connection is cheap and certainly has none.
        if sqlx::query("ROLLBACK").execute(&mut connection.sqlite).await.is_err() {
            self.connection = None;
        }
    }
}

/// The first request and those that wait behind it, up to a bound.
fn merge(first: Message, requests: &mut mpsc::Receiver<Message>) -> Vec<Box<dyn Job>> {
    let mut jobs = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(message) = next {
        if let Message::Write(job) = message
            && job.is_wanted()
        {
            bytes += job.bytes();
            jobs.push(job);
        }
        let full = jobs.len() >= MERGED_MAX || bytes >= MERGED_BYTES_MAX;
        next = if full { None } else { requests.try_recv().ok() };
    }
    jobs
}
