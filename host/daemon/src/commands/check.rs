//! `pelton check`: everything that can be found wrong without running anything.

use std::{collections::BTreeMap, path::Path};

use pelton_store::{GroupSpec, StoreError, StoreOptions, check_url};
use serde_json::{Value, json};

use super::{count, sandbox};
use crate::{
    cli::Common,
    config::{Config, ConfigError, Fault, HandlerConfig, Inspected},
    modules::{grants_of, load_now, manual_groups},
    output,
};

/// Checks the configuration, every module and what the store has already, and prints all that is wrong: a fault of one does
/// not keep from looking at the others.
///
/// # Errors
/// Only where the engine itself cannot be set up; faults are printed and give status 2.
pub async fn check(common: &Common) -> anyhow::Result<u8> {
    let Inspected { config, mut faults, lines } = Config::inspect(&common.config);
    let (mut handlers, mut of_modules, mut unasked) = (Vec::new(), Vec::new(), None);
    if let Some(config) = &config {
        match against_store(config, &lines).await {
            Ok(contradictions) => faults.extend(contradictions),
            Err(error) => unasked = Some(format!("nothing was compared with it: {error}")),
        }
        let sandbox = sandbox()?;
        for (name, handler) in &config.handlers {
            // What cannot be read is a fault already, and so is no module.
            let Some(line) = lines.get(&format!("handlers.{name}.module")) else { continue };
            let manual = manual_groups(name, &config.groups);
            let loaded = load_now(&sandbox, handler, grants_of(name, handler, &config.streams), &manual).await;
            let (digest, world, error) = match &loaded {
                Ok(module) => (Some(&**module.digest()), Some(module.world().name()), None),
                Err(reason) => (None, None, Some(reason)),
            };
            let notes = notes(name, handler, config);
            if let Some(reason) = error {
                let reason = reason.strip_prefix("module ").unwrap_or(reason);
                of_modules.push(Fault { line: *line, message: format!("handlers.{name}.module: {reason}") });
            }
            if !common.json {
                tell(name, world.zip(digest), &notes)?;
            }
            handlers.push(
                json!({ "handler": name, "digest": digest, "world": world, "error": error, "line": line, "notes": notes }),
            );
        }
    }
    let wrong = faults.len() + of_modules.len();
    if common.json {
        faults.sort_by_key(|fault| fault.line);
        let faults: Vec<Value> =
            faults.iter().map(|fault| json!({ "line": fault.line, "message": fault.message })).collect();
        output::json_line(&json!({ "ok": wrong == 0, "faults": faults, "handlers": handlers, "store": unasked }))?;
    } else {
        if wrong > 0 {
            faults.extend(of_modules);
            faults.sort_by_key(|fault| fault.line);
            eprintln!("{}", ConfigError { path: common.config.clone(), faults });
        }
        if let Some(unasked) = &unasked {
            output::line(format_args!("note  store: {}", output::visible(unasked)))?;
        }
        if let Some(config) = &config {
            let verdict = if wrong == 0 { "all well".to_owned() } else { format!("{wrong} wrong") };
            output::line(format_args!("{}: {}: {verdict}", common.config.display(), sum(config)))?;
        }
    }
    Ok(if wrong == 0 { 0 } else { 2 })
}

fn tell(name: &str, loaded: Option<(&str, &str)>, notes: &[String]) -> std::io::Result<()> {
    if let Some((world, digest)) = loaded {
        output::line(format_args!("ok    handler {name}: {world} {digest}"))?;
    }
    notes.iter().try_for_each(|note| output::line(format_args!("note  handler {name}: {note}")))
}

/// How much of everything there is.
fn sum(config: &Config) -> String {
    let Config { streams, handlers, groups, .. } = config;
    let counts = [count(streams.len(), "stream"), count(handlers.len(), "handler"), count(groups.len(), "group")];
    counts.join(", ")
}

/// Declarations that contradict what the store has: `run` would refuse them. What is not there yet contradicts nothing.
///
/// # Errors
/// A store that cannot be asked from here, which is no fault of the configuration: it may be right where it is to run.
async fn against_store(config: &Config, lines: &BTreeMap<String, usize>) -> Result<Vec<Fault>, StoreError> {
    let url = &config.store.url;
    // A URL that is wrong is a fault already.
    let is_there = match url.strip_prefix("sqlite://") {
        Some(file) => Path::new(file).try_exists().unwrap_or(true),
        None => check_url(url).is_ok(),
    };
    if !is_there {
        return Ok(Vec::new());
    }
    let options = StoreOptions { auto_migrate: false, ..config.store.options(false) };
    let store = pelton_store::open(url, &options).await?;
    let (streams, groups) = (store.streams().await?, store.groups().await?);
    let mut faults = Vec::new();
    let mut fault = |path: String, reason: String| {
        if let Some(line) = lines.get(&path) {
            faults.push(Fault { line: *line, message: format!("{path}: {reason}") });
        }
    };
    for spec in config.streams.values() {
        let found = streams.iter().find(|stream| stream.spec.name == spec.name).map(|stream| stream.spec.partitions);
        if let Some(found) = found.filter(|found| *found != spec.partitions) {
            fault(
                format!("streams.{}.partitions", spec.name),
                format!(
                    "the stream has {found} in the store, found {}; the number is fixed once the stream is created: declare {found}, or a stream of another name",
                    spec.partitions
                ),
            );
        }
    }
    for spec in config.groups.values().map(|group| &group.spec) {
        let found = groups.iter().find(|group| group.name == spec.name).map(|group| &group.stream);
        if let Some(found) = found.filter(|found| **found != spec.stream) {
            fault(
                format!("groups.{}.stream", spec.name),
                format!(
                    "the group reads {found:?} in the store, found {:?}; its positions mean nothing there: use a group of another name",
                    spec.stream
                ),
            );
        }
    }
    Ok(faults)
}

/// What is right, and may be not what was meant. That a module asks for the time or for chance without a grant belongs
/// here too; nobody tells yet what a module imports.
fn notes(name: &str, handler: &HandlerConfig, config: &Config) -> Vec<String> {
    let Some(canary) = handler.rollout.canary else { return Vec::new() };
    let groups = config.groups.values().filter(|group| group.spec.handler == name);
    let everywhere = groups.filter_map(|group| {
        let GroupSpec { name, stream, .. } = &group.spec;
        let partitions = config.streams.get(stream)?.partitions;
        (canary.partitions >= partitions).then(|| {
            let tried = canary.partitions;
            format!("rollout.canary tries a new version in {tried} partitions, and group {name:?} has {partitions}: it answers everywhere there from the start")
        })
    });
    everywhere.collect()
}
