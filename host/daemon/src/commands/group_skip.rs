//! `pelton group skip`

use pelton_store::Store;
use serde_json::json;

use super::dead_letters::one;
use crate::{
    cli::{Common, SkipArgs},
    output,
};

/// Sets the event aside that blocks a partition, and says how to get it back.
///
/// # Errors
/// A group or partition that does not exist, or in which nothing has failed.
pub async fn skip(common: &Common, store: &dyn Store, args: &SkipArgs) -> anyhow::Result<()> {
    let SkipArgs { group, partition, key } = args;
    let offset = store.skip(group, *partition, *key).await?;
    let id = format!("{partition}/{offset}");
    // It may have been asked for and be gone already: then only its place is known.
    let letter = one(store, group, *partition, offset).await?.map(|info| info.letter);
    let parks = letter.as_ref().is_some_and(|letter| letter.parks);
    let event = letter.as_ref().map(|letter| &letter.event);
    let of_event = event.and_then(|event| event.key.as_deref());
    if common.json {
        output::json_line(&json!({
            "group": group,
            "partition": partition,
            "offset": offset.0,
            "id": id,
            "event": event.map(|event| &event.id),
            "key": of_event,
            "parks": parks,
            "done": "skipped",
        }))?;
        return Ok(());
    }
    let called = event.map(|event| format!(" (event {:?})", event.id)).unwrap_or_default();
    output::line(format_args!(
        "skipped offset {offset} of partition {partition}{called}: it is dead letter {id} of group {group}"
    ))?;
    match of_event {
        Some(of_event) if parks => {
            output::line(format_args!("- key {of_event:?} is parked: its later events wait behind it, in order"))?;
        }
        None if *key && event.is_some() => output::line("- it has no key: nothing waits behind it")?,
        _ => {}
    }
    output::line(format_args!("- `pelton dead-letters replay {group} --id {id}` hands it to the handler again"))?;
    Ok(())
}
