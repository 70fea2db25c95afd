//! Reading events.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use pelton_core::{Event, Offset, Timestamp};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::sql;
use crate::{ReadLimit, StoreError, rules};

const DOING: &str = "reading events";

/// The ids of streams' partitions. A stream once created keeps its partitions for ever, so what was found stays true.
#[derive(Default)]
pub(super) struct PartitionIds(Mutex<BTreeMap<String, Arc<[i64]>>>);

impl PartitionIds {
    /// The id of a stream's partition.
    pub(super) async fn find(&self, reads: &SqlitePool, stream: &str, partition: u32) -> Result<i64, StoreError> {
        let ids = match self.known(stream) {
            Some(ids) => ids,
            None => self.load(reads, stream).await?,
        };
        let found = ids.get(partition as usize).copied();
        found.ok_or_else(|| rules::unknown_stream_partition(stream, partition, ids.len() as u32))
    }

    fn known(&self, stream: &str) -> Option<Arc<[i64]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(stream).cloned()
    }

    async fn load(&self, reads: &SqlitePool, stream: &str) -> Result<Arc<[i64]>, StoreError> {
        let failed = |error: sqlx::Error| sql::unavailable(DOING, &error);
        let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM stream_partitions WHERE stream = ? ORDER BY partition")
            .bind(stream)
            .fetch_all(reads)
            .await
            .map_err(failed)?;
        if ids.is_empty() {
            return Err(sql::unknown_stream(reads, stream).await.map_err(failed)?);
        }
        let ids: Arc<[i64]> = ids.into();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.into(), ids.clone());
        Ok(ids)
    }
}

/// Events of a partition.
///
/// Rows are fetched whole, so a limit of bytes must be known as one of events before they are: as many as fit if each is
/// as large as the largest ever appended to the partition. If they turn out smaller, the next piece follows.
pub(super) async fn events(
    reads: &SqlitePool,
    partition_id: i64,
    from: Offset,
    limit: ReadLimit,
) -> Result<Vec<Event>, StoreError> {
    let failed = |error: sqlx::Error| sql::unavailable(DOING, &error);
    let mut connection = reads.acquire().await.map_err(failed)?;
    let events_max = limit.events.max(1) as usize;
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut next = from;
    while events.len() < events_max {
        let rows = sqlx::query(
            r#"SELECT "offset", time, id, key, kind, headers, payload FROM events
               WHERE partition_id = ?1 AND "offset" >= ?2 ORDER BY "offset"
               LIMIT (SELECT max(1, min(?3, ?4 / max(1, event_bytes_largest))) FROM stream_partitions WHERE id = ?1)"#,
        )
        .bind(partition_id)
        .bind(sql::int(next.0))
        .bind((events_max - events.len()) as i64)
        .bind(sql::int(limit.bytes.saturating_sub(bytes)))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
        if rows.is_empty() {
            break;
        }
        events.reserve(rows.len());
        for row in rows {
            let event = event(&row).map_err(failed)?;
            bytes += event.bytes() as u64;
            // A gap can only open between two pieces: what it held was removed meanwhile, and the caller asks again.
            let follows = events.is_empty() || event.offset == next;
            if !follows || (bytes > limit.bytes && !events.is_empty()) {
                return Ok(events);
            }
            next = event.offset.next();
            events.push(event);
        }
    }
    Ok(events)
}

/// The event at an offset, if it is there.
pub(super) async fn event_at(
    connection: &mut SqliteConnection,
    partition_id: i64,
    at: Offset,
) -> Result<Option<Event>, sqlx::Error> {
    let row = sqlx::query(
        r#"SELECT "offset", time, id, key, kind, headers, payload FROM events
           WHERE partition_id = ? AND "offset" = ?"#,
    )
    .bind(partition_id)
    .bind(sql::int(at.0))
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(event).transpose()
}

/// The first offset of a partition whose event was appended at a time or later.
///
/// Read from the first event on: clocks step back, so times are not sorted and there is no index to trust. Somebody who
/// moves a group by hand can wait for it.
pub(super) async fn offset_at(reads: &SqlitePool, partition_id: i64, time: Timestamp) -> Result<Offset, StoreError> {
    let found: Result<i64, sqlx::Error> = sqlx::query_scalar(
        r#"SELECT coalesce((SELECT "offset" FROM events e WHERE e.partition_id = p.id AND e.time >= ?2
                            ORDER BY "offset" LIMIT 1), next_offset)
           FROM stream_partitions p WHERE id = ?1"#,
    )
    .bind(partition_id)
    .bind(sql::int(time.0))
    .fetch_one(reads)
    .await;
    found.map(|offset| Offset(sql::uint(offset))).map_err(|error| sql::unavailable("looking for a time", &error))
}

/// From the first seven columns: offset, time, id, key, kind, headers, payload. By place and unchecked, for this is the
/// hot path: the types are those of the schema.
pub(super) fn event(row: &SqliteRow) -> Result<Event, sqlx::Error> {
    let headers: Option<&str> = row.try_get_unchecked(5)?;
    Ok(Event {
        offset: Offset(sql::uint(row.try_get_unchecked(0)?)),
        time: Timestamp(sql::uint(row.try_get_unchecked(1)?)),
        id: row.try_get_unchecked(2)?,
        key: row.try_get_unchecked(3)?,
        kind: row.try_get_unchecked(4)?,
        headers: match headers {
            Some(json) => serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))?,
            None => Vec::new(),
        },
        payload: row.try_get_unchecked(6)?,
    })
}
