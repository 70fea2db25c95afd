//! What a handler asks for besides returning: events to emit and state to write. Effects are data until they commit.

use std::{collections::BTreeMap, mem, sync::Arc};

use crate::NewEvent;

/// An event that a handler wants appended to a stream, in the transaction of its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Where to.
    pub stream: Arc<str>,
    /// What; its id is final, namespaced by the group.
    pub event: NewEvent,
}

/// The effects of some events that were handled, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Events to append, in the order they were emitted.
    pub emits: Vec<Emit>,
    /// The last value written to each key; `None` deletes.
    pub state: BTreeMap<String, Option<Vec<u8>>>,
}

impl Effects {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.emits.is_empty() && self.state.is_empty()
    }

    /// Bytes of emitted events and state: what limits on memory count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let emits: usize = self.emits.iter().map(|emit| emit.event.bytes()).sum();
        let state = self.state.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        emits + state.sum::<usize>()
    }

    /// Adds the effects of later events: emits follow, writes replace.
    pub fn extend(&mut self, later: Self) {
        self.emits.extend(later.emits);
        self.state.extend(later.state);
    }
}

/// The effects of one call while it runs. What is *pending* belongs to an event that may still fail; what is *kept*
/// belongs to events that did not.
#[derive(Debug, Default)]
pub struct Journal {
    kept: Effects,
    pending: Effects,
}

impl Journal {
    /// Notes an emitted event.
    pub fn emit(&mut self, emit: Emit) {
        self.pending.emits.push(emit);
    }

    /// Notes a write; `None` deletes.
    pub fn write(&mut self, key: String, value: Option<Vec<u8>>) {
        self.pending.state.insert(key, value);
    }

    /// What this call has written to a key so far: `Some(None)` if it deleted it, `None` if it never touched it.
    #[must_use]
    pub fn written(&self, key: &str) -> Option<Option<&[u8]>> {
        let value = self.pending.state.get(key).or_else(|| self.kept.state.get(key))?;
        Some(value.as_deref())
    }

    /// The event in hand was handled: its effects stay.
    pub fn keep(&mut self) {
        // Most events of most handlers have none, and this is done for each.
        if self.pending.is_empty() {
            return;
        }
        self.kept.extend(mem::take(&mut self.pending));
    }

    /// The event in hand failed: its effects never were.
    pub fn discard(&mut self) {
        self.pending = Effects::default();
    }

    /// The effects of the events that were handled. What is pending is lost.
    #[must_use]
    pub fn into_kept(self) -> Effects {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit(id: &str) -> Emit {
        Emit { stream: "out".into(), event: NewEvent { id: id.into(), ..NewEvent::default() } }
    }

    #[test]
    fn a_failed_event_takes_its_effects_along_and_leaves_those_before_it() {
        let mut journal = Journal::default();
        journal.emit(emit("1"));
        journal.write("k".into(), Some(b"one".to_vec()));
        journal.keep();
        journal.emit(emit("2"));
        journal.write("k".into(), None);
        assert_eq!(journal.written("k"), Some(None));
        journal.discard();
        assert_eq!(journal.written("k"), Some(Some(&b"one"[..])));
        let kept = journal.into_kept();
        assert_eq!(kept.emits, vec![emit("1")]);
        assert_eq!(kept.state["k"].as_deref(), Some(&b"one"[..]));
    }
}
