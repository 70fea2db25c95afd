//! Behind a pooler that gives each transaction another connection.

use std::{
    cell::RefCell,
    io,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pelton_core::{Acquired, CommitOutcome, LockSeen, Offset};
use pelton_store::{PostgresStore, Store, StoreError};
use sqlx::{Executor, PgConnection, Row};
use tokio::time::timeout;

use crate::{
    ALL, LONG, acquire, assert_dense, assign,
    bouncer::{Bouncer, TRANSACTIONS},
    emitting, event, group, moving, register,
    schema::Schema,
    seen_host, stream, try_register,
};

/// A schema, and a pooler in front of its server.
fn pooled(mode: &str) -> Option<(Schema, Bouncer)> {
    let schema = Schema::new()?;
    let bouncer = Bouncer::start(&schema.url, mode)?;
    Some((schema, bouncer))
}

async fn open(schema: &Schema, bouncer: &Bouncer) -> PostgresStore {
    PostgresStore::open(&bouncer.url(), &schema.options(true)).await.unwrap()
}

#[tokio::test]
async fn two_hosts_share_their_work() {
    let Some((schema, bouncer)) = pooled(TRANSACTIONS) else { return };
    let (one, other) = tokio::join!(open(&schema, &bouncer), open(&schema, &bouncer));
    stream(&one, "orders", 1).await;
    stream(&one, "mail", 1).await;
    group(&other, "billing", "orders").await;
    let append = |store, name: &'static str| async move {
        let store: &PostgresStore = store;
        join_all((0..30).map(|n| store.append("orders", vec![event(&format!("{name}{n}"))]))).await
    };
    let (by_one, by_other) = tokio::join!(append(&one, "a"), append(&other, "b"));
    assert!(by_one.into_iter().chain(by_other).all(|appended| appended.is_ok()));
    assert_eq!(assert_dense(&other, "orders", 0).await, 60);

    let (a, b) = (register(&one, "a", "billing").await, register(&other, "b", "billing").await);
    assert_eq!(seen_host(&one, "b").await.lock, LockSeen::Unknown);
    let lease = acquire(&one, "billing", 0, &a).await;
    assert_eq!(one.commit(emitting(&lease, 1, 0, 1, "mail", "m1")).await.unwrap(), CommitOutcome::Committed);
    assert_eq!(one.commit(moving(&lease, 2, 1, 2)).await.unwrap(), CommitOutcome::Committed);
    assign(&one, "billing", 0, &b.host).await;
    assert_eq!(other.acquire("billing", 0, &b).await.unwrap(), Acquired::NotYet);
    one.release(&lease).await.unwrap();
    let second = acquire(&other, "billing", 0, &b).await;
    // What is emitted along with it is not stored, and the next commit is.
    assert_eq!(one.commit(emitting(&lease, 3, 2, 3, "mail", "m2")).await.unwrap(), CommitOutcome::Fenced);
    assert_eq!(other.commit(emitting(&second, 3, 2, 3, "mail", "m3")).await.unwrap(), CommitOutcome::Committed);
    let mail = one.read("mail", 0, Offset(0), ALL).await.unwrap();
    assert_eq!(mail.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["m1", "m3"]);
    assert_eq!(one.heartbeat(&[a.clone(), b]).await.unwrap(), [true, true]);
    other.deregister(&a).await.unwrap();
    assert_eq!(one.heartbeat(&[a]).await.unwrap(), [false]);
}

#[tokio::test]
async fn a_host_id_is_in_use_until_it_was_silent_for_its_session_timeout() {
    let Some((schema, bouncer)) = pooled(TRANSACTIONS) else { return };
    let (one, other) = (open(&schema, &bouncer).await, open(&schema, &bouncer).await);
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    register(&one, "host", "billing").await;
    let session = register(&one, "host", "billing").await;
    drop(one);
    let error = try_register(&other, "host", "billing").await.unwrap_err();
    assert!(matches!(&error, StoreError::HostInUse { host, .. } if host == "host"), "{error}");
    schema.run("UPDATE @.hosts SET last_heartbeat = last_heartbeat - interval '9 s'").await;
    assert!(try_register(&other, "host", "billing").await.is_err());
    schema.run("UPDATE @.hosts SET last_heartbeat = last_heartbeat - interval '2 s'").await;
    assert!(register(&other, "host", "billing").await.incarnation > session.incarnation);
    assert!(timeout(Duration::from_millis(100), other.lock_lost()).await.is_err());
}

#[tokio::test]
async fn looking_alone_finds_events_and_members() {
    let Some((schema, bouncer)) = pooled(TRANSACTIONS) else { return };
    let (one, other) = (open(&schema, &bouncer).await, open(&schema, &bouncer).await);
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    // Until nothing new comes, and then for so long that the pauses between two looks grow.
    for _ in 0..3 {
        one.changed(Duration::from_millis(500)).await;
    }
    let looking = async {
        let begun = Instant::now();
        (one.changed(LONG).await, begun.elapsed())
    };
    let appending = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        other.append("orders", vec![event("a")]).await.unwrap();
    };
    let ((changed, after), ()) = tokio::join!(looking, appending);
    assert!(!changed.membership && after < Duration::from_secs(5), "{after:?}");
    let looking = async { while !one.changed(LONG).await.membership {} };
    let (found, _) = tokio::join!(timeout(Duration::from_secs(5), looking), register(&other, "host", "billing"));
    found.unwrap();
}

#[tokio::test]
async fn nothing_is_left_on_connections_that_others_get() {
    let Some((schema, bouncer)) = pooled(TRANSACTIONS) else { return };
    let store = open(&schema, &bouncer).await;
    stream(&store, "orders", 4).await;
    group(&store, "billing", "orders").await;
    let session = register(&store, "host", "billing").await;
    let lease = acquire(&store, "billing", 0, &session).await;
    join_all((0..20).map(|n| store.append("orders", vec![event(&n.to_string())]))).await;
    store.commit(moving(&lease, 1, 0, 0)).await.unwrap();
    store.append("none", vec![event("a")]).await.unwrap_err();
    store.changed(Duration::from_millis(50)).await;
    let fresh = settings(&mut schema.connect().await).await;
    // Transactions that stay open get all of the pooler's connections.
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut connection = bouncer.connect().await;
        connection.execute(sqlx::raw_sql("BEGIN")).await.unwrap();
        assert_eq!(settings(&mut connection).await, fresh);
        held.push(connection);
    }
}

#[tokio::test]
async fn stores_that_open_at_once_do_not_hide_the_pooler_from_each_other() {
    let Some((schema, bouncer)) = pooled(TRANSACTIONS) else { return };
    schema.open(false).await;
    for stores in [2, 3, 8, 16] {
        let opened = join_all((0..stores).map(|_| open(&schema, &bouncer))).await;
        join_all(opened.iter().map(|store| store.changed(Duration::from_millis(20)))).await;
        let mut held = Vec::new();
        for _ in 0..5 {
            let mut connection = bouncer.connect().await;
            connection.execute(sqlx::raw_sql("BEGIN")).await.unwrap();
            assert!(!settings(&mut connection).await.iter().any(|left| left.starts_with("listens")), "{stores}");
            held.push(connection);
        }
    }
}

/// What a session may leave behind.
async fn settings(connection: &mut PgConnection) -> Vec<String> {
    let all = "SELECT name || '=' || setting FROM pg_settings
                   WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone')
               UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements WHERE name <> ''
               UNION ALL SELECT 'listens ' || c FROM pg_listening_channels() c
               UNION ALL SELECT 'lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1";
    let rows = connection.fetch_all(sqlx::raw_sql(all)).await.unwrap();
    rows.iter().map(|row| row.try_get_unchecked::<&str, _>(0).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn behind_a_pooler_in_session_mode_locks_hold() {
    let Some((schema, bouncer)) = pooled("pool_mode = session\ndefault_pool_size = 50") else { return };
    let store = open(&schema, &bouncer).await;
    stream(&store, "orders", 1).await;
    group(&store, "billing", "orders").await;
    register(&store, "host", "billing").await;
    assert_eq!(seen_host(&store, "host").await.lock, LockSeen::Held);
}

#[tokio::test]
async fn a_pooler_that_uses_its_connections_in_turn_is_noticed() {
    let Some((schema, bouncer)) = pooled("pool_mode = transaction\nserver_round_robin = 1") else { return };
    // Two of them are there before the store comes.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = bouncer.connect().await;
        connection.execute(sqlx::raw_sql("BEGIN")).await.unwrap();
        held.push(connection);
    }
    for connection in &mut held {
        connection.execute(sqlx::raw_sql("COMMIT")).await.unwrap();
    }
    let store = open(&schema, &bouncer).await;
    stream(&store, "orders", 1).await;
    group(&store, "billing", "orders").await;
    register(&store, "host", "billing").await;
    assert_eq!(seen_host(&store, "host").await.lock, LockSeen::Unknown);
}

thread_local! {
    /// What was logged by this thread, and so by its test.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_host_is_warned_once_and_nobody_else_is() {
    let Some((schema, bouncer)) = pooled(TRANSACTIONS) else { return };
    // For the whole process: one of a single thread misses what another thread came by first.
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    let text = || LOG.with_borrow(|log| String::from_utf8_lossy(log).into_owned());
    PostgresStore::open(&bouncer.url(), &schema.options(false)).await.unwrap();
    schema.open(true).await;
    assert!(!text().contains("pooler"), "{}", text());
    let store = open(&schema, &bouncer).await;
    stream(&store, "orders", 1).await;
    group(&store, "billing", "orders").await;
    register(&store, "host", "billing").await;
    let text = text();
    assert!(text.matches(" WARN ").count() == 1 && text.contains("only after its session_timeout"), "{text}");
}
