//! Ends calls that take too long or are no longer wanted: inside guest code at each epoch, and outside it, where a guest
//! sleeps or waits in a host call and no epoch is looked at.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use crate::{
    interrupt::Interrupt,
    stop::Stop,
    ticker::{Clock, TICK},
};

/// When the call in progress has to be over.
#[derive(Debug)]
pub(crate) struct Deadline {
    clock: Clock,
    interrupt: Interrupt,
    at_ms: AtomicU64,
    /// Waited for the store and not added to `at_ms` yet: many short waits make a long one.
    waited_micros: AtomicU64,
    waiting: AtomicBool,
}

impl Deadline {
    pub(crate) fn new(clock: Clock, interrupt: Interrupt) -> Self {
        Self {
            clock,
            interrupt,
            at_ms: AtomicU64::new(0),
            waited_micros: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
        }
    }

    /// The time of the coarse clock, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Whether no call may begin.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
    }

    /// A call begins. A tick is added, so that a coarse clock never takes from what was promised.
    pub(crate) fn start(&self, timeout: Duration) {
        let at_ms = self.clock.now_ms().saturating_add(ms(timeout)).saturating_add(ms(TICK));
        // Half of time leaves room for what `exempt` adds.
        self.at_ms.store(at_ms.min(u64::MAX / 2), Ordering::Relaxed);
        self.waited_micros.store(0, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// Whether the call has to end, and why.
    pub(crate) fn stop(&self) -> Option<Stop> {
        if self.interrupt.is_set() {
            return Some(Stop::Interrupted);
        }
        let late = self.clock.now_ms() >= self.at_ms.load(Ordering::Relaxed);
        (late && !self.waiting.load(Ordering::Relaxed)).then_some(Stop::TimedOut)
    }

    /// Waits for the store; the call gets as much longer as that takes.
    pub(crate) async fn exempt<T>(&self, wait: impl Future<Output = T>) -> T {
        let since = Instant::now();
        self.waiting.store(true, Ordering::Relaxed);
        let answer = wait.await;
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let waited = self.waited_micros.load(Ordering::Relaxed).saturating_add(micros);
        self.at_ms.fetch_add(waited / 1000, Ordering::Relaxed);
        self.waited_micros.store(waited % 1000, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
        answer
    }

    /// Drives a call until it is over or has to end. A call that never waits costs no timer.
    pub(crate) async fn watch<T>(&self, call: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
        let mut call = pin!(call);
        let mut nap: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|context| {
            if let Poll::Ready(result) = call.as_mut().poll(context) {
                return Poll::Ready(result);
            }
            if let Some(stop) = self.stop() {
                return Poll::Ready(Err(stop.into()));
            }
            let nap = nap.get_or_insert_with(|| Box::pin(sleep(TICK)));
            while nap.as_mut().poll(context).is_ready() {
                nap.as_mut().reset(tokio::time::Instant::now() + TICK);
            }
            Poll::Pending
        })
        .await
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn deadline(timeout: Duration) -> (Clock, Interrupt, Deadline) {
        let (clock, interrupt) = (Clock::default(), Interrupt::default());
        let deadline = Deadline::new(clock.clone(), interrupt.clone());
        deadline.start(timeout);
        (clock, interrupt, deadline)
    }

    /// Virtual time passes while nobody runs; the coarse clock is moved along with it.
    async fn pass(clock: &Clock, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        clock.set(clock.now_ms() + ms);
        tokio::time::sleep(2 * TICK).await;
    }

    fn ending(result: &wasmtime::Result<()>) -> Option<Stop> {
        result.as_ref().err().and_then(|error| error.downcast_ref::<Stop>()).cloned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_sleeps_in_a_host_call_is_ended_at_its_deadline() {
        let (clock, _interrupt, deadline) = deadline(Duration::from_secs(5));
        let (result, ()) = tokio::join!(deadline.watch(pending()), pass(&clock, 5_010));
        assert!(matches!(ending(&result), Some(Stop::TimedOut)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_sleeps_in_a_host_call_is_ended_by_an_interrupt() {
        let (clock, interrupt, deadline) = deadline(Duration::from_secs(5));
        let (result, ()) = tokio::join!(deadline.watch(pending()), async {
            pass(&clock, 50).await;
            interrupt.trigger();
        });
        assert!(matches!(ending(&result), Some(Stop::Interrupted)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_the_store_is_never_late() {
        let (clock, _interrupt, deadline) = deadline(Duration::from_secs(5));
        let waits = deadline.exempt(tokio::time::sleep(Duration::from_secs(20)));
        let (result, ()) = tokio::join!(
            deadline.watch(async {
                waits.await;
                Ok(())
            }),
            pass(&clock, 10_000),
        );
        assert!(result.is_ok());
    }
}
