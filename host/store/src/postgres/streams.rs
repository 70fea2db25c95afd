//! Streams: declaring and listing them, and what is remembered of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use pelton_core::Offset;

use super::{
    connection::Connection,
    request::{Change, Fault, Request, Transaction},
    sql::{self, Sql},
};
use crate::{StoreError, StreamInfo, StreamPartition, StreamSpec, rules};

/// PostgreSQL's own limit is 10⁹ bytes a value; this leaves room for what it is sent with, whatever a stream is declared
/// with.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// A stream as it was last seen. Its partitions stay for ever; its limit may change, and every statement that relies on it
/// says what it took it to be.
pub(super) struct Known {
    /// As stored.
    pub(super) limit: i64,
    /// By number.
    pub(super) ids: Vec<i64>,
}

impl Known {
    /// The largest payload, in bytes.
    pub(super) fn payload_bytes_max(&self) -> u64 {
        sql::uint(self.limit).min(PAYLOAD_BYTES_MAX)
    }
}

/// What is remembered of streams.
#[derive(Default)]
pub(super) struct Streams(RwLock<BTreeMap<String, Arc<Known>>>);

impl Streams {
    /// A stream that was seen before.
    pub(super) fn known(&self, stream: &str) -> Option<Arc<Known>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned()
    }

    /// A stream; `None` if there is none of this name.
    pub(super) async fn find(
        &self,
        sql: &Sql,
        connection: &mut Connection,
        stream: &str,
    ) -> Result<Option<Arc<Known>>, sqlx::Error> {
        if let Some(known) = self.known(stream) {
            return Ok(Some(known));
        }
        let found: Option<(i64, Vec<i64>)> = sqlx::query_as(sql.text(
            "SELECT s.payload_bytes_max, array(SELECT p.id FROM @.stream_partitions p
                                               WHERE p.stream = s.name ORDER BY p.partition)
             FROM @.streams s WHERE s.name = $1",
        ))
        .bind(stream)
        .fetch_optional(connection)
        .await?;
        let Some((limit, ids)) = found else { return Ok(None) };
        let known = Arc::new(Known { limit, ids });
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(stream.into(), Arc::clone(&known));
        Ok(Some(known))
    }

    /// Something that is remembered turned out to be out of date.
    pub(super) fn forget(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Looks a stream up.
pub(super) struct Find<'a> {
    pub(super) streams: &'a Streams,
    pub(super) stream: &'a str,
}

impl Request for Find<'_> {
    type Answer = Arc<Known>;
    const DOING: &'static str = "looking up a stream";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Arc<Known>, Fault> {
        match self.streams.find(transaction.sql, transaction.connection, self.stream).await? {
            Some(known) => Ok(known),
            None => Err(sql::unknown_stream(transaction.sql, transaction.connection, self.stream).await?.into()),
        }
    }
}

/// Creates a stream, or checks that it is as declared.
pub(super) struct Declare<'a>(pub(super) &'a StreamSpec);

impl Request for Declare<'_> {
    type Answer = ();
    const DOING: &'static str = "declaring a stream";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let Transaction { connection, sql, wakes } = transaction;
        let spec = self.0;
        let declared = rules::partitions(spec);
        let payload_bytes_max = sql::int(spec.payload_bytes_max);
        let retention_ms = spec.retention_ms.map(sql::int);
        let found = "SELECT partitions, payload_bytes_max, retention_ms FROM @.streams WHERE name = $1";
        let mut found: Option<(i32, i64, Option<i64>)> =
            sqlx::query_as(sql.text(found)).bind(&spec.name).fetch_optional(&mut **connection).await?;
        if found.is_none() {
            // One stream after the other: everybody locks counters in the order of their ids, and those of two streams that
            // are created at once must not interleave.
            sqlx::query(sql.text("LOCK TABLE @.streams IN SHARE ROW EXCLUSIVE MODE"))
                .execute(&mut **connection)
                .await?;
            let created = sqlx::query(sql.text(
                "INSERT INTO @.streams (name, partitions, payload_bytes_max, retention_ms) VALUES ($1, $2, $3, $4)
                 ON CONFLICT DO NOTHING",
            ))
            .bind(&spec.name)
            .bind(sql::partition(declared))
            .bind(payload_bytes_max)
            .bind(retention_ms)
            .execute(&mut **connection)
            .await?;
            if created.rows_affected() == 1 {
                // In order: rows are locked by their ids everywhere.
                sqlx::query(sql.text(
                    "INSERT INTO @.stream_partitions (stream, partition)
                     SELECT $1, n FROM generate_series(0, $2 - 1) n ORDER BY n",
                ))
                .bind(&spec.name)
                .bind(sql::partition(declared))
                .execute(&mut **connection)
                .await?;
                *wakes = Some(Change::Events);
                return Ok(());
            }
            // Somebody was faster.
            let again = "SELECT partitions, payload_bytes_max, retention_ms FROM @.streams WHERE name = $1 FOR SHARE";
            found = sqlx::query_as(sql.text(again)).bind(&spec.name).fetch_optional(&mut **connection).await?;
        }
        let Some((partitions, limit, retention)) = found else { return Err(sqlx::Error::RowNotFound.into()) };
        let found = u32::try_from(partitions).unwrap_or_default();
        if found != declared {
            return Err(StoreError::PartitionsDiffer { stream: spec.name.clone(), declared, found }.into());
        }
        if (limit, retention) != (payload_bytes_max, retention_ms) {
            sqlx::query(sql.text("UPDATE @.streams SET payload_bytes_max = $2, retention_ms = $3 WHERE name = $1"))
                .bind(&spec.name)
                .bind(payload_bytes_max)
                .bind(retention_ms)
                .execute(&mut **connection)
                .await?;
        }
        Ok(())
    }
}

/// All streams, by name.
pub(super) struct List;

impl Request for List {
    type Answer = Vec<StreamInfo>;
    const DOING: &'static str = "listing streams";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<StreamInfo>, Fault> {
        let rows: Vec<(String, i32, i64, Option<i64>, i64, i64)> = sqlx::query_as(transaction.sql.text(
            "SELECT s.name, s.partitions, s.payload_bytes_max, s.retention_ms, p.first_offset, p.next_offset
             FROM @.streams s JOIN @.stream_partitions p ON p.stream = s.name ORDER BY s.name, p.partition",
        ))
        .fetch_all(&mut *transaction.connection)
        .await?;
        let mut streams: Vec<StreamInfo> = Vec::new();
        for (name, partitions, payload_bytes_max, retention, first, head) in rows {
            let partition = StreamPartition { first: Offset(sql::uint(first)), head: Offset(sql::uint(head)) };
            match streams.last_mut().filter(|stream| stream.spec.name == name) {
                Some(stream) => stream.partitions.push(partition),
                None => {
                    let (partitions, payload_bytes_max) =
                        (u32::try_from(partitions).unwrap_or_default(), sql::uint(payload_bytes_max));
                    let retention_ms = retention.map(sql::uint);
                    let spec = StreamSpec { name, partitions, payload_bytes_max, retention_ms };
                    streams.push(StreamInfo { spec, partitions: vec![partition] });
                }
            }
        }
        Ok(streams)
    }
}
