//! Lanes: tasks that own a connection and write what is queued together.
//!
//! A hundred commits that wait together cost one round trip and one flush of the disk. What may have to wait for a lock that
//! a stranger holds has lanes of its own, so that it holds up nobody else.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{
    connect::{Connector, REQUEST_TIMEOUT, close, timed_out},
    connection::Connection,
    pool::{Idle, within},
    request::{CONFLICT_PAUSE, CONFLICTS_MAX},
    sql::{self, Verdict},
};
use crate::StoreError;

/// Requests that wait at most; whoever comes later waits for a place.
const QUEUE_MAX: usize = 1024;

/// At most this much is merged into one transaction, which others wait for.
const MERGED_MAX: usize = 256;
const MERGED_BYTES_MAX: usize = 8 << 20;

/// How long a request waits for its answer: its own transaction and the one before it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// How long one merge is taken apart to find out who cannot get a lock. After that, each piece that is left gets one try.
const LOCKED_MAX: Duration = Duration::from_secs(6);

/// What a lane does.
pub(super) trait Kind: Send + Sync + 'static {
    /// One request.
    type Work: Send + Sync + 'static;
    /// What its caller gets.
    type Answer: Send + 'static;

    /// For messages: "store is unavailable while …".
    const DOING: &'static str;

    /// Roughly what a request holds, in bytes.
    fn bytes(work: &Self::Work) -> usize;

    /// Of two requests with the same one, only one is part of a merge.
    fn seat(_work: &Self::Work) -> Option<(Arc<str>, u32)> {
        None
    }

    /// Runs requests in one transaction, and answers each in the order given. An error is that of all; nothing happened
    /// then, unless the connection broke.
    fn run(
        &self,
        connection: &mut Connection,
        works: &[&Self::Work],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, StoreError>>, sqlx::Error>> + Send;

    /// What was assumed turned out to be out of date.
    fn forget(&self) {}

    /// The answer to a request whose data PostgreSQL does not take.
    fn refused(error: &sqlx::Error) -> Result<Self::Answer, StoreError> {
        Err(sql::unavailable(Self::DOING, error))
    }
}

/// The way to a lane.
pub(super) struct Lane<K: Kind> {
    queue: mpsc::Sender<Job<K>>,
}

struct Job<K: Kind> {
    work: K::Work,
    reply: oneshot::Sender<Result<K::Answer, StoreError>>,
}

impl<K: Kind> Lane<K> {
    /// Starts the task; it connects when it is first needed and ends when the last way to it is gone.
    pub(super) fn start(connector: &Connector, kind: Arc<K>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let task = Task { connector: connector.clone(), kind, connection: None, seats_taken: VecDeque::new() };
        tokio::spawn(task.run(jobs));
        Self { queue }
    }

    /// Queues a request and waits for its answer.
    pub(super) async fn ask(&self, work: K::Work) -> Result<K::Answer, StoreError> {
        let unavailable = |reason: &str| StoreError::Unavailable { doing: K::DOING, reason: reason.into() };
        let (reply, answer) = oneshot::channel();
        let answered = async {
            self.queue.send(Job { work, reply }).await.ok()?;
            answer.await.ok()
        };
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(unavailable("the store's writer has ended")),
            Err(_) => Err(unavailable("the writer did not answer in time")),
        }
    }
}

struct Task<K: Kind> {
    connector: Connector,
    kind: Arc<K>,
    /// None after it broke; the next transaction opens another.
    connection: Option<Idle>,
    /// Requests whose seat was taken by another one of the last merge: they go first.
    seats_taken: VecDeque<Job<K>>,
}

/// A part of a merge that is to be run, and how often it ran into somebody else.
struct Piece<K: Kind> {
    jobs: Vec<Job<K>>,
    conflicts: u32,
}

impl<K: Kind> Task<K> {
    async fn run(mut self, mut queue: mpsc::Receiver<Job<K>>) {
        loop {
            let first = match self.seats_taken.pop_front() {
                Some(first) => first,
                None => match queue.recv().await {
                    Some(first) => first,
                    None => break,
                },
            };
            let jobs = self.merge(first, &mut queue);
            if !jobs.is_empty() {
                self.perform(jobs).await;
            }
        }
        let idle = self.connection.take();
        if let Some(idle) = idle
            && let Some(connection) = idle.wake().await
        {
            close(connection);
        }
    }

    /// The first request and those that wait behind it, up to a bound.
    fn merge(&mut self, first: Job<K>, queue: &mut mpsc::Receiver<Job<K>>) -> Vec<Job<K>> {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        let mut seats = BTreeSet::new();
        let mut waiting = std::mem::take(&mut self.seats_taken);
        let mut next = Some(first);
        while let Some(job) = next {
            if !job.reply.is_closed() {
                if K::seat(&job.work).is_none_or(|seat| seats.insert(seat)) {
                    bytes += K::bytes(&job.work);
                    jobs.push(job);
                } else {
                    self.seats_taken.push_back(job);
                }
            }
            let full = jobs.len() >= MERGED_MAX || bytes >= MERGED_BYTES_MAX || self.seats_taken.len() >= MERGED_MAX;
            next = if full { None } else { waiting.pop_front().or_else(|| queue.try_recv().ok()) };
        }
        self.seats_taken.append(&mut waiting);
        jobs
    }

    /// Runs requests together; if one is at fault, ever smaller parts, until it is alone.
    async fn perform(&mut self, jobs: Vec<Job<K>>) {
        let begun = Instant::now();
        // The largest pieces first: most of what waits has nothing to do with the culprit.
        let mut pieces = VecDeque::from([Piece { jobs, conflicts: 0 }]);
        while let Some(mut piece) = pieces.pop_front() {
            let error = match self.transact(&piece.jobs).await {
                Ok(answers) => {
                    // A caller that went away is answered in vain.
                    piece.jobs.into_iter().zip(answers).for_each(|(job, answer)| drop(job.reply.send(answer)));
                    continue;
                }
                Err(error) => error,
            };
            let verdict = sql::verdict(&error);
            let late = begun.elapsed() >= LOCKED_MAX;
            match verdict {
                Verdict::FaultOfData | Verdict::Locked if piece.jobs.len() > 1 && !late => {
                    let rest = piece.jobs.split_off(piece.jobs.len() / 2);
                    pieces.push_back(piece);
                    pieces.push_back(Piece { jobs: rest, conflicts: 0 });
                }
                Verdict::FaultOfData if piece.jobs.len() == 1 => {
                    piece.jobs.into_iter().for_each(|job| drop(job.reply.send(K::refused(&error))));
                }
                Verdict::Conflict | Verdict::LimitChanged if piece.conflicts < CONFLICTS_MAX => {
                    self.kind.forget();
                    piece.conflicts += 1;
                    sleep(CONFLICT_PAUSE * piece.conflicts).await;
                    pieces.push_front(piece);
                }
                _ => {
                    fail(piece, &error);
                    // Not to wait for a server that is away once for each.
                    if verdict == Verdict::Broken {
                        pieces.drain(..).for_each(|piece| fail(piece, &error));
                    }
                }
            }
        }
    }

    async fn transact(&mut self, jobs: &[Job<K>]) -> Result<Vec<Result<K::Answer, StoreError>>, sqlx::Error> {
        let idle = match self.connection.take() {
            Some(idle) => idle.wake().await,
            None => None,
        };
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connector.connect().await?,
        };
        let works: Vec<&K::Work> = jobs.iter().map(|job| &job.work).collect();
        let end = within(REQUEST_TIMEOUT, self.kind.run(&mut connection, &works)).await;
        let keep = match &end {
            Ok(_) => true,
            Err(error) if sql::verdict(error) == Verdict::Broken => false,
            // There may be no transaction to end; then the server says so, and that is all.
            Err(_) => within(REQUEST_TIMEOUT, connection.rollback()).await.is_ok(),
        };
        if keep {
            self.connection = Some(Idle::new(connection));
        }
        let end = end?;
        if end.len() == jobs.len() { Ok(end) } else { Err(timed_out("an answer")) }
    }
}

fn fail<K: Kind>(piece: Piece<K>, error: &sqlx::Error) {
    piece.jobs.into_iter().for_each(|job| drop(job.reply.send(Err(sql::unavailable(K::DOING, error)))));
}
