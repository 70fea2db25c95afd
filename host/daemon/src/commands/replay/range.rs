//! Which events are replayed, and from which state.

use anyhow::bail;
use pelton_core::Offset;
use pelton_store::{GroupInfo, Store, StoreError, StreamInfo, StreamPartition};

use crate::{
    cli::{Beginning, RecordedArgs},
    commands::group_reset::To,
    history::{Base, Span},
    time,
};

/// How many partitions an error lists.
const PARTITIONS_SHOWN_MAX: usize = 8;

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
    // Partitions are not equally full: a range that lies within one of them is one.
    let mut is_possible = false;
    for (partition, bounds) in wanted(stream, args.partition) {
        let place = async |at: To| -> Result<Offset, StoreError> {
            Ok(match at {
                To::Earliest => bounds.first,
                To::Latest => bounds.head,
                To::Offset(offset) => Offset(offset),
                To::Time(time) => store.offset_at(&group.stream, partition, time).await?,
            })
        };
        let (from, to) = match args.last {
            Some(last) => {
                let committed = group.partitions.get(partition as usize).map_or(bounds.first, |at| at.committed);
                (Offset(committed.0.saturating_sub(last)).max(bounds.first), committed)
            }
            None => (place(args.from).await?, place(args.to).await?),
        };
        is_possible |= from <= to;
        let [from, to] = [from, to].map(|at| at.clamp(bounds.first, bounds.head));
        spans.push(Span { partition, start: from, from, to });
    }
    if !is_possible {
        bail!(impossible(stream, args));
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

/// A range that ends before it begins, or lies outside of what there is, is a slip of whoever wrote it; that nothing differs in
/// it must not look like an answer.
fn impossible(stream: &StreamInfo, args: &RecordedArgs) -> String {
    let holds = wanted(stream, args.partition).map(|(partition, StreamPartition { first, head })| match head {
        _ if first == head => format!("partition {partition} no events, and {head} comes next"),
        _ => format!("partition {partition} offsets {first} to {head} (not included)"),
    });
    let holds: Vec<_> = holds.collect();
    let more = match holds.len().saturating_sub(PARTITIONS_SHOWN_MAX) {
        0 => String::new(),
        more => format!(", and {more} more partitions"),
    };
    format!(
        "no event can lie between --from {} and --to {}: of stream {:?}, {}{more} are there; choose a range within that",
        shown(args.from),
        shown(args.to),
        stream.spec.name,
        holds.iter().take(PARTITIONS_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", "),
    )
}

/// As it was written on the command line, more or less.
fn shown(at: To) -> String {
    match at {
        To::Earliest => "earliest".into(),
        To::Latest => "latest".into(),
        To::Offset(offset) => offset.to_string(),
        To::Time(time) => time::show(time),
    }
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
