//! `pelton streams`

use std::time::Duration;

use pelton_store::StreamInfo;
use serde_json::json;

use crate::{cli::Common, config::show_duration, output};

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
                "retention": retention(stream),
                "payload_max": stream.spec.payload_bytes_max,
            })
        });
        output::json_line(&rows.collect::<Vec<_>>())?;
    } else {
        let rows = streams.iter().map(|stream| {
            let events: u64 = stream.partitions.iter().map(|partition| partition.head.since(partition.first)).sum();
            let retention = retention(stream).unwrap_or_else(|| "forever".into());
            [stream.spec.name.clone(), stream.spec.partitions.to_string(), events.to_string(), retention]
        });
        output::table(
            ["stream", "partitions", "events", "retention"],
            rows,
            "no streams yet: declare one in workers.toml",
        )?;
    }
    Ok(())
}

/// How long events are kept that every group has passed, if not for ever.
fn retention(stream: &StreamInfo) -> Option<String> {
    stream.spec.retention_ms.map(|ms| show_duration(Duration::from_millis(ms)))
}
