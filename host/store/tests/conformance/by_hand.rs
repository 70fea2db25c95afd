//! What is done to a group by hand: moving its positions, and removing it.

use std::collections::BTreeMap;

use pelton_core::{Commit, CommitOutcome, Mark, Offset, Timestamp};
use pelton_store::{Reset, StoreError};

use crate::bed::{Bed, key_for, keyed, moves, stop, writes};

fn reset(to: &[(u32, u64)]) -> Reset {
    let to: BTreeMap<u32, Offset> = to.iter().map(|(partition, offset)| (*partition, Offset(*offset))).collect();
    Reset { group: "billing".into(), to, ..Reset::default() }
}

/// A stream of two partitions with two events each, and a group with state in both.
async fn state_in_two(bed: &Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    for partition in 0..2 {
        let key = key_for(partition, 2);
        let events = ["a", "b"].map(|id| keyed(&format!("{id}{partition}"), &key));
        bed.store.append("orders", events.into()).await.unwrap();
        let lease = bed.acquire("billing", partition, "one").await;
        bed.commit(Commit { effects: writes("total", Some("1")), ..moves(&lease, 0, 2) }).await;
    }
}

pub(crate) async fn a_reset_moves_positions_and_fences_the_owner(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let (mark, failed_by) = (Some(stop(3, 3)), Some("sha256:1".into()));
    bed.commit(Commit { mark, failed_by, given_up_in_row: 2, ..moves(&lease, 0, 3) }).await;
    bed.set_time(7_000).await;
    bed.store.reset(&reset(&[(0, 1)])).await.unwrap();
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.position, place.mark), (Offset(1), Offset(1), Mark::Clear));
    assert_eq!(place.given_up_in_row, 0);
    assert_eq!((place.owner, place.committed_at), (None, Some(Timestamp(7_000))));
    assert_eq!(bed.commit(moves(&lease, 3, 4)).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&lease, 1, 2)).await, CommitOutcome::Fenced, "even from the right position");
    let claim = bed.claim("billing", 0, "one").await;
    assert_eq!((claim.epoch.0, claim.committed, claim.failed_by), (lease.epoch.0 + 1, Offset(1), None));
}

pub(crate) async fn a_reset_moves_only_the_partitions_that_are_named(bed: Bed) {
    state_in_two(&bed).await;
    bed.store.reset(&Reset { clear_state: Some(false), ..reset(&[(1, 0)]) }).await.unwrap();
    let progress = bed.store.progress().await.unwrap();
    assert_eq!((progress[0].committed, progress[1].committed), (Offset(2), Offset(0)));
    assert_eq!((progress[0].owner.as_deref(), progress[1].owner.as_deref()), (Some("one"), None));
}

pub(crate) async fn a_reset_refuses_active_members_unless_forced(bed: Bed) {
    bed.orders(5).await;
    bed.register("one", &["billing"]).await;
    bed.register("two", &["billing"]).await;
    bed.register("idle", &[]).await;
    let error = bed.store.reset(&reset(&[(0, 2)])).await.unwrap_err();
    let StoreError::GroupActive { members, .. } = &error else { panic!("{error}") };
    assert_eq!(members, &["one", "two"]);
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(bed.place("billing", 0).await.committed, Offset(0));
    bed.store.reset(&Reset { force: true, ..reset(&[(0, 2)]) }).await.unwrap();
    assert_eq!(bed.place("billing", 0).await.committed, Offset(2));
    // Whoever is silent or was given up is not at work.
    bed.expel("one", None).await;
    bed.set_time(100_000).await;
    bed.store.reset(&reset(&[(0, 3)])).await.unwrap();
}

pub(crate) async fn a_reset_to_where_no_event_is_or_will_be_next_is_refused(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    let key = key_for(1, 2);
    bed.store.append("orders", vec![keyed("a", &key), keyed("b", &key)]).await.unwrap();
    let error = bed.store.reset(&reset(&[(0, 0), (1, 3)])).await.unwrap_err();
    let StoreError::OffsetOutOfRange { partition, found, first, head, .. } = error else { panic!("{error}") };
    assert_eq!((partition, found, first, head), (1, Offset(3), Offset(0), Offset(2)));
    assert_eq!(bed.place("billing", 0).await.committed_at, None, "nothing was moved");
    bed.store.reset(&reset(&[(1, 2)])).await.unwrap();
    let error = bed.store.reset(&reset(&[(2, 0)])).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownPartition { partition: 2, partitions: 2, .. }), "{error}");
    let error = bed.store.reset(&Reset { group: "none".into(), ..Reset::default() }).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownGroup { .. }), "{error}");
}

pub(crate) async fn a_reset_past_state_wants_a_word_about_it(bed: Bed) {
    state_in_two(&bed).await;
    let error = bed.store.reset(&reset(&[(0, 0)])).await.unwrap_err();
    assert!(matches!(error, StoreError::HasState { .. }), "{error}");
    assert_eq!(bed.place("billing", 0).await.committed, Offset(2));
    bed.store.reset(&Reset { clear_state: Some(false), ..reset(&[(0, 0)]) }).await.unwrap();
    assert_eq!(bed.state("billing", 0, "total").await.as_deref(), Some(&b"1"[..]));
}

pub(crate) async fn clearing_state_clears_only_the_partitions_that_are_named(bed: Bed) {
    state_in_two(&bed).await;
    bed.store.reset(&Reset { clear_state: Some(true), ..reset(&[(1, 0)]) }).await.unwrap();
    assert_eq!(bed.state("billing", 0, "total").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(bed.state("billing", 1, "total").await, None);
    bed.store.reset(&reset(&[(1, 1)])).await.unwrap();
}

pub(crate) async fn a_dry_run_changes_nothing(bed: Bed) {
    state_in_two(&bed).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let groups = bed.store.groups().await.unwrap();
    let dry = Reset { clear_state: Some(true), dry_run: true, ..reset(&[(0, 0), (1, 0)]) };
    bed.store.reset(&dry).await.unwrap();
    assert_eq!(bed.store.groups().await.unwrap(), groups);
    assert!(bed.state("billing", 0, "total").await.is_some());
    assert_eq!(bed.commit(moves(&lease, 2, 2)).await, CommitOutcome::Committed);
    let error = bed.store.reset(&Reset { dry_run: true, ..reset(&[(0, 9)]) }).await.unwrap_err();
    assert!(matches!(error, StoreError::OffsetOutOfRange { .. }), "what it would refuse, it refuses: {error}");
}

pub(crate) async fn a_time_leads_to_its_first_event(bed: Bed) {
    bed.stream("orders", 1).await;
    assert_eq!(bed.store.offset_at("orders", 0, Timestamp(0)).await.unwrap(), Offset(0));
    for (time, id) in [(100, "a"), (200, "b"), (300, "c")] {
        bed.set_time(time).await;
        bed.append("orders", &[id]).await;
    }
    for (time, expected) in [(0, 0), (100, 0), (101, 1), (200, 1), (300, 2), (301, 3), (u64::MAX, 3)] {
        let found = bed.store.offset_at("orders", 0, Timestamp(time)).await.unwrap();
        assert_eq!(found, Offset(expected), "at {time}");
    }
    let error = bed.store.offset_at("orders", 1, Timestamp(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownPartition { .. }), "{error}");
    let error = bed.store.offset_at("none", 0, Timestamp(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownStream { .. }), "{error}");
}

pub(crate) async fn a_deleted_group_leaves_nothing(bed: Bed) {
    state_in_two(&bed).await;
    bed.group("audit", "orders").await;
    let lease = bed.acquire("billing", 0, "one").await;
    let other = bed.acquire("audit", 0, "one").await;
    bed.store.delete_group("billing", false).await.unwrap();
    let names: Vec<String> = bed.store.groups().await.unwrap().into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["audit"]);
    assert!(bed.store.progress().await.unwrap().iter().all(|one| one.group == "audit"));
    assert_eq!(bed.commit(moves(&lease, 2, 2)).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&other, 0, 0)).await, CommitOutcome::Committed);
    let error = bed.store.delete_group("billing", false).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownGroup { .. }), "{error}");
}

pub(crate) async fn a_group_with_active_members_is_not_deleted(bed: Bed) {
    bed.orders(1).await;
    let one = bed.register("one", &["billing"]).await;
    bed.register("two", &["billing"]).await;
    bed.expel("two", None).await;
    let error = bed.store.delete_group("billing", false).await.unwrap_err();
    assert!(matches!(&error, StoreError::GroupActive { members, .. } if members == &["one"]), "{error}");
    bed.store.deregister(&one).await.unwrap();
    bed.store.delete_group("billing", false).await.unwrap();
    assert!(bed.store.hosts().await.unwrap()[0].groups.is_empty(), "the expelled is no member of it any more");
}

pub(crate) async fn a_group_deleted_and_created_again_starts_anew(bed: Bed) {
    state_in_two(&bed).await;
    bed.store.pause("billing", None, true).await.unwrap();
    bed.store.delete_group("billing", false).await.unwrap();
    bed.group("billing", "orders").await;
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.committed_at, place.control.paused), (Offset(0), None, false));
    assert_eq!(bed.state("billing", 0, "total").await, None);
    assert!(bed.seen("billing").await.seats.iter().all(|seat| seat.target.is_none() && seat.previous.is_none()));
}
