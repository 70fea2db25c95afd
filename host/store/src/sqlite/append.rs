//! Appending events: dense offsets and no id twice.

use std::{collections::BTreeMap, sync::LazyLock};

use pelton_core::{NewEvent, Offset, partition_of};
use sqlx::SqliteConnection;

use super::{
    multi_row::{self, MultiRow},
    sql,
    transaction::{Counter, Fault, Transaction, Write},
};
use crate::{Appended, rules};

/// SQLite's own limit is 10⁹ bytes a row; this leaves room for the rest of it, whatever a stream is declared with.
const PAYLOAD_BYTES_MAX: u64 = 900_000_000;

/// Events to append to one stream.
pub(super) struct Append {
    pub(super) stream: String,
    pub(super) events: Vec<NewEvent>,
}

impl Write for Append {
    type Answer = Vec<Appended>;
    const DOING: &'static str = "appending events";

    fn bytes(&self) -> usize {
        self.events.iter().map(NewEvent::bytes).sum()
    }

    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<Vec<Appended>, Fault> {
        let Some(payload_bytes_max) = payload_bytes_max(transaction, &self.stream).await? else {
            return Err(sql::unknown_stream(&mut *transaction.connection, &self.stream).await?.into());
        };
        rules::check_events(&self.events, payload_bytes_max).map_err(Fault::Refused)?;
        let events: Vec<&NewEvent> = self.events.iter().collect();
        let places = append(transaction, &self.stream, &events).await?;
        let told = |(place, event): (Place, &NewEvent)| Appended {
            partition: place.partition,
            offset: Offset(place.offset),
            id: event.id.clone(),
            duplicate: place.duplicate,
        };
        Ok(places.into_iter().zip(&self.events).map(told).collect())
    }
}

/// The largest payload of a stream, in bytes, if the stream exists.
pub(super) async fn payload_bytes_max(
    transaction: &mut Transaction<'_>,
    stream: &str,
) -> Result<Option<u64>, sqlx::Error> {
    Ok(transaction.stream(stream).await?.map(|stream| stream.payload_bytes_max.min(PAYLOAD_BYTES_MAX)))
}

/// Where an event stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    partition: u32,
    offset: u64,
    duplicate: bool,
}

/// An event on its way into its partition.
#[derive(Clone, Copy)]
struct Row<'a> {
    /// In the batch.
    index: usize,
    partition: u32,
    partition_id: i64,
    event: &'a NewEvent,
}

/// Appends events that were checked, to a stream that exists, and says where each of them stands.
pub(super) async fn append<'e>(
    transaction: &mut Transaction<'_>,
    stream: &str,
    events: &[&'e NewEvent],
) -> Result<Vec<Place>, sqlx::Error> {
    let Some(found) = transaction.stream(stream).await? else { return Err(sqlx::Error::RowNotFound) };
    let partitions = found.partitions.len() as u32;
    let row = |(index, event): (usize, &&'e NewEvent)| {
        let partition = partition_of(event.routing(), partitions);
        Row { index, partition, partition_id: found.partitions[partition as usize].id, event }
    };
    let mut rows: Vec<Row<'_>> = events.iter().enumerate().map(row).collect();
    // Stable: within a partition the order stays. Neighbours go to the same pages.
    rows.sort_by_key(|row| row.partition);

    let mut places = vec![Place { partition: 0, offset: 0, duplicate: false }; events.len()];
    let mut rest = &rows[..];
    while !rest.is_empty() {
        let (count, statement) = INSERT.first_of(multi_row::fitting(rest.iter().map(|row| row.event.payload.len())));
        let (now, later) = rest.split_at(count);
        match insert(transaction, stream, now, statement, &mut places).await {
            // The index finds duplicates for nothing; only when it has found some are they looked for.
            Err(error) if sql::is_duplicate(&error) => insert_new(transaction, stream, now, &mut places).await?,
            end => end?,
        }
        rest = later;
    }
    Ok(places)
}

static INSERT: LazyLock<MultiRow> = LazyLock::new(|| {
    let into = r#"INSERT INTO events (partition_id, "offset", id, key, kind, time, headers, payload) VALUES"#;
    MultiRow::new(into, "(?, ?, ?, ?, ?, ?, ?, ?)", "")
});

/// Gives out offsets and inserts. A statement that fails has inserted nothing, and no counter has moved.
async fn insert(
    transaction: &mut Transaction<'_>,
    stream: &str,
    rows: &[Row<'_>],
    statement: &'static str,
    places: &mut [Place],
) -> Result<(), sqlx::Error> {
    let time = sql::int(transaction.now.0);
    let mut counters: BTreeMap<u32, Counter> = BTreeMap::new();
    let mut query = sqlx::query(statement);
    for row in rows {
        let counter = match counters.get_mut(&row.partition) {
            Some(counter) => counter,
            None => {
                let found = transaction.counter(stream, row.partition).ok_or(sqlx::Error::RowNotFound)?;
                counters.entry(row.partition).or_insert(found)
            }
        };
        places[row.index] = Place { partition: row.partition, offset: counter.next, duplicate: false };
        query = query
            .bind(row.partition_id)
            .bind(sql::int(counter.next))
            .bind(row.event.id.as_str())
            .bind(row.event.key.as_deref())
            .bind(row.event.kind.as_str())
            .bind(time)
            .bind(sql::headers(&row.event.headers)?)
            .bind(row.event.payload.as_slice());
        counter.next += 1;
        counter.largest = counter.largest.max(row.event.bytes() as u64);
    }
    query.execute(&mut *transaction.connection).await?;
    for (partition, counter) in counters {
        transaction.log.move_counter(stream, partition, counter);
    }
    transaction.wakes = true;
    Ok(())
}

/// Inserts those of the rows whose ids are new, and finds the places of the others.
async fn insert_new(
    transaction: &mut Transaction<'_>,
    stream: &str,
    rows: &[Row<'_>],
    places: &mut [Place],
) -> Result<(), sqlx::Error> {
    let known = offsets_by_id(transaction.connection, rows).await?;
    let mut new = Vec::with_capacity(rows.len());
    // The first of each id, and those that repeat it.
    let mut firsts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut repeats = Vec::new();
    for row in rows {
        let id = row.event.id.as_str();
        if let Some(offset) = known.get(&(row.partition_id, id.to_owned())) {
            places[row.index] = Place { partition: row.partition, offset: *offset, duplicate: true };
        } else if let Some(first) = firsts.get(&(row.partition, id)) {
            repeats.push((row.index, *first));
        } else {
            firsts.insert((row.partition, id), row.index);
            new.push(*row);
        }
    }
    let mut rest = &new[..];
    while !rest.is_empty() {
        let (count, statement) = INSERT.first_of(rest.len());
        let (now, later) = rest.split_at(count);
        insert(transaction, stream, now, statement, places).await?;
        rest = later;
    }
    for (index, first) in repeats {
        places[index] = Place { duplicate: true, ..places[first] };
    }
    Ok(())
}

/// The offsets of those ids that are there already, by the partition's id and theirs.
async fn offsets_by_id(
    connection: &mut SqliteConnection,
    rows: &[Row<'_>],
) -> Result<BTreeMap<(i64, String), u64>, sqlx::Error> {
    // The join is told its order: the wanted ids are few, the events are not.
    static FIND: LazyLock<MultiRow> = LazyLock::new(|| {
        let select = r#") SELECT e.partition_id, e.id, e."offset" FROM wanted w
            CROSS JOIN events e ON e.partition_id = w.partition_id AND e.id = w.id"#;
        MultiRow::new("WITH wanted (partition_id, id) AS (VALUES", "(?, ?)", select)
    });
    let mut found = BTreeMap::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (count, statement) = FIND.first_of(rest.len());
        let (now, later) = rest.split_at(count);
        let mut query = sqlx::query_as::<_, (i64, String, i64)>(statement);
        for row in now {
            query = query.bind(row.partition_id).bind(row.event.id.as_str());
        }
        let rows = query.fetch_all(&mut *connection).await?;
        found.extend(rows.into_iter().map(|(partition_id, id, offset)| ((partition_id, id), sql::uint(offset))));
        rest = later;
    }
    Ok(found)
}
