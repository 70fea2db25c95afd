//! `pelton dead-letters …`: what can be asked of events that are set aside.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use pelton_core::Class;

use crate::config::duration;

/// `pelton dead-letters …`
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Show the events that are set aside for a group.
    List(ListArgs),
    /// Show one, with its payload, its reason in full and the backtrace of a trap.
    Show(ShowArgs),
    /// Hand them to the group's handler again; of a parked key, all that waits, in order.
    Replay(ReplayArgs),
    /// Forget them.
    Discard(DiscardArgs),
    /// Replace the payload of one.
    Edit(EditArgs),
    /// Print them in full, as JSON, one a line.
    Export(ExportArgs),
}

/// What narrows a selection down. Everything that is given must fit.
#[derive(Clone, Debug, Default, Args)]
pub struct Narrowing {
    /// Those of this partition.
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// Those that failed in this way, or wait behind another: `parked`.
    #[arg(long, value_name = "C", value_parser = parse_class)]
    pub class: Option<Class>,
    /// Those whose reason contains this text.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Which ones a person wants to see.
#[derive(Clone, Debug, Default, Args)]
pub struct Looking {
    /// This one: `PARTITION/OFFSET`, or the event's own id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["key", "all"])]
    pub id: Option<String>,
    /// Those of this key.
    #[arg(long, value_name = "K", conflicts_with = "all")]
    pub key: Option<String>,
    /// All of them, as without --id and --key; in a table too.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its fields' are shown")]
    pub narrowing: Narrowing,
}

/// Which ones something is asked of: never all of them by chance.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// This one: `PARTITION/OFFSET`, or the event's own id.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Those of this key.
    #[arg(long, value_name = "K")]
    pub key: Option<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
}

/// `pelton dead-letters list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The group.
    pub group: String,
    /// Which ones.
    #[command(flatten)]
    pub looking: Looking,
    /// So many at most; 100 in a table without --all, all with --json.
    #[arg(short = 'n', value_name = "N")]
    pub count: Option<u64>,
}

/// `pelton dead-letters show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The group.
    pub group: String,
    /// Which one: `PARTITION/OFFSET`, or the event's own id.
    #[arg(long, value_name = "ID")]
    pub id: String,
}

/// `pelton dead-letters replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The group.
    pub group: String,
    /// Which ones.
    #[command(flatten)]
    pub which: Which,
    /// Which of them.
    #[command(flatten)]
    pub narrowing: Narrowing,
    /// Wait until all of them were handled or are back, so long at most.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1m", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Show what the present handler would do, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
}

/// `pelton dead-letters discard`
#[derive(Debug, Args)]
pub struct DiscardArgs {
    /// The group.
    pub group: String,
    /// Which ones.
    #[command(flatten)]
    pub which: Which,
    /// Which of them.
    #[command(flatten)]
    pub narrowing: Narrowing,
    /// Wait until all of them are gone, so long at most.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1m", value_parser = duration)]
    pub wait: Option<Duration>,
}

/// `pelton dead-letters edit`
#[derive(Debug, Args)]
pub struct EditArgs {
    /// The group.
    pub group: String,
    /// Which one: `PARTITION/OFFSET`, or the event's own id.
    #[arg(long, value_name = "ID")]
    pub id: String,
    /// What its payload becomes.
    #[command(flatten)]
    pub payload: NewPayload,
}

/// What a payload becomes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct NewPayload {
    /// This text.
    #[arg(long, value_name = "TEXT")]
    pub payload: Option<String>,
    /// The bytes of this file; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `pelton dead-letters export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The group.
    pub group: String,
    /// Which ones.
    #[command(flatten)]
    pub looking: Looking,
}

fn parse_class(word: &str) -> Result<Class, String> {
    let words = || Class::ALL.map(Class::as_str).join(", ");
    Class::parse(word).ok_or_else(|| format!("expected one of {}", words()))
}

/// `pelton group skip`
#[derive(Debug, Args)]
pub struct SkipArgs {
    /// The group.
    pub group: String,
    /// The partition that the event blocks.
    #[arg(long, value_name = "P")]
    pub partition: u32,
    /// Park its key: later events of the key wait behind it, in order.
    #[arg(long)]
    pub key: bool,
}
