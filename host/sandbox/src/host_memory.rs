//! The memory that all guests of a host share, and who gets it when there is not enough for all.
//!
//! For one that is refused, instances that rest make way at once. Those that are at work make way when they have had their
//! turn, which is later, so the one that was refused has a claim until it comes again: an instance that is made in the
//! meantime leaves as much free as is claimed. Without that, whoever made way would be back before the other.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{
    resting::{Places, Resting},
    ticker::Clock,
};

/// How long memory is kept free for one that was refused: longer than it waits before it comes again, which is up to 2 s,
/// and than the turn of whoever is to make way.
const CLAIM_MS: u64 = 5000;

/// How long nothing is kept free after that for one that did not get what it claims. What others have may never come
/// free, as under manual commits, and they are not to stand still for it.
const PAUSE_MS: u64 = CLAIM_MS;

pub(crate) struct HostMemory {
    bytes_max: u64,
    bytes: AtomicU64,
    clock: Clock,
    /// How many claims there are: mostly none, and then there is nothing to look at.
    claiming: AtomicUsize,
    /// How many there ever were.
    claims_made: AtomicU64,
    /// In the order in which they were made.
    claims: Mutex<VecDeque<Claim>>,
    tenants: AtomicU64,
    places: Places,
}

struct Claim {
    number: u64,
    tenant: u64,
    /// What the instance is to have in all.
    bytes: u64,
    /// What it has.
    has: u64,
    made_ms: u64,
}

impl Claim {
    /// What others have to leave free.
    fn kept_bytes(&self, now_ms: u64) -> u64 {
        if now_ms.saturating_sub(self.made_ms) < CLAIM_MS { self.bytes.saturating_sub(self.has) } else { 0 }
    }
}

impl HostMemory {
    pub(crate) fn new(bytes_max: u64, clock: Clock) -> Self {
        Self {
            bytes_max,
            bytes: AtomicU64::new(0),
            clock,
            claiming: AtomicUsize::new(0),
            claims_made: AtomicU64::new(0),
            claims: Mutex::default(),
            tenants: AtomicU64::new(0),
            places: Places::default(),
        }
    }

    /// Takes so many bytes and leaves `kept` free, or takes none.
    fn take(&self, bytes: u64, kept: u64) -> bool {
        let most = self.bytes_max.saturating_sub(kept);
        let fits = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= most);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Looks at the claims, without those that have had their time.
    fn with_claims<T>(&self, look: impl FnOnce(&mut VecDeque<Claim>, u64) -> T) -> T {
        let now_ms = self.clock.now_ms();
        let mut claims: MutexGuard<'_, _> = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|claim| now_ms.saturating_sub(claim.made_ms) < CLAIM_MS + PAUSE_MS);
        let seen = look(&mut claims, now_ms);
        self.claiming.store(claims.len(), Ordering::Relaxed);
        seen
    }

    fn is_claimed(&self) -> bool {
        self.claiming.load(Ordering::Relaxed) > 0
    }
}

/// The instances of one worker, of which there is one at a time.
pub(crate) struct Tenant {
    id: u64,
    host: Arc<HostMemory>,
}

impl Tenant {
    pub(crate) fn new(host: &Arc<HostMemory>) -> Self {
        Self { id: host.tenants.fetch_add(1, Ordering::Relaxed), host: Arc::clone(host) }
    }

    /// How much there is for all, in bytes.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.host.bytes_max
    }

    /// A place where its instance rests.
    pub(crate) fn add_resting(&self, place: Weak<dyn Resting>) {
        self.host.places.add(place);
    }

    /// To be kept with an instance that is made now: it stands behind the claims that there are.
    pub(crate) fn now(&self) -> u64 {
        self.host.claims_made.load(Ordering::Relaxed)
    }

    /// Takes `more` bytes, all or none, for an instance that was made at `born` and has so many.
    pub(crate) fn take(&self, born: u64, has: u64, more: u64) -> bool {
        if !self.host.is_claimed() {
            return self.host.take(more, 0);
        }
        self.host.with_claims(|claims, now_ms| {
            let older = claims.iter().take_while(|claim| claim.number <= born && claim.tenant != self.id);
            let kept = older.fold(0_u64, |kept, claim| kept.saturating_add(claim.kept_bytes(now_ms)));
            let taken = self.host.take(more, kept);
            if taken {
                self.note(claims, has.saturating_add(more));
                claims.retain(|claim| claim.tenant != self.id || claim.has < claim.bytes);
            }
            taken
        })
    }

    /// The same, and instances that rest make way for it.
    pub(crate) fn take_from_resting(&self, born: u64, has: u64, more: u64) -> bool {
        self.host.places.give_up_until(|| self.take(born, has, more))
    }

    /// It was refused, and is to have so many bytes in all when it comes again. One that claims already keeps its place,
    /// and does not get more time.
    pub(crate) fn claim(&self, bytes: u64) {
        self.host.with_claims(|claims, made_ms| match claims.iter_mut().find(|claim| claim.tenant == self.id) {
            Some(claim) => claim.bytes = claim.bytes.max(bytes),
            None => {
                let number = self.host.claims_made.fetch_add(1, Ordering::Relaxed) + 1;
                claims.push_back(Claim { number, tenant: self.id, bytes, has: 0, made_ms });
            }
        });
    }

    /// Its instance gives so many bytes back, and has so many left.
    pub(crate) fn give_back(&self, bytes: u64, has: u64) {
        self.host.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.host.is_claimed() {
            self.host.with_claims(|claims, _| self.note(claims, has));
        }
    }

    /// Whether anybody claims anything: one load, for every call.
    pub(crate) fn is_claimed(&self) -> bool {
        self.host.is_claimed()
    }

    /// Whether others claim more than is free.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_claimed()
            && self.host.with_claims(|claims, now_ms| {
                let others = claims.iter().filter(|claim| claim.tenant != self.id);
                let kept = others.fold(0_u64, |kept, claim| kept.saturating_add(claim.kept_bytes(now_ms)));
                kept > self.host.bytes_max.saturating_sub(self.host.bytes.load(Ordering::Relaxed))
            })
    }

    fn note(&self, claims: &mut VecDeque<Claim>, has: u64) {
        if let Some(claim) = claims.iter_mut().find(|claim| claim.tenant == self.id) {
            claim.has = has;
        }
    }
}

impl Drop for Tenant {
    /// Nobody comes again.
    fn drop(&mut self) {
        if self.host.is_claimed() {
            self.host.with_claims(|claims, _| claims.retain(|claim| claim.tenant != self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with 100 bytes, and its clock.
    fn host() -> (Arc<HostMemory>, Clock) {
        let clock = Clock::default();
        (Arc::new(HostMemory::new(100, clock.clone())), clock)
    }

    #[test]
    fn who_was_refused_comes_before_whoever_made_way_for_it() {
        let (host, _clock) = host();
        let (busy, waits) = (Tenant::new(&host), Tenant::new(&host));
        let born = busy.now();
        assert!(busy.take(born, 0, 80));
        assert!(!waits.take(waits.now(), 0, 60) && !busy.is_wanted());
        waits.claim(60);
        assert!(busy.is_wanted() && !waits.is_wanted());
        assert!(busy.take(born, 80, 10), "it has its turn still");
        busy.give_back(90, 0);
        assert!(!busy.is_wanted(), "there is enough now");
        assert!(busy.take(busy.now(), 0, 40) && !busy.take(busy.now(), 40, 1), "the rest is claimed");
        assert!(waits.take(waits.now(), 0, 20) && !busy.take(busy.now(), 40, 1));
        assert!(waits.take(waits.now(), 20, 40));
        waits.give_back(60, 0);
        assert!(busy.take(busy.now(), 40, 60), "the claim was served, and is no more");
    }

    #[test]
    fn claims_are_served_in_the_order_in_which_they_were_made() {
        let (host, _clock) = host();
        let (busy, second, third) = (Tenant::new(&host), Tenant::new(&host), Tenant::new(&host));
        assert!(busy.take(0, 0, 90));
        second.claim(60);
        third.claim(60);
        busy.give_back(90, 0);
        assert!(!third.take(third.now(), 0, 60), "out of turn");
        assert!(second.take(second.now(), 0, 60));
        assert!(second.is_wanted());
        second.give_back(60, 0);
        assert!(third.take(third.now(), 0, 60));
        assert!(!second.is_wanted());
    }

    #[test]
    fn what_a_broken_instance_gave_back_is_claimed_again() {
        let (host, _clock) = host();
        let (one, other) = (Tenant::new(&host), Tenant::new(&host));
        one.claim(60);
        assert!(one.take(one.now(), 0, 50));
        one.give_back(50, 0);
        assert!(!other.take(other.now(), 0, 50));
        assert!(other.take(other.now(), 0, 40));
    }

    #[test]
    fn a_claim_that_cannot_be_served_ends_and_is_not_made_again_at_once() {
        let (host, clock) = host();
        let (owes, waits, other) = (Tenant::new(&host), Tenant::new(&host), Tenant::new(&host));
        assert!(owes.take(0, 0, 60));
        waits.claim(60);
        assert!(!other.take(other.now(), 0, 30));
        clock.set(CLAIM_MS);
        waits.claim(60);
        assert!(!owes.is_wanted() && other.take(other.now(), 0, 30));
        clock.set(CLAIM_MS + PAUSE_MS);
        waits.claim(60);
        assert!(owes.is_wanted());
    }

    #[test]
    fn who_is_gone_claims_nothing() {
        let (host, _clock) = host();
        let (waits, other) = (Tenant::new(&host), Tenant::new(&host));
        waits.claim(60);
        drop(waits);
        assert!(!host.is_claimed() && other.take(other.now(), 0, 100));
    }

    #[test]
    fn only_as_many_make_way_as_are_needed_and_not_always_the_same_ones() {
        struct Place(Tenant, AtomicU64);
        impl Resting for Place {
            fn give_up(&self) -> bool {
                let had = self.1.swap(0, Ordering::Relaxed);
                self.0.give_back(had, 0);
                had > 0
            }
        }
        let (host, _clock) = host();
        let places: Vec<Arc<Place>> = (0..3).map(|_| Arc::new(Place(Tenant::new(&host), AtomicU64::new(30)))).collect();
        for place in &places {
            assert!(place.0.take(0, 0, 30));
            let rests: Arc<dyn Resting> = Arc::clone(place) as Arc<dyn Resting>;
            place.0.add_resting(Arc::downgrade(&rests));
        }
        let have = || places.iter().map(|place| place.1.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let needs = Tenant::new(&host);
        assert!(needs.take_from_resting(needs.now(), 0, 40));
        assert_eq!(have(), [0, 30, 30]);
        assert!(needs.take_from_resting(needs.now(), 40, 30));
        assert_eq!(have(), [0, 0, 30]);
        assert!(!needs.take_from_resting(needs.now(), 70, 31));
        assert_eq!(have(), [0, 0, 0]);
    }
}
