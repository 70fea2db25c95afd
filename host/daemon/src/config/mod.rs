//! `workers.toml`: read into a spanned table, checked into [`Config`]. Only the checked type travels.

mod failures;
mod groups;
mod handlers;
mod origins;
mod reader;
mod rollout;
mod sections;
mod units;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use pelton_core::{Canary, Tolerance};
use pelton_sandbox::{HttpGrant, Limits, Recycle, Secret};
use pelton_store::{Durability, GroupSpec, StoreOptions, StreamSpec};
use toml::de::DeTable;

use crate::{plain_file, pump::GroupSettings};

pub use reader::Fault;
use reader::{Document, Section};
pub(crate) use units::{duration, show_duration};

/// A configuration that holds together.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The daemon itself.
    pub host: HostConfig,
    /// Where streams and groups live.
    pub store: StoreConfig,
    /// By name.
    pub streams: BTreeMap<String, StreamSpec>,
    /// By name.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// By name.
    pub groups: BTreeMap<String, GroupConfig>,
}

/// `[host]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Unique among hosts; `None` if the host is to make one up.
    pub id: Option<String>,
    /// Where compiled modules are kept.
    pub cache: PathBuf,
    /// How much of them, in bytes.
    pub cache_bytes_max: u64,
    /// Modules compiled at the same time.
    pub compilations: usize,
    /// Linear memory of all instances together, in bytes; `None` for three quarters of what the machine has.
    pub memory_bytes_max: Option<u64>,
    /// How long a batch may go on after a signal to stop.
    pub shutdown_grace: Duration,
    /// How often stale hosts and members are removed.
    pub cleanup_interval: Duration,
    /// Free words about the host, shown with it.
    pub labels: BTreeMap<String, String>,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// `sqlite://PATH`, with an absolute path, or `postgres://…`, which may hold a password.
    pub url: String,
    /// The schema in PostgreSQL; means nothing to SQLite.
    pub schema: String,
    /// Whether to bring the schema up to date when the store is opened.
    pub auto_migrate: bool,
    /// Of commits that move only positions.
    pub durability: Durability,
}

/// `[handlers.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerConfig {
    /// The component.
    pub module: PathBuf,
    /// The only digest that is accepted, if set: `sha256:…`.
    pub digest: Option<String>,
    /// What the handler reads through `wasi:config`.
    pub config: Vec<(String, String)>,
    /// What the handler reads there too, and nobody else is shown.
    pub secrets: Vec<(String, Secret)>,
    /// Streams it may emit to.
    pub emit: Vec<String>,
    /// Whom it may call.
    pub http: HttpGrant,
    /// Whether it may know the time.
    pub clocks: bool,
    /// Whether it gets real randomness.
    pub random: bool,
    /// What it may use.
    pub limits: Limits,
    /// When an instance makes way for a fresh one.
    pub recycle: Recycle,
    /// How a new version takes over.
    pub rollout: RolloutConfig,
}

/// `[handlers.NAME.rollout]`
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutConfig {
    /// Where a new version is tried first, if not everywhere at once.
    pub canary: Option<Canary>,
    /// What a new version may do wrong before the one before it comes back; `None` lets it go on whatever it does.
    pub tolerance: Option<Tolerance>,
    /// What recorded events must show of a new version before it is called.
    pub replay: Option<Gate>,
}

impl Default for RolloutConfig {
    /// Everywhere at once, and back if it does badly.
    fn default() -> Self {
        Self { canary: None, tolerance: Some(Tolerance::default()), replay: None }
    }
}

/// A new version runs recorded events first, beside the one that is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// How many events of each group that the handler serves, the last ones that were handled; at least 1.
    pub last: u32,
    /// What is asked of it.
    pub require: Require,
}

/// What a new version must show on recorded events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// The same outcomes and effects as the live one.
    Same,
    /// No event fails that the live one handled.
    NoNewErrors,
}

/// `[groups.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// Name, stream, handler and start.
    pub spec: GroupSpec,
    /// What its pumps go by.
    pub settings: GroupSettings,
    /// How long handled ids are remembered, if they are.
    pub idempotent_window: Duration,
    /// How long after its last failure a parked key is replayed by itself, if at all.
    pub auto_replay: Option<Duration>,
    /// How long dead letters are kept, if not for ever.
    pub letters_retention: Option<Duration>,
    /// New events are looked for this often at least.
    pub poll_interval: Duration,
    /// How often the host says that it lives; the shortest one of its groups counts.
    pub heartbeat_interval: Duration,
    /// Without a heartbeat for so long, the host loses its partitions of this group.
    pub session_timeout: Duration,
    /// Partitions the host takes at most; 0 for as many as there are.
    pub partitions_max: u32,
    /// Whether a stopped partition ends the process with status 3.
    pub exit_on_stop: bool,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// In the order of the file.
    pub faults: Vec<Fault>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match fault.line {
                0 => write!(f, "{}: {}", self.path.display(), fault.message)?,
                line => write!(f, "{}:{line}: {}", self.path.display(), fault.message)?,
            }
        }
        Ok(())
    }
}

impl StoreConfig {
    /// How a daemon or a command opens the store; with `create`, it is created if it is not there.
    #[must_use]
    pub fn options(&self, create: bool) -> StoreOptions {
        StoreOptions {
            auto_migrate: self.auto_migrate,
            create,
            schema: self.schema.clone(),
            durability: self.durability,
            ..StoreOptions::default()
        }
    }
}

/// What a file says, whether it holds together or not.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// As far as it could be read; a whole one only without faults. `None` if it is no TOML.
    pub(crate) config: Option<Config>,
    /// In the order of the file.
    pub(crate) faults: Vec<Fault>,
    /// Lines of fields that say something about the world outside, by path, such as `handlers.h.module`; only of those that
    /// could be read with all that they depend on.
    pub(crate) lines: BTreeMap<String, usize>,
}

impl Config {
    /// Reads and checks a file, with the process's environment. A daemon reads it again at every change: a pipe does not do.
    ///
    /// # Errors
    /// Every fault that can be found in one go.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::inspect(path).whole(path)
    }

    /// Reads a file for somebody who looks for everything that is wrong, outside of it too.
    pub(crate) fn inspect(path: &Path) -> Inspected {
        let read = plain_file::read(path).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        match read {
            Ok(text) => Self::inspect_text(&text, path, &|name| std::env::var(name).ok()),
            Err(reason) => {
                let message = format!("cannot be read: {reason}; name another file with -c, or create this one");
                Inspected { faults: vec![Fault { line: 0, message }], ..Inspected::default() }
            }
        }
    }

    /// Checks the text of a configuration. Relative paths in it are relative to the folder of `path`.
    ///
    /// # Errors
    /// Every fault that can be found in one go.
    pub fn parse(text: &str, path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::inspect_text(text, path, environment).whole(path)
    }

    fn inspect_text(text: &str, path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Inspected {
        let (table, syntax) = DeTable::parse_recoverable(text);
        let document = Document::new(text, environment);
        if !syntax.is_empty() {
            for error in syntax {
                let span = error.span().unwrap_or(0..0);
                match error.message().trim() {
                    "duplicate key" => {
                        let field = document.text_at(&span);
                        document.fault(&span, format!("{field:?} is set twice in this table; remove one of the two"));
                    }
                    message => document.fault(&span, message),
                }
            }
            return Inspected { faults: document.into_faults().0, ..Inspected::default() };
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
        let config = read(&document, &table, &folder);
        let (faults, lines) = document.into_faults();
        Inspected { config: Some(config), faults, lines }
    }
}

impl Inspected {
    /// The configuration, if nothing is wrong with it.
    fn whole(self, path: &Path) -> Result<Config, ConfigError> {
        let Self { config, faults, .. } = self;
        config.filter(|_| faults.is_empty()).ok_or_else(|| ConfigError { path: path.into(), faults })
    }
}

fn read<'a>(document: &'a Document<'a>, table: &'a toml::Spanned<DeTable<'a>>, folder: &Path) -> Config {
    let root = Section::root(document, table);
    let host = sections::host(root.section("host"), folder);
    let store = sections::store(root.section("store"), folder, document);
    let streams = sections::streams(&root.section("streams"));
    let handlers = handlers::handlers(&root.section("handlers"), &streams, folder);
    let groups = groups::groups(&root, &streams, &handlers);
    root.finish();
    Config { host, store, streams, handlers, groups }
}

#[cfg(test)]
mod tests;
