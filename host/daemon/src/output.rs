//! What commands print: tables for people, JSON for programs.
//!
//! Whoever reads it may stop in the middle, as `| head` does. What a command is to do, and the status that says how it went,
//! do not depend on that: what is printed from then on is lost, and the command goes on. A listing, which does nothing else
//! than print, asks [`end_if_closed`] and ends.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write, stderr, stdout},
    sync::atomic::{AtomicBool, Ordering},
};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Standard output was closed. There is one in a process, and a pipe that was closed is not opened again.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Nobody reads standard output any more. Ends a listing, and is no failure of it.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct Closed;

/// Ends a listing that nobody reads.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn end_if_closed() -> Result<(), Closed> {
    if CLOSED.load(Ordering::Relaxed) { Err(Closed) } else { Ok(()) }
}

/// Standard output. What is written after it was closed is lost, and no error.
#[derive(Debug)]
pub(crate) struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_closed(bytes.len(), || stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed((), || stdout().flush())
    }
}

fn unless_closed<T>(lost: T, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if CLOSED.load(Ordering::Relaxed) {
        return Ok(lost);
    }
    match write() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            CLOSED.store(true, Ordering::Relaxed);
            Ok(lost)
        }
        written => written,
    }
}

/// Prints one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    // Lines of several threads do not mix.
    let _held = stdout().lock();
    serde_json::to_writer(&mut Out, value)?;
    Out.write_all(b"\n")
}

/// Prints one line of text.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let _held = stdout().lock();
    writeln!(Out, "{text}")
}

/// Tells a person something on standard error. Nobody there to be told is no reason to end, as `eprintln!` would.
pub(crate) fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Text of others as a terminal may be given it: control characters in it are shown, and steer nothing.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if steers(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// As [`visible`], for what has one line to itself: a line end or a tab would make it look like more than one value.
pub(crate) fn in_one_line(text: &str) -> Cow<'_, str> {
    match visible(text) {
        shown if shown.contains(['\n', '\t']) => Cow::Owned(shown.replace('\n', "\\n").replace('\t', "\\t")),
        shown => shown,
    }
}

/// Prints a table with a heading, or a sentence if there is nothing in it. What is in it steers no terminal.
pub(crate) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> io::Result<()> {
    table_without(&[], heading, rows, empty)
}

/// As [`table`]. Of these columns, those in which no row has anything are left out: most of the time that is most of them,
/// and a line has to fit into a terminal.
pub(crate) fn table_without<const N: usize>(
    if_empty: &[&str],
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> io::Result<()> {
    let rows: Vec<_> = rows.into_iter().map(|row| row.map(|cell| in_one_line(&cell).into_owned())).collect();
    let columns: Vec<usize> = (0..N)
        .filter(|column| !if_empty.contains(&heading[*column]) || rows.iter().any(|row| !row[*column].is_empty()))
        .collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(columns.iter().map(|column| heading[*column].to_uppercase()));
    table.add_rows(rows.iter().map(|row| columns.iter().map(|column| &row[*column])));
    if table.is_empty() {
        return line(empty);
    }
    // The preset pads with a blank on both sides; the first one would look like an indentation.
    for row in table.to_string().lines() {
        line(row.strip_prefix(' ').unwrap_or(row).trim_end())?;
    }
    Ok(())
}

/// A progress bar on a terminal, nothing elsewhere. Without a total it counts.
pub(crate) fn progress(total_bytes: Option<u64>) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total_bytes {
        Some(total) => (ProgressBar::new(total), "{bar:30} {percent:>3} %  {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
