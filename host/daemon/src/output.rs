//! What commands print: tables for people, JSON for programs.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write, stderr, stdout},
};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Prints one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")
}

/// Prints one line of text.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(stdout().lock(), "{text}")
}

/// Text of others as a terminal may be given it: control characters in it are shown, and steer nothing.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if steers(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Prints a table with a heading, or a sentence if there is nothing in it.
pub(crate) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(heading.map(str::to_uppercase));
    table.add_rows(rows);
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
