//! Dead letters, remembered ids and retention, in memory.

use std::collections::BTreeSet;

use pelton_core::{Commit, DeadLetter, Event, LetterRequest, Mark, Offset, Settled, Timestamp};

use super::{Data, Group, Partition, Seat};
use crate::{LetterInfo, LetterQuery, ParkedKey, ReadLimit, StoreError, rules};

impl Seat {
    /// What a commit does to dead letters and remembered ids.
    pub(super) fn store_letters(&mut self, commit: &Commit, now: Timestamp) {
        for settled in &commit.settled {
            match settled {
                Settled::Gone(offset) => drop(self.letters.remove(offset)),
                Settled::Back { offset, failure, digest } => self.put_back(*offset, failure, digest.as_ref()),
            }
        }
        for letter in &commit.set_aside {
            let mut letter = letter.clone();
            // It is replayed with those it waits behind.
            let replays = self.queue_of(&letter).any(|(_, ahead)| ahead.request == Some(LetterRequest::Replay));
            letter.request = replays.then_some(LetterRequest::Replay);
            self.letters.insert(letter.event.offset, letter);
        }
        let forgotten = commit.forgotten();
        if !forgotten.is_empty() {
            self.remembered.retain(|_, (offset, _)| !forgotten.contains(offset));
        }
        for (offset, id) in &commit.remembered {
            self.remembered.entry(id.clone()).or_insert((*offset, now));
        }
    }

    fn put_back(&mut self, offset: Offset, failure: &pelton_core::Failure, digest: Option<&String>) {
        let Some(letter) = self.letters.get_mut(&offset) else { return };
        letter.failure = failure.clone();
        letter.digest = digest.cloned();
        letter.request = None;
        let key = letter.event.key.clone().filter(|_| letter.parks);
        for letter in self.letters.values_mut() {
            if key.is_some() && letter.parks && letter.event.key == key && letter.request == Some(LetterRequest::Replay)
            {
                letter.request = None;
            }
        }
    }

    /// What waits in the key of a letter that parks; nothing for any other.
    fn queue_of(&self, letter: &DeadLetter) -> impl Iterator<Item = (&Offset, &DeadLetter)> {
        let key = letter.event.key.clone().filter(|_| letter.parks);
        let all = key.is_some().then(|| self.letters.iter());
        all.into_iter().flatten().filter(move |(_, other)| other.parks && other.event.key == key)
    }

    pub(super) fn parked_keys(&self) -> Vec<(String, u64)> {
        let heads = self.letters.values().filter(|letter| self.behind(letter).is_none());
        let parked = heads.filter(|letter| letter.parks);
        parked.filter_map(|head| Some((head.event.key.clone()?, self.queue_of(head).count() as u64))).collect()
    }

    pub(super) fn is_letter_requested(&self) -> bool {
        self.letters.values().any(|letter| letter.request.is_some())
    }

    /// The first of its parked key, if that is another one.
    fn behind(&self, letter: &DeadLetter) -> Option<Offset> {
        self.queue_of(letter).map(|(offset, _)| *offset).next().filter(|first| *first != letter.event.offset)
    }

    fn matches(&self, partition: u32, letter: &DeadLetter, query: &LetterQuery) -> bool {
        let LetterQuery { partition: wanted, offset, event_id, key, class, reason, before, first, idle } = query;
        wanted.is_none_or(|wanted| wanted == partition)
            && offset.is_none_or(|offset| offset == letter.event.offset)
            && event_id.as_ref().is_none_or(|id| *id == letter.event.id)
            && key.as_ref().is_none_or(|key| Some(key) == letter.event.key.as_ref())
            && class.is_none_or(|class| class == letter.failure.class)
            && reason.as_ref().is_none_or(|reason| letter.failure.reason.contains(reason))
            && before.is_none_or(|before| letter.failure.last < before)
            && (!first || self.behind(letter).is_none())
            && (!idle || letter.request.is_none())
    }

    /// The letters that a request reaches.
    fn reached(&self, partition: u32, query: &LetterQuery, request: LetterRequest) -> BTreeSet<Offset> {
        let mut reached = BTreeSet::new();
        for (offset, letter) in self.letters.iter().filter(|(_, letter)| self.matches(partition, letter, query)) {
            let whole_key = request == LetterRequest::Replay && letter.parks;
            if whole_key && query.idle && self.queue_of(letter).any(|(_, other)| other.request.is_some()) {
                continue;
            }
            reached.insert(*offset);
            if whole_key {
                reached.extend(self.queue_of(letter).map(|(offset, _)| *offset));
            }
        }
        reached
    }
}

impl Data {
    pub(super) fn letters(
        &self,
        group: &str,
        query: &LetterQuery,
        after: Option<(u32, Offset)>,
        limit: ReadLimit,
    ) -> Result<Vec<LetterInfo>, StoreError> {
        let mut found = Vec::new();
        for (seat, partition) in self.group(group)?.seats.iter().zip(0..) {
            let rest = seat
                .letters
                .values()
                .filter(|letter| after.is_none_or(|after| (partition, letter.event.offset) > after));
            let matching = rest.filter(|letter| seat.matches(partition, letter, query));
            found.extend(matching.map(|letter| LetterInfo {
                partition,
                letter: letter.clone(),
                behind: seat.behind(letter),
            }));
        }
        Ok(limited(found, limit, |info| info.letter.event.bytes()))
    }

    pub(super) fn parked(&self, group: &str, limit: u32) -> Result<Vec<ParkedKey>, StoreError> {
        let mut parked = Vec::new();
        for (seat, partition) in self.group(group)?.seats.iter().zip(0..) {
            let mut of_seat: Vec<ParkedKey> = Vec::new();
            for head in seat.letters.values().filter(|letter| letter.parks && seat.behind(letter).is_none()) {
                let Some(key) = head.event.key.clone() else { continue };
                let events = seat.queue_of(head).count() as u64;
                let requested = seat.queue_of(head).any(|(_, letter)| letter.request == Some(LetterRequest::Replay));
                of_seat.push(ParkedKey { partition, key, events, since: head.failure.first, requested });
            }
            of_seat.sort_by(|a, b| a.key.cmp(&b.key));
            parked.extend(of_seat);
        }
        parked.truncate(limit as usize);
        Ok(parked)
    }

    pub(super) fn request_letters(
        &mut self,
        group: &str,
        query: &LetterQuery,
        request: LetterRequest,
    ) -> Result<u64, StoreError> {
        let seats = &self.group(group)?.seats;
        let reached: Vec<BTreeSet<Offset>> =
            seats.iter().zip(0..).map(|(seat, partition)| seat.reached(partition, query, request)).collect();
        for ((seat, offsets), partition) in seats.iter().zip(&reached).zip(0..) {
            for (offset, letter) in offsets.iter().filter_map(|offset| seat.letters.get_key_value(offset)) {
                if let Some(asked) = letter.request.filter(|asked| *asked != request) {
                    return Err(rules::letter_busy(group, partition, *offset, asked));
                }
            }
        }
        let mut count = 0;
        for (seat, offsets) in self.seats_mut(group, None)?.iter_mut().zip(reached) {
            if !offsets.is_empty() {
                seat.control.requests += 1;
            }
            count += offsets.len() as u64;
            for (_, letter) in seat.letters.iter_mut().filter(|(offset, _)| offsets.contains(offset)) {
                letter.request = Some(request);
            }
        }
        Ok(count)
    }

    pub(super) fn edit_letter(
        &mut self,
        group: &str,
        partition: u32,
        offset: Offset,
        payload: Vec<u8>,
    ) -> Result<(), StoreError> {
        let seat = self.seat_mut(group, partition)?;
        let letter = seat.letters.get_mut(&offset).ok_or_else(|| rules::no_letter(group, partition, offset))?;
        if let Some(asked) = letter.request {
            return Err(rules::letter_busy(group, partition, offset, asked));
        }
        (letter.event.payload, letter.edited) = (payload, true);
        Ok(())
    }

    pub(super) fn skip(
        &mut self,
        group: &str,
        partition: u32,
        park: bool,
        now: Timestamp,
    ) -> Result<Offset, StoreError> {
        let stream = self.group(group)?.stream.clone();
        let seat = self.seat_mut(group, partition)?;
        let committed = seat.committed;
        let Some((at, failure)) = seat.mark.failed().map(|(at, failure)| (at, failure.clone())) else {
            return Err(rules::nothing_blocks(group, partition, committed));
        };
        if at != committed {
            return Err(rules::skips_more(group, partition, committed, at));
        }
        let events = &self.stream(&stream)?.partitions[partition as usize];
        let event = events.at(at).cloned().ok_or_else(|| rules::nothing_blocks(group, partition, committed))?;
        let seat = self.seat_mut(group, partition)?;
        let is_parked = seat.letters.values().any(|letter| letter.parks && letter.event.key == event.key);
        let parks = event.key.is_some() && (park || is_parked);
        let digest = seat.failed_by.take();
        let mut letter = DeadLetter { event, failure, digest, parks, request: None, edited: false };
        let replays = seat.queue_of(&letter).any(|(_, ahead)| ahead.request == Some(LetterRequest::Replay));
        letter.request = replays.then_some(LetterRequest::Replay);
        // The next owner must not handle a copy of it, as if it had set the event aside itself.
        seat.remembered.entry(letter.event.id.clone()).or_insert((at, now));
        seat.letters.insert(at, letter);
        (seat.committed, seat.position, seat.committed_at) = (at.next(), at.next(), Some(now));
        (seat.mark, seat.given_up_in_row, seat.owner) = (Mark::Clear, 0, None);
        Ok(at)
    }

    pub(super) fn trim(
        &mut self,
        stream: &str,
        before: Timestamp,
        events_max: u32,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let groups: Vec<&Group> = self.groups.values().filter(|group| group.stream == stream).collect();
        let partitions = self.stream(stream)?.partitions.len();
        let passed: Vec<Option<Offset>> = (0..partitions)
            .map(|at| groups.iter().filter_map(|group| group.seats.get(at)).map(|seat| seat.committed).min())
            .collect();
        let mut removed = 0;
        for (partition, passed) in self.stream_mut(stream)?.partitions.iter_mut().zip(passed) {
            removed += partition.trim(before, passed.unwrap_or(partition.head()), events_max, now);
        }
        Ok(removed)
    }

    pub(super) fn forget(
        &mut self,
        group: &str,
        before: Timestamp,
        keep: u64,
        ids_max: u32,
    ) -> Result<u64, StoreError> {
        let mut left = ids_max as usize;
        for seat in self.seats_mut(group, None)? {
            let oldest = Offset(seat.committed.0.saturating_sub(keep));
            let old = seat.remembered.iter().filter(|(_, (offset, time))| *time < before || *offset < oldest);
            let old: Vec<String> = old.take(left).map(|(id, _)| id.clone()).collect();
            left -= old.len();
            for id in &old {
                seat.remembered.remove(id);
            }
        }
        Ok(u64::from(ids_max) - left as u64)
    }
}

impl Partition {
    fn at(&self, offset: Offset) -> Option<&Event> {
        self.events.get(usize::try_from(offset.0.checked_sub(self.first.0)?).ok()?)
    }

    fn trim(&mut self, before: Timestamp, passed: Offset, events_max: u32, now: Timestamp) -> u64 {
        let (old, events_max) = (|event: &Event| event.time < before, events_max as usize);
        let is_young = |event: &&Event| !old(event) && event.time <= now;
        let passed = || self.events.iter().take_while(|event| event.offset < passed);
        let step: Vec<&Event> = passed().take(events_max).take_while(|event| !is_young(event)).collect();
        let mut count = step.iter().rposition(|event| old(event)).map_or(0, |last| last + 1);
        // Nothing but events of the future: they are judged by the one behind them.
        if count == 0 && step.len() == events_max {
            let judge = passed().find(|event| old(event) || is_young(event));
            count = if judge.is_some_and(old) { events_max } else { 0 };
        }
        for event in self.events.drain(..count) {
            self.offsets.remove(&event.id);
        }
        self.first.0 += count as u64;
        count as u64
    }
}

/// As many as a read may return, but at least one.
pub(super) fn limited<T>(found: Vec<T>, limit: ReadLimit, bytes_of: impl Fn(&T) -> usize) -> Vec<T> {
    let mut bytes = 0;
    let fits = |one: &T| {
        bytes += bytes_of(one) as u64;
        bytes <= limit.bytes
    };
    let count = found.iter().take(limit.events as usize).map(fits).take_while(|fits| *fits).count().max(1);
    found.into_iter().take(count).collect()
}
