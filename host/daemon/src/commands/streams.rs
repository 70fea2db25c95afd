//! `pelton streams`

use serde_json::json;

use crate::{cli::Common, output};

/// Prints the streams with their partitions.
///
/// # Errors
/// A configuration or store that cannot be read.
pub async fn streams(common: &Common) -> anyhow::Result<()> {
    let (_, store) = super::open(common, false).await?;
    let streams = store.streams().await?;
    if common.json {
        let rows = streams.iter().map(|stream| {
            let partitions = stream.partitions.iter().enumerate();
            let partition = |(n, p): (usize, &pelton_store::StreamPartition)| json!({ "partition": n, "first": p.first.0, "head": p.head.0 });
            json!({
                "stream": stream.spec.name,
                "partitions": partitions.map(partition).collect::<Vec<_>>(),
                "retention": null,
                "payload_max": stream.spec.payload_bytes_max,
            })
        });
        output::json_line(&rows.collect::<Vec<_>>())?;
    } else {
        let rows = streams.iter().map(|stream| {
            let events: u64 = stream.partitions.iter().map(|partition| partition.head.since(partition.first)).sum();
            [stream.spec.name.clone(), stream.spec.partitions.to_string(), events.to_string()]
        });
        output::table(["stream", "partitions", "events"], rows, "no streams yet: declare one in workers.toml")?;
    }
    Ok(())
}
