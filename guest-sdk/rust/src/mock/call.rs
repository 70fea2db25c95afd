//! The call that is under way in this thread. Its host is lent to the thread for as long, since the functions of this
//! crate are not given one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::string::String;
use std::thread_local;
use std::vec::Vec;

use super::Host;
use crate::NewEvent;

thread_local! {
    static CURRENT: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// A host, and what was asked of it since the call began or told that events are handled.
#[derive(Default)]
pub(super) struct Call {
    pub(super) host: Host,
    emitted: Vec<(String, NewEvent)>,
    /// `None` where a key was deleted.
    written: BTreeMap<String, Option<Vec<u8>>>,
    checkpoint: bool,
    /// How many events are in hand.
    events: usize,
}

/// Does something with the call that is under way. `None` if there is none.
pub(super) fn current<T>(with: impl FnOnce(&mut Call) -> T) -> Option<T> {
    CURRENT.with_borrow_mut(|current| current.as_mut().map(with))
}

/// Lends the host to this thread until the guard is gone, however the call ends.
pub(super) fn begin(host: &mut Host, events: usize) -> Guard<'_> {
    assert!(current(|_| ()).is_none(), "a mock host is called inside of another one's call");
    let mut call = Call { host: mem::take(host), events, ..Call::default() };
    (call.host.checkpoint, call.host.handled) = (false, 0);
    CURRENT.set(Some(call));
    Guard(host)
}

pub(super) struct Guard<'a>(&'a mut Host);

impl Guard<'_> {
    /// Without this, what the call asked for is thrown away.
    pub(super) fn succeeded(self) {
        current(|call| {
            call.keep();
            call.host.checkpoint = call.checkpoint;
        });
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(call) = CURRENT.take() {
            *self.0 = call.host;
        }
    }
}

impl Call {
    pub(super) fn emit(&mut self, stream: &str, event: NewEvent) {
        self.emitted.push((stream.into(), event));
    }

    pub(super) fn read(&self, key: &str) -> Option<Vec<u8>> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.host.state.get(key).cloned(),
        }
    }

    pub(super) fn write(&mut self, key: &str, value: Option<Vec<u8>>) {
        self.written.insert(key.into(), value);
    }

    pub(super) fn request_checkpoint(&mut self) {
        self.checkpoint = true;
    }

    /// The first `count` events are handled, and what comes before is kept, even if the call fails. More than there are is
    /// all of them; fewer than before is no news, and of none there is nothing to keep.
    pub(super) fn handled(&mut self, count: usize) {
        let count = count.min(self.events);
        if count < self.host.handled {
            return;
        }
        self.host.handled = count;
        if count > 0 {
            self.keep();
        }
    }

    fn keep(&mut self) {
        for (stream, event) in self.emitted.drain(..) {
            self.host.emitted.entry(stream).or_default().push(event);
        }
        for (key, value) in mem::take(&mut self.written) {
            match value {
                Some(value) => drop(self.host.state.insert(key, value)),
                None => drop(self.host.state.remove(&key)),
            }
        }
    }
}
