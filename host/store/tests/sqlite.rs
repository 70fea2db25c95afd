//! What only a file can go through: other versions, other files, other processes, the end of the process.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pelton_core::{Commit, CommitOutcome, Effects, Lease, NewEvent, Offset};
use pelton_store::{Durability, GroupSpec, ReadLimit, Start, Store, StoreError, StoreOptions, StreamSpec, open};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

const ALL: ReadLimit = ReadLimit { events: 10_000, bytes: 1 << 30 };

fn daemon() -> StoreOptions {
    StoreOptions { host: true, ..StoreOptions::default() }
}

fn command() -> StoreOptions {
    StoreOptions { host: false, ..StoreOptions::default() }
}

async fn open_in(folder: &TempDir, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    open(&format!("sqlite://{}", folder.path().join("pelton.db").display()), options).await
}

async fn refusal(path: &Path, options: &StoreOptions) -> String {
    match open(&format!("sqlite://{}", path.display()), options).await {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error.to_string(),
    }
}

/// A stream of one partition and a group on it.
async fn declare(store: &dyn Store) {
    let spec = StreamSpec { name: "orders".into(), partitions: 1, payload_bytes_max: 1_000 };
    store.declare_stream(&spec).await.unwrap();
    let (stream, handler) = (spec.name, "handler".into());
    let spec = GroupSpec { name: "billing".into(), stream, handler, start: Start::Earliest };
    store.declare_group(&spec).await.unwrap();
}

async fn append(store: &dyn Store, id: &str) {
    store.append("orders", vec![NewEvent { id: id.into(), ..NewEvent::default() }]).await.unwrap();
}

async fn ids(store: &dyn Store) -> Vec<String> {
    store.read("orders", 0, Offset(0), ALL).await.unwrap().into_iter().map(|event| event.id).collect()
}

async fn acquire(store: &dyn Store) -> Lease {
    let epoch = store.acquire("billing", 0, "host").await.unwrap().epoch;
    Lease { group: "billing".into(), partition: 0, host: "host".into(), epoch }
}

/// Each commit is a later one than all before it.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn moves(lease: &Lease, from: u64, to: u64) -> Commit {
    Commit::moving(lease.clone(), NEXT.fetch_add(1, Ordering::Relaxed), Offset(from), Offset(to))
}

async fn raw(folder: &TempDir) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(folder.path().join("pelton.db"))
        .create_if_missing(true)
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_database_of_a_newer_pelton_is_refused_unless_it_says_it_is_compatible() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_in(&folder, &command()).await.unwrap());
    let mut raw = raw(&folder).await;
    sqlx::query("UPDATE meta SET schema = 900, min_compatible = 1").execute(&mut raw).await.unwrap();
    drop(open_in(&folder, &command()).await.unwrap());
    sqlx::query("UPDATE meta SET min_compatible = 800").execute(&mut raw).await.unwrap();
    let error = open_in(&folder, &command()).await.err().unwrap();
    assert!(matches!(error, StoreError::SchemaTooNew { found: 900, .. }), "{error}");
}

#[tokio::test]
async fn a_database_without_migrations_is_refused_if_none_may_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let mut raw = raw(&folder).await;
    sqlx::query("CREATE TABLE of_somebody_else (x)").execute(&mut raw).await.unwrap();
    let careful = StoreOptions { auto_migrate: false, ..command() };
    let error = open_in(&folder, &careful).await.err().unwrap();
    assert!(matches!(error, StoreError::SchemaTooOld { found: 0, .. }), "{error}");
    drop(open_in(&folder, &command()).await.unwrap());
    open_in(&folder, &careful).await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("notes.txt"), "not a database, but long enough to have a header\n".repeat(100)).unwrap();
    assert!(refusal(&path.join("notes.txt"), &daemon()).await.contains("no SQLite database"));
    assert!(refusal(path, &daemon()).await.contains("it is a directory"));
    let missing = path.join("missing");
    assert!(
        refusal(&missing.join("pelton.db"), &daemon()).await.contains(&format!("{} does not exist", missing.display()))
    );
    let reader = StoreOptions { create: false, ..command() };
    assert!(refusal(&path.join("new.db"), &reader).await.contains("there is no such file"));
    assert!(!path.join("new.db").exists());
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_told_which_process_holds_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open_in(&folder, &daemon()).await.unwrap();
    let error = open_in(&folder, &daemon()).await.err().unwrap();
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
}

#[tokio::test]
async fn a_host_is_alive_while_the_daemon_holds_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let daemon_store = open_in(&folder, &daemon()).await.unwrap();
    daemon_store.register("host", &[]).await.unwrap();
    let command_store = open_in(&folder, &command()).await.unwrap();
    assert!(command_store.hosts().await.unwrap()[0].alive);
    drop(daemon_store);
    // The writer lets go of the lock when it has ended.
    while command_store.hosts().await.unwrap()[0].alive {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_daemon_that_died_leaves_everything_but_its_hosts_and_leases() {
    let folder = tempfile::tempdir().unwrap();
    let old = {
        let store = open_in(&folder, &daemon()).await.unwrap();
        declare(&*store).await;
        append(&*store, "a").await;
        append(&*store, "b").await;
        store.register("host", &["billing".into()]).await.unwrap();
        let lease = acquire(&*store).await;
        store.commit(Arc::new(moves(&lease, 0, 1))).await.unwrap();
        store.pause("billing", None, true).await.unwrap();
        lease
    };
    let store = open_in(&folder, &daemon()).await.unwrap();
    assert_eq!(ids(&*store).await, ["a", "b"]);
    assert!(store.hosts().await.unwrap().is_empty());
    let group = store.groups().await.unwrap().swap_remove(0);
    assert!(group.consumers.is_empty());
    assert_eq!((&group.partitions[0].owner, group.partitions[0].committed), (&None, Offset(1)));
    assert!(group.partitions[0].control.paused);
    assert_eq!(store.commit(Arc::new(moves(&old, 1, 2))).await.unwrap(), CommitOutcome::Fenced);
    assert_eq!(acquire(&*store).await.epoch.0, old.epoch.0 + 1);
}

#[tokio::test]
async fn what_one_process_writes_another_sees_and_is_woken_by() {
    let folder = tempfile::tempdir().unwrap();
    let host = open_in(&folder, &daemon()).await.unwrap();
    declare(&*host).await;
    append(&*host, "a").await;
    let other = open_in(&folder, &command()).await.unwrap();
    host.changed(Duration::from_millis(1)).await;
    append(&*other, "b").await;
    host.changed(Duration::from_secs(3_600)).await;
    append(&*host, "c").await;
    assert_eq!(ids(&*host).await, ["a", "b", "c"], "the counter moved while the other process knew an older one");
    append(&*other, "d").await;
    assert_eq!(ids(&*other).await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn two_processes_that_create_the_database_at_once_both_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let options = command();
    let opened = tokio::join!(open_in(&folder, &options), open_in(&folder, &options), open_in(&folder, &options));
    declare(&*opened.0.unwrap()).await;
    append(&*opened.1.unwrap(), "a").await;
    assert_eq!(ids(&*opened.2.unwrap()).await, ["a"]);
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_no_half_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder, &daemon()).await.unwrap();
    declare(&*store).await;
    for turn in 0..50_u64 {
        let events = (0..200).map(|n| NewEvent { id: format!("{turn}-{n}"), ..NewEvent::default() }).collect();
        let impatient = tokio::time::timeout(Duration::from_micros(turn * 50), store.append("orders", events));
        let _ = impatient.await;
    }
    append(&*store, "last").await;
    let events = store.read("orders", 0, Offset(0), ReadLimit { events: 20_000, ..ALL }).await.unwrap();
    assert!(events.iter().zip(0..).all(|(event, offset)| event.offset == Offset(offset)));
    assert_eq!(events.len() % 200, 1, "a batch is there whole or not at all");
}

#[tokio::test]
async fn relaxed_commits_are_there_after_the_process_died() {
    let folder = tempfile::tempdir().unwrap();
    let relaxed = StoreOptions { durability: Durability::Relaxed, ..daemon() };
    {
        let store = open_in(&folder, &relaxed).await.unwrap();
        declare(&*store).await;
        append(&*store, "a").await;
        let lease = acquire(&*store).await;
        assert_eq!(store.commit(Arc::new(moves(&lease, 0, 1))).await.unwrap(), CommitOutcome::Committed);
    }
    let store = open_in(&folder, &relaxed).await.unwrap();
    assert_eq!(store.progress().await.unwrap()[0].committed, Offset(1));
}

#[tokio::test]
async fn a_refused_row_fails_its_own_request_and_no_other_of_the_same_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder, &daemon()).await.unwrap();
    declare(&*store).await;
    let lease = acquire(&*store).await;
    let mut raw = raw(&folder).await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.id = 'bad'
                  BEGIN SELECT raise(ABORT, 'refused by a test'); END";
    sqlx::query(refuse).execute(&mut raw).await.unwrap();

    let emit = |id: &str| pelton_core::Emit {
        stream: "orders".into(),
        event: NewEvent { id: id.into(), ..NewEvent::default() },
    };
    let bad = Commit { effects: Effects { emits: vec![emit("bad")], ..Effects::default() }, ..moves(&lease, 0, 0) };
    let good = |id: &str| store.append("orders", vec![NewEvent { id: id.into(), ..NewEvent::default() }]);
    let (before, refused, after) = tokio::join!(good("a"), store.commit(Arc::new(bad)), good("b"));
    assert!(before.is_ok() && after.is_ok());
    let refused = refused.unwrap();
    assert!(matches!(&refused, CommitOutcome::Refused(reason) if reason.contains("refused by a test")), "{refused:?}");
    assert_eq!(ids(&*store).await, ["a", "b"]);
}
