//! Two lanes for calls, so that guests that compute for long hold nobody up.
//!
//! A guest yields every few milliseconds, and a runtime gives every task that is ready a turn. That is fair among tasks and
//! unfair among groups: between two turns of a quick handler each partition of a slow one would have a whole tick. So a
//! call that has computed for longer than [`QUICK_MAX`] goes on in a runtime of its own, whose threads the system prefers
//! less than those of everybody else; and the next call of that version begins there. Alone on a machine a slow handler has
//! all of it; beside others it gets what they leave. Waiting (for the store, for an answer over HTTP) is not computing.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};
use tracing::warn;

/// What a call may compute before it makes way. A call has a whole batch of events, and a batch of a quick handler must not
/// be taken for a slow one: among those that never end it would get what they leave. Half of a tick, so that who is made to
/// yield always is.
const QUICK_MAX: Duration = Duration::from_millis(5);

/// How much less the system prefers slow calls, from 0 to 19. Under load they get about a third of what others do: enough
/// that what takes its time does not run into its time-out for that alone.
const NICENESS: i32 = 5;

/// Where calls run. Cheap to clone; the last clone ends the slow lane.
#[derive(Clone, Default)]
pub struct Lane {
    slow: Option<Arc<Slow>>,
}

struct Slow {
    handle: Handle,
    runtime: Option<Runtime>,
}

/// Whether the calls of a version are slow, as of the last one.
#[derive(Debug, Default)]
pub struct Pace(AtomicBool);

impl Lane {
    /// Both lanes. Without a thread to be had there is only the quick one, which is logged.
    #[must_use]
    pub fn both() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name("slow-calls").on_thread_start(give_way).enable_all();
        match builder.build() {
            Ok(runtime) => {
                Self { slow: Some(Arc::new(Slow { handle: runtime.handle().clone(), runtime: Some(runtime) })) }
            }
            Err(error) => {
                warn!(%error, "no threads for slow calls; they share those of quick ones");
                Self::default()
            }
        }
    }

    /// Drives a call of a version of this pace.
    pub(crate) fn run<T: Send + 'static>(&self, pace: Arc<Pace>, call: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        let Some(slow) = &self.slow else { return call };
        let handle = slow.handle.clone();
        let call = Timed { call, busy: Duration::ZERO };
        Box::pin(Driven { call: Some(call), moved: None, handle, pace })
    }
}

impl Lane {
    /// Drives something that computes for long and is no call of a pump.
    pub(crate) async fn apart<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let pace = Arc::new(Pace(AtomicBool::new(true)));
        self.run(pace, Box::pin(work)).await
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Who drops this may be a task itself, and must not wait.
            runtime.shutdown_background();
        }
    }
}

fn give_way() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        warn!(%error, "slow calls have the same priority as quick ones");
    }
}

/// A call, and how long it has computed.
struct Timed<T> {
    call: BoxFuture<'static, T>,
    busy: Duration,
}

impl<T> Future for Timed<T> {
    type Output = (T, Duration);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let began = Instant::now();
        let polled = self.call.as_mut().poll(context);
        self.busy += began.elapsed();
        polled.map(|output| (output, self.busy))
    }
}

/// A call in one lane or the other. Dropped, it ends: in the slow lane where it yields next.
struct Driven<T> {
    call: Option<Timed<T>>,
    moved: Option<JoinHandle<(T, Duration)>>,
    handle: Handle,
    pace: Arc<Pace>,
}

impl<T: Send + 'static> Future for Driven<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if let Some(call) = this.call.as_mut().filter(|_| !this.pace.0.load(Ordering::Relaxed)) {
            match Pin::new(&mut *call).poll(context) {
                Poll::Ready((output, busy)) => {
                    this.pace.0.store(busy > QUICK_MAX, Ordering::Relaxed);
                    return Poll::Ready(output);
                }
                Poll::Pending if call.busy <= QUICK_MAX => return Poll::Pending,
                Poll::Pending => this.pace.0.store(true, Ordering::Relaxed),
            }
        }
        if let Some(call) = this.call.take() {
            this.moved = Some(this.handle.spawn(call));
        }
        let Some(moved) = &mut this.moved else { return Poll::Pending };
        match ready!(Pin::new(moved).poll(context)) {
            Ok((output, busy)) => {
                this.pace.0.store(busy > QUICK_MAX, Ordering::Relaxed);
                Poll::Ready(output)
            }
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            // The lane is gone, and the host with it.
            Err(_) => Poll::Pending,
        }
    }
}

impl<T> Drop for Driven<T> {
    fn drop(&mut self) {
        if let Some(moved) = &self.moved {
            moved.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use tokio::task::yield_now;

    use super::*;

    /// Computes for so long, yields, and tells on which threads it did.
    fn computes(time: Duration) -> BoxFuture<'static, (ThreadId, ThreadId)> {
        Box::pin(async move {
            let first = thread::current().id();
            let began = Instant::now();
            while began.elapsed() < time {}
            yield_now().await;
            (first, thread::current().id())
        })
    }

    #[tokio::test]
    async fn a_call_that_computes_for_long_goes_on_in_the_other_lane_and_the_next_one_begins_there() {
        let (lane, pace) = (Lane::both(), Arc::<Pace>::default());
        let here = thread::current().id();
        let (first, then) = lane.run(Arc::clone(&pace), computes(2 * QUICK_MAX)).await;
        assert!(first == here && then != here);
        let (first, _) = lane.run(Arc::clone(&pace), computes(Duration::ZERO)).await;
        assert_ne!(first, here);
        let (first, then) = lane.run(Arc::clone(&pace), computes(Duration::ZERO)).await;
        assert!(first == here && then == here, "it was quick again");
    }

    #[tokio::test]
    async fn a_call_that_waits_for_long_stays() {
        let (lane, pace) = (Lane::both(), Arc::<Pace>::default());
        let waits = Box::pin(async {
            tokio::time::sleep(20 * QUICK_MAX).await;
            thread::current().id()
        });
        assert_eq!(lane.run(pace, waits).await, thread::current().id());
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_ends_in_the_other_lane_too() {
        let (lane, pace) = (Lane::both(), Arc::<Pace>::default());
        pace.0.store(true, Ordering::Relaxed);
        let (alive, mut dead) = tokio::sync::mpsc::channel::<()>(1);
        let call = lane.run(
            pace,
            Box::pin(async move {
                let _alive = alive;
                std::future::pending::<()>().await;
            }),
        );
        let timed_out = tokio::time::timeout(10 * QUICK_MAX, call).await;
        assert!(timed_out.is_err());
        assert_eq!(dead.recv().await, None);
    }
}
