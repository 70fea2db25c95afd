//! Streams: declaring and listing them.

use pelton_core::Offset;
use sqlx::SqlitePool;

use super::{
    sql,
    transaction::{Fault, Transaction, Write},
};
use crate::{StoreError, StreamInfo, StreamPartition, StreamSpec, rules};

/// Creates a stream, or checks that it is as declared.
pub(super) struct Declare(pub(super) StreamSpec);

impl Write for Declare {
    type Answer = ();
    const DOING: &'static str = "declaring a stream";

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), Fault> {
        let spec = &self.0;
        let declared = rules::partitions(spec);
        let payload_bytes_max = sql::int(spec.payload_bytes_max);
        let retention_ms = spec.retention_ms.map(sql::int);
        if let Some(stream) = transaction.stream(&spec.name).await? {
            let found = stream.partitions.len() as u32;
            if found != declared {
                return Err(StoreError::PartitionsDiffer { stream: spec.name.clone(), declared, found }.into());
            }
            let same = stream.payload_bytes_max == sql::uint(payload_bytes_max);
            if same && stream.retention_ms == retention_ms.map(sql::uint) {
                return Ok(());
            }
            sqlx::query("UPDATE streams SET payload_bytes_max = ?, retention_ms = ? WHERE name = ?")
                .bind(payload_bytes_max)
                .bind(retention_ms)
                .bind(&spec.name)
                .execute(&mut *transaction.connection)
                .await?;
            // Its counters may be moved and not written yet.
            transaction.write_counters().await?;
            transaction.log.forget_stream(&spec.name);
            return Ok(());
        }
        sqlx::query("INSERT INTO streams (name, partitions, payload_bytes_max, retention_ms) VALUES (?, ?, ?, ?)")
            .bind(&spec.name)
            .bind(declared)
            .bind(payload_bytes_max)
            .bind(retention_ms)
            .execute(&mut *transaction.connection)
            .await?;
        sqlx::query(
            "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
             INSERT INTO stream_partitions (stream, partition) SELECT ?1, n FROM numbers",
        )
        .bind(&spec.name)
        .bind(declared)
        .execute(&mut *transaction.connection)
        .await?;
        transaction.wakes = true;
        Ok(())
    }
}

/// All streams, by name.
pub(super) async fn list(reads: &SqlitePool) -> Result<Vec<StreamInfo>, StoreError> {
    let rows: Vec<(String, u32, i64, Option<i64>, i64, i64)> = sqlx::query_as(
        "SELECT s.name, s.partitions, s.payload_bytes_max, s.retention_ms, p.first_offset, p.next_offset
         FROM streams s JOIN stream_partitions p ON p.stream = s.name ORDER BY s.name, p.partition",
    )
    .fetch_all(reads)
    .await
    .map_err(|error| sql::unavailable("listing streams", &error))?;
    let mut streams: Vec<StreamInfo> = Vec::new();
    for (name, partitions, payload_bytes_max, retention_ms, first, head) in rows {
        let partition = StreamPartition { first: Offset(sql::uint(first)), head: Offset(sql::uint(head)) };
        match streams.last_mut().filter(|stream| stream.spec.name == name) {
            Some(stream) => stream.partitions.push(partition),
            None => {
                let (payload_bytes_max, retention_ms) = (sql::uint(payload_bytes_max), retention_ms.map(sql::uint));
                let spec = StreamSpec { name, partitions, payload_bytes_max, retention_ms };
                streams.push(StreamInfo { spec, partitions: vec![partition] });
            }
        }
    }
    Ok(streams)
}
