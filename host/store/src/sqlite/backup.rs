//! A consistent copy of the database, while others work on it.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    path::Path,
};

use sqlx::Connection;

use super::{connect, sql};
use crate::{Backup, StoreError};

/// Writes a copy to a file that does not exist yet.
pub(super) async fn write(database: &Path, to: &Path) -> Result<Backup, StoreError> {
    let cannot = |reason: String| StoreError::CannotOpen { url: format!("sqlite://{}", to.display()), reason };
    let name =
        to.to_str().ok_or_else(|| cannot("SQLite takes only paths in UTF-8; choose another for the copy".into()))?;
    // SQLite would write over an empty file. Made here, it is certainly ours.
    if let Err(error) = OpenOptions::new().write(true).create_new(true).open(to) {
        return Err(cannot(match error.kind() {
            ErrorKind::AlreadyExists => "it exists already; name a file for the copy that does not".into(),
            _ => format!("the copy cannot be written: {error}"),
        }));
    }
    match copy(database, name).await {
        Ok(bytes) => Ok(Backup::Written(bytes)),
        Err(error) => {
            // Half a copy looks like a whole one.
            let _ = std::fs::remove_file(to);
            Err(sql::unavailable("writing a backup", &error))
        }
    }
}

async fn copy(database: &Path, to: &str) -> Result<u64, sqlx::Error> {
    let mut connection = connect::write_again(database).await?;
    sqlx::query("VACUUM INTO ?").bind(to).execute(&mut connection).await?;
    connection.close().await?;
    // SQLite leaves this to the system: a backup that a crash takes along is none.
    let file = File::open(to)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}
