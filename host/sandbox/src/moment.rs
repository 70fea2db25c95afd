//! Time and chance for handlers that are granted neither: both follow from the event in hand, so that the same event
//! handled again, by whichever instance or host, goes the same way.
//!
//! * The wall clock shows the event's time, in a batch that of the first event not told as handled. While an instance
//!   starts it shows the Unix epoch: what an instance is must not depend on the event it was made for.
//! * The monotonic clock stands at 0, and whoever sleeps wakes at once. So every time-out that a guest sets itself is over
//!   at once too, and a guest that spins until time has passed spins until its deadline: such a handler needs clocks.
//! * Random numbers are those of a seed: group, stream, partition and event id, and a count within the event. While an
//!   instance starts, the event is left out. `insecure-seed` always leaves it out: languages read it once, late or early,
//!   and keep it for their hash tables. All of it can be foretold by whoever knows the names, so it protects nothing.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pelton_core::{Event, Timestamp};
use rand_core::TryRng;
use sha2::{Digest, Sha256};
use wasmtime::component::Resource;
use wasmtime_wasi::{
    clocks::{HostMonotonicClock, HostWallClock, WasiClocksView},
    p2::{DynPollable, bindings::clocks::monotonic_clock},
};

use crate::{host::Host, module::Place};

/// A hash's worth of random bytes is made at a time.
const BLOCK_BYTES: usize = 32;

/// What the clocks and dice of an instance go by. Apart from the rest of the host's side of an instance, because WASI
/// asks them without the store.
pub(crate) struct Moment {
    /// Whether anybody will ask: a handler that imports neither clocks nor dice should not pay for them at every call.
    asked: bool,
    place_seed: [u8; BLOCK_BYTES],
    now: Mutex<Now>,
}

/// The events of the call, kept from call to call so that noting them allocates nothing.
#[derive(Default)]
struct Now {
    /// All ids, one after the other, and where each ends.
    ids: String,
    events: Vec<(usize, Timestamp)>,
    /// Which of them is in hand.
    index: usize,
    /// Made on demand: most handlers never ask.
    seed: Option<[u8; BLOCK_BYTES]>,
    /// Blocks taken by each die.
    taken: [u64; 2],
}

/// `wasi:random/random` and `wasi:random/insecure`: neither shifts what the other gives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Die {
    Secure,
    Insecure,
}

impl Moment {
    pub(crate) fn new(place: &Place, asked: bool) -> Self {
        let mut hasher = Sha256::new();
        // No name holds a slash or an at-sign, so no two places are written alike.
        hasher.update(format!("{}@{}/{}", place.group, place.stream, place.partition));
        Self { asked, place_seed: hasher.finalize().into(), now: Mutex::default() }
    }

    /// An instance starts, with no event in hand.
    pub(crate) fn start(&self) {
        let mut now = self.now();
        now.ids.clear();
        now.events.clear();
        now.turn_to(0);
    }

    /// A call begins, with the first of these in hand.
    pub(crate) fn begin(&self, events: &[Event]) {
        if !self.asked {
            return;
        }
        let mut guard = self.now();
        let now = &mut *guard;
        now.ids.clear();
        now.events.clear();
        for event in events {
            now.ids.push_str(&event.id);
            now.events.push((now.ids.len(), event.time));
        }
        now.turn_to(0);
    }

    /// So many events of the call are handled. After the last, the last stays in hand.
    pub(crate) fn handled(&self, count: usize) {
        let mut now = self.now();
        let index = count.min(now.events.len().saturating_sub(1));
        if index > now.index {
            now.turn_to(index);
        }
    }

    /// For hash tables, see above.
    pub(crate) fn hash_seed(&self) -> u128 {
        hash(&[&self.place_seed, b"hash"]).first_chunk().map_or(0, |seed| u128::from_le_bytes(*seed))
    }

    fn time(&self) -> Duration {
        let now = self.now();
        now.events.get(now.index).map_or(Duration::ZERO, |(_, time)| Duration::from_millis(time.0))
    }

    fn next_block(&self, die: Die) -> [u8; BLOCK_BYTES] {
        let mut guard = self.now();
        let now = &mut *guard;
        let seed = *now.seed.get_or_insert_with(|| match now.events.get(now.index) {
            Some((end, _)) => {
                let begin = now.index.checked_sub(1).map_or(0, |before| now.events[before].0);
                hash(&[&self.place_seed, b"event", &now.ids.as_bytes()[begin..*end]])
            }
            None => self.place_seed,
        });
        let taken = &mut now.taken[die as usize];
        *taken += 1;
        hash(&[&seed, &[die as u8], &taken.to_le_bytes()])
    }

    /// Nothing here is left half-done by a panic.
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn turn_to(&mut self, index: usize) {
        self.index = index;
        self.seed = None;
        self.taken = [0; 2];
    }
}

fn hash(parts: &[&[u8]]) -> [u8; BLOCK_BYTES] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The wall clock of a moment.
pub(crate) struct EventTime(pub(crate) Arc<Moment>);

impl HostWallClock for EventTime {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.0.time()
    }
}

/// The monotonic clock of a moment.
pub(crate) struct StandingStill;

impl HostMonotonicClock for StandingStill {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// The random numbers of a moment. Every request takes blocks of its own.
pub(crate) struct Dice {
    pub(crate) moment: Arc<Moment>,
    pub(crate) die: Die,
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let [number @ .., _, _, _, _] = self.try_next_u64()?.to_le_bytes();
        Ok(u32::from_le_bytes(number))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut number = [0; 8];
        self.try_fill_bytes(&mut number)?;
        Ok(u64::from_le_bytes(number))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(BLOCK_BYTES) {
            chunk.copy_from_slice(&self.moment.next_block(self.die)[..chunk.len()]);
        }
        Ok(())
    }
}

/// In the place of wasmtime's own, whose sleeps take real time whatever its clock shows.
impl monotonic_clock::Host for Host {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        monotonic_clock::Host::now(&mut self.clocks())
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Duration> {
        monotonic_clock::Host::resolution(&mut self.clocks())
    }

    fn subscribe_instant(&mut self, when: monotonic_clock::Instant) -> wasmtime::Result<Resource<DynPollable>> {
        let when = if self.shared.grants.clocks { when } else { 0 };
        self.clocks().subscribe_instant(when)
    }

    fn subscribe_duration(&mut self, when: monotonic_clock::Duration) -> wasmtime::Result<Resource<DynPollable>> {
        let when = if self.shared.grants.clocks { when } else { 0 };
        self.clocks().subscribe_duration(when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(partition: u32) -> Arc<Moment> {
        Arc::new(Moment::new(&Place { group: "billing".into(), stream: "orders".into(), partition }, true))
    }

    fn events(ids: &[&str]) -> Vec<Event> {
        let event = |(index, id): (usize, &&str)| Event {
            offset: pelton_core::Offset(index as u64),
            id: (*id).into(),
            key: None,
            kind: "order".into(),
            time: Timestamp(1_000 * (index as u64 + 1)),
            headers: Vec::new(),
            payload: Default::default(),
        };
        ids.iter().enumerate().map(event).collect()
    }

    fn thrown(moment: &Arc<Moment>, die: Die) -> [u8; 40] {
        let mut bytes = [0; 40];
        let Ok(()) = Dice { moment: Arc::clone(moment), die }.try_fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn the_same_event_gets_the_same_numbers_and_no_other_does() {
        let moment = moment(3);
        let mut seen = Vec::new();
        for id in ["a", "b", "a"] {
            moment.begin(&events(&[id]));
            seen.push([thrown(&moment, Die::Secure), thrown(&moment, Die::Secure), thrown(&moment, Die::Insecure)]);
        }
        assert_eq!(seen[0], seen[2]);
        assert_ne!(seen[0], seen[1]);
        let [first, second, insecure] = seen[0];
        assert!(first != second && first != insecure && first[..8] != first[32..]);
    }

    #[test]
    fn an_event_is_the_same_wherever_it_stands_in_a_batch() {
        let moment = moment(3);
        moment.begin(&events(&["b"]));
        let alone = thrown(&moment, Die::Secure);
        moment.begin(&events(&["ab", "b", "c"]));
        assert_eq!(moment.time(), Duration::from_secs(1));
        moment.handled(1);
        assert_eq!((moment.time(), thrown(&moment, Die::Secure)), (Duration::from_secs(2), alone));
        moment.handled(1);
        assert_ne!(thrown(&moment, Die::Secure), alone, "told again, it is no news");
        moment.handled(99);
        assert_eq!(moment.time(), Duration::from_secs(3));
    }

    #[test]
    fn a_start_depends_on_the_place_alone() {
        let (here, there) = (moment(3), moment(4));
        here.start();
        let fresh = thrown(&here, Die::Secure);
        here.begin(&events(&["a"]));
        here.start();
        assert_eq!((here.time(), thrown(&here, Die::Secure)), (Duration::ZERO, fresh));
        there.start();
        assert_ne!(thrown(&there, Die::Secure), fresh);
        assert_ne!(here.hash_seed(), there.hash_seed());
    }
}
