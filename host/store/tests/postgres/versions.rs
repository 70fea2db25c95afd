//! Versions of handlers, where several connections meet; and hosts that know nothing of them.

use std::{sync::Arc, time::Duration};

use pelton_core::{
    Acquired, Claim, Commit, CommitOutcome, Found, Lease, Offset, Proposal, Rollout, Session, Timestamp,
};
use pelton_store::{HandledRange, PostgresStore, Store, StoreError, StoreOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::time::{sleep, timeout};

use crate::{LONG, acquire, event, group, moving, register, schema::Schema, stream};

/// A rollout of one version alone.
fn only(handler: &str, revision: u64, digest: &str) -> Rollout {
    let proposal =
        Proposal { digest: digest.into(), bytes: 1, host: "host".into(), canary: None, found: Found::Changed };
    let rollout = Rollout::of(handler).propose(&proposal, Timestamp(revision)).unwrap();
    Rollout { revision, ..rollout }
}

async fn save(store: &PostgresStore, rollout: &Rollout, module: &str) -> Result<bool, StoreError> {
    store.save_rollout(rollout, Some(module.as_bytes().into())).await
}

fn taken_over(lease: &Lease, sequence: u64, from: u64, to: u64, digest: &str) -> Arc<Commit> {
    let handled_by = vec![(Offset(from), digest.into())];
    Arc::new(Commit { handled_by, ..Commit::clone(&moving(lease, sequence, from, to)) })
}

async fn billing(store: &PostgresStore) -> Session {
    stream(store, "orders", 1).await;
    group(store, "billing", "orders").await;
    store.append("orders", (0..9).map(|n| event(&n.to_string())).collect()).await.unwrap();
    register(store, "host", "billing").await
}

fn shown(ranges: &[HandledRange]) -> Vec<(u64, Option<u64>, &str)> {
    ranges.iter().map(|range| (range.from.0, range.until.map(|until| until.0), &*range.digest)).collect()
}

#[tokio::test]
async fn what_one_is_about_to_keep_another_does_not_remove() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(false).await);
    assert!(save(&store, &only("b", 1, "x"), "module x").await.unwrap());
    // A host that saves a handler with a module that is there already, and stops before it commits.
    let mut stranger = schema.connect().await;
    let mut held = stranger.begin().await.unwrap();
    let keeps = schema.sql(
        "INSERT INTO @.rollouts (handler, revision, live, pinned) VALUES ('a', 1, 'x', false);
         INSERT INTO @.handler_versions (handler, ordinal, digest, bytes, host, proposed_at, fate, kept)
         VALUES ('a', 1, 'x', 1, 'host', now(), 'live', true)",
    );
    held.execute(sqlx::raw_sql(keeps)).await.unwrap();
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('pelton modules of {}', 0))", schema.name);
    held.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.unwrap();
    let lets_go = tokio::spawn({
        let store = Arc::clone(&store);
        async move { save(&store, &only("b", 2, "y"), "module y").await }
    });
    // Longer than others wait for a lock.
    sleep(Duration::from_millis(2_500)).await;
    assert!(!lets_go.is_finished());
    held.commit().await.unwrap();
    assert!(lets_go.await.unwrap().unwrap());
    assert_eq!(store.module("x").await.unwrap().as_deref(), Some(&b"module x"[..]));
    assert_eq!(store.module("y").await.unwrap().as_deref(), Some(&b"module y"[..]));
    assert_eq!(store.rollouts().await.unwrap()[0].version("x").unwrap().fate, pelton_core::Fate::Live);
}

#[tokio::test]
async fn of_hosts_that_propose_the_same_at_once_one_wins_and_none_fails() {
    let Some(schema) = Schema::new() else { return };
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(schema.open(false).await);
    }
    for round in 1..=10 {
        let rollout = only("invoice", round, &round.to_string());
        let saved = futures_util::future::join_all(stores.iter().map(|store| save(store, &rollout, "module"))).await;
        let saved: Vec<bool> = saved.into_iter().map(Result::unwrap).collect();
        assert_eq!(saved.iter().filter(|saved| **saved).count(), 1, "round {round}: {saved:?}");
        assert_eq!(stores[0].rollouts_revision().await.unwrap(), round);
    }
}

#[tokio::test]
async fn who_waits_for_a_partition_is_told_what_was_on_record_when_it_got_it() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(true).await);
    let session = billing(&store).await;
    let lease = acquire(&store, "billing", 0, &session).await;
    store.commit(taken_over(&lease, 1, 0, 3, "a")).await.unwrap();
    // Somebody moves the position by hand, and holds the row meanwhile.
    let mut stranger = schema.connect().await;
    let mut held = stranger.begin().await.unwrap();
    let moves = schema.sql(
        "UPDATE @.group_partitions SET committed = 1, position = 1, owner = NULL;
         UPDATE @.handled_ranges SET until_offset = 3",
    );
    held.execute(sqlx::raw_sql(moves)).await.unwrap();
    let acquired = tokio::spawn({
        let (store, session) = (Arc::clone(&store), session.clone());
        async move { store.acquire("billing", 0, &session).await }
    });
    sleep(Duration::from_millis(200)).await;
    assert!(!acquired.is_finished());
    held.commit().await.unwrap();
    let Acquired::Claimed(claim) = acquired.await.unwrap().unwrap() else { panic!("it is free") };
    assert_eq!((claim.committed, claim.handled_by), (Offset(1), None));
}

#[tokio::test]
async fn hosts_of_schema_3_work_beside_and_record_nothing() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    let session = billing(&store).await;
    let lease = acquire(&store, "billing", 0, &session).await;
    assert_eq!(store.commit(taken_over(&lease, 1, 4, 6, "a")).await.unwrap(), CommitOutcome::Fenced);
    store.commit(moving(&lease, 1, 0, 4)).await.unwrap();
    store.commit(taken_over(&lease, 2, 4, 6, "a")).await.unwrap();
    // It moves the position back, and a version takes over before the one on record began.
    schema.run("UPDATE @.group_partitions SET committed = 2, position = 2").await;
    let Acquired::Claimed(Claim { epoch, handled_by, .. }) = store.acquire("billing", 0, &session).await.unwrap()
    else {
        panic!("it is free")
    };
    assert_eq!(handled_by.as_deref(), Some("a"));
    let lease = Lease { epoch, ..lease };
    store.commit(taken_over(&lease, 1, 2, 3, "b")).await.unwrap();
    let ranges = store.ranges("handler", 10).await.unwrap();
    assert_eq!(shown(&ranges), [(4, Some(4), "a"), (2, None, "b")]);

    // As it reports, and as it deletes a group.
    schema
        .run(
            "INSERT INTO @.handlers (handler, host, digest, since, state, error, calls, failures, by_class)
             VALUES ('handler', 'host', 'd', now(), 'live', NULL, 1, 0, '{}')",
        )
        .await;
    let report = store.handlers().await.unwrap().remove(0);
    assert!(report.trial.is_none() && report.usage.is_empty());
    schema
        .run(
            "DELETE FROM @.members WHERE group_name = 'billing'; DELETE FROM @.dead_letters WHERE group_name = 'billing';
             DELETE FROM @.group_partitions WHERE group_name = 'billing';
             DELETE FROM @.state WHERE group_name = 'billing'; DELETE FROM @.remembered WHERE group_name = 'billing';
             DELETE FROM @.groups WHERE name = 'billing'",
        )
        .await;
    assert!(store.ranges("handler", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_schema_of_version_3_is_brought_up_to_date_beside_its_hosts() {
    let Some(schema) = Schema::new() else { return };
    let sql = |text: &str| text.replace("@schema", &schema.name).replace("@.", &format!("{}.", schema.name));
    let mut old = schema.connect().await;
    old.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {}", schema.name)))).await.unwrap();
    for migration in [
        include_str!("../../../../migrations/postgres/0001_streams_and_groups.sql"),
        include_str!("../../../../migrations/postgres/0002_hosts_and_assignment.sql"),
        include_str!("../../../../migrations/postgres/0003_dead_letters_and_retention.sql"),
        "INSERT INTO @.meta VALUES (1, 3, 2);
         INSERT INTO @.streams (name, partitions, payload_bytes_max) VALUES ('orders', 1, 1000);
         INSERT INTO @.stream_partitions (stream, partition) VALUES ('orders', 0);
         INSERT INTO @.groups (name, stream, handler) VALUES ('billing', 'orders', 'handler');
         INSERT INTO @.group_partitions (group_name, partition, partition_id, committed, position)
         VALUES ('billing', 0, 1, 0, 0);",
    ] {
        old.execute(sqlx::raw_sql(AssertSqlSafe(sql(migration)))).await.unwrap();
    }
    // One of its hosts is in the middle of a commit; the migration waits for it and no longer.
    let mut commit = old.begin().await.unwrap();
    commit.execute(schema.sql("UPDATE @.group_partitions SET sequence = 1")).await.unwrap();
    let (store, committed) = tokio::join!(timeout(LONG, schema.open(true)), async {
        sleep(Duration::from_millis(300)).await;
        commit.commit().await
    });
    committed.unwrap();
    let store = store.unwrap();
    let row = old.fetch_one(schema.sql("SELECT schema, min_compatible FROM @.meta")).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (4, 2));
    store.append("orders", vec![event("a")]).await.unwrap();
    let session = register(&store, "host", "billing").await;
    let lease = acquire(&store, "billing", 0, &session).await;
    assert_eq!(store.commit(taken_over(&lease, 1, 0, 1, "a")).await.unwrap(), CommitOutcome::Committed);
    assert_eq!(shown(&store.ranges("handler", 10).await.unwrap()), [(0, None, "a")]);
    let careful = StoreOptions { auto_migrate: false, ..schema.options(false) };
    PostgresStore::open(&schema.url, &careful).await.unwrap();
}
