//! Hosts of several processes: their locks, and what becomes of these.

use std::{sync::Arc, time::Duration};

use pelton_core::{Acquired, CommitOutcome, Decision, Expelled, LockSeen};
use pelton_store::{Store, StoreError};
use tokio::time::timeout;

use crate::{
    LONG, acquire, assign, cluster, cluster::Cluster, group, moving, register, schema::Schema, seen_host, stream,
    try_register, until_lock,
};

#[tokio::test]
async fn a_host_id_is_in_use_until_its_process_is_gone() {
    let Some(schema) = Schema::new() else { return };
    let (one, other) = (schema.open(true).await, schema.open(true).await);
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    register(&one, "host", "billing").await;
    register(&one, "host", "billing").await;
    let error = try_register(&other, "host", "billing").await.unwrap_err();
    assert!(matches!(&error, StoreError::HostInUse { host, .. } if host == "host"), "{error}");
    assert!(error.to_string().contains("(last heartbeat 0.") && !error.is_transient(), "{error}");
    assert_eq!(seen_host(&other, "host").await.lock, LockSeen::Held);
    drop(one);
    until_lock(&other, "host", LockSeen::Free).await;
    register(&other, "host", "billing").await;
    assert_eq!(seen_host(&other, "host").await.lock, LockSeen::Held);
}

#[tokio::test]
async fn a_registration_that_is_refused_holds_no_lock() {
    let Some(schema) = Schema::new() else { return };
    let (one, other) = (schema.open(true).await, schema.open(true).await);
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    try_register(&one, "host", "none").await.unwrap_err();
    let session = register(&other, "host", "billing").await;
    other.deregister(&session).await.unwrap();
    register(&one, "host", "billing").await;
}

#[tokio::test]
async fn a_lost_connection_is_told_and_the_host_comes_back_by_itself() {
    let Some(schema) = Schema::new() else { return };
    let (one, other) = (schema.open(true).await, schema.open(true).await);
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    let session = register(&one, "host", "billing").await;
    let mut lost = Box::pin(one.lock_lost());
    assert!(timeout(Duration::from_millis(50), &mut lost).await.is_err());
    schema
        .run(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN @.hosts h
              ON (l.classid::bigint << 32) | l.objid::bigint = h.lock_key WHERE l.locktype = 'advisory'",
        )
        .await;
    timeout(Duration::from_secs(1), lost).await.unwrap();
    until_lock(&other, "host", LockSeen::Free).await;
    assert!(one.heartbeat(std::slice::from_ref(&session)).await.unwrap()[0], "nobody has given it up yet");
    let again = register(&one, "host", "billing").await;
    assert!(again.incarnation > session.incarnation);
    assert_eq!(seen_host(&other, "host").await.lock, LockSeen::Held);
    assert!(timeout(Duration::from_millis(50), one.lock_lost()).await.is_err());
}

#[tokio::test]
async fn a_thousand_hosts_share_a_connection_and_a_heartbeat() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    stream(&store, "orders", 1).await;
    group(&store, "billing", "orders").await;
    let mut sessions = Vec::new();
    for n in 0..1_000 {
        sessions.push(register(&store, &format!("host-{n}"), "billing").await);
    }
    assert!(store.heartbeat(&sessions).await.unwrap().iter().all(|stands| *stands));
    let survey = store.survey().await.unwrap();
    assert!(survey.hosts.len() == 1_000 && survey.hosts.iter().all(|host| host.lock == LockSeen::Held));
    store.deregister(&sessions[7]).await.unwrap();
    let answers = store.heartbeat(&sessions).await.unwrap();
    assert!(answers.iter().enumerate().all(|(n, stands)| *stands == (n != 7)));
}

#[tokio::test]
async fn an_acquisition_does_not_slip_past_an_expulsion() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(true).await);
    stream(&store, "orders", 1).await;
    group(&store, "billing", "orders").await;
    for _ in 0..40 {
        let session = register(&store, "host", "billing").await;
        assign(&store, "billing", 0, &session.host).await;
        let last_heartbeat = seen_host(&store, "host").await.last_heartbeat;
        let why = Expelled::LockFree;
        let decision = Decision::Expel { session: session.clone(), group: None, last_heartbeat, why };
        let (acquired, expelled) = tokio::join!(store.acquire("billing", 0, &session), store.decide(&decision));
        assert!(expelled.unwrap());
        acquired.unwrap();
        assert_eq!(store.progress().await.unwrap()[0].owner, None);
        assert_eq!(store.acquire("billing", 0, &session).await.unwrap(), Acquired::NotYet);
    }
}

#[tokio::test]
async fn a_server_that_restarts_frees_all_locks_and_says_nothing_about_anybody() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let schema = Schema::at(cluster.url());
    let (one, other) = (schema.open(true).await, schema.open(true).await);
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    let session = register(&one, "host", "billing").await;
    let lease = acquire(&one, "billing", 0, &session).await;
    let before = other.survey().await.unwrap();
    let lost = one.lock_lost();
    cluster.down();
    timeout(Duration::from_secs(5), lost).await.unwrap();
    assert!(one.heartbeat(std::slice::from_ref(&session)).await.unwrap_err().is_transient());
    assert!(one.commit(moving(&lease, 1, 0, 0)).await.unwrap_err().is_transient());
    cluster.up().await;

    let after = other.survey().await.unwrap();
    assert_eq!(after.hosts[0].lock, LockSeen::Unknown);
    assert!(after.since > before.since && after.silent_ms(&after.hosts[0]) < 5_000);
    assert_eq!(one.heartbeat(&[session]).await.unwrap(), [true]);
    assert_eq!(one.commit(moving(&lease, 1, 0, 0)).await.unwrap(), CommitOutcome::Committed);
    register(&one, "host", "billing").await;
    assert_eq!(seen_host(&other, "host").await.lock, LockSeen::Held);
}

#[tokio::test]
async fn a_backend_that_is_killed_frees_all_locks_and_says_nothing_about_anybody() {
    let Some(cluster) = Cluster::start().await else { return };
    let schema = Schema::at(cluster.url());
    let (one, other) = (schema.open(true).await, schema.open(true).await);
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    register(&one, "a", "billing").await;
    register(&other, "b", "billing").await;
    let before = other.survey().await.unwrap();

    // The server ends all others then, and goes on as the same process.
    let mut victim = schema.connect().await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut victim).await.unwrap();
    cluster::kill(pid as u32, "-KILL");
    timeout(LONG, async { tokio::join!(one.lock_lost(), other.lock_lost()) }).await.unwrap();
    let after = loop {
        match other.survey().await {
            Ok(survey) => break survey,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(after.hosts.iter().all(|host| host.lock == LockSeen::Unknown), "{:?}", after.hosts);
    assert!(after.since > before.since);
}
