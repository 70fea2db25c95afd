//! A handler that fails by script, and remembers what it finished.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use pelton_core::{Effects, Emit, Event, Invocation, Journal, NewEvent, Outcome};
use pelton_sandbox::{Interrupt, Place, StateReader};
use tokio::time::sleep;

use super::{Dice, network::Link};
use crate::handler::{Calls, Handler, Version};

/// The header that tells which version emitted an event.
pub(super) const BY: &str = "by";

/// Far more calls than any run needs.
const CALLS_MAX: u64 = 100_000;

/// What all handlers of a run share.
pub(super) struct Script {
    dice: Dice,
    unlocated: bool,
    /// Groups whose handler keeps what it emits in its own memory until it gives it free, under manual commits.
    gathers: BTreeSet<String>,
    calm: AtomicBool,
    told: Mutex<Told>,
    calls: Calls,
    calls_made: AtomicU64,
}

#[derive(Default)]
struct Told {
    /// How often an event is still going to fail, by group and id.
    failures_left: BTreeMap<(String, String), u64>,
}

impl Script {
    pub(super) fn new(dice: Dice, unlocated: bool, gathers: BTreeSet<String>) -> Self {
        Self {
            dice,
            unlocated,
            gathers,
            calm: AtomicBool::new(false),
            told: Mutex::default(),
            calls: Calls::default(),
            calls_made: AtomicU64::new(0),
        }
    }

    /// From now on every event succeeds.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// A pump that spins makes no virtual time pass, so nothing but a count ends it.
    fn count_call(&self) {
        assert!(self.calls_made.fetch_add(1, Ordering::Relaxed) < CALLS_MAX, "a pump spins: {CALLS_MAX} calls");
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How an event fails this time, if it does. `Done` stands for an effect that the store will refuse.
    fn failure_of(&self, group: &str, event: &Event) -> Option<Outcome> {
        if self.calm.load(Ordering::Relaxed) {
            return None;
        }
        let mut told = self.told();
        let key = (group.to_owned(), event.id.clone());
        let left = told.failures_left.entry(key).or_insert_with(|| match self.dice.below(60) {
            // For as long as something can go wrong.
            0 => u64::MAX,
            1..=8 => 1 + self.dice.below(4),
            _ => 0,
        });
        *left = left.checked_sub(1)?;
        let reason = || format!("script: {}", event.id);
        Some(match self.dice.below(8) {
            0 => Outcome::Permanent(reason()),
            1 => Outcome::Trapped(reason()),
            2 => Outcome::TimedOut(reason()),
            3 => Outcome::RetryAfter(self.dice.below(3_000), reason()),
            4 => Outcome::Done,
            _ => Outcome::Transient(reason()),
        })
    }
}

/// A version of the scripted handler.
pub(super) struct ScriptedVersion {
    digest: String,
    script: Arc<Script>,
    link: Arc<Link>,
}

impl ScriptedVersion {
    pub(super) fn new(number: u32, script: Arc<Script>, link: &Arc<Link>) -> Self {
        Self { digest: format!("sha256:{number}"), script, link: Arc::clone(link) }
    }
}

impl Version for ScriptedVersion {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn start(&self, place: Place, state: Arc<dyn StateReader>, interrupt: Interrupt) -> Box<dyn Handler> {
        let (script, link) = (Arc::clone(&self.script), Arc::clone(&self.link));
        let gathers = script.gathers.contains(&*place.group);
        let digest = self.digest.clone();
        Box::new(ScriptedHandler { digest, place, state, interrupt, script, link, gathers, gathered: Vec::new() })
    }

    fn calls(&self) -> &Calls {
        &self.script.calls
    }

    /// So little that commits every few seconds reach it.
    fn output_bytes_max(&self) -> u64 {
        500
    }
}

/// Counts the events of each key in state, and emits each with its number: a lost or doubled effect shows in the
/// numbers, an event out of order in their sequence.
struct ScriptedHandler {
    digest: String,
    place: Place,
    state: Arc<dyn StateReader>,
    interrupt: Interrupt,
    script: Arc<Script>,
    link: Arc<Link>,
    gathers: bool,
    /// Emitted by events that it has not given free: gone with the instance.
    gathered: Vec<Emit>,
}

#[async_trait]
impl Handler for ScriptedHandler {
    async fn call(&mut self, events: &[Event], _attempt: u32, manual: bool) -> Invocation {
        self.script.count_call();
        let mut journal = Journal::default();
        let mut handled = 0;
        let mut checkpoint = false;
        let outcome = loop {
            let Some(event) = events.get(handled) else { break Outcome::Done };
            self.link.running().await;
            if self.interrupt.is_set() {
                break Outcome::Interrupted;
            }
            if self.script.dice.one_in(4) {
                sleep(self.script.dice.up_to_ms(30)).await;
            }
            let mut emits = Vec::new();
            match self.handle(event, &mut journal, &mut emits).await {
                Outcome::Done => {}
                failure => {
                    journal.discard();
                    break failure;
                }
            }
            handled += 1;
            let calm = self.script.calm.load(Ordering::Relaxed);
            checkpoint = manual && (calm || self.script.dice.one_in(3));
            self.gathered.append(&mut emits);
            if checkpoint || !(manual && self.gathers) {
                self.gathered.drain(..).for_each(|emit| journal.emit(emit));
            }
            journal.keep();
            if checkpoint {
                break Outcome::Done;
            }
            if self.script.dice.one_in(20) {
                // As much as it wants to hold: what is handled is to be committed first.
                break Outcome::Done;
            }
        };
        if !outcome.keeps_instance() {
            self.gathered.clear();
        }
        let alone = events.len() == 1;
        if self.script.unlocated && !alone && outcome != Outcome::Done {
            return Invocation { handled: 0, outcome, located: false, checkpoint: false, effects: Effects::default() };
        }
        Invocation { handled, outcome, located: true, checkpoint, effects: journal.into_kept() }
    }
}

impl ScriptedHandler {
    async fn handle(&self, event: &Event, journal: &mut Journal, emits: &mut Vec<Emit>) -> Outcome {
        let key = event.key.clone().unwrap_or_else(|| event.id.clone());
        let stored = match journal.written(&key) {
            Some(written) => written.map(<[u8]>::to_vec),
            None => match self.state.get(&key).await {
                Ok(value) => value,
                Err(reason) => return Outcome::StoreUnavailable(reason),
            },
        };
        let count: u64 = stored.and_then(|value| String::from_utf8(value).ok()?.parse().ok()).unwrap_or(0) + 1;
        journal.write(key.clone(), Some(count.to_string().into_bytes()));
        let payload = format!("{} {count} {}", self.place.group, event.id).into_bytes();
        let id = format!("{}/{}", self.place.group, event.id);
        emits.push(Emit {
            stream: "out".into(),
            event: NewEvent {
                id,
                key: Some(key),
                payload,
                headers: vec![(BY.into(), self.digest.clone())],
                ..NewEvent::default()
            },
        });
        // It fails last, so that what it did must be thrown away.
        let failure = self.script.failure_of(&self.place.group, event);
        if failure == Some(Outcome::Done) {
            emits.push(Emit {
                stream: "nowhere".into(),
                event: NewEvent { id: "refused".into(), ..NewEvent::default() },
            });
        }
        failure.unwrap_or(Outcome::Done)
    }
}
