//! The host's side of one instance: what its imports see.

use std::sync::Arc;

use pelton_core::Offset;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::{
    config::Settings,
    console::{Channel, Console, Stream},
    deadline::Deadline,
    grants::Grants,
    host_memory::Tenant,
    http::{Http, Net},
    ledger::Ledger,
    memory::MemoryLimiter,
    moment::{Dice, Die, EventTime, Moment, StandingStill},
    redact::Redactor,
    resting::Places,
    state::StateReader,
    usage::Usage,
};

/// WASI handles an instance may hold at once. Each costs the host some memory; the headers of an HTTP request, which cost
/// most, up to 64 KiB.
const RESOURCES_MAX: usize = 1024;

/// Random bytes a guest may ask for at once.
const RANDOM_BYTES_MAX: u64 = 1024 * 1024;

/// What all instances of one worker have in common.
pub(crate) struct Shared {
    pub(crate) grants: Arc<Grants>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) host_memory: Arc<Tenant>,
    /// Where all instances of the engine rest.
    pub(crate) engine_places: Arc<Places>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) net: Arc<Net>,
    pub(crate) moment: Arc<Moment>,
    pub(crate) state: Arc<dyn StateReader>,
    pub(crate) console: Arc<Console>,
    pub(crate) deadline: Deadline,
    /// See [`SandboxOptions`](crate::SandboxOptions): for the benchmark of limits alone.
    pub(crate) is_unlimited: bool,
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
    pub(crate) http: Http,
    wasi: WasiCtx,
    resources: ResourceTable,
}

impl Host {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let stream = |channel| Stream { console: Arc::clone(&shared.console), channel };
        let mut wasi = WasiCtx::builder();
        wasi.stdout(stream(Channel::Stdout))
            .stderr(stream(Channel::Stderr))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM_BYTES_MAX);
        if !shared.grants.clocks {
            wasi.wall_clock(EventTime(Arc::clone(&shared.moment))).monotonic_clock(StandingStill);
        }
        if !shared.grants.random {
            let dice = |die| Dice { moment: Arc::clone(&shared.moment), die };
            wasi.secure_random(dice(Die::Secure))
                .insecure_random(dice(Die::Insecure))
                .insecure_random_seed(shared.moment.hash_seed());
        }
        let wasi = wasi.build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let memory =
            MemoryLimiter::new(&shared.grants.limits, Arc::clone(&shared.host_memory), Arc::clone(&shared.usage));
        let http = Http::new(
            Arc::clone(&shared.grants),
            Arc::clone(&shared.console),
            Arc::clone(&shared.usage),
            Arc::clone(&shared.net),
        );
        Self { shared, ledger: Ledger::default(), memory, http, wasi, resources }
    }

    pub(crate) fn resources(&mut self) -> &mut ResourceTable {
        &mut self.resources
    }

    pub(crate) fn http_and_resources(&mut self) -> (&mut Http, &mut ResourceTable) {
        (&mut self.http, &mut self.resources)
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
