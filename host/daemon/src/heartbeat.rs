//! Says that the host lives, from a thread of its own that no handler can starve.

use std::{thread, time::Duration};

use anyhow::Context;
use pelton_store::StoreOptions;
use tokio::{
    select,
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{error, warn};

/// How often a host says that it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// After how long without a heartbeat a host is taken for dead.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// A running heartbeat. Ends when dropped.
pub struct Heartbeat {
    _stop: oneshot::Sender<()>,
}

impl Heartbeat {
    /// Starts beating for a host that is registered for these groups. The thread has a runtime and a connection to the
    /// store of its own: a queue of writes in front of the host's others does not delay it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(url: String, mut options: StoreOptions, host: String, every: Duration) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        options.host = false;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let beat = move || {
            runtime.block_on(async move {
                select! {
                    _ = stopped => {}
                    () = beat(&url, &options, &host, every) => {}
                }
            });
        };
        thread::Builder::new().name("heartbeat".into()).spawn(beat).context("cannot start the heartbeat's thread")?;
        Ok(Self { _stop: stop })
    }
}

async fn beat(url: &str, options: &StoreOptions, host: &str, every: Duration) {
    let store = loop {
        match pelton_store::open(url, options).await {
            Ok(store) => break store,
            Err(error) => error!(host, %error, "no heartbeat: the store cannot be opened; trying again"),
        }
        sleep(every).await;
    };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        match store.heartbeat(host).await {
            Ok(true) => {}
            Ok(false) => warn!(host, "this host is not registered any more"),
            Err(error) => warn!(host, %error, "heartbeat failed; trying again"),
        }
        let gap = last.elapsed();
        if gap > every * 2 {
            warn!(host, late_ms = (gap - every).as_millis() as u64, "heartbeat is late; is the machine overloaded?");
        }
        last = Instant::now();
    }
}
