//! `pelton handler pin`

use anyhow::bail;
use pelton_core::Refusal;
use pelton_store::Store;

use super::handler::{change, short};
use crate::{
    cli::{Common, PinArgs},
    config::Config,
    output,
};

/// Pins a version, or takes the pin away.
///
/// # Errors
/// A handler or version that does not exist, a version whose module is not kept any more; what is so already.
pub async fn pin(common: &Common, config: &Config, store: &dyn Store, args: &PinArgs) -> anyhow::Result<()> {
    let PinArgs { handler, digest, off } = args;
    let changed = change(config, store, handler, |rollout, now| {
        // Without a pin nothing is taken away; a canary goes on.
        if *off && !rollout.pinned { Err(Refusal::Already) } else { rollout.pin(digest.as_deref(), !off, now) }
    });
    let changed = match changed.await {
        Err(error) if error.downcast_ref::<Refusal>() == Some(&Refusal::Already) => match (off, digest) {
            (true, _) => bail!("handler {handler:?} is not pinned"),
            (false, Some(digest)) => bail!("handler {handler:?} is pinned to {} already", short(digest)),
            (false, None) => bail!("handler {handler:?} is pinned already"),
        },
        changed => changed?,
    };
    changed.tell(common, if *off { "unpinned" } else { "pinned" })?;
    if common.json {
        return Ok(());
    }
    let live = changed.live().map(short).unwrap_or_default();
    if *off {
        output::line(format_args!(
            "handler {handler} is not pinned to {live} any more: the next change of its file becomes a new version"
        ))?;
    } else {
        output::line(format_args!("handler {handler} is pinned to {live}: no file and no failure replaces it"))?;
        output::line(format_args!("- `pelton handler pin {handler} --off` lets new versions in"))?;
    }
    Ok(())
}
