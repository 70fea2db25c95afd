//! Streams and groups in one SQLite file.
//!
//! One task owns the one connection that writes ([`writer`]); reads go through a small pool beside it. In WAL mode they
//! do not wait for each other. Other processes may work on the file at the same time; each host holds a lock on a file
//! beside the database, which shows the others that its process lives ([`host_locks`]).

mod append;
mod backup;
mod commit;
mod connect;
mod decisions;
mod groups;
mod handlers;
mod host_locks;
mod hosts;
mod letters;
mod mark;
mod migrate;
mod multi_row;
mod read;
mod reset;
mod retention;
mod seats;
mod set_aside;
mod sql;
mod streams;
mod survey;
mod transaction;
mod versions;
mod writer;

use std::{
    collections::BTreeSet,
    future::pending,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use pelton_core::{
    Acquired, Commit, CommitOutcome, DeadLetter, Decision, Event, Lease, LetterRequest, Membership, NewEvent, Offset,
    Rollout, Session, Survey, Timestamp,
};
use sqlx::SqlitePool;
use tokio::time::Instant;

use self::{host_locks::HostLocks, read::PartitionIds, writer::Writer};
use crate::{
    Appended, Backup, Changed, Clock, GroupInfo, GroupSpec, HandledRange, HandlerReport, HostInfo, LetterInfo,
    LetterQuery, ParkedKey, Progress, ReadLimit, Registration, Reset, Store, StoreError, StoreOptions, StreamInfo,
    StreamSpec, wakeup::Wakeup,
};

/// How often the file is looked at for changes by other processes, while somebody waits for one.
const POLL: Duration = Duration::from_millis(25);

/// A store in one SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    clock: Clock,
    writer: Writer,
    reads: SqlitePool,
    partition_ids: PartitionIds,
    wakeup: Arc<Wakeup>,
    locks: Arc<HostLocks>,
}

impl SqliteStore {
    /// Opens a database file.
    ///
    /// # Errors
    /// As [`crate::open()`].
    pub async fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        connect::check_path(path, options)?;
        let connection = connect::prepare(path, options).await?;
        // Only now there certainly is a file, whose one true name the locks go by.
        let locks = Arc::new(HostLocks::beside(path));
        let wakeup = Arc::new(Wakeup::default());
        let writer = Writer::start(connection, path, options, locks.clone(), wakeup.clone());
        Ok(Self {
            path: path.into(),
            clock: options.clock.clone(),
            writer,
            reads: connect::reads(path),
            partition_ids: PartitionIds::default(),
            wakeup,
            locks,
        })
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn declare_stream(&self, spec: &StreamSpec) -> Result<(), StoreError> {
        self.writer.write(streams::Declare(spec.clone())).await
    }

    async fn declare_group(&self, spec: &GroupSpec) -> Result<(), StoreError> {
        self.writer.write(groups::Declare(spec.clone())).await
    }

    async fn streams(&self) -> Result<Vec<StreamInfo>, StoreError> {
        streams::list(&self.reads).await
    }

    async fn groups(&self) -> Result<Vec<GroupInfo>, StoreError> {
        groups::list(&self.reads, &self.locks, self.now()).await
    }

    async fn append(&self, stream: &str, events: Vec<NewEvent>) -> Result<Vec<Appended>, StoreError> {
        self.writer.write(append::Append { stream: stream.into(), events }).await
    }

    async fn read(
        &self,
        stream: &str,
        partition: u32,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Event>, StoreError> {
        let partition_id = self.partition_ids.find(&self.reads, stream, partition).await?;
        read::events(&self.reads, partition_id, from, limit).await
    }

    async fn acquire(&self, group: &str, partition: u32, session: &Session) -> Result<Acquired, StoreError> {
        self.writer.write(seats::Acquire { group: group.into(), partition, session: session.clone() }).await
    }

    async fn commit(&self, commit: Arc<Commit>) -> Result<CommitOutcome, StoreError> {
        self.writer.write(commit).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.writer.write(seats::Release(lease.clone())).await
    }

    async fn letters_requested(
        &self,
        group: &str,
        partition: u32,
        limit: ReadLimit,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        letters::requested(&self.reads, group, partition, limit).await
    }

    async fn remembered(&self, group: &str, partition: u32, ids: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
        retention::remembered(&self.reads, group, partition, ids).await
    }

    async fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        seats::state(&self.reads, group, partition, key).await
    }

    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Result<(), StoreError> {
        self.writer.write(seats::Pause { group: group.into(), partition, paused }).await
    }

    async fn resume(&self, group: &str, partition: Option<u32>) -> Result<(), StoreError> {
        self.writer.write(seats::Resume { group: group.into(), partition }).await
    }

    async fn letters(
        &self,
        group: &str,
        query: &LetterQuery,
        after: Option<(u32, Offset)>,
        limit: ReadLimit,
    ) -> Result<Vec<LetterInfo>, StoreError> {
        letters::list(&self.reads, group, query, after, limit).await
    }

    async fn parked(&self, group: &str, limit: u32) -> Result<Vec<ParkedKey>, StoreError> {
        letters::parked(&self.reads, group, limit).await
    }

    async fn request_letters(
        &self,
        group: &str,
        query: &LetterQuery,
        request: LetterRequest,
    ) -> Result<u64, StoreError> {
        letters::request(&self.writer, group, query, request).await
    }

    async fn edit_letter(
        &self,
        group: &str,
        partition: u32,
        offset: Offset,
        payload: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.writer.write(letters::Edit { group: group.into(), partition, offset, payload }).await
    }

    async fn skip(&self, group: &str, partition: u32, park: bool) -> Result<Offset, StoreError> {
        self.writer.write(set_aside::Skip { group: group.into(), partition, park }).await
    }

    async fn reset(&self, reset: &Reset) -> Result<(), StoreError> {
        reset::reset(&self.writer, reset, &self.locks).await
    }

    async fn offset_at(&self, stream: &str, partition: u32, time: Timestamp) -> Result<Offset, StoreError> {
        let partition_id = self.partition_ids.find(&self.reads, stream, partition).await?;
        read::offset_at(&self.reads, partition_id, time).await
    }

    async fn delete_group(&self, group: &str, with_letters: bool) -> Result<(), StoreError> {
        reset::delete(&self.writer, group, with_letters, &self.locks).await
    }

    async fn trim(&self, stream: &str, before: Timestamp, events_max: u32) -> Result<u64, StoreError> {
        let old = retention::Old { before, now: self.now() };
        retention::trim(&self.reads, &self.writer, stream, old, events_max).await
    }

    async fn forget(&self, group: &str, before: Timestamp, keep: u64, ids_max: u32) -> Result<u64, StoreError> {
        let forget = retention::Forget { group: group.into(), before, keep, ids_max };
        retention::forget(&self.reads, &self.writer, forget).await
    }

    async fn backup(&self, to: &Path) -> Result<Backup, StoreError> {
        backup::write(&self.path, to).await
    }

    async fn register(&self, registration: &Registration) -> Result<Session, StoreError> {
        let lock = self.locks.take(&registration.host).await?;
        let session = self.writer.write(hosts::Register(registration.clone())).await?;
        self.locks.keep(lock, &session);
        Ok(session)
    }

    async fn join(&self, session: &Session, memberships: &[Membership]) -> Result<bool, StoreError> {
        self.writer.write(hosts::Join { session: session.clone(), memberships: memberships.to_vec() }).await
    }

    async fn heartbeat(&self, sessions: &[Session]) -> Result<Vec<bool>, StoreError> {
        self.writer.write(hosts::Heartbeat(sessions.to_vec())).await
    }

    async fn deregister(&self, session: &Session) -> Result<(), StoreError> {
        self.writer.write(hosts::Deregister(session.clone())).await?;
        self.locks.let_go(session);
        Ok(())
    }

    async fn lock_lost(&self) {
        // The system takes no lock away from a process that lives.
        pending().await
    }

    async fn survey(&self) -> Result<Survey, StoreError> {
        survey::read(&self.reads, &self.locks, self.now()).await
    }

    async fn decide(&self, decision: &Decision) -> Result<bool, StoreError> {
        self.writer.write(decision.clone()).await
    }

    async fn cleanup(&self) -> Result<Vec<String>, StoreError> {
        let gone = self.writer.write(decisions::Cleanup).await?;
        gone.iter().for_each(|host| self.locks.remove_stale(host));
        Ok(gone)
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, StoreError> {
        hosts::list(&self.reads, &self.locks, self.now()).await
    }

    async fn report_handlers(&self, reports: &[HandlerReport]) -> Result<(), StoreError> {
        self.writer.write(handlers::Report(reports.to_vec())).await
    }

    async fn handlers(&self) -> Result<Vec<HandlerReport>, StoreError> {
        handlers::list(&self.reads).await
    }

    async fn rollouts_revision(&self) -> Result<u64, StoreError> {
        versions::revision(&self.reads).await
    }

    async fn rollouts(&self) -> Result<Vec<Rollout>, StoreError> {
        versions::list(&self.reads).await
    }

    async fn save_rollout(&self, rollout: &Rollout, module: Option<Arc<[u8]>>) -> Result<bool, StoreError> {
        self.writer.write(versions::Save { rollout: rollout.clone(), module }).await
    }

    async fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        versions::module(&self.reads, digest).await
    }

    async fn ranges(&self, handler: &str, limit: u32) -> Result<Vec<HandledRange>, StoreError> {
        versions::ranges(&self.reads, handler, limit).await
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        groups::progress(&self.reads).await
    }

    async fn changed(&self, at_most: Duration) -> Changed {
        let asked = Instant::now();
        while !self.wakeup.is_due() {
            let left = at_most.saturating_sub(asked.elapsed());
            if left.is_zero() {
                break;
            }
            self.writer.look_for_changes();
            self.wakeup.sleep(left.min(POLL)).await;
        }
        // What another process wrote, the file does not tell: it may have been anything.
        let membership = self.wakeup.is_due();
        self.wakeup.tell();
        Changed { membership }
    }
}
