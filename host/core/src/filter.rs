//! Which events a group wants to see.

use std::collections::BTreeMap;

use crate::Event;

/// What an event must have to be handed to a group's handler. Others are passed over without a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these kinds; any, if there are none.
    pub kinds: Vec<String>,
    /// For each of these header names a header with one of the values. Names and values are compared to the letter.
    pub headers: BTreeMap<String, Vec<String>>,
}

impl Filter {
    /// Whether every event passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.headers.is_empty()
    }

    /// Whether the group wants to see this event.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let of_kind = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        of_kind && self.headers.iter().all(|(name, values)| has_header(event, name, values))
    }
}

fn has_header(event: &Event, name: &str, values: &[String]) -> bool {
    event.headers.iter().any(|(found, value)| found == name && values.contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Offset, Timestamp};

    fn event(kind: &str, headers: &[(&str, &str)]) -> Event {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (offset, time) = (Offset(0), Timestamp(0));
        Event { offset, id: "1".into(), key: None, kind: kind.into(), time, headers, payload: Vec::new() }
    }

    #[test]
    fn every_named_header_must_have_one_of_its_values_and_the_kind_must_be_listed() {
        let headers = BTreeMap::from([("tier".into(), vec!["gold".into(), "silver".into()])]);
        let filter = Filter { kinds: vec!["placed".into()], headers };
        assert!(filter.wants(&event("placed", &[("tier", "bronze"), ("tier", "gold")])));
        assert!(!filter.wants(&event("placed", &[("tier", "bronze")])));
        assert!(!filter.wants(&event("placed", &[])));
        assert!(!filter.wants(&event("shipped", &[("tier", "gold")])));
    }

    #[test]
    fn without_a_filter_everything_is_wanted() {
        assert!(Filter::default().wants(&event("", &[])));
    }
}
