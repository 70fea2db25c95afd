//! `pelton dead-letters edit`

use std::{
    fs::File,
    io::{Read, stdin},
    path::Path,
};

use anyhow::{Context, bail};
use pelton_store::{LetterQuery, Store};
use serde_json::json;

use super::{letter::id_of, select::by_id};
use crate::{
    cli::{Common, EditArgs, NewPayload},
    commands::groups::find,
    event_json, output,
};

/// Replaces the payload of one. It is not handled by that.
pub(super) async fn edit(common: &Common, store: &dyn Store, args: &EditArgs) -> anyhow::Result<()> {
    let group = find(store, &args.group).await?;
    let info = by_id(store, &group.name, &args.id, &LetterQuery::default()).await?;
    let streams = store.streams().await?;
    let limit =
        streams.iter().find(|stream| stream.spec.name == group.stream).map(|stream| stream.spec.payload_bytes_max);
    let limit = limit.unwrap_or(u64::MAX);
    let payload = read(&args.payload, limit)?;
    let (bytes, id, name) = (payload.len(), id_of(&info), &group.name);
    if bytes as u64 > limit {
        bail!(
            "the new payload has {bytes} bytes or more; stream {:?} takes at most {limit} (payload_max)",
            group.stream
        );
    }
    let is_json = event_json::json(&payload).is_some();
    let was_json = event_json::json(&info.letter.event.payload).is_some();
    store.edit_letter(name, info.partition, info.letter.event.offset, payload).await?;
    if common.json {
        output::json_line(&json!({ "group": name, "id": id, "done": "edited", "bytes": bytes }))?;
        return Ok(());
    }
    output::line(format_args!("dead letter {id} of group {name} has a new payload of {bytes} bytes"))?;
    if was_json && !is_json {
        output::line("- the old one was JSON, this one is not")?;
    }
    output::line(format_args!("- `pelton dead-letters replay {name} --id {id}` hands it to the handler"))?;
    Ok(())
}

/// What is given, or a byte more than there may be.
fn read(payload: &NewPayload, limit: u64) -> anyhow::Result<Vec<u8>> {
    let Some(file) = &payload.file else { return Ok(payload.payload.clone().unwrap_or_default().into_bytes()) };
    let mut bytes = Vec::new();
    let most = limit.saturating_add(1);
    if file == Path::new("-") {
        stdin().take(most).read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        let name = file.display();
        let file = File::open(file).with_context(|| format!("cannot open {name}"))?;
        file.take(most).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    }
    Ok(bytes)
}
