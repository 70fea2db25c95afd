//! What one write sees of the transaction it is part of.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    future::Future,
};

use pelton_core::Timestamp;
use sqlx::SqliteConnection;

use super::sql;
use crate::StoreError;

/// One request to the writer. It may share its transaction with others, and run twice if that one is rolled back.
pub(super) trait Write: Send + Sync + 'static {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// For messages: "store is unavailable while …".
    const DOING: &'static str;

    /// Roughly what it holds, in bytes: bounds what is merged into one transaction.
    fn bytes(&self) -> usize {
        0
    }

    /// Whether it may be lost when the machine dies, if the store's durability is relaxed.
    fn may_be_lost(&self) -> bool {
        false
    }

    /// Whether it means nothing any more once the machine died, whatever the store's durability.
    fn ends_with_machine(&self) -> bool {
        false
    }

    /// Runs it. A write that is refused has written nothing: what it shares the transaction with commits.
    fn run(&self, transaction: &mut Transaction<'_>) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;

    /// The answer if SQLite refuses its data, alone in its transaction.
    fn refused(&self, reason: &sqlx::Error) -> Result<Self::Answer, StoreError> {
        Err(sql::unavailable(Self::DOING, reason))
    }
}

/// Why a write did not go through.
pub(super) enum Fault {
    /// It asks for something that cannot be. Nothing was written.
    Refused(StoreError),
    /// A statement failed, and the whole transaction with it.
    Failed(sqlx::Error),
}

impl Fault {
    /// What a reader says of it, who has nothing to roll back.
    pub(super) fn into_error(self, doing: &'static str) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Failed(error) => sql::unavailable(doing, &error),
        }
    }
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

/// A transaction under the write lock.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) log: &'a mut Log,
    pub(super) now: Timestamp,
    /// Whether those who wait for a change are woken after the commit.
    pub(super) wakes: bool,
}

/// The streams as the writer knows them: valid for as long as nobody else writes to the file, which `data_version`
/// tells at the start of every transaction.
#[derive(Default)]
pub(super) struct Log {
    streams: BTreeMap<String, LogStream>,
    /// Counters that were moved and not written yet, by the partition's id: merged appends write each of them once.
    moved: BTreeMap<i64, Counter>,
}

pub(super) struct LogStream {
    pub(super) payload_bytes_max: u64,
    pub(super) retention_ms: Option<u64>,
    pub(super) partitions: Vec<LogPartition>,
}

pub(super) struct LogPartition {
    pub(super) id: i64,
    pub(super) counter: Counter,
}

#[derive(Clone, Copy)]
pub(super) struct Counter {
    /// The offset the next event gets.
    pub(super) next: u64,
    /// The largest event ever appended, in bytes.
    pub(super) largest: u64,
}

impl Log {
    /// Somebody else wrote, or a transaction was rolled back: nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.streams.clear();
        self.moved.clear();
    }

    pub(super) fn forget_stream(&mut self, stream: &str) {
        self.streams.remove(stream);
    }

    /// Notes that a partition's counter was moved.
    pub(super) fn move_counter(&mut self, stream: &str, partition: u32, counter: Counter) {
        let found = self.streams.get_mut(stream).and_then(|stream| stream.partitions.get_mut(partition as usize));
        if let Some(found) = found {
            found.counter = counter;
            self.moved.insert(found.id, counter);
        }
    }
}

impl Transaction<'_> {
    /// A stream with its counters, if it exists.
    pub(super) async fn stream(&mut self, name: &str) -> Result<Option<&LogStream>, sqlx::Error> {
        match self.log.streams.entry(name.to_owned()) {
            Entry::Occupied(entry) => Ok(Some(entry.into_mut())),
            Entry::Vacant(entry) => match load(self.connection, name).await? {
                Some(stream) => Ok(Some(entry.insert(stream))),
                None => Ok(None),
            },
        }
    }

    /// The counter of a partition of a stream that was looked up in this transaction.
    pub(super) fn counter(&self, stream: &str, partition: u32) -> Option<Counter> {
        Some(self.log.streams.get(stream)?.partitions.get(partition as usize)?.counter)
    }

    /// Writes the counters that were moved: before the commit, and before any statement that reads them.
    pub(super) async fn write_counters(&mut self) -> Result<(), sqlx::Error> {
        while let Some((id, counter)) = self.log.moved.pop_first() {
            sqlx::query("UPDATE stream_partitions SET next_offset = ?, event_bytes_largest = ? WHERE id = ?")
                .bind(sql::int(counter.next))
                .bind(sql::int(counter.largest))
                .bind(id)
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(())
    }
}

async fn load(connection: &mut SqliteConnection, name: &str) -> Result<Option<LogStream>, sqlx::Error> {
    let rows: Vec<(i64, Option<i64>, i64, i64, i64)> = sqlx::query_as(
        "SELECT s.payload_bytes_max, s.retention_ms, p.id, p.next_offset, p.event_bytes_largest
         FROM streams s JOIN stream_partitions p ON p.stream = s.name WHERE s.name = ? ORDER BY p.partition",
    )
    .bind(name)
    .fetch_all(connection)
    .await?;
    let Some((payload_bytes_max, retention_ms, ..)) = rows.first() else { return Ok(None) };
    let (payload_bytes_max, retention_ms) = (sql::uint(*payload_bytes_max), retention_ms.map(sql::uint));
    let partition = |(_, _, id, next, largest): (i64, Option<i64>, i64, i64, i64)| {
        let counter = Counter { next: sql::uint(next), largest: sql::uint(largest) };
        LogPartition { id, counter }
    };
    Ok(Some(LogStream { payload_bytes_max, retention_ms, partitions: rows.into_iter().map(partition).collect() }))
}
