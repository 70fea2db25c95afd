//! The heartbeat of the engines: one thread that lets guests be interrupted, and a clock that costs one load to read.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use wasmtime::{Engine, EngineWeak};

/// How often a running guest is made to look up. Shorter makes deadlines sharper and guests slower.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Milliseconds since the first engine was made, as of the last tick. Reading the real clock on every call would cost as much
/// as a third of the call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

/// The thread and what it ticks for.
pub(crate) struct Ticker {
    clock: Clock,
    engines: Engines,
}

type Engines = Arc<Mutex<Vec<EngineWeak>>>;

impl Ticker {
    /// Starts the thread for a first engine. It holds all engines weakly and ends within a tick after the last is gone.
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let clock = Clock::default();
        let engines: Engines = Arc::new(Mutex::new(vec![engine.weak()]));
        let (hand, ticked) = (clock.clone(), Arc::clone(&engines));
        let started = Instant::now();
        thread::Builder::new().name("pelton-ticker".into()).spawn(move || {
            loop {
                thread::sleep(TICK);
                hand.set(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
                let mut engines = ticked.lock().unwrap_or_else(PoisonError::into_inner);
                engines.retain(|engine| engine.upgrade().inspect(Engine::increment_epoch).is_some());
                if engines.is_empty() {
                    return;
                }
            }
        })?;
        Ok(Self { clock, engines })
    }

    /// Ticks for one more. The first must still be there, or the thread may have ended.
    pub(crate) fn add(&self, engine: &Engine) {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine.weak());
    }

    /// One for all engines, so that what a handler may do in a second is one thing whichever engine it runs on.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_with_the_last_of_its_engines() {
        let (first, second) = (Engine::default(), Engine::default());
        let ticker = Ticker::start(&first).expect("a thread is to be had");
        ticker.add(&second);
        drop(first);
        let before = ticker.clock.now_ms();
        while ticker.clock.now_ms() < before + 50 {
            thread::yield_now();
        }
        drop(second);
        // The thread's own hand on the clock goes with it.
        while Arc::strong_count(&ticker.clock.0) > 1 {
            thread::yield_now();
        }
    }
}
