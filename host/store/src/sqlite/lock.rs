//! The lock that only one daemon of a database holds: on a file beside it, so that the system frees it with the process,
//! however that ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::StoreError;

/// A command that looks whether the daemon lives holds the lock for a moment, and a daemon that was just killed a little
/// longer.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// No more of the lock file is read than a process number can take.
const OWNER_BYTES_MAX: u64 = 20;

/// The lock, held or only looked at.
pub(super) struct HostLock {
    path: PathBuf,
    /// Open and locked in the daemon.
    held: Option<File>,
}

impl HostLock {
    /// Takes the lock, or says who has it.
    pub(super) async fn take(database: &Path) -> Result<Self, StoreError> {
        let path = path_for(database);
        let cannot = |reason: std::io::Error| StoreError::CannotOpen {
            url: format!("sqlite://{}", database.display()),
            reason: format!("its lock file {} cannot be locked: {reason}", path.display()),
        };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    note_owner(&file).map_err(cannot)?;
                    return Ok(Self { path, held: Some(file) });
                }
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(BETWEEN_TRIES).await,
            }
        }
        Err(StoreError::InUse { path: database.display().to_string(), owner: owner_of(&file) })
    }

    /// The lock as those see it who do not take it.
    pub(super) fn beside(database: &Path) -> Self {
        Self { path: path_for(database), held: None }
    }

    /// Whether a daemon holds the lock: this process, or any other.
    pub(super) fn is_held(&self) -> bool {
        if self.held.is_some() {
            return true;
        }
        // Shared, so that two who look at once do not take each other for a daemon. Closing the file ends it.
        File::open(&self.path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

/// Beside the file itself, however its path is written: two names of one database must meet at one lock.
fn path_for(database: &Path) -> PathBuf {
    let itself = database.canonicalize().or_else(|_| {
        let parent = database.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parent.canonicalize().map(|parent| parent.join(database.file_name().unwrap_or_default()))
    });
    let mut path = itself.unwrap_or_else(|_| database.into()).into_os_string();
    path.push(".lock");
    path.into()
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
