//! The effects of the events in hand while a call runs: the journal, and what is needed to bound and name what goes in.

use pelton_core::{Effects, Emit, Journal, NewEvent, Offset};

use crate::stop::Stop;

/// What an emitted event or a state write costs the host besides its bytes. Without it, empty ones would be free and
/// without end.
const EFFECT_BYTES: u64 = 128;

/// One batch's effects, and where in the batch the handler is.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    journal: Journal,
    /// The offsets of the events of this call; empty outside of one.
    offsets: Vec<Offset>,
    /// How many of them the handler said are handled, if it said so at all.
    told: Option<usize>,
    /// Emits under the present base, see [`Self::base`].
    emits: u64,
    output_bytes: u64,
    /// Output of the calls of this batch that were kept.
    kept_bytes: u64,
    /// Whether the handler said in this call that all so far may be committed.
    checkpoint: bool,
}

impl Ledger {
    /// A call begins with these events in hand. What earlier calls of the batch left stays readable.
    pub(crate) fn begin(&mut self, offsets: impl Iterator<Item = Offset>) {
        self.offsets.clear();
        self.offsets.extend(offsets);
        self.told = None;
        self.emits = 0;
        self.output_bytes = 0;
        self.checkpoint = false;
    }

    /// All so far may be committed, if this call ends well.
    pub(crate) fn checkpoint(&mut self) {
        self.checkpoint = true;
    }

    /// Whether the call that ended well said so.
    pub(crate) fn is_checkpoint(&self) -> bool {
        self.checkpoint
    }

    /// The call returned ok: what it asked for stays.
    pub(crate) fn keep(&mut self) {
        self.journal.keep();
        self.told = Some(self.offsets.len());
        self.kept_bytes += self.output_bytes;
    }

    /// What the calls of this batch put out and the host now holds, in bytes.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// The call failed: what was not told as handled never was.
    pub(crate) fn discard(&mut self) {
        self.journal.discard();
    }

    /// Effects of what was handled.
    pub(crate) fn into_kept(self) -> Effects {
        self.journal.into_kept()
    }

    /// Whether events are in hand. None are while an instance starts.
    pub(crate) fn is_open(&self) -> bool {
        !self.offsets.is_empty()
    }

    /// How many events were told as handled; `None` if nothing was told.
    pub(crate) fn told(&self) -> Option<usize> {
        self.told
    }

    /// The first `count` events are handled. More than there are is all of them; fewer than before is no news.
    pub(crate) fn handled(&mut self, count: usize) {
        let count = count.min(self.offsets.len());
        if count < self.told.unwrap_or(0) {
            return;
        }
        let before = self.base();
        self.told = Some(count);
        if count > 0 {
            self.journal.keep();
        }
        if self.base() != before {
            self.emits = 0;
        }
    }

    /// The event that emits are counted under: the first that is not yet handled, so that they get the same ids when
    /// what is left of the batch is handed out again. After the last, the last: the next one is another batch's.
    pub(crate) fn base(&self) -> Option<Offset> {
        let index = self.told.unwrap_or(0).min(self.offsets.len().checked_sub(1)?);
        self.offsets.get(index).copied()
    }

    /// The event in hand, if there is no doubt which one it is.
    pub(crate) fn in_hand(&self) -> Option<Offset> {
        if self.told.is_some() || self.offsets.len() == 1 { self.base() } else { None }
    }

    /// The number of the next emit under the present base.
    pub(crate) fn emits(&self) -> u64 {
        self.emits
    }

    /// Notes an emitted event.
    pub(crate) fn emit(&mut self, stream: std::sync::Arc<str>, event: NewEvent, limit: u64) -> Result<(), Stop> {
        self.count(event.bytes(), limit)?;
        self.emits += 1;
        self.journal.emit(Emit { stream, event });
        Ok(())
    }

    /// Notes a write.
    pub(crate) fn write(&mut self, key: String, value: Option<Vec<u8>>, limit: u64) -> Result<(), Stop> {
        self.count(key.len() + value.as_ref().map_or(0, Vec::len), limit)?;
        self.journal.write(key, value);
        Ok(())
    }

    /// What this batch has written to a key: `Some(None)` if it deleted it, `None` if it never touched it.
    pub(crate) fn written(&self, key: &str) -> Option<Option<&[u8]>> {
        self.journal.written(key)
    }

    fn count(&mut self, bytes: usize, limit: u64) -> Result<(), Stop> {
        self.output_bytes = self.output_bytes.saturating_add(bytes as u64).saturating_add(EFFECT_BYTES);
        if self.output_bytes > limit { Err(Stop::OutputTooLarge { found: self.output_bytes }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(offsets: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.begin(offsets.iter().copied().map(Offset));
        ledger
    }

    #[test]
    fn progress_neither_goes_back_nor_past_the_end() {
        let mut ledger = over(&[3, 5, 8]);
        ledger.handled(2);
        ledger.handled(1);
        assert_eq!((ledger.told(), ledger.base()), (Some(2), Some(Offset(8))));
        ledger.handled(99);
        assert_eq!(ledger.told(), Some(3));
    }

    #[test]
    fn emits_after_the_last_event_are_counted_on_under_the_last() {
        let mut ledger = over(&[3, 5]);
        ledger.handled(1);
        ledger.emit("out".into(), NewEvent::default(), 1000).expect("within the limit");
        ledger.handled(2);
        assert_eq!((ledger.base(), ledger.emits()), (Some(Offset(5)), 1));
    }

    #[test]
    fn empty_effects_are_not_free() {
        let mut ledger = over(&[0]);
        let emitted = (0..100).take_while(|_| ledger.emit("out".into(), NewEvent::default(), 1000).is_ok()).count();
        assert_eq!(emitted, 7);
    }
}
