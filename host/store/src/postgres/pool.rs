//! A few connections for requests that need no lane of their own.
//!
//! Not sqlx's pool: it asks the server about each connection that is given back, for as long as that takes, and so a
//! server that went silent takes the pool's places along. Here a connection is given back after an answer and at no other
//! time; whatever is broken off in between, by a timeout or by the caller, ends with its connection.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{
    connect::{CONNECT_TIMEOUT, Connector, timed_out},
    connection::Connection,
};

/// How long a connection that nobody uses is trusted.
const IDLE_MAX: Duration = Duration::from_millis(100);

/// How long it takes at most to tell whether it still works.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Pool {
    connector: Connector,
    idle: Mutex<Vec<Idle>>,
    places: Semaphore,
}

/// A connection that nobody uses.
pub(super) struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, since: Instant::now() }
    }

    /// The connection, if it still works: a server that was restarted meanwhile shall cost no request its answer.
    pub(super) async fn wake(mut self) -> Option<Connection> {
        if self.since.elapsed() > IDLE_MAX {
            let works = timeout(PING_TIMEOUT, self.connection.ping()).await;
            works.ok()?.ok()?;
        }
        Some(self.connection)
    }
}

/// A connection that is in use. Dropped without [`Lent::give_back`], it ends.
pub(super) struct Lent<'a> {
    pub(super) connection: Connection,
    pool: &'a Pool,
    _place: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(connector: Connector, connections_max: u32) -> Self {
        Self { connector, idle: Mutex::default(), places: Semaphore::new(connections_max.max(1) as usize) }
    }

    pub(super) async fn lend(&self) -> Result<Lent<'_>, sqlx::Error> {
        let place = timeout(CONNECT_TIMEOUT, self.places.acquire()).await;
        let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let awake = match idle {
            None => None,
            Some(idle) => {
                let awake = idle.wake().await;
                if awake.is_none() {
                    self.forget_idle();
                }
                awake
            }
        };
        let connection = match awake {
            Some(connection) => connection,
            None => self.connector.connect().await?,
        };
        Ok(Lent { connection, pool: self, _place: place })
    }

    /// One connection turned out to be broken: the others will be as well, and should not be found out one by one.
    pub(super) fn forget_idle(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent<'_> {
    pub(super) fn give_back(self) {
        self.pool.idle().push(Idle::new(self.connection));
    }
}

/// Runs something with a limit of time.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(timed_out("the answer")))
}
