//! The way of a batch: acquire → fetch → invoke → commit → (verdict) → next.
//!
//! One pump works for one partition of one group. What to do next is decided by [`Pump`], the state machine in `core`;
//! this file carries it out: it talks to the store, holds the events and effects that are under way, and calls the
//! handler. Follow [`run`] from the top to see what happens to an event from its stream to the commit that moves past it.

use std::{collections::VecDeque, future::pending, mem, sync::Arc};

use futures_util::future::BoxFuture;
use pelton_core::{
    Acquired, Action, Commit, CommitOutcome, Control, Effects, End, Epoch, Event, Holder, Input, Invocation, Lease,
    Mark, Offset, Outcome, Pump, PumpSettings, Request, Session,
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
    handler::{Handler, Version},
    state::PartitionState,
    time::Clock,
};

/// Payload bytes of one fetch: with one batch in hand and one read ahead, twice this is what a partition holds.
const FETCH_BYTES_MAX: u64 = 8 << 20;

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
    pub settings: watch::Receiver<PumpSettings>,
    /// The handler's version, as it is now. A new one takes over between two batches.
    pub version: watch::Receiver<Arc<dyn Version>>,
    /// What is known of the partition from outside.
    pub hints: watch::Receiver<Hint>,
    /// Becomes true when the pump is to finish its batch, commit, release and end.
    pub drain: watch::Receiver<bool>,
    /// Breaks off the call under way.
    pub interrupt: Interrupt,
    /// Uniform in 0 to 1, for the jitter of back-off.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
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
    let mut machine = Pump::new(*context.settings.borrow());
    let mut hands = Hands::new(context);
    loop {
        while let Some(action) = machine.next_action(hands.context.clock.now()) {
            match action {
                Action::Acquire => hands.acquire(),
                Action::Fetch { from, events } => hands.fetch(from, events),
                Action::Invoke { events, attempt } => hands.invoke(events, attempt),
                Action::Commit { from, to, mark } => hands.commit(from, to, machine.position(), mark),
                Action::Rewind => hands.rewind(),
                Action::Release => hands.release(),
                Action::Finish(end) => return hands.finish(end),
            }
        }
        let deadline = machine.deadline().map(|at| hands.context.clock.instant(at));
        let idle = hands.idle_at();
        // Results come before hints, and the call last: polling it runs the guest.
        let input = select! {
            biased;
            input = finished(&mut hands.store_request) => hands.answered(input),
            events = finished(&mut hands.fetching) => hands.fetched(events),
            input = told(&mut hands.context, &mut hands.draining) => Some(input),
            () = reached(deadline) => None,
            () = reached(idle) => {
                hands.handler = None;
                None
            }
            called = finished(&mut hands.calling) => Some(hands.invoked(called)),
        };
        let now = hands.context.clock.now();
        let Some(input) = input else { continue };
        let tells_of_failure = matches!(input, Input::Acquired(_) | Input::Invoked { .. });
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
    epoch: Epoch,
    draining: bool,
    state: Arc<PartitionState>,
    /// Events read and not handled yet.
    events: VecDeque<Event>,
    /// Effects of what was handled and is not in the commit under way, and where they end.
    effects: Effects,
    /// The handler that is between calls, if one was started.
    handler: Option<Box<dyn Handler>>,
    /// When a call ended last.
    called_at: time::Instant,
    /// The version that was called last.
    version: Option<Arc<dyn Version>>,
    /// The digest of the version that failed last, here or under an earlier owner.
    failed_by: Option<String>,
    /// Commits made under this lease.
    commits: u64,
    /// The commit that was asked for last, until it is known what became of it.
    commit: Option<Arc<Commit>>,

    store_request: Option<BoxFuture<'static, StoreAnswer>>,
    fetching: Option<BoxFuture<'static, Result<Vec<Event>, StoreError>>>,
    fetch_from: Offset,
    calling: Option<BoxFuture<'static, Called>>,
}

/// What came back of a request that writes. At most one is under way.
enum StoreAnswer {
    Acquired(Result<Acquired, StoreError>),
    Committed(Result<CommitOutcome, StoreError>),
    Released(Result<(), StoreError>),
}

/// What comes back of a call: the handler, the events it was given, and what came of them.
struct Called {
    handler: Box<dyn Handler>,
    events: VecDeque<Event>,
    attempt: u32,
    invocation: Invocation,
}

impl Hands {
    fn new(context: PumpContext) -> Self {
        let Place { group, partition, .. } = &context.place;
        let state = Arc::new(PartitionState::new(Arc::clone(&context.store), Arc::clone(group), *partition));
        Self {
            context,
            epoch: Epoch::default(),
            draining: false,
            state,
            events: VecDeque::new(),
            effects: Effects::default(),
            handler: None,
            called_at: time::Instant::now(),
            version: None,
            failed_by: None,
            commits: 0,
            commit: None,
            store_request: None,
            fetching: None,
            fetch_from: Offset::default(),
            calling: None,
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
        self.fetching = Some(Box::pin(async move { store.read(&stream, partition, from, limit).await }));
    }

    fn fetched(&mut self, events: Result<Vec<Event>, StoreError>) -> Option<Input> {
        match events {
            Ok(events) => {
                let next = events.last().map_or(self.fetch_from, |event| event.offset.next());
                let input = Input::Fetched { events: events.len() as u32, next };
                self.events.extend(events);
                Some(input)
            }
            Err(error) => Some(self.store_failed(Request::Fetch, &error)),
        }
    }

    // --- Invoke -------------------------------------------------------------------------------------------------

    fn invoke(&mut self, events: u32, attempt: u32) {
        let rest = self.events.split_off((events as usize).min(self.events.len()));
        let mut events = mem::replace(&mut self.events, rest);
        let mut handler = self.handler_for(events.front());
        self.calling = Some(Box::pin(async move {
            let invocation = handler.call(events.make_contiguous(), attempt).await;
            Called { handler, events, attempt, invocation }
        }));
    }

    /// The handler that is warm, or one of the present version if there is none or that one is new.
    fn handler_for(&mut self, first: Option<&Event>) -> Box<dyn Handler> {
        let version = Arc::clone(&self.context.version.borrow_and_update());
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
        let Called { handler, mut events, attempt, invocation } = called;
        let Invocation { handled, outcome, located, effects } = invocation;
        let handled = handled.min(events.len());
        let first = events.front().map_or(self.fetch_from, |event| event.offset);
        let next = handled.checked_sub(1).map_or(first, |last| events[last].offset.next());
        self.called_at = time::Instant::now();
        self.version.as_ref().inspect(|version| version.calls().count(handled, &outcome));
        if let Outcome::StoreUnavailable(reason) = &outcome {
            let Place { group, stream, partition } = &self.context.place;
            warn!(%group, %stream, partition, offset = next.0, reason, "the handler could not be called; trying again");
        }
        if outcome.is_failure() {
            self.failed_by = self.version.as_ref().map(|version| version.digest().to_owned());
            self.tell_failure(&outcome, located, events.get(handled), if handled == 0 { attempt } else { 1 });
        }
        // A failing batch is looked into on a fresh instance: the next call must not meet what this one left behind.
        self.handler = (located || outcome == Outcome::Done).then_some(handler);

        self.state.write(&effects.state, next);
        self.effects.extend(effects);
        events.drain(..handled);
        events.append(&mut self.events);
        self.events = events;
        Input::Invoked { handled: handled as u32, next, outcome, located, chance: (self.context.chance)() }
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
        let version = self.context.version.borrow();
        let replaced = self.version.as_ref().is_some_and(|called| !Arc::ptr_eq(called, &version));
        replaced || self.failed_by.as_ref().is_some_and(|digest| digest != version.digest())
    }

    /// When to let go of an instance that nobody calls: it makes room for those of other partitions.
    fn idle_at(&self) -> Option<time::Instant> {
        let idle = self.handler.is_some() && self.calling.is_none() && self.events.is_empty();
        idle.then(|| self.called_at + INSTANCE_IDLE_MAX)
    }

    // --- Commit -------------------------------------------------------------------------------------------------

    fn commit(&mut self, from: Offset, to: Offset, position: Offset, mark: Mark) {
        // A commit whose answer was lost is sent again as it was: it may be stored already, effects and all.
        let commit = match self.commit.take() {
            Some(unanswered) => unanswered,
            None => {
                self.commits += 1;
                let (sequence, effects) = (self.commits, mem::take(&mut self.effects));
                let failed_by = if mark == Mark::Clear { None } else { self.failed_by.clone() };
                Arc::new(Commit { lease: self.lease(), sequence, from, to, position, mark, failed_by, effects })
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
                self.state.committed(commit.to);
                match &commit.mark {
                    Mark::Clear => debug!(%group, %stream, partition, from, to, "committed"),
                    Mark::Retry { attempts, next, .. } => {
                        let next = crate::time::show(*next);
                        info!(%group, %stream, partition, offset = to, attempts, next, "partition waits to try the event again");
                    }
                    Mark::Stop { attempts, reason } => {
                        error!(%group, %stream, partition, offset = to, attempts, reason, "partition stopped; `pelton group resume` or a new module version starts it");
                    }
                }
                Input::Committed
            }
            CommitOutcome::Fenced => Input::Fenced,
            CommitOutcome::Refused(reason) => {
                error!(%group, %stream, partition, from, to, reason, "the store refused the effects of these events");
                Input::Refused { reason, chance: (self.context.chance)() }
            }
        }
    }

    /// Nothing past the committed position ever happened.
    fn rewind(&mut self) {
        self.fetching = None;
        self.calling = None;
        self.handler = None;
        self.commit = None;
        self.events.clear();
        self.effects = Effects::default();
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
        Ok(()) = context.settings.changed() => Input::Settings(*context.settings.borrow_and_update()),
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

async fn reached(deadline: Option<time::Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => pending().await,
    }
}
