//! `pelton test`: events through a module, with no store.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use pelton_core::CommitMode;
use pelton_sandbox::{EmitGrant, Grants, Module};
use serde_json::Value;

use super::bench;
use crate::{
    build,
    cli::{Common, TestArgs, UsageError},
    config::Config,
    expected::{self, Difference, NAME, Script},
    modules::grants_of,
    output,
};

const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// What is tested, and with what: as the command line says, or as a project has it.
struct Files {
    module: PathBuf,
    events: PathBuf,
    expect: Option<PathBuf>,
    config: PathBuf,
}

/// What the configuration says of the handler.
struct Declared {
    grants: Grants,
    /// Its group commits at the handler's word.
    commits_manually: bool,
    /// Where compiled modules are kept: an interpreter takes a while to compile.
    cache: Option<PathBuf>,
}

/// Hands the events of a file to a module, and prints what came of each.
///
/// # Errors
/// A module or file that cannot be read. What differs from the expectation is printed and gives status 1.
pub async fn test(common: &Common, args: &TestArgs) -> anyhow::Result<u8> {
    let files = Files::of(common, args)?;
    let declared = declared(&files, args.handler.as_deref())?;
    let commits_manually = declared.commits_manually;
    let module = load(&files.module, declared).await?;
    let script = Script::open(&module, &files.events, args.format)?;
    let mut script = script.with(args.batch as usize, commits_manually);
    let (mut results, mut failed) = (Vec::new(), 0);
    while let Some(tried) = script.next().await? {
        failed += usize::from(!tried.is_done());
        let result = tried.json();
        if common.json {
            output::json_line(&result)?;
        } else {
            bench::print(&tried.event, &result)?;
        }
        results.push(result);
    }
    let done = results.len() - failed;
    match &files.expect {
        Some(file) if args.update => {
            expected::write(file, &results)?;
            summary(common, format_args!("{} written with {} lines", file.display(), results.len()))?;
            Ok(0)
        }
        Some(file) => compare(common, file, &results),
        None => {
            summary(common, format_args!("{done} done, {failed} failed"))?;
            Ok(u8::from(failed > 0))
        }
    }
}

fn summary(common: &Common, text: impl std::fmt::Display) -> std::io::Result<()> {
    if common.json { Ok(()) } else { output::line(text) }
}

impl Files {
    fn of(common: &Common, args: &TestArgs) -> anyhow::Result<Self> {
        let TestArgs { module, events, expect, update, .. } = args;
        if module.is_dir() {
            let built = build::module_of(module)?;
            let Some(events) = events.clone().or_else(|| there(module.join("tests/events.ndjson"))) else {
                bail!("{} has no tests/events.ndjson; name a file of events with --events", module.display());
            };
            if !built.exists() {
                bail!("{} is not there yet; `pelton build` makes it", built.display());
            }
            let usual = module.join("tests/expected.ndjson");
            let expect = expect.clone().or_else(|| if *update { Some(usual) } else { there(usual) });
            return Ok(Self { module: built, events, expect, config: super::config_of(common, module) });
        }
        let usage = |text: &str| anyhow::Error::from(UsageError(text.into()));
        let events =
            events.clone().ok_or_else(|| usage("a module is tested with events; name a file with --events"))?;
        if *update && expect.is_none() {
            return Err(usage("--update writes the file of expectations; name it with --expect"));
        }
        Ok(Self { module: module.clone(), events, expect: expect.clone(), config: common.config.clone() })
    }
}

fn there(file: PathBuf) -> Option<PathBuf> {
    Some(file).filter(|file| file.is_file())
}

async fn load(file: &Path, Declared { grants, cache, .. }: Declared) -> anyhow::Result<Module> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|reason| {
        anyhow!("cannot read module {name}: {reason}; build it with `pelton build`, or correct the path")
    })?;
    let module = super::sandbox_with_cache(cache)?.load(bytes.into(), grants, Default::default()).await;
    module.with_context(|| format!("module {name}"))
}

/// What the configuration grants the handler of this name, or of this module, if there is one; else every stream and the
/// usual limits. Nothing goes out from here either way, and time and chance follow from the events.
fn declared(files: &Files, handler: Option<&str>) -> anyhow::Result<Declared> {
    let module = std::path::absolute(&files.module)?;
    let config = if files.config.exists() { Some(Config::load(&files.config)?) } else { None };
    let handlers = config.iter().flat_map(|config| &config.handlers);
    let found = match handler {
        Some(wanted) => {
            let found = handlers.clone().find(|(name, _)| *name == wanted);
            if found.is_none() {
                let known: Vec<&str> = handlers.map(|(name, _)| name.as_str()).collect();
                let file = files.config.display();
                return Err(UsageError(format!("{file} has no handler {wanted:?}; known: {}", known.join(", "))).into());
            }
            found
        }
        None => handlers.into_iter().find(|(_, handler)| handler.module == module),
    };
    let (Some((name, handler)), Some(config)) = (found, &config) else {
        let emit = EmitGrant::Any { payload_bytes_max: PAYLOAD_BYTES_MAX };
        let grants = Grants { emit, ..Grants::nothing(NAME) }.held_back();
        let cache = config.map(|config| config.host.cache);
        return Ok(Declared { grants, commits_manually: false, cache });
    };
    let mut groups = config.groups.values().filter(|group| group.spec.handler == *name);
    let commits_manually = groups.any(|group| group.settings.pump.commit == CommitMode::Manual);
    let grants = grants_of(name, handler, &config.streams).held_back();
    Ok(Declared { grants, commits_manually, cache: Some(config.host.cache.clone()) })
}

fn compare(common: &Common, file: &Path, results: &[Value]) -> anyhow::Result<u8> {
    let differing = expected::differences(file, results)?;
    for one in &differing {
        let Difference { event, expected, found } = one;
        output::tell(format_args!("event {event} differs:\n  expected {expected}\n  found    {found}"));
    }
    let same = results.len() - differing.len();
    summary(common, format_args!("{same} as expected, {} differ", differing.len()))?;
    Ok(u8::from(!differing.is_empty()))
}
