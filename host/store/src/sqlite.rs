//! Streams and groups in one SQLite file.
//!
//! One task owns the one connection that writes ([`writer`]); reads go through a small pool beside it. In WAL mode they
//! do not wait for each other. Other processes may work on the file at the same time; only one of them is the daemon,
//! which holds a lock on a file beside the database ([`lock`]).

mod append;
mod commit;
mod connect;
mod groups;
mod hosts;
mod lock;
mod migrate;
mod multi_row;
mod read;
mod sql;
mod streams;
mod transaction;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use pelton_core::{Claim, Commit, CommitOutcome, Event, Lease, NewEvent, Offset};
use sqlx::SqlitePool;
use tokio::time::Instant;

use self::{lock::HostLock, read::PartitionIds, writer::Writer};
use crate::{
    Appended, GroupInfo, GroupSpec, HandlerReport, HostInfo, Progress, ReadLimit, Store, StoreError, StoreOptions,
    StreamInfo, StreamSpec, wakeup::Wakeup,
};

/// How often the file is looked at for changes by other processes, while somebody waits for one.
const POLL: Duration = Duration::from_millis(25);

/// A store in one SQLite file.
pub struct SqliteStore {
    writer: Writer,
    reads: SqlitePool,
    partition_ids: PartitionIds,
    wakeup: Arc<Wakeup>,
    lock: Arc<HostLock>,
}

impl SqliteStore {
    /// Opens a database file.
    ///
    /// # Errors
    /// As [`crate::open()`].
    pub async fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        connect::check_path(path, options)?;
        // Before anything is read: migrations are the lock holder's to run, and a second daemon shall not touch the file.
        let lock = Arc::new(if options.host { HostLock::take(path).await? } else { HostLock::beside(path) });
        let connection = connect::prepare(path, options).await?;

        let wakeup = Arc::new(Wakeup::default());
        let writer = Writer::start(connection, path, options, lock.clone(), wakeup.clone());
        let store = Self { writer, reads: connect::reads(path), partition_ids: PartitionIds::default(), wakeup, lock };
        if options.host {
            store.writer.write(hosts::ClearDead).await?;
        }
        Ok(store)
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
        groups::list(&self.reads, self.lock.is_held()).await
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

    async fn acquire(&self, group: &str, partition: u32, host: &str) -> Result<Claim, StoreError> {
        self.writer.write(groups::Acquire { group: group.into(), partition, host: host.into() }).await
    }

    async fn commit(&self, commit: Arc<Commit>) -> Result<CommitOutcome, StoreError> {
        self.writer.write(commit).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.writer.write(groups::Release(lease.clone())).await
    }

    async fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        groups::state(&self.reads, group, partition, key).await
    }

    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Result<(), StoreError> {
        self.writer.write(groups::Pause { group: group.into(), partition, paused }).await
    }

    async fn resume(&self, group: &str, partition: Option<u32>) -> Result<(), StoreError> {
        self.writer.write(groups::Resume { group: group.into(), partition }).await
    }

    async fn register(&self, host: &str, groups: &[String]) -> Result<(), StoreError> {
        self.writer.write(hosts::Register { host: host.into(), groups: groups.to_vec() }).await
    }

    async fn heartbeat(&self, host: &str) -> Result<bool, StoreError> {
        self.writer.write(hosts::Heartbeat(host.into())).await
    }

    async fn deregister(&self, host: &str) -> Result<(), StoreError> {
        self.writer.write(hosts::Deregister(host.into())).await
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, StoreError> {
        hosts::list(&self.reads, self.lock.is_held()).await
    }

    async fn report_handlers(&self, reports: &[HandlerReport]) -> Result<(), StoreError> {
        self.writer.write(hosts::Report(reports.to_vec())).await
    }

    async fn handlers(&self) -> Result<Vec<HandlerReport>, StoreError> {
        hosts::handlers(&self.reads).await
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        groups::progress(&self.reads).await
    }

    async fn changed(&self, at_most: Duration) {
        let asked = Instant::now();
        while !self.wakeup.is_due() {
            let left = at_most.saturating_sub(asked.elapsed());
            if left.is_zero() {
                break;
            }
            self.writer.look_for_changes();
            self.wakeup.sleep(left.min(POLL)).await;
        }
        self.wakeup.tell();
    }
}
