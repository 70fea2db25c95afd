//! A handler that was compiled and checked.

use std::sync::Arc;

use wasmtime_wasi_config::WasiConfigVariables;

use crate::{
    console::Console,
    deadline::Deadline,
    grants::Grants,
    host::Shared,
    inspect::{Handler, World},
    interrupt::Interrupt,
    log::LogSink,
    state::StateReader,
    ticker::Clock,
    worker::Worker,
};

/// One version of a handler with what it is granted. Cheap to clone; keeps the engine alive.
#[derive(Clone)]
pub struct Module {
    digest: Arc<str>,
    handler: Arc<Handler>,
    grants: Arc<Grants>,
    config: Arc<WasiConfigVariables>,
    clock: Clock,
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
    pub(crate) fn new(digest: Arc<str>, handler: Handler, grants: Grants, clock: Clock) -> Self {
        let config = grants.config.iter().cloned().collect();
        Self { digest, handler: Arc::new(handler), grants: Arc::new(grants), config: Arc::new(config), clock }
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

    /// A handler for one partition. No instance is made before the first call.
    #[must_use]
    pub fn worker(
        &self,
        place: Place,
        state: Arc<dyn StateReader>,
        logs: Arc<dyn LogSink>,
        interrupt: Interrupt,
    ) -> Worker {
        let shared = Shared {
            grants: Arc::clone(&self.grants),
            config: Arc::clone(&self.config),
            state,
            console: Arc::new(Console::new(logs)),
            deadline: Deadline::new(self.clock.clone(), interrupt),
            takes_progress: self.world() == World::BatchWorker,
            made_id_prefix: format!("{}@{}/{}/", place.group, place.stream, place.partition),
            given_id_prefix: format!("{}/", place.group),
        };
        Worker::new(Arc::clone(&self.handler), Arc::new(shared), place)
    }
}
