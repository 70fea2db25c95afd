//! `pelton tail`

use std::{collections::VecDeque, time::Duration};

use anyhow::bail;
use pelton_core::{Event, Offset};
use pelton_store::{GroupInfo, ReadLimit, Store, StoreError, StreamInfo};

use crate::{
    cli::{Common, TailArgs},
    event_json::EventLine,
    output,
    time::show,
};

/// Events read from a partition at once.
const CHUNK: ReadLimit = ReadLimit { events: 500, bytes: 4 << 20 };
/// How often to look for new events, should a wake-up be lost.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How much of a payload a person is shown, in characters.
const PAYLOAD_SHOWN_MAX: usize = 160;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first event of each partition that is still there.
    Earliest,
    /// At the head of each partition.
    Latest,
    /// At this offset of each partition.
    At(u64),
}

/// Reads `earliest`, `latest` or an offset.
///
/// # Errors
/// What was expected.
pub fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "earliest" => Ok(From::Earliest),
        "latest" => Ok(From::Latest),
        offset => offset.parse().map(From::At).map_err(|_| "expected earliest, latest or an offset".into()),
    }
}

/// One partition that is being printed.
struct Cursor {
    partition: u32,
    next: Offset,
    /// Without `--follow`: where to end.
    end: Offset,
    events: VecDeque<Event>,
    /// The last look found nothing.
    is_dry: bool,
}

/// Prints the events of a stream, those of several partitions in the order of their times.
///
/// # Errors
/// A stream, partition or group that does not exist; a group that reads another stream.
pub async fn tail(common: &Common, args: &TailArgs) -> anyhow::Result<()> {
    let (_, store) = super::open(common, false).await?;
    let stream = find(&*store, &args.stream).await?;
    let group = match &args.group {
        Some(group) => Some(reader(&*store, group, &args.stream).await?),
        None => None,
    };
    let mut cursors = cursors(&stream, group.as_ref(), args)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        // All of them when one has been printed, and not an empty one for every line.
        if cursors.iter().any(|cursor| cursor.events.is_empty() && !cursor.is_dry) {
            for cursor in &mut cursors {
                cursor.fill(&*store, &args.stream, args.follow).await?;
            }
        }
        match earliest(&mut cursors) {
            Some((partition, event)) => {
                print(common, &args.stream, partition, &event)?;
                output::end_if_closed()?;
                left -= 1;
            }
            None if args.follow => {
                store.changed(POLL_INTERVAL).await;
                cursors.iter_mut().for_each(|cursor| cursor.is_dry = false);
            }
            None => break,
        }
    }
    Ok(())
}

async fn find(store: &dyn Store, name: &str) -> anyhow::Result<StreamInfo> {
    let streams = store.streams().await?;
    let names: Vec<_> = streams.iter().map(|stream| format!("{:?}", stream.spec.name)).collect();
    match streams.into_iter().find(|stream| stream.spec.name == name) {
        Some(stream) => Ok(stream),
        None if names.is_empty() => bail!("stream {name:?} does not exist; there are no streams yet"),
        None => bail!("stream {name:?} does not exist; known streams: {}", names.join(", ")),
    }
}

/// The group whose positions to begin at.
async fn reader(store: &dyn Store, group: &str, stream: &str) -> anyhow::Result<GroupInfo> {
    let info = super::groups::find(store, group).await?;
    if info.stream != stream {
        let reads = info.stream;
        bail!("group {group:?} reads stream {reads:?}, not {stream:?}; see `pelton tail {reads} --group {group}`");
    }
    Ok(info)
}

fn cursors(stream: &StreamInfo, group: Option<&GroupInfo>, args: &TailArgs) -> Result<Vec<Cursor>, StoreError> {
    let partitions = stream.spec.partitions;
    if let Some(partition) = args.partition.filter(|partition| *partition >= partitions) {
        return Err(StoreError::UnknownPartition { what: format!("stream {:?}", args.stream), partition, partitions });
    }
    let wanted = (0..).zip(&stream.partitions).filter(|(partition, _)| args.partition.is_none_or(|p| p == *partition));
    let cursor = |(partition, bounds): (u32, &pelton_store::StreamPartition)| {
        let at_group = group.and_then(|group| group.partitions.get(partition as usize));
        let next = match (at_group, args.from) {
            (Some(at), _) => at.committed.max(bounds.first),
            (None, From::Earliest) => bounds.first,
            (None, From::Latest) => bounds.head,
            (None, From::At(offset)) => Offset(offset).max(bounds.first),
        };
        Cursor { partition, next, end: bounds.head, events: VecDeque::new(), is_dry: false }
    };
    Ok(wanted.map(cursor).collect())
}

impl Cursor {
    async fn fill(&mut self, store: &dyn Store, stream: &str, follow: bool) -> Result<(), StoreError> {
        if !self.events.is_empty() {
            return Ok(());
        }
        if !follow && self.next >= self.end {
            self.is_dry = true;
            return Ok(());
        }
        let mut events = store.read(stream, self.partition, self.next, CHUNK).await?;
        if !follow {
            // What is appended while we print is for the next call.
            events.retain(|event| event.offset < self.end);
            self.next = self.end;
        }
        if let Some(last) = events.last() {
            self.next = last.offset.next();
        }
        self.events.extend(events);
        self.is_dry = self.events.is_empty();
        Ok(())
    }
}

fn earliest(cursors: &mut [Cursor]) -> Option<(u32, Event)> {
    let waiting = cursors.iter_mut().filter(|cursor| !cursor.events.is_empty());
    let cursor = waiting.min_by_key(|cursor| cursor.events.front().map(|event| event.time))?;
    Some((cursor.partition, cursor.events.pop_front()?))
}

fn print(common: &Common, stream: &str, partition: u32, event: &Event) -> std::io::Result<()> {
    if common.json {
        return output::json_line(&EventLine::of(stream, partition, event));
    }
    let [kind, key] = [&event.kind, event.key.as_deref().unwrap_or("-")].map(output::in_one_line);
    let payload = String::from_utf8_lossy(&event.payload);
    let mut shown: String =
        payload.chars().take(PAYLOAD_SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < payload.len() {
        shown.push('…');
    }
    let Event { offset, time, .. } = event;
    output::line(format_args!("{stream}/{partition}@{offset}  {}  {kind}  {key}  {shown}", show(*time)))
}
