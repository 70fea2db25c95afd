//! `pelton test`: events through a module, with no store.

use std::path::Path;

use anyhow::Context;
use pelton_sandbox::{EmitGrant, Grants, Module};
use serde_json::Value;

use super::bench;
use crate::{
    cli::{Common, TestArgs},
    config::Config,
    expected::{self, NAME, Script},
    modules::grants_of,
    output,
};

const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// Hands the events of a file to a module, one at a time, and prints what came of each.
///
/// # Errors
/// A module or file that cannot be read. What differs from the expectation is printed and gives status 1.
pub async fn test(common: &Common, args: &TestArgs) -> anyhow::Result<u8> {
    let mut script = Script::open(&module(common, args).await?, &args.events, args.format)?;
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
    match &args.expect {
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

async fn module(common: &Common, args: &TestArgs) -> anyhow::Result<Module> {
    let file = args.module.display();
    let bytes = std::fs::read(&args.module).with_context(|| format!("cannot read module {file}"))?;
    let sandbox = super::sandbox()?;
    let grants = grants(common, &args.module)?;
    sandbox.load(bytes.into(), grants, Default::default()).await.with_context(|| format!("module {file}"))
}

/// What the configuration grants the handler of this module, if there is one; else every stream and the usual limits.
/// Nothing goes out from here either way, and time and chance follow from the events.
fn grants(common: &Common, module: &Path) -> anyhow::Result<Grants> {
    let module = std::path::absolute(module)?;
    let config = if common.config.exists() { Some(Config::load(&common.config)?) } else { None };
    let declared = config.as_ref().and_then(|config| {
        let (name, handler) = config.handlers.iter().find(|(_, handler)| handler.module == module)?;
        Some(grants_of(name, handler, &config.streams))
    });
    let emit = EmitGrant::Any { payload_bytes_max: PAYLOAD_BYTES_MAX };
    Ok(declared.unwrap_or_else(|| Grants { emit, ..Grants::nothing(NAME) }).held_back())
}

fn compare(common: &Common, file: &Path, results: &[Value]) -> anyhow::Result<u8> {
    let differing = expected::differences(file, results)?;
    for one in &differing {
        eprintln!("event {} differs:\n  expected {}\n  found    {}", one.event, one.expected, one.found);
    }
    let same = results.len() - differing.len();
    summary(common, format_args!("{same} as expected, {} differ", differing.len()))?;
    Ok(u8::from(!differing.is_empty()))
}
