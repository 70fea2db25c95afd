//! Strangers who hold locks, lost notifications, and a server that goes away.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use pelton_core::{CommitOutcome, Offset};
use pelton_store::Store;
use sqlx::{Connection, Executor};
use tokio::time::{Instant, timeout};

use crate::{
    ALL, LONG, acquire, assert_dense, cluster::Cluster, emitting, event, group, moving, register, schema::Schema,
    stream,
};

#[tokio::test]
async fn a_transaction_that_appended_and_dawdles_holds_up_nobody_else() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(true).await);
    stream(&store, "orders", 2).await;
    stream(&store, "mail", 1).await;
    group(&store, "billing", "orders").await;
    let events = (0..20).map(|n| event(&n.to_string())).collect();
    store.append("orders", events).await.unwrap();
    let session = register(&store, "one", "billing").await;
    let leases = [acquire(&store, "billing", 0, &session).await, acquire(&store, "billing", 1, &session).await];

    let mut stranger = schema.connect().await;
    let mut dawdling = stranger.begin().await.unwrap();
    dawdling.execute(schema.sql(r#"SELECT @.append('mail', '[{"id": "slow", "payload": 1}]')"#)).await.unwrap();

    let emits = tokio::spawn({
        let (store, lease) = (Arc::clone(&store), leases[0].clone());
        async move { store.commit(emitting(&lease, 1, 0, 1, "mail", "m1")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    assert_eq!(store.commit(moving(&leases[1], 1, 0, 1)).await.unwrap(), CommitOutcome::Committed);
    store.append("orders", vec![event("other stream")]).await.unwrap();
    assert!(store.read("mail", 0, Offset(0), ALL).await.unwrap().is_empty(), "nothing is read past what may come");
    assert!(begun.elapsed() < Duration::from_millis(1_500), "others waited {:?}", begun.elapsed());

    let late = emits.await.unwrap().unwrap_err();
    assert!(late.is_transient() && late.to_string().contains("held a lock for too long"), "{late}");
    dawdling.commit().await.unwrap();
    // The same again, and all is there, in the order of the commits.
    assert_eq!(store.commit(emitting(&leases[0], 1, 0, 1, "mail", "m1")).await.unwrap(), CommitOutcome::Committed);
    let mail = store.read("mail", 0, Offset(0), ALL).await.unwrap();
    assert_eq!(mail.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["slow", "m1"]);
}

#[tokio::test]
async fn an_idle_transaction_that_holds_the_horizon_stops_nothing() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    stream(&store, "orders", 1).await;
    group(&store, "billing", "orders").await;
    let mut stranger = schema.connect().await;
    let mut idle = stranger.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    idle.execute(schema.sql("SELECT pg_current_xact_id(), count(*) FROM @.events")).await.unwrap();
    let session = register(&store, "one", "billing").await;
    let lease = acquire(&store, "billing", 0, &session).await;
    for n in 0..300 {
        store.append("orders", vec![event(&n.to_string())]).await.unwrap();
        assert_eq!(store.read("orders", 0, Offset(n), ALL).await.unwrap().len(), 1);
        assert_eq!(store.commit(moving(&lease, n + 1, n, n + 1)).await.unwrap(), CommitOutcome::Committed);
    }
    idle.rollback().await.unwrap();
}

#[tokio::test]
async fn appenders_at_the_same_time_neither_deadlock_nor_leave_gaps() {
    let Some(schema) = Schema::new() else { return };
    let (one, other) = (schema.open(false).await, schema.open(false).await);
    stream(&one, "orders", 4).await;
    stream(&one, "audit", 4).await;
    let from_rust = |name: &'static str, store, to: &'static str| async move {
        let store: &pelton_store::PostgresStore = store;
        for round in 0..30 {
            let ids = (0..20).map(|n| event(&format!("{name}-{round}-{n}"))).chain([event(&format!("shared-{round}"))]);
            store.append(to, ids.collect()).await.unwrap();
        }
    };
    let from_sql = |name: &'static str| {
        let schema = &schema;
        async move {
            let mut connection = schema.connect().await;
            for round in 0..30 {
                // Names of streams in the order in which nobody locks them.
                let mut events: Vec<String> = (0..20)
                    .map(|n| {
                        format!(
                            r#"{{"stream": "{}", "id": "{name}-{round}-{n}", "payload": 1}}"#,
                            ["orders", "audit"][n % 2]
                        )
                    })
                    .collect();
                events.push(format!(r#"{{"stream": "orders", "id": "shared-{round}", "payload": 1}}"#));
                let append = schema.sql(&format!("SELECT @.append('[{}]')", events.join(",")));
                connection.execute(sqlx::raw_sql(append)).await.unwrap();
            }
        }
    };
    let rust =
        join_all([from_rust("a", &one, "orders"), from_rust("b", &other, "orders"), from_rust("c", &one, "audit")]);
    let sql = join_all([from_sql("d"), from_sql("e")]);
    timeout(LONG, async { tokio::join!(rust, sql) }).await.unwrap();
    let mut found = [0, 0];
    for partition in 0..4 {
        found[0] += assert_dense(&one, "orders", partition).await;
        found[1] += assert_dense(&one, "audit", partition).await;
    }
    assert_eq!(found, [30 * (20 + 20 + 10 + 10 + 1), 30 * (20 + 1 + 10 + 10)]);
}

#[tokio::test]
async fn an_append_from_elsewhere_wakes_at_once() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    stream(&store, "orders", 1).await;
    settle(&store).await;
    let mut connection = schema.connect().await;
    for n in 0..3 {
        let waits = timeout(LONG, store.changed(LONG));
        let append = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let append = schema.sql(&format!(r#"SELECT @.append('orders', '[{{"id": "{n}", "payload": 1}}]')"#));
            connection.execute(sqlx::raw_sql(append)).await.unwrap();
            Instant::now()
        };
        let (woken, appended) = tokio::join!(waits, append);
        assert!(woken.is_ok() && appended.elapsed() < Duration::from_secs(1));
        settle(&store).await;
    }
}

/// Waits until nothing new comes.
async fn settle(store: &pelton_store::PostgresStore) {
    let mut quiet = 0;
    while quiet < 3 {
        let begun = Instant::now();
        store.changed(Duration::from_millis(50)).await;
        quiet = if begun.elapsed() < Duration::from_millis(40) { 0 } else { quiet + 1 };
    }
}

#[tokio::test]
async fn with_every_notification_lost_looking_alone_delivers() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    stream(&store, "orders", 1).await;
    // Whoever appends believes that somebody has just notified.
    schema.run("CREATE OR REPLACE FUNCTION @.wake() RETURNS void LANGUAGE sql AS ''").await;
    let mut connection = schema.connect().await;
    let mut next = Offset(0);
    for n in 0..50 {
        let append = schema.sql(&format!(r#"SELECT @.append('orders', '[{{"id": "{n}", "payload": 1}}]')"#));
        connection.execute(sqlx::raw_sql(append)).await.unwrap();
        let read = async {
            loop {
                let events = store.read("orders", 0, next, ALL).await.unwrap();
                if let Some(last) = events.last() {
                    return last.offset.next();
                }
                store.changed(Duration::from_millis(200)).await;
            }
        };
        next = timeout(Duration::from_secs(5), read).await.unwrap();
    }
    assert_eq!(next, Offset(50));
}

#[tokio::test]
async fn everything_goes_on_after_the_server_was_away() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let schema = Schema::at(cluster.url());
    let store = schema.open(true).await;
    stream(&store, "orders", 1).await;
    stream(&store, "mail", 1).await;
    group(&store, "billing", "orders").await;
    store.append("orders", vec![event("a"), event("b")]).await.unwrap();
    let session = register(&store, "one", "billing").await;
    let lease = acquire(&store, "billing", 0, &session).await;
    store.commit(emitting(&lease, 1, 0, 1, "mail", "m1")).await.unwrap();
    for round in 0_u64..2 {
        cluster.down();
        let errors = [
            store.append("orders", vec![event("lost")]).await.map(drop),
            store.commit(moving(&lease, round + 2, 1, 1)).await.map(drop),
            store.commit(emitting(&lease, round + 2, 1, 1, "mail", "m2")).await.map(drop),
            store.read("orders", 0, Offset(0), ALL).await.map(drop),
            store.progress().await.map(drop),
            store.survey().await.map(drop),
        ];
        assert!(
            errors.iter().all(|error| error.as_ref().is_err_and(pelton_store::StoreError::is_transient)),
            "{errors:?}"
        );
        let mut changed = timeout(LONG, store.changed(LONG)).await.unwrap();
        cluster.up().await;
        // Hints of what was written before the server went away may come first.
        while !changed.membership {
            changed = timeout(LONG, store.changed(LONG)).await.unwrap();
        }

        store.append("orders", vec![event(&format!("after-{round}"))]).await.unwrap();
        assert_eq!(store.commit(moving(&lease, round + 2, 1, 1)).await.unwrap(), CommitOutcome::Committed);
        assert_eq!(store.read("orders", 0, Offset(0), ALL).await.unwrap().len() as u64, 3 + round);
        store.progress().await.unwrap();
    }
    // The listener listens again.
    settle(&store).await;
    let changed = store.changed(LONG);
    schema.run("SELECT pg_notify(current_schemas(false)::text, 'e')").await;
    let name = &schema.name;
    schema.run(&format!("SELECT pg_notify('{name}', 'm')")).await;
    assert!(timeout(LONG, changed).await.unwrap().membership);
}
