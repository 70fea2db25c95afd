//! The log: appending and reading.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use pelton_core::{EventFault, NewEvent, Offset, partition_of};
use pelton_store::{ReadLimit, StoreError, StreamSpec};

use crate::bed::{ALL, Bed, PAYLOAD_BYTES_MAX, event, key_for, keyed, stream};

pub(crate) async fn offsets_are_dense_in_each_partition(bed: Bed) {
    bed.stream("orders", 4).await;
    for batch in 0..10 {
        let ids: Vec<String> = (0..37).map(|n| format!("{batch}-{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let appended = bed.append("orders", &ids).await;
        assert_eq!(
            appended.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(),
            ids,
            "answers come in the order asked"
        );
    }
    let mut total = 0;
    for partition in 0..4 {
        let events = bed.read("orders", partition).await;
        let offsets: Vec<u64> = events.iter().map(|event| event.offset.0).collect();
        assert_eq!(offsets, (0..events.len() as u64).collect::<Vec<_>>());
        assert!(events.iter().all(|event| partition_of(&event.id, 4) == partition));
        total += events.len();
    }
    assert_eq!(total, 370);
    let streams = bed.store.streams().await.unwrap();
    assert_eq!(streams[0].partitions.iter().map(|partition| partition.head.0).sum::<u64>(), 370);
}

pub(crate) async fn events_of_a_key_keep_their_order(bed: Bed) {
    bed.stream("orders", 8).await;
    let events = (0..200).map(|n| keyed(&format!("{n:03}"), &format!("customer-{}", n % 5))).collect();
    bed.store.append("orders", events).await.unwrap();
    for customer in 0..5 {
        let key = format!("customer-{customer}");
        let events = bed.read("orders", partition_of(&key, 8)).await;
        let ids: Vec<&str> =
            events.iter().filter(|event| event.key.as_ref() == Some(&key)).map(|event| &*event.id).collect();
        assert_eq!(ids.len(), 40);
        assert!(ids.is_sorted(), "{ids:?}");
    }
}

pub(crate) async fn an_event_is_read_as_it_was_appended(bed: Bed) {
    bed.stream("orders", 1).await;
    bed.set_time(77).await;
    let headers = vec![("trace".into(), "a\"b\\ü".into()), ("trace".into(), String::new())];
    let sent = NewEvent {
        id: "Ö-1".into(),
        key: Some(String::new()),
        kind: "order.placed".into(),
        headers,
        payload: vec![0, 255, b'\'', 10],
    };
    let plain = NewEvent { id: "2".into(), ..NewEvent::default() };
    bed.store.append("orders", vec![sent.clone(), plain]).await.unwrap();
    let events = bed.read("orders", 0).await;
    let read = events[0].clone();
    assert_eq!((read.offset, read.time.0), (Offset(0), 77));
    let back = NewEvent { id: read.id, key: read.key, kind: read.kind, headers: read.headers, payload: read.payload };
    assert_eq!(back, sent);
    assert_eq!((&events[1].key, events[1].headers.len(), events[1].payload.len()), (&None, 0, 0));
}

pub(crate) async fn an_id_that_is_there_already_is_reported_and_not_appended(bed: Bed) {
    bed.stream("orders", 1).await;
    bed.append("orders", &["a", "b"]).await;
    let again = bed.append("orders", &["b", "c", "a"]).await;
    let told: Vec<(u64, bool)> = again.iter().map(|one| (one.offset.0, one.duplicate)).collect();
    assert_eq!(told, [(1, true), (2, false), (0, true)]);
    assert_eq!(bed.ids("orders", 0).await, ["a", "b", "c"]);
}

pub(crate) async fn an_id_twice_in_one_batch_is_appended_once(bed: Bed) {
    bed.stream("orders", 1).await;
    let told: Vec<(u64, bool)> = bed
        .append("orders", &["a", "b", "a", "a", "c"])
        .await
        .iter()
        .map(|one| (one.offset.0, one.duplicate))
        .collect();
    assert_eq!(told, [(0, false), (1, false), (0, true), (0, true), (2, false)]);
    assert_eq!(bed.ids("orders", 0).await, ["a", "b", "c"]);
}

pub(crate) async fn a_long_batch_with_duplicates_in_the_middle_stays_dense(bed: Bed) {
    bed.stream("orders", 2).await;
    let ids = |range: std::ops::Range<u32>| range.map(|n| event(&format!("{n}"))).collect::<Vec<_>>();
    bed.store.append("orders", ids(400..450)).await.unwrap();
    let appended = bed.store.append("orders", ids(0..1_000)).await.unwrap();
    assert_eq!(appended.iter().filter(|one| one.duplicate).count(), 50);
    let mut total = 0;
    for partition in 0..2 {
        let events = bed.read("orders", partition).await;
        assert!(events.iter().zip(0..).all(|(event, offset)| event.offset == Offset(offset)));
        total += events.len();
    }
    assert_eq!(total, 1_000);
    for one in appended {
        let found =
            bed.store.read("orders", one.partition, one.offset, ReadLimit { events: 1, bytes: 1 }).await.unwrap();
        assert_eq!(found[0].id, one.id);
    }
}

pub(crate) async fn an_id_is_looked_for_in_its_own_partition_only(bed: Bed) {
    bed.stream("orders", 2).await;
    let events = vec![keyed("same", &key_for(0, 2)), keyed("same", &key_for(1, 2))];
    let appended = bed.store.append("orders", events).await.unwrap();
    assert!(appended.iter().all(|one| !one.duplicate));
}

pub(crate) async fn one_faulty_event_refuses_the_whole_batch_and_is_named(bed: Bed) {
    bed.stream("orders", 1).await;
    let large = NewEvent { payload: vec![0; PAYLOAD_BYTES_MAX as usize + 1], ..event("large") };
    let error = bed.store.append("orders", vec![event("a"), large]).await.unwrap_err();
    let StoreError::EventRefused { index, id, fault } = error else { panic!("{error}") };
    assert_eq!((index, id.as_str()), (1, "large"));
    assert!(matches!(fault, EventFault::PayloadTooLarge { limit: PAYLOAD_BYTES_MAX, .. }));
    let error = bed.store.append("orders", vec![event("a"), event("")]).await.unwrap_err();
    assert!(matches!(error, StoreError::EventRefused { index: 1, fault: EventFault::EmptyId, .. }));
    assert!(bed.read("orders", 0).await.is_empty());
}

pub(crate) async fn a_payload_of_exactly_the_limit_is_taken(bed: Bed) {
    bed.stream("orders", 1).await;
    let full = NewEvent { payload: vec![7; PAYLOAD_BYTES_MAX as usize], ..event("full") };
    bed.store.append("orders", vec![full.clone()]).await.unwrap();
    assert_eq!(bed.read("orders", 0).await[0].payload, full.payload);
}

pub(crate) async fn the_payload_limit_may_change(bed: Bed) {
    bed.stream("orders", 1).await;
    let spec = StreamSpec { payload_bytes_max: 3, ..stream("orders", 1) };
    bed.store.declare_stream(&spec).await.unwrap();
    assert_eq!(bed.store.streams().await.unwrap()[0].spec, spec);
    assert!(bed.store.append("orders", vec![event("a")]).await.is_err());
}

pub(crate) async fn the_number_of_partitions_may_not_change(bed: Bed) {
    bed.stream("orders", 4).await;
    let spec = StreamSpec { payload_bytes_max: 1, ..stream("orders", 5) };
    let error = bed.store.declare_stream(&spec).await.unwrap_err();
    assert!(matches!(error, StoreError::PartitionsDiffer { declared: 5, found: 4, .. }), "{error}");
    assert_eq!(bed.store.streams().await.unwrap()[0].spec.payload_bytes_max, PAYLOAD_BYTES_MAX);
}

pub(crate) async fn unknown_streams_and_partitions_are_named_with_those_there_are(bed: Bed) {
    let error = bed.store.append("order", vec![event("a")]).await.unwrap_err();
    assert_eq!(error.to_string(), r#"stream "order" does not exist; there are no streams yet"#);
    bed.stream("orders", 2).await;
    bed.stream("invoices", 1).await;
    let error = bed.store.read("order", 0, Offset(0), ALL).await.unwrap_err();
    assert_eq!(error.to_string(), r#"stream "order" does not exist; known streams: "invoices", "orders""#);
    let error = bed.store.read("orders", 2, Offset(0), ALL).await.unwrap_err();
    assert_eq!(error.to_string(), r#"stream "orders" has no partition 2; it has 2, numbered from 0"#);
}

pub(crate) async fn a_read_ends_at_its_limit_of_events(bed: Bed) {
    bed.orders(10).await;
    let limit = ReadLimit { events: 3, ..ALL };
    let read = bed.store.read("orders", 0, Offset(2), limit).await.unwrap();
    assert_eq!(read.iter().map(|event| event.offset.0).collect::<Vec<_>>(), [2, 3, 4]);
}

pub(crate) async fn a_read_ends_at_its_limit_of_bytes(bed: Bed) {
    bed.stream("orders", 1).await;
    let sized = |n: usize| NewEvent { payload: vec![0; n], ..event(&format!("{n}")) };
    let events = vec![sized(10), sized(20), sized(30), sized(40)];
    bed.store.append("orders", events.clone()).await.unwrap();
    let read =
        async |bytes| bed.store.read("orders", 0, Offset(0), ReadLimit { events: 100, bytes }).await.unwrap().len();
    let mut bytes = 0;
    for (fit, event) in events.iter().enumerate() {
        bytes += event.bytes() as u64;
        assert_eq!(read(bytes - 1).await, fit.max(1), "one byte less than {} events", fit + 1);
        assert_eq!(read(bytes).await, fit + 1, "exactly {} events", fit + 1);
    }
}

pub(crate) async fn a_read_gives_one_event_however_large(bed: Bed) {
    bed.orders(3).await;
    let read = bed.store.read("orders", 0, Offset(1), ReadLimit { events: 0, bytes: 0 }).await.unwrap();
    assert_eq!(read.iter().map(|event| event.offset.0).collect::<Vec<_>>(), [1]);
}

pub(crate) async fn a_read_at_or_past_the_head_is_empty(bed: Bed) {
    bed.orders(3).await;
    for from in [3, 4, u64::MAX] {
        assert!(bed.store.read("orders", 0, Offset(from), ALL).await.unwrap().is_empty());
    }
}

pub(crate) async fn one_large_event_does_not_shorten_a_read_of_small_ones(bed: Bed) {
    bed.orders(300).await;
    let large = NewEvent { payload: vec![0; 50_000], ..event("large") };
    bed.store.append("orders", vec![large]).await.unwrap();
    let limit = ReadLimit { events: 250, bytes: 60_000 };
    assert_eq!(bed.store.read("orders", 0, Offset(0), limit).await.unwrap().len(), 250);
}

pub(crate) async fn appends_at_the_same_time_get_different_offsets(bed: Bed) {
    bed.stream("orders", 2).await;
    let appends = (0..100).map(|n| bed.store.append("orders", vec![event(&format!("a{n}")), event(&format!("b{n}"))]));
    let appended = join_all(appends).await.into_iter().flat_map(Result::unwrap);
    let places: BTreeSet<(u32, Offset)> = appended.map(|one| (one.partition, one.offset)).collect();
    assert_eq!(places.len(), 200);
    assert_eq!(bed.ids("orders", 0).await.len() + bed.ids("orders", 1).await.len(), 200);
}
