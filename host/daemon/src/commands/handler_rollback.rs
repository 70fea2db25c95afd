//! `pelton handler rollback`

use anyhow::bail;
use pelton_core::Refusal;
use pelton_store::Store;

use super::handler::{change, short};
use crate::{
    cli::{Common, RollbackArgs},
    config::Config,
    output,
};

/// Goes back to a version that was live before.
///
/// # Errors
/// A handler or version that does not exist, a version whose module is not kept any more, nothing to go back to.
pub async fn rollback(common: &Common, config: &Config, store: &dyn Store, args: &RollbackArgs) -> anyhow::Result<()> {
    let RollbackArgs { handler, to } = args;
    let changed = match change(config, store, handler, |rollout, now| rollout.go_back(to.as_deref(), now)).await {
        Err(error) if error.downcast_ref::<Refusal>() == Some(&Refusal::Already) => {
            let to = to.as_deref().map(short).unwrap_or_default();
            bail!("handler {handler:?} is at {to} already, and no other version is tried beside it");
        }
        changed => changed?,
    };
    changed.tell(common, "rolled-back")?;
    if changed.is_pinned() && !common.json {
        output::line(format_args!(
            "- it is pinned as before; `pelton handler pin {handler} --off` lets new versions in"
        ))?;
    }
    Ok(())
}
