//! The way of a batch: acquire → fetch → invoke → commit → (verdict) → next.
//!
//! One pump works for one partition of one group. What to do next is decided by [`Pump`], the state machine in `core`;
//! this file carries it out: it talks to the store, holds the events and effects that are under way, and calls the
//! handler. Follow [`run`] from the top to see what happens to an event from its stream to the commit that moves past it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use pelton_core::{
    Acquired, Action, Aside, Commit, CommitMode, CommitOutcome, Control, DeadLetter, Effects, End, Epoch, Event,
    Failure, Filter, Holder, Input, Invocation, Invoked, Lease, Mark, Offset, Outcome, Pump, PumpSettings, Request,
    Session, Settled,
};
use pelton_sandbox::{Interrupt, Place, StateReader};
use pelton_store::{ReadLimit, Store, StoreError};
use tokio::{
    select,
    sync::watch,
    time::{self, Duration},
};
use tracing::{debug, error, info, warn};

use crate::{
    batch::{Batch, Dealt, Way},
    effects_log,
    handler::{Handler, Lane, Version},
    replay::{self, Order, Report},
    state::PartitionState,
    time::Clock,
};

/// Payload bytes of one fetch: with one batch in hand and one read ahead, twice this is what a partition holds.
const FETCH_BYTES_MAX: u64 = 8 << 20;

/// What an id that is to be remembered costs beyond its own bytes, until it is committed.
const REMEMBERED_BYTES: usize = 32;

/// How long an instance is kept for a partition that has nothing to do.
const INSTANCE_IDLE_MAX: Duration = Duration::from_secs(30);

/// What a pump is given.
#[derive(Clone)]
pub struct PumpContext {
    /// Where streams and positions live.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Clock,
    /// Under which registration it works.
    pub session: Session,
    /// Which partition of which group it works for.
    pub place: Place,
    /// The group's settings, as they are now.
    pub settings: watch::Receiver<GroupSettings>,
    /// The handler's version, as it is now. A new one takes over between two batches.
    pub version: watch::Receiver<Arc<dyn Version>>,
    /// What is known of the partition from outside.
    pub hints: watch::Receiver<Hint>,
    /// Becomes true when the pump is to finish its batch, commit, release and end.
    pub drain: watch::Receiver<bool>,
    /// Breaks off the call under way.
    pub interrupt: Interrupt,
    /// Becomes true when an event stopped the partition here, and not under an earlier owner.
    pub stopped_here: Arc<AtomicBool>,
    /// Where the handler is called.
    pub lane: Lane,
    /// Uniform in 0 to 1, for the jitter of back-off.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// What a group's configuration says about the way of its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSettings {
    /// What the state machine goes by.
    pub pump: PumpSettings,
    /// Events that do not match are passed over without a call.
    pub filter: Filter,
    /// Whether ids that were handled are remembered, and not handled again.
    pub idempotent: bool,
}

/// What others found out about a partition. Hints may be late or lost: polling goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The offset the next event will get.
    pub head: Offset,
    /// What is asked of the partition.
    pub control: Control,
    /// Its term.
    pub epoch: Epoch,
    /// Who holds it in that term.
    pub holder: Holder,
}

/// Works for one partition until it is drained or fenced.
pub async fn run(context: PumpContext) -> End {
    let mut machine = Pump::new(context.settings.borrow().pump);
    let mut hands = Hands::new(context);
    loop {
        let now = hands.context.clock.now();
        while let Some(action) = machine.next_action(now) {
            match action {
                Action::Acquire => hands.acquire(),
                Action::Fetch { from, events } => hands.fetch(from, events),
                Action::Invoke { events, calls, room, attempt } => {
                    // Where the handler need not be called, the answer is there at once.
                    if let Some(input) = hands.invoke(events, calls, room, attempt) {
                        machine.handle(now, input);
                    }
                }
                Action::SetAside { aside, failure } => hands.set_aside(aside, failure),
                Action::Replay { events, refused } => hands.replay(events, refused),
                Action::Commit { from, to, mark, given_up_in_row, with_effects } => {
                    let position = machine.position();
                    hands.commit(Move { from, to, position, mark, given_up_in_row }, with_effects);
                }
                Action::Rewind => hands.rewind(),
                Action::Release => hands.release(),
                Action::Finish(end) => return hands.finish(end),
            }
        }
        let deadline = machine.deadline(now).map(|at| hands.context.clock.instant(at));
        let idle = hands.idle_at();
        // Results come before hints, and the call last: polling it runs the guest.
        let input = select! {
            biased;
            input = finished(&mut hands.store_request) => hands.answered(input),
            report = finished(&mut hands.replaying) => Some(hands.replayed(report)),
            events = finished(&mut hands.fetching) => hands.fetched(events),
            input = told(&mut hands.context, &mut hands.draining) => {
                match input {
                    Input::Settings(_) => hands.settings = hands.context.settings.borrow().clone(),
                    Input::HandlerChanged => hands.present = Arc::clone(&hands.context.version.borrow()),
                    _ => {}
                }
                Some(input)
            }
            () = reached(deadline) => None,
            () = reached(idle) => {
                hands.handler = None;
                None
            }
            called = finished(&mut hands.calling) => Some(hands.invoked(called)),
        };
        let now = hands.context.clock.now();
        let Some(input) = input else { continue };
        let tells_of_failure = match &input {
            Input::Acquired(_) => true,
            Input::Invoked(invoked) => invoked.outcome.is_failure(),
            _ => false,
        };
        machine.handle(now, input);
        if tells_of_failure && hands.another_version_failed() {
            // What failed was another version, before this host started or just now; this one need not wait for it.
            machine.handle(now, Input::HandlerChanged);
        }
    }
}

/// Everything that a pump holds: what `core` must not know.
struct Hands {
    context: PumpContext,
    settings: GroupSettings,
    epoch: Epoch,
    draining: bool,
    state: Arc<PartitionState>,
    /// Events read and not handled yet.
    events: VecDeque<Event>,
    /// Which of their ids the group handled before, if it remembers them.
    known: BTreeSet<String>,
    /// Parked keys, with how many events wait in each: in the store, and in what is not committed yet.
    parked: BTreeMap<String, u64>,
    /// What came of events that are dealt with and are not in the commit under way.
    work: Work,
    /// The dead letter that was tried last.
    replayed_last: Option<Offset>,
    /// The handler that is between calls, if one was started.
    handler: Option<Box<dyn Handler>>,
    /// When a call ended last.
    called_at: time::Instant,
    /// The version that is called from now on, as far as the machine was told of it.
    present: Arc<dyn Version>,
    /// The version that was called last.
    version: Option<Arc<dyn Version>>,
    /// The digest of the version that failed last, here or under an earlier owner.
    failed_by: Option<String>,
    /// The digest of the version that handled what came last: in the store, and in what is not committed yet.
    handled_by_stored: Option<String>,
    handled_by: Option<String>,
    /// Commits made under this lease.
    commits: u64,
    /// The commit that was asked for last, until it is known what became of it.
    commit: Option<Arc<Commit>>,
    /// What it releases of parked keys, once it is stored.
    released: Vec<String>,

    store_request: Option<BoxFuture<'static, StoreAnswer>>,
    fetching: Option<BoxFuture<'static, Result<Fetched, StoreError>>>,
    fetch_from: Offset,
    calling: Option<BoxFuture<'static, Called>>,
    replaying: Option<BoxFuture<'static, Result<Report, StoreError>>>,
}

/// What the next commit takes along besides the position.
#[derive(Default)]
struct Work {
    effects: Effects,
    /// Bytes of them; counted only where they may be held for long.
    bytes: u64,
    set_aside: Vec<DeadLetter>,
    settled: Vec<Settled>,
    /// A parked key for each event in it that is gone.
    released: Vec<String>,
    remembered: Vec<(Offset, String)>,
    handled_by: Vec<(Offset, String)>,
    skipped: u32,
}

/// Where a commit moves the position, and what it says of the partition.
struct Move {
    from: Offset,
    to: Offset,
    position: Offset,
    mark: Option<Mark>,
    given_up_in_row: u32,
}

/// What came back of a read: the events, and which of their ids are known.
struct Fetched {
    events: Vec<Event>,
    known: BTreeSet<String>,
}

/// What came back of a request that writes. At most one is under way.
enum StoreAnswer {
    Acquired(Result<Acquired, StoreError>),
    Committed(Result<CommitOutcome, StoreError>),
    Released(Result<(), StoreError>),
}

/// What comes back of a call: the handler, the batch it was given, and what came of it.
struct Called {
    handler: Box<dyn Handler>,
    batch: Batch,
    attempt: u32,
    invocation: Invocation,
}

impl Hands {
    fn new(context: PumpContext) -> Self {
        let Place { group, partition, .. } = &context.place;
        let state = Arc::new(PartitionState::new(Arc::clone(&context.store), Arc::clone(group), *partition));
        let settings = context.settings.borrow().clone();
        let present = Arc::clone(&context.version.borrow());
        Self {
            settings,
            present,
            context,
            epoch: Epoch::default(),
            draining: false,
            state,
            events: VecDeque::new(),
            known: BTreeSet::new(),
            parked: BTreeMap::new(),
            work: Work::default(),
            replayed_last: None,
            handler: None,
            called_at: time::Instant::now(),
            version: None,
            failed_by: None,
            handled_by_stored: None,
            handled_by: None,
            commits: 0,
            commit: None,
            released: Vec::new(),
            store_request: None,
            fetching: None,
            fetch_from: Offset::default(),
            calling: None,
            replaying: None,
        }
    }

    // --- Acquire ------------------------------------------------------------------------------------------------

    fn acquire(&mut self) {
        let (store, session) = (Arc::clone(&self.context.store), self.context.session.clone());
        let Place { group, partition, .. } = self.context.place.clone();
        self.store_request =
            Some(Box::pin(async move { StoreAnswer::Acquired(store.acquire(&group, partition, &session).await) }));
    }

    // --- Fetch --------------------------------------------------------------------------------------------------

    fn fetch(&mut self, from: Offset, events: u32) {
        let store = Arc::clone(&self.context.store);
        let Place { stream, partition, .. } = self.context.place.clone();
        let limit = ReadLimit { events, bytes: FETCH_BYTES_MAX };
        self.fetch_from = from;
        let remembers = self.settings.idempotent;
        let group = Arc::clone(&self.context.place.group);
        self.fetching = Some(Box::pin(async move {
            let events = store.read(&stream, partition, from, limit).await?;
            let ids = || events.iter().map(|event| event.id.clone()).collect();
            // A partition holds an id once for as long as the event is retained, and retention waits for this group: what is
            // appended again was committed long before this read.
            let known = if remembers && !events.is_empty() {
                store.remembered(&group, partition, ids()).await?
            } else {
                BTreeSet::new()
            };
            Ok(Fetched { events, known })
        }));
    }

    fn fetched(&mut self, fetched: Result<Fetched, StoreError>) -> Option<Input> {
        match fetched {
            Ok(Fetched { events, known }) => {
                let next = events.last().map_or(self.fetch_from, |event| event.offset.next());
                let input = Input::Fetched { events: events.len() as u32, next };
                self.events.extend(events);
                self.known.extend(known);
                Some(input)
            }
            Err(error) => Some(self.store_failed(Request::Fetch, &error)),
        }
    }

    // --- Invoke -------------------------------------------------------------------------------------------------

    fn invoke(&mut self, events: u32, calls: u32, room: u64, attempt: u32) -> Option<Input> {
        let rest = self.events.split_off((events as usize).min(self.events.len()));
        let mut events = mem::replace(&mut self.events, rest);
        let all_called = self.settings.filter.is_empty() && self.known.is_empty() && self.parked.is_empty();
        let mut batch = if all_called && events.len() as u64 <= u64::from(calls) {
            Batch::of_all(events)
        } else {
            let (batch, mut later) = Batch::sort(events, calls, room, |event| self.way_of(event));
            events = mem::take(&mut self.events);
            later.append(&mut events);
            self.events = later;
            batch
        };
        if batch.is_empty() {
            return Some(Input::NoRoom);
        }
        if batch.called().is_empty() {
            return Some(self.dealt(batch.deal(0), 0, Outcome::Done, true, false));
        }
        // The attempts that failed are those of the first event, if it is to be called at all.
        let attempt = if batch.begins_with_call() { attempt } else { 1 };
        let manual = self.settings.pump.commit == CommitMode::Manual;
        let mut handler = self.handler_for(batch.first());
        self.calling = Some(self.in_lane(Box::pin(async move {
            let invocation = handler.call(batch.called(), attempt, manual).await;
            Called { handler, batch, attempt, invocation }
        })));
        None
    }

    /// Calls that compute for long get out of the way of others.
    fn in_lane<T: Send + 'static>(&self, call: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        match &self.version {
            Some(version) => self.context.lane.run(Arc::clone(version.calls().pace()), call),
            None => call,
        }
    }

    fn way_of(&self, event: &Event) -> Way {
        let parked = || event.key.as_ref().is_some_and(|key| self.parked.contains_key(key));
        if !self.settings.filter.wants(event) || self.known.contains(&event.id) {
            Way::Pass
        } else if !self.parked.is_empty() && parked() {
            Way::Park
        } else {
            Way::Call
        }
    }

    /// The handler that is warm, or one of the present version if there is none or that one is new.
    fn handler_for(&mut self, first: Option<&Event>) -> Box<dyn Handler> {
        let version = Arc::clone(&self.present);
        let known = self.version.as_ref().is_some_and(|known| Arc::ptr_eq(known, &version));
        if let Some(handler) = self.handler.take().filter(|_| known) {
            return handler;
        }
        let Place { group, stream, partition } = &self.context.place;
        // The same module with other grants is a new version too, but not one that anybody looks for in a log.
        if let Some(old) = self.version.as_ref().filter(|old| old.digest() != version.digest()) {
            let offset = first.map(|event| event.offset.0);
            info!(%group, %stream, partition, offset, old = old.digest(), new = version.digest(), "new version answers from this offset on");
        }
        let state: Arc<dyn StateReader> = Arc::<PartitionState>::clone(&self.state);
        let handler = version.start(self.context.place.clone(), state, self.context.interrupt.clone());
        self.version = Some(version);
        handler
    }

    fn invoked(&mut self, called: Called) -> Input {
        let Called { handler, mut batch, attempt, invocation } = called;
        let Invocation { mut handled, mut outcome, mut located, checkpoint, mut effects } = invocation;
        handled = handled.min(batch.called().len());
        self.called_at = time::Instant::now();
        if let Some(too_many) = self.too_many_held(&effects, checkpoint, &outcome) {
            (handled, outcome, located, effects) = (0, too_many, true, Effects::default());
        }
        self.version.as_ref().inspect(|version| version.calls().count(handled, &outcome));
        let failed = batch.called().get(handled);
        if let Outcome::StoreUnavailable(reason) = &outcome {
            let Place { group, stream, partition } = &self.context.place;
            let offset = failed.map(|event| event.offset.0);
            warn!(%group, %stream, partition, offset, reason, "the handler could not be called; trying again");
        }
        if outcome.is_failure() {
            self.failed_by = self.version.as_ref().map(|version| version.digest().to_owned());
            self.tell_failure(&outcome, located, failed, if handled == 0 { attempt } else { 1 });
        }
        // A failing batch is looked into on a fresh instance: the next call must not meet what this one left behind.
        self.handler = (located || outcome == Outcome::Done).then_some(handler);

        let dealt = batch.deal(handled);
        if let Some((first, _)) = dealt.done.iter().find(|(_, way)| *way == Way::Call) {
            self.takes_over(first.offset, self.version.as_ref().map(|version| version.digest().to_owned()));
        }
        self.state.write(&effects.state, dealt.next().unwrap_or(self.fetch_from));
        self.work.effects.extend(effects);
        self.dealt(dealt, handled as u32, outcome, located, checkpoint)
    }

    /// Keeps what came of a batch for the next commit.
    fn dealt(&mut self, dealt: Dealt, handled: u32, outcome: Outcome, located: bool, checkpoint: bool) -> Input {
        let next = dealt.next().unwrap_or(self.fetch_from);
        let Dealt { done, mut rest } = dealt;
        rest.append(&mut self.events);
        self.events = rest;
        let (count, mut parked) = (done.len() as u32, 0);
        let remembers = self.settings.idempotent;
        for (event, way) in done {
            let known = !self.known.is_empty() && self.known.remove(&event.id);
            if remembers && !known && (way == Way::Call || way == Way::Park) {
                self.work.bytes += (event.id.len() + REMEMBERED_BYTES) as u64;
                self.work.remembered.push((event.offset, event.id.clone()));
            }
            if way == Way::Park {
                parked += 1;
                self.park(event);
            }
        }
        let full = self.work.bytes > self.output_bytes_max();
        let chance = (self.context.chance)();
        Input::Invoked(Invoked { done: count, handled, parked, next, outcome, located, checkpoint, full, chance })
    }

    /// If another version than before answers from this offset on, that is put on record.
    fn takes_over(&mut self, offset: Offset, digest: Option<String>) {
        if digest.is_some() && digest != self.handled_by {
            self.work.handled_by.extend(digest.clone().map(|digest| (offset, digest)));
            self.handled_by = digest;
        }
    }

    /// An event follows those of its key.
    fn park(&mut self, event: Event) {
        let Place { group, stream, partition } = &self.context.place;
        debug!(%group, %stream, partition, offset = event.offset.0, id = event.id, key = event.key, "event waits behind its parked key");
        event.key.iter().for_each(|key| *self.parked.entry(key.clone()).or_default() += 1);
        let failure = Failure::parked(self.context.clock.now());
        self.work.set_aside.push(DeadLetter {
            event,
            failure,
            digest: None,
            parks: true,
            request: None,
            edited: false,
        });
    }

    /// Effects that are held without being committed are bounded: more are too many for one batch, or for a handler that
    /// does not give free what it has done.
    fn too_many_held(&mut self, effects: &Effects, checkpoint: bool, outcome: &Outcome) -> Option<Outcome> {
        if !matches!(self.settings.pump.commit, CommitMode::Every(_) | CommitMode::Manual) {
            return None;
        }
        let (before, limit) = (self.work.bytes, self.output_bytes_max());
        self.work.bytes = before.saturating_add(effects.bytes() as u64);
        let manual = self.settings.pump.commit == CommitMode::Manual;
        if !manual || checkpoint || *outcome != Outcome::Done || before == 0 || self.work.bytes <= limit {
            return None;
        }
        let found = mem::replace(&mut self.work.bytes, before);
        Some(Outcome::OutputTooLarge(format!(
            "effects of {found} bytes wait for the handler's checkpoint.commit, over limits.output ({limit}); call it more often"
        )))
    }

    fn output_bytes_max(&self) -> u64 {
        self.version.as_ref().map_or(u64::MAX, |version| version.output_bytes_max())
    }

    // --- Set aside ------------------------------------------------------------------------------------------------

    /// The first event is given up: the commit that comes now stores what becomes of it.
    fn set_aside(&mut self, aside: Aside, failure: Failure) {
        let Some(event) = self.events.pop_front() else { return };
        // Under manual commits another version may have come since it failed.
        self.takes_over(event.offset, self.failed_by.clone());
        let Place { group, stream, partition } = &self.context.place;
        let (offset, id, key, attempts) = (event.offset.0, event.id.as_str(), event.key.as_deref(), failure.attempts);
        let (class, reason) = (failure.class.as_str(), failure.reason.as_str());
        let parks = aside == Aside::Park && event.key.is_some();
        match aside {
            Aside::Skip => {
                warn!(%group, %stream, partition, offset, id, key, attempts, class, reason, "event skipped");
                self.work.skipped += 1;
                return;
            }
            _ if parks => {
                warn!(%group, %stream, partition, offset, id, key, attempts, class, reason, "event set aside as a dead letter; later events of its key wait behind it");
            }
            _ => {
                warn!(%group, %stream, partition, offset, id, key, attempts, class, reason, "event set aside as a dead letter")
            }
        }
        if self.settings.idempotent {
            self.work.remembered.push((event.offset, event.id.clone()));
        }
        event.key.iter().filter(|_| parks).for_each(|key| *self.parked.entry(key.clone()).or_default() += 1);
        let digest = self.failed_by.clone();
        self.work.set_aside.push(DeadLetter { event, failure, digest, parks, request: None, edited: false });
    }

    // --- Replay ---------------------------------------------------------------------------------------------------

    fn replay(&mut self, events: u32, refused: Option<String>) {
        let handler = self.handler_for(None);
        let Place { group, partition, .. } = self.context.place.clone();
        let clock = self.context.clock.clone();
        let order = Order {
            store: Arc::clone(&self.context.store),
            group,
            partition,
            limit: ReadLimit { events, bytes: FETCH_BYTES_MAX },
            digest: self.version.as_ref().map_or_else(String::new, |version| version.digest().to_owned()),
            handler,
            refused: self.replayed_last.zip(refused),
            now: Box::new(move || clock.now()),
        };
        self.replaying = Some(self.in_lane(Box::pin(replay::see_to(order))));
    }

    fn replayed(&mut self, report: Result<Report, StoreError>) -> Input {
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.store_failed(Request::Replay, &error),
        };
        let Report { told, handler, invocation, effects, settled, released, handled, failed } = report;
        self.handler = handler;
        self.called_at = time::Instant::now();
        let Place { group, stream, partition } = &self.context.place;
        if let Some(invocation) = &invocation {
            self.version.as_ref().inspect(|version| version.calls().count(handled.len(), &invocation.outcome));
        }
        if let Some(DeadLetter { event, failure, .. }) = &failed {
            let (class, reason) = (failure.class.as_str(), failure.reason.as_str());
            warn!(%group, %stream, partition, offset = event.offset.0, id = event.id, attempts = failure.attempts, class, reason, "dead letter failed again");
        }
        if let (Some((first, _)), Some((last, _))) = (handled.first(), handled.last()) {
            info!(%group, %stream, partition, first = first.0, last = last.0, count = handled.len(), "dead letters handled");
        }
        let tried =
            handled.first().map(|(offset, _)| *offset).or_else(|| failed.as_ref().map(|letter| letter.event.offset));
        self.replayed_last = tried.or(self.replayed_last);
        // What was read and handled before lies behind the position: what comes of it is stored with the next commit.
        self.state.write(&effects.state, Offset::default());
        self.work.effects.extend(effects);
        self.work.settled = settled;
        self.work.released = released;
        if self.settings.idempotent {
            self.work.remembered = handled;
        }
        Input::Replayed(told)
    }

    fn tell_failure(&self, outcome: &Outcome, located: bool, event: Option<&Event>, attempt: u32) {
        let Place { group, stream, partition } = &self.context.place;
        let (class, reason) = (outcome.class(), outcome.reason());
        let offset = event.map(|event| event.offset.0);
        if located {
            let id = event.map(|event| event.id.as_str());
            warn!(%group, %stream, partition, offset, id, attempt, class, reason, "event failed");
        } else {
            warn!(%group, %stream, partition, offset, class, reason, "batch failed, splitting it to find the event");
        }
    }

    /// Whether the version that failed last is not the present one.
    fn another_version_failed(&self) -> bool {
        let replaced = self.version.as_ref().is_some_and(|called| !Arc::ptr_eq(called, &self.present));
        replaced || self.failed_by.as_ref().is_some_and(|digest| digest != self.present.digest())
    }

    /// When to let go of an instance that nobody calls: it makes room for those of other partitions.
    fn idle_at(&self) -> Option<time::Instant> {
        let idle = self.handler.is_some() && self.calling.is_none() && self.events.is_empty();
        // What the handler has not given free may be in its memory alone.
        let idle = idle && self.settings.pump.commit != CommitMode::Manual;
        idle.then(|| self.called_at + INSTANCE_IDLE_MAX)
    }

    // --- Commit -------------------------------------------------------------------------------------------------

    fn commit(&mut self, to_where: Move, with_effects: bool) {
        let Move { from, to, position, mark, given_up_in_row } = to_where;
        // A commit whose answer was lost is sent again as it was: it may be stored already, effects and all.
        let commit = match self.commit.take() {
            Some(unanswered) => unanswered,
            None => {
                self.commits += 1;
                let work = if with_effects { mem::take(&mut self.work) } else { Work::default() };
                let Work { effects, set_aside, settled, released, remembered, handled_by, skipped, .. } = work;
                self.released = released;
                let failed = mark.as_ref().is_some_and(|mark| *mark != Mark::Clear);
                let failed_by = if failed { self.failed_by.clone() } else { None };
                let (lease, sequence) = (self.lease(), self.commits);
                Arc::new(Commit {
                    lease,
                    sequence,
                    from,
                    to,
                    position,
                    mark,
                    failed_by,
                    given_up_in_row,
                    skipped,
                    effects,
                    set_aside,
                    settled,
                    remembered,
                    handled_by,
                })
            }
        };
        debug_assert_eq!(
            (commit.from, commit.to),
            (from, to),
            "the commit that is repeated is the one that was asked for"
        );
        self.commit = Some(Arc::clone(&commit));
        let store = Arc::clone(&self.context.store);
        self.store_request = Some(Box::pin(async move { StoreAnswer::Committed(store.commit(commit).await) }));
    }

    fn committed(&mut self, outcome: CommitOutcome) -> Input {
        let Some(commit) = self.commit.take() else { return Input::Committed };
        let Place { group, stream, partition } = &self.context.place;
        let (from, to) = (commit.from.0, commit.to.0);
        match outcome {
            CommitOutcome::Committed => {
                effects_log::tell(&self.context.place, &commit.effects);
                self.state.committed(commit.to);
                if let Some((_, digest)) = commit.handled_by.last() {
                    self.handled_by_stored = Some(digest.clone());
                }
                for key in mem::take(&mut self.released) {
                    unpark(&mut self.parked, &key);
                    if !self.parked.contains_key(&key) {
                        info!(%group, %stream, partition, key, "key is not parked any more");
                    }
                }
                match &commit.mark {
                    None | Some(Mark::Clear) => debug!(%group, %stream, partition, from, to, "committed"),
                    Some(Mark::Retry { at, failure, next }) => {
                        let next = crate::time::show(*next);
                        info!(%group, %stream, partition, offset = at.0, attempts = failure.attempts, next, "partition waits to try the event again");
                    }
                    Some(Mark::Hold { at, until, why, .. }) => {
                        let until = crate::time::show(*until);
                        let why = why.explain();
                        error!(%group, %stream, partition, offset = at.0, until, why, "partition paused by itself");
                    }
                    Some(Mark::Stop { at, failure }) => {
                        let (attempts, reason) = (failure.attempts, failure.reason.as_str());
                        error!(%group, %stream, partition, offset = at.0, attempts, reason, "partition stopped; `pelton group resume` or a new module version starts it");
                        self.context.stopped_here.store(true, Ordering::Release);
                    }
                }
                Input::Committed
            }
            CommitOutcome::Fenced => Input::Fenced,
            CommitOutcome::Refused(reason) => {
                error!(%group, %stream, partition, from, to, reason, "the store refused the effects of these events");
                self.failed_by = self.version.as_ref().map(|version| version.digest().to_owned());
                // It is over with, and a rewind will not find it any more.
                unpark_all(&mut self.parked, &commit.set_aside);
                Input::Refused { reason, chance: (self.context.chance)() }
            }
        }
    }

    /// Nothing past the committed position ever happened.
    fn rewind(&mut self) {
        (self.fetching, self.calling, self.replaying) = (None, None, None);
        self.handler = None;
        if let Some(commit) = self.commit.take() {
            unpark_all(&mut self.parked, &commit.set_aside);
        }
        unpark_all(&mut self.parked, &mem::take(&mut self.work).set_aside);
        self.handled_by.clone_from(&self.handled_by_stored);
        self.released.clear();
        self.events.clear();
        self.known.clear();
        self.state.forget();
    }

    // --- Release ------------------------------------------------------------------------------------------------

    fn release(&mut self) {
        let (store, lease) = (Arc::clone(&self.context.store), self.lease());
        self.store_request = Some(Box::pin(async move { StoreAnswer::Released(store.release(&lease).await) }));
    }

    fn finish(&self, end: End) -> End {
        let Place { group, stream, partition } = &self.context.place;
        match end {
            End::Drained => debug!(%group, %stream, partition, "partition released"),
            End::Fenced => {
                warn!(%group, %stream, partition, epoch = self.epoch.0, "fenced: the partition was taken away from this host")
            }
        }
        end
    }

    // --- Answers and hints --------------------------------------------------------------------------------------

    fn answered(&mut self, answer: StoreAnswer) -> Option<Input> {
        Some(match answer {
            StoreAnswer::Acquired(Ok(Acquired::NotYet)) => Input::NotAcquired,
            StoreAnswer::Acquired(Ok(Acquired::Claimed(claim))) => {
                let Place { group, stream, partition } = &self.context.place;
                debug!(%group, %stream, partition, epoch = claim.epoch.0, committed = claim.committed.0, head = claim.head.0, "acquired");
                self.epoch = claim.epoch;
                if claim.committed > claim.head {
                    error!(%group, %stream, partition, committed = claim.committed.0, head = claim.head.0, "the position lies past the head: was the stream restored from an older copy? Nothing is handed out until the head is past it");
                }
                self.failed_by.clone_from(&claim.failed_by);
                self.handled_by_stored.clone_from(&claim.handled_by);
                self.handled_by.clone_from(&claim.handled_by);
                self.parked = claim.parked.iter().cloned().collect();
                Input::Acquired(claim)
            }
            StoreAnswer::Acquired(Err(error)) => self.store_failed(Request::Acquire, &error),
            StoreAnswer::Committed(Ok(outcome)) => self.committed(outcome),
            StoreAnswer::Committed(Err(error)) => self.store_failed(Request::Commit, &error),
            StoreAnswer::Released(Ok(())) => Input::Released,
            StoreAnswer::Released(Err(error)) => self.store_failed(Request::Release, &error),
        })
    }

    fn store_failed(&self, request: Request, error: &StoreError) -> Input {
        let Place { group, stream, partition } = &self.context.place;
        warn!(%group, %stream, partition, request = ?request, %error, "the store did not answer; trying again");
        Input::StoreFailed(request)
    }

    fn lease(&self) -> Lease {
        let Place { group, partition, .. } = &self.context.place;
        Lease {
            group: Arc::clone(group),
            partition: *partition,
            host: Arc::clone(&self.context.session.host),
            epoch: self.epoch,
        }
    }
}

/// Waits for something to be said from outside. Senders that are gone say nothing more.
async fn told(context: &mut PumpContext, draining: &mut bool) -> Input {
    select! {
        biased;
        true = asked_to_drain(&mut context.drain), if !*draining => {
            *draining = true;
            Input::Drain
        }
        Ok(()) = context.settings.changed() => Input::Settings(context.settings.borrow_and_update().pump),
        Ok(()) = context.version.changed() => Input::HandlerChanged,
        Ok(()) = context.hints.changed() => {
            let Hint { head, control, epoch, holder } = *context.hints.borrow_and_update();
            Input::Told { head, control, epoch, holder }
        }
        else => pending().await,
    }
}

async fn asked_to_drain(drain: &mut watch::Receiver<bool>) -> bool {
    drain.wait_for(|drain| *drain).await.is_ok()
}

/// Waits for what is under way; for ever if nothing is. Dropping the wait leaves it under way.
async fn finished<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(future) = slot else { return pending().await };
    let output = future.await;
    *slot = None;
    output
}

/// None of these was set aside after all.
fn unpark_all(parked: &mut BTreeMap<String, u64>, letters: &[DeadLetter]) {
    let keys = letters.iter().filter(|letter| letter.parks).filter_map(|letter| letter.event.key.as_ref());
    keys.for_each(|key| unpark(parked, key));
}

/// One event less waits in a key.
fn unpark(parked: &mut BTreeMap<String, u64>, key: &str) {
    if let Some(count) = parked.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            parked.remove(key);
        }
    }
}

async fn reached(deadline: Option<time::Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => pending().await,
    }
}
