//! Reading events.

use pelton_core::{Event, Offset};
use sqlx::{Row, postgres::PgRow};

use super::{
    request::{Fault, Request, Transaction},
    sql::{self, Time},
};
use crate::ReadLimit;

/// Events of a partition.
///
/// Rows are fetched whole, so a limit of bytes must be known as one of events before they are: as many as fit if each is
/// as large as the largest ever appended to the partition. If they turn out smaller, the next piece follows.
pub(super) struct Read {
    pub(super) partition_id: i64,
    pub(super) from: Offset,
    pub(super) limit: ReadLimit,
}

impl Request for Read {
    type Answer = Vec<Event>;
    const DOING: &'static str = "reading events";
    const BEGIN: Option<&'static str> = None;

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<Event>, Fault> {
        let events_max = self.limit.events.max(1) as usize;
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut next = self.from;
        while events.len() < events_max {
            let rows = sqlx::query(transaction.sql.text(
                r#"SELECT "offset", time, id, key, kind, headers, payload,
                       (SELECT next_offset FROM @.stream_partitions WHERE id = $1)
                   FROM @.events WHERE partition_id = $1 AND "offset" >= $2 ORDER BY "offset"
                   LIMIT (SELECT greatest(1, least($3, $4 / greatest(1, event_bytes_largest)))
                          FROM @.stream_partitions WHERE id = $1)"#,
            ))
            .bind(self.partition_id)
            .bind(sql::int(next.0))
            .bind((events_max - events.len()) as i64)
            .bind(sql::int(self.limit.bytes.saturating_sub(bytes)))
            .fetch_all(&mut *transaction.connection)
            .await?;
            let Some(last) = rows.last() else { break };
            let head = Offset(sql::uint(last.try_get_unchecked(7)?));
            events.reserve(rows.len());
            for row in rows {
                let event = event(&row)?;
                bytes += event.bytes() as u64;
                // A gap can only open between two pieces: what it held was removed meanwhile, and the caller asks again.
                let follows = events.is_empty() || event.offset == next;
                if !follows || (bytes > self.limit.bytes && !events.is_empty()) {
                    return Ok(events);
                }
                next = event.offset.next();
                events.push(event);
            }
            if next >= head {
                break;
            }
        }
        Ok(events)
    }
}

/// By place and unchecked, for this is the hot path: the types are those of the schema.
fn event(row: &PgRow) -> Result<Event, sqlx::Error> {
    let headers: Option<&[u8]> = row.try_get_unchecked(5)?;
    let Time(time) = row.try_get_unchecked(1)?;
    Ok(Event {
        offset: Offset(sql::uint(row.try_get_unchecked(0)?)),
        time,
        id: row.try_get_unchecked(2)?,
        key: row.try_get_unchecked(3)?,
        kind: row.try_get_unchecked(4)?,
        headers: headers_of(headers)?,
        payload: row.try_get_unchecked(6)?,
    })
}

/// Headers as they are stored.
pub(super) fn headers_of(json: Option<&[u8]>) -> Result<Vec<(String, String)>, sqlx::Error> {
    let Some(json) = json else { return Ok(Vec::new()) };
    serde_json::from_slice(json).map_err(|error| sqlx::Error::Decode(error.into()))
}
