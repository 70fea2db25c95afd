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

use pelton_core::{
    Acquired, Claim, Class, Commit, CommitOutcome, Control, DeadLetter, Decision, Effects, Epoch, Expelled, Failure,
    Found, Lease, LetterRequest, LockSeen, Mark, Membership, NewEvent, Observer, Offset, Proposal, Rollout, Session,
    Timestamp,
};
use pelton_store::{
    Backup, Durability, GroupSpec, LetterQuery, ReadLimit, Registration, Reset, Start, Store, StoreError, StoreOptions,
    StreamSpec, open,
};
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
    let spec = StreamSpec { name: "orders".into(), partitions: 1, payload_bytes_max: 1_000, retention_ms: None };
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

fn registration(host: &str) -> Registration {
    Registration { host: host.into(), ..Registration::default() }
}

async fn register(store: &dyn Store, host: &str) -> Session {
    store.register(&registration(host)).await.unwrap()
}

/// Registers `host` and makes it the owner of the only partition.
async fn acquire(store: &dyn Store) -> Lease {
    let membership = Membership { group: "billing".into(), session_timeout_ms: 10_000, partitions_max: 0 };
    let registration = Registration { memberships: vec![membership], ..registration("host") };
    let session = store.register(&registration).await.unwrap();
    let generation = store.survey().await.unwrap().groups[0].generation;
    let targets = vec![Some(session.host.clone())];
    let assign = Decision::Assign { group: "billing".into(), generation, targets, homes: vec![None] };
    assert!(store.decide(&assign).await.unwrap());
    let acquired = store.acquire("billing", 0, &session).await.unwrap();
    let Acquired::Claimed(Claim { epoch, .. }) = acquired else { panic!("it is not free") };
    Lease { group: "billing".into(), partition: 0, host: session.host, epoch }
}

/// Declares a group of one stream with two partitions, and registers a host in it.
async fn join_two(store: &dyn Store, host: &str) -> Session {
    let spec = StreamSpec { name: "invoices".into(), partitions: 2, payload_bytes_max: 1_000, retention_ms: None };
    store.declare_stream(&spec).await.unwrap();
    let (stream, handler) = (spec.name, "handler".into());
    let spec = GroupSpec { name: "shared".into(), stream, handler, start: Start::Earliest };
    store.declare_group(&spec).await.unwrap();
    let membership = Membership { group: "shared".into(), session_timeout_ms: 10_000, partitions_max: 0 };
    store.register(&Registration { memberships: vec![membership], ..registration(host) }).await.unwrap()
}

/// Looks, decides and acts until nothing is left to do, as every host does again and again.
async fn look(store: &dyn Store, observer: &mut Observer, now_ms: u64) {
    loop {
        let decisions = observer.decide(now_ms, &store.survey().await.unwrap());
        if decisions.is_empty() {
            break;
        }
        for decision in decisions {
            // Whoever was expelled changed the generation that targets were computed under: the next turn has another.
            store.decide(&decision).await.unwrap();
        }
    }
}

/// Acquires whatever a session gets of the two partitions.
async fn acquire_all(store: &dyn Store, session: &Session) -> Vec<u32> {
    let mut acquired = Vec::new();
    for partition in 0..2 {
        if store.acquire("shared", partition, session).await.unwrap() != Acquired::NotYet {
            acquired.push(partition);
        }
    }
    acquired
}

/// Waits until the lock of the first host is free: a store's writer ends a moment after the store.
async fn until_free(store: &dyn Store) {
    while store.survey().await.unwrap().hosts[0].lock == LockSeen::Held {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
async fn a_second_process_with_a_live_host_s_id_is_refused_and_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_in(&folder, &daemon()).await.unwrap();
    let second = open_in(&folder, &daemon()).await.unwrap();
    register(&*first, "host").await;
    let error = second.register(&registration("host")).await.unwrap_err();
    assert!(matches!(error, StoreError::HostInUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    register(&*second, "other").await;
    assert!(second.hosts().await.unwrap().iter().all(|host| host.active));
}

#[tokio::test]
async fn a_host_that_left_may_come_back_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_in(&folder, &daemon()).await.unwrap();
    let second = open_in(&folder, &daemon()).await.unwrap();
    let old = register(&*first, "host").await;
    first.deregister(&old).await.unwrap();
    let new = register(&*second, "host").await;
    assert!(new.incarnation > old.incarnation);
    first.deregister(&old).await.unwrap();
    assert_eq!(first.survey().await.unwrap().hosts[0].lock, LockSeen::Held, "an old registration frees nobody's lock");
    let error = first.register(&registration("host")).await.unwrap_err();
    assert!(matches!(error, StoreError::HostInUse { .. }), "{error}");
}

#[tokio::test]
async fn a_registration_that_is_refused_leaves_the_id_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_in(&folder, &daemon()).await.unwrap();
    let second = open_in(&folder, &daemon()).await.unwrap();
    let membership = Membership { group: "none".into(), session_timeout_ms: 1, partitions_max: 0 };
    let wrong = Registration { memberships: vec![membership], ..registration("host") };
    assert!(matches!(first.register(&wrong).await.unwrap_err(), StoreError::UnknownGroup { .. }));
    register(&*second, "host").await;
    assert!(matches!(second.register(&wrong).await.unwrap_err(), StoreError::UnknownGroup { .. }));
    assert!(second.hosts().await.unwrap()[0].active, "its earlier registration goes on");
    assert!(matches!(first.register(&registration("host")).await.unwrap_err(), StoreError::HostInUse { .. }));
}

#[tokio::test]
async fn many_hosts_of_one_process_beat_in_one_statement() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder, &daemon()).await.unwrap();
    let mut sessions = Vec::new();
    // As many as fit below the files that a process may open where nobody raised the limit.
    for n in 0..500 {
        sessions.push(register(&*store, &format!("host-{n}")).await);
    }
    assert!(store.heartbeat(&sessions).await.unwrap().into_iter().all(|stands| stands));
    assert!(store.hosts().await.unwrap().iter().all(|host| host.active));
}

#[tokio::test]
async fn two_processes_share_a_group_and_one_takes_over_when_the_other_dies() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_in(&folder, &daemon()).await.unwrap();
    let second = open_in(&folder, &daemon()).await.unwrap();
    let one = join_two(&*first, "one").await;
    let two = join_two(&*second, "two").await;
    let mut observer = Observer::default();
    look(&*first, &mut observer, 0).await;
    let (of_one, of_two) = (acquire_all(&*first, &one).await, acquire_all(&*second, &two).await);
    assert_eq!((of_one.len(), of_two.len()), (1, 1));

    drop(first);
    let mut observer = Observer::default();
    until_free(&*second).await;
    look(&*second, &mut observer, 0).await;
    look(&*second, &mut observer, 1).await;
    assert_eq!(acquire_all(&*second, &two).await, [0, 1]);
    assert_eq!(second.cleanup().await.unwrap(), ["one"]);
}

#[tokio::test]
async fn a_registration_in_one_process_wakes_another() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_in(&folder, &daemon()).await.unwrap();
    let second = open_in(&folder, &daemon()).await.unwrap();
    first.changed(Duration::from_millis(50)).await;
    assert!(!first.changed(Duration::from_millis(50)).await.membership);
    register(&*second, "host").await;
    assert!(first.changed(Duration::from_secs(3_600)).await.membership);
}

/// Outlives no test, however that ends.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the process of [`the_host_of_a_killed_process_is_free_and_its_lock_file_is_removed`] does.
#[tokio::test]
#[ignore = "started by another test, as a process to be killed"]
async fn a_process_to_be_killed() {
    let Ok(url) = std::env::var("PELTON_TEST_CHILD_OF") else { return };
    let store = open(&url, &daemon()).await.unwrap();
    register(&*store, "host").await;
    std::future::pending().await
}

#[tokio::test]
async fn the_host_of_a_killed_process_is_free_and_its_lock_file_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder, &daemon()).await.unwrap();
    let url = format!("sqlite://{}", folder.path().join("pelton.db").display());
    let mut child = Child(
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_to_be_killed", "--ignored"])
            .env("PELTON_TEST_CHILD_OF", url)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    while store.hosts().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.survey().await.unwrap().hosts[0].lock, LockSeen::Held);
    let error = store.register(&registration("host")).await.unwrap_err();
    assert!(error.to_string().contains(&format!("(process {})", child.0.id())), "{error}");

    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let seen = store.survey().await.unwrap().hosts.swap_remove(0);
    assert_eq!(seen.lock, LockSeen::Gone);
    let file = folder.path().join("pelton.db.hosts/host.lock");
    assert!(file.exists(), "nobody was left to remove it");
    let why = Expelled::LockFree;
    let (session, last_heartbeat) = (seen.session, seen.last_heartbeat);
    assert!(store.decide(&Decision::Expel { session, group: None, last_heartbeat, why }).await.unwrap());
    assert_eq!(store.cleanup().await.unwrap(), ["host"]);
    assert!(!file.exists());
    let session = register(&*store, "host").await;
    assert!(file.exists());
    store.deregister(&session).await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn a_database_of_the_first_schema_keeps_positions_and_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut raw = raw(&folder).await;
    let old = "INSERT INTO meta VALUES (1, 1, 1);
        INSERT INTO streams VALUES ('orders', 1, 1000);
        INSERT INTO stream_partitions VALUES (1, 'orders', 0, 0, 2, 10);
        INSERT INTO events VALUES (1, 0, 'a', NULL, '', 5, NULL, x''), (1, 1, 'b', NULL, '', 6, NULL, x'');
        INSERT INTO groups VALUES ('billing', 'orders', 'handler');
        INSERT INTO group_partitions
        VALUES ('billing', 0, 1, 1, 2, 7, 'host', 4, 9, 1, 3, 2, NULL, 1, 'bad', 'sha256:1');
        INSERT INTO state VALUES ('billing', 0, 'total', x'31');
        INSERT INTO hosts VALUES ('host', 5, 6);
        INSERT INTO members VALUES ('billing', 'host', 5);
        INSERT INTO handlers VALUES ('handler', 'host', 'sha256:1', 5, 'live', NULL, 1, 0);";
    sqlx::raw_sql(include_str!("../../../migrations/sqlite/0001_streams_and_groups.sql"))
        .execute(&mut raw)
        .await
        .unwrap();
    sqlx::raw_sql(old).execute(&mut raw).await.unwrap();

    let careful = StoreOptions { auto_migrate: false, ..command() };
    let error = open_in(&folder, &careful).await.err().unwrap();
    assert!(matches!(error, StoreError::SchemaTooOld { found: 1, .. }), "{error}");
    let lock = std::fs::File::create(folder.path().join("pelton.db.lock")).unwrap();
    lock.lock().unwrap();
    let error = open_in(&folder, &daemon()).await.err().unwrap();
    assert!(error.to_string().contains("an older pelton works on it"), "{error}");
    drop(lock);

    let store = open_in(&folder, &daemon()).await.unwrap();
    assert_eq!(ids(&*store).await, ["a", "b"]);
    let group = store.groups().await.unwrap().swap_remove(0);
    let place = &group.partitions[0];
    assert_eq!((place.committed, place.position, place.epoch), (Offset(1), Offset(1), Epoch(4)));
    // It knew neither the class nor the time of a failure.
    let (class, epoch) = (Class::Transient, Timestamp(0));
    let failure = Failure { class, reason: "bad".into(), attempts: 2, first: epoch, last: epoch };
    assert_eq!((&place.owner, &place.mark), (&None, &Mark::Stop { at: Offset(1), failure }));
    assert_eq!(place.control, Control { paused: true, resumes: 3, requests: 0 });
    assert_eq!(store.state("billing", 0, "total").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert!(group.consumers.is_empty() && store.hosts().await.unwrap().is_empty());
    assert_eq!(store.handlers().await.unwrap().len(), 1);
    assert_eq!(acquire(&*store).await.epoch, Epoch(5));
    open_in(&folder, &careful).await.unwrap();
}

/// The migrations of the first three schemas.
async fn schema_3(raw: &mut SqliteConnection) {
    for migration in [
        include_str!("../../../migrations/sqlite/0001_streams_and_groups.sql"),
        include_str!("../../../migrations/sqlite/0002_hosts_and_assignment.sql"),
        include_str!("../../../migrations/sqlite/0003_dead_letters_and_retention.sql"),
        "INSERT INTO meta VALUES (1, 3, 3);",
    ] {
        sqlx::raw_sql(migration).execute(&mut *raw).await.unwrap();
    }
}

#[tokio::test]
async fn a_program_of_schema_3_works_beside_and_records_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = raw(&folder).await;
    schema_3(&mut old).await;
    let careful = StoreOptions { auto_migrate: false, ..command() };
    let error = open_in(&folder, &careful).await.err().unwrap();
    assert!(matches!(error, StoreError::SchemaTooOld { found: 3, .. }), "{error}");
    let store = open_in(&folder, &daemon()).await.unwrap();
    let found: (i64, i64) =
        sqlx::query_as("SELECT schema, min_compatible FROM meta").fetch_one(&mut old).await.unwrap();
    assert_eq!(found, (4, 3));
    open_in(&folder, &careful).await.unwrap();

    declare(&*store).await;
    for id in ["a", "b", "c", "d"] {
        append(&*store, id).await;
    }
    let lease = acquire(&*store).await;
    let by = |lease, from, to, digest: &str| {
        Arc::new(Commit { handled_by: vec![(Offset(from), digest.into())], ..moves(lease, from, to) })
    };
    store.commit(Arc::new(moves(&lease, 0, 2))).await.unwrap();
    store.commit(by(&lease, 2, 4, "a")).await.unwrap();
    // It moves the position back, and a version takes over before the one on record began.
    sqlx::query("UPDATE group_partitions SET committed = 1, position = 1, owner = NULL")
        .execute(&mut old)
        .await
        .unwrap();
    let lease = acquire(&*store).await;
    store.commit(by(&lease, 1, 3, "b")).await.unwrap();
    let ranges = store.ranges("handler", 10).await.unwrap();
    let shown: Vec<_> = ranges.iter().map(|range| (range.from.0, range.until.map(|until| until.0))).collect();
    assert_eq!(shown, [(2, Some(2)), (1, None)]);

    // As it reports, and as it deletes a group.
    let its = "INSERT OR REPLACE INTO handlers (handler, host, digest, since, state, error, calls, failures, by_class)
               VALUES ('handler', 'host', 'd', 5, 'live', NULL, 1, 0, '{}');
               DELETE FROM members; DELETE FROM group_partitions WHERE group_name = 'billing';
               DELETE FROM groups WHERE name = 'billing';";
    sqlx::raw_sql(its).execute(&mut old).await.unwrap();
    let report = store.handlers().await.unwrap().remove(0);
    assert!(report.trial.is_none() && report.usage.is_empty());
    assert!(store.ranges("handler", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_module_that_one_process_saves_another_has_and_a_backup_too() {
    let folder = tempfile::tempdir().unwrap();
    let one = open_in(&folder, &daemon()).await.unwrap();
    let other = open_in(&folder, &daemon()).await.unwrap();
    let digest = "sha256:1".to_owned();
    let proposal =
        Proposal { digest: digest.clone(), bytes: 3, host: "one".into(), canary: None, found: Found::Changed };
    let rollout = Rollout::of("invoice").propose(&proposal, Timestamp(1)).unwrap();
    let module: Arc<[u8]> = b"abc"[..].into();
    let (first, second) = tokio::join!(
        one.save_rollout(&rollout, Some(Arc::clone(&module))),
        other.save_rollout(&rollout, Some(Arc::clone(&module)))
    );
    assert!(first.unwrap() != second.unwrap());
    let copy = folder.path().join("copy.db");
    one.backup(&copy).await.unwrap();
    let copied = open(&format!("sqlite://{}", copy.display()), &command()).await.unwrap();
    for store in [one, other, copied] {
        assert_eq!(store.rollouts().await.unwrap(), std::slice::from_ref(&rollout));
        assert_eq!(store.module(&digest).await.unwrap().as_deref(), Some(&*module));
    }
}

#[tokio::test]
async fn a_backup_is_a_whole_database_and_writes_over_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder, &daemon()).await.unwrap();
    declare(&*store).await;
    append(&*store, "a").await;
    let copy = folder.path().join("copy.db");
    let Backup::Written(bytes) = store.backup(&copy).await.unwrap() else { panic!("it is written here") };
    assert_eq!(bytes, copy.metadata().unwrap().len());
    append(&*store, "b").await;

    let error = store.backup(&copy).await.unwrap_err();
    assert!(error.to_string().contains("it exists already"), "{error}");
    let error = store.backup(&folder.path().join("missing/copy.db")).await.unwrap_err();
    assert!(error.to_string().contains("the copy cannot be written"), "{error}");
    let copied = open(&format!("sqlite://{}", copy.display()), &command()).await.unwrap();
    assert_eq!(ids(&*copied).await, ["a"]);
    assert_eq!(copied.groups().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_host_shows_as_gone_as_soon_as_its_process_is() {
    let folder = tempfile::tempdir().unwrap();
    let daemon_store = open_in(&folder, &daemon()).await.unwrap();
    register(&*daemon_store, "host").await;
    let command_store = open_in(&folder, &command()).await.unwrap();
    assert!(command_store.hosts().await.unwrap()[0].active);
    drop(daemon_store);
    until_free(&*command_store).await;
    assert!(!command_store.hosts().await.unwrap()[0].active);
}

#[tokio::test]
async fn a_daemon_that_died_leaves_everything_and_the_same_host_ends_what_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let old = {
        let store = open_in(&folder, &daemon()).await.unwrap();
        declare(&*store).await;
        append(&*store, "a").await;
        append(&*store, "b").await;
        let lease = acquire(&*store).await;
        store.commit(Arc::new(moves(&lease, 0, 1))).await.unwrap();
        store.pause("billing", None, true).await.unwrap();
        lease
    };
    let store = open_in(&folder, &daemon()).await.unwrap();
    assert_eq!(ids(&*store).await, ["a", "b"]);
    let group = store.groups().await.unwrap().swap_remove(0);
    assert_eq!((group.partitions[0].owner.as_deref(), group.partitions[0].committed), (Some("host"), Offset(1)));
    assert!(group.partitions[0].control.paused);
    register(&*store, "host").await;
    assert_eq!(store.progress().await.unwrap()[0].owner, None);
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
async fn what_one_process_asks_of_dead_letters_wakes_another() {
    let folder = tempfile::tempdir().unwrap();
    let host = open_in(&folder, &daemon()).await.unwrap();
    declare(&*host).await;
    append(&*host, "a").await;
    append(&*host, "b").await;
    let lease = acquire(&*host).await;
    let failure = Failure::parked(Timestamp(1));
    let event = host.read("orders", 0, Offset(0), ALL).await.unwrap().swap_remove(0);
    let letter =
        DeadLetter { event, failure: failure.clone(), digest: None, parks: false, request: None, edited: false };
    let mark = Some(Mark::Stop { at: Offset(1), failure });
    let commit = Commit { set_aside: vec![letter], mark, ..moves(&lease, 0, 1) };
    assert_eq!(host.commit(Arc::new(commit)).await.unwrap(), CommitOutcome::Committed);

    let other = open_in(&folder, &command()).await.unwrap();
    host.changed(Duration::from_millis(1)).await;
    host.changed(Duration::from_millis(1)).await;
    assert_eq!(other.request_letters("billing", &LetterQuery::default(), LetterRequest::Replay).await.unwrap(), 1);
    host.changed(Duration::from_secs(3_600)).await;
    assert_eq!(host.progress().await.unwrap()[0].control.requests, 1);
    assert_eq!(other.skip("billing", 0, false).await.unwrap(), Offset(1));
    host.changed(Duration::from_secs(3_600)).await;
    assert_eq!(host.progress().await.unwrap()[0].owner, None);
    assert_eq!(host.commit(Arc::new(moves(&lease, 1, 2))).await.unwrap(), CommitOutcome::Fenced);
}

#[tokio::test]
async fn what_one_process_trims_is_gone_for_another_and_offsets_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let host = open_in(&folder, &daemon()).await.unwrap();
    declare(&*host).await;
    for id in ["a", "b", "c"] {
        append(&*host, id).await;
    }
    let lease = acquire(&*host).await;
    host.commit(Arc::new(moves(&lease, 0, 2))).await.unwrap();
    let other = open_in(&folder, &command()).await.unwrap();
    let later = Timestamp(u64::MAX);
    assert_eq!(other.trim("orders", later, 1).await.unwrap(), 1);
    assert_eq!(other.trim("orders", later, 10).await.unwrap(), 1, "the group has not passed the last one");
    assert_eq!(other.trim("orders", later, 10).await.unwrap(), 0);
    // Its id is free again.
    append(&*host, "a").await;
    assert_eq!(ids(&*host).await, ["c", "a"]);
    let stream = other.streams().await.unwrap().swap_remove(0);
    assert_eq!((stream.partitions[0].first, stream.partitions[0].head), (Offset(2), Offset(4)));
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
async fn whoever_gives_up_a_reset_or_a_removal_leaves_a_group_of_which_it_can_be_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder, &daemon()).await.unwrap();
    declare(&*store).await;
    append(&*store, "a").await;
    let lease = acquire(&*store).await;
    let all: Vec<String> = (0..12_000).map(|n| format!("o{n}")).collect();
    let remembered = all.iter().zip(0..).map(|(id, n)| (Offset(n), id.clone())).collect();
    store.commit(Arc::new(Commit { remembered, ..moves(&lease, 0, 1) })).await.unwrap();
    let known = async || store.remembered("billing", 0, all.clone()).await.unwrap().len();
    let committed = async || store.progress().await.unwrap()[0].committed;

    let reset = Reset { group: "billing".into(), to: [(0, Offset(0))].into(), force: true, ..Reset::default() };
    let session = store.survey().await.unwrap().hosts[0].session.clone();
    store.deregister(&session).await.unwrap();
    // Given up as soon as a step was taken, of three and the last.
    let a_step = async || while known().await == all.len() {};
    let given_up = tokio::select! { _ = store.delete_group("billing", false) => false, () = a_step() => true };
    if given_up {
        append(&*store, "b").await;
        assert_eq!(committed().await, Offset(1), "it stands where it stood");
        assert!(known().await < all.len());
    } else {
        declare(&*store).await;
    }
    store.reset(&reset).await.unwrap();
    assert_eq!((committed().await, known().await), (Offset(0), 0));
    store.delete_group("billing", false).await.unwrap();
    assert!(store.progress().await.unwrap().is_empty());
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
