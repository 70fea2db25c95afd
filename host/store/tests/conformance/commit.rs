//! Commits: what is stored together, what is fenced, what is refused.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use pelton_core::{
    Class, Commit, CommitOutcome, Effects, Emit, Epoch, Failure, Hold, Lease, Mark, NewEvent, Offset, Timestamp,
};

use crate::bed::{Bed, PAYLOAD_BYTES_MAX, emits, event, failure, key_for, keyed, moves, retry, stop, writes};

pub(crate) async fn position_state_and_emits_are_stored_together(bed: Bed) {
    bed.orders(5).await;
    bed.stream("invoices", 1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let mut effects = emits("invoices", &["i1", "i2"]);
    effects.extend(writes("total", Some("12")));
    let outcome = bed.commit(Commit { position: Offset(4), effects, ..moves(&lease, 0, 3) }).await;
    assert_eq!(outcome, CommitOutcome::Committed);
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.position, place.head), (Offset(3), Offset(4), Offset(5)));
    assert_eq!(bed.ids("invoices", 0).await, ["i1", "i2"]);
    assert_eq!(bed.state("billing", 0, "total").await.as_deref(), Some(&b"12"[..]));
}

pub(crate) async fn an_older_epoch_is_fenced(bed: Bed) {
    bed.orders(5).await;
    let old = bed.acquire("billing", 0, "host").await;
    let new = bed.acquire("billing", 0, "host").await;
    assert_eq!(bed.commit(moves(&old, 0, 1)).await, CommitOutcome::Fenced);
    let future = Lease { epoch: Epoch(new.epoch.0 + 1), ..new.clone() };
    assert_eq!(bed.commit(moves(&future, 0, 1)).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&new, 0, 1)).await, CommitOutcome::Committed);
}

pub(crate) async fn another_owner_is_fenced(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let thief = Lease { host: "thief".into(), ..lease };
    assert_eq!(bed.commit(moves(&thief, 0, 1)).await, CommitOutcome::Fenced);
}

pub(crate) async fn another_from_offset_is_fenced(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.commit(moves(&lease, 0, 2)).await;
    assert_eq!(bed.commit(moves(&lease, 0, 3)).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&lease, 3, 4)).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&lease, 2, 4)).await, CommitOutcome::Committed);
}

pub(crate) async fn a_released_lease_is_fenced(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.store.release(&lease).await.unwrap();
    assert_eq!(bed.commit(moves(&lease, 0, 1)).await, CommitOutcome::Fenced);
}

pub(crate) async fn an_unknown_group_is_fenced(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let elsewhere = Lease { group: "gone".into(), ..lease.clone() };
    assert_eq!(bed.commit(moves(&elsewhere, 0, 1)).await, CommitOutcome::Fenced);
    let elsewhere = Lease { partition: 7, ..lease };
    assert_eq!(bed.commit(moves(&elsewhere, 0, 1)).await, CommitOutcome::Fenced);
}

pub(crate) async fn nothing_of_a_fenced_commit_is_kept(bed: Bed) {
    bed.orders(5).await;
    bed.stream("invoices", 1).await;
    let old = bed.acquire("billing", 0, "one").await;
    bed.acquire("billing", 0, "two").await;
    let mut effects = emits("invoices", &["i1"]);
    effects.extend(writes("total", Some("12")));
    let commit = Commit { effects, mark: Some(stop(3, 1)), given_up_in_row: 1, skipped: 1, ..moves(&old, 0, 3) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Fenced);
    let place = bed.place("billing", 0).await;
    assert_eq!((place.given_up_in_row, place.skipped), (0, 0));
    assert_eq!((place.committed, place.mark, place.committed_at), (Offset(0), Mark::Clear, None));
    assert!(bed.ids("invoices", 0).await.is_empty());
    assert_eq!(bed.state("billing", 0, "total").await, None);
}

pub(crate) async fn a_repeated_commit_stores_nothing_twice(bed: Bed) {
    bed.orders(5).await;
    bed.stream("invoices", 1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let first = Commit { effects: emits("invoices", &["i1"]), ..moves(&lease, 0, 2) };
    let mut lost = first.clone();
    lost.effects.extend(writes("total", Some("12")));
    assert_eq!(bed.commit(lost.clone()).await, CommitOutcome::Committed);
    // Other effects than before, to see whether anything is stored at all.
    let changed = Commit { effects: emits("invoices", &["i2"]), ..lost };
    assert_eq!(bed.commit(changed).await, CommitOutcome::Committed);
    assert_eq!(bed.ids("invoices", 0).await, ["i1"]);
    assert_eq!(bed.state("billing", 0, "total").await.as_deref(), Some(&b"12"[..]));
    assert_eq!(bed.place("billing", 0).await.committed, Offset(2));
}

pub(crate) async fn a_copy_that_arrives_after_a_later_commit_is_fenced(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let early = Commit { mark: Some(retry(0, 1)), ..moves(&lease, 0, 0) };
    bed.commit(early.clone()).await;
    bed.commit(Commit { mark: Some(retry(0, 2)), ..moves(&lease, 0, 0) }).await;
    assert_eq!(bed.commit(early).await, CommitOutcome::Fenced, "the position alone does not tell that it is late");
    assert_eq!(bed.place("billing", 0).await.mark, retry(0, 2));
}

pub(crate) async fn the_version_that_failed_is_told_to_the_next_owner(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let (mark, failed_by) = (Some(stop(0, 1)), Some("sha256:1".to_owned()));
    bed.commit(Commit { mark, failed_by: failed_by.clone(), ..moves(&lease, 0, 0) }).await;
    assert_eq!(bed.claim("billing", 0, "other").await.failed_by, failed_by);
}

pub(crate) async fn a_repeated_commit_that_moves_nothing_is_taken_again(bed: Bed) {
    bed.orders(5).await;
    bed.stream("invoices", 1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let commit = Commit { mark: Some(retry(0, 1)), effects: emits("invoices", &["i1"]), ..moves(&lease, 0, 0) };
    assert_eq!(bed.commit(commit.clone()).await, CommitOutcome::Committed);
    assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
    assert_eq!(bed.place("billing", 0).await.mark, retry(0, 1));
    assert_eq!(bed.ids("invoices", 0).await, ["i1"]);
}

pub(crate) async fn a_mark_is_stored_and_returned_when_acquired(bed: Bed) {
    bed.orders(5).await;
    let known = |class, reason: &str, attempts| {
        let (first, last) = (Timestamp(1_700_000_000_123), Timestamp(1_700_000_004_567));
        Failure { class, reason: reason.into(), attempts, first, last }
    };
    // Under manual commits the failed event lies past the position.
    let (at, next) = (Offset(3), Timestamp(1_700_000_009_999));
    let hold = |failure, why| Mark::Hold { at, failure, until: next, why };
    let mut marks = vec![
        Mark::Retry { at: Offset(0), failure: known(Class::Transient, "schlägt fehl\n\tat \"main\"", 2), next },
        Mark::Retry { at, failure: known(Class::Timeout, "", 70_000), next },
        hold(known(Class::Permanent, "it's", 1), Hold::Breaker),
        hold(known(Class::Parked, "waits", 0), Hold::Full),
        Mark::Stop { at, failure: known(Class::Trap, &"long ".repeat(800), 3) },
    ];
    marks.extend(Class::ALL.map(|class| Mark::Stop { at, failure: known(class, "bad", 1) }));
    for mark in marks {
        let lease = bed.acquire("billing", 0, "one").await;
        bed.commit(Commit { mark: Some(mark.clone()), ..moves(&lease, 0, 0) }).await;
        assert_eq!(bed.place("billing", 0).await.mark, mark);
        assert_eq!(bed.claim("billing", 0, "two").await.mark, mark);
    }
}

pub(crate) async fn a_mark_replaces_the_one_before_whole(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let hold = Mark::Hold { at: Offset(4), failure: failure(7, "row"), until: Timestamp(9_000), why: Hold::Full };
    for mark in [hold, retry(1, 1), stop(0, 2), retry(2, 3), Mark::Clear] {
        bed.commit(Commit { mark: Some(mark.clone()), ..moves(&lease, 0, 0) }).await;
        assert_eq!(bed.place("billing", 0).await.mark, mark);
    }
}

pub(crate) async fn progress_tells_a_stop_and_why_a_partition_is_held(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let hold = |why| Mark::Hold { at: Offset(0), failure: failure(7, "row"), until: Timestamp(9_000), why };
    let told = async || {
        let progress = bed.store.progress().await.unwrap();
        (progress[0].stopped, progress[0].held)
    };
    assert_eq!(told().await, (false, None));
    for (mark, expected) in [
        (stop(2, 1), (true, None)),
        (hold(Hold::Breaker), (false, Some(Hold::Breaker))),
        (hold(Hold::Full), (false, Some(Hold::Full))),
        (retry(0, 1), (false, None)),
        (hold(Hold::Full), (false, Some(Hold::Full))),
        (stop(2, 1), (true, None)),
        (hold(Hold::Breaker), (false, Some(Hold::Breaker))),
        (Mark::Clear, (false, None)),
        (hold(Hold::Full), (false, Some(Hold::Full))),
    ] {
        bed.commit(Commit { mark: Some(mark), ..moves(&lease, 0, 0) }).await;
        assert_eq!(told().await, expected);
    }
    bed.store.resume("billing", None).await.unwrap();
    assert_eq!(told().await, (false, None));
}

pub(crate) async fn a_reason_of_any_text_refuses_no_commit(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    // No column of PostgreSQL takes a NUL, and a guest writes what it likes.
    let mark = Mark::Stop { at: Offset(0), failure: failure(1, "a\0b") };
    let outcome = bed.commit(Commit { mark: Some(mark), ..moves(&lease, 0, 0) }).await;
    assert_eq!(outcome, CommitOutcome::Committed);
    let mark = bed.place("billing", 0).await.mark;
    let reason = &mark.failed().unwrap().1.reason;
    assert!(reason.starts_with('a') && reason.ends_with('b'), "{reason:?}");
}

pub(crate) async fn a_commit_that_says_nothing_of_the_mark_leaves_it(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let failed_by = Some("sha256:1".to_owned());
    bed.commit(Commit { mark: Some(retry(3, 2)), failed_by: failed_by.clone(), ..moves(&lease, 0, 0) }).await;
    assert_eq!(bed.commit(Commit { mark: None, ..moves(&lease, 0, 2) }).await, CommitOutcome::Committed);
    let claim = bed.claim("billing", 0, "host").await;
    assert_eq!((claim.committed, claim.mark, claim.failed_by), (Offset(2), retry(3, 2), failed_by));
}

pub(crate) async fn what_was_given_up_in_a_row_is_as_the_last_commit_says(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    for given_up_in_row in [1, 7, 0, 3] {
        bed.commit(Commit { mark: None, given_up_in_row, ..moves(&lease, 0, 0) }).await;
        assert_eq!(bed.place("billing", 0).await.given_up_in_row, given_up_in_row);
    }
    assert_eq!(bed.claim("billing", 0, "other").await.given_up_in_row, 3);
}

pub(crate) async fn skipped_events_are_counted_up(bed: Bed) {
    bed.orders(9).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let commit = Commit { skipped: 2, ..moves(&lease, 0, 3) };
    bed.commit(commit.clone()).await;
    bed.commit(commit).await;
    assert_eq!(bed.place("billing", 0).await.skipped, 2, "a repetition counts once");
    bed.commit(moves(&lease, 3, 4)).await;
    bed.commit(Commit { skipped: 1, ..moves(&lease, 4, 5) }).await;
    let other = bed.acquire("billing", 0, "other").await;
    bed.commit(Commit { skipped: 4, ..moves(&other, 5, 9) }).await;
    assert_eq!(bed.place("billing", 0).await.skipped, 7);
}

pub(crate) async fn a_cleared_mark_is_gone(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let failed_by = Some("sha256:1".to_owned());
    bed.commit(Commit { mark: Some(retry(0, 1)), failed_by, ..moves(&lease, 0, 0) }).await;
    bed.commit(moves(&lease, 0, 1)).await;
    assert_eq!(bed.place("billing", 0).await.mark, Mark::Clear);
    assert_eq!(bed.claim("billing", 0, "host").await.failed_by, None);
}

pub(crate) async fn state_is_overwritten_and_deleted(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "host").await;
    for (step, value) in [Some("one"), Some("two"), Some(""), None, None].into_iter().enumerate() {
        let step = step as u64;
        bed.commit(Commit { effects: writes("key", value), ..moves(&lease, step, step + 1) }).await;
        assert_eq!(bed.state("billing", 0, "key").await.as_deref(), value.map(str::as_bytes));
    }
}

pub(crate) async fn state_belongs_to_one_group_and_partition(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    bed.group("audit", "orders").await;
    let lease = bed.acquire("billing", 1, "host").await;
    bed.commit(Commit { effects: writes("key", Some("mine")), ..moves(&lease, 0, 0) }).await;
    assert_eq!(bed.state("billing", 1, "key").await.as_deref(), Some(&b"mine"[..]));
    assert_eq!(bed.state("billing", 0, "key").await, None);
    assert_eq!(bed.state("audit", 1, "key").await, None);
}

pub(crate) async fn large_state_and_many_keys_are_kept(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let value = |n: usize| vec![n as u8; if n == 0 { 3 << 20 } else { 10 }];
    let state: BTreeMap<_, _> = (0..700).map(|n| (format!("key-{n}"), Some(value(n)))).collect();
    let effects = Effects { state, ..Effects::default() };
    assert_eq!(bed.commit(Commit { effects, ..moves(&lease, 0, 1) }).await, CommitOutcome::Committed);
    for n in [0, 1, 350, 699] {
        assert_eq!(bed.state("billing", 0, &format!("key-{n}")).await, Some(value(n)));
    }
}

pub(crate) async fn emits_go_to_several_streams_and_keep_their_order(bed: Bed) {
    bed.orders(1).await;
    bed.stream("invoices", 2).await;
    bed.stream("mails", 1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let key = key_for(1, 2);
    let invoices = (0..10).map(|n| Emit { stream: "invoices".into(), event: keyed(&format!("i{n}"), &key) });
    let mails = (0..10).map(|n| Emit { stream: "mails".into(), event: event(&format!("m{n}")) });
    let mixed = invoices.zip(mails).flat_map(|(invoice, mail)| [invoice, mail]).collect();
    let effects = Effects { emits: mixed, ..Effects::default() };
    assert_eq!(bed.commit(Commit { effects, ..moves(&lease, 0, 1) }).await, CommitOutcome::Committed);
    let numbered = |letter: char| (0..10).map(|n| format!("{letter}{n}")).collect::<Vec<_>>();
    assert_eq!(bed.ids("invoices", 1).await, numbered('i'));
    assert_eq!(bed.ids("mails", 0).await, numbered('m'));
}

pub(crate) async fn an_emitted_duplicate_is_passed_over_in_silence(bed: Bed) {
    bed.orders(2).await;
    bed.stream("invoices", 1).await;
    bed.append("invoices", &["i1"]).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let effects = emits("invoices", &["i0", "i1", "i0", "i2"]);
    assert_eq!(bed.commit(Commit { effects, ..moves(&lease, 0, 2) }).await, CommitOutcome::Committed);
    assert_eq!(bed.ids("invoices", 0).await, ["i1", "i0", "i2"]);
}

pub(crate) async fn an_emit_to_an_unknown_stream_is_refused_and_nothing_is_kept(bed: Bed) {
    bed.orders(2).await;
    bed.stream("invoices", 1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let mut effects = emits("invoices", &["i1"]);
    effects.extend(emits("nowhere", &["n1"]));
    effects.extend(writes("total", Some("12")));
    let outcome = bed.commit(Commit { effects, ..moves(&lease, 0, 2) }).await;
    assert!(matches!(&outcome, CommitOutcome::Refused(reason) if reason.contains("\"nowhere\"")), "{outcome:?}");
    assert_eq!(bed.place("billing", 0).await.committed, Offset(0));
    assert!(bed.ids("invoices", 0).await.is_empty());
    assert_eq!(bed.state("billing", 0, "total").await, None);
}

pub(crate) async fn a_faulty_emit_is_refused_and_nothing_is_kept(bed: Bed) {
    bed.orders(2).await;
    bed.stream("invoices", 1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    let mut effects = emits("invoices", &["i1", "large"]);
    effects.emits[1].event.payload = vec![0; PAYLOAD_BYTES_MAX as usize + 1];
    let outcome = bed.commit(Commit { effects, ..moves(&lease, 0, 2) }).await;
    assert!(matches!(&outcome, CommitOutcome::Refused(reason) if reason.contains("\"large\"")), "{outcome:?}");
    assert!(bed.ids("invoices", 0).await.is_empty());
    assert_eq!(bed.commit(moves(&lease, 0, 2)).await, CommitOutcome::Committed, "the lease is as good as before");
}

pub(crate) async fn a_fenced_commit_is_fenced_whatever_its_effects(bed: Bed) {
    bed.orders(2).await;
    let old = bed.acquire("billing", 0, "one").await;
    bed.acquire("billing", 0, "two").await;
    let commit = Commit { effects: emits("nowhere", &["n1"]), ..moves(&old, 0, 2) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&old, 0, 99)).await, CommitOutcome::Fenced);
}

pub(crate) async fn a_position_past_the_head_is_refused(bed: Bed) {
    bed.orders(2).await;
    let lease = bed.acquire("billing", 0, "host").await;
    for to in [3, u64::MAX] {
        let outcome = bed.commit(moves(&lease, 0, to)).await;
        assert!(matches!(&outcome, CommitOutcome::Refused(reason) if reason.contains("head at 2")), "{outcome:?}");
    }
    assert_eq!(bed.commit(moves(&lease, 0, 2)).await, CommitOutcome::Committed);
}

pub(crate) async fn a_position_does_not_move_back(bed: Bed) {
    bed.orders(2).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.commit(moves(&lease, 0, 2)).await;
    assert!(matches!(bed.commit(moves(&lease, 2, 1)).await, CommitOutcome::Refused(_)));
    assert_eq!(bed.place("billing", 0).await.committed, Offset(2));
}

pub(crate) async fn commits_of_many_partitions_at_once_all_succeed(bed: Bed) {
    let partitions = 40;
    bed.stream("orders", partitions).await;
    bed.stream("invoices", 1).await;
    bed.group("billing", "orders").await;
    let events =
        (0..partitions).map(|partition| keyed(&format!("o{partition}"), &key_for(partition, partitions))).collect();
    bed.store.append("orders", events).await.unwrap();
    let commits = (0..partitions).map(async |partition| {
        let lease = bed.acquire("billing", partition, "host").await;
        bed.commit(Commit { effects: emits("invoices", &[&format!("i{partition}")]), ..moves(&lease, 0, 1) }).await
    });
    assert!(join_all(commits).await.iter().all(|outcome| *outcome == CommitOutcome::Committed));
    assert_eq!(bed.ids("invoices", 0).await.len(), partitions as usize);
    assert!(bed.store.progress().await.unwrap().iter().all(|one| one.committed == Offset(1)));
}

pub(crate) async fn a_refused_commit_takes_no_other_along(bed: Bed) {
    bed.stream("orders", 8).await;
    bed.stream("invoices", 1).await;
    bed.group("billing", "orders").await;
    let leases = join_all((0..8).map(|partition| bed.acquire("billing", partition, "host"))).await;
    let commits = leases.iter().map(|lease| {
        let stream = if lease.partition == 3 { "nowhere" } else { "invoices" };
        let id = format!("i{}", lease.partition);
        bed.commit(Commit { effects: emits(stream, &[&id]), ..moves(lease, 0, 0) })
    });
    for (partition, outcome) in join_all(commits).await.into_iter().enumerate() {
        assert_eq!(matches!(outcome, CommitOutcome::Refused(_)), partition == 3, "{outcome:?}");
    }
    assert_eq!(bed.ids("invoices", 0).await.len(), 7);
}

pub(crate) async fn the_time_of_a_commit_is_stored_only_when_it_moves(bed: Bed) {
    bed.stream("orders", 1).await;
    bed.group("billing", "orders").await;
    bed.store.append("orders", vec![NewEvent { kind: "k".into(), ..event("a") }]).await.unwrap();
    let lease = bed.acquire("billing", 0, "host").await;
    bed.set_time(10).await;
    bed.commit(moves(&lease, 0, 0)).await;
    assert_eq!(bed.place("billing", 0).await.committed_at, None);
    bed.set_time(20).await;
    bed.commit(moves(&lease, 0, 1)).await;
    bed.set_time(30).await;
    bed.commit(moves(&lease, 1, 1)).await;
    assert_eq!(bed.place("billing", 0).await.committed_at, Some(Timestamp(20)));
}
