//! The two versions: the one that is tried, and the one that is live.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use pelton_sandbox::{Grants, Module, Sandbox, digest_of};
use pelton_store::{GroupInfo, Store};

use crate::{
    config::{Config, HandlerConfig},
    modules::{grants_of, read_module},
};

/// The handler of a group by its name: as the configuration says now or, where it does not know the group, as was
/// declared last.
pub(in crate::commands) fn handler_of<'a>(
    config: &'a Config,
    group: &'a GroupInfo,
) -> anyhow::Result<(&'a str, &'a HandlerConfig)> {
    let declared = config.groups.get(&group.name).map(|declared| &declared.spec.handler);
    let name = declared.unwrap_or(&group.handler);
    let handler = config.handlers.get(name).with_context(|| {
        format!(
            "handler {name:?} of group {:?} is not declared; add [handlers.{name}], or name another file with -c",
            group.name
        )
    })?;
    Ok((name, handler))
}

/// What a handler is granted, with nothing that leads outside.
pub(in crate::commands) fn grants_for(config: &Config, name: &str, handler: &HandlerConfig) -> Grants {
    grants_of(name, handler, &config.streams).held_back()
}

/// The module of a file, whatever the configuration pins.
pub(super) async fn from_file(sandbox: &Sandbox, file: &Path, grants: Grants) -> anyhow::Result<Module> {
    let bytes = read_module(file).await.map_err(anyhow::Error::msg)?;
    load(sandbox, bytes, grants).await.with_context(|| format!("module {}", file.display()))
}

/// The version of a handler that is live: what the store keeps of it or, from a store that keeps nothing, what lies in
/// the handler's file.
pub(in crate::commands) async fn running(
    sandbox: &Sandbox,
    store: &dyn Store,
    name: &str,
    handler: &HandlerConfig,
    grants: Grants,
) -> anyhow::Result<Module> {
    let rollouts = store.rollouts().await?;
    let live = rollouts.into_iter().find(|rollout| rollout.handler == name).and_then(|rollout| rollout.live);
    if let Some(live) = &live
        && let Some(bytes) = store.module(live).await?
    {
        return load(sandbox, bytes, grants).await.with_context(|| format!("module {live} as the store keeps it"));
    }
    let file = handler.module.display();
    let bytes = read_module(&handler.module).await.map_err(anyhow::Error::msg)?;
    let found = digest_of(&bytes);
    match live {
        Some(live) if live != found => bail!(
            "the running version {live} of handler {name:?} is not in the store, and {file} holds another one ({found}); put its file back there, and name the new one with --module"
        ),
        Some(_) => {}
        None => eprintln!(
            "note: the store knows no version of handler {name:?}; {file} ({found}) is taken for the running one"
        ),
    }
    load(sandbox, bytes, grants).await.with_context(|| format!("module {file}"))
}

async fn load(sandbox: &Sandbox, bytes: Vec<u8>, grants: Grants) -> anyhow::Result<Module> {
    Ok(sandbox.load(bytes.into(), grants, Arc::default()).await?)
}
