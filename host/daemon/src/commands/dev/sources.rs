//! The files of a project that somebody writes, and when one of them changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify_debouncer_mini::{
    Debouncer, new_debouncer,
    notify::{RecommendedWatcher, RecursiveMode},
};
use tokio::{sync::mpsc, time::timeout};

/// How long a file must be quiet before it is looked at.
const QUIET: Duration = Duration::from_millis(50);
/// How often to look even if nothing was noticed: not every file system notices.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Folders of tools. Hidden ones are left out too.
const NOT_OURS: [&str; 5] = ["target", "node_modules", "__pycache__", "zig-out", "vendor"];
/// Files that building and running write, by the ends of their names.
const BUILT: [&str; 8] = [".log", ".wasm", ".db", ".db-wal", ".db-shm", ".db.lock", ".lock", "package-lock.json"];
/// More than any handler is made of.
const FILES_MAX: usize = 10_000;

/// What tells that a file was written to.
type Written = (Option<SystemTime>, u64);

pub(super) struct Sources {
    root: PathBuf,
    /// As they were when they were last taken.
    taken: BTreeMap<PathBuf, Written>,
    watched: BTreeSet<PathBuf>,
    debouncer: Option<Debouncer<RecommendedWatcher>>,
    noticed: mpsc::Receiver<()>,
}

impl Sources {
    /// Takes them as they are now.
    pub(super) fn watch(root: &Path) -> Self {
        let (sender, noticed) = mpsc::channel(1);
        // One message that waits is enough: it means "look".
        let debouncer = new_debouncer(QUIET, move |_| {
            let _ = sender.try_send(());
        });
        let debouncer = debouncer.ok();
        let (taken, watched) = (BTreeMap::new(), BTreeSet::new());
        let mut sources = Self { root: root.to_owned(), taken, watched, debouncer, noticed };
        sources.look();
        sources
    }

    /// Waits until they are not as they were taken last, and takes them.
    pub(super) async fn changed(&mut self) {
        while !self.look() {
            // Not in time, or never again: either way it is time to look.
            if timeout(LOOK_INTERVAL, self.noticed.recv()).await == Ok(None) {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
    }

    fn look(&mut self) -> bool {
        let (mut files, mut folders) = (BTreeMap::new(), BTreeSet::new());
        walk(&self.root, &mut files, &mut folders);
        if let Some(debouncer) = &mut self.debouncer {
            for folder in folders.difference(&self.watched) {
                // Where that fails, looking every now and then has to do.
                let _ = debouncer.watcher().watch(folder, RecursiveMode::NonRecursive);
            }
        }
        self.watched = folders;
        std::mem::replace(&mut self.taken, files) != self.taken
    }
}

fn walk(folder: &Path, files: &mut BTreeMap<PathBuf, Written>, folders: &mut BTreeSet<PathBuf>) {
    folders.insert(folder.to_owned());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() && !name.starts_with('.') && !NOT_OURS.contains(&&*name) {
            walk(&path, files, folders);
        } else if metadata.is_file() && !name.starts_with('.') && !BUILT.iter().any(|end| name.ends_with(end)) {
            if files.len() == FILES_MAX {
                return;
            }
            files.insert(path, (metadata.modified().ok(), metadata.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_somebody_writes_is_a_change_and_what_tools_write_is_none() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = |name: &str| dir.path().join(name);
        fs::create_dir_all(file("src")).expect("folder");
        fs::create_dir_all(file("target/release")).expect("folder");
        fs::write(file("src/lib.rs"), "one").expect("write");
        let mut sources = Sources::watch(dir.path());
        for built in ["greeter.wasm", "Cargo.lock", "target/release/a.d", "pelton.db", ".pelton-build.1.tmp"] {
            fs::write(file(built), "built").expect("write");
        }
        let idle = timeout(Duration::from_millis(200), sources.changed()).await;
        assert!(idle.is_err(), "nothing that counts was written");
        fs::write(file("src/lib.rs"), "another").expect("write");
        timeout(Duration::from_secs(10), sources.changed()).await.expect("it is noticed");
        fs::create_dir_all(file("src/deep")).expect("folder");
        fs::write(file("src/deep/new.rs"), "new").expect("write");
        timeout(Duration::from_secs(10), sources.changed()).await.expect("a new folder is noticed");
    }
}
