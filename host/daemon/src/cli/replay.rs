//! `pelton replay`: recorded events through a module.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pelton_core::Offset;

use crate::commands::{
    group_reset::{To, parse_to},
    replay::parse_event,
};

/// `pelton replay`
#[derive(Debug, Args)]
pub struct RecordedArgs {
    /// The group.
    pub group: String,
    /// The component; the handler's file in the configuration if not given.
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// Run the version that is live beside it, and show where the two differ.
    #[arg(long)]
    pub diff: bool,
    /// Where to begin: `earliest`, `latest`, an offset, or a time: the first event appended then or later.
    #[arg(long, value_name = "WHERE", default_value = "earliest", value_parser = parse_to)]
    pub from: To,
    /// Where to end, this event not included; as --from.
    #[arg(long, value_name = "WHERE", default_value = "latest", value_parser = parse_to)]
    pub to: To,
    /// The last N events of each partition that the group has handled.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["from", "to"])]
    pub last: Option<u64>,
    /// This partition only.
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// The state that the first event meets; empty if that is the first one of all, else as it is today.
    #[arg(long, value_enum)]
    pub state: Option<Beginning>,
    /// This event only, with its logs, and the backtrace if it traps.
    #[arg(long, value_name = "P/OFFSET", value_parser = parse_event, conflicts_with_all = ["from", "to", "last", "partition"])]
    pub event: Option<(u32, Offset)>,
}

/// The state that the first event of a replay meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Beginning {
    /// None.
    Empty,
    /// The group's as it is now. It has in it already what these events did.
    Today,
    /// What each version itself makes of all events before; needs them all to be there.
    Rebuild,
}
