//! Passing an event that blocks, by hand.

use pelton_core::{
    Class, Commit, CommitOutcome, DeadLetter, Failure, Hold, Lease,
    LetterRequest::{Discard, Replay},
    Mark, Offset, Timestamp,
};
use pelton_store::{LetterQuery, StoreError};

use crate::bed::{Bed, at, failure, letter, moves, of_key, retry, stop};

/// The partition waits for the event at its position, which failed.
async fn blocks(bed: &Bed, lease: &Lease, at: u64) {
    let failed_by = Some("sha256:9".to_owned());
    let commit = Commit { mark: Some(stop(at, 3)), failed_by, given_up_in_row: 5, ..moves(lease, at, at) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
}

async fn skip(bed: &Bed, park: bool) -> Offset {
    bed.store.skip("billing", 0, park).await.unwrap()
}

async fn refusal(bed: &Bed) -> String {
    let error = bed.store.skip("billing", 0, true).await.unwrap_err();
    let StoreError::NothingBlocks { group, partition, why } = error else { panic!("{error}") };
    assert_eq!((group.as_str(), partition), ("billing", 0));
    why
}

pub(crate) async fn a_skipped_event_is_a_dead_letter(bed: Bed) {
    bed.orders_of(&["a", "b", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(moves(&lease, 0, 1)).await;
    let (first, last) = (Timestamp(1_700_000_000_123), Timestamp(1_700_000_004_567));
    let failure = Failure { class: Class::Timeout, reason: "it's too \"slow\"".into(), attempts: 70_000, first, last };
    let mark = Mark::Stop { at: Offset(1), failure: failure.clone() };
    let digest = Some("sha256:9".to_owned());
    bed.commit(Commit { mark: Some(mark), failed_by: digest.clone(), ..moves(&lease, 1, 1) }).await;
    assert_eq!(skip(&bed, false).await, Offset(1));
    let event = bed.read("orders", 0).await.swap_remove(1);
    assert_eq!(bed.dead().await, [DeadLetter { failure, digest, ..letter(event, false) }]);
}

pub(crate) async fn a_skip_clears_what_was_known_and_moves_by_one(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "one").await;
    blocks(&bed, &lease, 0).await;
    bed.set_time(7_000).await;
    skip(&bed, false).await;
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.position, place.mark), (Offset(1), Offset(1), Mark::Clear));
    assert_eq!((place.letters, place.skipped, place.given_up_in_row), (1, 0, 0));
    assert_eq!((place.owner, place.committed_at), (None, Some(Timestamp(7_000))));
    let progress = bed.store.progress().await.unwrap().swap_remove(0);
    assert_eq!((progress.stopped, progress.failed_by), (false, None));
    let claim = bed.claim("billing", 0, "two").await;
    assert_eq!((claim.committed, claim.mark, claim.failed_by), (Offset(1), Mark::Clear, None));
    assert_eq!((claim.letters, claim.given_up_in_row), (1, 0));
}

pub(crate) async fn a_skip_fences_the_owner(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "one").await;
    blocks(&bed, &lease, 0).await;
    skip(&bed, false).await;
    assert_eq!(bed.commit(moves(&lease, 0, 1)).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&lease, 1, 2)).await, CommitOutcome::Fenced, "even from the right position");
    let next = bed.acquire("billing", 0, "one").await;
    assert_eq!(next.epoch.0, lease.epoch.0 + 1);
    assert_eq!(bed.commit(moves(&next, 1, 2)).await, CommitOutcome::Committed);
}

pub(crate) async fn a_skip_needs_no_owner(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "one").await;
    blocks(&bed, &lease, 0).await;
    bed.store.release(&lease).await.unwrap();
    assert_eq!(skip(&bed, false).await, Offset(0));
}

pub(crate) async fn whatever_a_partition_waits_for_is_skipped(bed: Bed) {
    bed.orders(4).await;
    let hold = |at, why| Mark::Hold { at: Offset(at), failure: failure(2, "hold"), until: Timestamp(9_000), why };
    for mark in [retry(0, 1), hold(1, Hold::Breaker), hold(2, Hold::Full), stop(3, 2)] {
        let (at, known) = mark.failed().map(|(at, failure)| (at, failure.clone())).unwrap();
        let lease = bed.acquire("billing", 0, "one").await;
        bed.commit(Commit { mark: Some(mark), ..moves(&lease, at.0, at.0) }).await;
        assert_eq!(skip(&bed, false).await, at);
        let skipped = bed.dead().await.pop().unwrap();
        assert_eq!((skipped.event.offset, skipped.failure, skipped.digest), (at, known, None));
    }
    assert_eq!(bed.place("billing", 0).await.committed, Offset(4));
}

pub(crate) async fn a_skip_with_its_key_parks_it(bed: Bed) {
    bed.orders_of(&["a", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    blocks(&bed, &lease, 0).await;
    skip(&bed, true).await;
    assert!(bed.dead().await[0].parks);
    assert_eq!(bed.claim("billing", 0, "two").await.parked, [("a".to_owned(), 1)]);
}

pub(crate) async fn a_skip_without_its_key_parks_nothing(bed: Bed) {
    bed.orders_of(&["a", "a", "b", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    // Neither a plain letter of the key nor another key that is parked makes it wait.
    bed.set_aside(&lease, 0..2, false).await;
    bed.set_aside(&lease, 2..3, true).await;
    blocks(&bed, &lease, 3).await;
    skip(&bed, false).await;
    assert!(!bed.dead().await[3].parks);
    assert_eq!(bed.claim("billing", 0, "two").await.parked, [("b".to_owned(), 1)]);
}

pub(crate) async fn a_skip_of_a_parked_key_waits_behind_it(bed: Bed) {
    bed.orders_of(&["a", "b", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..1, true).await;
    bed.commit(moves(&lease, 1, 2)).await;
    blocks(&bed, &lease, 2).await;
    skip(&bed, false).await;
    let letters = bed.letters(&LetterQuery::default()).await;
    assert_eq!((letters[1].letter.parks, letters[1].behind), (true, Some(Offset(0))));
    assert_eq!(bed.claim("billing", 0, "two").await.parked, [("a".to_owned(), 2)]);
}

pub(crate) async fn a_skip_of_an_event_without_a_key_is_a_plain_letter(bed: Bed) {
    bed.orders_of(&["-", "-"]).await;
    for at in 0..2 {
        let lease = bed.acquire("billing", 0, "one").await;
        blocks(&bed, &lease, at).await;
        skip(&bed, true).await;
    }
    assert!(bed.dead().await.iter().all(|letter| !letter.parks));
    assert!(bed.claim("billing", 0, "two").await.parked.is_empty());
}

pub(crate) async fn a_skip_behind_a_key_to_be_replayed_is_replayed_with_it(bed: Bed) {
    bed.orders_of(&["a", "b", "a", "b"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..2, true).await;
    bed.ask(&of_key("a"), Replay).await;
    bed.ask(&of_key("b"), Discard).await;
    for at in [2, 3] {
        let lease = bed.acquire("billing", 0, "one").await;
        blocks(&bed, &lease, at).await;
        skip(&bed, false).await;
    }
    let asked: Vec<_> = bed.dead().await.iter().map(|letter| letter.request).collect();
    assert_eq!(asked, [Some(Replay), Some(Discard), Some(Replay), None]);
}

pub(crate) async fn there_is_nothing_to_skip_where_nothing_failed(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(moves(&lease, 0, 1)).await;
    assert!(refusal(&bed).await.contains("offset 1"));
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.letters), (Offset(1), 0));
    assert_eq!(bed.commit(moves(&lease, 1, 2)).await, CommitOutcome::Committed, "the owner was not disturbed");
}

pub(crate) async fn an_event_is_skipped_only_once(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "one").await;
    blocks(&bed, &lease, 0).await;
    skip(&bed, false).await;
    refusal(&bed).await;
    assert_eq!(bed.place("billing", 0).await.committed, Offset(1));
}

pub(crate) async fn a_skip_passes_over_nothing_that_is_not_committed(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(Commit { mark: Some(stop(3, 1)), ..moves(&lease, 0, 1) }).await;
    let why = refusal(&bed).await;
    assert!(why.contains("offset 3") && why.contains("from 1 on"), "{why}");
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.letters, place.mark), (Offset(1), 0, stop(3, 1)));
    assert_eq!(bed.commit(moves(&lease, 1, 2)).await, CommitOutcome::Committed, "the owner was not disturbed");
}

pub(crate) async fn a_skip_touches_no_other_group(bed: Bed) {
    bed.orders(3).await;
    bed.group("audit", "orders").await;
    let (lease, other) = (bed.acquire("billing", 0, "one").await, bed.acquire("audit", 0, "one").await);
    blocks(&bed, &lease, 0).await;
    blocks(&bed, &other, 0).await;
    skip(&bed, false).await;
    let place = bed.place("audit", 0).await;
    assert_eq!((place.committed, place.letters, place.mark), (Offset(0), 0, stop(0, 3)));
    assert_eq!(bed.commit(moves(&other, 0, 1)).await, CommitOutcome::Committed);
}

pub(crate) async fn a_skipped_event_is_edited_and_discarded_like_any_other(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "one").await;
    blocks(&bed, &lease, 0).await;
    skip(&bed, false).await;
    bed.store.edit_letter("billing", 0, Offset(0), b"new".into()).await.unwrap();
    assert_eq!(bed.ask(&at(0), Discard).await, 1);
    assert_eq!(bed.dead().await[0].event.payload, b"new");
}

pub(crate) async fn unknown_groups_and_partitions_have_nothing_to_skip(bed: Bed) {
    bed.orders(1).await;
    let error = bed.store.skip("b", 0, false).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownGroup { .. }), "{error}");
    let error = bed.store.skip("billing", 1, false).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownPartition { .. }), "{error}");
}
