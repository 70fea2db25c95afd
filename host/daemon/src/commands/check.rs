//! `pelton check`: everything that can be found wrong without running anything.

use pelton_sandbox::{Sandbox, SandboxOptions};
use pelton_store::GroupSpec;
use serde_json::json;

use crate::{
    cli::Common,
    compiler::compiler,
    config::{Config, ConfigError, HandlerConfig},
    modules::{grants_of, load_now, manual_groups},
    output,
};

/// Checks the configuration and every module, and prints all that is wrong.
///
/// # Errors
/// Only where the engine itself cannot be set up; faults are printed and give status 2.
pub async fn check(common: &Common) -> anyhow::Result<u8> {
    let config = match Config::load(&common.config) {
        Ok(config) => config,
        Err(errors) => return invalid(common, &errors),
    };
    let sandbox = Sandbox::new(SandboxOptions { compiler: Some(compiler()), ..SandboxOptions::default() })?;
    let mut handlers = Vec::new();
    let mut wrong = 0;
    for (name, handler) in &config.handlers {
        let manual = manual_groups(name, &config.groups);
        let loaded = load_now(&sandbox, handler, grants_of(name, handler, &config.streams), &manual).await;
        wrong += usize::from(loaded.is_err());
        let (digest, world, error) = match &loaded {
            Ok(module) => (Some(&**module.digest()), Some(module.world().name()), None),
            Err(reason) => (None, None, Some(reason)),
        };
        if !common.json {
            match (world, digest, error) {
                (Some(world), Some(digest), _) => output::line(format_args!("ok    handler {name}: {world} {digest}"))?,
                _ => output::line(format_args!("wrong handler {name}: {}", error.map_or("", String::as_str)))?,
            }
        }
        let notes = notes(name, handler, &config);
        if !common.json {
            for note in &notes {
                output::line(format_args!("note  handler {name}: {note}"))?;
            }
        }
        handlers.push(json!({ "handler": name, "digest": digest, "world": world, "error": error, "notes": notes }));
    }
    if common.json {
        output::json_line(&json!({ "ok": wrong == 0, "faults": [], "handlers": handlers }))?;
    } else {
        let (streams, groups) = (config.streams.len(), config.groups.len());
        let sum =
            format!("{}: {streams} streams, {} handlers, {groups} groups", common.config.display(), handlers.len());
        output::line(if wrong == 0 { format!("{sum}: all well") } else { format!("{sum}: {wrong} wrong") })?;
    }
    Ok(if wrong == 0 { 0 } else { 2 })
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

fn invalid(common: &Common, errors: &ConfigError) -> anyhow::Result<u8> {
    if common.json {
        let fault = |fault: &crate::config::Fault| json!({ "line": fault.line, "message": fault.message });
        let faults: Vec<_> = errors.faults.iter().map(fault).collect();
        output::json_line(&json!({ "ok": false, "faults": faults, "handlers": [] }))?;
    } else {
        output::tell(errors);
    }
    Ok(2)
}
