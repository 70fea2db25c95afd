//! Removing old events: what goes, what stays, and what reads make of the gap.

use pelton_core::{Commit, CommitOutcome, LetterRequest, NewEvent, Offset, Timestamp};
use pelton_store::{LetterQuery, ReadLimit, Reset, Start, StoreError, StreamSpec};

use crate::bed::{ALL, Bed, emits, group, key_for, keyed, letter, moves, stream};

/// Later than any event.
const LATE: u64 = 1_000_000;

/// A stream `orders` of one partition: `a` appended at 100, `b` at 200, `c` at 300, `d` at 400; and a group `billing`.
async fn four(bed: &Bed) {
    bed.orders(0).await;
    for (time, id) in [(100, "a"), (200, "b"), (300, "c"), (400, "d")] {
        bed.set_time(time).await;
        bed.append("orders", &[id]).await;
    }
    bed.set_time(LATE).await;
}

/// The group passes events from the first one on.
async fn passes(bed: &Bed, group: &str, to: u64) {
    let lease = bed.acquire(group, 0, "one").await;
    assert_eq!(bed.commit(moves(&lease, 0, to)).await, CommitOutcome::Committed);
}

async fn trim(bed: &Bed, before: u64) -> u64 {
    bed.store.trim("orders", Timestamp(before), 1_000).await.unwrap()
}

/// The first offset of a partition of `orders`, and its head.
async fn bounds(bed: &Bed, partition: usize) -> (u64, u64) {
    let streams = bed.store.streams().await.unwrap();
    let orders = streams.into_iter().find(|info| info.spec.name == "orders").unwrap();
    (orders.partitions[partition].first.0, orders.partitions[partition].head.0)
}

pub(crate) async fn retention_is_kept_and_may_change(bed: Bed) {
    for retention_ms in [Some(30 * 24 * 3_600_000), None, Some(1)] {
        let spec = StreamSpec { retention_ms, ..stream("orders", 1) };
        bed.store.declare_stream(&spec).await.unwrap();
        assert_eq!(bed.store.streams().await.unwrap()[0].spec, spec);
    }
}

pub(crate) async fn only_what_is_old_enough_is_removed(bed: Bed) {
    four(&bed).await;
    passes(&bed, "billing", 4).await;
    assert_eq!(trim(&bed, 100).await, 0, "one appended at this very time stays");
    assert_eq!(trim(&bed, 300).await, 2);
    assert_eq!((bounds(&bed, 0).await, bed.ids("orders", 0).await), ((2, 4), vec!["c".into(), "d".into()]));
    assert_eq!(trim(&bed, 300).await, 0);
    assert_eq!(trim(&bed, 301).await, 1);
    assert_eq!(bounds(&bed, 0).await, (3, 4));
}

pub(crate) async fn what_any_group_has_not_passed_stays(bed: Bed) {
    four(&bed).await;
    bed.group("audit", "orders").await;
    passes(&bed, "billing", 4).await;
    assert_eq!(trim(&bed, LATE).await, 0);
    passes(&bed, "audit", 1).await;
    assert_eq!(trim(&bed, LATE).await, 1);
    assert_eq!(bounds(&bed, 0).await, (1, 4));
    bed.store.delete_group("audit", false).await.unwrap();
    assert_eq!(trim(&bed, LATE).await, 3, "a group that is gone keeps nothing");
}

pub(crate) async fn each_partition_is_trimmed_as_far_as_its_own_position(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    for partition in 0..2 {
        let events = (0..3).map(|n| keyed(&format!("p{partition}-{n}"), &key_for(partition, 2))).collect();
        bed.store.append("orders", events).await.unwrap();
    }
    let lease = bed.acquire("billing", 1, "one").await;
    bed.commit(moves(&lease, 0, 2)).await;
    assert_eq!(trim(&bed, LATE).await, 2);
    assert_eq!((bounds(&bed, 0).await, bounds(&bed, 1).await), ((0, 3), (2, 3)));
}

pub(crate) async fn without_a_group_all_that_is_old_goes(bed: Bed) {
    bed.stream("orders", 1).await;
    bed.stream("invoices", 1).await;
    bed.group("billing", "invoices").await;
    bed.append("orders", &["a", "b"]).await;
    bed.append("invoices", &["a", "b"]).await;
    assert_eq!(trim(&bed, LATE).await, 2, "groups of other streams do not matter");
    assert_eq!(bed.ids("invoices", 0).await, ["a", "b"]);
}

pub(crate) async fn so_many_of_each_partition_are_removed_at_once(bed: Bed) {
    bed.stream("orders", 2).await;
    for partition in 0..2 {
        let events = (0..5).map(|n| keyed(&format!("p{partition}-{n}"), &key_for(partition, 2))).collect();
        bed.store.append("orders", events).await.unwrap();
    }
    for (first, removed) in [(2, 4), (4, 4), (5, 2), (5, 0)] {
        assert_eq!(bed.store.trim("orders", Timestamp(LATE), 2).await.unwrap(), removed);
        assert_eq!((bounds(&bed, 0).await, bounds(&bed, 1).await), ((first, 5), (first, 5)));
    }
}

pub(crate) async fn a_younger_event_keeps_older_ones_behind_it(bed: Bed) {
    bed.stream("orders", 1).await;
    // A clock that was put back.
    for (time, id) in [(100, "a"), (300, "b"), (200, "c")] {
        bed.set_time(time).await;
        bed.append("orders", &[id]).await;
    }
    bed.set_time(LATE).await;
    assert_eq!(trim(&bed, 250).await, 1);
    assert_eq!(bed.ids("orders", 0).await, ["b", "c"]);
}

/// Events that were appended at these times, one after the other; the clock stands at `now` in the end.
async fn appended_at(bed: &Bed, times: &[u64], now: u64) {
    bed.stream("orders", 1).await;
    for (n, time) in times.iter().enumerate() {
        bed.set_time(*time).await;
        bed.append("orders", &[&format!("o{n}")]).await;
    }
    bed.set_time(now).await;
}

/// What is left of them, by their offsets.
async fn left(bed: &Bed) -> Vec<u64> {
    bed.read("orders", 0).await.iter().map(|event| event.offset.0).collect()
}

pub(crate) async fn an_event_of_the_future_goes_with_an_old_one_behind_it(bed: Bed) {
    // A clock that was a year ahead for a moment, twice.
    appended_at(&bed, &[100, 31_000, 31_001, 200, 32_000, 300, 400], 1_000).await;
    assert_eq!(trim(&bed, 100).await, 0);
    assert_eq!(trim(&bed, 150).await, 1);
    assert_eq!(trim(&bed, 200).await, 0, "the next one that is not of the future is young");
    assert_eq!(trim(&bed, 250).await, 3);
    assert_eq!(left(&bed).await, [4, 5, 6]);
    assert_eq!(trim(&bed, 301).await, 2);
    assert_eq!(left(&bed).await, [6]);
}

pub(crate) async fn an_event_of_the_future_with_nothing_behind_it_stays(bed: Bed) {
    appended_at(&bed, &[100, 31_000], 1_000).await;
    assert_eq!(trim(&bed, 500).await, 1);
    assert_eq!(trim(&bed, 500).await, 0);
    bed.set_time(31_000).await;
    assert_eq!(trim(&bed, 31_000).await, 0, "its time has come");
    assert_eq!(trim(&bed, 31_001).await, 1);
}

pub(crate) async fn an_event_of_the_future_is_judged_by_what_all_groups_have_passed(bed: Bed) {
    appended_at(&bed, &[31_000, 31_001, 200], 1_000).await;
    bed.group("billing", "orders").await;
    passes(&bed, "billing", 2).await;
    assert_eq!(trim(&bed, 500).await, 0);
    let lease = bed.acquire("billing", 0, "one").await;
    bed.commit(moves(&lease, 2, 3)).await;
    assert_eq!(trim(&bed, 500).await, 3);
}

pub(crate) async fn more_events_of_the_future_than_a_step_takes_go_all_the_same(bed: Bed) {
    let times: Vec<u64> = (0..20).map(|n| 31_000 + n).chain([200, 300, 400]).collect();
    appended_at(&bed, &times, 1_000).await;
    let step = async |before| bed.store.trim("orders", Timestamp(before), 3).await.unwrap();
    assert_eq!(step(200).await, 0, "all behind them are young");
    for removed in [3, 3, 3, 3, 3, 3, 3, 0] {
        assert_eq!(step(250).await, removed);
    }
    assert_eq!(left(&bed).await, [21, 22]);
}

pub(crate) async fn a_read_from_before_the_first_begins_there(bed: Bed) {
    four(&bed).await;
    passes(&bed, "billing", 4).await;
    trim(&bed, 300).await;
    let read = async |from, limit| {
        let events = bed.store.read("orders", 0, Offset(from), limit).await.unwrap();
        events.iter().map(|event| event.offset.0).collect::<Vec<_>>()
    };
    assert_eq!(read(0, ALL).await, [2, 3]);
    assert_eq!(read(1, ReadLimit { events: 1, ..ALL }).await, [2]);
    assert_eq!(read(0, ReadLimit { bytes: 1, ..ALL }).await, [2]);
    assert_eq!(read(3, ALL).await, [3]);
    trim(&bed, LATE).await;
    assert!(read(0, ALL).await.is_empty() && read(4, ALL).await.is_empty());
}

pub(crate) async fn an_id_is_known_as_long_as_its_event_is_there(bed: Bed) {
    four(&bed).await;
    passes(&bed, "billing", 4).await;
    trim(&bed, 300).await;
    let again = bed.append("orders", &["c", "a", "a"]).await;
    let told: Vec<(u64, bool)> = again.iter().map(|one| (one.offset.0, one.duplicate)).collect();
    assert_eq!(told, [(2, true), (4, false), (4, true)]);
    assert_eq!(bed.ids("orders", 0).await, ["c", "d", "a"]);
}

pub(crate) async fn offsets_go_on_after_all_was_removed(bed: Bed) {
    four(&bed).await;
    passes(&bed, "billing", 4).await;
    assert_eq!(trim(&bed, LATE).await, 4);
    assert_eq!((bounds(&bed, 0).await, bed.read("orders", 0).await), ((4, 4), Vec::new()));
    let progress = bed.store.progress().await.unwrap().swap_remove(0);
    assert_eq!((progress.committed, progress.head), (Offset(4), Offset(4)));
    assert_eq!(bed.append("orders", &["e"]).await[0].offset, Offset(4));
    let lease = bed.acquire("billing", 0, "one").await;
    let commit = Commit { effects: emits("orders", &["f"]), ..moves(&lease, 4, 5) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
    let offsets: Vec<u64> = bed.read("orders", 0).await.iter().map(|event| event.offset.0).collect();
    assert_eq!((offsets, bounds(&bed, 0).await), (vec![4, 5], (4, 6)));
}

pub(crate) async fn a_new_group_starts_at_the_first_event_that_is_left(bed: Bed) {
    four(&bed).await;
    passes(&bed, "billing", 4).await;
    trim(&bed, 300).await;
    for (name, start, expected) in [
        ("earliest", Start::Earliest, 2),
        ("latest", Start::Latest, 4),
        ("long-ago", Start::At(Timestamp(100)), 2),
        ("now", Start::At(Timestamp(301)), 3),
    ] {
        bed.store.declare_group(&group(name, "orders", start)).await.unwrap();
        assert_eq!(bed.place(name, 0).await.committed, Offset(expected), "{name}");
        bed.store.delete_group(name, false).await.unwrap();
    }
    assert_eq!(bed.store.offset_at("orders", 0, Timestamp(0)).await.unwrap(), Offset(2));
}

pub(crate) async fn a_new_group_of_an_emptied_stream_starts_at_the_head(bed: Bed) {
    four(&bed).await;
    passes(&bed, "billing", 4).await;
    trim(&bed, LATE).await;
    for (name, start) in [("earliest", Start::Earliest), ("long-ago", Start::At(Timestamp(0)))] {
        bed.store.declare_group(&group(name, "orders", start)).await.unwrap();
        assert_eq!(bed.place(name, 0).await.committed, Offset(4), "{name}");
    }
    assert_eq!(bed.store.offset_at("orders", 0, Timestamp(0)).await.unwrap(), Offset(4));
    bed.append("orders", &["e"]).await;
    let lease = bed.acquire("earliest", 0, "one").await;
    assert_eq!(bed.commit(moves(&lease, 4, 5)).await, CommitOutcome::Committed);
}

pub(crate) async fn a_reset_to_removed_events_is_refused(bed: Bed) {
    four(&bed).await;
    passes(&bed, "billing", 4).await;
    trim(&bed, 300).await;
    let reset = |to| Reset { group: "billing".into(), to: [(0, Offset(to))].into(), ..Reset::default() };
    let error = bed.store.reset(&reset(1)).await.unwrap_err();
    let StoreError::OffsetOutOfRange { found, first, head, .. } = error else { panic!("{error}") };
    assert_eq!((found, first, head), (Offset(1), Offset(2), Offset(4)));
    bed.store.reset(&reset(2)).await.unwrap();
    assert_eq!(bed.place("billing", 0).await.committed, Offset(2));
    assert_eq!(trim(&bed, LATE).await, 0, "what is to be handled again stays");
}

pub(crate) async fn dead_letters_keep_their_events(bed: Bed) {
    bed.orders(0).await;
    let sent = NewEvent { headers: vec![("h".into(), "v".into())], payload: vec![0, 255], ..keyed("a", "k") };
    bed.store.append("orders", vec![sent]).await.unwrap();
    let event = bed.read("orders", 0).await.swap_remove(0);
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..1, true).await;
    assert_eq!(trim(&bed, LATE).await, 1, "they keep nothing in the stream");
    assert_eq!(bed.dead().await, [letter(event.clone(), true)]);
    bed.ask(&LetterQuery::default(), LetterRequest::Replay).await;
    assert_eq!(bed.store.letters_requested("billing", 0, ALL).await.unwrap()[0].event, event);
}

pub(crate) async fn many_events_are_removed_at_once(bed: Bed) {
    bed.stream("orders", 1).await;
    let ids: Vec<String> = (0..1_500).map(|n| format!("o{n}")).collect();
    bed.append("orders", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(trim(&bed, LATE).await, 1_000);
    assert_eq!(bounds(&bed, 0).await, (1_000, 1_500));
    let events = bed.read("orders", 0).await;
    assert_eq!((events.len(), events[0].offset), (500, Offset(1_000)));
}

pub(crate) async fn an_unknown_stream_is_not_trimmed(bed: Bed) {
    bed.orders(1).await;
    let error = bed.store.trim("o", Timestamp(LATE), 1).await.unwrap_err();
    assert_eq!(error.to_string(), r#"stream "o" does not exist; known streams: "orders""#);
}
