//! Connections: how they are set up, and what is said when there is nothing to connect to.

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions, PgConnection, Row,
    postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgRow},
};
use tokio::time::timeout;

use super::{
    connection::Connection,
    pooler,
    sql::{self, Verdict},
};
use crate::{StoreError, open::without_password};

/// How long it takes at most to connect, or to wait for a connection of the pool.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long anything else takes at most. The server gives up before; this is for one that went silent.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);

/// Backends of ours that are remembered: their notifications tell us nothing new.
const BACKENDS_MAX: usize = 256;

/// On every connection, unless a pooler lends it to others as well. The waits: whoever stops in the middle of something holds up nobody for long. The plans: every
/// statement of ours finds its rows through an index, whatever the statistics say, and need not be planned twice. The
/// keep-alives: the server notices within seconds that this machine is gone.
const SET_UP: &str = "SET lock_timeout = '2s'; SET statement_timeout = '30s'; \
    SET idle_in_transaction_session_timeout = '10s'; SET plan_cache_mode = force_generic_plan; SET jit = off; \
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET tcp_keepalives_idle = 5; \
    SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
    SET default_transaction_isolation = 'read committed'; SELECT pg_backend_pid()";

/// Opens connections to one database, all set up alike.
#[derive(Clone)]
pub(super) struct Connector {
    options: PgConnectOptions,
    /// As it may be shown.
    url: Arc<str>,
    /// As it must not.
    passwords: Arc<[String]>,
    backends: Arc<Mutex<VecDeque<u32>>>,
    pooled: bool,
}

impl Connector {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let shown: Arc<str> = without_password(url).into();
        let passwords: Arc<[String]> = passwords(url).into();
        let options = PgConnectOptions::from_str(url).map_err(|error| StoreError::CannotOpen {
            url: shown.to_string(),
            reason: format!(
                "{}; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters percent-encoded",
                hide(&error.to_string(), &passwords)
            ),
        })?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("pelton"),
        };
        // A pooler refuses a connection with a parameter that it does not know, and we read no floating numbers that matter.
        let options = options.disable_statement_logging().extra_float_digits(None);
        Ok(Self { options, url: shown, passwords, backends: Arc::default(), pooled: false })
    }

    /// The URL without a password.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether each transaction may get another server's connection. Known once [`Self::first`] has returned.
    pub(super) fn pooled(&self) -> bool {
        self.pooled
    }

    /// The first connection. Finds out what stands between here and the server.
    pub(super) async fn first(&mut self) -> Result<Connection, sqlx::Error> {
        let connected = async {
            let mut connection = self.options.connect().await?;
            let pooled = pooler::is_there(&mut connection, &self.options).await?;
            if !pooled {
                self.set_up(&mut connection).await?;
            }
            Ok((connection, pooled))
        };
        let (connection, pooled) =
            timeout(2 * CONNECT_TIMEOUT, connected).await.unwrap_or_else(|_| Err(timed_out("connecting")))?;
        if pooled {
            self.pooled = true;
            self.options = self.options.clone().statement_cache_capacity(0);
        }
        Ok(Connection::new(connection, pooled))
    }

    /// A connection that is set up.
    pub(super) async fn connect(&self) -> Result<Connection, sqlx::Error> {
        let connected = async {
            let mut connection = self.options.connect().await?;
            if !self.pooled {
                self.set_up(&mut connection).await?;
            }
            Ok(Connection::new(connection, self.pooled))
        };
        timeout(CONNECT_TIMEOUT, connected).await.unwrap_or_else(|_| Err(timed_out("connecting")))
    }

    /// A connection that listens. It is gone for good when it breaks.
    pub(super) async fn listener(&self) -> Result<PgListener, sqlx::Error> {
        // A server that refuses is told of at once. The pool below would go on trying by itself, in ever longer intervals,
        // and whoever waits for it would find a server that was restarted seconds late.
        close(self.connect().await?);
        let mut listener = PgListener::connect_with(&self.pool_of_one()).await?;
        listener.eager_reconnect(false);
        Ok(listener)
    }

    /// [`PgListener`] takes its connection from a pool: one of a single connection.
    fn pool_of_one(&self) -> PgPool {
        let connector = self.clone();
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let connector = connector.clone();
                Box::pin(async move { connector.set_up(connection).await })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// Whether a backend served us; then its notifications are our own.
    pub(super) fn is_ours(&self, backend: u32) -> bool {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner).contains(&backend)
    }

    /// The server may have been restarted, and numbers its backends anew.
    pub(super) fn forget_backends(&self) {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn set_up(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let row = sqlx::Executor::fetch_one(connection, sqlx::raw_sql(SET_UP)).await?;
        let backend = backend(&row)?;
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if backends.len() == BACKENDS_MAX {
            backends.pop_front();
        }
        backends.push_back(backend);
        Ok(())
    }

    /// What an error while opening means: nothing that can be opened, or a server that is not there yet.
    pub(super) fn cannot_open(&self, error: &sqlx::Error) -> StoreError {
        let text = hide(&error.to_string(), &self.passwords);
        let cannot = |reason: String| StoreError::CannotOpen { url: self.url.to_string(), reason };
        let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        match (error, code.as_deref()) {
            (_, Some("28P01" | "28000")) => {
                cannot(format!("{text}; check the user and the password in store.url, and the server's pg_hba.conf"))
            }
            (_, Some("3D000")) => cannot(format!("{text}; create it (createdb), or correct the name in store.url")),
            (_, Some("42501")) => cannot(format!(
                "{text}; let an owner of the database create the schema and grant all on it to this user, or grant CREATE on the database"
            )),
            (_, Some("26000" | "42P05")) => cannot(format!(
                "{text}: a pooler between here and the server mixes up prepared statements; in PgBouncer (1.21 or later) set max_prepared_statements, or point store.url at the server itself"
            )),
            (_, Some(_)) if matches!(sql::verdict(error), Verdict::FaultOfData | Verdict::Other) => cannot(text),
            (sqlx::Error::Tls(_) | sqlx::Error::Configuration(_), _) => {
                cannot(format!("{text}; check sslmode and sslrootcert in store.url"))
            }
            _ => StoreError::Unavailable {
                doing: "opening the database",
                reason: format!(
                    "{} does not answer: {text}; check that the server runs and that store.url is right",
                    self.url
                ),
            },
        }
    }
}

/// The number of a backend, as a simple query gives it: in the text format.
pub(super) fn backend(row: &PgRow) -> Result<u32, sqlx::Error> {
    Ok(row.try_get_unchecked::<&str, _>(0)?.parse().unwrap_or_default())
}

/// An error for what took too long.
pub(super) fn timed_out(what: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("{what} took too long")))
}

/// Ends a connection politely, in the background.
pub(super) fn close(connection: Connection) {
    // The socket closes in any case.
    tokio::spawn(async move { drop(timeout(CONNECT_TIMEOUT, connection.close()).await) });
}

fn passwords(url: &str) -> Vec<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let user = rest.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, password)| password);
    let query = rest.split_once('?').into_iter().flat_map(|(_, query)| query.split('&'));
    let in_query = query.filter_map(|part| part.strip_prefix("password="));
    user.into_iter().chain(in_query).filter(|password| !password.is_empty()).map(Into::into).collect()
}

/// Nothing that comes from below is known to repeat a password; none shall ever.
fn hide(text: &str, passwords: &[String]) -> String {
    passwords.iter().fold(text.to_owned(), |text, password| text.replace(password, "***"))
}
