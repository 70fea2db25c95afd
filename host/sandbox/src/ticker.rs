//! The heartbeat of the engine: one thread that lets guests be interrupted, and a clock that costs one load to read.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use wasmtime::Engine;

/// How often a running guest is made to look up. Shorter makes deadlines sharper and guests slower.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Milliseconds since the engine was made, as of the last tick. Reading the real clock on every call would cost as much
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

/// Starts the thread. It holds the engine weakly and ends within a tick after it is gone.
pub(crate) fn start(engine: &Engine) -> io::Result<Clock> {
    let clock = Clock::default();
    let (engine, hand) = (engine.weak(), clock.clone());
    let started = Instant::now();
    thread::Builder::new().name("pelton-ticker".into()).spawn(move || {
        loop {
            thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            hand.set(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            engine.increment_epoch();
        }
    })?;
    Ok(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_with_its_engine() {
        let engine = Engine::default();
        let clock = start(&engine).expect("a thread is to be had");
        while clock.now_ms() == 0 {
            thread::yield_now();
        }
        drop(engine);
        // The thread's own hand on the clock goes with it.
        while Arc::strong_count(&clock.0) > 1 {
            thread::yield_now();
        }
    }
}
