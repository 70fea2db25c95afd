//! Where instances rest between two calls, for whoever needs their room.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// A place that may hold an instance between two calls.
pub(crate) trait Resting: Send + Sync {
    /// Drops the instance, if one rests here and nothing is lost with it. Says whether it did.
    fn give_up(&self) -> bool;
}

/// Places to look for instances that nobody needs at the moment.
#[derive(Default)]
pub(crate) struct Places(Mutex<VecDeque<Weak<dyn Resting>>>);

impl Places {
    pub(crate) fn add(&self, place: Weak<dyn Resting>) {
        let mut places = self.places();
        places.retain(|place| place.strong_count() > 0);
        places.push_back(place);
    }

    /// Has instances go, one after the other, until there is enough; says whether that came to be. Those looked at go to
    /// the end, so that it is not always the same ones.
    pub(crate) fn give_up_until(&self, mut enough: impl FnMut() -> bool) -> bool {
        let count = self.places().len();
        for _ in 0..count {
            // Without the lock from here on: an instance that goes takes a while.
            let Some(place) = self.next() else { continue };
            if place.give_up() && enough() {
                return true;
            }
        }
        false
    }

    /// Has so many instances go, if there are as many; says whether any went. Looks at them as [`Self::give_up_until`].
    pub(crate) fn give_up(&self, count: usize) -> bool {
        let mut gone = 0;
        self.give_up_until(|| {
            gone += 1;
            gone >= count
        });
        gone > 0
    }

    fn next(&self) -> Option<Arc<dyn Resting>> {
        let mut places = self.places();
        let place = places.pop_front()?;
        let strong = place.upgrade()?;
        places.push_back(place);
        Some(strong)
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<Weak<dyn Resting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
