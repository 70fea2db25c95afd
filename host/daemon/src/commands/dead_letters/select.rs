//! Which dead letters are meant.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use pelton_core::{LetterRequest, Offset};
use pelton_store::{GroupInfo, LetterInfo, LetterQuery, Store, StoreError};

use super::{
    letter::{id_of, parse_place},
    pages::{Pages, one},
};
use crate::{
    cli::{Looking, Narrowing, Which},
    commands::groups::find,
};

/// How many places an error lists.
const PLACES_MAX: usize = 5;

/// What a command line selects.
pub(super) struct Selected {
    pub(super) query: LetterQuery,
    /// The one that `--id` names.
    pub(super) one: Option<LetterInfo>,
}

/// Dead letters by their places.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places(pub(super) BTreeMap<u32, BTreeSet<Offset>>);

impl Places {
    pub(super) fn contains(&self, info: &LetterInfo) -> bool {
        self.0.get(&info.partition).is_some_and(|offsets| offsets.contains(&info.letter.event.offset))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.values().map(|offsets| offsets.len() as u64).sum()
    }

    pub(super) fn insert(&mut self, info: &LetterInfo) {
        self.0.entry(info.partition).or_default().insert(info.letter.event.offset);
    }
}

/// The group, and what is asked for of its dead letters.
pub(super) async fn select(
    store: &dyn Store,
    group: &str,
    which: &Which,
    narrowing: &Narrowing,
) -> anyhow::Result<(GroupInfo, Selected)> {
    let group = find(store, group).await?;
    let query = LetterQuery { key: which.key.clone(), ..narrowed(&group, narrowing)? };
    let Some(id) = &which.id else { return Ok((group, Selected { query, one: None })) };
    let one = by_id(store, &group.name, id, &query).await?;
    let query = LetterQuery { partition: Some(one.partition), offset: Some(one.letter.event.offset), ..query };
    Ok((group, Selected { query, one: Some(one) }))
}

/// The group, and what a person wants to see of its dead letters.
pub(super) async fn look(
    store: &dyn Store,
    group: &str,
    looking: &Looking,
) -> anyhow::Result<(GroupInfo, LetterQuery)> {
    let group = find(store, group).await?;
    let query = LetterQuery { key: looking.key.clone(), ..narrowed(&group, &looking.narrowing)? };
    let Some(id) = &looking.id else { return Ok((group, query)) };
    let one = by_id(store, &group.name, id, &query).await?;
    let query = LetterQuery { partition: Some(one.partition), offset: Some(one.letter.event.offset), ..query };
    Ok((group, query))
}

fn narrowed(group: &GroupInfo, narrowing: &Narrowing) -> Result<LetterQuery, StoreError> {
    let Narrowing { partition, class, reason } = narrowing.clone();
    let partitions = group.partitions.len() as u32;
    if let Some(partition) = partition.filter(|partition| *partition >= partitions) {
        let what = format!("group {:?}", group.name);
        return Err(StoreError::UnknownPartition { what, partition, partitions });
    }
    Ok(LetterQuery { partition, class, reason, ..LetterQuery::default() })
}

/// The dead letter of this id among those that `query` takes: at that place or, if there is none, of the event that is
/// called so.
pub(super) async fn by_id(store: &dyn Store, group: &str, id: &str, query: &LetterQuery) -> anyhow::Result<LetterInfo> {
    if let Some((partition, offset)) = parse_place(id)
        && query.partition.is_none_or(|wanted| wanted == partition)
    {
        let query = LetterQuery { partition: Some(partition), offset: Some(offset), ..query.clone() };
        if let Some(found) = Pages::new(store, group, query).next().await? {
            return Ok(found);
        }
    }
    let query = LetterQuery { event_id: Some(id.into()), ..query.clone() };
    let mut pages = Pages::new(store, group, query);
    let Some(found) = pages.next().await? else {
        return Err(StoreError::NoLetter { group: group.into(), id: id.into() }.into());
    };
    let mut places = vec![id_of(&found)];
    while let Some(other) = pages.next().await? {
        places.push(id_of(&other));
        if places.len() == PLACES_MAX {
            break;
        }
    }
    if places.len() > 1 {
        let places = places.join(", ");
        bail!("group {group:?} has more than one dead letter of event {id:?}; name one by its place: {places}");
    }
    Ok(found)
}

/// All that a request reaches: a replay of any event of a parked key is one of all that waits in it.
pub(super) async fn reached(
    store: &dyn Store,
    group: &str,
    query: &LetterQuery,
    request: LetterRequest,
) -> Result<Places, StoreError> {
    let (mut places, mut keys) = (Places::default(), BTreeSet::new());
    let mut pages = Pages::new(store, group, query.clone());
    while let Some(info) = pages.next().await? {
        places.insert(&info);
        keys.extend(info.letter.event.key.filter(|_| info.letter.parks).map(|key| (info.partition, key)));
    }
    let is_part = query.offset.is_some() || query.class.is_some() || query.reason.is_some();
    if request != LetterRequest::Replay || !is_part || keys.is_empty() {
        return Ok(places);
    }
    let key = keys.first().filter(|_| keys.len() == 1).map(|(_, key)| key.clone());
    let around = LetterQuery { partition: query.partition, key, ..LetterQuery::default() };
    let mut pages = Pages::new(store, group, around);
    while let Some(info) = pages.next().await? {
        let key = info.letter.event.key.clone().filter(|_| info.letter.parks);
        if key.is_some_and(|key| keys.contains(&(info.partition, key))) {
            places.insert(&info);
        }
    }
    Ok(places)
}

/// A dead letter that is there still, or again: without its event, since there may be many.
pub(super) struct There {
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) request: Option<LetterRequest>,
}

impl From<LetterInfo> for There {
    fn from(info: LetterInfo) -> Self {
        Self { partition: info.partition, offset: info.letter.event.offset, request: info.letter.request }
    }
}

/// Those of these dead letters that are there.
pub(super) async fn still_there(store: &dyn Store, group: &str, places: &Places) -> Result<Vec<There>, StoreError> {
    let mut there = Vec::new();
    for (partition, offsets) in &places.0 {
        // A few are asked for one by one, many are read past.
        if offsets.len() <= 100 {
            for offset in offsets {
                there.extend(one(store, group, *partition, *offset).await?.map(There::from));
            }
            continue;
        }
        let query = LetterQuery { partition: Some(*partition), ..LetterQuery::default() };
        let mut pages = Pages::new(store, group, query);
        while let Some(info) = pages.next().await? {
            if offsets.contains(&info.letter.event.offset) {
                there.push(info.into());
            }
        }
    }
    Ok(there)
}
