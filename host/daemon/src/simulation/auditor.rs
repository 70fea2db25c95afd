//! Looks at the store after every request, follows what becomes of every event, and looks at everything in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pelton_core::{
    Class, Commit, CommitOutcome, DeadLetter, Epoch, Event, LetterRequest, Mark, NewEvent, Offset, Settled, Then,
};
use pelton_store::{LetterQuery, MemoryStore, ReadLimit, Store};

use super::script::BY;

/// The handler of all groups.
pub(super) const HANDLER: &str = "script";

pub(super) const ALL: ReadLimit = ReadLimit { events: u32::MAX, bytes: u64::MAX };

/// What a group promises, whatever its settings change to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// What becomes of events that are given up.
    pub(super) then: Option<Then>,
    /// After how many attempts; at once if there is something to become of them and no number.
    pub(super) attempts_max: Option<u32>,
    /// Whether there is a breaker.
    pub(super) breaks: bool,
    /// Whether it sees only what is wanted.
    pub(super) filters: bool,
    /// Whether it remembers ids.
    pub(super) idempotent: bool,
}

impl Rules {
    /// Whether the effects of a key come in the order of its events.
    pub(super) fn keeps_order(&self) -> bool {
        !matches!(self.then, Some(Then::DeadLetter))
    }
}

/// How an event ended, or where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Handled,
    SetAside,
    Discarded,
    Skipped,
    /// Not wanted, or handled before under this id.
    PassedOver,
}

/// Holds a run to the invariants.
pub(super) struct Auditor {
    seed: u64,
    memory: Arc<MemoryStore>,
    rules: BTreeMap<String, Rules>,
    seen: Mutex<Seen>,
    /// The first thing that was wrong. It may have been found in a request whose sender had given it up, and with it the
    /// panic.
    failure: Mutex<Option<String>>,
}

#[derive(Default)]
struct Seen {
    known: BTreeMap<(String, u32), (Offset, Epoch)>,
    /// Who held a partition in each term.
    owners: BTreeMap<(String, u32, Epoch), String>,
    /// Every event that was ever appended, by partition and offset.
    sent: BTreeMap<(u32, Offset), NewEvent>,
    /// What became of each, by group, partition and offset.
    fates: BTreeMap<(String, u32, Offset), Fate>,
    /// Where the head was when an event was discarded: what was appended later owes nothing to it.
    discarded: BTreeMap<(String, u32, Offset), Offset>,
    /// Events that held a partition: they are tried again beyond their attempts.
    held: BTreeSet<(String, u32, Offset)>,
    /// Commits that were stored: a repetition is told as stored again.
    stored: BTreeSet<(String, u32, Epoch, u64)>,
}

impl Auditor {
    pub(super) fn new(seed: u64, memory: Arc<MemoryStore>, rules: BTreeMap<String, Rules>) -> Self {
        Self { seed, memory, rules, seen: Mutex::default(), failure: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run with the seed that repeats it.
    #[allow(clippy::panic)]
    pub(super) fn fail(&self, what: &str) -> ! {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| what.to_owned());
        panic!("seed {}: {what}\nreplay it: PELTON_SEED={} cargo test -p pelton --lib simulation", self.seed, self.seed)
    }

    /// Fails again with what was found where nobody waited for it.
    pub(super) fn check_failed(&self) {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(failure) = failure {
            self.fail(&failure);
        }
    }

    /// A producer appended an event.
    pub(super) fn sent(&self, partition: u32, offset: Offset, event: NewEvent) {
        self.seen().sent.insert((partition, offset), event);
    }

    /// Somebody skipped an event: it is a dead letter now.
    pub(super) fn skipped_by_hand(&self, group: &str, partition: u32, offset: Offset) {
        self.becomes(&mut self.seen(), (group, partition, offset), Fate::SetAside);
    }

    /// The dead letters that a commit settles, as they are before it.
    pub(super) async fn letters(&self, commit: &Commit) -> BTreeMap<Offset, DeadLetter> {
        let query = LetterQuery { partition: Some(commit.lease.partition), ..LetterQuery::default() };
        let letters = self.memory.letters(&commit.lease.group, &query, None, ALL).await.unwrap_or_default();
        letters.into_iter().map(|info| (info.letter.event.offset, info.letter)).collect()
    }

    /// A commit was answered: only who acquired the term commits in it, and everything it moves past or settles ends in one
    /// way.
    pub(super) async fn committed(
        &self,
        commit: &Commit,
        outcome: &CommitOutcome,
        before: &BTreeMap<Offset, DeadLetter>,
    ) {
        let lease = &commit.lease;
        let term = (lease.group.to_string(), lease.partition, lease.epoch);
        if *outcome != CommitOutcome::Committed {
            return;
        }
        self.check_ranges(commit).await;
        let head = self.head(lease.partition).await;
        let waiting: Vec<DeadLetter> = self.letters(commit).await.into_values().filter(|letter| letter.parks).collect();
        let mut seen = self.seen();
        let owner = seen.owners.get(&term);
        if owner.map(String::as_str) != Some(&*lease.host) {
            self.fail(&format!("{} committed in term {term:?}, which is that of {owner:?}", lease.host));
        }
        if !seen.stored.insert((term.0, term.1, term.2, commit.sequence)) {
            return;
        }
        self.check_attempts(&mut seen, commit);
        self.check_parked(commit, before);
        let mut handled: BTreeSet<&str> = commit.effects.emits.iter().map(|emit| emit.event.id.as_str()).collect();
        let moved = (commit.from.0..commit.to.0).map(Offset);
        let mut fates: Vec<(Offset, Option<Fate>)> =
            moved.map(|offset| (offset, self.fate_of(&seen, commit, offset, &mut handled))).collect();
        // Of those that might have been passed over some may have been given up: an id that was skipped is not remembered,
        // and the first of a range that the store refuses under manual commits answers for it, wanted or not.
        let surely = fates.iter().filter(|(_, fate)| *fate == Some(Fate::Skipped)).count();
        let mut others = (commit.skipped as usize).checked_sub(surely);
        for (_, fate) in &mut fates {
            let skipped = fate.is_none() && others.is_some_and(|others| others > 0);
            others = others.map(|others| others - usize::from(skipped));
            fate.get_or_insert(if skipped { Fate::Skipped } else { Fate::PassedOver });
        }
        if others != Some(0) {
            self.fail(&format!(
                "{commit:?} moves past {surely} events that nothing became of, and skips {}",
                commit.skipped
            ));
        }
        for (offset, fate) in fates.into_iter().filter_map(|(offset, fate)| Some((offset, fate?))) {
            if fate == Fate::Handled {
                self.check_overtaking(&seen, commit, offset, &waiting);
            }
            self.becomes(&mut seen, (&lease.group, lease.partition, offset), fate);
        }
        for settled in &commit.settled {
            let Some(letter) = before.get(&settled.offset()) else { continue };
            let Settled::Gone(offset) = settled else { continue };
            let id = format!("{}/{}", lease.group, letter.event.id);
            let fate = match letter.request {
                Some(LetterRequest::Discard) => Fate::Discarded,
                Some(LetterRequest::Replay) if handled.remove(id.as_str()) => Fate::Handled,
                _ => self.fail(&format!("{letter:?} is gone, and nobody handled or discarded it")),
            };
            if fate == Fate::Handled {
                self.check_overtaking(&seen, commit, *offset, &waiting);
            } else {
                seen.discarded.insert((lease.group.to_string(), lease.partition, *offset), head);
            }
            self.becomes(&mut seen, (&lease.group, lease.partition, *offset), fate);
        }
        if !handled.is_empty() {
            self.fail(&format!("{commit:?} has effects of {handled:?}, which it neither moves past nor settles"));
        }
    }

    async fn head(&self, partition: u32) -> Offset {
        let streams = self.memory.streams().await.expect("the memory store answers");
        let sent =
            streams.iter().find(|info| info.spec.name == "in").and_then(|info| info.partitions.get(partition as usize));
        sent.map(|partition| partition.head).unwrap_or_default()
    }

    /// What is on record of versions is what they did: a version's effects come from events in its ranges, and ranges follow
    /// one another.
    async fn check_ranges(&self, commit: &Commit) {
        let (group, partition) = (&*commit.lease.group, commit.lease.partition);
        let ranges = self.memory.ranges(HANDLER, u32::MAX).await.expect("the memory store answers");
        let ranges: Vec<_> =
            ranges.iter().filter(|range| range.group == group && range.partition == partition).collect();
        if ranges.windows(2).any(|pair| pair[0].until != Some(pair[1].from) || pair[0].digest == pair[1].digest) {
            self.fail(&format!("{commit:?} leaves {ranges:?}, which do not follow one another"));
        }
        let on_record = |offset: Offset| {
            let covers = |until: Option<Offset>| until.is_none_or(|until| offset < until);
            ranges.iter().rev().find(|range| range.from <= offset && covers(range.until))
        };
        let seen = self.seen();
        for emit in &commit.effects.emits {
            let by = emit.event.headers.iter().find(|(name, _)| name == BY).map(|(_, digest)| digest);
            let is_cause = |offset: &Offset| {
                let sent = seen.sent.get(&(partition, *offset));
                sent.is_some_and(|sent| emit.event.id == format!("{group}/{}", sent.id))
            };
            // What was replayed lies behind, and is on no record.
            let Some(cause) = (commit.from.0..commit.to.0).map(Offset).find(is_cause) else { continue };
            let range = on_record(cause);
            if range.map(|range| &range.digest) != by {
                self.fail(&format!("{commit:?}: {cause} was handled by {by:?}, and on record is {range:?}"));
            }
        }
        for letter in commit.set_aside.iter().filter(|letter| letter.failure.class != Class::Parked) {
            let range = on_record(letter.event.offset);
            if range.map(|range| &range.digest) != letter.digest.as_ref() {
                self.fail(&format!("{commit:?}: {letter:?} was given up, and on record is {range:?}"));
            }
        }
    }

    /// What a commit makes of an event that it moves past; `None` if it may have been passed over.
    fn fate_of(&self, seen: &Seen, commit: &Commit, offset: Offset, handled: &mut BTreeSet<&str>) -> Option<Fate> {
        let partition = commit.lease.partition;
        let Some(event) = seen.sent.get(&(partition, offset)) else {
            self.fail(&format!("{commit:?} moves past {offset}, where no event is"))
        };
        let rules = self.rules.get(&*commit.lease.group).copied().unwrap_or_default();
        if commit.set_aside.iter().any(|letter| letter.event.offset == offset) {
            return Some(Fate::SetAside);
        }
        if handled.remove(format!("{}/{}", commit.lease.group, event.id).as_str()) {
            return Some(Fate::Handled);
        }
        let unwanted = rules.filters && event.kind != "wanted";
        let spoken_for = || self.is_spoken_for(seen, &commit.lease.group, partition, offset, &event.id);
        if unwanted || (rules.idempotent && spoken_for()) { None } else { Some(Fate::Skipped) }
    }

    /// Whether an earlier event of this id was handled, or is a dead letter, or was one when this one came: what was discarded
    /// by then does not keep a later one from being handled.
    fn is_spoken_for(&self, seen: &Seen, group: &str, partition: u32, offset: Offset, id: &str) -> bool {
        let mut earlier =
            seen.sent.range((partition, Offset(0))..(partition, offset)).filter(|(_, sent)| sent.id == id);
        earlier.any(|((_, at), _)| {
            let place = (group.to_owned(), partition, *at);
            match seen.fates.get(&place) {
                Some(Fate::Handled | Fate::SetAside) => true,
                Some(Fate::Discarded) => seen.discarded.get(&place).is_some_and(|head| offset < *head),
                _ => false,
            }
        })
    }

    /// Every event ends as handled, skipped, discarded or passed over: exactly one of them, and once.
    fn becomes(&self, seen: &mut Seen, (group, partition, offset): (&str, u32, Offset), fate: Fate) {
        let before = seen.fates.insert((group.to_owned(), partition, offset), fate);
        let may_be = match before {
            None => true,
            Some(Fate::SetAside) => matches!(fate, Fate::Handled | Fate::Discarded),
            Some(_) => false,
        };
        if !may_be {
            self.fail(&format!("{group}/{partition}: {offset} was {before:?} and then {fate:?}"));
        }
        let rules = self.rules.get(group).copied().unwrap_or_default();
        if fate == Fate::Handled && rules.idempotent {
            self.check_handled_once(seen, group, partition, offset);
        }
        if fate == Fate::Skipped && rules.then != Some(Then::Skip) {
            self.fail(&format!("{group}/{partition}: nothing became of {offset}"));
        }
    }

    /// No other event of the same id was handled in a group that remembers what it handled.
    fn check_handled_once(&self, seen: &Seen, group: &str, partition: u32, offset: Offset) {
        let id = seen.sent.get(&(partition, offset)).map(|sent| &sent.id);
        let of_partition = seen.sent.range((partition, Offset(0))..=(partition, Offset(u64::MAX)));
        let mut others = of_partition.filter(|((_, at), sent)| *at != offset && Some(&sent.id) == id);
        let handled = |at: Offset| seen.fates.get(&(group.to_owned(), partition, at)) == Some(&Fate::Handled);
        if let Some(((_, other), _)) = others.find(|((_, at), _)| handled(*at)) {
            self.fail(&format!("{group}/{partition}: {id:?} was handled at {other}, and again at {offset}"));
        }
    }

    /// No event of a parked key overtakes another.
    fn check_overtaking(&self, seen: &Seen, commit: &Commit, offset: Offset, waiting: &[DeadLetter]) {
        let Some(event) = seen.sent.get(&(commit.lease.partition, offset)) else { return };
        let same_key = |letter: &&DeadLetter| event.key.is_some() && letter.event.key == event.key;
        let aside = commit.set_aside.iter().map(|letter| letter.event.offset).collect::<BTreeSet<_>>();
        let overtaken = waiting
            .iter()
            .filter(same_key)
            .find(|letter| letter.event.offset < offset && !aside.contains(&letter.event.offset));
        if let Some(letter) = overtaken {
            self.fail(&format!("{commit:?}: {offset} overtook {letter:?}"));
        }
    }

    /// An event waits only behind one that is there: a key with an empty queue is not parked.
    fn check_parked(&self, commit: &Commit, before: &BTreeMap<Offset, DeadLetter>) {
        let gone: BTreeSet<Offset> = commit.settled.iter().map(Settled::offset).collect();
        let mut parked: BTreeSet<&Option<String>> = before
            .values()
            .filter(|letter| letter.parks && !gone.contains(&letter.event.offset))
            .map(|letter| &letter.event.key)
            .collect();
        for letter in commit.set_aside.iter().filter(|letter| letter.parks) {
            if parked.insert(&letter.event.key) && letter.failure.class == Class::Parked {
                self.fail(&format!("{letter:?} waits behind nothing"));
            }
        }
    }

    /// Attempts that are stored never exceed the limit, whoever made them.
    fn check_attempts(&self, seen: &mut Seen, commit: &Commit) {
        let rules = self.rules.get(&*commit.lease.group).copied().unwrap_or_default();
        let place = |offset| (commit.lease.group.to_string(), commit.lease.partition, offset);
        if let Some(Mark::Hold { at, .. }) = commit.mark {
            seen.held.insert(place(at));
        }
        let Some(max) = rules.then.map(|_| rules.attempts_max.unwrap_or(1)) else { return };
        let set_aside = commit.set_aside.iter().map(|letter| (letter.event.offset, letter.failure.attempts));
        let marked = commit.mark.iter().filter_map(Mark::failed).map(|(at, failure)| (at, failure.attempts));
        let too_many =
            set_aside.chain(marked).find(|(at, attempts)| *attempts > max && !seen.held.contains(&place(*at)));
        if let Some((at, attempts)) = too_many {
            self.fail(&format!("{commit:?} tells of {attempts} attempts at {at}, and at most {max} are allowed"));
        }
    }

    /// Which partition has no live owner, or which group is not shared out evenly, if so.
    pub(super) async fn unfair(&self, hosts: &[&str]) -> Option<String> {
        let groups = self.memory.groups().await.expect("the memory store answers");
        for group in &groups {
            let mut held: BTreeMap<&str, usize> = hosts.iter().map(|host| (*host, 0)).collect();
            for row in &group.partitions {
                match row.owner.as_deref().and_then(|owner| held.get_mut(owner)) {
                    Some(count) => *count += 1,
                    None => {
                        let (name, partition, owner) = (&group.name, row.partition, &row.owner);
                        return Some(format!("{name}/{partition} is held by {owner:?}, not by one of {hosts:?}"));
                    }
                }
            }
            let (most, least) = (held.values().max().copied(), held.values().min().copied());
            if most.unwrap_or(0) > least.unwrap_or(0) + 1 {
                return Some(format!("{} is not shared out evenly: {held:?}", group.name));
            }
        }
        None
    }

    /// Who holds which partition, and in which term.
    pub(super) async fn seats(&self) -> Vec<(Option<String>, Epoch)> {
        let groups = self.memory.groups().await.expect("the memory store answers");
        groups.into_iter().flat_map(|group| group.partitions).map(|row| (row.owner, row.epoch)).collect()
    }

    /// After every request that writes: no position and no epoch falls, an epoch has one owner, and nothing is committed of
    /// which it is not known what became of it.
    pub(super) async fn check(&self) {
        let rows = self.memory.progress().await.expect("the memory store answers");
        let seen = &mut *self.seen();
        for row in rows {
            let name = format!("{}/{}", row.group, row.partition);
            if let Some(owner) = &row.owner {
                let term = (row.group.clone(), row.partition, row.epoch);
                let known = seen.owners.entry(term).or_insert_with(|| owner.to_string());
                if **known != **owner {
                    self.fail(&format!("{name}: both {known} and {owner} hold it in epoch {}", row.epoch));
                }
            }
            let place = (row.group.clone(), row.partition);
            let (committed, epoch) = seen.known.insert(place, (row.committed, row.epoch)).unwrap_or_default();
            if row.committed < committed || row.epoch < epoch {
                self.fail(&format!(
                    "{name} fell from {committed} (epoch {epoch}) to {} (epoch {})",
                    row.committed, row.epoch
                ));
            }
            if row.committed > row.head {
                self.fail(&format!("{name} is committed to {} past its head {}", row.committed, row.head));
            }
            for offset in (committed.0..row.committed.0).map(Offset) {
                if !seen.fates.contains_key(&(row.group.clone(), row.partition, offset)) {
                    self.fail(&format!("{name}: {offset} is committed, but nothing became of it"));
                }
            }
        }
    }

    /// In the end: every event was handled by every group, but for those that nobody wanted or somebody gave up; its effects
    /// are there exactly once, and those of a key are in the order of its events where that is promised.
    pub(super) async fn final_check(&self, partitions: u32) {
        let sink = self.all("out", partitions).await;
        for (group, rules) in &self.rules {
            let (mut emitted, mut stored) = (BTreeMap::<String, Vec<String>>::new(), BTreeMap::new());
            for event in &sink {
                let payload = String::from_utf8_lossy(&event.payload).into_owned();
                if let Some(rest) = payload.strip_prefix(&format!("{group} ")) {
                    emitted.entry(event.key.clone().unwrap_or_default()).or_default().push(rest.to_owned());
                }
            }
            let expected = self.expected(group);
            for key in expected.keys() {
                let partition = pelton_core::partition_of(key, partitions);
                let value = self.memory.state(group, partition, key).await.expect("the memory store answers");
                stored.insert(key.clone(), value.and_then(|value| String::from_utf8(value).ok()));
            }
            self.compare(group, rules.keeps_order(), &expected, &mut emitted, &stored);
        }
    }

    /// The ids that a group handled, by key, in the order of their events.
    fn expected(&self, group: &str) -> BTreeMap<String, Vec<String>> {
        let seen = self.seen();
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((partition, offset), event) in &seen.sent {
            match seen.fates.get(&(group.to_owned(), *partition, *offset)) {
                Some(Fate::Handled) => {
                    expected.entry(event.routing().to_owned()).or_default().push(event.id.clone());
                }
                Some(Fate::Discarded | Fate::Skipped | Fate::PassedOver) => {}
                fate => self.fail(&format!("{group}/{partition}: in the end {offset} is {fate:?}")),
            }
        }
        expected
    }

    fn compare(
        &self,
        group: &str,
        keeps_order: bool,
        expected: &BTreeMap<String, Vec<String>>,
        emitted: &mut BTreeMap<String, Vec<String>>,
        stored: &BTreeMap<String, Option<String>>,
    ) {
        for (key, ids) in expected {
            let found = emitted.remove(key).unwrap_or_default();
            let (numbers, mut found): (Vec<String>, Vec<String>) = found
                .iter()
                .filter_map(|payload| payload.split_once(' '))
                .map(|(number, id)| (number.to_owned(), id.to_owned()))
                .unzip();
            let in_a_row: Vec<String> = (1..=ids.len()).map(|number| number.to_string()).collect();
            let mut ids = ids.clone();
            if !keeps_order {
                ids.sort();
                found.sort();
            }
            if found != ids || numbers != in_a_row {
                self.fail(&format!("{group} emitted {found:?} as {numbers:?} of {key}\n  instead of {ids:?}"));
            }
            let count = stored.get(key).cloned().flatten();
            if count != Some(ids.len().to_string()) {
                self.fail(&format!("{group} counted {count:?} events of {key} instead of {}", ids.len()));
            }
        }
        if !emitted.is_empty() {
            self.fail(&format!("{group} emitted {emitted:?}, of which it handled nothing"));
        }
    }

    async fn all(&self, stream: &str, partitions: u32) -> Vec<Event> {
        let mut events = Vec::new();
        for partition in 0..partitions {
            let read = self.memory.read(stream, partition, Offset(0), ALL).await.expect("the memory store answers");
            if read.iter().zip(0..).any(|(event, offset)| event.offset != Offset(offset)) {
                self.fail(&format!("{stream}/{partition} has a gap"));
            }
            events.extend(read);
        }
        events
    }
}
