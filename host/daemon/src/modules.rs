//! Loads the modules of handlers, off the hot path, and notices when their files change.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use notify_debouncer_mini::{
    DebounceEventResult, DebouncedEvent, Debouncer, new_debouncer,
    notify::{RecommendedWatcher, RecursiveMode},
};
use pelton_core::CommitMode;
use pelton_sandbox::{EmitGrant, Grants, LoadError, Module, Sandbox, World};
use pelton_store::StreamSpec;
use tokio::{fs, sync::mpsc, time::sleep};
use tracing::warn;

use crate::config::{GroupConfig, HandlerConfig};

/// How long a file must be quiet before it is looked at.
const QUIET: Duration = Duration::from_millis(30);
/// A module that was written so recently and does not load may be half written: it is given time before it is refused.
const SETTLED_AFTER: Duration = Duration::from_millis(400);
/// How often at most to wait for a file that keeps changing.
const SETTLE_TRIES: usize = 50;

/// What tells one content of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// A file that was renamed into place may be as old and as large as the one it replaced.
    file: u64,
}

impl Stamp {
    /// The stamp of a file; `None` if it is not there.
    pub(crate) async fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).await.ok()?;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len(), file: file_number(&metadata) })
    }

    /// Whether the file may still be in the middle of being written.
    pub(crate) fn is_recent(&self) -> bool {
        let age = self.modified.and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age < SETTLED_AFTER)
    }
}

#[cfg(unix)]
fn file_number(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(_: &std::fs::Metadata) -> u64 {
    0
}

/// What came of loading a handler's module.
pub(crate) struct Loaded {
    pub(crate) handler: String,
    /// Which load this is: only the handler's newest counts.
    pub(crate) serial: u64,
    pub(crate) module: Result<Module, String>,
}

/// Loads modules in the background.
#[derive(Clone)]
pub(crate) struct Loader {
    sandbox: Sandbox,
    results: mpsc::Sender<Loaded>,
    /// Loads begun so far, of all handlers: one that was removed and added again must not take what its namesake loaded.
    begun: Arc<AtomicU64>,
}

impl Loader {
    pub(crate) fn new(sandbox: Sandbox) -> (Self, mpsc::Receiver<Loaded>) {
        let (results, receiver) = mpsc::channel(16);
        (Self { sandbox, results, begun: Arc::default() }, receiver)
    }

    /// Starts loading, and gives the number under which the result comes through the channel.
    pub(crate) fn start(&self, handler: &str, config: &HandlerConfig, grants: Grants, manual: &[String]) -> u64 {
        let serial = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let (loader, handler, config, manual) = (self.clone(), handler.to_owned(), config.clone(), manual.to_vec());
        tokio::spawn(async move {
            let module = load(&loader.sandbox, &config, grants, &manual).await;
            // Nobody listens when the host is going down.
            let _ = loader.results.send(Loaded { handler, serial, module }).await;
        });
        serial
    }

    /// The world of the module as its file is now, if it can be loaded.
    pub(crate) async fn world(&self, config: &HandlerConfig, grants: Grants) -> Option<World> {
        Some(load_now(&self.sandbox, config, grants, &[]).await.ok()?.world())
    }
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
        config: config.config.clone(),
        limits: config.limits,
        reuse_calls: config.reuse_calls,
    }
}

/// Reads, checks and compiles a handler's module, for groups of which these say `commit = "manual"`. A file that is still
/// being written is waited for.
///
/// # Errors
/// A sentence for the log and for `pelton handlers`, with the file and the remedy.
pub(crate) async fn load(
    sandbox: &Sandbox,
    config: &HandlerConfig,
    grants: Grants,
    manual: &[String],
) -> Result<Module, String> {
    let path = &config.module;
    let mut error = String::new();
    for _ in 0..SETTLE_TRIES {
        let before = Stamp::of(path).await;
        match load_now(sandbox, config, grants.clone(), manual).await {
            Ok(module) => return Ok(module),
            Err(reason) => error = reason,
        }
        let recent = before.as_ref().is_some_and(Stamp::is_recent);
        if !recent && before == Stamp::of(path).await {
            break;
        }
        sleep(SETTLED_AFTER / 4).await;
    }
    Err(error)
}

/// As [`load`], but the file is taken as it is.
pub(crate) async fn load_now(
    sandbox: &Sandbox,
    config: &HandlerConfig,
    grants: Grants,
    manual: &[String],
) -> Result<Module, String> {
    let path = config.module.display();
    let bytes = fs::read(&config.module)
        .await
        .map_err(|reason| format!("module {path} cannot be read: {reason}; build it, or correct the path"))?;
    if let Some(pinned) = &config.digest {
        let found = pelton_sandbox::digest_of(&bytes);
        if found != *pinned {
            return Err(format!(
                "module {path} has digest {found}, but workers.toml pins {pinned}; change the pin, or bring the module back"
            ));
        }
    }
    let module = sandbox.load(bytes, grants).await.map_err(|reason: LoadError| format!("module {path}: {reason}"))?;
    check_world(module.world(), manual).map_err(|reason| format!("module {path}: {reason}"))?;
    Ok(module)
}

/// Tells when one of the watched files changes.
pub(crate) struct FileWatch {
    debouncer: Option<Debouncer<RecommendedWatcher>>,
    folders: BTreeSet<PathBuf>,
    names: Arc<Mutex<BTreeSet<OsString>>>,
    look: mpsc::Sender<()>,
    /// A message means: one of the files may have changed.
    pub(crate) changed: mpsc::Receiver<()>,
}

impl FileWatch {
    /// Starts watching nothing yet. Where the system offers no notification, the caller's own looking has to do.
    pub(crate) fn start() -> Self {
        // One message that waits is enough: it means "look".
        let (sender, changed) = mpsc::channel(1);
        let names: Arc<Mutex<BTreeSet<OsString>>> = Arc::default();
        let watched = Arc::clone(&names);
        let look = sender.clone();
        // The folder may hold the database too, which changes all the time: only the files' own names count.
        let notify = move |result: DebounceEventResult| {
            let names = watched.lock().unwrap_or_else(PoisonError::into_inner);
            let ours = |event: &DebouncedEvent| event.path.file_name().is_some_and(|name| names.contains(name));
            if result.is_ok_and(|events| events.iter().any(ours)) {
                let _ = sender.try_send(());
            }
        };
        let debouncer = new_debouncer(QUIET, notify);
        let unwatched = |error| warn!(%error, "cannot watch files; they are looked at every few seconds");
        Self { debouncer: debouncer.map_err(unwatched).ok(), folders: BTreeSet::new(), names, look, changed }
    }

    /// Says that a file may have changed once more, when one that is being written now has had its time.
    pub(crate) fn look_later(&self) {
        let look = self.look.clone();
        tokio::spawn(async move {
            sleep(SETTLED_AFTER).await;
            let _ = look.try_send(());
        });
    }

    /// Watches these files, and no others. It watches their folders, since a file is replaced by a rename.
    pub(crate) fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let files: Vec<&Path> = files.collect();
        let names = files.iter().filter_map(|file| file.file_name()).map(OsString::from).collect();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        let Some(debouncer) = &mut self.debouncer else { return };
        let wanted: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(Path::to_path_buf).collect();
        for folder in self.folders.difference(&wanted) {
            let _ = debouncer.watcher().unwatch(folder);
        }
        let mut watched: BTreeSet<PathBuf> = self.folders.intersection(&wanted).cloned().collect();
        for folder in wanted.difference(&self.folders) {
            match debouncer.watcher().watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(folder.clone())),
                Err(error) => warn!(folder = %folder.display(), %error, "cannot watch; looking every few seconds"),
            }
        }
        self.folders = watched;
    }
}
