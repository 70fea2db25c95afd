//! Appending events: dense offsets and no id twice.

use std::{collections::BTreeMap, sync::Arc};

use pelton_core::{NewEvent, Offset, partition_of};
use sqlx::{Postgres, Row, postgres::PgArguments, query::Query};

use super::{
    connection::Connection,
    lane::Kind,
    request::Change,
    sql::{self, Sql},
    streams::{Known, Streams},
    wake::Wake,
};
use crate::{Appended, StoreError, rules};

/// Events to append to one stream.
pub(super) struct Append {
    pub(super) stream: String,
    pub(super) events: Vec<NewEvent>,
}

/// What appends share.
pub(super) struct Appends {
    pub(super) sql: Arc<Sql>,
    pub(super) streams: Arc<Streams>,
    pub(super) wake: Arc<Wake>,
}

impl Kind for Appends {
    type Work = Append;
    type Answer = Vec<Appended>;
    const DOING: &'static str = "appending events";

    fn bytes(work: &Append) -> usize {
        work.events.iter().map(NewEvent::bytes).sum()
    }

    fn forget(&self) {
        self.streams.forget();
    }

    async fn run(
        &self,
        connection: &mut Connection,
        works: &[&Append],
    ) -> Result<Vec<Result<Vec<Appended>, StoreError>>, sqlx::Error> {
        connection.begin_alone().await?;
        let mut rows = Rows::default();
        let mut answers = Vec::with_capacity(works.len());
        for work in works {
            let answer = match self.streams.find(&self.sql, connection, &work.stream).await? {
                None => Err(sql::unknown_stream(&self.sql, connection, &work.stream).await?),
                Some(known) => rules::check_events(&work.events, known.payload_bytes_max()).map(|()| {
                    let first = rows.len();
                    rows.add(&work.stream, &known, work.events.iter());
                    first
                }),
            };
            answers.push(answer);
        }
        let places = if rows.len() == 0 { Vec::new() } else { rows.append(&self.sql, connection).await? };
        connection.commit_alone().await?;
        if places.iter().any(|place| !place.duplicate) {
            self.wake.changed(Some(Change::Events));
        }
        let told = |(work, answer): (&&Append, Result<usize, StoreError>)| {
            let first = answer?;
            let places = places.get(first..).unwrap_or_default();
            let told = |(event, place): (&NewEvent, &Place)| Appended {
                partition: place.partition,
                offset: Offset(place.offset),
                id: event.id.clone(),
                duplicate: place.duplicate,
            };
            Ok(work.events.iter().zip(places).map(told).collect())
        };
        Ok(works.iter().zip(answers).map(told).collect())
    }
}

/// Where an event stands.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    partition: u32,
    offset: u64,
    pub(super) duplicate: bool,
}

/// Events that were checked, on their way into their partitions.
#[derive(Default)]
pub(super) struct Rows<'a> {
    /// In the order given.
    rows: Vec<(i64, u32, &'a NewEvent)>,
    /// The limits that they were checked against.
    limits: BTreeMap<&'a str, i64>,
}

impl<'a> Rows<'a> {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds events for a stream.
    pub(super) fn add(&mut self, stream: &'a str, known: &Known, events: impl Iterator<Item = &'a NewEvent>) {
        let partitions = known.ids.len() as u32;
        self.limits.insert(stream, known.limit);
        self.rows.extend(events.filter_map(|event| {
            let partition = partition_of(event.routing(), partitions);
            Some((*known.ids.get(partition as usize)?, partition, event))
        }));
    }

    /// Appends them in one statement, and says where each of them stands.
    pub(super) async fn append(&self, sql: &Sql, connection: &mut Connection) -> Result<Vec<Place>, sqlx::Error> {
        let arrays = Arrays::of(self)?;
        let query = sqlx::query(sql.text(
            "SELECT firsts, offsets, duplicates
             FROM @.append_checked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        ));
        let row = arrays.bind(query).fetch_one(connection).await?;
        let firsts: Vec<i64> = row.try_get(0)?;
        let offsets: Option<Vec<i64>> = row.try_get(1)?;
        let duplicates: Option<Vec<bool>> = row.try_get(2)?;
        let mut places = vec![Place::default(); self.len()];
        for (n, &index) in arrays.order.iter().enumerate() {
            let offset = match &offsets {
                Some(offsets) => offsets.get(n).copied(),
                None => firsts.get(arrays.at[n] as usize - 1).map(|first| first + i64::from(arrays.rank[n])),
            };
            let duplicate = duplicates.as_ref().and_then(|all| all.get(n)).copied().unwrap_or_default();
            let offset = sql::uint(offset.ok_or(sqlx::Error::RowNotFound)?);
            places[index] = Place { partition: self.rows[index].1, offset, duplicate };
        }
        Ok(places)
    }
}

/// The arguments of `append_checked`.
pub(super) struct Arrays<'a> {
    /// Where each event stands in the order given.
    order: Vec<usize>,
    streams: Vec<&'a str>,
    limits: Vec<i64>,
    ids: Vec<i64>,
    counts: Vec<i64>,
    largest: Vec<i64>,
    at: Vec<i32>,
    rank: Vec<i32>,
    event_ids: Vec<&'a str>,
    keys: Vec<Option<&'a str>>,
    kinds: Vec<&'a str>,
    headers: Vec<Option<Vec<u8>>>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Arrays<'a> {
    pub(super) fn of(rows: &Rows<'a>) -> Result<Self, sqlx::Error> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        // Stable: within a partition the order stays. By row, as everybody locks the counters.
        order.sort_by_key(|&index| rows.rows[index].0);
        let (streams, limits) = rows.limits.iter().map(|(stream, limit)| (*stream, *limit)).unzip();
        let event = |&index: &usize| rows.rows[index].2;
        let mut arrays = Self {
            streams,
            limits,
            ids: Vec::new(),
            counts: Vec::new(),
            largest: Vec::new(),
            at: Vec::with_capacity(order.len()),
            rank: Vec::with_capacity(order.len()),
            event_ids: order.iter().map(|index| event(index).id.as_str()).collect(),
            keys: order.iter().map(|index| event(index).key.as_deref()).collect(),
            kinds: order.iter().map(|index| event(index).kind.as_str()).collect(),
            headers: order.iter().map(|index| headers(&event(index).headers)).collect::<Result<_, _>>()?,
            payloads: order.iter().map(|index| event(index).payload.as_slice()).collect(),
            order: Vec::new(),
        };
        for &index in &order {
            let (id, _, event) = rows.rows[index];
            if arrays.ids.last() != Some(&id) {
                arrays.ids.push(id);
                arrays.counts.push(0);
                arrays.largest.push(0);
            }
            let at = arrays.ids.len();
            arrays.at.push(at as i32);
            arrays.rank.push(arrays.counts[at - 1] as i32);
            arrays.counts[at - 1] += 1;
            arrays.largest[at - 1] = arrays.largest[at - 1].max(event.bytes() as i64);
        }
        arrays.order = order;
        Ok(arrays)
    }

    /// Binds them, in the function's order.
    pub(super) fn bind<'q>(&'q self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(&self.streams)
            .bind(&self.limits)
            .bind(&self.ids)
            .bind(&self.counts)
            .bind(&self.largest)
            .bind(&self.at)
            .bind(&self.rank)
            .bind(&self.event_ids)
            .bind(&self.keys)
            .bind(&self.kinds)
            .bind(&self.headers)
            .bind(&self.payloads)
    }
}

/// Headers as they are stored.
pub(super) fn headers(headers: &[(String, String)]) -> Result<Option<Vec<u8>>, sqlx::Error> {
    if headers.is_empty() {
        return Ok(None);
    }
    serde_json::to_vec(headers).map(Some).map_err(|error| sqlx::Error::Encode(error.into()))
}
