//! Whether there is a pooler between here and the server that gives each transaction another connection.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::time::sleep;

/// How often a pooler is looked for that does not show. Others that use it at the same moment may hide it once.
const ROUNDS: u32 = 8;

/// The pause between two rounds, for whoever was in the way; it grows.
const PAUSE: Duration = Duration::from_millis(1);

/// Asks two connections in turn which process of the server answers. To each its own, always the same: there is no such
/// pooler. One that prefers the connection used last gives the same to both, one that uses them in turn gives each another
/// one every time.
///
/// With simple queries only, since a prepared one would fail right here; and none waits while another one holds something,
/// or hosts that start at the same moment would stop each other where connections are few.
pub(super) async fn is_there(first: &mut PgConnection, options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let of_first = server(first).await?;
    let mut second = options.connect().await?;
    let of_second = server(&mut second).await?;
    let mut pooled = of_first == of_second;
    for round in 0..ROUNDS {
        if pooled {
            break;
        }
        sleep(PAUSE * round).await;
        // Twice the first: in turn with the second, it would get every other one of two that are used in turn.
        pooled = server(first).await? != of_first
            || server(first).await? != of_first
            || server(&mut second).await? != of_second;
    }
    second.close().await?;
    Ok(pooled)
}

async fn server(connection: &mut PgConnection) -> Result<u32, sqlx::Error> {
    let row = connection.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?;
    super::connect::backend(&row)
}

/// Says what that means. For hosts: nobody else waits for anything.
pub(super) fn warn(url: &str) {
    tracing::warn!(
        url,
        "a pooler stands between this host and the server and gives each transaction another connection (PgBouncer in \
         transaction mode?): locks and notifications do not last there. A crash of a host is noticed only after its \
         session_timeout, and events are noticed by polling. To have both noticed at once, point store.url at the \
         server itself or at a pooler in session mode"
    );
}
