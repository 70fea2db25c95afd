//! `pelton dev`: builds a project at every change, and runs it on a store that goes away with the command.
//!
//! What runs is a `pelton run` like any other, in a process of its own: it takes a new module as it takes one in
//! production, and what it commits is told in its log.

mod daemon;
mod sources;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use pelton_core::NewEvent;
use pelton_store::{Store, StoreOptions};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    build::{self, Built},
    cli::{Common, DevArgs, Format},
    config::Config,
    host::declare,
    lines::Lines,
    output, plain_file,
};
use daemon::Daemon;
use sources::Sources;

/// How long events wait for the version they are to be handled by.
const SWAP_TIME_MAX: Duration = Duration::from_secs(30);
/// How often to look whether it answers.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Events that are appended at once.
const EVENTS_AT_ONCE: usize = 1000;

/// What the project is, and what of it runs.
struct Project {
    dir: PathBuf,
    config: Config,
    handler: String,
    /// Those that its groups read.
    streams: Vec<String>,
    events: Option<PathBuf>,
    format: Format,
    install_tools: bool,
}

/// Builds, runs and watches until SIGTERM or SIGINT.
///
/// # Errors
/// A folder that is no project, a configuration without the project's handler, a store that cannot be made. That it does
/// not build is no error: the next change may help.
pub async fn dev(common: &Common, args: &DevArgs) -> anyhow::Result<u8> {
    let (mut project, config_file) = Project::open(common, args)?;
    let mut settings = plain_file::read(&config_file).ok();
    let folder = tempfile::Builder::new().prefix("pelton-dev.").tempdir().context("make a temporary folder")?;
    let url = format!("sqlite://{}", folder.path().join("dev.db").display());
    let options = StoreOptions { auto_migrate: true, ..project.config.store.options(true) };
    let store = pelton_store::open(&url, &options).await?;
    declare(&*store, &project.config).await?;

    let mut stop = Stop::listen()?;
    let mut sources = Sources::watch(&project.dir);
    let mut daemon: Option<Daemon> = None;
    for round in 1_u64.. {
        let now = plain_file::read(&config_file).ok();
        if now != settings {
            // Streams, groups or grants may be others: whatever it is, a new start has it.
            match reopen(common, args, &*store).await {
                Ok(opened) => {
                    (project, settings) = (opened, now);
                    if let Some(daemon) = daemon.take() {
                        daemon.stop().await?;
                    }
                }
                Err(error) => tell(&error)?,
            }
        }
        let built = tokio::select! {
            built = build(&project) => built,
            () = stop.asked() => break,
        };
        if let Some(built) = built {
            let daemon = match &mut daemon {
                Some(daemon) => daemon,
                None => daemon.insert(Daemon::start(&config_file, &url)?),
            };
            tokio::select! {
                fed = project.feed(&*store, &built, round) => fed?,
                status = daemon.ended() => return ended(status?),
                () = stop.asked() => break,
            }
        }
        eprintln!("watching {}; Ctrl-C ends", project.dir.display());
        tokio::select! {
            () = sources.changed() => {}
            status = async { match &mut daemon { Some(daemon) => daemon.ended().await, None => std::future::pending().await } } => {
                return ended(status?);
            }
            () = stop.asked() => break,
        }
    }
    if let Some(daemon) = daemon {
        daemon.stop().await?;
    }
    Ok(0)
}

/// The project as it stands now, with what it declares in the store.
async fn reopen(common: &Common, args: &DevArgs, store: &dyn Store) -> anyhow::Result<Project> {
    let (project, config_file) = Project::open(common, args)?;
    declare(store, &project.config).await?;
    eprintln!("{} has changed: the daemon starts anew", config_file.display());
    Ok(project)
}

/// It said itself why.
fn ended(status: std::process::ExitStatus) -> anyhow::Result<u8> {
    anyhow::bail!("the daemon ended ({status})")
}

impl Project {
    fn open(common: &Common, args: &DevArgs) -> anyhow::Result<(Self, PathBuf)> {
        let dir = build::project_folder(&args.dir)?;
        let module = build::module_of(&dir)?;
        let config_file = super::config_of(common, &dir);
        let config = Config::load(&config_file)?;
        let own = config.handlers.iter().find(|(_, handler)| handler.module == module);
        let (handler, _) = own.with_context(|| {
            let (file, module) = (config_file.display(), module.display());
            format!("{file} has no handler of module {module}, which this project builds; add one, and a group for it")
        })?;
        let handler = handler.clone();
        let groups = config.groups.values().filter(|group| group.spec.handler == handler);
        let mut streams: Vec<String> = groups.map(|group| group.spec.stream.clone()).collect();
        streams.sort();
        streams.dedup();
        ensure!(!streams.is_empty(), "{} has no group for handler {handler:?}; add one", config_file.display());
        let usual = Some(dir.join("tests/events.ndjson")).filter(|file| file.is_file());
        let events = args.events.clone().or(usual);
        let (format, install_tools) = (args.format, args.install_tools);
        Ok((Self { dir, config, handler, streams, events, format, install_tools }, config_file))
    }

    /// Waits until what was built answers, and appends the sample events.
    async fn feed(&self, store: &dyn Store, built: &Built, round: u64) -> anyhow::Result<()> {
        let until = Instant::now() + SWAP_TIME_MAX;
        while !self.answers(store, built).await? {
            if Instant::now() > until {
                eprintln!("{} does not answer: see above why; no events are appended", built.digest);
                return Ok(());
            }
            sleep(LOOK_INTERVAL).await;
        }
        let Some(file) = &self.events else { return Ok(()) };
        // They are read after every change: what can be read once does not do.
        let mut lines = match plain_file::open(file) {
            Ok(opened) => Lines::of(opened, file, self.format).with_numbers_as_ids(),
            Err(error) => return tell(&anyhow::anyhow!("cannot open {}: {error}", file.display())),
        };
        let mut events: Vec<NewEvent> = Vec::new();
        loop {
            match lines.next() {
                // An id stands for one event: the same sample is another event after each change.
                Ok(Some((_, event))) => events.push(NewEvent { id: format!("{}~{round}", event.id), ..event }),
                Ok(None) => break,
                Err(error) => return tell(&error),
            }
        }
        for stream in &self.streams {
            for events in events.chunks(EVENTS_AT_ONCE) {
                if let Err(error) = store.append(stream, events.to_vec()).await {
                    return tell(&error.into());
                }
            }
            eprintln!("appended {} events of {} to {stream}", events.len(), file.display());
        }
        Ok(())
    }

    async fn answers(&self, store: &dyn Store, built: &Built) -> anyhow::Result<bool> {
        let rollouts = store.rollouts().await?;
        let own = rollouts.iter().find(|rollout| rollout.handler == self.handler);
        Ok(own.is_some_and(|rollout| rollout.live.as_deref() == Some(&*built.digest)))
    }
}

/// A mistake in the sample events is mended like one in the sources: the next change may help.
fn tell(error: &anyhow::Error) -> anyhow::Result<()> {
    eprintln!("error: {error:#}");
    Ok(())
}

/// Builds the project; `None` if that failed, which was told.
async fn build(project: &Project) -> Option<Built> {
    let began = Instant::now();
    let (dir, install_tools) = (project.dir.clone(), project.install_tools);
    let options = build::Options { install_tools, ..build::Options::default() };
    let built = spawn_blocking(move || build::build(&dir, &options)).await.map_err(anyhow::Error::from);
    match built.and_then(|built| built) {
        Ok(built) => {
            let line = build_line(&built, began.elapsed());
            output::line(line).ok()?;
            Some(built)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            None
        }
    }
}

fn build_line(built: &Built, took: Duration) -> String {
    let (kib, path) = (built.bytes.div_ceil(1024), built.path.file_name().unwrap_or_default());
    format!("built {} in {:.1} s  {kib} KiB  {}", Path::new(path).display(), took.as_secs_f64(), built.digest)
}

/// The signals that end the command.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal was closed.
    hangup: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
