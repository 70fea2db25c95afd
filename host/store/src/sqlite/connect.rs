//! Connections: how they are set up, and what is said when there is nothing to connect to.

use std::{io, path::Path, time::Duration};

use rustix::fs::{Access, access as access_to};
use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tokio::time::{Instant, sleep};

use super::{migrate, sql};
use crate::{StoreError, StoreOptions};

/// How long a statement waits for another process's write, and a read for a connection.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait between two tries where SQLite does not wait itself.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Reads run beside each other up to this number.
const READ_CONNECTIONS_MAX: u32 = 4;

/// sqlx hands rows over through a channel, whose default of 50 makes both sides sleep and wake ten times for a batch.
const ROW_BUFFER: usize = 1024;

/// Negative: kibibytes. The index of ids is hit at random; more of it in memory is fewer reads.
const WRITE_CACHE_KIB: &str = "-32768";

/// A checkpoint copies each changed page once, however often it changed since the last one.
const CHECKPOINT_PAGES: &str = "4000";

/// A burst leaves a log file of at most this size behind, in bytes.
const LOG_BYTES_MAX: &str = "67108864";

/// Says why a path cannot be a database, where SQLite would only say that it cannot.
pub(super) fn check_path(path: &Path, options: &StoreOptions) -> Result<(), StoreError> {
    let cannot = |reason: String| Err(StoreError::CannotOpen { url: url(path), reason });
    if path.is_dir() {
        return cannot("it is a directory; expected a file".into());
    }
    match path.try_exists() {
        Ok(true) => return Ok(()),
        // Not a file that is missing: one that nobody may ask for.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return cannot(who_is_in_the_way(path).unwrap_or_else(|| error.to_string()));
        }
        _ => {}
    }
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) if !parent.is_dir() => {
            cannot(format!("the folder {} does not exist; create it, or correct the path", parent.display()))
        }
        _ if !options.create || !options.auto_migrate => {
            cannot("there is no such file; `pelton run` or `pelton migrate` creates it".into())
        }
        _ => Ok(()),
    }
}

/// The connection that writes, to a database that is created if it is not there and whose schema is up to date.
pub(super) async fn prepare(path: &Path, options: &StoreOptions) -> Result<SqliteConnection, StoreError> {
    let give_up = Instant::now() + BUSY_TIMEOUT;
    loop {
        match try_prepare(path, options).await {
            // Two processes that create a database at once may meet in the switch to WAL, where SQLite waits for nobody.
            Err(error) if error.is_transient() && Instant::now() < give_up => sleep(BUSY_PAUSE).await,
            done => return done,
        }
    }
}

async fn try_prepare(path: &Path, options: &StoreOptions) -> Result<SqliteConnection, StoreError> {
    let connect = write_options(path).create_if_missing(options.create && options.auto_migrate);
    let mut connection = connect.connect().await.map_err(|error| cannot_open(path, &error))?;
    migrate::run(&mut connection, path, options.auto_migrate).await?;
    Ok(connection)
}

/// The connection that writes once more, after the first one broke.
pub(super) async fn write_again(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    write_options(path).connect().await
}

/// The connections that read, opened when they are needed.
pub(super) fn reads(path: &Path) -> SqlitePool {
    let options = basic_options(path).pragma("query_only", "ON");
    SqlitePoolOptions::new()
        .max_connections(READ_CONNECTIONS_MAX)
        .acquire_timeout(BUSY_TIMEOUT)
        // A file does not hang up on anybody.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options)
}

/// What an error while opening means: locked by another process for too long, or nothing that time will heal.
pub(super) fn cannot_open(path: &Path, error: &sqlx::Error) -> StoreError {
    match sql::code(error) {
        Some(sql::BUSY | sql::LOCKED) => sql::unavailable("opening the database", error),
        Some(sql::NOT_A_DATABASE) => {
            let reason = "the file is no SQLite database; correct the path, or move the file away".into();
            StoreError::CannotOpen { url: url(path), reason }
        }
        Some(sql::CANNOT_OPEN | sql::READ_ONLY | sql::PERMISSION) => {
            let reason = who_is_in_the_way(path).unwrap_or_else(|| error.to_string());
            StoreError::CannotOpen { url: url(path), reason }
        }
        _ => StoreError::CannotOpen { url: url(path), reason: error.to_string() },
    }
}

/// The file or folder that this user lacks a right to, where SQLite would only say that there is one. It needs the folder
/// too: a log and a lock lie beside the database while it is open.
fn who_is_in_the_way(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lacks = |path: &Path, access: Access| access_to(path, access).err().map(io::Error::from);
    let of_file = lacks(path, Access::READ_OK | Access::WRITE_OK).filter(|_| path.exists());
    let (what, error) = match of_file {
        Some(error) => (format!("this user cannot read and write the file ({error})"), error),
        None => {
            let error = lacks(folder, Access::WRITE_OK | Access::EXEC_OK)?;
            let folder = folder.display();
            (
                format!(
                    "this user cannot write to the folder {folder} ({error}), where SQLite makes files beside the database"
                ),
                error,
            )
        }
    };
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "run pelton as the owner, give it to this user, or name another file",
        _ => "make it writable, or name another file",
    };
    Some(format!("{what}; {remedy}"))
}

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

fn write_options(path: &Path) -> SqliteConnectOptions {
    basic_options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("cache_size", WRITE_CACHE_KIB)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_MAX)
}

fn basic_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(ROW_BUFFER)
        .disable_statement_logging()
}
