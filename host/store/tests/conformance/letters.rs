//! Dead letters: what is set aside, what is asked of it, what becomes of it.

use futures_util::future::join_all;
use pelton_core::{
    Class, Commit, CommitOutcome, DeadLetter, Event, Failure, Lease, LetterRequest,
    LetterRequest::{Discard, Replay},
    NewEvent, Offset, Settled, Timestamp,
};
use pelton_store::{LETTERS_AT_ONCE, LetterInfo, LetterQuery, ParkedKey, ReadLimit, Reset, StoreError};

use crate::bed::{ALL, Bed, at, emits, failure, key_for, keyed, letter, moves, of_key, retry};

fn every() -> LetterQuery {
    LetterQuery::default()
}

/// Six dead letters: `a` is parked at 0, 2 and 4, `b` at 1 and 5, and 3 is a plain one.
async fn two_parked_keys(bed: &Bed) -> Lease {
    bed.orders_of(&["a", "b", "a", "-", "a", "b"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..6, true).await;
    lease
}

/// Two partitions with three events each, all of them dead letters.
async fn two_partitions(bed: &Bed) -> [Lease; 2] {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    for partition in 0..2 {
        let key = key_for(partition, 2);
        let events = (0..3).map(|n| keyed(&format!("p{partition}-{n}"), &key)).collect();
        bed.store.append("orders", events).await.unwrap();
    }
    let leases = [bed.acquire("billing", 0, "one").await, bed.acquire("billing", 1, "one").await];
    for lease in &leases {
        bed.set_aside(lease, 0..3, true).await;
    }
    leases
}

fn places(letters: &[LetterInfo]) -> Vec<(u32, u64)> {
    letters.iter().map(|info| (info.partition, info.letter.event.offset.0)).collect()
}

async fn offsets(bed: &Bed, query: &LetterQuery) -> Vec<u64> {
    bed.letters(query).await.iter().map(|info| info.letter.event.offset.0).collect()
}

/// Of which letters this was asked.
async fn asked(bed: &Bed, request: LetterRequest) -> Vec<u64> {
    let letters = bed.dead().await.into_iter().filter(|letter| letter.request == Some(request));
    letters.map(|letter| letter.event.offset.0).collect()
}

fn back(letter: &DeadLetter) -> Settled {
    Settled::Back { offset: letter.event.offset, failure: letter.failure.clone(), digest: letter.digest.clone() }
}

/// A commit that settles letters and changes nothing else.
fn settles(lease: &Lease, at: u64, settled: Vec<Settled>) -> Commit {
    Commit { mark: None, settled, ..moves(lease, at, at) }
}

async fn count(bed: &Bed) -> u64 {
    bed.place("billing", 0).await.letters
}

// --- Set aside ----------------------------------------------------------------------------------------------------

pub(crate) async fn an_event_is_set_aside_whole(bed: Bed) {
    bed.orders(0).await;
    bed.set_time(77).await;
    let sent = NewEvent {
        id: "Ö-1".into(),
        key: Some("schlüssel".into()),
        kind: "order.placed".into(),
        headers: vec![("trace".into(), "a\"b\\ü".into()), ("trace".into(), String::new())],
        payload: vec![0, 255, b'\'', 10],
    };
    let plain = NewEvent { id: "2".into(), ..NewEvent::default() };
    bed.store.append("orders", vec![sent, plain]).await.unwrap();
    let events = bed.read("orders", 0).await;
    let (first, last) = (Timestamp(1_700_000_000_123), Timestamp(1_700_000_004_567));
    let trapped = Failure { class: Class::Trap, reason: "it's\n\\ \"ü\"".into(), attempts: 70_000, first, last };
    let set_aside = vec![
        DeadLetter { failure: trapped, digest: Some("sha256:abc".into()), ..letter(events[0].clone(), true) },
        DeadLetter { failure: Failure::parked(Timestamp(5)), digest: None, ..letter(events[1].clone(), false) },
    ];
    let lease = bed.acquire("billing", 0, "one").await;
    let commit = Commit { set_aside: set_aside.clone(), ..moves(&lease, 0, 2) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
    assert_eq!(bed.dead().await, set_aside);
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.letters), (Offset(2), 2));
    assert_eq!(bed.claim("billing", 0, "two").await.letters, 2);
    assert_eq!(bed.read("orders", 0).await, events, "the stream keeps them");
}

pub(crate) async fn every_class_of_failure_is_kept(bed: Bed) {
    bed.orders(7).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let of_class = |(event, class)| DeadLetter { failure: Failure { class, ..failure(1, "") }, ..letter(event, false) };
    let set_aside: Vec<DeadLetter> = bed.read("orders", 0).await.into_iter().zip(Class::ALL).map(of_class).collect();
    bed.commit(Commit { set_aside: set_aside.clone(), ..moves(&lease, 0, 7) }).await;
    assert_eq!(bed.dead().await, set_aside);
}

pub(crate) async fn a_commit_that_fails_sets_nothing_aside(bed: Bed) {
    bed.orders(3).await;
    let old = bed.acquire("billing", 0, "one").await;
    let new = bed.acquire("billing", 0, "two").await;
    let set_aside = vec![letter(bed.read("orders", 0).await.swap_remove(0), false)];
    let fenced = Commit { set_aside: set_aside.clone(), ..moves(&old, 0, 1) };
    assert_eq!(bed.commit(fenced).await, CommitOutcome::Fenced);
    let elsewhere = Commit { set_aside: set_aside.clone(), ..moves(&new, 1, 2) };
    assert_eq!(bed.commit(elsewhere).await, CommitOutcome::Fenced);
    let refused = Commit { set_aside, effects: emits("nowhere", &["n"]), ..moves(&new, 0, 1) };
    assert!(matches!(bed.commit(refused).await, CommitOutcome::Refused(_)));
    assert_eq!((bed.dead().await, count(&bed).await), (Vec::new(), 0));
}

pub(crate) async fn a_repeated_commit_sets_nothing_aside_twice(bed: Bed) {
    bed.orders(3).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let events = bed.read("orders", 0).await;
    let first = Commit { set_aside: vec![letter(events[0].clone(), false)], ..moves(&lease, 0, 2) };
    assert_eq!(bed.commit(first.clone()).await, CommitOutcome::Committed);
    assert_eq!(bed.commit(first.clone()).await, CommitOutcome::Committed);
    // Another letter than before, to see whether anything is stored at all.
    let changed = Commit { set_aside: vec![letter(events[1].clone(), false)], ..first };
    assert_eq!(bed.commit(changed).await, CommitOutcome::Committed);
    assert_eq!((offsets(&bed, &every()).await, count(&bed).await), (vec![0], 1));
}

pub(crate) async fn many_events_are_set_aside_at_once(bed: Bed) {
    bed.orders(700).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..700, false).await;
    assert_eq!((bed.dead().await.len(), count(&bed).await), (700, 700));
    assert_eq!(bed.ask(&every(), Discard).await, 700);
    let gone = (0..699).map(|n| Settled::Gone(Offset(n))).collect();
    assert_eq!(bed.commit(settles(&lease, 700, gone)).await, CommitOutcome::Committed);
    assert_eq!((offsets(&bed, &every()).await, count(&bed).await), (vec![699], 1));
}

pub(crate) async fn commits_of_many_partitions_set_aside_at_once(bed: Bed) {
    let partitions = 16;
    bed.stream("orders", partitions).await;
    bed.group("billing", "orders").await;
    let of = |partition| keyed(&format!("o{partition}"), &key_for(partition, partitions));
    bed.store.append("orders", (0..partitions).map(of).collect()).await.unwrap();
    let leases = join_all((0..partitions).map(|partition| bed.acquire("billing", partition, "one"))).await;
    let commits = leases.iter().map(async |lease| {
        let effects = if lease.partition == 3 { emits("nowhere", &["n"]) } else { emits("orders", &[]) };
        let set_aside = vec![letter(bed.read("orders", lease.partition).await.swap_remove(0), true)];
        bed.commit(Commit { effects, set_aside, ..moves(lease, 0, 1) }).await
    });
    for (outcome, partition) in join_all(commits).await.into_iter().zip(0..) {
        assert_eq!(matches!(outcome, CommitOutcome::Refused(_)), partition == 3, "{outcome:?}");
    }
    let expected: Vec<(u32, u64)> = (0..partitions).filter(|partition| *partition != 3).map(|n| (n, 0)).collect();
    assert_eq!(places(&bed.letters(&every()).await), expected);
    for place in bed.store.groups().await.unwrap().swap_remove(0).partitions {
        assert_eq!(place.letters, u64::from(place.partition != 3));
    }
}

// --- Parked keys --------------------------------------------------------------------------------------------------

pub(crate) async fn an_owner_learns_which_keys_are_parked(bed: Bed) {
    two_parked_keys(&bed).await;
    let mut claim = bed.claim("billing", 0, "two").await;
    claim.parked.sort();
    assert_eq!(claim.parked, [("a".to_owned(), 3), ("b".to_owned(), 2)]);
    assert_eq!((claim.letters, claim.letters_requested), (6, false));
}

pub(crate) async fn letters_that_park_nothing_are_no_parked_keys(bed: Bed) {
    bed.orders_of(&["a", "a", "a", "b"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..1, false).await;
    bed.set_aside(&lease, 1..3, true).await;
    bed.set_aside(&lease, 3..4, false).await;
    assert_eq!(bed.claim("billing", 0, "two").await.parked, [("a".to_owned(), 2)]);
    let parked = bed.store.parked("billing", 10).await.unwrap();
    assert_eq!(parked.iter().map(|one| (one.key.as_str(), one.events)).collect::<Vec<_>>(), [("a", 2)]);
    let behind: Vec<Option<Offset>> = bed.letters(&every()).await.iter().map(|info| info.behind).collect();
    assert_eq!(behind, [None, None, Some(Offset(1)), None], "a plain one of the same key waits for nobody");
}

pub(crate) async fn an_empty_key_is_parked_like_any_other(bed: Bed) {
    bed.orders_of(&["", "-", ""]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..3, true).await;
    assert_eq!(bed.claim("billing", 0, "two").await.parked, [(String::new(), 2)]);
    assert_eq!(bed.ask(&at(2), Replay).await, 2);
    assert_eq!(offsets(&bed, &of_key("")).await, [0, 2]);
}

pub(crate) async fn parked_keys_are_listed_by_partition_and_key(bed: Bed) {
    bed.orders_of(&["é", "a", "B", "ab", "B"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let events = bed.read("orders", 0).await;
    let since = |offset: u64| Timestamp(1_000 * (offset + 1));
    let set_aside = events.into_iter().map(|event| {
        let failure = Failure { first: since(event.offset.0), last: Timestamp(9_999), ..failure(2, "bad") };
        DeadLetter { failure, ..letter(event, true) }
    });
    bed.commit(Commit { set_aside: set_aside.collect(), ..moves(&lease, 0, 5) }).await;
    bed.ask(&of_key("ab"), Replay).await;
    bed.ask(&of_key("é"), Discard).await;
    let parked = |key: &str, events, first, requested| {
        let key = key.to_owned();
        ParkedKey { partition: 0, key, events, since: since(first), requested }
    };
    let expected =
        [parked("B", 2, 2, false), parked("a", 1, 1, false), parked("ab", 1, 3, true), parked("é", 1, 0, false)];
    // Byte by byte, whatever language the database speaks.
    assert_eq!(bed.store.parked("billing", 10).await.unwrap(), expected);
    assert_eq!(bed.store.parked("billing", 3).await.unwrap(), expected[..3]);
}

pub(crate) async fn parked_keys_of_all_partitions_are_listed(bed: Bed) {
    two_partitions(&bed).await;
    let parked = bed.store.parked("billing", 10).await.unwrap();
    let listed: Vec<(u32, String, u64)> = parked.into_iter().map(|one| (one.partition, one.key, one.events)).collect();
    assert_eq!(listed, [(0, key_for(0, 2), 3), (1, key_for(1, 2), 3)]);
    assert_eq!(bed.store.parked("billing", 1).await.unwrap().len(), 1);
}

pub(crate) async fn letters_wait_behind_the_first_of_their_key(bed: Bed) {
    let lease = two_parked_keys(&bed).await;
    let behind = async || {
        let letters = bed.letters(&every()).await.into_iter();
        letters.map(|info| info.behind.map(|offset| offset.0)).collect::<Vec<_>>()
    };
    assert_eq!(behind().await, [None, None, Some(0), None, Some(0), Some(1)]);
    bed.commit(settles(&lease, 6, vec![Settled::Gone(Offset(0))])).await;
    assert_eq!(behind().await, [None, None, None, Some(2), Some(1)], "the next one is the first now");
    assert_eq!(bed.letters(&at(4)).await[0].behind, Some(Offset(2)), "also if the first one is not asked for");
}

pub(crate) async fn an_event_behind_a_key_to_be_replayed_is_replayed_with_it(bed: Bed) {
    bed.orders_of(&["a", "b", "a", "b", "a", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..2, true).await;
    bed.ask(&of_key("a"), Replay).await;
    bed.set_aside(&lease, 2..5, true).await;
    assert_eq!(asked(&bed, Replay).await, [0, 2, 4], "those of another key are not");
    bed.set_aside(&lease, 5..6, false).await;
    assert_eq!(asked(&bed, Replay).await, [0, 2, 4], "one that does not wait is not");
}

pub(crate) async fn an_event_behind_one_to_be_discarded_is_left_alone(bed: Bed) {
    bed.orders_of(&["a", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..1, true).await;
    bed.ask(&at(0), Discard).await;
    bed.set_aside(&lease, 1..2, true).await;
    assert_eq!((asked(&bed, Discard).await, asked(&bed, Replay).await), (vec![0], Vec::new()));
}

pub(crate) async fn a_key_that_is_replayed_elsewhere_is_not_inherited(bed: Bed) {
    bed.orders_of(&["a", "a"]).await;
    bed.group("audit", "orders").await;
    let (one, other) = (bed.acquire("billing", 0, "one").await, bed.acquire("audit", 0, "one").await);
    bed.set_aside(&one, 0..1, true).await;
    bed.set_aside(&other, 0..1, true).await;
    bed.store.request_letters("audit", &every(), Replay).await.unwrap();
    bed.set_aside(&one, 1..2, true).await;
    assert!(asked(&bed, Replay).await.is_empty(), "what another group is asked is its own affair");
}

pub(crate) async fn what_is_settled_counts_before_what_is_set_aside(bed: Bed) {
    bed.orders_of(&["a", "a", "b", "b"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let events = bed.read("orders", 0).await;
    let [a0, a1, b0, b1] = [0, 1, 2, 3].map(|n| letter(events[n].clone(), true));
    let failed = vec![a0.clone(), b0];
    bed.commit(Commit { set_aside: failed, ..moves(&lease, 0, 0) }).await;
    bed.ask(&every(), Replay).await;
    // `a` failed again, and the last one of `b` was handled: neither is under way any more.
    let settled = vec![back(&a0), Settled::Gone(Offset(2))];
    bed.commit(Commit { settled, set_aside: vec![a1, b1], ..moves(&lease, 0, 4) }).await;
    assert_eq!((offsets(&bed, &every()).await, asked(&bed, Replay).await), (vec![0, 1, 3], Vec::new()));
    assert_eq!(count(&bed).await, 3);
}

// --- Asked for ----------------------------------------------------------------------------------------------------

pub(crate) async fn what_was_asked_is_handed_to_the_owner_in_order(bed: Bed) {
    two_parked_keys(&bed).await;
    let requested = async |events, bytes| {
        let limit = ReadLimit { events, bytes };
        let letters = bed.store.letters_requested("billing", 0, limit).await.unwrap();
        letters.iter().map(|letter| letter.event.offset.0).collect::<Vec<_>>()
    };
    assert!(requested(100, 1 << 30).await.is_empty());
    assert!(!bed.claim("billing", 0, "one").await.letters_requested);
    bed.ask(&of_key("a"), Replay).await;
    bed.ask(&at(3), Discard).await;
    assert_eq!(requested(100, 1 << 30).await, [0, 2, 3, 4]);
    assert_eq!(requested(2, 1 << 30).await, [0, 2]);
    let letters = bed.dead().await;
    let two = (letters[0].event.bytes() + letters[2].event.bytes()) as u64;
    assert_eq!(requested(100, two).await, [0, 2]);
    assert_eq!(requested(100, two - 1).await, [0]);
    assert_eq!(requested(100, 1).await, [0], "however large it is");
    let whole = bed.store.letters_requested("billing", 0, ALL).await.unwrap();
    assert_eq!(
        whole[0],
        DeadLetter { request: Some(Replay), ..letter(bed.read("orders", 0).await.swap_remove(0), true) }
    );
    assert_eq!(whole[2].request, Some(Discard));
    assert!(bed.claim("billing", 0, "two").await.letters_requested);
}

pub(crate) async fn what_was_asked_elsewhere_is_handed_to_nobody_else(bed: Bed) {
    two_partitions(&bed).await;
    bed.group("audit", "orders").await;
    bed.ask(&of_key(&key_for(1, 2)), Replay).await;
    assert!(bed.store.letters_requested("billing", 0, ALL).await.unwrap().is_empty());
    assert_eq!(bed.store.letters_requested("billing", 1, ALL).await.unwrap().len(), 3);
    assert!(bed.store.letters_requested("audit", 1, ALL).await.unwrap().is_empty());
    assert!(!bed.claim("billing", 0, "one").await.letters_requested);
    assert!(bed.claim("billing", 1, "one").await.letters_requested);
}

/// Six dead letters that differ in everything a query can ask for, and the queries with what they find.
async fn queries(bed: &Bed) -> (Lease, Vec<(LetterQuery, Vec<u64>)>) {
    bed.orders_of(&["a", "b", "a", "-", "c%", "b"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let classes = [Class::Transient, Class::Permanent, Class::Parked, Class::Trap, Class::Timeout, Class::Parked];
    let reasons = ["100% sure", "100 sure", "waits", "it's \"a_b\"", "C:\\dir a*b? [x]", "waits"];
    let events = bed.read("orders", 0).await.into_iter();
    let set_aside = events.zip(classes.into_iter().zip(reasons)).map(|(event, (class, reason))| {
        let last = Timestamp(1_000 * (event.offset.0 + 1));
        let failure = Failure { class, last, ..failure(1, reason) };
        let parks = event.offset.0 != 4;
        DeadLetter { failure, ..letter(event, parks) }
    });
    bed.commit(Commit { set_aside: set_aside.collect(), ..moves(&lease, 0, 6) }).await;
    let all = || (0..6).collect::<Vec<u64>>();
    let id = |id: &str| LetterQuery { event_id: Some(id.into()), ..every() };
    let reason = |text: &str| LetterQuery { reason: Some(text.into()), ..every() };
    let class = |class| LetterQuery { class: Some(class), ..every() };
    let before = |ms| LetterQuery { before: Some(Timestamp(ms)), ..every() };
    let first = LetterQuery { first: true, ..every() };
    let found = vec![
        (every(), all()),
        (LetterQuery { partition: Some(0), ..every() }, all()),
        (LetterQuery { partition: Some(0), ..at(3) }, vec![3]),
        (at(3), vec![3]),
        (at(6), Vec::new()),
        (at(u64::MAX), Vec::new()),
        (id("o4"), vec![4]),
        (id("o%"), Vec::new()),
        (id("o4\0"), Vec::new()),
        (of_key("a"), vec![0, 2]),
        (of_key("A"), Vec::new()),
        (of_key("c%"), vec![4]),
        (of_key("%"), Vec::new()),
        (of_key("a\0"), Vec::new()),
        (class(Class::Parked), vec![2, 5]),
        (class(Class::Memory), Vec::new()),
        (reason("sure"), vec![0, 1]),
        (reason("SURE"), Vec::new()),
        (reason("%"), vec![0]),
        (reason("_"), vec![3]),
        (reason("'"), vec![3]),
        (reason("\"a"), vec![3]),
        (reason("\\"), vec![4]),
        (reason("a*b?"), vec![4]),
        (reason("[x]"), vec![4]),
        (reason("\0"), Vec::new()),
        (reason(""), all()),
        (before(3_000), vec![0, 1]),
        (before(3_001), vec![0, 1, 2]),
        (before(0), Vec::new()),
        (before(u64::MAX), all()),
        (first.clone(), vec![0, 1, 3, 4]),
        (LetterQuery { idle: true, ..every() }, all()),
        (LetterQuery { before: Some(Timestamp(2_000)), ..first.clone() }, vec![0]),
        (LetterQuery { class: Some(Class::Parked), ..first }, Vec::new()),
        (LetterQuery { class: Some(Class::Parked), ..of_key("b") }, vec![5]),
        (LetterQuery { reason: Some("waits".into()), ..of_key("a") }, vec![2]),
    ];
    (lease, found)
}

pub(crate) async fn a_query_finds_what_fits_in_every_way(bed: Bed) {
    for (query, expected) in queries(&bed).await.1 {
        assert_eq!(offsets(&bed, &query).await, expected, "{query:?}");
    }
}

pub(crate) async fn a_discard_reaches_what_its_query_finds(bed: Bed) {
    let (lease, queries) = queries(&bed).await;
    for (query, expected) in queries {
        assert_eq!(bed.ask(&query, Discard).await, expected.len() as u64, "{query:?}");
        assert_eq!(asked(&bed, Discard).await, expected, "{query:?}");
        let settled = bed.dead().await.iter().map(back).collect();
        bed.commit(settles(&lease, 6, settled)).await;
        assert!(asked(&bed, Discard).await.is_empty());
    }
}

pub(crate) async fn a_replay_reaches_the_whole_keys_of_what_its_query_finds(bed: Bed) {
    let (lease, queries) = queries(&bed).await;
    for (query, found) in queries {
        let keys: [&[u64]; 4] = [&[0, 2], &[1, 5], &[3], &[4]];
        let reached = keys.into_iter().filter(|key| key.iter().any(|offset| found.contains(offset)));
        let mut expected: Vec<u64> = reached.flatten().copied().collect();
        expected.sort_unstable();
        assert_eq!(bed.ask(&query, Replay).await, expected.len() as u64, "{query:?}");
        assert_eq!(asked(&bed, Replay).await, expected, "{query:?}");
        let settled = bed.dead().await.iter().map(back).collect();
        bed.commit(settles(&lease, 6, settled)).await;
        assert!(asked(&bed, Replay).await.is_empty());
    }
}

pub(crate) async fn a_replay_leaves_plain_letters_of_the_same_key(bed: Bed) {
    bed.orders_of(&["a", "a", "a", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..2, false).await;
    bed.set_aside(&lease, 2..4, true).await;
    assert_eq!(bed.ask(&at(3), Replay).await, 2);
    assert_eq!(asked(&bed, Replay).await, [2, 3]);
    assert_eq!(bed.ask(&at(0), Replay).await, 1);
    assert_eq!(asked(&bed, Replay).await, [0, 2, 3]);
}

pub(crate) async fn a_partition_is_asked_alone(bed: Bed) {
    two_partitions(&bed).await;
    let query = LetterQuery { partition: Some(1), ..every() };
    assert_eq!(places(&bed.letters(&query).await), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(bed.ask(&LetterQuery { partition: Some(1), ..at(2) }, Discard).await, 1);
    assert_eq!(bed.ask(&query, Discard).await, 3);
    let untouched = bed.letters(&LetterQuery { partition: Some(0), ..every() }).await;
    assert!(untouched.iter().all(|info| info.letter.request.is_none()));
}

pub(crate) async fn the_same_may_be_asked_twice(bed: Bed) {
    two_parked_keys(&bed).await;
    assert_eq!(bed.ask(&of_key("a"), Replay).await, 3);
    assert_eq!(bed.ask(&of_key("a"), Replay).await, 3);
    assert_eq!(bed.ask(&every(), Replay).await, 6);
    assert_eq!(asked(&bed, Replay).await, [0, 1, 2, 3, 4, 5]);
}

pub(crate) async fn a_letter_to_be_discarded_is_not_replayed(bed: Bed) {
    two_parked_keys(&bed).await;
    bed.ask(&at(4), Discard).await;
    let before = bed.store.progress().await.unwrap();
    for query in [every(), of_key("a"), at(0), at(4)] {
        let error = bed.store.request_letters("billing", &query, Replay).await.unwrap_err();
        assert!(matches!(&error, StoreError::LetterBusy { id, .. } if id == "0/4"), "{error}");
        assert!(error.to_string().contains("is to be discarded"), "{error}");
    }
    assert_eq!((asked(&bed, Replay).await, asked(&bed, Discard).await), (Vec::new(), vec![4]));
    assert_eq!(bed.store.progress().await.unwrap(), before);
    assert_eq!(bed.ask(&of_key("b"), Replay).await, 2, "the others may be");
}

pub(crate) async fn a_letter_to_be_replayed_is_not_discarded(bed: Bed) {
    two_parked_keys(&bed).await;
    bed.ask(&at(3), Replay).await;
    let error = bed.store.request_letters("billing", &every(), Discard).await.unwrap_err();
    assert!(matches!(&error, StoreError::LetterBusy { id, .. } if id == "0/3"), "{error}");
    assert!(error.to_string().contains("is to be replayed"), "{error}");
    assert!(asked(&bed, Discard).await.is_empty());
}

pub(crate) async fn who_asks_for_what_is_idle_finds_nothing_busy(bed: Bed) {
    two_parked_keys(&bed).await;
    bed.ask(&at(4), Discard).await;
    let idle = LetterQuery { idle: true, ..every() };
    assert_eq!(offsets(&bed, &idle).await, [0, 1, 2, 3, 5]);
    let first = LetterQuery { first: true, ..idle.clone() };
    assert_eq!(bed.ask(&first, Replay).await, 3);
    assert_eq!(asked(&bed, Replay).await, [1, 3, 5], "one that waits in `a` is to be discarded");
    assert_eq!(bed.ask(&idle, Replay).await, 0);
    assert_eq!(bed.ask(&first, Discard).await, 1, "the first of a key, and not what waits behind it");
    assert_eq!(asked(&bed, Discard).await, [0, 4]);
    assert_eq!(bed.ask(&idle, Discard).await, 1, "a discard does not ask for whole keys");
    assert_eq!(asked(&bed, Discard).await, [0, 2, 4]);
    assert_eq!(bed.ask(&idle, Discard).await, 0);
}

pub(crate) async fn a_request_is_counted_in_the_partitions_it_concerns(bed: Bed) {
    two_partitions(&bed).await;
    bed.group("audit", "orders").await;
    let counted = async || {
        let progress = bed.store.progress().await.unwrap();
        progress.iter().map(|one| (one.group.clone(), one.control.requests)).collect::<Vec<_>>()
    };
    let expected = |first, second| {
        [("audit", 0), ("audit", 0), ("billing", first), ("billing", second)].map(|(group, n)| (group.to_owned(), n))
    };
    assert_eq!(counted().await, expected(0, 0));
    bed.ask(&of_key(&key_for(1, 2)), Replay).await;
    assert_eq!(counted().await, expected(0, 1));
    assert_eq!(bed.ask(&every(), Replay).await, 6);
    assert_eq!(counted().await, expected(1, 2));
    assert_eq!(bed.ask(&of_key("none"), Replay).await, 0);
    assert_eq!(counted().await, expected(1, 2));
    assert_eq!(bed.claim("billing", 1, "one").await.control.requests, 2);
    bed.store.resume("billing", None).await.unwrap();
    assert_eq!(counted().await, expected(1, 2), "resuming asks nothing of them");
}

// --- Settled ------------------------------------------------------------------------------------------------------

pub(crate) async fn a_letter_that_was_handled_is_gone(bed: Bed) {
    let lease = two_parked_keys(&bed).await;
    let gone = vec![Settled::Gone(Offset(0)), Settled::Gone(Offset(3))];
    assert_eq!(bed.commit(settles(&lease, 6, gone)).await, CommitOutcome::Committed);
    assert_eq!((offsets(&bed, &every()).await, count(&bed).await), (vec![1, 2, 4, 5], 4));
    let mut claim = bed.claim("billing", 0, "two").await;
    claim.parked.sort();
    assert_eq!((claim.letters, claim.parked), (4, vec![("a".to_owned(), 2), ("b".to_owned(), 2)]));
}

pub(crate) async fn a_key_is_free_when_its_last_letter_is_gone(bed: Bed) {
    let lease = two_parked_keys(&bed).await;
    bed.ask(&of_key("a"), Replay).await;
    for offset in [0, 2, 4] {
        bed.commit(settles(&lease, 6, vec![Settled::Gone(Offset(offset))])).await;
    }
    let claim = bed.claim("billing", 0, "two").await;
    assert_eq!((claim.parked, claim.letters_requested), (vec![("b".to_owned(), 2)], false));
}

pub(crate) async fn what_is_settled_beside_the_position_leaves_it_and_the_mark(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_time(2_000).await;
    bed.set_aside(&lease, 0..2, false).await;
    let failed_by = Some("sha256:1".to_owned());
    let failed =
        Commit { mark: Some(retry(2, 2)), failed_by: failed_by.clone(), given_up_in_row: 2, ..moves(&lease, 2, 2) };
    bed.commit(failed).await;
    bed.set_time(3_000).await;
    let settled = settles(&lease, 2, vec![Settled::Gone(Offset(0))]);
    bed.commit(Commit { given_up_in_row: 2, effects: emits("orders", &["more"]), ..settled }).await;
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.mark, place.letters), (Offset(2), retry(2, 2), 1));
    assert_eq!((place.committed_at, place.given_up_in_row), (Some(Timestamp(2_000)), 2));
    assert_eq!(bed.claim("billing", 0, "two").await.failed_by, failed_by);
}

pub(crate) async fn letters_that_are_not_there_may_be_settled(bed: Bed) {
    let lease = two_parked_keys(&bed).await;
    let absent = letter(bed.read("orders", 0).await.swap_remove(3), false);
    bed.commit(settles(&lease, 6, vec![Settled::Gone(Offset(3)), Settled::Gone(Offset(99))])).await;
    assert_eq!(count(&bed).await, 5);
    let again = vec![Settled::Gone(Offset(3)), back(&absent), Settled::Gone(Offset(5))];
    assert_eq!(bed.commit(settles(&lease, 6, again)).await, CommitOutcome::Committed);
    assert_eq!((offsets(&bed, &every()).await, count(&bed).await), (vec![0, 1, 2, 4], 4));
}

pub(crate) async fn a_commit_that_fails_settles_nothing(bed: Bed) {
    let old = two_parked_keys(&bed).await;
    bed.ask(&every(), Replay).await;
    let new = bed.acquire("billing", 0, "two").await;
    let letters = bed.dead().await;
    let settled = vec![Settled::Gone(Offset(0)), back(&letters[1])];
    assert_eq!(bed.commit(settles(&old, 6, settled.clone())).await, CommitOutcome::Fenced);
    let refused = Commit { effects: emits("nowhere", &["n"]), ..settles(&new, 6, settled) };
    assert!(matches!(bed.commit(refused).await, CommitOutcome::Refused(_)));
    assert_eq!((bed.dead().await, count(&bed).await), (letters, 6));
}

pub(crate) async fn a_repeated_commit_settles_nothing_twice(bed: Bed) {
    let lease = two_parked_keys(&bed).await;
    let settled = settles(&lease, 6, vec![Settled::Gone(Offset(0))]);
    bed.commit(settled.clone()).await;
    assert_eq!(bed.commit(settled).await, CommitOutcome::Committed);
    assert_eq!(count(&bed).await, 5);
}

pub(crate) async fn a_letter_that_fails_again_goes_back_with_its_history(bed: Bed) {
    let lease = two_parked_keys(&bed).await;
    bed.store.edit_letter("billing", 0, Offset(3), b"new".into()).await.unwrap();
    bed.ask(&at(3), Replay).await;
    let before = bed.dead().await;
    let (first, last) = (Timestamp(100), Timestamp(1_700_000_000_123));
    let failure = Failure { class: Class::Memory, reason: "it's too much".into(), attempts: 9, first, last };
    for digest in [Some("sha256:2".to_owned()), None] {
        let back = Settled::Back { offset: Offset(3), failure: failure.clone(), digest: digest.clone() };
        assert_eq!(bed.commit(settles(&lease, 6, vec![back])).await, CommitOutcome::Committed);
        let mut expected = before.clone();
        let kept = expected[3].clone();
        expected[3] = DeadLetter { failure: failure.clone(), digest, request: None, ..kept };
        assert!(expected[3].edited);
        assert_eq!((bed.dead().await, count(&bed).await), (expected, 6));
    }
}

pub(crate) async fn a_key_that_fails_again_is_not_replayed_any_further(bed: Bed) {
    let lease = two_parked_keys(&bed).await;
    bed.ask(&every(), Replay).await;
    let letters = bed.dead().await;
    bed.commit(settles(&lease, 6, vec![Settled::Gone(Offset(0)), back(&letters[2])])).await;
    assert_eq!(asked(&bed, Replay).await, [1, 3, 5], "other keys go on");
    assert_eq!(offsets(&bed, &of_key("a")).await, [2, 4], "what waits, waits on");
    bed.commit(settles(&lease, 6, vec![back(&letters[3])])).await;
    assert_eq!(asked(&bed, Replay).await, [1, 5], "a plain letter stands for itself");
}

pub(crate) async fn a_plain_letter_that_fails_again_stops_no_key(bed: Bed) {
    bed.orders_of(&["a", "a", "a"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..1, false).await;
    bed.set_aside(&lease, 1..3, true).await;
    bed.ask(&every(), Replay).await;
    let letters = bed.dead().await;
    bed.commit(settles(&lease, 3, vec![back(&letters[0])])).await;
    assert_eq!(asked(&bed, Replay).await, [1, 2]);
}

pub(crate) async fn settling_touches_no_other_group_or_partition(bed: Bed) {
    let leases = two_partitions(&bed).await;
    bed.group("audit", "orders").await;
    let other = bed.acquire("audit", 0, "one").await;
    bed.set_aside(&other, 0..3, true).await;
    bed.ask(&every(), Replay).await;
    bed.store.request_letters("audit", &every(), Replay).await.unwrap();
    let letters = bed.dead().await;
    bed.commit(settles(&leases[0], 3, vec![Settled::Gone(Offset(0)), back(&letters[1])])).await;
    let audit = bed.store.letters("audit", &every(), None, ALL).await.unwrap();
    assert_eq!(audit.iter().filter(|info| info.letter.request == Some(Replay)).count(), 3);
    assert_eq!(bed.place("audit", 0).await.letters, 3);
    assert_eq!((bed.place("billing", 0).await.letters, bed.place("billing", 1).await.letters), (2, 3));
    let requests: Vec<Option<LetterRequest>> = bed.dead().await.iter().map(|letter| letter.request).collect();
    assert_eq!(requests, [None, None, Some(Replay), Some(Replay), Some(Replay)]);
}

// --- Listed and edited --------------------------------------------------------------------------------------------

pub(crate) async fn letters_are_listed_page_by_page(bed: Bed) {
    two_partitions(&bed).await;
    let page = async |after: Option<(u32, u64)>, events, bytes| {
        let after = after.map(|(partition, offset)| (partition, Offset(offset)));
        places(&bed.store.letters("billing", &every(), after, ReadLimit { events, bytes }).await.unwrap())
    };
    let large = 1 << 30;
    assert_eq!(page(None, 2, large).await, [(0, 0), (0, 1)]);
    assert_eq!(page(Some((0, 1)), 2, large).await, [(0, 2), (1, 0)]);
    assert_eq!(page(Some((1, 0)), 9, large).await, [(1, 1), (1, 2)]);
    assert_eq!(page(Some((0, u64::MAX)), 1, large).await, [(1, 0)]);
    assert!(page(Some((1, 2)), 9, large).await.is_empty());
    assert!(page(Some((7, 0)), 9, large).await.is_empty());
    let letters = bed.dead().await;
    let two = (letters[0].event.bytes() + letters[1].event.bytes()) as u64;
    assert_eq!(page(None, 9, two).await, [(0, 0), (0, 1)]);
    assert_eq!(page(None, 9, two - 1).await, [(0, 0)]);
    assert_eq!(page(Some((0, 2)), 9, 1).await, [(1, 0)], "however large it is");
}

pub(crate) async fn a_page_counts_only_what_its_query_finds(bed: Bed) {
    two_parked_keys(&bed).await;
    let limit = ReadLimit { events: 2, ..ALL };
    let letters = bed.store.letters("billing", &of_key("a"), Some((0, Offset(0))), limit).await.unwrap();
    assert_eq!(places(&letters), [(0, 2), (0, 4)]);
}

pub(crate) async fn an_edited_letter_has_its_new_payload(bed: Bed) {
    two_parked_keys(&bed).await;
    let before = bed.dead().await;
    let payload = vec![0, 255, b'\''];
    bed.store.edit_letter("billing", 0, Offset(2), payload.clone()).await.unwrap();
    let mut expected = before.clone();
    (expected[2].event.payload, expected[2].edited) = (payload.clone(), true);
    assert_eq!(bed.dead().await, expected);
    assert_eq!(bed.read("orders", 0).await[2].payload, before[2].event.payload, "the stream stays as it is");
    bed.ask(&of_key("a"), Replay).await;
    let requested = bed.store.letters_requested("billing", 0, ALL).await.unwrap();
    assert_eq!((&requested[1].event.payload, requested[1].edited), (&payload, true));
}

pub(crate) async fn a_letter_of_which_something_was_asked_is_not_edited(bed: Bed) {
    two_parked_keys(&bed).await;
    bed.ask(&of_key("a"), Replay).await;
    bed.ask(&at(3), Discard).await;
    let before = bed.dead().await;
    for (offset, why) in [(2, "is to be replayed"), (3, "is to be discarded")] {
        let error = bed.store.edit_letter("billing", 0, Offset(offset), Vec::new()).await.unwrap_err();
        let StoreError::LetterBusy { id, is, .. } = &error else { panic!("{error}") };
        assert_eq!((id.as_str(), *is), (format!("0/{offset}").as_str(), why));
    }
    assert_eq!(bed.dead().await, before);
}

pub(crate) async fn a_letter_that_is_not_there_is_not_edited(bed: Bed) {
    bed.orders(3).await;
    bed.group("audit", "orders").await;
    let other = bed.acquire("audit", 0, "one").await;
    bed.set_aside(&other, 0..1, false).await;
    let error = bed.store.edit_letter("billing", 0, Offset(0), Vec::new()).await.unwrap_err();
    assert!(matches!(&error, StoreError::NoLetter { id, .. } if id == "0/0"), "{error}");
}

// --- By hand ------------------------------------------------------------------------------------------------------

fn reset(to: u64) -> Reset {
    Reset { group: "billing".into(), to: [(0, Offset(to))].into(), ..Reset::default() }
}

pub(crate) async fn a_reset_back_over_letters_is_refused(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..2, false).await;
    bed.commit(moves(&lease, 2, 4)).await;
    let forced = Reset { force: true, clear_state: Some(true), ..reset(1) };
    for (reset, found) in [(reset(0), 2), (reset(1), 1), (Reset { dry_run: true, ..reset(1) }, 1), (forced, 1)] {
        let error = bed.store.reset(&reset).await.unwrap_err();
        assert!(matches!(&error, StoreError::HasLetters { letters, .. } if *letters == found), "{error}");
    }
    assert_eq!(bed.commit(moves(&lease, 4, 5)).await, CommitOutcome::Committed, "nothing was moved, nobody fenced");
}

pub(crate) async fn a_reset_to_behind_the_letters_keeps_them(bed: Bed) {
    bed.orders(5).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_aside(&lease, 0..2, false).await;
    bed.commit(moves(&lease, 2, 4)).await;
    bed.store.reset(&reset(2)).await.unwrap();
    let place = bed.place("billing", 0).await;
    assert_eq!((place.committed, place.letters), (Offset(2), 2));
    assert_eq!(offsets(&bed, &every()).await, [0, 1]);
}

pub(crate) async fn letters_elsewhere_are_in_no_resets_way(bed: Bed) {
    let leases = two_partitions(&bed).await;
    bed.group("audit", "orders").await;
    let other = bed.acquire("audit", 0, "one").await;
    bed.set_aside(&other, 0..3, false).await;
    let all = (0..3).map(|offset| Settled::Gone(Offset(offset))).collect();
    bed.commit(settles(&leases[0], 3, all)).await;
    bed.store.reset(&reset(0)).await.unwrap();
    assert_eq!(bed.place("billing", 0).await.committed, Offset(0));
}

pub(crate) async fn a_group_with_letters_is_deleted_only_with_them(bed: Bed) {
    two_parked_keys(&bed).await;
    bed.group("audit", "orders").await;
    let other = bed.acquire("audit", 0, "one").await;
    bed.set_aside(&other, 0..1, false).await;
    let error = bed.store.delete_group("billing", false).await.unwrap_err();
    assert!(matches!(&error, StoreError::HasLetters { letters: 6, .. }), "{error}");
    assert_eq!(bed.dead().await.len(), 6);
    bed.store.delete_group("billing", true).await.unwrap();
    bed.group("billing", "orders").await;
    assert_eq!((bed.dead().await, count(&bed).await), (Vec::new(), 0));
    assert!(bed.store.parked("billing", 10).await.unwrap().is_empty());
    assert_eq!(bed.place("audit", 0).await.letters, 1);
}

pub(crate) async fn a_group_at_work_is_not_deleted_with_its_letters(bed: Bed) {
    two_parked_keys(&bed).await;
    bed.register("two", &["billing"]).await;
    let error = bed.store.delete_group("billing", true).await.unwrap_err();
    assert!(matches!(error, StoreError::GroupActive { .. }), "{error}");
    assert_eq!(count(&bed).await, 6);
}

pub(crate) async fn unknown_groups_have_no_letters(bed: Bed) {
    bed.orders(1).await;
    let store = &bed.store;
    let expected = r#"group "b" does not exist; known groups: "billing""#;
    assert_eq!(store.letters("b", &every(), None, ALL).await.unwrap_err().to_string(), expected);
    assert_eq!(store.parked("b", 1).await.unwrap_err().to_string(), expected);
    assert_eq!(store.request_letters("b", &every(), Replay).await.unwrap_err().to_string(), expected);
    assert_eq!(store.letters_requested("b", 0, ALL).await.unwrap_err().to_string(), expected);
    assert_eq!(store.edit_letter("b", 0, Offset(0), Vec::new()).await.unwrap_err().to_string(), expected);
    let expected = r#"group "billing" has no partition 1; it has 1, numbered from 0"#;
    assert_eq!(store.letters_requested("billing", 1, ALL).await.unwrap_err().to_string(), expected);
    assert_eq!(store.edit_letter("billing", 1, Offset(0), Vec::new()).await.unwrap_err().to_string(), expected);
}

pub(crate) async fn a_reason_of_any_text_is_set_aside(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let event = bed.read("orders", 0).await.swap_remove(0);
    // No column of PostgreSQL takes a NUL, and a guest writes what it likes.
    let set_aside = vec![DeadLetter { failure: failure(1, "a\0b"), ..letter(event, false) }];
    assert_eq!(bed.commit(Commit { set_aside, ..moves(&lease, 0, 1) }).await, CommitOutcome::Committed);
    let again = Settled::Back { offset: Offset(0), failure: failure(2, "a\0c"), digest: None };
    assert_eq!(bed.commit(settles(&lease, 1, vec![again])).await, CommitOutcome::Committed);
    let reason = bed.dead().await.swap_remove(0).failure.reason;
    assert!(reason.starts_with('a') && reason.ends_with('c'), "{reason:?}");
}

/// Letters of each of two partitions: a piece ends in the second one.
const EACH: u64 = LETTERS_AT_ONCE as u64 - 1_000;

/// Sets that many events of two partitions aside. In the first one some park the key `a`; all others are plain.
async fn more_than_a_piece(bed: &Bed) -> Vec<Lease> {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    let mut leases = Vec::new();
    for partition in 0..2 {
        let plain = key_for(partition, 2);
        let key = |n: u64| if partition == 0 && n % 3_000 < 2 { "a" } else { &plain };
        let events = (0..EACH).map(|n| keyed(&format!("p{partition}-{n}"), key(n))).collect();
        bed.store.append("orders", events).await.unwrap();
        let lease = bed.acquire("billing", partition, "one").await;
        set_all_aside(bed, &lease, EACH).await;
        leases.push(lease);
    }
    leases
}

/// Those of key `a` park it. Not many at once: no pump does that, and it is not what is looked at here.
async fn set_all_aside(bed: &Bed, lease: &Lease, count: u64) {
    let events = bed.read("orders", lease.partition).await;
    assert_eq!(events.len() as u64, count);
    for some in events.chunks(500) {
        let aside = |event: &Event| letter(event.clone(), event.key.as_deref() == Some("a"));
        let (from, to) = (some[0].offset.0, some[0].offset.0 + some.len() as u64);
        let commit = Commit { set_aside: some.iter().map(aside).collect(), ..moves(lease, from, to) };
        assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
    }
}

pub(crate) async fn more_are_asked_for_than_a_piece_takes(bed: Bed) {
    more_than_a_piece(&bed).await;
    assert_eq!(bed.ask(&every(), Replay).await, 2 * EACH);
    assert!(bed.dead().await.iter().all(|letter| letter.request == Some(Replay)));
    assert_eq!(bed.ask(&every(), Replay).await, 2 * EACH, "as often as one likes");
    let idle = LetterQuery { idle: true, ..every() };
    assert_eq!(bed.ask(&idle, Replay).await, 0);
}

pub(crate) async fn a_parked_key_is_asked_for_once_wherever_its_letters_are(bed: Bed) {
    bed.orders(0).await;
    // The key begins before the end of the first piece and goes on behind it.
    let all = u64::from(LETTERS_AT_ONCE) + 500;
    let behind = [all - 600, all - 400, all - 1];
    let event = |n| keyed(&format!("o{n}"), if behind.contains(&n) || n == 7 { "a" } else { "b" });
    bed.store.append("orders", (0..all).map(event).collect()).await.unwrap();
    let lease = bed.acquire("billing", 0, "one").await;
    set_all_aside(&bed, &lease, all).await;
    assert_eq!(bed.ask(&LetterQuery { first: true, ..every() }, Replay).await, all);
    assert!(bed.dead().await.iter().all(|letter| letter.request == Some(Replay)));
    assert_eq!(bed.ask(&every(), Replay).await, all, "each of them counts once");
    let settled = bed.store.letters_requested("billing", 0, ALL).await.unwrap();
    assert_eq!(settled.len() as u64, all);
}

pub(crate) async fn what_is_busy_far_behind_is_refused_and_the_rest_is_asked_for_later(bed: Bed) {
    let leases = more_than_a_piece(&bed).await;
    let last = LetterQuery { partition: Some(1), offset: Some(Offset(EACH - 1)), ..every() };
    assert_eq!(bed.ask(&last, Discard).await, 1);
    let error = bed.store.request_letters("billing", &every(), Replay).await.unwrap_err();
    assert!(matches!(error, StoreError::LetterBusy { .. }), "{error}");
    let settled = vec![Settled::Gone(Offset(EACH - 1))];
    bed.commit(Commit { settled, ..moves(&leases[1], EACH, EACH) }).await;
    assert_eq!(bed.ask(&every(), Replay).await, 2 * EACH - 1);
    assert!(bed.dead().await.iter().all(|letter| letter.request == Some(Replay)));
}

pub(crate) async fn more_are_discarded_than_a_piece_takes(bed: Bed) {
    more_than_a_piece(&bed).await;
    assert_eq!(bed.ask(&every(), Discard).await, 2 * EACH);
    assert!(bed.dead().await.iter().all(|letter| letter.request == Some(Discard)));
}
