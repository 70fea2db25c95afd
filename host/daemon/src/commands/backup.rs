//! `pelton backup`

use std::path::Path;

use anyhow::bail;
use pelton_store::Backup;
use serde_json::json;

use crate::{
    cli::{BackupArgs, Common, UsageError},
    output,
};

/// The file that the commands of an engine name which makes its copies with tools of its own.
const DUMP_DEFAULT: &str = "pelton.dump";

/// Writes a consistent copy of the database, or shows the commands that make one; and how to restore it.
///
/// # Errors
/// A file that exists already or cannot be written.
pub async fn backup(common: &Common, args: &BackupArgs) -> anyhow::Result<()> {
    let (config, store) = super::open(common, false).await?;
    let database = config.store.url.strip_prefix("sqlite://");
    let file = match (&args.file, database) {
        (Some(file), _) => file.as_path(),
        (None, Some(_)) => {
            return Err(UsageError("say where the copy goes: `pelton backup FILE`".into()).into());
        }
        (None, None) => Path::new(DUMP_DEFAULT),
    };
    if database.is_some() && file.symlink_metadata().is_ok() {
        bail!("{} exists already, and a backup overwrites nothing; name a file that does not", file.display());
    }
    match store.backup(file).await? {
        Backup::Written(bytes) => {
            let restore = restore(file, database.unwrap_or("the database"));
            if common.json {
                output::json_line(&json!({ "file": file, "bytes": bytes, "restore": restore }))?;
                return Ok(());
            }
            output::line(format_args!("wrote {bytes} bytes to {}: a consistent copy", file.display()))?;
            output::line(format_args!("to restore it, stop every pelton on the database, then:\n  {restore}"))?;
        }
        Backup::Commands { dump, restore } => {
            if common.json {
                output::json_line(&json!({ "dump": dump, "restore": restore }))?;
                return Ok(());
            }
            output::line(format_args!("to make a consistent copy, while the daemons run:\n{}", indented(&dump)))?;
            output::line(format_args!(
                "to restore it, stop every pelton on the database, then:\n{}",
                indented(&restore)
            ))?;
        }
    }
    Ok(())
}

/// What SQLite keeps beside the database belongs to the old one, and would spoil the copy.
fn restore(copy: &Path, database: &str) -> String {
    let quoted = |suffix: &str| quoted(&format!("{database}{suffix}"));
    let copy = self::quoted(&copy.display().to_string());
    format!("rm -f {} {} && cp {copy} {}", quoted("-wal"), quoted("-shm"), quoted(""))
}

/// As a shell takes it for one word.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

fn indented(commands: &str) -> String {
    commands.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_the_place_of_the_database_and_of_what_lies_beside_it() {
        let command = restore(Path::new("copy.db"), "/var/my data/pelton.db");
        assert_eq!(
            command,
            "rm -f '/var/my data/pelton.db-wal' '/var/my data/pelton.db-shm' && cp copy.db '/var/my data/pelton.db'"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
