//! Appending from SQL, in a caller's own transaction, and the views for people.

use pelton_core::partition_of;
use pelton_store::Store;
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::{ALL, acquire, assert_dense, event, group, moving, register, schema::Schema, stream};

type Answer = (String, i32, i64, String, bool);

async fn append(schema: &Schema, connection: &mut PgConnection, call: &str) -> Result<Vec<Answer>, String> {
    let query = sqlx::query_as(schema.sql(&format!("SELECT * FROM @.{call}"))).fetch_all(connection).await;
    query.map_err(|error| error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().into()))
}

#[tokio::test]
async fn an_event_that_sql_appends_is_read_as_it_was_given() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(false).await;
    stream(&store, "orders", 1).await;
    let mut connection = schema.connect().await;
    let call = r#"append('orders', '[
        {"id": "1", "key": "k", "kind": "placed", "headers": {"a": "b", "c": "ä"}, "payload": {"a": [1, null]}},
        {"payload_base64": "/wA="},
        {"id": "3", "payload": null, "key": null, "headers": null, "stream": "x", "partition": 7, "offset": 1, "time": 1}]')"#;
    let answers = append(&schema, &mut connection, call).await.unwrap();
    assert_eq!(answers.iter().map(|answer| answer.2).collect::<Vec<_>>(), [0, 1, 2]);
    let events = store.read("orders", 0, pelton_core::Offset(0), ALL).await.unwrap();
    let first = &events[0];
    assert_eq!((first.id.as_str(), first.key.as_deref(), first.kind.as_str()), ("1", Some("k"), "placed"));
    assert_eq!(first.headers, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "ä".to_owned())]);
    assert_eq!(first.payload, br#"{"a": [1, null]}"#);
    assert_eq!((events[1].payload.as_slice(), events[1].id.as_str()), ([0xff, 0].as_slice(), answers[1].3.as_str()));
    assert_eq!((events[2].payload.as_slice(), &events[2].key, events[2].headers.len()), (&b"null"[..], &None, 0));
    assert!(!answers[1].3.is_empty(), "an id was made up");
}

#[tokio::test]
async fn what_is_rolled_back_leaves_nothing_and_no_gap() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(false).await;
    stream(&store, "orders", 2).await;
    let mut connection = schema.connect().await;
    let mut transaction = connection.begin().await.unwrap();
    append(&schema, &mut transaction, r#"append('orders', '[{"id": "a", "payload": 1}, {"id": "b", "payload": 1}]')"#)
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    for partition in 0..2 {
        assert_eq!(assert_dense(&store, "orders", partition).await, 0);
    }
    append(&schema, &mut connection, r#"append('orders', '[{"id": "a", "payload": 1}]')"#).await.unwrap();
    let answers = store.append("orders", vec![event("a"), event("b"), event("c")]).await.unwrap();
    assert_eq!(answers.iter().map(|answer| answer.duplicate).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(assert_dense(&store, "orders", 0).await + assert_dense(&store, "orders", 1).await, 3);
}

#[tokio::test]
async fn duplicates_are_reported_and_not_appended() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(false).await;
    stream(&store, "orders", 1).await;
    store.append("orders", vec![event("old")]).await.unwrap();
    let mut connection = schema.connect().await;
    let call = r#"append('orders', '[{"id": "a", "payload": 1}, {"id": "old", "payload": 2}, {"id": "a", "payload": 3},
        {"id": "b", "payload": 4}]')"#;
    let answers = append(&schema, &mut connection, call).await.unwrap();
    let told: Vec<_> = answers.iter().map(|answer| (answer.3.as_str(), answer.2, answer.4)).collect();
    assert_eq!(told, [("a", 1, false), ("old", 0, true), ("a", 1, true), ("b", 2, false)]);
    assert_eq!(assert_dense(&store, "orders", 0).await, 3);
}

#[tokio::test]
async fn several_streams_at_once_are_answered_in_the_order_given() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(false).await;
    stream(&store, "orders", 1).await;
    stream(&store, "audit", 1).await;
    let mut connection = schema.connect().await;
    let call = r#"append('[{"stream": "orders", "id": "1", "payload": 1}, {"stream": "audit", "id": "2", "payload": 1},
        {"stream": "orders", "id": "3", "payload": 1}]')"#;
    let answers = append(&schema, &mut connection, call).await.unwrap();
    let told: Vec<_> = answers.iter().map(|answer| (answer.0.as_str(), answer.2, answer.3.as_str())).collect();
    assert_eq!(told, [("orders", 0, "1"), ("audit", 0, "2"), ("orders", 1, "3")]);
}

#[tokio::test]
async fn keys_go_where_the_host_looks_for_them() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(false).await;
    let mut connection = schema.connect().await;
    let mut keys: Vec<String> = (0..300).map(|n| format!("key-{n}")).collect();
    keys.extend(["", " ", "ключ", "名前", "🦀", "e\u{301}", "é", "a'b\"c\\", &"x".repeat(1024)].map(Into::into));
    for partitions in [1, 2, 3, 7, 8, 16, 1_000, 1_024, 65_537, i32::MAX] {
        let places: Vec<i32> = sqlx::query_scalar(schema.sql("SELECT @.partition_of(k, $2) FROM unnest($1::text[]) k"))
            .bind(&keys)
            .bind(partitions)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        for (key, place) in keys.iter().zip(places) {
            assert_eq!(place, partition_of(key, partitions as u32) as i32, "{key:?} over {partitions}");
        }
    }
    stream(&store, "orders", 7).await;
    let call = r#"append('orders', '[{"key": "ключ", "payload": 1}, {"id": "🦀", "payload": 1}]')"#;
    let answers = append(&schema, &mut connection, call).await.unwrap();
    assert_eq!((answers[0].1, answers[1].1), (partition_of("ключ", 7) as i32, partition_of("🦀", 7) as i32));
}

#[tokio::test]
async fn faulty_events_are_refused_with_what_was_expected() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(false).await;
    stream(&store, "orders", 1).await;
    let mut connection = schema.connect().await;
    let long = "x".repeat(1_025);
    let large = "x".repeat(1_000);
    let cases = [
        ("append('none', '[]')".to_owned(), "stream \"none\" does not exist; known streams: \"orders\""),
        ("append('orders', '{}')".into(), "expected an array"),
        ("append('orders', NULL)".into(), "expected an array"),
        ("append('orders', '[1]')".into(), "event 0 of the batch is a JSON number; expected an object"),
        (
            r#"append('orders', '[{"payload": 1}, {"payload": 1, "Key": "k"}]')"#.into(),
            "event 1 of the batch (id not given): unknown field \"Key\"",
        ),
        (r#"append('orders', '[{}]')"#.into(), "payload is missing"),
        (r#"append('orders', '[{"payload": 1, "payload_base64": ""}]')"#.into(), "expected one of them"),
        (r#"append('orders', '[{"payload_base64": "?"}]')"#.into(), "payload_base64 is not base64"),
        (r#"append('orders', '[{"payload": 1, "id": 7}]')"#.into(), "id is a JSON number; expected a string"),
        (r#"append('orders', '[{"payload": 1, "id": ""}]')"#.into(), "id is empty; expected 1 to 1024 bytes"),
        (
            format!(r#"append('orders', '[{{"payload": 1, "key": "{long}"}}]')"#),
            "key has 1025 bytes; expected at most 1024",
        ),
        (
            format!(r#"append('orders', '[{{"payload": "{large}"}}]')"#),
            "payload has 1002 bytes, over the stream's payload_max of 1000",
        ),
        (
            r#"append('orders', '[{"payload": 1, "headers": {"a": 1}}]')"#.into(),
            "header \"a\" is a JSON number; expected a string",
        ),
        (r#"append('orders', '[{"payload": 1, "headers": []}]')"#.into(), "headers is a JSON array"),
        (r#"append('[{"payload": 1}]')"#.into(), "names no stream"),
    ];
    for (call, expected) in cases {
        let error = append(&schema, &mut connection, &call).await.unwrap_err();
        assert!(error.contains(expected), "{call}: {error}");
    }
    assert_eq!(assert_dense(&store, "orders", 0).await, 0);
}

#[tokio::test]
async fn views_tell_people_where_groups_stand() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open(true).await;
    stream(&store, "orders", 1).await;
    group(&store, "billing", "orders").await;
    store.append("orders", vec![event("a"), event("b")]).await.unwrap();
    let session = register(&store, "one", "billing").await;
    let lease = acquire(&store, "billing", 0, &session).await;
    store.commit(moving(&lease, 1, 0, 1)).await.unwrap();
    let mut connection = schema.connect().await;
    let status = schema.sql(r#"SELECT "group", stream, partition, owner, epoch, committed, head, lag, committed_at IS NOT NULL AS moved FROM @.group_status"#);
    let row = connection.fetch_one(sqlx::query(status)).await.unwrap();
    assert_eq!((row.get::<&str, _>("owner"), row.get::<i64, _>("lag"), row.get::<bool, _>("moved")), ("one", 1, true));
    group(&store, "audit", "orders").await;
    stream(&store, "mail", 11).await;
    group(&store, "letters", "mail").await;
    let places = schema.sql(r#"SELECT "group" || partition FROM @.group_status"#);
    let places: Vec<String> = sqlx::query_scalar(places).fetch_all(&mut connection).await.unwrap();
    let letters = (0..11).map(|partition| format!("letters{partition}"));
    assert_eq!(places, ["audit0".to_owned(), "billing0".to_owned()].into_iter().chain(letters).collect::<Vec<_>>());
    let consumers = || schema.sql(r#"SELECT consumer || ' ' || session_timeout || ' ' || status FROM @.consumers"#);
    let told: String = sqlx::query_scalar(consumers()).fetch_one(&mut connection).await.unwrap();
    assert_eq!(told, "one 00:00:10 active");
    drop(store);
    let gone = async {
        while sqlx::query_scalar::<_, String>(consumers()).fetch_one(&mut connection).await.unwrap()
            != "one 00:00:10 stale"
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), gone).await.unwrap();
}
