//! What came of a run as a whole.

use std::{collections::BTreeMap, time::Duration};

use super::Step;
use crate::bench::Tried;

/// Counts over all events that were told of.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) compared: u64,
    /// Events at which the versions differ in anything.
    pub(crate) differing: u64,
    pub(crate) emitted: u64,
    pub(crate) state: u64,
    pub(crate) outcome: u64,
    /// Events that the old version handled and the new one did not.
    pub(crate) new_errors: u64,
    pub(crate) old: Side,
    pub(crate) new: Side,
}

/// What one version made of the events.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) errors: u64,
    calls: u64,
    took: Duration,
    /// How many calls took about so many nanoseconds: to three digits, so that there are never many of them.
    spread: BTreeMap<u64, u64>,
}

impl Totals {
    /// Counts what came of one event.
    pub(crate) fn count(&mut self, step: &Step) {
        let differs = step.differs;
        self.compared += 1;
        self.differing += u64::from(differs.any());
        self.emitted += u64::from(differs.emitted);
        self.state += u64::from(differs.state);
        self.outcome += u64::from(differs.outcome);
        self.new_errors += u64::from(step.is_new_error());
        if let Some(old) = &step.old {
            self.old.count(old);
        }
        self.new.count(&step.new);
    }
}

impl Side {
    fn count(&mut self, tried: &Tried) {
        self.errors += u64::from(!tried.is_done());
        self.calls += 1;
        self.took += tried.took;
        *self.spread.entry(to_three_digits(tried.took.as_nanos() as u64)).or_default() += 1;
    }

    /// The mean time of a call, in microseconds.
    pub(crate) fn mean_micros(&self) -> f64 {
        self.took.as_secs_f64() * 1e6 / self.calls.max(1) as f64
    }

    /// The time that half of the calls did not take longer than, in microseconds.
    pub(crate) fn median_micros(&self) -> f64 {
        let mut passed = 0;
        let median = self.spread.iter().find(|(_, calls)| {
            passed += **calls;
            passed * 2 >= self.calls
        });
        median.map_or(0.0, |(nanos, _)| *nanos as f64 / 1e3)
    }
}

fn to_three_digits(nanos: u64) -> u64 {
    let digits = nanos.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(2));
    nanos / unit * unit
}

#[cfg(test)]
mod tests {
    use pelton_core::{Event, Offset, Outcome, Timestamp};

    use super::*;

    #[test]
    fn mean_and_median_tell_a_slow_one_from_many() {
        let mut side = Side::default();
        let (time, headers, payload) = (Timestamp(0), Vec::new(), Vec::new());
        let event = Event { offset: Offset(0), id: "e".into(), key: None, kind: "k".into(), time, headers, payload };
        assert_eq!((side.mean_micros(), side.median_micros()), (0.0, 0.0));
        for micros in [10, 10, 10, 10, 960] {
            let took = Duration::from_micros(micros);
            side.count(&Tried::new(&event, Outcome::Done, Vec::new(), took));
        }
        assert_eq!((side.mean_micros(), side.median_micros(), side.errors), (200.0, 10.0, 0));
    }

    #[test]
    fn times_are_kept_to_three_digits() {
        assert_eq!([0, 9, 999, 1_234, 5_678_901].map(to_three_digits), [0, 9, 999, 1_230, 5_670_000]);
    }
}
