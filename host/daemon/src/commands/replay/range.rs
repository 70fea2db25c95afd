//! Which events are replayed, and from which state.

use anyhow::bail;
use pelton_core::Offset;
use pelton_store::{GroupInfo, Store, StoreError, StreamInfo, StreamPartition};

use crate::{
    cli::{Beginning, RecordedArgs},
    commands::group_reset::To,
    history::{Base, Span},
};

/// What is to be run.
pub(super) struct Plan {
    pub(super) spans: Vec<Span>,
    pub(super) base: Base,
    /// The word for the state that the first event meets.
    pub(super) state: &'static str,
}

impl Plan {
    /// How many events there are to read.
    pub(super) fn events(&self) -> u64 {
        self.spans.iter().map(Span::events).sum()
    }
}

/// Refuses what no range of this stream can satisfy.
pub(super) fn check(stream: &StreamInfo, args: &RecordedArgs) -> anyhow::Result<()> {
    let partitions = stream.spec.partitions;
    let partition = args.partition.or(args.event.map(|(partition, _)| partition));
    if let Some(partition) = partition.filter(|partition| *partition >= partitions) {
        let what = format!("stream {:?}", stream.spec.name);
        return Err(StoreError::UnknownPartition { what, partition, partitions }.into());
    }
    if args.state == Some(Beginning::Rebuild) {
        for (partition, bounds) in wanted(stream, partition) {
            if bounds.first > Offset(0) {
                bail!(
                    "state cannot be rebuilt: partition {partition} of stream {:?} begins at offset {}, what was before is not kept any more; say --state today, --state empty, or another --partition",
                    stream.spec.name,
                    bounds.first
                );
            }
        }
    }
    Ok(())
}

/// The spans of a replay: up to the heads as they are now, as long as nothing else is said.
pub(super) async fn plan(
    store: &dyn Store,
    group: &GroupInfo,
    stream: &StreamInfo,
    args: &RecordedArgs,
) -> anyhow::Result<Plan> {
    let mut spans = Vec::new();
    for (partition, bounds) in wanted(stream, args.partition) {
        let place = async |at: To| -> Result<Offset, StoreError> {
            let offset = match at {
                To::Earliest => bounds.first,
                To::Latest => bounds.head,
                To::Offset(offset) => Offset(offset),
                To::Time(time) => store.offset_at(&group.stream, partition, time).await?,
            };
            Ok(offset.clamp(bounds.first, bounds.head))
        };
        let (from, to) = match args.last {
            Some(last) => {
                let committed = group.partitions.get(partition as usize).map_or(bounds.first, |at| at.committed);
                (Offset(committed.0.saturating_sub(last)).max(bounds.first), committed)
            }
            None => (place(args.from).await?, place(args.to).await?),
        };
        spans.push(Span { partition, start: from, from, to });
    }
    spans.retain(|span| span.from < span.to);
    let from_the_start = spans.iter().all(|span| span.from == Offset(0));
    let beginning = args.state.unwrap_or(if from_the_start { Beginning::Empty } else { Beginning::Today });
    if beginning == Beginning::Rebuild {
        spans.iter_mut().for_each(|span| span.start = Offset(0));
    }
    let (base, state) = base(beginning);
    Ok(Plan { spans, base, state })
}

/// Where the state comes from, and the word for it.
pub(super) fn base(beginning: Beginning) -> (Base, &'static str) {
    match beginning {
        Beginning::Empty => (Base::Empty, "empty"),
        Beginning::Today => (Base::Today, "today"),
        Beginning::Rebuild => (Base::Empty, "rebuilt"),
    }
}

fn wanted(stream: &StreamInfo, partition: Option<u32>) -> impl Iterator<Item = (u32, StreamPartition)> {
    let all = (0..).zip(stream.partitions.iter().copied());
    all.filter(move |(number, _)| partition.is_none_or(|wanted| wanted == *number))
}
