//! How many instances of a handler are alive at once. Those that wait for one get it in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::{resting::Places, usage::Usage};

/// Whoever wants an instance comes by here. A handler's versions may have different limits, so each brings its own.
#[derive(Default)]
pub(crate) struct Gate {
    queue: Mutex<Queue>,
    waiting: AtomicUsize,
    /// Where instances of the handler rest.
    pub(crate) places: Places,
}

#[derive(Default)]
struct Queue {
    alive: u64,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    limit: u64,
    admit: oneshot::Sender<Alive>,
}

/// One instance, counted as long as this lives.
pub(crate) struct Alive {
    usage: Arc<Usage>,
}

impl Gate {
    /// Whether somebody waits for an instance to go.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// Leave to make one more instance, as soon as fewer than `limit` are alive; 0 is no limit. An instance that rests makes
/// way. Whoever stops waiting loses the place in the queue and nothing else.
pub(crate) async fn admit(usage: &Arc<Usage>, limit: u32) -> Alive {
    let limit = if limit == 0 { u64::MAX } else { u64::from(limit) };
    let (admit, admitted) = oneshot::channel();
    {
        let mut queue = usage.gate.queue();
        queue.waiters.retain(|waiter| !waiter.admit.is_closed());
        if queue.alive < limit && (queue.waiters.is_empty() || limit == u64::MAX) {
            queue.alive += 1;
            drop(queue);
            return Alive::new(usage);
        }
        queue.waiters.push_back(Waiter { limit, admit });
    }
    usage.refused.fetch_add(1, Ordering::Relaxed);
    let _waiting = Waiting::new(&usage.gate.waiting);
    usage.gate.places.give_up_until(|| !admitted.is_empty());
    match admitted.await {
        Ok(alive) => alive,
        // The other end lies in the queue, which is there as long as the usage is.
        Err(_) => std::future::pending().await,
    }
}

impl Alive {
    fn new(usage: &Arc<Usage>) -> Self {
        usage.instances.fetch_add(1, Ordering::Relaxed);
        Self { usage: Arc::clone(usage) }
    }
}

impl Drop for Alive {
    /// The next in the queue takes the place. One who has stopped waiting hands it on: the one it was given is dropped,
    /// which comes by here again.
    fn drop(&mut self) {
        self.usage.instances.fetch_sub(1, Ordering::Relaxed);
        let mut queue = self.usage.gate.queue();
        queue.alive -= 1;
        loop {
            let alive = queue.alive;
            let Some(next) = queue.waiters.pop_front_if(|next| next.admit.is_closed() || alive < next.limit) else {
                return;
            };
            if next.admit.is_closed() {
                continue;
            }
            queue.alive += 1;
            drop(queue);
            // If it comes back it is dropped here, and the one after it is asked.
            let _ = next.admit.send(Self::new(&self.usage));
            return;
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::resting::Resting;

    fn alive(usage: &Usage) -> u64 {
        usage.instances.load(Ordering::Relaxed)
    }

    fn poll<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_came_first_is_let_in_first_and_nobody_overtakes() {
        let usage = Arc::<Usage>::default();
        let one = poll(&mut pin!(admit(&usage, 1))).expect("there is room");
        let (mut second, mut third) = (pin!(admit(&usage, 1)), pin!(admit(&usage, 1)));
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none() && usage.gate.is_wanted());
        drop(one);
        assert!(poll(&mut third).is_none(), "out of turn");
        let two = poll(&mut second).expect("its turn");
        assert_eq!(alive(&usage), 1);
        drop(two);
        let three = poll(&mut third).expect("its turn");
        assert!(!usage.gate.is_wanted());
        drop(three);
        assert_eq!(alive(&usage), 0);
    }

    #[test]
    fn one_who_stops_waiting_holds_nobody_up() {
        let usage = Arc::<Usage>::default();
        let one = poll(&mut pin!(admit(&usage, 1))).expect("there is room");
        let mut patient = pin!(admit(&usage, 1));
        {
            let mut let_in_but_gone = Box::pin(admit(&usage, 1));
            assert!(poll(&mut let_in_but_gone.as_mut()).is_none());
            assert!(poll(&mut patient).is_none());
            drop(one);
        }
        assert!(poll(&mut patient).is_some());
        assert_eq!(alive(&usage), 0);
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let usage = Arc::<Usage>::default();
        let _one = poll(&mut pin!(admit(&usage, 1))).expect("there is room");
        let mut waits = pin!(admit(&usage, 1));
        assert!(poll(&mut waits).is_none());
        assert!(poll(&mut pin!(admit(&usage, 0))).is_some());
    }

    #[test]
    fn an_instance_that_rests_makes_way() {
        struct Place(Mutex<Option<Alive>>);
        impl Resting for Place {
            fn give_up(&self) -> bool {
                self.0.lock().expect("no test panics with it").take().is_some()
            }
        }
        let usage = Arc::<Usage>::default();
        let one = poll(&mut pin!(admit(&usage, 1))).expect("there is room");
        let place: Arc<dyn Resting> = Arc::new(Place(Mutex::new(Some(one))));
        usage.gate.places.add(Arc::downgrade(&place));
        assert!(poll(&mut pin!(admit(&usage, 1))).is_some());
    }
}
