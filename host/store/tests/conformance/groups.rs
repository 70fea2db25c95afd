//! Groups: where they start, who holds what, and what is asked of them from outside.

use pelton_core::{Commit, Control, Epoch, Mark, Offset, Timestamp};
use pelton_store::{GroupSpec, Start, StoreError};

use crate::bed::{Bed, group, key_for, keyed, moves, stop};

pub(crate) async fn a_group_starts_at_the_first_event(bed: Bed) {
    bed.orders(3).await;
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.position, place.head), (Offset(0), Offset(0), Offset(3)));
    assert_eq!((place.owner, place.epoch, place.mark, place.committed_at), (None, Epoch(0), Mark::Clear, None));
}

pub(crate) async fn a_group_starts_at_the_head(bed: Bed) {
    bed.stream("orders", 2).await;
    let key = key_for(1, 2);
    bed.store.append("orders", vec![keyed("a", &key), keyed("b", &key)]).await.unwrap();
    bed.store.declare_group(&group("late", "orders", Start::Latest)).await.unwrap();
    bed.store.append("orders", vec![keyed("c", &key)]).await.unwrap();
    assert_eq!(bed.place("late", 0).await.committed, Offset(0));
    assert_eq!(bed.place("late", 1).await.committed, Offset(2));
}

pub(crate) async fn a_group_starts_at_a_time(bed: Bed) {
    bed.stream("orders", 1).await;
    for (time, id) in [(100, "a"), (200, "b"), (300, "c")] {
        bed.set_time(time).await;
        bed.append("orders", &[id]).await;
    }
    for (time, expected) in [(0, 0), (100, 0), (101, 1), (200, 1), (300, 2), (301, 3), (u64::MAX, 3)] {
        let name = format!("at-{time}");
        bed.store.declare_group(&group(&name, "orders", Start::At(Timestamp(time)))).await.unwrap();
        assert_eq!(bed.place(&name, 0).await.committed, Offset(expected), "at {time}");
    }
}

pub(crate) async fn a_group_keeps_its_place_when_declared_again(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.commit(moves(&lease, 0, 2)).await;
    bed.store.declare_group(&group("billing", "orders", Start::Latest)).await.unwrap();
    assert_eq!(bed.place("billing", 0).await.committed, Offset(2));
}

pub(crate) async fn a_group_cannot_change_its_stream(bed: Bed) {
    bed.orders(0).await;
    bed.stream("invoices", 1).await;
    let error = bed.store.declare_group(&group("billing", "invoices", Start::Earliest)).await.unwrap_err();
    let StoreError::StreamDiffers { group: name, declared, found } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), declared.as_str(), found.as_str()), ("billing", "invoices", "orders"));
    let error = bed.store.declare_group(&group("new", "nowhere", Start::Earliest)).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownStream { .. }), "{error}");
}

pub(crate) async fn a_group_may_change_its_handler(bed: Bed) {
    bed.orders(0).await;
    let spec = GroupSpec { handler: "other".into(), ..group("billing", "orders", Start::Earliest) };
    bed.store.declare_group(&spec).await.unwrap();
    let groups = bed.store.groups().await.unwrap();
    assert_eq!((groups[0].name.as_str(), groups[0].handler.as_str(), groups.len()), ("billing", "other", 1));
}

pub(crate) async fn unknown_groups_and_partitions_are_named_with_those_there_are(bed: Bed) {
    bed.orders(0).await;
    let store = &bed.store;
    let session = bed.register("host", &[]).await;
    let expected = r#"group "b" does not exist; known groups: "billing""#;
    assert_eq!(store.acquire("b", 0, &session).await.unwrap_err().to_string(), expected);
    assert_eq!(store.pause("b", None, true).await.unwrap_err().to_string(), expected);
    assert_eq!(store.resume("b", Some(0)).await.unwrap_err().to_string(), expected);
    assert_eq!(store.state("b", 0, "key").await.unwrap_err().to_string(), expected);
    let expected = r#"group "billing" has no partition 1; it has 1, numbered from 0"#;
    assert_eq!(store.acquire("billing", 1, &session).await.unwrap_err().to_string(), expected);
    assert_eq!(store.pause("billing", Some(1), true).await.unwrap_err().to_string(), expected);
    assert_eq!(store.resume("billing", Some(1)).await.unwrap_err().to_string(), expected);
    assert_eq!(store.state("billing", 1, "key").await.unwrap_err().to_string(), expected);
}

pub(crate) async fn acquiring_raises_the_epoch_and_tells_what_is_stored(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(moves(&lease, 0, 2)).await;
    bed.store.pause("billing", None, true).await.unwrap();
    let claim = bed.claim("billing", 0, "two").await;
    assert_eq!((claim.epoch, claim.committed, claim.head), (Epoch(lease.epoch.0 + 1), Offset(2), Offset(5)));
    assert_eq!((claim.mark, claim.control), (Mark::Clear, Control { paused: true, ..Control::default() }));
    assert_eq!(bed.place("billing", 0).await.owner.as_deref(), Some("two"));
}

pub(crate) async fn a_released_partition_has_no_owner(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.store.release(&lease).await.unwrap();
    bed.store.release(&lease).await.unwrap();
    let place = bed.place("billing", 0).await;
    assert_eq!((place.owner, place.epoch), (None, lease.epoch));
    assert_eq!(bed.acquire("billing", 0, "host").await.epoch.0, lease.epoch.0 + 1, "an epoch never comes back");
}

pub(crate) async fn only_the_present_lease_releases(bed: Bed) {
    bed.orders(1).await;
    let old = bed.acquire("billing", 0, "one").await;
    let new = bed.acquire("billing", 0, "two").await;
    bed.store.release(&old).await.unwrap();
    assert_eq!(bed.place("billing", 0).await.owner.as_deref(), Some("two"));
    bed.store.release(&new).await.unwrap();
    assert_eq!(bed.place("billing", 0).await.owner, None);
}

pub(crate) async fn a_pause_is_stored_for_one_partition_or_all(bed: Bed) {
    bed.stream("orders", 3).await;
    bed.group("billing", "orders").await;
    let paused = async || {
        let progress = bed.store.progress().await.unwrap();
        progress.iter().map(|one| one.control.paused).collect::<Vec<_>>()
    };
    bed.store.pause("billing", Some(1), true).await.unwrap();
    assert_eq!(paused().await, [false, true, false]);
    bed.store.pause("billing", None, true).await.unwrap();
    assert_eq!(paused().await, [true, true, true]);
    bed.store.pause("billing", Some(0), false).await.unwrap();
    assert_eq!(paused().await, [false, true, true]);
}

pub(crate) async fn resuming_ends_a_pause_and_a_stop_and_is_counted(bed: Bed) {
    bed.orders(2).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.commit(Commit { mark: Some(stop(0, 3)), given_up_in_row: 4, ..moves(&lease, 0, 0) }).await;
    bed.store.pause("billing", None, true).await.unwrap();
    assert!(bed.store.progress().await.unwrap()[0].stopped);
    bed.store.resume("billing", Some(0)).await.unwrap();
    let progress = bed.store.progress().await.unwrap();
    assert_eq!((progress[0].stopped, progress[0].control), (false, Control { resumes: 1, ..Control::default() }));
    let place = bed.place("billing", 0).await;
    assert_eq!((place.mark, place.given_up_in_row), (Mark::Clear, 0), "whatever opened the breaker is over too");
    bed.store.resume("billing", None).await.unwrap();
    assert_eq!(bed.store.progress().await.unwrap()[0].control.resumes, 2);
}

pub(crate) async fn progress_tells_where_every_partition_stands(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    bed.group("audit", "orders").await;
    let key = key_for(1, 2);
    bed.store.append("orders", vec![keyed("a", &key), keyed("b", &key)]).await.unwrap();
    let lease = bed.acquire("billing", 1, "host").await;
    bed.commit(moves(&lease, 0, 1)).await;
    let told: Vec<(String, u32, u64, u64)> = bed
        .store
        .progress()
        .await
        .unwrap()
        .into_iter()
        .map(|one| (one.group, one.partition, one.committed.0, one.head.0))
        .collect();
    let expected = [("audit", 0, 0, 0), ("audit", 1, 0, 2), ("billing", 0, 0, 0), ("billing", 1, 1, 2)];
    assert_eq!(
        told,
        expected.map(|(group, partition, committed, head)| (group.to_owned(), partition, committed, head))
    );
}
