//! `pelton group delete`

use pelton_store::Store;
use serde_json::json;

use super::{group_reset::holds_state, groups::find};
use crate::{cli::Common, config::Config, output};

/// Removes a group, and says what went with it.
///
/// # Errors
/// A group that does not exist, that has active members, or dead letters that are not to go with it.
pub async fn delete(
    common: &Common,
    config: &Config,
    store: &dyn Store,
    name: &str,
    force: bool,
) -> anyhow::Result<()> {
    let group = find(store, name).await?;
    let had_state = holds_state(store, &group).await?;
    let letters: u64 = group.partitions.iter().map(|partition| partition.letters).sum();
    store.delete_group(name, force).await?;
    if common.json {
        let position =
            |at: &pelton_store::GroupPartition| json!({ "partition": at.partition, "committed": at.committed.0 });
        output::json_line(&json!({
            "group": name,
            "stream": group.stream,
            "done": "deleted",
            "partitions": group.partitions.iter().map(position).collect::<Vec<_>>(),
            "state": had_state,
            "dead_letters": letters,
        }))?;
        return Ok(());
    }
    let (stream, partitions) = (&group.stream, group.partitions.len());
    let state = if had_state { "and its state" } else { "it had no state" };
    output::line(format_args!("deleted group {name}: its positions in {partitions} partitions of {stream}, {state}"))?;
    if letters > 0 {
        output::line(format_args!("{letters} dead letters went with it"))?;
    }
    if config.groups.contains_key(name) {
        let path = common.config.display();
        output::line(format_args!(
            "{path} still declares it: the next `run`, `migrate` or `append` creates it anew, at its start"
        ))?;
    }
    Ok(())
}
