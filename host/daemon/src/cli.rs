//! The command line: what can be asked for, and the exit status that answers.

mod dead_letters;
mod handler;
mod replay;

use std::{fmt, path::PathBuf, process::ExitCode};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{commands, compiler, config::ConfigError, logging, output};

pub use dead_letters::{
    DeadLettersCommand, DiscardArgs, EditArgs, ExportArgs, ListArgs, Looking, Narrowing, NewPayload, ReplayArgs,
    ShowArgs, SkipArgs, Which,
};
pub use handler::{HandlerCommand, HistoryArgs, PinArgs, RollbackArgs};

pub use replay::{Beginning, RecordedArgs};

/// The configuration that is taken if none is named.
pub(crate) const DEFAULT_CONFIG: &str = "workers.toml";

/// Done.
const SUCCESS: u8 = 0;
/// It failed.
const FAILED: u8 = 1;
/// Usage or configuration.
const USAGE: u8 = 2;
/// A partition stopped whose group says `exit = true`.
pub(crate) const STOPPED: u8 = 3;

/// Runs event handlers as sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "pelton", version, max_term_width = 100)]
struct Cli {
    /// The configuration.
    #[arg(short, long, global = true, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Print JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What every command is given.
#[derive(Clone, Debug)]
pub struct Common {
    /// The configuration file.
    pub config: PathBuf,
    /// Whether to print JSON.
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Validate the configuration and every module; runs nothing, creates nothing.
    Check,
    /// Make a project of a handler, in the language of your choice, that builds and passes its own test.
    New(NewArgs),
    /// Build a handler's project into a component, with its language's own tools.
    Build(BuildArgs),
    /// Build a project at every change, swap what came of it, and show what it does with its sample events.
    Dev(DevArgs),
    /// Run events through a module with no store, and print what came of each.
    Test(TestArgs),
    /// Run recorded events through a module with its effects held back, and compare it with the running version.
    Replay(RecordedArgs),
    /// Append events, one a line, to a stream.
    Append(AppendArgs),
    /// Print events of a stream.
    Tail(TailArgs),
    /// Show the streams.
    Streams,
    /// Show the groups and how far they are.
    Groups,
    /// Show or steer one group.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show or settle the events that a group set aside.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Show the hosts, or remove stale ones.
    Hosts(HostsArgs),
    /// Show the handlers and which version of each answers.
    Handlers,
    /// Show the versions of a handler, go back to one, or pin it.
    #[command(subcommand)]
    Handler(HandlerCommand),
    /// Bring the store's schema up to date and create what the configuration declares.
    Migrate,
    /// Write a consistent copy of the database, or show the commands that make one, and how to restore it.
    Backup(BackupArgs),
}

/// `pelton run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Stop once every lag is 0.
    #[arg(long)]
    pub until_idle: bool,
    /// Stop when standard input ends: with the process that started this one.
    #[arg(long, hide = true)]
    pub while_stdin_is_open: bool,
}

/// What a project may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// Rust
    Rust,
    /// JavaScript
    Js,
    /// TypeScript
    Ts,
    /// Python
    Python,
    /// C
    C,
    /// Zig
    Zig,
}

impl Lang {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Rust, Self::Js, Self::Ts, Self::Python, Self::C, Self::Zig];

    /// Its name, as on the command line; the folder of its template.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Ts => "ts",
            Self::Python => "python",
            Self::C => "c",
            Self::Zig => "zig",
        }
    }

    /// The folder of its SDK.
    #[must_use]
    pub fn sdk(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js | Self::Ts => "javascript",
            Self::Python => "python",
            Self::C | Self::Zig => "c",
        }
    }
}

/// `pelton new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The project's name; also of its folder, its module and its handler.
    pub name: String,
    /// What it is written in.
    #[arg(long, value_enum)]
    pub lang: Lang,
}

/// `pelton dev`
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The project's folder, with a workers.toml.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Events that are appended after every change, to the stream of the handler's group; tests/events.ndjson if not given.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// How the events are written.
    #[arg(long, value_enum, default_value = "event")]
    pub format: Format,
    /// Install a compiler that is missing, into a folder of Pelton's own.
    #[arg(long)]
    pub install_tools: bool,
}

/// `pelton build`
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The project's folder.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Where to put the component; NAME.wasm in the project's folder if not given.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Cargo features to build with.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub features: Vec<String>,
    /// Install a compiler that is missing, into a folder of Pelton's own.
    #[arg(long)]
    pub install_tools: bool,
    /// Replace the project's SDK and contract by those of this program first.
    #[arg(long)]
    pub update_sdk: bool,
}

/// How events are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Each line is a payload.
    Json,
    /// Each line is an event, as `pelton tail --json` prints it; stream, partition, offset and time are ignored.
    Event,
}

/// `pelton test`
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The component; or the folder of a project, whose component, events and expectations are taken then.
    #[arg(default_value = ".", value_name = "MODULE")]
    pub module: PathBuf,
    /// Events, one a line; tests/events.ndjson of the project if not given.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// How the events are written.
    #[arg(long, value_enum, default_value = "event")]
    pub format: Format,
    /// Compare outcomes, effects and state with this file, one line an event; tests/expected.ndjson of the project if not
    /// given.
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// Write the file of expectations instead of comparing with it.
    #[arg(long)]
    pub update: bool,
    /// The handler of the configuration whose settings and permissions are used; the one of this module if not given.
    #[arg(long, value_name = "H")]
    pub handler: Option<String>,
    /// Events handed over in one call, to a handler of batches.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,
}

/// `pelton append`
#[derive(Debug, Args)]
pub struct AppendArgs {
    /// The stream.
    pub stream: String,
    /// The file; `-` for standard input.
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// How the events are written.
    #[arg(long, value_enum, default_value = "json")]
    pub format: Format,
    /// The key of every event; with a leading `/`, a JSON pointer into the payload.
    #[arg(long, value_name = "K")]
    pub key: Option<String>,
    /// The kind of every event; with a leading `/`, a JSON pointer into the payload.
    #[arg(long, value_name = "K")]
    pub kind: Option<String>,
    /// The id of every event; with a leading `/`, a JSON pointer into the payload. Made up if not given.
    #[arg(long, value_name = "K")]
    pub id: Option<String>,
    /// Events to append in one transaction.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,
}

impl AppendArgs {
    /// Refuses what would be passed over without a word: a line that is an event says all of this itself.
    fn check(&self) -> Result<(), UsageError> {
        let fields = [("key", &self.key), ("kind", &self.kind), ("id", &self.id)];
        match fields.iter().find(|(_, given)| given.is_some()) {
            Some((name, _)) if self.format == Format::Event => Err(UsageError(format!(
                "--{name} is for --format json; in an event line the {name} is its field \"{name}\""
            ))),
            _ => Ok(()),
        }
    }
}

/// `pelton tail`
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The stream.
    pub stream: String,
    /// Where to begin: `earliest`, `latest` or an offset.
    #[arg(long, default_value = "earliest", value_parser = commands::tail::parse_from)]
    pub from: commands::tail::From,
    /// Begin where this group reads next: at its committed offset in each partition.
    #[arg(long, value_name = "G", conflicts_with = "from")]
    pub group: Option<String>,
    /// This partition only.
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// End after so many events.
    #[arg(short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Wait for new events at the head instead of ending there.
    #[arg(long)]
    pub follow: bool,
}

/// `pelton group …`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Show one group with its partitions and consumers.
    Show {
        /// The group.
        group: String,
    },
    /// Hand out no more events; stored, until `resume`.
    Pause(GroupArgs),
    /// End a pause, and a stop: the event that failed is tried again.
    Resume(GroupArgs),
    /// Set the event aside that blocks a partition, as a dead letter.
    Skip(SkipArgs),
    /// Move a group's positions; shows what would happen, and does it with --execute.
    Reset(ResetArgs),
    /// Print a group's positions, in a form that `reset --to-file` takes back.
    Export {
        /// The group.
        group: String,
    },
    /// Remove a group with its positions and state; refused while members are active.
    Delete {
        /// The group.
        group: String,
        /// Delete its dead letters too.
        #[arg(long)]
        force: bool,
    },
}

/// `pelton group reset`
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The group.
    pub group: String,
    /// Where to.
    #[command(flatten)]
    pub target: ResetTarget,
    /// This partition only.
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// What becomes of the state in these partitions; needed if there is some.
    #[arg(long, value_enum)]
    pub state: Option<StateChoice>,
    /// Do it; without this, only show it.
    #[arg(long)]
    pub execute: bool,
    /// Take the partitions away from members at work; they go on from the new positions.
    #[arg(long)]
    pub force: bool,
}

/// Where a group's positions are moved to.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ResetTarget {
    /// `earliest`, `latest`, an offset, or a time: the first event appended then or later.
    #[arg(long, value_name = "WHERE", value_parser = commands::group_reset::parse_to)]
    pub to: Option<commands::group_reset::To>,
    /// So many events on, or back if negative; ends at the first event and at the head.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub shift_by: Option<i64>,
    /// The positions that `pelton group export` printed into this file.
    #[arg(long, value_name = "FILE")]
    pub to_file: Option<PathBuf>,
}

/// What becomes of state when positions are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateChoice {
    /// It stays as it is.
    Keep,
    /// It is removed.
    Clear,
}

/// `pelton hosts`
#[derive(Debug, Args)]
pub struct HostsArgs {
    /// What to do; shows them if not given.
    #[command(subcommand)]
    pub command: Option<HostsCommand>,
}

/// `pelton hosts …`
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum HostsCommand {
    /// Remove stale hosts now; daemons do it every `host.cleanup_interval`.
    Cleanup,
}

/// `pelton backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where the copy goes; must not exist. Needed for SQLite.
    pub file: Option<PathBuf>,
}

/// A command line that means nothing to the store that is configured.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::error::Error for UsageError {}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group, or one partition of it.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// The group.
    pub group: String,
    /// This partition only.
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
}

/// Reads the command line, does what it says and gives the exit status.
#[must_use]
pub fn main() -> ExitCode {
    // First of all: no runtime, no log, no thread that its limits would come too late for.
    if let Some(args) = compiler::asked_for(std::env::args_os()) {
        return pelton_sandbox::compile_stdin_to_stdout(args);
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| with_tip(error, std::env::args()).exit());
    let common = Common { config: cli.config, json: cli.json };
    let filter = if matches!(cli.command, Command::Run(_)) { "info" } else { "warn" };
    let done = logging::start(filter).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let done = runtime.block_on(dispatch(common, cli.command));
        // A read of standard input that is under way cannot be broken off; the process ends without it.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(status) => ExitCode::from(status),
        // `pelton tail … | head` wants no more of it.
        Err(error) if is_unread_listing(&error) => ExitCode::from(SUCCESS),
        Err(error) => {
            output::tell(format_args!("error: {error:#}"));
            let usage = error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<UsageError>());
            ExitCode::from(if usage { USAGE } else { FAILED })
        }
    }
}

/// A refusal of what follows `--wait` says how it is written: after a blank it would be taken for something else.
fn with_tip(mut error: clap::Error, args: impl Iterator<Item = String>) -> clap::Error {
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) else { return error };
    let args: Vec<String> = args.collect();
    if error.kind() == ErrorKind::UnknownArgument
        && args.windows(2).any(|pair| pair[0] == "--wait" && pair[1] == *refused)
    {
        let tip = format!("a time to wait follows an equals sign: '--wait={refused}'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

async fn dispatch(common: Common, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => return commands::run::run(&common, &args).await,
        Command::DeadLetters(command) => return commands::dead_letters::dead_letters(&common, &command).await,
        Command::Check => return commands::check::check(&common).await,
        Command::Test(args) => return commands::test::test(&common, &args).await,
        Command::Replay(args) => return commands::replay::replay(&common, &args).await,
        Command::Dev(args) => return commands::dev::dev(&common, &args).await,
        Command::New(args) => commands::new::new(&common, &args)?,
        Command::Build(args) => commands::build(&common, &args)?,
        Command::Append(args) => {
            args.check()?;
            commands::append::append(&common, &args).await?
        }
        Command::Tail(args) => commands::tail::tail(&common, &args).await?,
        Command::Streams => commands::streams::streams(&common).await?,
        Command::Groups => commands::groups::groups(&common).await?,
        Command::Group(command) => commands::groups::group(&common, &command).await?,
        Command::Hosts(args) => commands::hosts::hosts(&common, &args).await?,
        Command::Handlers => commands::handlers::handlers(&common).await?,
        Command::Handler(command) => commands::handler::handler(&common, &command).await?,
        Command::Migrate => commands::migrate(&common).await?,
        Command::Backup(args) => commands::backup::backup(&common, &args).await?,
    }
    Ok(SUCCESS)
}

/// Whether a listing ended since nobody reads it. Other pipes may break too, and that is a failure.
fn is_unread_listing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<output::Closed>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn reset(args: &[&str]) -> Result<ResetArgs, clap::error::ErrorKind> {
        let cli = Cli::try_parse_from([&["pelton", "group", "reset", "g"], args].concat());
        match cli.map_err(|error| error.kind())?.command {
            Command::Group(GroupCommand::Reset(args)) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pipe_that_breaks_elsewhere_is_a_failure() {
        let elsewhere = anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(!is_unread_listing(&elsewhere.context("esbuild went away")));
        assert!(is_unread_listing(&anyhow::Error::from(output::Closed).context("a listing")));
    }

    #[test]
    fn a_reset_goes_to_one_place() {
        use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument};
        assert_eq!(reset(&["--shift-by", "-5"]).map(|args| args.target.shift_by), Ok(Some(-5)));
        assert_eq!(reset(&["--to-file", "p.json"]).map(|args| args.target.to_file), Ok(Some("p.json".into())));
        assert!(reset(&["--to", "latest", "--state", "keep"]).is_ok_and(|args| !args.execute && !args.force));
        assert_eq!(reset(&[]).err(), Some(MissingRequiredArgument));
        assert_eq!(reset(&["--to", "1", "--shift-by", "1"]).err(), Some(ArgumentConflict));
    }

    #[test]
    fn nothing_is_asked_of_all_dead_letters_by_chance() {
        use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument, ValueValidation};
        let kind = |args: &[&str]| {
            let args = [&["pelton", "dead-letters"], args].concat();
            Cli::try_parse_from(args).err().map(|error| error.kind())
        };
        for verb in ["replay", "discard"] {
            assert_eq!(kind(&[verb, "g"]), Some(MissingRequiredArgument));
            assert_eq!(kind(&[verb, "g", "--class", "trap"]), Some(MissingRequiredArgument));
            assert_eq!(kind(&[verb, "g", "--id", "0/1", "--all"]), Some(ArgumentConflict));
            assert_eq!(kind(&[verb, "g", "--all", "--class", "trip"]), Some(ValueValidation));
            assert_eq!(kind(&[verb, "g", "--all", "--wait=never"]), Some(ValueValidation));
            assert_eq!(kind(&[verb, "g", "--all", "--class", "trap", "--wait"]), None);
            assert_eq!(kind(&[verb, "g", "--wait=5s", "--key", "k", "--partition", "0"]), None);
        }
        assert_eq!(kind(&["replay", "g", "--all", "--dry-run", "--wait"]), Some(ArgumentConflict));
        assert_eq!(kind(&["show", "g"]), Some(MissingRequiredArgument));
        assert_eq!(kind(&["edit", "g", "--id", "0/1"]), Some(MissingRequiredArgument));
        assert_eq!(kind(&["edit", "g", "--id", "0/1", "--payload", "1", "--file", "-"]), Some(ArgumentConflict));
        assert_eq!(kind(&["list", "g", "--key", "k", "-n", "3"]), None);
    }

    #[test]
    fn a_time_to_wait_after_a_blank_is_told_how_it_is_written() {
        let told = |args: &[&str]| {
            let args = [&["pelton", "dead-letters", "replay", "g", "--all"], args].concat();
            let error = Cli::try_parse_from(&args).expect_err("refused");
            with_tip(error, args.iter().map(ToString::to_string)).to_string()
        };
        assert!(told(&["--wait", "5m"]).contains("tip: a time to wait follows an equals sign: '--wait=5m'"));
        assert!(!told(&["--dry-run", "5m"]).contains("--wait="));
    }

    #[test]
    fn a_pin_is_set_or_taken_away() {
        use clap::error::ErrorKind::{ArgumentConflict, InvalidValue, ValueValidation};
        let kind = |args: &[&str]| {
            let args = [&["pelton", "handler"], args].concat();
            Cli::try_parse_from(args).err().map(|error| error.kind())
        };
        assert_eq!(kind(&["pin", "h"]), None);
        assert_eq!(kind(&["pin", "h", "sha256:ab"]), None);
        assert_eq!(kind(&["pin", "h", "--off"]), None);
        assert_eq!(kind(&["pin", "h", "sha256:ab", "--off"]), Some(ArgumentConflict));
        assert_eq!(kind(&["rollback", "h", "--to", "ab"]), None);
        assert_eq!(kind(&["rollback", "h", "--to", ""]), Some(InvalidValue));
        assert_eq!(kind(&["history", "h", "--limit", "0"]), Some(ValueValidation));
    }

    #[test]
    fn a_tail_begins_at_an_offset_or_at_a_group() {
        let kind = |args: &[&str]| {
            let args = [&["pelton", "tail", "in", "--group", "g"], args].concat();
            Cli::try_parse_from(args).err().map(|error| error.kind())
        };
        assert_eq!(kind(&[]), None);
        assert_eq!(kind(&["--from", "earliest"]), Some(clap::error::ErrorKind::ArgumentConflict));
    }
}
