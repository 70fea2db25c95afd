//! A batch on its way to the handler: which of its events the handler sees, and what is left when it is done.

use std::collections::VecDeque;

use pelton_core::{Event, Offset};

/// What is to become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The handler is called with it.
    Call,
    /// It is passed over: the group does not want it, or handled it before.
    Pass,
    /// It is set aside behind its parked key.
    Park,
}

/// Some events in order, sorted by what becomes of them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Those for the handler.
    called: VecDeque<Event>,
    /// The others, and how many called ones come before each.
    others: VecDeque<(usize, Event, Way)>,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(crate) struct Dealt {
    /// Events that are done with, in order: handled, or set aside (true) behind their keys.
    pub(crate) done: Vec<(Event, Way)>,
    /// Those that are not, in order.
    pub(crate) rest: VecDeque<Event>,
}

impl Batch {
    /// A batch of which the handler sees everything.
    pub(crate) fn of_all(called: VecDeque<Event>) -> Self {
        Self { called, others: VecDeque::new() }
    }

    /// Sorts events until one is met that would be one call, or one that is set aside, too many. That one and those after it
    /// are given back.
    pub(crate) fn sort(
        mut events: VecDeque<Event>,
        calls_max: u32,
        room: u64,
        way: impl Fn(&Event) -> Way,
    ) -> (Self, VecDeque<Event>) {
        let mut batch = Self::default();
        let mut parked = 0;
        while let Some(event) = events.front() {
            let way = way(event);
            let is_one_too_many = match way {
                Way::Call => batch.called.len() as u64 >= u64::from(calls_max),
                Way::Park => parked >= room,
                Way::Pass => false,
            };
            if is_one_too_many {
                break;
            }
            let Some(event) = events.pop_front() else { break };
            match way {
                Way::Call => batch.called.push_back(event),
                other => {
                    parked += u64::from(other == Way::Park);
                    batch.others.push_back((batch.called.len(), event, other));
                }
            }
        }
        (batch, events)
    }

    /// Those for the handler, in order.
    pub(crate) fn called(&mut self) -> &[Event] {
        self.called.make_contiguous()
    }

    /// Whether it begins with one for the handler.
    pub(crate) fn begins_with_call(&self) -> bool {
        !self.called.is_empty() && self.others.front().is_none_or(|(before, ..)| *before > 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.called.is_empty() && self.others.is_empty()
    }

    pub(crate) fn first(&self) -> Option<&Event> {
        if self.begins_with_call() { self.called.front() } else { self.others.front().map(|(_, event, _)| event) }
    }

    /// The handler has handled the first of those it was given: what is done with, up to the first it has not.
    pub(crate) fn deal(self, handled: usize) -> Dealt {
        let mut dealt = Dealt::default();
        let mut others = self.others.into_iter().peekable();
        for (index, event) in self.called.into_iter().enumerate() {
            while let Some((_, other, way)) = others.next_if(|(before, ..)| *before <= index) {
                if index <= handled { dealt.done.push((other, way)) } else { dealt.rest.push_back(other) }
            }
            if index < handled { dealt.done.push((event, Way::Call)) } else { dealt.rest.push_back(event) }
        }
        for (before, other, way) in others {
            if before <= handled { dealt.done.push((other, way)) } else { dealt.rest.push_back(other) }
        }
        dealt
    }
}

impl Dealt {
    /// The offset of the first event that is not done with, or the one after the last.
    pub(crate) fn next(&self) -> Option<Offset> {
        let rest = self.rest.front().map(|event| event.offset);
        rest.or_else(|| self.done.last().map(|(event, _)| event.offset.next()))
    }
}

#[cfg(test)]
mod tests {
    use pelton_core::Timestamp;

    use super::*;

    /// Events whose ids say what is to become of them.
    fn events(ids: &str) -> VecDeque<Event> {
        let event = |(offset, id): (usize, char)| Event {
            offset: Offset(offset as u64),
            id: id.to_string(),
            key: None,
            kind: String::new(),
            time: Timestamp(0),
            headers: Vec::new(),
            payload: Vec::new(),
        };
        ids.chars().enumerate().map(event).collect()
    }

    fn way(event: &Event) -> Way {
        match event.id.as_str() {
            "c" => Way::Call,
            "p" => Way::Park,
            _ => Way::Pass,
        }
    }

    fn sorted(ids: &str, calls_max: u32, room: u64) -> (Batch, String) {
        let (batch, rest) = Batch::sort(events(ids), calls_max, room, way);
        (batch, rest.into_iter().map(|event| event.id).collect())
    }

    fn dealt(ids: &str, handled: usize) -> (String, String, u64) {
        let (batch, _) = sorted(ids, u32::MAX, u64::MAX);
        let dealt = batch.deal(handled);
        let next = dealt.next().expect("there were events").0;
        let done = dealt.done.into_iter().map(|(event, _)| event.id).collect();
        (done, dealt.rest.into_iter().map(|event| event.id).collect(), next)
    }

    #[test]
    fn what_needs_no_call_is_done_up_to_the_first_event_that_the_handler_did_not_handle() {
        assert_eq!(dealt(".c.pc.c.", 3), (".c.pc.c.".into(), String::new(), 8));
        assert_eq!(dealt(".c.pc.c.", 1), (".c.p".into(), "c.c.".into(), 4));
        assert_eq!(dealt(".c.pc.c.", 0), (".".into(), "c.pc.c.".into(), 1));
        assert_eq!(dealt("ccc", 2), ("cc".into(), "c".into(), 2));
        assert_eq!(dealt("..p", 0), ("..p".into(), String::new(), 3));
    }

    #[test]
    fn sorting_ends_before_one_call_or_one_parked_event_too_many() {
        assert_eq!(sorted(".c..c.", 1, 9).1, "c.");
        assert_eq!(sorted("p.cp.c", 9, 1).1, "p.c");
        assert!(sorted("pc", 9, 0).0.is_empty());
    }

    #[test]
    fn the_first_event_is_told_whatever_becomes_of_it() {
        assert_eq!(sorted(".c", 9, 9).0.first().map(|event| event.id.as_str()), Some("."));
        assert!(sorted("c.", 9, 9).0.begins_with_call() && !sorted(".c", 9, 9).0.begins_with_call());
    }
}
