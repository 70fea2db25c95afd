//! Dead letters of which something was asked, on their way through the group's handler.

use std::sync::Arc;

use pelton_core::{
    DeadLetter, Effects, Event, Failure, Invocation, LetterRequest, Offset, Outcome, Replayed, Settled, Timestamp,
};
use pelton_store::{ReadLimit, Store, StoreError};

use crate::handler::Handler;

/// What to see to, and with what.
pub(crate) struct Order {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) group: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) limit: ReadLimit,
    /// Of the version that is called.
    pub(crate) digest: String,
    pub(crate) handler: Box<dyn Handler>,
    /// What the store refused of a letter: it counts as its failure, without another call.
    pub(crate) refused: Option<(Offset, String)>,
    pub(crate) now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

/// What came of it.
pub(crate) struct Report {
    pub(crate) told: Replayed,
    /// The handler, if it can be called again.
    pub(crate) handler: Option<Box<dyn Handler>>,
    /// Whether it was called at all.
    pub(crate) invocation: Option<Invocation>,
    pub(crate) effects: Effects,
    pub(crate) settled: Vec<Settled>,
    /// The parked keys of letters that are gone, one for each.
    pub(crate) released: Vec<String>,
    /// Those that were handled, with their ids, and the one that failed again.
    pub(crate) handled: Vec<(Offset, String)>,
    pub(crate) failed: Option<DeadLetter>,
}

/// Reads what there is, forgets what is to be discarded, and hands the rest to the handler, in order. What waits in a
/// parked key is asked for as a whole, so that a part of it from the front is all that can come.
pub(crate) async fn see_to(order: Order) -> Result<Report, StoreError> {
    let Order { store, group, partition, limit, digest, mut handler, refused, now } = order;
    let letters = store.letters_requested(&group, partition, limit).await?;
    let found = letters.len() as u32;
    let (discarded, replayed): (Vec<_>, Vec<_>) =
        letters.into_iter().partition(|letter| letter.request == Some(LetterRequest::Discard));
    let (tried, events) = front_of(replayed);
    let mut report = Report {
        told: Replayed { found, called: events.len() as u32, settled: 0, gone: 0, outcome: Outcome::Done },
        handler: None,
        invocation: None,
        effects: Effects::default(),
        settled: Vec::new(),
        released: Vec::new(),
        handled: Vec::new(),
        failed: None,
    };
    discarded.into_iter().for_each(|letter| report.gone(letter));
    let Some(first) = tried.first() else {
        report.handler = Some(handler);
        return Ok(report.counted());
    };

    let refused = refused.filter(|(offset, _)| *offset == first.event.offset);
    let invocation = match refused {
        Some((_, reason)) => {
            let outcome = Outcome::Transient(reason);
            Invocation { handled: 0, outcome, located: true, checkpoint: false, effects: Effects::default() }
        }
        None => {
            let invocation = handler.call(&events, first.failure.attempts.saturating_add(1), false).await;
            report.invocation = Some(invocation.clone());
            invocation
        }
    };
    let Invocation { handled, outcome, located, effects, .. } = invocation;
    report.effects = effects;
    report.handler = (located || outcome == Outcome::Done).then_some(handler);
    let is_failure = outcome.is_failure() && (located || events.len() == 1);
    for (index, letter) in tried.into_iter().enumerate() {
        if index < handled {
            report.handled.push((letter.event.offset, letter.event.id.clone()));
            report.gone(letter);
        } else if index == handled && is_failure {
            let failure = Failure::after(Some(&letter.failure), &outcome, now());
            let (offset, digest) = (letter.event.offset, Some(digest.clone()));
            report.settled.push(Settled::Back { offset, failure: failure.clone(), digest });
            report.failed = Some(DeadLetter { failure, ..letter });
        }
    }
    report.told.outcome = outcome;
    Ok(report.counted())
}

/// As many as one call can take: it is told the attempts of the first one, and the others have to be new.
fn front_of(mut letters: Vec<DeadLetter>) -> (Vec<DeadLetter>, Vec<Event>) {
    let tried_before = letters.iter().skip(1).position(|letter| letter.failure.attempts > 0);
    letters.truncate(tried_before.map_or(letters.len(), |at| at + 1));
    let events = letters.iter().map(|letter| letter.event.clone()).collect();
    (letters, events)
}

impl Report {
    fn gone(&mut self, letter: DeadLetter) {
        self.settled.push(Settled::Gone(letter.event.offset));
        self.released.extend(letter.event.key.filter(|_| letter.parks));
    }

    fn counted(mut self) -> Self {
        self.settled.sort_by_key(Settled::offset);
        self.told.settled = self.settled.len() as u32;
        self.told.gone = self.settled.iter().filter(|settled| matches!(settled, Settled::Gone(_))).count() as u32;
        self
    }
}
