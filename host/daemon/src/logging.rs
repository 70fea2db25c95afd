//! Where log lines go: to a person on a terminal, or as JSON to whatever collects them.

use std::{
    borrow::Cow,
    io::{IsTerminal, stderr},
    sync::atomic::{AtomicBool, Ordering},
};

use tracing_subscriber::{EnvFilter, fmt};

use crate::cli::UsageError;

/// Whether lines are for people, and one that holds line ends would look like several.
static AS_TEXT: AtomicBool = AtomicBool::new(false);

/// What somebody else said, as one line: in a log for people its line ends are shown as `\n`.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if AS_TEXT.load(Ordering::Relaxed) && text.contains(['\n', '\r']) {
        Cow::Owned(text.replace('\n', "\\n").replace('\r', "\\r"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Sends log lines to stderr that pass the filter, or that of `PELTON_LOG` (in the syntax of tracing-subscriber): readable on a terminal, one JSON object a line elsewhere. `PELTON_LOG_FORMAT` (`text` or
/// `json`) decides otherwise.
///
/// # Errors
/// If `PELTON_LOG` is no filter.
pub(crate) fn start(filter: &str) -> anyhow::Result<()> {
    // What the database driver has to say, errors and outages among it, is said by whoever asked it.
    let filter = std::env::var("PELTON_LOG").unwrap_or_else(|_| format!("{filter},sqlx=error"));
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        UsageError(format!("PELTON_LOG={filter:?} is not a filter such as \"info\" or \"pelton=debug\": {error}"))
    })?;
    let format = std::env::var("PELTON_LOG_FORMAT").unwrap_or_default();
    let json = if format.is_empty() { !stderr().is_terminal() } else { format == "json" };
    // A log that cannot be written, as on a full disk, is no reason to end: telling of it would panic, on stderr too.
    let lines = fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    AS_TEXT.store(!json, Ordering::Relaxed);
    if json {
        lines.json().flatten_event(true).init();
    } else {
        lines.with_target(false).with_ansi(stderr().is_terminal()).init();
    }
    Ok(())
}
