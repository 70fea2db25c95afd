//! The files a host lives by: what tells that one changed, and the watch over them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use notify_debouncer_mini::{
    DebounceEventResult, DebouncedEvent, Debouncer, new_debouncer,
    notify::{RecommendedWatcher, RecursiveMode},
};
use tokio::{fs, sync::mpsc, time::sleep};
use tracing::warn;

/// How long a file must be quiet before it is looked at.
const QUIET: Duration = Duration::from_millis(30);
/// A file that was written so recently may be half written: it is given time before it is refused.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_millis(400);

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
