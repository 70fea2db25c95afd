//! The host's side of one instance: what its imports see.

use std::sync::Arc;

use pelton_core::Offset;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;

use crate::{
    console::{Channel, Console, Stream},
    deadline::Deadline,
    grants::Grants,
    ledger::Ledger,
    memory::MemoryLimiter,
    state::StateReader,
};

/// WASI handles an instance may hold at once. Each costs the host some memory.
const RESOURCES_MAX: usize = 4096;

/// Random bytes a guest may ask for at once.
const RANDOM_BYTES_MAX: u64 = 1024 * 1024;

/// What all instances of one worker have in common.
pub(crate) struct Shared {
    pub(crate) grants: Arc<Grants>,
    pub(crate) config: Arc<WasiConfigVariables>,
    pub(crate) state: Arc<dyn StateReader>,
    pub(crate) console: Arc<Console>,
    pub(crate) deadline: Deadline,
    /// Whether `progress` means anything: where one event is in hand, returning is all the progress there is.
    pub(crate) takes_progress: bool,
    /// `{group}@{stream}/{partition}/`: ids that the host makes begin with it. No name holds an `@` or `/`, so they never
    /// equal one that a handler gave, which begin with `{group}/`.
    pub(crate) made_id_prefix: String,
    /// `{group}/`.
    pub(crate) given_id_prefix: String,
}

/// The data of one instance's store.
pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ledger: Ledger,
    pub(crate) memory: MemoryLimiter,
    wasi: WasiCtx,
    resources: ResourceTable,
}

impl Host {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let stream = |channel| Stream { console: Arc::clone(&shared.console), channel };
        let wasi = WasiCtx::builder()
            .stdout(stream(Channel::Stdout))
            .stderr(stream(Channel::Stderr))
            .allow_tcp(false)
            .allow_udp(false)
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let memory = MemoryLimiter::new(shared.grants.limits.memory_bytes);
        Self { shared, ledger: Ledger::default(), memory, wasi, resources }
    }

    pub(crate) fn config(&self) -> &WasiConfigVariables {
        &self.shared.config
    }

    /// The id of an event that a handler emits: unique among groups, and the same when its cause is handled again.
    pub(crate) fn emit_id(&self, given: Option<&str>, base: Offset) -> String {
        match given {
            Some(id) => [&self.shared.given_id_prefix, id].concat(),
            None => format!("{}{base}/{}", self.shared.made_id_prefix, self.ledger.emits()),
        }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}
