//! The commands: each reads its arguments, asks the store or the daemon, and prints.

pub mod append;
pub mod backup;
pub mod check;
pub mod dead_letters;
pub mod dev;
pub mod group_delete;
pub mod group_export;
pub mod group_reset;
pub mod group_show;
pub mod group_skip;
pub mod groups;
pub mod handler;
pub mod handler_history;
pub mod handler_pin;
pub mod handler_rollback;
pub mod handlers;
pub mod hosts;
pub mod new;
pub mod replay;
pub mod run;
pub mod streams;
pub mod tail;
pub mod test;

mod bench;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use pelton_sandbox::{Sandbox, SandboxError, SandboxOptions};
use pelton_store::{Store, StoreOptions};

use crate::{
    build,
    cli::{BuildArgs, Common, DEFAULT_CONFIG},
    compiler::compiler,
    config::Config,
    host::declare,
    output,
};

/// The configuration, and its store as a command sees it: beside the daemon, without its lock.
async fn open(common: &Common, create: bool) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    let config = Config::load(&common.config)?;
    let options = config.store.options(create);
    let store = pelton_store::open(&config.store.url, &options).await?;
    Ok((config, store))
}

/// What a command runs handlers in; modules are compiled as they are in the daemon.
fn sandbox() -> Result<Sandbox, SandboxError> {
    sandbox_with_cache(None)
}

/// One that keeps what it compiles.
fn sandbox_with_cache(cache_dir: Option<PathBuf>) -> Result<Sandbox, SandboxError> {
    Sandbox::new(SandboxOptions { cache_dir, compiler: Some(compiler()), ..SandboxOptions::default() })
}

/// `pelton build`
///
/// # Errors
/// A missing tool, with how to get it; a compiler's refusal.
pub fn build(common: &Common, args: &BuildArgs) -> anyhow::Result<()> {
    if args.update_sdk {
        new::update_sdk(&args.dir)?;
    }
    let install_tools = args.install_tools;
    let options = build::Options { out: args.out.clone(), features: args.features.clone(), install_tools };
    let built = build::build(&args.dir, &options)?;
    if common.json {
        output::json_line(&serde_json::json!({
            "path": built.path, "bytes": built.bytes, "digest": built.digest, "tool": built.tool,
        }))?;
    } else {
        let kib = built.bytes.div_ceil(1024);
        output::line(format_args!("{}  {kib} KiB  {}", built.path.display(), built.digest))?;
    }
    Ok(())
}

/// `pelton migrate`
///
/// # Errors
/// A store that cannot be opened, or that contradicts the configuration.
pub async fn migrate(common: &Common) -> anyhow::Result<()> {
    let config = Config::load(&common.config)?;
    let options = StoreOptions { auto_migrate: true, ..config.store.options(true) };
    let store = pelton_store::open(&config.store.url, &options).await?;
    declare(&*store, &config).await?;
    let (streams, groups) = (config.streams.len(), config.groups.len());
    if common.json {
        output::json_line(&serde_json::json!({ "streams": streams, "groups": groups }))?;
    } else {
        let (streams, groups) = (count(streams, "stream"), count(groups, "group"));
        output::line(format_args!("schema is up to date; {streams} and {groups} are declared"))?;
    }
    Ok(())
}

/// So many of something, as people say it.
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// The configuration that goes with a project: its own, unless another was asked for.
fn config_of(common: &Common, project: &Path) -> PathBuf {
    if common.config == Path::new(DEFAULT_CONFIG) { project.join(DEFAULT_CONFIG) } else { common.config.clone() }
}
