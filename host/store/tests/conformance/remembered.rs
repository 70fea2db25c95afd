//! Ids that a group must not handle again: remembered with a commit, and forgotten.

use std::collections::BTreeSet;

use pelton_core::{Commit, CommitOutcome, Lease, LetterRequest, Offset, Settled, Timestamp};
use pelton_store::{Reset, StoreError};

use crate::bed::{Bed, at, emits, failure, key_for, keyed, letter, moves, stop};

/// Later than any time, farther than any distance.
const FOR_EVER: u64 = u64::MAX;

/// Which of these ids `billing` remembers.
async fn known(bed: &Bed, ids: &[&str]) -> Vec<String> {
    let asked = ids.iter().map(|id| (*id).to_owned()).collect();
    bed.store.remembered("billing", 0, asked).await.unwrap().into_iter().collect()
}

fn ids(offsets: impl Iterator<Item = u64>) -> Vec<(Offset, String)> {
    offsets.map(|offset| (Offset(offset), format!("o{offset}"))).collect()
}

/// Passes events and remembers them.
async fn handles(bed: &Bed, lease: &Lease, from: u64, to: u64) {
    let commit = Commit { remembered: ids(from..to), ..moves(lease, from, to) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
}

/// Of `o0` to `o9`.
async fn offsets_known(bed: &Bed) -> Vec<u64> {
    let all: Vec<String> = (0..10).map(|n| format!("o{n}")).collect();
    let known = bed.store.remembered("billing", 0, all.clone()).await.unwrap();
    all.iter().zip(0..).filter(|(id, _)| known.contains(*id)).map(|(_, n)| n).collect()
}

async fn forget(bed: &Bed, before: u64, keep: u64) -> u64 {
    bed.store.forget("billing", Timestamp(before), keep, 1_000).await.unwrap()
}

pub(crate) async fn ids_are_remembered_with_their_commit(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    assert!(known(&bed, &["o0"]).await.is_empty());
    let remembered = vec![(Offset(0), "o0".to_owned()), (Offset(2), "Ö's \"2\"".to_owned())];
    bed.commit(Commit { remembered, ..moves(&lease, 0, 3) }).await;
    assert_eq!(known(&bed, &["o0", "o1", "Ö's \"2\"", "O0", "o0"]).await, ["o0", "Ö's \"2\""]);
    assert!(known(&bed, &[]).await.is_empty());
    bed.acquire("billing", 0, "two").await;
    assert_eq!(known(&bed, &["o0"]).await, ["o0"], "whoever owns the partition");
}

pub(crate) async fn ids_belong_to_one_group_and_partition(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    bed.group("audit", "orders").await;
    let lease = bed.acquire("billing", 1, "one").await;
    bed.commit(Commit { remembered: ids(0..1), ..moves(&lease, 0, 0) }).await;
    let known = async |group, partition| bed.store.remembered(group, partition, vec!["o0".into()]).await.unwrap().len();
    assert_eq!((known("billing", 1).await, known("billing", 0).await, known("audit", 1).await), (1, 0, 0));
}

pub(crate) async fn a_commit_that_fails_remembers_nothing(bed: Bed) {
    bed.orders(5).await;
    let old = bed.acquire("billing", 0, "one").await;
    let new = bed.acquire("billing", 0, "two").await;
    assert_eq!(bed.commit(Commit { remembered: ids(0..2), ..moves(&old, 0, 2) }).await, CommitOutcome::Fenced);
    let refused = Commit { remembered: ids(0..2), effects: emits("nowhere", &["n"]), ..moves(&new, 0, 2) };
    assert!(matches!(bed.commit(refused).await, CommitOutcome::Refused(_)));
    assert!(offsets_known(&bed).await.is_empty());
}

pub(crate) async fn many_ids_are_remembered_at_once(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let remembered: Vec<(Offset, String)> = ids(0..3_000);
    let expected: BTreeSet<String> = remembered.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(bed.commit(Commit { remembered, ..moves(&lease, 0, 1) }).await, CommitOutcome::Committed);
    let asked = (0..6_000).map(|n| format!("o{n}")).collect();
    assert_eq!(bed.store.remembered("billing", 0, asked).await.unwrap(), expected);
    assert_eq!(bed.store.forget("billing", Timestamp(FOR_EVER), FOR_EVER, 2_500).await.unwrap(), 2_500);
}

pub(crate) async fn an_id_may_be_remembered_twice(bed: Bed) {
    bed.orders(6).await;
    let lease = bed.acquire("billing", 0, "one").await;
    for offset in [0, 3] {
        let remembered = vec![(Offset(offset), "o0".to_owned())];
        let commit = Commit { remembered, ..moves(&lease, offset, offset + 3) };
        assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
    }
    assert_eq!(known(&bed, &["o0"]).await, ["o0"]);
    assert_eq!(forget(&bed, FOR_EVER, FOR_EVER).await, 1);
}

/// Dead letters `o0` to `o4` of `billing`, whose ids it remembers.
async fn set_aside(bed: &Bed) -> Lease {
    bed.orders(6).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let events = bed.read("orders", 0).await.into_iter().take(5);
    let set_aside = events.map(|event| letter(event, false)).collect();
    let commit = Commit { set_aside, remembered: ids(0..5), ..moves(&lease, 0, 5) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
    lease
}

fn gone(offsets: impl Iterator<Item = u64>) -> Vec<Settled> {
    offsets.map(|offset| Settled::Gone(Offset(offset))).collect()
}

pub(crate) async fn what_is_discarded_is_not_remembered_any_more(bed: Bed) {
    let lease = set_aside(&bed).await;
    bed.ask(&at(1), LetterRequest::Discard).await;
    let known_until_then = offsets_known(&bed).await;
    assert_eq!(known_until_then, [0, 1, 2, 3, 4], "as long as it is there, a copy of it is passed over");
    bed.commit(Commit { settled: gone(1..2), ..moves(&lease, 5, 5) }).await;
    assert_eq!(offsets_known(&bed).await, [0, 2, 3, 4]);
    assert_eq!(bed.store.forget("billing", Timestamp(FOR_EVER), FOR_EVER, 1_000).await.unwrap(), 4);
}

pub(crate) async fn what_is_handled_after_all_stays_remembered(bed: Bed) {
    let lease = set_aside(&bed).await;
    // One is handled, one discarded, one fails again, all in one commit.
    let back = Settled::Back { offset: Offset(3), failure: failure(2, "bad"), digest: None };
    let settled = gone(0..2).into_iter().chain([back]).collect();
    bed.commit(Commit { settled, remembered: ids(0..1), ..moves(&lease, 5, 5) }).await;
    assert_eq!(offsets_known(&bed).await, [0, 2, 3, 4]);
    let emits = emits("orders", &["n"]);
    bed.commit(Commit { settled: gone(2..4), remembered: ids(3..4), effects: emits, ..moves(&lease, 5, 5) }).await;
    assert_eq!(offsets_known(&bed).await, [0, 3, 4]);
}

pub(crate) async fn what_is_discarded_elsewhere_stays_remembered(bed: Bed) {
    bed.stream("orders", 2).await;
    for group in ["billing", "audit"] {
        bed.group(group, "orders").await;
    }
    let mut leases = Vec::new();
    for (group, partition) in [("billing", 0), ("billing", 1), ("audit", 0)] {
        let lease = bed.acquire(group, partition, "one").await;
        bed.commit(Commit { remembered: ids(0..2), ..moves(&lease, 0, 0) }).await;
        leases.push(lease);
    }
    bed.commit(Commit { settled: gone(0..1), ..moves(&leases[1], 0, 0) }).await;
    let known = async |group, partition| bed.store.remembered(group, partition, vec!["o0".into()]).await.unwrap().len();
    assert_eq!((known("billing", 0).await, known("billing", 1).await, known("audit", 0).await), (1, 0, 1));
}

pub(crate) async fn a_discard_that_fails_forgets_nothing(bed: Bed) {
    let old = set_aside(&bed).await;
    bed.acquire("billing", 0, "two").await;
    assert_eq!(bed.commit(Commit { settled: gone(0..5), ..moves(&old, 5, 5) }).await, CommitOutcome::Fenced);
    assert_eq!(offsets_known(&bed).await, [0, 1, 2, 3, 4]);
}

pub(crate) async fn what_is_skipped_by_hand_is_remembered_until_it_is_discarded(bed: Bed) {
    bed.orders(2).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(Commit { mark: Some(stop(0, 1)), ..moves(&lease, 0, 0) }).await;
    bed.set_time(200).await;
    bed.store.skip("billing", 0, false).await.unwrap();
    assert_eq!(offsets_known(&bed).await, [0]);
    assert_eq!(forget(&bed, 200, FOR_EVER).await, 0, "remembered from then on");
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(Commit { settled: gone(0..1), ..moves(&lease, 1, 1) }).await;
    assert!(offsets_known(&bed).await.is_empty());
}

pub(crate) async fn a_skip_leaves_what_is_remembered_of_its_id(bed: Bed) {
    bed.orders(2).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let remembered = vec![(Offset(0), "o1".to_owned())];
    bed.commit(Commit { remembered, mark: Some(stop(1, 1)), ..moves(&lease, 0, 1) }).await;
    bed.store.skip("billing", 0, false).await.unwrap();
    assert_eq!(known(&bed, &["o1"]).await, ["o1"]);
}

pub(crate) async fn ids_are_forgotten_after_a_time(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    for (time, offset) in [(100, 0), (200, 1), (300, 2)] {
        bed.set_time(time).await;
        handles(&bed, &lease, offset, offset + 1).await;
    }
    assert_eq!(forget(&bed, 100, FOR_EVER).await, 0, "one remembered at this very time stays");
    assert_eq!(forget(&bed, 300, FOR_EVER).await, 2);
    assert_eq!(offsets_known(&bed).await, [2]);
}

pub(crate) async fn ids_far_behind_the_position_are_forgotten(bed: Bed) {
    bed.orders(10).await;
    let lease = bed.acquire("billing", 0, "one").await;
    handles(&bed, &lease, 0, 10).await;
    assert_eq!(forget(&bed, 0, 10).await, 0);
    assert_eq!(forget(&bed, 0, 4).await, 6);
    assert_eq!(offsets_known(&bed).await, [6, 7, 8, 9]);
    assert_eq!(forget(&bed, 0, 0).await, 4);
}

pub(crate) async fn the_distance_counts_from_each_partitions_own_position(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    for partition in 0..2 {
        let lease = bed.acquire("billing", partition, "one").await;
        bed.commit(Commit { remembered: ids(0..2), ..moves(&lease, 0, 0) }).await;
    }
    assert_eq!(forget(&bed, 0, 0).await, 0, "both stand at the first event");
    let events = (0..2).map(|n| keyed(&format!("o{n}"), &key_for(1, 2))).collect();
    bed.store.append("orders", events).await.unwrap();
    let lease = bed.acquire("billing", 1, "one").await;
    bed.commit(moves(&lease, 0, 2)).await;
    assert_eq!(forget(&bed, 0, 0).await, 2);
    assert_eq!(offsets_known(&bed).await, [0, 1]);
}

pub(crate) async fn so_many_ids_are_forgotten_at_once(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    for partition in 0..2 {
        let lease = bed.acquire("billing", partition, "one").await;
        bed.commit(Commit { remembered: ids(0..5), ..moves(&lease, 0, 0) }).await;
    }
    for expected in [4, 4, 2, 0] {
        let forgotten = bed.store.forget("billing", Timestamp(FOR_EVER), FOR_EVER, 4).await.unwrap();
        assert_eq!(forgotten, expected, "of all partitions together");
    }
}

pub(crate) async fn forgetting_touches_no_other_group(bed: Bed) {
    bed.orders(5).await;
    bed.group("audit", "orders").await;
    let lease = bed.acquire("audit", 0, "one").await;
    bed.commit(Commit { remembered: ids(0..5), ..moves(&lease, 0, 5) }).await;
    assert_eq!(forget(&bed, FOR_EVER, 0).await, 0);
    assert_eq!(bed.store.remembered("audit", 0, vec!["o0".into()]).await.unwrap().len(), 1);
}

pub(crate) async fn a_reset_forgets_ids_from_its_position_on(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    handles(&bed, &lease, 0, 5).await;
    let reset = Reset { group: "billing".into(), to: [(0, Offset(2))].into(), ..Reset::default() };
    bed.store.reset(&Reset { dry_run: true, ..reset.clone() }).await.unwrap();
    assert_eq!(offsets_known(&bed).await, [0, 1, 2, 3, 4]);
    bed.store.reset(&reset).await.unwrap();
    assert_eq!(offsets_known(&bed).await, [0, 1]);
}

pub(crate) async fn a_reset_forgets_nothing_in_other_partitions(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(Commit { remembered: ids(0..5), ..moves(&lease, 0, 0) }).await;
    let reset = Reset { group: "billing".into(), to: [(1, Offset(0))].into(), ..Reset::default() };
    bed.store.reset(&reset).await.unwrap();
    assert_eq!(offsets_known(&bed).await, [0, 1, 2, 3, 4]);
}

/// A group that remembers more ids than one step of its removal forgets. Answers with some of them, the first two among them.
async fn remembers_many(bed: &Bed) -> Vec<String> {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let remembered = ids(0..12_000);
    let some = remembered.iter().filter(|(offset, _)| offset.0 % 1_000 < 2).map(|(_, id)| id.clone()).collect();
    assert_eq!(bed.commit(Commit { remembered, ..moves(&lease, 0, 5) }).await, CommitOutcome::Committed);
    some
}

async fn count_known(bed: &Bed, ids: &[String]) -> usize {
    bed.store.remembered("billing", 0, ids.to_vec()).await.unwrap().len()
}

pub(crate) async fn a_reset_forgets_however_many_there_are(bed: Bed) {
    let some = remembers_many(&bed).await;
    let reset = Reset { group: "billing".into(), to: [(0, Offset(2))].into(), ..Reset::default() };
    bed.store.reset(&reset).await.unwrap();
    assert_eq!((count_known(&bed, &some).await, offsets_known(&bed).await), (2, vec![0, 1]));
    assert_eq!(bed.place("billing", 0).await.committed, Offset(2));
}

pub(crate) async fn a_deleted_group_forgets_however_many_there_are(bed: Bed) {
    let some = remembers_many(&bed).await;
    bed.store.delete_group("billing", false).await.unwrap();
    bed.group("billing", "orders").await;
    assert_eq!(count_known(&bed, &some).await, 0);
}

pub(crate) async fn what_is_refused_forgets_nothing(bed: Bed) {
    let some = remembers_many(&bed).await;
    let reset = |to| Reset { group: "billing".into(), to: [(0, Offset(to))].into(), ..Reset::default() };
    assert!(matches!(bed.store.reset(&reset(6)).await, Err(StoreError::OffsetOutOfRange { .. })));
    bed.register("two", &["billing"]).await;
    assert!(matches!(bed.store.reset(&reset(2)).await, Err(StoreError::GroupActive { .. })));
    assert!(matches!(bed.store.delete_group("billing", false).await, Err(StoreError::GroupActive { .. })));
    assert_eq!(count_known(&bed, &some).await, some.len());
    bed.store.reset(&Reset { force: true, ..reset(2) }).await.unwrap();
    assert_eq!(count_known(&bed, &some).await, 2);
}

pub(crate) async fn a_deleted_group_remembers_nothing(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    handles(&bed, &lease, 0, 5).await;
    bed.store.delete_group("billing", false).await.unwrap();
    bed.group("billing", "orders").await;
    assert!(offsets_known(&bed).await.is_empty());
}

pub(crate) async fn unknown_groups_remember_nothing(bed: Bed) {
    bed.orders(1).await;
    let error = bed.store.remembered("b", 0, vec!["o0".into()]).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownGroup { .. }), "{error}");
    let error = bed.store.remembered("billing", 1, vec!["o0".into()]).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownPartition { .. }), "{error}");
    let error = bed.store.forget("b", Timestamp(0), 0, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownGroup { .. }), "{error}");
}
