//! The files a host lives by: what tells that one changed, and the watch over them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use notify_debouncer_mini::notify::{
    self, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    fs, select,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

/// How long a file that is being written must be quiet before it is looked at. One that is renamed into place is whole.
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
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    names: Arc<Mutex<BTreeSet<OsString>>>,
    signals: Arc<Signals>,
    /// When a file that was written has been quiet for long enough, if nobody goes on writing.
    quiet_at: Option<Instant>,
}

/// What the system's notifications come to. Each is a flag: that nobody has looked since says enough.
#[derive(Default)]
struct Signals {
    /// A file is whole.
    replaced: Notify,
    /// A file is being written.
    written: Notify,
}

impl Signals {
    /// Of one notification, if it is about one of these names.
    fn take(&self, event: &Event, names: &Mutex<BTreeSet<OsString>>) {
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        // The folder may hold the database too, which changes all the time: only the files' own names count.
        if !event.paths.iter().any(|path| path.file_name().is_some_and(|name| names.contains(name))) {
            return;
        }
        match event.kind {
            EventKind::Modify(ModifyKind::Name(_)) => self.replaced.notify_one(),
            // The end of writing. All other access is somebody's reading, this host's own among it.
            EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write) => {}
            _ => self.written.notify_one(),
        }
    }
}

impl FileWatch {
    /// Starts watching nothing yet. Where the system offers no notification, the caller's own looking has to do.
    pub(crate) fn start() -> Self {
        let (names, signals) = (Arc::<Mutex<BTreeSet<OsString>>>::default(), Arc::<Signals>::default());
        let (watched, told) = (Arc::clone(&names), Arc::clone(&signals));
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = event {
                told.take(&event, &watched);
            }
        });
        let unwatched = |error| warn!(%error, "cannot watch files; they are looked at every few seconds");
        let watcher = watcher.map_err(unwatched).ok();
        Self { watcher, folders: BTreeSet::new(), names, signals, quiet_at: None }
    }

    /// Waits until one of the files may have changed: at once when it was renamed into place, else when it was quiet for a
    /// moment. Nothing is lost when the future is dropped.
    pub(crate) async fn changed(&mut self) {
        let Signals { replaced, written } = &*self.signals;
        loop {
            let quiet_at = self.quiet_at;
            let is_quiet = async {
                match quiet_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                () = replaced.notified() => break,
                () = written.notified() => self.quiet_at = Some(Instant::now() + QUIET),
                () = is_quiet => break,
            }
        }
        self.quiet_at = None;
    }

    /// Says that a file may have changed once more, when one that is being written now has had its time.
    pub(crate) fn look_later(&self) {
        let signals = Arc::clone(&self.signals);
        tokio::spawn(async move {
            sleep(SETTLED_AFTER).await;
            signals.replaced.notify_one();
        });
    }

    /// Watches these files, and no others. It watches their folders, since a file is replaced by a rename.
    pub(crate) fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let files: Vec<&Path> = files.collect();
        let names = files.iter().filter_map(|file| file.file_name()).map(OsString::from).collect();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(Path::to_path_buf).collect();
        for folder in self.folders.difference(&wanted) {
            let _ = watcher.unwatch(folder);
        }
        let mut watched: BTreeSet<PathBuf> = self.folders.intersection(&wanted).cloned().collect();
        for folder in wanted.difference(&self.folders) {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(folder.clone())),
                Err(error) => warn!(folder = %folder.display(), %error, "cannot watch; looking every few seconds"),
            }
        }
        self.folders = watched;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn watch(file: &Path) -> FileWatch {
        let mut watch = FileWatch::start();
        watch.watch(std::iter::once(file));
        watch
    }

    #[tokio::test]
    async fn a_file_that_is_written_renamed_into_place_or_removed_is_a_change() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (file, beside) = (dir.path().join("handler.wasm"), dir.path().join(".handler.wasm.tmp"));
        let mut watch = watch(&file);
        fs::write(&file, "one").expect("write");
        timeout(LONG, watch.changed()).await.expect("written");
        fs::write(&beside, "two").expect("write");
        fs::rename(&beside, &file).expect("rename");
        timeout(LONG, watch.changed()).await.expect("renamed");
        fs::remove_file(&file).expect("remove");
        timeout(LONG, watch.changed()).await.expect("removed");
    }

    #[tokio::test]
    async fn who_only_reads_it_or_writes_another_changes_nothing() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("handler.wasm");
        fs::write(&file, "one").expect("write");
        let mut watch = watch(&file);
        fs::read(&file).expect("read");
        fs::write(dir.path().join("pelton.db"), "rows").expect("write");
        timeout(4 * QUIET, watch.changed()).await.expect_err("nothing that counts was written");
    }

    /// The daemon waits for many things at once and drops the others when one of them comes.
    #[tokio::test]
    async fn a_change_that_is_waited_for_in_many_short_waits_is_not_lost() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("handler.wasm");
        let mut watch = watch(&file);
        fs::write(&file, "one").expect("write");
        timeout(LONG, async { while timeout(QUIET / 10, watch.changed()).await.is_err() {} })
            .await
            .expect("it is told");
    }
}
