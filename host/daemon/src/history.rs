//! Recorded events through one version of a handler, or through two of them side by side: what each does with every event,
//! and in what they differ. Reads the store and nothing else; what the handlers ask for is held back.
//!
//! Who makes a [`Run`] gives it modules whose grants are held back ([`Grants::held_back`](pelton_sandbox::Grants::held_back)):
//! modules are called as they are.

mod base;
mod differ;
mod gate;
mod totals;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use pelton_core::{Event, Filter, Offset, Outcome};
use pelton_sandbox::{Module, Place, StateReader};
use pelton_store::{ReadLimit, Store};

use crate::bench::{Bench, Tried};
use base::Today;

pub(crate) use base::Base;
pub(crate) use differ::{Differs, said};
pub(crate) use gate::{GateFault, check_gate};
pub(crate) use totals::{Side, Totals};

/// Events read at once.
const PAGE: ReadLimit = ReadLimit { events: 500, bytes: 4 << 20 };

/// What the state of all versions may take in memory in one partition, in bytes.
pub(crate) const STATE_BYTES_MAX: usize = 256 << 20;

/// A run that ended since state takes too much memory: at which event, and how much is too much.
#[derive(Debug, thiserror::Error)]
#[error("{0}; replay fewer events at once, with --from and --to")]
struct TooMuchState(String);

/// Events of one partition that are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) partition: u32,
    /// The first event that is handed to the versions. What comes before `from` only makes the state that they meet there.
    pub(crate) start: Offset,
    /// The first one that is told of.
    pub(crate) from: Offset,
    /// The offset after the last.
    pub(crate) to: Offset,
}

impl Span {
    /// How many events there are to read.
    pub(crate) fn events(&self) -> u64 {
        self.to.since(self.start)
    }
}

/// For which group events are run, as it is configured.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) group: Arc<str>,
    pub(crate) stream: Arc<str>,
    /// Events it does not want are passed over.
    pub(crate) filter: Filter,
}

/// Two versions, or the new one alone.
#[derive(Clone)]
pub(crate) struct Versions {
    pub(crate) old: Option<Module>,
    pub(crate) new: Module,
}

/// What came of one event.
pub(crate) struct Step {
    pub(crate) partition: u32,
    pub(crate) event: Event,
    pub(crate) old: Option<Tried>,
    pub(crate) new: Tried,
    /// Nothing, where there is no old version.
    pub(crate) differs: Differs,
}

impl Step {
    /// Whether the new version fails at what the old one handled.
    pub(crate) fn is_new_error(&self) -> bool {
        !self.new.is_done() && self.old.as_ref().is_some_and(Tried::is_done)
    }
}

/// Runs events span by span, each in order. A failed event's effects are dropped, and the next one follows.
pub(crate) struct Run {
    store: Arc<dyn Store>,
    reader: Reader,
    base: Base,
    versions: Versions,
    spans: VecDeque<Span>,
    stage: Option<Stage>,
    progress: ProgressBar,
    state_bytes_max: usize,
}

/// The partition in hand.
struct Stage {
    span: Span,
    /// The next offset to read.
    next: Offset,
    events: VecDeque<Event>,
    today: Option<Arc<Today>>,
    old: Option<Bench>,
    new: Bench,
    /// Whose turn it is to go first: the second one finds the event in the processor's caches.
    old_first: bool,
}

impl Run {
    /// All versions begin with the same state in each span. `progress` moves with the events that are read.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        reader: Reader,
        base: Base,
        versions: Versions,
        spans: impl IntoIterator<Item = Span>,
        progress: ProgressBar,
    ) -> Self {
        let spans = spans.into_iter().collect();
        Self { store, reader, base, versions, spans, stage: None, progress, state_bytes_max: STATE_BYTES_MAX }
    }

    /// What came of the next event; `None` after the last.
    ///
    /// # Errors
    /// A store that does not answer, events that retention removed meanwhile, or state that takes too much memory.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Step>> {
        loop {
            let Some(event) = self.event().await? else { return Ok(None) };
            if !self.reader.filter.wants(&event) {
                continue;
            }
            let Some(stage) = &mut self.stage else { return Ok(None) };
            let is_told = event.offset >= stage.span.from;
            let step = stage.call(event, self.state_bytes_max).await?;
            if is_told {
                return Ok(Some(step));
            }
        }
    }

    /// Hands the versions an event that stands in no span, with the state that the last span of its partition left.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn step(&mut self, partition: u32, event: Event) -> anyhow::Result<Step> {
        let stage = match self.stage.take().filter(|stage| stage.span.partition == partition) {
            Some(stage) => stage,
            None => self.stage_for(Span { partition, start: event.offset, from: event.offset, to: event.offset }),
        };
        self.stage.insert(stage).call(event, self.state_bytes_max).await
    }

    /// The next event of the spans, wanted or not.
    async fn event(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(stage) = &mut self.stage {
                if let Some(event) = stage.events.pop_front() {
                    return Ok(Some(event));
                }
                if stage.next < stage.span.to {
                    let read = stage.fill(&*self.store, &self.reader.stream).await?;
                    self.progress.inc(read);
                    continue;
                }
            }
            match self.spans.pop_front() {
                Some(span) => self.stage = Some(self.stage_for(span)),
                None => return Ok(None),
            }
        }
    }

    fn stage_for(&self, span: Span) -> Stage {
        let Reader { group, stream, .. } = &self.reader;
        let place = Place { group: Arc::clone(group), stream: Arc::clone(stream), partition: span.partition };
        let today = (self.base == Base::Today).then(|| {
            let (store, group) = (Arc::clone(&self.store), Arc::clone(group));
            Arc::new(Today::new(store, group, span.partition, self.state_bytes_max))
        });
        let bench = |module: &Module| {
            let stored = today.clone().map(|today| -> Arc<dyn StateReader> { today });
            Bench::new(module, place.clone(), stored)
        };
        let (old, new) = (self.versions.old.as_ref().map(bench), bench(&self.versions.new));
        Stage { span, next: span.start, events: VecDeque::new(), today, old, new, old_first: true }
    }
}

impl Stage {
    async fn fill(&mut self, store: &dyn Store, stream: &str) -> anyhow::Result<u64> {
        let Span { partition, to, .. } = self.span;
        let mut events = store.read(stream, partition, self.next, PAGE).await?;
        // Offsets are dense: what is missing was there when the run was planned.
        match events.first().map(|event| event.offset) {
            Some(first) if first == self.next => {}
            _ => bail!(
                "events of {stream}/{partition} from offset {} on are not kept any more: retention removed them meanwhile; begin later, with --from",
                self.next
            ),
        }
        events.retain(|event| event.offset < to);
        let read = events.len() as u64;
        self.next = events.last().map_or(to, |last| last.offset.next());
        self.events = events.into();
        Ok(read)
    }

    async fn call(&mut self, event: Event, state_bytes_max: usize) -> anyhow::Result<Step> {
        let partition = self.span.partition;
        let (old, new) = match &mut self.old {
            None => (None, self.new.call(&event, 1).await),
            Some(bench) if self.old_first => {
                let old = bench.call(&event, 1).await;
                (Some(old), self.new.call(&event, 1).await)
            }
            Some(bench) => {
                let new = self.new.call(&event, 1).await;
                (Some(bench.call(&event, 1).await), new)
            }
        };
        self.old_first = !self.old_first;
        let at = event.offset;
        // First of all: a call that reads too much does not come to its end.
        self.fits(at, state_bytes_max)?;
        for tried in old.iter().chain([&new]) {
            // No version did this: it says nothing about either.
            if let Outcome::Interrupted | Outcome::StoreUnavailable(_) = tried.outcome {
                bail!("stopped at event {partition}/{at}: {}", tried.outcome);
            }
        }
        let differs = match (&old, &self.old) {
            (Some(old), Some(bench)) => {
                let compared = Differs::between((old, bench), (&new, &self.new)).await;
                // To compare is to read, too.
                self.fits(at, state_bytes_max)?;
                compared.map_err(anyhow::Error::msg).context("cannot compare what is in the state")?
            }
            _ => Differs::default(),
        };
        Ok(Step { partition, event, old, new, differs })
    }

    fn fits(&self, at: Offset, bytes_max: usize) -> Result<(), TooMuchState> {
        let held = self.new.held_bytes()
            + self.old.as_ref().map_or(0, Bench::held_bytes)
            + self.today.as_ref().map_or(0, |today| today.held_bytes());
        if held <= bytes_max {
            return Ok(());
        }
        let partition = self.span.partition;
        Err(TooMuchState(format!("stopped at event {partition}/{at}: {}", base::too_much(bytes_max))))
    }
}
