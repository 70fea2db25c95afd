//! `pelton handler …`: what can be asked of the versions of a handler.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};

/// `pelton handler …`
#[derive(Debug, Subcommand)]
pub enum HandlerCommand {
    /// Show the versions of a handler, and which of them handled what.
    History(HistoryArgs),
    /// Go back to the version before, or to another one; a canary ends.
    Rollback(RollbackArgs),
    /// Keep what is live, or another version, whatever its file holds and however it does.
    Pin(PinArgs),
}

/// `pelton handler history`
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The handler.
    pub handler: String,
    /// Ranges of events to show at most: the newest.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `pelton handler rollback`
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The handler.
    pub handler: String,
    /// The version, or how its digest begins; the one that was live before if not given.
    #[arg(long, value_name = "DIGEST", value_parser = NonEmptyStringValueParser::new())]
    pub to: Option<String>,
}

/// `pelton handler pin`
#[derive(Debug, Args)]
pub struct PinArgs {
    /// The handler.
    pub handler: String,
    /// The version, or how its digest begins; what is live if not given.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub digest: Option<String>,
    /// Take the pin away.
    #[arg(long, conflicts_with = "digest")]
    pub off: bool,
}
