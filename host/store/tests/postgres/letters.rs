//! Dead letters, remembered ids and retention, where several connections meet; and hosts that know nothing of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pelton_core::{
    Acquired, Class, Commit, CommitOutcome, DeadLetter, Event, Failure, Hold, Lease, LetterRequest, Mark, Offset,
    Session, Settled, Timestamp,
};
use pelton_store::{LetterQuery, PostgresStore, Reset, Store, StoreError};
use sqlx::{Connection, Executor, Row};
use tokio::time::{sleep, timeout};

use crate::{ALL, LONG, acquire, emitting, event, group, moving, register, schema::Schema, stream};

/// In the far future.
const NEVER: Timestamp = Timestamp(1 << 43);

fn failure() -> Failure {
    let (first, last) = (Timestamp(1_000), Timestamp(2_000));
    Failure { class: Class::Permanent, reason: "bad \0 data".into(), attempts: 2, first, last }
}

/// Of key `k`, parked.
fn letter(offset: u64) -> DeadLetter {
    let event = Event {
        offset: Offset(offset),
        id: format!("e{offset}"),
        key: Some("k".into()),
        kind: String::new(),
        time: Timestamp(500),
        headers: vec![("name".into(), "value".into())],
        payload: b"payload".into(),
    };
    DeadLetter { event, failure: failure(), digest: Some("d".into()), parks: true, request: None, edited: false }
}

/// Sets the event at `from` aside.
fn parking(lease: &Lease, sequence: u64, from: u64) -> Arc<Commit> {
    let set_aside = vec![letter(from)];
    Arc::new(Commit { set_aside, ..Commit::moving(lease.clone(), sequence, Offset(from), Offset(from + 1)) })
}

async fn all_letters(store: &PostgresStore) -> Vec<DeadLetter> {
    let found = store.letters("billing", &LetterQuery::default(), None, ALL).await.unwrap();
    found.into_iter().map(|info| info.letter).collect()
}

/// A stream `orders` of so many partitions, with at least 20 events in each, and a group that one host works for.
async fn orders(store: &PostgresStore, partitions: u32) -> Session {
    stream(store, "orders", partitions).await;
    group(store, "billing", "orders").await;
    let events = (0..40 * partitions).map(|n| event(&n.to_string())).collect();
    store.append("orders", events).await.unwrap();
    register(store, "host", "billing").await
}

#[tokio::test]
async fn what_is_asked_while_a_commit_parks_reaches_what_it_parks() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(true).await);
    let session = orders(&store, 1).await;
    let lease = acquire(&store, "billing", 0, &session).await;
    store.commit(parking(&lease, 1, 0)).await.unwrap();
    for round in 1..20 {
        let sequence = 2 * round;
        let query = LetterQuery::default();
        let (commit, asked) = tokio::join!(
            store.commit(parking(&lease, sequence, round)),
            store.request_letters("billing", &query, LetterRequest::Replay)
        );
        assert_eq!((commit.unwrap(), asked.unwrap() > 0), (CommitOutcome::Committed, true));
        let letters = all_letters(&store).await;
        assert_eq!(letters.len() as u64, round + 1);
        assert!(letters.iter().all(|letter| letter.request == Some(LetterRequest::Replay)), "{letters:?}");
        // One that comes back ends the replay of its key.
        let back = Settled::Back { offset: Offset(0), failure: failure(), digest: None };
        let moves = Commit::moving(lease.clone(), sequence + 1, Offset(round + 1), Offset(round + 1));
        store.commit(Arc::new(Commit { settled: vec![back], ..moves })).await.unwrap();
        assert!(all_letters(&store).await.iter().all(|letter| letter.request.is_none()));
    }
    let Acquired::Claimed(claim) = store.acquire("billing", 0, &session).await.unwrap() else { panic!("not free") };
    assert_eq!((claim.letters, claim.parked), (20, vec![("k".into(), 20)]));
    assert!(!claim.letters_requested && claim.control.requests == 19);
}

#[tokio::test]
async fn a_request_waits_for_a_commit_that_is_under_way() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(true).await);
    let session = orders(&store, 1).await;
    let lease = acquire(&store, "billing", 0, &session).await;
    store.commit(parking(&lease, 1, 0)).await.unwrap();
    // A stranger holds what the commit needs last, and so the commit in the middle of its transaction.
    let mut stranger = schema.connect().await;
    let mut held = stranger.begin().await.unwrap();
    held.execute(schema.sql("LOCK TABLE @.dead_letters IN SHARE MODE")).await.unwrap();
    let commit = tokio::spawn({
        let (store, commit) = (Arc::clone(&store), parking(&lease, 2, 1));
        async move { store.commit(commit).await }
    });
    sleep(Duration::from_millis(200)).await;
    let asked = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.request_letters("billing", &LetterQuery::default(), LetterRequest::Replay).await }
    });
    sleep(Duration::from_millis(200)).await;
    held.rollback().await.unwrap();
    assert_eq!(commit.await.unwrap().unwrap(), CommitOutcome::Committed);
    assert_eq!(asked.await.unwrap().unwrap(), 2);
    assert!(all_letters(&store).await.iter().all(|letter| letter.request == Some(LetterRequest::Replay)));
}

#[tokio::test]
async fn of_commits_that_go_together_those_that_are_fenced_set_nothing_aside() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    let session = orders(&store, 2).await;
    stream(&store, "mail", 1).await;
    let (one, other) = (acquire(&store, "billing", 0, &session).await, acquire(&store, "billing", 1, &session).await);
    store.commit(moving(&one, 1, 0, 5)).await.unwrap();
    let emits = Commit {
        effects: emitting(&other, 1, 0, 1, "mail", "m").effects.clone(),
        ..Commit::clone(&parking(&other, 1, 0))
    };
    let fenced = Commit { effects: emits.effects.clone(), ..Commit::clone(&parking(&one, 2, 3)) };
    let (fenced, stored) = tokio::join!(store.commit(Arc::new(fenced)), store.commit(Arc::new(emits)));
    assert_eq!((fenced.unwrap(), stored.unwrap()), (CommitOutcome::Fenced, CommitOutcome::Committed));
    let letters = all_letters(&store).await;
    assert_eq!((letters.len(), letters[0].event.offset), (1, Offset(0)));
    assert_eq!(letters[0].failure.reason, "bad \u{fffd} data");
    let places = &store.groups().await.unwrap()[0].partitions;
    assert_eq!((places[0].letters, places[1].letters), (0, 1));
    assert_eq!(store.read("mail", 0, Offset(0), ALL).await.unwrap().len(), 1);
}

#[tokio::test]
async fn hosts_of_schema_2_commit_beside_and_clear_what_they_do_not_know() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    let session = orders(&store, 1).await;
    let lease = acquire(&store, "billing", 0, &session).await;
    let mark = Mark::Hold { at: Offset(3), failure: failure(), until: NEVER, why: Hold::Breaker };
    let commit = Commit { mark: Some(mark), given_up_in_row: 7, ..Commit::clone(&moving(&lease, 1, 0, 3)) };
    store.commit(Arc::new(commit)).await.unwrap();

    let old = |function: &str, from: u64, mark: &str, rest: &str| {
        schema.sql(&format!(
            "SELECT @.{function}(false, false, '{{f}}', '{{billing}}', '{{0}}', '{{host}}', '{{{}}}', '{{{from}}}',
                 '{{{from}}}', '{{{}}}', '{{{}}}', {mark}, '{{}}', '{{}}', '{{}}'{rest})",
            lease.epoch.0,
            from + 1,
            from + 1
        ))
    };
    let mut connection = schema.connect().await;
    let retry = "'{4}', '{2026-01-01T00:00:00Z}', '{f}', '{why}', '{d}'";
    connection.execute(old("commit_positions", 3, retry, "")).await.unwrap();
    let place = store.groups().await.unwrap().remove(0).partitions.remove(0);
    let (attempts, time) = (4, Timestamp(0));
    let failure = Failure { class: Class::Transient, reason: "why".into(), attempts, first: time, last: time };
    assert_eq!(place.mark, Mark::Retry { at: Offset(4), failure, next: Timestamp(1_767_225_600_000) });
    assert_eq!((place.committed, place.given_up_in_row), (Offset(4), 0));

    let clear = "'{0}', '{NULL}', '{f}', '{NULL}', '{NULL}'";
    let nothing = ", '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'";
    connection.execute(old("commit_and_append", 4, clear, nothing)).await.unwrap();
    let place = store.groups().await.unwrap().remove(0).partitions.remove(0);
    assert_eq!((place.committed, place.mark), (Offset(5), Mark::Clear));
    let left_out = connection.fetch_all(old("commit_positions", 4, clear, "")).await.unwrap();
    assert_eq!(left_out.len(), 1, "fenced");
}

#[tokio::test]
async fn old_events_stay_while_a_group_begins_at_them() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(true).await);
    let session = orders(&store, 1).await;
    let lease = acquire(&store, "billing", 0, &session).await;
    store.commit(moving(&lease, 1, 0, 30)).await.unwrap();
    // As whoever declares a group, or moves one to the first event, holds the stream.
    let mut stranger = schema.connect().await;
    let mut held = stranger.begin().await.unwrap();
    held.execute(schema.sql("SELECT FROM @.streams FOR SHARE")).await.unwrap();
    let error = store.trim("orders", NEVER, 10).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("held a lock for too long"), "{error}");
    let late = schema.sql(
        "INSERT INTO @.groups (name, stream, handler) VALUES ('late', 'orders', 'h');
         INSERT INTO @.group_partitions (group_name, partition, partition_id, committed, position)
         SELECT 'late', partition, id, first_offset, first_offset FROM @.stream_partitions",
    );
    held.execute(sqlx::raw_sql(late)).await.unwrap();
    held.commit().await.unwrap();
    assert_eq!(store.trim("orders", NEVER, 10).await.unwrap(), 0);
    store.delete_group("late", false).await.unwrap();
    assert_eq!(store.trim("orders", NEVER, 10).await.unwrap(), 10);
    let reset =
        Reset { group: "billing".into(), to: BTreeMap::from([(0, Offset(9))]), force: true, ..Reset::default() };
    let error = store.reset(&reset).await.unwrap_err();
    assert!(matches!(error, StoreError::OffsetOutOfRange { first: Offset(10), .. }), "{error}");
    assert_eq!(store.read("orders", 0, Offset(0), ALL).await.unwrap()[0].offset, Offset(10));
}

#[tokio::test]
async fn a_trim_gives_way_to_appenders() {
    let Some(schema) = Schema::new() else { return };
    let store = Arc::new(schema.open(true).await);
    let session = orders(&store, 1).await;
    let lease = acquire(&store, "billing", 0, &session).await;
    store.commit(moving(&lease, 1, 0, 30)).await.unwrap();
    // The appender holds the counter, and waits for the trim to say whether the id is free.
    let mut stranger = schema.connect().await;
    let mut appending = stranger.begin().await.unwrap();
    appending.execute(schema.sql(r#"SELECT @.append('orders', '[{"id": "new", "payload": 1}]')"#)).await.unwrap();
    let trim = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.trim("orders", NEVER, 10).await }
    });
    sleep(Duration::from_millis(100)).await;
    let again = schema.sql(r#"SELECT (@.append('orders', '[{"id": "3", "payload": 1}]')).duplicate"#);
    let again: bool = appending.fetch_one(again).await.unwrap().get(0);
    appending.commit().await.unwrap();
    assert!(again, "it was there still: the trim was rolled back");
    assert!(trim.await.unwrap().unwrap_err().is_transient());
    assert_eq!(store.trim("orders", NEVER, 10).await.unwrap(), 10);
    assert!(!store.append("orders", vec![event("3")]).await.unwrap()[0].duplicate);
}

#[tokio::test]
async fn requests_and_skips_wake_other_hosts() {
    let Some(schema) = Schema::new() else { return };
    let (one, other) = (schema.open(true).await, schema.open(true).await);
    let session = orders(&one, 1).await;
    let lease = acquire(&one, "billing", 0, &session).await;
    one.commit(parking(&lease, 1, 0)).await.unwrap();
    let stop = Mark::Stop { at: Offset(1), failure: failure() };
    let stop = Commit { mark: Some(stop), ..Commit::clone(&moving(&lease, 2, 1, 1)) };
    one.commit(Arc::new(stop)).await.unwrap();
    while timeout(Duration::from_millis(300), other.changed(LONG)).await.is_ok() {}

    let (changed, asked) = tokio::join!(timeout(LONG / 2, other.changed(LONG)), async {
        sleep(Duration::from_millis(50)).await;
        one.request_letters("billing", &LetterQuery::default(), LetterRequest::Discard).await
    });
    assert!(changed.is_ok() && asked.unwrap() == 1);
    while timeout(Duration::from_millis(300), other.changed(LONG)).await.is_ok() {}
    let (changed, skipped) = tokio::join!(timeout(LONG / 2, other.changed(LONG)), async {
        sleep(Duration::from_millis(50)).await;
        one.skip("billing", 0, false).await
    });
    assert_eq!((changed.unwrap().membership, skipped.unwrap()), (true, Offset(1)));
    assert_eq!(one.commit(moving(&lease, 3, 2, 3)).await.unwrap(), CommitOutcome::Fenced);
}
