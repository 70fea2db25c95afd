//! The locks of hosts: one file each in a folder beside the database, so that the system frees a host's lock with its
//! process, however that ends.
//!
//! A lock file is removed by whoever holds its lock, and by nobody else. So a lock counts only if the path still names the
//! file that was locked: another process may have removed it, and a third made it anew, between opening and locking.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use pelton_core::{LockSeen, Session};

use crate::StoreError;

/// Whoever looks whether a host lives holds its lock for a moment, and a host that was just killed a little longer.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

/// A file that was exchanged so often while it was looked at belongs to somebody who is at work.
const LOOKS: u32 = 3;

/// No more of a lock file is read than a process number can take.
const OWNER_BYTES_MAX: u64 = 20;

/// The locks of all hosts of a database, as one store holds and sees them.
pub(super) struct HostLocks {
    folder: PathBuf,
    own: Mutex<Own>,
}

/// What this store holds.
#[derive(Default)]
struct Own {
    /// Everything that is locked, also for a registration under way.
    held: BTreeMap<String, Weak<HostLock>>,
    /// What registrations keep, with their incarnations.
    kept: BTreeMap<String, (u64, Arc<HostLock>)>,
}

/// A lock that is held for as long as this value lives.
pub(super) struct HostLock {
    path: PathBuf,
    /// Closed after the file was removed, and the lock ends with that and no earlier.
    file: File,
}

impl Drop for HostLock {
    fn drop(&mut self) {
        // What cannot be removed is taken again by the next host of this name. Another file at this path is another's.
        if is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

enum Tried {
    Locked(Arc<HostLock>),
    /// With what is known of who holds it.
    Busy(String),
    /// Somebody removed the file meanwhile.
    Exchanged,
}

impl HostLocks {
    /// The locks of a database that exists.
    pub(super) fn beside(database: &Path) -> Self {
        // Beside the file itself, however its path is written: two names of one database must meet at one lock.
        let mut folder = database.canonicalize().unwrap_or_else(|_| database.into()).into_os_string();
        folder.push(".hosts");
        Self { folder: folder.into(), own: Mutex::default() }
    }

    /// Takes a host's lock, or says who has it. This store may have it already.
    pub(super) async fn take(&self, host: &str) -> Result<Arc<HostLock>, StoreError> {
        let mut by = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            match self.try_take(host) {
                Ok(Tried::Locked(lock)) => return Ok(lock),
                Ok(Tried::Busy(owner)) => by = owner,
                Ok(Tried::Exchanged) => {}
                Err(error) => return Err(self.cannot_lock(host, &error)),
            }
        }
        Err(StoreError::HostInUse { host: host.into(), by })
    }

    /// Keeps a lock for a registration, until the store ends or the registration does.
    pub(super) fn keep(&self, lock: Arc<HostLock>, session: &Session) {
        let mut own = self.own();
        let newer = own.kept.get(&*session.host).is_some_and(|(incarnation, _)| *incarnation > session.incarnation);
        if !newer {
            own.kept.insert(session.host.to_string(), (session.incarnation, lock));
        }
    }

    /// Lets go of what a registration keeps, if that is the present one.
    pub(super) fn let_go(&self, session: &Session) {
        let mut own = self.own();
        if own.kept.get(&*session.host).is_some_and(|(incarnation, _)| *incarnation == session.incarnation) {
            own.kept.remove(&*session.host);
        }
        own.held.retain(|_, lock| lock.strong_count() > 0);
    }

    /// Whether anybody holds a host's lock.
    pub(super) fn look(&self, host: &str) -> LockSeen {
        if self.own().held.get(host).is_some_and(|lock| lock.strong_count() > 0) {
            return LockSeen::Held;
        }
        let path = self.path(host);
        for _ in 0..LOOKS {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return LockSeen::Gone,
                Err(_) => return LockSeen::Unknown,
            };
            // Shared, so that two who look at once do not take each other for a host. Closing the file ends it.
            match file.try_lock_shared() {
                Ok(()) if is_at(&file, &path) => return LockSeen::Gone,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return LockSeen::Held,
                Err(TryLockError::Error(_)) => return LockSeen::Unknown,
            }
        }
        LockSeen::Held
    }

    /// Removes the file that a killed process left behind, unless somebody has taken it since.
    pub(super) fn remove_stale(&self, host: &str) {
        // Held throughout: a registration in this store must not find the file locked by its own process.
        let own = self.own();
        let path = self.path(host);
        if own.held.get(host).is_some_and(|lock| lock.strong_count() > 0) {
            return;
        }
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
            && is_at(&file, &path)
        {
            drop(HostLock { path, file });
        }
    }

    fn try_take(&self, host: &str) -> std::io::Result<Tried> {
        let mut own = self.own();
        // One whose file somebody removed is seen by nobody any more.
        if let Some(lock) = own.held.get(host).and_then(Weak::upgrade).filter(|lock| is_at(&lock.file, &lock.path)) {
            return Ok(Tried::Locked(lock));
        }
        let path = self.path(host);
        std::fs::create_dir_all(&self.folder)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => {}
            Ok(()) => return Ok(Tried::Exchanged),
            Err(TryLockError::WouldBlock) => return Ok(Tried::Busy(owner_of(&file))),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        note_owner(&file)?;
        let lock = Arc::new(HostLock { path, file });
        own.held.insert(host.into(), Arc::downgrade(&lock));
        Ok(Tried::Locked(lock))
    }

    fn path(&self, host: &str) -> PathBuf {
        // Names have no such characters; whatever comes instead must not lead out of the folder.
        self.folder.join(format!("{}.lock", host.replace(['/', '\0'], "%")))
    }

    fn cannot_lock(&self, host: &str, error: &std::io::Error) -> StoreError {
        StoreError::CannotOpen {
            url: format!("sqlite://{}", self.folder.with_extension("").display()),
            reason: format!("the lock file {} of host {host:?} cannot be locked: {error}", self.path(host).display()),
        }
    }

    /// No method leaves the maps half changed where it could panic.
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a path names the file that was opened.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(opened), Ok(named)) = (file.metadata(), path.metadata()) else { return false };
    (opened.dev(), opened.ino()) == (named.dev(), named.ino())
}

fn note_owner(mut file: &File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

/// ` (process 123)`, or nothing: the owner may be about to write it.
fn owner_of(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(OWNER_BYTES_MAX).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(process)) => format!(" (process {process})"),
        _ => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Four stores that take one lock in turn, remove what they believe to be stale, and look.
    #[test]
    fn a_lock_whose_file_was_removed_is_taken_anew() {
        let folder = tempfile::tempdir().unwrap();
        let locks = HostLocks::beside(&folder.path().join("db"));
        let Tried::Locked(lost) = locks.try_take("host").unwrap() else { panic!("it is free") };
        std::fs::remove_file(locks.path("host")).unwrap();
        let Tried::Locked(again) = locks.try_take("host").unwrap() else { panic!("nobody has the new file") };
        drop(lost);
        let other = HostLocks::beside(&folder.path().join("db"));
        assert_eq!(other.look("host"), LockSeen::Held, "the old lock took no file along");
        drop(again);
        assert_eq!(other.look("host"), LockSeen::Gone);
    }

    #[test]
    fn a_lock_is_never_held_twice_however_its_file_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("pelton.db");
        let held = AtomicBool::new(false);
        let takes_turns = || {
            let locks = HostLocks::beside(&database);
            let mut taken = 0;
            while taken < 300 {
                match locks.try_take("host").unwrap() {
                    Tried::Locked(lock) => {
                        assert!(!held.swap(true, Ordering::SeqCst), "somebody else holds it");
                        assert_eq!(HostLocks::beside(&database).look("host"), LockSeen::Held);
                        held.store(false, Ordering::SeqCst);
                        drop(lock);
                        taken += 1;
                    }
                    Tried::Busy(_) | Tried::Exchanged => locks.remove_stale("host"),
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(takes_turns))));
        let locks = HostLocks::beside(&database);
        assert_eq!(locks.look("host"), LockSeen::Gone);
        assert!(!locks.path("host").exists());
    }
}
