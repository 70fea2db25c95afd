//! Which versions answer, and which handled what.

use std::sync::Arc;

use pelton_core::{Commit, Rollout, Timestamp};

use super::{Data, Seat};
use crate::{HandledRange, store::RANGES_MAX};

impl Data {
    pub(super) fn save_rollout(&mut self, rollout: &Rollout, module: Option<Arc<[u8]>>) -> bool {
        let stored = self.rollouts.get(&rollout.handler).map_or(0, |rollout| rollout.revision);
        if stored + 1 != rollout.revision {
            return false;
        }
        self.rollouts.insert(rollout.handler.clone(), rollout.clone());
        if let (Some(module), Some(newest)) = (module, rollout.versions.last()) {
            self.modules.insert(newest.digest.clone(), module);
        }
        let Self { rollouts, modules, .. } = self;
        modules.retain(|digest, _| rollouts.values().any(|rollout| rollout.kept().any(|kept| kept == digest)));
        true
    }

    pub(super) fn ranges(&self, handler: &str, limit: u32) -> Vec<HandledRange> {
        let seats = self.groups.values().flat_map(|group| &group.seats);
        let mut ranges: Vec<&HandledRange> =
            seats.flat_map(|seat| &seat.ranges).filter(|range| range.handler == handler).collect();
        if ranges.len() > limit as usize {
            // Of one moment too, those that come later took over later.
            let mut order: Vec<usize> = (0..ranges.len()).collect();
            order.sort_by_key(|&index| std::cmp::Reverse((ranges[index].since, index)));
            order.truncate(limit as usize);
            order.sort_unstable();
            ranges = order.into_iter().map(|index| ranges[index]).collect();
        }
        ranges.into_iter().cloned().collect()
    }
}

impl Seat {
    pub(super) fn handled_by(&self) -> Option<String> {
        self.ranges.back().filter(|range| range.until.is_none()).map(|range| range.digest.clone())
    }

    pub(super) fn store_ranges(&mut self, commit: &Commit, handler: &str, now: Timestamp) {
        for (from, digest) in &commit.handled_by {
            if let Some(open) = self.ranges.back_mut().filter(|range| range.until.is_none()) {
                open.until = Some(*from);
            }
            self.ranges.push_back(HandledRange {
                group: commit.lease.group.to_string(),
                partition: commit.lease.partition,
                from: *from,
                until: None,
                handler: handler.into(),
                digest: digest.clone(),
                host: commit.lease.host.to_string(),
                since: now,
            });
        }
        let many = self.ranges.len().saturating_sub(RANGES_MAX);
        self.ranges.drain(..many);
    }

    /// The position is about to be moved by hand.
    pub(super) fn end_range(&mut self) {
        let committed = self.committed;
        if let Some(open) = self.ranges.back_mut().filter(|range| range.until.is_none()) {
            open.until = Some(committed);
        }
    }
}
