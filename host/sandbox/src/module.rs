//! A handler that was compiled and checked.

use std::sync::Arc;

use wasmtime::component::Component;

use crate::{
    config::Settings,
    console::Console,
    deadline::Deadline,
    error::LoadError,
    grants::Grants,
    host::Shared,
    host_memory::{HostMemory, Tenant},
    http::Net,
    inspect::{self, Handler, World},
    interrupt::Interrupt,
    log::LogSink,
    moment::Moment,
    realm::Realm,
    redact::Redactor,
    state::StateReader,
    ticker::Clock,
    usage::Usage,
    worker::Worker,
};

/// One version of a handler with what it is granted. Cheap to clone; keeps the engine alive.
#[derive(Clone)]
pub struct Module {
    digest: Arc<str>,
    component: Component,
    asks_time_or_chance: bool,
    handler: Arc<Handler>,
    grants: Arc<Grants>,
    usage: Arc<Usage>,
    settings: Arc<Settings>,
    redactor: Arc<Redactor>,
    surroundings: Surroundings,
}

/// What a module has in common with others of its sandbox.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) net: Arc<Net>,
    pub(crate) clock: Clock,
    pub(crate) host_memory: Arc<HostMemory>,
    /// The engine it runs on, which is made anew for its stack size when nobody holds it.
    pub(crate) realm: Arc<Realm>,
}

/// Which partition of which stream a worker works on, for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: Arc<str>,
    /// The stream that its events come from.
    pub stream: Arc<str>,
    /// The partition of the stream.
    pub partition: u32,
}

impl Module {
    /// Links a component with what it is granted.
    pub(crate) fn new(
        digest: Arc<str>,
        component: Component,
        grants: Grants,
        usage: Arc<Usage>,
        surroundings: Surroundings,
    ) -> Result<Self, LoadError> {
        let handler = Arc::new(inspect::handler(&component, &surroundings.realm.linkers, &grants)?);
        let asks_time_or_chance = inspect::imports_any(&component, &["wasi:clocks/", "wasi:random/"]);
        let (settings, redactor) = (Arc::new(Settings::of(&grants)), Arc::new(Redactor::of(&grants)));
        Ok(Self {
            digest,
            component,
            asks_time_or_chance,
            handler,
            grants: Arc::new(grants),
            usage,
            settings,
            redactor,
            surroundings,
        })
    }

    /// The same version with other grants, and with the same count of what is used. Nothing is compiled; workers made
    /// before keep what they have.
    ///
    /// # Errors
    /// [`LoadError::Imports`] if it imports what these grants do not give. [`LoadError::Stack`] if they give another size
    /// of stack.
    pub fn regrant(&self, grants: Grants) -> Result<Self, LoadError> {
        self.regrant_with(grants, Arc::clone(&self.usage))
    }

    /// The same version to be tried out, with the [`held_back`](Grants::held_back) grants. It is counted apart, so that a
    /// trial takes neither instances nor log lines from what is live, and what it does is not taken for the other's.
    ///
    /// # Errors
    /// As [`Self::regrant`]; none of a module that was loaded, as these grants give every import that its own give.
    pub fn held_back(&self) -> Result<Self, LoadError> {
        self.regrant_with(self.grants.held_back(), Arc::default())
    }

    fn regrant_with(&self, grants: Grants, usage: Arc<Usage>) -> Result<Self, LoadError> {
        self.surroundings.realm.check_stack(grants.limits.stack_bytes)?;
        Self::new(Arc::clone(&self.digest), self.component.clone(), grants, usage, self.surroundings.clone())
    }

    /// The version: `sha256:` and the digest of the module's bytes.
    #[must_use]
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// The world it was found to be of.
    #[must_use]
    pub fn world(&self) -> World {
        self.handler.world()
    }

    /// What it is allowed.
    #[must_use]
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// What all versions of the handler use together.
    #[must_use]
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// A handler for one partition. No instance is made before the first call.
    #[must_use]
    pub fn worker(
        &self,
        place: Place,
        state: Arc<dyn StateReader>,
        logs: Arc<dyn LogSink>,
        interrupt: Interrupt,
    ) -> Worker {
        let lines_per_second = self.grants.limits.log_lines;
        let clock = self.surroundings.clock.clone();
        let console = Console::new(logs, Arc::clone(&self.redactor), lines_per_second, clock, Arc::clone(&self.usage));
        let shared = Shared {
            grants: Arc::clone(&self.grants),
            usage: Arc::clone(&self.usage),
            host_memory: Arc::new(Tenant::new(&self.surroundings.host_memory)),
            engine_places: Arc::clone(&self.surroundings.realm.places),
            settings: Arc::clone(&self.settings),
            redactor: Arc::clone(&self.redactor),
            net: Arc::clone(&self.surroundings.net),
            moment: Arc::new(Moment::new(&place, self.asks_time_or_chance)),
            state,
            console: Arc::new(console),
            deadline: Deadline::new(self.surroundings.clock.clone(), interrupt),
            is_unlimited: self.surroundings.realm.is_unlimited,
            takes_progress: self.world() == World::BatchWorker,
            made_id_prefix: format!("{}@{}/{}/", place.group, place.stream, place.partition),
            given_id_prefix: format!("{}/", place.group),
        };
        Worker::new(Arc::clone(&self.handler), Arc::new(shared), place)
    }
}
