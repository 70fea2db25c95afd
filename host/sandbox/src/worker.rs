//! Calling a handler with a batch of events, and telling what came of it.

use std::{mem, sync::Arc};

use pelton_core::{Event, Invocation, Outcome};
use wasmtime::{Engine, Store, UpdateDeadline};

use crate::{
    bindings::{batch_worker::BatchWorker, types, worker},
    host::{Host, Shared},
    inspect::{Handler, World},
    ledger::Ledger,
    log::LogLevel,
    module::Place,
    stop,
};

/// The handler of one partition. Its instance is made at the first call and stays warm across batches. It is dropped after
/// a trap, an interruption or an error of the host, because nothing is known of its memory then, and after as many calls
/// as [`Grants::reuse_calls`](crate::Grants::reuse_calls).
pub struct Worker {
    caller: Caller,
    instance: Option<Instance>,
}

/// All of a worker but its instance. A store can be sent to another thread, but not be looked at by two, so what calls
/// across an `await` must not hold on to the worker as a whole.
struct Caller {
    handler: Arc<Handler>,
    shared: Arc<Shared>,
    place: Place,
}

struct Instance {
    store: Store<Host>,
    exports: Exports,
    calls: u64,
    /// Under manual commits: it may keep something in its memory of events it has not given free. It is not recycled then.
    owes: bool,
}

enum Exports {
    Worker(worker::Worker),
    Batch(BatchWorker),
}

impl Worker {
    pub(crate) fn new(handler: Arc<Handler>, shared: Arc<Shared>, place: Place) -> Self {
        Self { caller: Caller { handler, shared, place }, instance: None }
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
        let mut instance = self.instance.take();
        let invocation = match self.caller.handler.world() {
            World::Worker => self.caller.one_by_one(&mut instance, events, attempt, manual).await,
            World::BatchWorker => self.caller.at_once(&mut instance, events, attempt).await,
        };
        self.instance = instance;
        invocation
    }

    /// Drops the instance, if there is one. The next call makes another.
    pub fn forget_instance(&mut self) {
        self.instance = None;
    }

    /// The linear memory of the instance, in bytes; 0 without one.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.instance.as_ref().map_or(0, |instance| instance.store.data().memory.bytes())
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
        deadline.start(grants.limits.timeout);
        ledger.begin(events.iter().map(|event| event.offset));
        console.begin(ledger.in_hand());

        let mut entered = match instance.take() {
            Some(warm) if warm.calls < grants.reuse_calls || warm.owes => warm,
            _ => match self.instantiate().await {
                Ok(fresh) => fresh,
                Err(outcome) => return outcome,
            },
        };
        entered.calls += 1;
        entered.store.set_epoch_deadline(1);
        entered.store.data_mut().memory.forgive();
        mem::swap(ledger, &mut entered.store.data_mut().ledger);
        let returned = deadline.watch(self.hand_over(&mut entered, events, attempt)).await;
        mem::swap(ledger, &mut entered.store.data_mut().ledger);
        console.end();

        match returned {
            Ok(answer) => {
                *instance = Some(entered);
                answer.map_or_else(stop::declined, |()| Outcome::Done)
            }
            Err(error) => stop::broken_off(&error, entered.store.data(), &grants.limits),
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
        let mut store = Store::new(self.engine(), Host::new(Arc::clone(&self.shared)));
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
        let deadline = &self.shared.deadline;
        let instantiated = match &*self.handler {
            Handler::Worker(handler) => {
                deadline.watch(handler.instantiate_async(&mut store)).await.map(Exports::Worker)
            }
            Handler::Batch(handler) => deadline.watch(handler.instantiate_async(&mut store)).await.map(Exports::Batch),
        };
        match instantiated {
            Ok(exports) => Ok(Instance { store, exports, calls: 0, owes: false }),
            Err(error) => {
                self.shared.console.end();
                Err(stop::broken_off(&error, store.data(), &self.shared.grants.limits))
            }
        }
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
