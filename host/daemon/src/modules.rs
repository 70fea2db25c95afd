//! Loads the modules of handlers, off the hot path: from their files, or as the store keeps them.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pelton_core::{CommitMode, Filter, Found, Refusal, Rollout};
use pelton_sandbox::{EmitGrant, Grants, LoadError, MODULE_BYTES_MAX, Module, Sandbox, Usage, World, digest_of};
use pelton_store::{Store, StreamSpec};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::info;

use crate::{
    config::{GroupConfig, HandlerConfig},
    files::{SETTLED_AFTER, Stamp},
    handler::Lane,
    history::{GateFault, check_gate},
    plain_file,
    self_test::{SelfTest, self_test},
};

/// How often at most to wait for a file that keeps changing.
const SETTLE_TRIES: usize = 50;
/// How long the store may take to give a module out.
const STORE_MAX: Duration = Duration::from_secs(30);

/// A module that is to be loaded, with all that is asked of it.
#[derive(Clone)]
pub(crate) struct Order {
    /// The handler's name.
    pub(crate) handler: String,
    pub(crate) config: HandlerConfig,
    pub(crate) grants: Grants,
    /// Groups of it that say `commit = "manual"`.
    pub(crate) manual: Vec<String>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) source: Source,
    /// What is known of its versions.
    pub(crate) rollout: Rollout,
    /// Those that are loaded, by digest.
    pub(crate) ready: BTreeMap<String, Module>,
    /// The groups that it serves: name, stream and filter.
    pub(crate) groups: Vec<(String, String, Filter)>,
}

/// Where a module comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The file that `workers.toml` names.
    File(Found),
    /// The store keeps it under this digest.
    Stored(String),
}

/// What came of loading a module.
pub(crate) struct Loaded {
    pub(crate) handler: String,
    /// Which load this is: of those from files, only the handler's newest counts.
    pub(crate) serial: u64,
    pub(crate) source: Source,
    pub(crate) result: Result<Fresh, Fault>,
}

/// A module that is ready to be called.
pub(crate) struct Fresh {
    pub(crate) module: Module,
    pub(crate) bytes: Arc<[u8]>,
    /// Whether it is a version that is to be proposed.
    pub(crate) is_new: bool,
}

/// Why a module is not taken.
#[derive(Debug)]
pub(crate) struct Fault {
    /// A sentence for the log and for `pelton handlers`, with the file and the remedy.
    pub(crate) reason: String,
    /// Whether it is no fault of the module, and may be over soon.
    pub(crate) passes: bool,
}

impl From<GateFault> for Fault {
    fn from(fault: GateFault) -> Self {
        match fault {
            GateFault::Refused(reason) => Self { reason, passes: false },
            GateFault::NotRun(reason) => Self { reason, passes: true },
        }
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self { reason, passes: false }
    }
}

/// Loads modules in the background.
#[derive(Clone)]
pub(crate) struct Loader {
    sandbox: Sandbox,
    store: Arc<dyn Store>,
    lane: Lane,
    results: mpsc::Sender<Loaded>,
    /// Loads begun so far, of all handlers: one that was removed and added again must not take what its namesake loaded.
    begun: Arc<AtomicU64>,
}

impl Loader {
    pub(crate) fn new(sandbox: Sandbox, store: Arc<dyn Store>, lane: Lane) -> (Self, mpsc::Receiver<Loaded>) {
        let (results, receiver) = mpsc::channel(16);
        (Self { sandbox, store, lane, results, begun: Arc::default() }, receiver)
    }

    /// Starts loading, and gives the number under which the result comes through the channel, and what gives the load up:
    /// a compilation that nobody waits for any more must not keep others from theirs.
    pub(crate) fn start(&self, order: Order) -> (u64, AbortHandle) {
        let serial = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let loader = self.clone();
        let load = tokio::spawn(async move {
            let result = match &order.source {
                Source::File(found) => loader.load_file(&order, *found).await,
                Source::Stored(digest) => loader.load_stored(&order, digest).await,
            };
            let Order { handler, source, .. } = order;
            // Nobody listens when the host is going down.
            let _ = loader.results.send(Loaded { handler, serial, source, result }).await;
        });
        (serial, load.abort_handle())
    }

    /// A file that is still being written is waited for.
    async fn load_file(&self, order: &Order, found: Found) -> Result<Fresh, Fault> {
        let path = &order.config.module;
        let mut error = Fault::from(String::new());
        for _ in 0..SETTLE_TRIES {
            let before = Stamp::of(path).await;
            match self.load_file_as_it_is(order, found).await {
                Ok(fresh) => return Ok(fresh),
                Err(fault) => error = fault,
            }
            let recent = before.as_ref().is_some_and(Stamp::is_recent);
            if !recent && before == Stamp::of(path).await {
                break;
            }
            sleep(SETTLED_AFTER / 4).await;
        }
        Err(error)
    }

    async fn load_file_as_it_is(&self, order: &Order, found: Found) -> Result<Fresh, Fault> {
        let path = order.config.module.display();
        let (bytes, digest) = read(&order.config).await?;
        let is_pinned = order.config.digest.is_some();
        let is_new = match order.rollout.admits(&digest, found) {
            // What this host is told to run it runs; the others only if nobody ever did.
            Ok(()) => !is_pinned || order.rollout.version(&digest).is_none(),
            Err(Refusal::Already) => false,
            Err(_) if is_pinned => false,
            Err(refusal) => return Err(format!("module {path}: {refusal}").into()),
        };
        let module = self.compile(order, &digest, &bytes).await.map_err(|reason| format!("module {path}: {reason}"))?;
        if is_new {
            let fault = |Fault { reason, passes }| Fault { reason: format!("module {path}: {reason}"), passes };
            self.prove(order, &module).await.map_err(fault)?;
        }
        Ok(Fresh { module, bytes, is_new })
    }

    /// What is asked of a new version before it may be proposed: its own self-test, and events that are on record. Where
    /// calls that compute for long hold nobody up.
    async fn prove(&self, order: &Order, module: &Module) -> Result<(), Fault> {
        let Order { handler, config, rollout, groups, .. } = order;
        let held_back = |module: &Module| module.held_back().map_err(|error| error.to_string());
        let new = held_back(module)?;
        let live = match (&config.rollout.replay, &rollout.live) {
            (Some(_), Some(live)) => match order.ready.get(live) {
                Some(live) => Some(held_back(live)?),
                // At the start of a host what is live may not be loaded yet.
                None => {
                    let fault =
                        |Fault { reason, passes }| Fault { reason: format!("rollout.replay: {reason}"), passes };
                    Some(held_back(&self.load_stored(order, live).await.map_err(fault)?.module)?)
                }
            },
            _ => None,
        };
        let (handler, digest) = (handler.clone(), module.digest().to_string());
        let (path, store, groups) = (config.module.clone(), Arc::clone(&self.store), groups.clone());
        let gate = config.rollout.replay.zip(live);
        let proof = async move {
            if let SelfTest::Passed { events } = self_test(&new, &path).await? {
                info!(handler, digest, events, "self-test passed");
            }
            if let Some((gate, live)) = gate {
                check_gate(&store, &groups, &live, &new, gate).await?;
                info!(handler, digest, last = gate.last, "recorded events passed");
            }
            Ok(())
        };
        self.lane.apart(proof).await
    }

    async fn load_stored(&self, order: &Order, digest: &str) -> Result<Fresh, Fault> {
        let away = |reason: String| Fault {
            reason: format!("version {digest} cannot be read from the store: {reason}"),
            passes: true,
        };
        let bytes = match timeout(STORE_MAX, self.store.module(digest)).await {
            Ok(Ok(Some(bytes))) if digest_of(&bytes) == *digest => Arc::<[u8]>::from(bytes),
            Ok(Ok(Some(bytes))) => {
                let found = digest_of(&bytes);
                return Err(format!("version {digest} is damaged in the store, where it has digest {found}").into());
            }
            Ok(Ok(None)) => {
                let reason =
                    format!("version {digest} is not kept in the store; put its module file back on this host");
                return Err(reason.into());
            }
            Ok(Err(error)) => return Err(away(error.to_string())),
            Err(_) => return Err(away(format!("no answer within {STORE_MAX:?}"))),
        };
        let module =
            self.compile(order, digest, &bytes).await.map_err(|reason| format!("version {digest}: {reason}"))?;
        Ok(Fresh { module, bytes, is_new: false })
    }

    async fn compile(&self, order: &Order, digest: &str, bytes: &Arc<[u8]>) -> Result<Module, String> {
        if let Some(module) = order.ready.get(digest).filter(|module| **module.grants() == order.grants) {
            return Ok(module.clone());
        }
        let (grants, usage) = (order.grants.clone(), Arc::clone(&order.usage));
        let loaded = self.sandbox.load_hashed(Arc::clone(bytes), Some(digest.to_owned()), grants, usage).await;
        let module = loaded.map_err(|reason: LoadError| reason.to_string())?;
        check_world(module.world(), &order.manual)?;
        Ok(module)
    }
}

/// The groups that a handler serves: name, stream and filter.
pub(crate) fn groups_of(handler: &str, groups: &BTreeMap<String, GroupConfig>) -> Vec<(String, String, Filter)> {
    let served = groups.values().filter(|group| group.spec.handler == handler);
    served.map(|group| (group.spec.name.clone(), group.spec.stream.clone(), group.settings.filter.clone())).collect()
}

/// The groups that want this handler to say itself when to commit.
pub(crate) fn manual_groups(handler: &str, groups: &BTreeMap<String, GroupConfig>) -> Vec<String> {
    let asks = |group: &&GroupConfig| group.spec.handler == handler && group.settings.pump.commit == CommitMode::Manual;
    groups.values().filter(asks).map(|group| group.spec.name.clone()).collect()
}

/// Refuses a handler whose world has no way to say when to commit.
///
/// # Errors
/// Which group asks for it, and the remedy.
pub(crate) fn check_world(world: World, manual: &[String]) -> Result<(), String> {
    match manual.first().filter(|_| world != World::Worker) {
        None => Ok(()),
        Some(group) => Err(format!(
            "its world is {}, but group {group:?} says commit = \"manual\", which needs world {}; give the group another commit, or a handler that takes one event at a time",
            world.name(),
            World::Worker.name()
        )),
    }
}

/// What `workers.toml` lets a handler do.
pub(crate) fn grants_of(name: &str, config: &HandlerConfig, streams: &BTreeMap<String, StreamSpec>) -> Grants {
    let limit = |stream: &String| Some((Arc::from(stream.as_str()), streams.get(stream)?.payload_bytes_max));
    Grants {
        handler: Arc::from(name),
        emit: EmitGrant::Streams(config.emit.iter().filter_map(limit).collect()),
        http: config.http.clone(),
        clocks: config.clocks,
        random: config.random,
        config: config.config.clone(),
        secrets: config.secrets.clone(),
        limits: config.limits,
        recycle: config.recycle,
    }
}

/// Reads, checks and compiles a handler's module, for groups of which these say `commit = "manual"`. The file is taken as
/// it is.
///
/// # Errors
/// A sentence for the log and for `pelton handlers`, with the file and the remedy.
pub(crate) async fn load_now(
    sandbox: &Sandbox,
    config: &HandlerConfig,
    grants: Grants,
    manual: &[String],
) -> Result<Module, String> {
    let path = config.module.display();
    let (bytes, _) = read(config).await?;
    let module = sandbox.load(bytes, grants, Arc::default()).await;
    let module = module.map_err(|reason: LoadError| format!("module {path}: {reason}"))?;
    check_world(module.world(), manual).map_err(|reason| format!("module {path}: {reason}"))?;
    Ok(module)
}

/// The module's bytes and their digest, if they are what is pinned.
async fn read(config: &HandlerConfig) -> Result<(Arc<[u8]>, String), String> {
    let path = config.module.display();
    let bytes: Arc<[u8]> = read_module(&config.module).await?.into();
    let hashed = Arc::clone(&bytes);
    // Elsewhere: a large module keeps a thread busy for longer than most batches.
    let found = spawn_blocking(move || digest_of(&hashed)).await.map_err(|error| format!("module {path}: {error}"))?;
    if let Some(pinned) = config.digest.as_ref().filter(|pinned| **pinned != found) {
        return Err(format!(
            "module {path} has digest {found}, but the configuration pins {pinned}; change the pin, or bring the module back"
        ));
    }
    Ok((bytes, found))
}

/// The bytes of a module's file, if there are not far too many.
///
/// # Errors
/// A sentence with the file and the remedy.
pub(crate) async fn read_module(path: &Path) -> Result<Vec<u8>, String> {
    let (shown, file) = (path.display(), path.to_owned());
    // At once: by tokio's file it would be read in many small steps, each on another thread.
    let read = spawn_blocking(move || {
        let file = plain_file::open(&file)?;
        let most = MODULE_BYTES_MAX as u64 + 1;
        let mut bytes = Vec::with_capacity(file.metadata()?.len().min(most) as usize);
        // One more than may be, so that the sandbox sees that there are too many.
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match read.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped))) {
        Ok(bytes) => Ok(bytes),
        Err(reason) => Err(format!("module {shown} cannot be read: {reason}; build it, or correct the path")),
    }
}
