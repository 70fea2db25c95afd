//! Calling a handler with a batch of events, and telling what came of it.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use pelton_core::{Event, Invocation, Outcome};
use tokio::time::timeout;
use wasmtime::{Engine, Store, UpdateDeadline};

use crate::{
    bindings::{batch_worker::BatchWorker, types, worker},
    gate::{self, Alive},
    host::{Host, Shared},
    inspect::{Handler, World},
    ledger::Ledger,
    log::LogLevel,
    memory::{Denied, MEMORIES_MAX},
    module::Place,
    resting::Resting,
    stop,
};

/// How long a call waits for an instance of another partition to make way. Whoever waits is in a queue, so it is better
/// to wait than to try again.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an instance is kept from those that wait for one, in the middle of a batch.
const TURN_MS: u64 = 1000;

/// How many resting instances make way, from try to try, for one that finds no slot left in the engine. Each of them has
/// a memory, so what they leave is enough for one that has as many as it may, unless others are faster.
const MAKE_WAY: [usize; 2] = [1, MEMORIES_MAX as usize];

/// The handler of one partition. Its instance is made at the first call and stays warm across batches. It is dropped after
/// a trap, an interruption or an error of the host, because nothing is known of its memory then; when
/// [`Recycle`](crate::Recycle) says so; when [`limits.instances`](crate::Limits::instances) are alive and another
/// partition needs one; and when another handler needs its memory, or its slot in the engine.
pub struct Worker {
    caller: Caller,
    bed: Arc<Bed>,
    /// Whether others know where to find the instance.
    is_known: bool,
}

/// All of a worker but its instance.
struct Caller {
    handler: Arc<Handler>,
    shared: Arc<Shared>,
    place: Place,
    /// The age at which an instance makes way for another, in milliseconds.
    age_max_ms: u64,
}

/// Where an instance is between two calls.
#[derive(Default)]
struct Bed(Mutex<Option<Instance>>);

struct Instance {
    store: Store<Host>,
    exports: Exports,
    calls: u64,
    /// Under manual commits: it may keep something in its memory of events it has not given free. It is not recycled then.
    owes: bool,
    made_ms: u64,
    memory_mark_bytes: u64,
    /// The last to be dropped: whoever comes next finds the memory and the slot free.
    _alive: Alive,
}

enum Exports {
    Worker(worker::Worker),
    Batch(BatchWorker),
}

impl Worker {
    pub(crate) fn new(handler: Arc<Handler>, shared: Arc<Shared>, place: Place) -> Self {
        let age_max_ms = u64::try_from(shared.grants.recycle.age.as_millis()).unwrap_or(u64::MAX);
        Self { caller: Caller { handler, shared, place, age_max_ms }, bed: Arc::default(), is_known: false }
    }

    /// Hands a batch to the handler, in the order given. `attempt` is that of the first event, 1 at its first delivery;
    /// the others are new. What the handler does wrong ends in the [`Invocation`], never in a panic of the host.
    ///
    /// With `manual` a call of `checkpoint.commit` means something: the batch ends behind the event that made it.
    ///
    /// Needs a tokio runtime with time enabled. A call whose future is dropped leaves nothing behind but the instance's
    /// absence.
    pub async fn call(&mut self, events: &[Event], attempt: u32, manual: bool) -> Invocation {
        // Taken out, so that an instance whose call is dropped half-way is not called again.
        let mut instance = self.bed.instance().take();
        let invocation = match self.caller.handler.world() {
            World::Worker => self.caller.one_by_one(&mut instance, events, attempt, manual).await,
            World::BatchWorker => self.caller.at_once(&mut instance, events, attempt).await,
        };
        self.lay_down(instance);
        invocation
    }

    /// The instance rests until the next call, if nobody else waits for one.
    fn lay_down(&mut self, instance: Option<Instance>) {
        let Shared { grants, usage, host_memory, engine_places, .. } = &*self.caller.shared;
        let Some(instance) = instance else { return };
        let must_make_way = self.caller.must_make_way(&instance);
        *self.bed.instance() = Some(instance);
        if !self.is_known {
            let bed: Arc<dyn Resting> = Arc::clone(&self.bed) as Arc<dyn Resting>;
            usage.gate.places.add(Arc::downgrade(&bed));
            host_memory.add_resting(Arc::downgrade(&bed));
            engine_places.add(Arc::downgrade(&bed));
            self.is_known = true;
        }
        // One that came by in between has looked into the bed too early, or is seen here. Who waits for memory comes again.
        if must_make_way || (grants.limits.instances > 0 && usage.gate.is_wanted()) {
            self.bed.give_up();
        }
    }

    /// Drops the instance, if there is one. The next call makes another.
    pub fn forget_instance(&mut self) {
        let instance = self.bed.instance().take();
        drop(instance);
    }

    /// The linear memory of the instance, in bytes; 0 without one.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.bed.instance().as_ref().map_or(0, |instance| instance.store.data().memory.bytes())
    }
}

impl Bed {
    fn instance(&self) -> MutexGuard<'_, Option<Instance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting for Bed {
    fn give_up(&self) -> bool {
        let instance = self.instance().take_if(|instance| !instance.owes);
        // Without the lock: to drop it takes a while.
        instance.is_some()
    }
}

impl Caller {
    async fn one_by_one(
        &self,
        instance: &mut Option<Instance>,
        events: &[Event],
        attempt: u32,
        manual: bool,
    ) -> Invocation {
        let mut ledger = Ledger::default();
        let mut outcome = Outcome::Done;
        let mut handled = 0;
        let mut checkpoint = false;
        for (event, attempt) in events.iter().zip(attempts(attempt)) {
            outcome = self.enter(instance, &mut ledger, std::slice::from_ref(event), attempt).await;
            if outcome != Outcome::Done {
                ledger.discard();
                break;
            }
            ledger.keep();
            handled += 1;
            checkpoint = manual && ledger.is_checkpoint();
            if let Some(instance) = instance {
                instance.owes = manual && !checkpoint;
            }
            if checkpoint {
                break;
            }
            if instance.as_ref().is_some_and(|instance| self.must_make_way(instance)) {
                *instance = None;
            }
            // The limit is one call's; a batch of calls may hold so much and commits before it goes on.
            if ledger.kept_bytes() > self.shared.grants.limits.output_bytes {
                break;
            }
        }
        Invocation { handled, outcome, located: true, checkpoint, effects: ledger.into_kept() }
    }

    async fn at_once(&self, instance: &mut Option<Instance>, events: &[Event], attempt: u32) -> Invocation {
        let mut ledger = Ledger::default();
        if events.is_empty() {
            let (outcome, effects) = (Outcome::Done, ledger.into_kept());
            return Invocation { handled: 0, outcome, located: true, checkpoint: false, effects };
        }
        let mut outcome = self.enter(instance, &mut ledger, events, attempt).await;
        let told = ledger.told();
        if told == Some(events.len()) && outcome != Outcome::Done {
            // No event is left that this could be the failure of.
            let message = format!("failed after it had told that all {} events are handled: {outcome}", events.len());
            self.shared.console.log(LogLevel::Warn, "pelton", &message);
            outcome = Outcome::Done;
            ledger.discard();
        }
        let handled = if outcome == Outcome::Done {
            ledger.keep();
            events.len()
        } else {
            ledger.discard();
            told.unwrap_or(0)
        };
        let located = outcome == Outcome::Done || told.is_some() || events.len() == 1;
        Invocation { handled, outcome, located, checkpoint: false, effects: ledger.into_kept() }
    }

    /// One call into the guest. The instance is there afterwards only if it can be called again.
    async fn enter(
        &self,
        instance: &mut Option<Instance>,
        ledger: &mut Ledger,
        events: &[Event],
        attempt: u32,
    ) -> Outcome {
        let Shared { grants, deadline, console, .. } = &*self.shared;
        if deadline.is_interrupted() {
            return Outcome::Interrupted;
        }
        if !self.shared.is_unlimited {
            deadline.start(grants.limits.timeout);
        }
        ledger.begin(events.iter().map(|event| event.offset));
        console.begin(ledger.in_hand());

        let mut entered = match instance.take().filter(|warm| !self.is_spent(warm)) {
            Some(warm) => warm,
            // Apart: what it needs would be carried along by every call that needs none of it.
            None => match Box::pin(self.instantiate()).await {
                Ok(fresh) => fresh,
                Err(outcome) => return outcome,
            },
        };
        entered.calls += 1;
        self.shared.moment.begin(events);
        if !self.shared.is_unlimited {
            entered.store.set_epoch_deadline(1);
            entered.store.data_mut().memory.forgive();
        }
        mem::swap(ledger, &mut entered.store.data_mut().ledger);
        let call = self.hand_over(&mut entered, events, attempt);
        let returned = if self.shared.is_unlimited { call.await } else { deadline.watch(call).await };
        mem::swap(ledger, &mut entered.store.data_mut().ledger);
        entered.store.data_mut().http.end_call();
        console.end();

        let host = entered.store.data();
        match returned {
            Ok(answer) => {
                let outcome = match answer {
                    Ok(()) => Outcome::Done,
                    Err(_) if host.memory.denied() == Some(Denied::HostMemory) => stop::host_memory_used_up(host),
                    Err(error) => stop::declined(error, &self.shared.redactor),
                };
                *instance = Some(entered);
                outcome
            }
            Err(error) => stop::broken_off(&error, host, &grants.limits),
        }
    }

    /// Whether a fresh instance is to take the place of this one, which is counted then.
    fn is_spent(&self, instance: &Instance) -> bool {
        let recycle = &self.shared.grants.recycle;
        let age_ms = self.shared.deadline.now_ms().saturating_sub(instance.made_ms);
        let is_spent = !instance.owes
            && (instance.calls >= recycle.calls
                || age_ms >= self.age_max_ms
                || instance.store.data().memory.bytes() > instance.memory_mark_bytes);
        if is_spent {
            self.shared.usage.recycled.fetch_add(1, Ordering::Relaxed);
        }
        is_spent
    }

    /// Whether others have waited for long enough.
    fn must_make_way(&self, instance: &Instance) -> bool {
        let Shared { grants, usage, host_memory, deadline, .. } = &*self.shared;
        let by_its_own = grants.limits.instances > 0 && usage.gate.is_wanted();
        (by_its_own || host_memory.is_claimed())
            && !instance.owes
            && deadline.now_ms().saturating_sub(instance.made_ms) >= TURN_MS
            && (by_its_own || host_memory.is_wanted())
    }

    /// Waits for leave to make an instance. That time is not the handler's.
    async fn admit(&self) -> Result<Alive, Outcome> {
        let Shared { grants, usage, deadline, .. } = &*self.shared;
        let limit = grants.limits.instances;
        if limit == 0 {
            return Ok(gate::admit(usage, limit).await);
        }
        let wait = timeout(ADMISSION_TIMEOUT, gate::admit(usage, limit));
        match deadline.watch(async { Ok(deadline.exempt(wait).await) }).await {
            Ok(Ok(alive)) => Ok(alive),
            Ok(Err(_)) => Err(Outcome::StoreUnavailable(format!(
                "as many instances of handler \"{}\" are at work as limits.instances allows on this host ({limit})",
                grants.handler,
            ))),
            Err(_) => Err(Outcome::Interrupted),
        }
    }

    async fn hand_over(
        &self,
        Instance { store, exports, .. }: &mut Instance,
        events: &[Event],
        attempt: u32,
    ) -> wasmtime::Result<Result<(), types::Error>> {
        match (exports, events) {
            (Exports::Worker(worker), [event]) => {
                worker.pelton_worker_handler().call_handle(store, self.lend(event, attempt)).await
            }
            (Exports::Worker(_), _) => Err(wasmtime::Error::msg("a worker takes one event at a time")),
            (Exports::Batch(worker), events) => {
                let lent: Vec<_> =
                    events.iter().zip(attempts(attempt)).map(|(event, attempt)| self.lend(event, attempt)).collect();
                worker.pelton_worker_batch_handler().call_handle_batch(store, &lent).await
            }
        }
    }

    async fn instantiate(&self) -> Result<Instance, Outcome> {
        let alive = self.admit().await?;
        let Shared { engine_places, console, deadline, .. } = &*self.shared;
        let mut ways = MAKE_WAY.into_iter();
        loop {
            let (store, started) = self.start().await;
            let error = match started {
                Ok(exports) => {
                    self.shared.usage.instances_made.fetch_add(1, Ordering::Relaxed);
                    let memory_mark_bytes = self.memory_mark_bytes(store.data().memory.bytes());
                    let made_ms = deadline.now_ms();
                    return Ok(Instance {
                        store,
                        exports,
                        calls: 0,
                        owes: false,
                        made_ms,
                        memory_mark_bytes,
                        _alive: alive,
                    });
                }
                Err(error) => error,
            };
            let may_try_again =
                stop::is_pool_used_up(&error) && ways.next().is_some_and(|count| engine_places.give_up(count));
            if !may_try_again {
                console.end();
                return Err(stop::broken_off(&error, store.data(), &self.shared.grants.limits));
            }
        }
    }

    /// Makes an instance from nothing.
    async fn start(&self) -> (Store<Host>, wasmtime::Result<Exports>) {
        self.shared.moment.start();
        let mut store = Store::new(self.engine(), Host::new(Arc::clone(&self.shared)));
        if !self.shared.is_unlimited {
            self.limit(&mut store);
        }
        let deadline = &self.shared.deadline;
        let started = match &*self.handler {
            Handler::Worker(handler) => {
                deadline.watch(handler.instantiate_async(&mut store)).await.map(Exports::Worker)
            }
            Handler::Batch(handler) => deadline.watch(handler.instantiate_async(&mut store)).await.map(Exports::Batch),
        };
        (store, started)
    }

    /// What an instance may have, and when it is broken off.
    fn limit(&self, store: &mut Store<Host>) {
        store.limiter(|host| &mut host.memory);
        // A list that a guest hands over may name the same memory over and over; an honest one fits into its memory.
        let copied_bytes_max = self.shared.grants.limits.memory_bytes;
        store.set_hostcall_fuel(usize::try_from(copied_bytes_max).unwrap_or(usize::MAX));
        let shared = Arc::clone(&self.shared);
        store.epoch_deadline_callback(move |_| match shared.deadline.stop() {
            Some(stop) => Err(stop.into()),
            None => Ok(UpdateDeadline::Yield(1)),
        });
        store.set_epoch_deadline(1);
    }

    /// How much memory an instance may have that began with `first_bytes`, before another takes its place: a quarter
    /// below the limit at least. One that is past the mark from the start gets half of what is left, or each would serve
    /// one call.
    fn memory_mark_bytes(&self, first_bytes: u64) -> u64 {
        let limit = self.shared.grants.limits.memory_bytes;
        let mark = self.shared.grants.recycle.memory_bytes.min(limit / 4 * 3);
        if first_bytes < mark { mark } else { first_bytes + limit.saturating_sub(first_bytes) / 2 }
    }

    fn engine(&self) -> &Engine {
        match &*self.handler {
            Handler::Worker(handler) => handler.engine(),
            Handler::Batch(handler) => handler.engine(),
        }
    }

    fn lend<'a>(&'a self, event: &'a Event, attempt: u32) -> types::Event<'a> {
        types::Event {
            id: &event.id,
            stream: &self.place.stream,
            partition: self.place.partition,
            offset: event.offset.0,
            key: event.key.as_deref(),
            kind: &event.kind,
            time: event.time.0,
            headers: &event.headers,
            payload: &event.payload,
            attempt,
        }
    }
}

/// That of the first event, then 1 for each of the others.
fn attempts(first: u32) -> impl Iterator<Item = u32> {
    std::iter::once(first).chain(std::iter::repeat(1))
}
