//! Which versions of a handler answer, and which handled what.

use std::sync::Arc;

use futures_util::future::join_all;
use pelton_core::{
    Canary, Commit, CommitOutcome, Fate, Found, Lease, MODULES_KEPT, Mark, Offset, Proposal, Rollout, Timestamp,
};
use pelton_store::{GroupSpec, HandledRange, RANGES_MAX, Reset, Start};

use crate::bed::{Bed, emits, event, key_for, letter, moves, stop};

fn proposal(digest: &str) -> Proposal {
    let digest = format!("sha256:{digest}");
    Proposal { digest, bytes: 3, host: "one".into(), canary: None, found: Found::Changed }
}

fn proposed(rollout: &Rollout, digest: &str, at: u64) -> Rollout {
    rollout.propose(&proposal(digest), Timestamp(at)).unwrap()
}

async fn save(bed: &Bed, rollout: &Rollout, module: &str) -> bool {
    let module: Option<Arc<[u8]>> = (!module.is_empty()).then(|| module.as_bytes().into());
    bed.store.save_rollout(rollout, module).await.unwrap()
}

async fn module(bed: &Bed, digest: &str) -> Option<String> {
    let module = bed.store.module(&format!("sha256:{digest}")).await.unwrap();
    module.map(|bytes| String::from_utf8(bytes).unwrap())
}

pub(crate) async fn a_rollout_is_stored_whole_and_replaced_whole(bed: Bed) {
    assert_eq!(bed.store.rollouts().await.unwrap(), []);
    let first = proposed(&Rollout::of("invoice"), "a", 1_000);
    assert!(save(&bed, &first, "aaa").await);
    let canary = Proposal { canary: Some(Canary { partitions: 2, for_ms: 60_000 }), ..proposal("b") };
    let tried = first.propose(&canary, Timestamp(2_000)).unwrap();
    assert!(save(&bed, &tried, "bbb").await);
    let other = proposed(&Rollout::of("audit"), "x", 3_000);
    assert!(save(&bed, &other, "xxx").await);
    assert_eq!(bed.store.rollouts().await.unwrap(), [other.clone(), tried.clone()]);
    let taken_back = tried.take_back("sha256:b", "3 traps, it's \"said\"", Timestamp(4_000)).unwrap();
    let pinned = taken_back.pin(None, true, Timestamp(5_000)).unwrap();
    assert!(save(&bed, &taken_back, "").await && save(&bed, &pinned, "").await);
    let stored = bed.store.rollouts().await.unwrap().swap_remove(1);
    assert_eq!(stored, pinned);
    assert_eq!(stored.version("sha256:b").map(|version| version.fate), Some(Fate::RolledBack));
}

pub(crate) async fn a_rollout_is_stored_only_over_the_revision_it_was_made_from(bed: Bed) {
    let first = proposed(&Rollout::of("invoice"), "a", 1_000);
    let second = proposed(&first, "b", 2_000);
    assert!(!save(&bed, &second, "bbb").await, "there is nothing yet");
    assert_eq!(module(&bed, "b").await, None, "nothing of it is stored");
    assert!(save(&bed, &first, "aaa").await);
    assert!(!save(&bed, &first, "aaa").await, "it is there already");
    assert!(save(&bed, &second, "bbb").await);
    assert!(!save(&bed, &proposed(&first, "c", 3_000), "ccc").await, "somebody was faster");
    assert_eq!(bed.store.rollouts().await.unwrap(), [second]);
    assert_eq!(module(&bed, "c").await, None);
}

pub(crate) async fn of_two_who_change_a_rollout_at_once_one_succeeds(bed: Bed) {
    let mut stored = Rollout::of("invoice");
    for round in 0..20 {
        let ours = proposed(&stored, &format!("a{round}"), round);
        let theirs = proposed(&stored, &format!("b{round}"), round);
        let (one, other) = tokio::join!(save(&bed, &ours, "a"), save(&bed, &theirs, "b"));
        assert!(one != other, "round {round}: {one} and {other}");
        stored = bed.store.rollouts().await.unwrap().swap_remove(0);
        assert_eq!(stored, if one { ours } else { theirs });
    }
}

pub(crate) async fn the_sum_of_revisions_grows_with_every_change(bed: Bed) {
    assert_eq!(bed.store.rollouts_revision().await.unwrap(), 0);
    let first = proposed(&Rollout::of("invoice"), "a", 1_000);
    save(&bed, &first, "aaa").await;
    save(&bed, &proposed(&Rollout::of("audit"), "x", 1_000), "xxx").await;
    assert_eq!(bed.store.rollouts_revision().await.unwrap(), 2);
    save(&bed, &first.pin(None, true, Timestamp(0)).unwrap(), "").await;
    assert_eq!(bed.store.rollouts_revision().await.unwrap(), 3);
}

pub(crate) async fn a_module_is_kept_as_long_as_a_rollout_keeps_it(bed: Bed) {
    let mut rollout = Rollout::of("invoice");
    let names: Vec<String> = (0..MODULES_KEPT + 3).map(|number| format!("{number}")).collect();
    for (name, at) in names.iter().zip(1..) {
        rollout = proposed(&rollout, name, at);
        assert!(save(&bed, &rollout, name).await);
    }
    let last_kept = names.len() - MODULES_KEPT - 1;
    for (index, name) in names.iter().enumerate() {
        let kept = (index >= last_kept).then(|| name.clone());
        assert_eq!(module(&bed, name).await, kept, "{index}");
    }
}

pub(crate) async fn two_handlers_may_share_a_module(bed: Bed) {
    let (one, other) = (proposed(&Rollout::of("invoice"), "a", 1), proposed(&Rollout::of("audit"), "a", 2));
    assert!(save(&bed, &one, "aaa").await && save(&bed, &other, "aaa").await);
    let mut next = one;
    for number in 0..MODULES_KEPT as u64 + 2 {
        next = proposed(&next, &format!("n{number}"), 10 + number);
        assert!(save(&bed, &next, "n").await);
    }
    assert_eq!(module(&bed, "a").await.as_deref(), Some("aaa"), "the other one has it");
}

/// A rollout of one version alone, whatever came before.
fn only(handler: &str, revision: u64, digest: &str) -> Rollout {
    Rollout { revision, ..proposed(&Rollout::of(handler), digest, revision) }
}

pub(crate) async fn a_module_stays_while_one_handler_lets_go_of_it_and_another_takes_it(bed: Bed) {
    for round in 0..15 {
        let (one, other) = (format!("one{round}"), format!("other{round}"));
        let (x, y) = (format!("x{round}"), format!("y{round}"));
        assert!(save(&bed, &only(&one, 1, &x), &x).await && save(&bed, &only(&other, 1, &y), &y).await);
        // They swap.
        let (ours, theirs) = (only(&one, 2, &y), only(&other, 2, &x));
        assert_eq!(tokio::join!(save(&bed, &ours, &y), save(&bed, &theirs, &x)), (true, true));
        assert_eq!((module(&bed, &x).await, module(&bed, &y).await), (Some(x.clone()), Some(y)), "round {round}");
        // One takes what the other has, who lets go of it.
        let (ours, theirs) = (only(&one, 3, &x), Rollout { revision: 3, ..Rollout::of(&other) });
        assert_eq!(tokio::join!(save(&bed, &ours, &x), save(&bed, &theirs, "")), (true, true));
        assert_eq!(module(&bed, &x).await, Some(x), "round {round}");
        assert_eq!(module(&bed, &format!("y{round}")).await, None, "nobody has it");
    }
}

pub(crate) async fn many_handlers_may_be_saved_at_once(bed: Bed) {
    let rollouts: Vec<Rollout> = (0..12).map(|n| only(&format!("handler{n:02}"), 1, &format!("{}", n / 2))).collect();
    let saved = join_all(rollouts.iter().map(|rollout| save(&bed, rollout, "shared by two"))).await;
    assert!(saved.into_iter().all(|saved| saved));
    assert_eq!(bed.store.rollouts().await.unwrap(), rollouts);
    for digest in 0..6 {
        assert_eq!(module(&bed, &format!("{digest}")).await.as_deref(), Some("shared by two"));
    }
}

pub(crate) async fn a_large_module_is_kept_whole(bed: Bed) {
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    let large: Arc<[u8]> = (0..20 << 20).map(|_| next()).collect();
    let rollout = only("invoice", 1, "large");
    assert!(bed.store.save_rollout(&rollout, Some(Arc::clone(&large))).await.unwrap());
    assert!(!bed.store.save_rollout(&rollout, Some(Arc::clone(&large))).await.unwrap());
    let stored = bed.store.module("sha256:large").await.unwrap().unwrap();
    assert!(stored == *large, "{} bytes of {}", stored.len(), large.len());
    assert!(save(&bed, &only("invoice", 2, "small"), "small").await);
    assert_eq!(module(&bed, "large").await, None);
}

fn by(offsets: &[(u64, &str)]) -> Vec<(Offset, String)> {
    offsets.iter().map(|(offset, digest)| (Offset(*offset), format!("sha256:{digest}"))).collect()
}

async fn commit(bed: &Bed, lease: &Lease, from: u64, to: u64, handled_by: &[(u64, &str)]) {
    let commit = Commit { handled_by: by(handled_by), ..moves(lease, from, to) };
    assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
}

/// `from..until digest` of each.
async fn ranges(bed: &Bed, handler: &str) -> Vec<String> {
    let show = |range: &HandledRange| {
        let until = range.until.map_or(String::new(), |until| until.to_string());
        format!("{}/{} {}..{until} {}", range.group, range.partition, range.from, range.digest)
    };
    bed.store.ranges(handler, 10_000).await.unwrap().iter().map(show).collect()
}

pub(crate) async fn a_version_handles_a_range_until_another_takes_over(bed: Bed) {
    bed.orders(9).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_time(7_000).await;
    commit(&bed, &lease, 0, 2, &[(0, "a")]).await;
    commit(&bed, &lease, 2, 5, &[]).await;
    bed.set_time(8_000).await;
    commit(&bed, &lease, 5, 9, &[(6, "b")]).await;
    assert_eq!(ranges(&bed, "handler").await, ["billing/0 0..6 sha256:a", "billing/0 6.. sha256:b"]);
    let all = bed.store.ranges("handler", 10).await.unwrap();
    assert_eq!((all[0].since, all[1].since), (Timestamp(7_000), Timestamp(8_000)));
    assert!(all.iter().all(|range| range.host == "one" && range.handler == "handler"));
    assert_eq!(bed.store.ranges("handler", 1).await.unwrap(), all[1..]);
}

pub(crate) async fn the_next_owner_is_told_who_handled_what_came_last(bed: Bed) {
    bed.orders(4).await;
    let claim = bed.claim("billing", 0, "one").await;
    assert_eq!(claim.handled_by, None);
    let lease = bed.acquire("billing", 0, "one").await;
    commit(&bed, &lease, 0, 2, &[(0, "a"), (1, "b")]).await;
    bed.store.release(&lease).await.unwrap();
    assert_eq!(bed.claim("billing", 0, "two").await.handled_by.as_deref(), Some("sha256:b"));
}

pub(crate) async fn nothing_is_on_record_of_a_fenced_or_refused_commit(bed: Bed) {
    bed.orders(4).await;
    let old = bed.acquire("billing", 0, "one").await;
    bed.store.release(&old).await.unwrap();
    let new = bed.acquire("billing", 0, "two").await;
    let fenced = Commit { handled_by: by(&[(0, "a")]), ..moves(&old, 0, 1) };
    assert_eq!(bed.commit(fenced).await, CommitOutcome::Fenced);
    let refused = Commit { handled_by: by(&[(0, "a")]), effects: emits("nowhere", &["n"]), ..moves(&new, 0, 1) };
    assert!(matches!(bed.commit(refused).await, CommitOutcome::Refused(_)));
    assert!(ranges(&bed, "handler").await.is_empty());
}

pub(crate) async fn a_repeated_commit_records_nothing_twice(bed: Bed) {
    bed.orders(4).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let commit = Commit { handled_by: by(&[(0, "a")]), ..moves(&lease, 0, 1) };
    for _ in 0..2 {
        assert_eq!(bed.commit(commit.clone()).await, CommitOutcome::Committed);
    }
    assert_eq!(ranges(&bed, "handler").await, ["billing/0 0.. sha256:a"]);
}

pub(crate) async fn a_range_may_begin_in_the_middle_of_a_commit_and_several_may(bed: Bed) {
    bed.orders(9).await;
    let lease = bed.acquire("billing", 0, "one").await;
    commit(&bed, &lease, 0, 9, &[(0, "a"), (3, "b"), (3, "c"), (8, "a")]).await;
    let expected = ["0..3 sha256:a", "3..3 sha256:b", "3..8 sha256:c", "8.. sha256:a"];
    assert_eq!(ranges(&bed, "handler").await, expected.map(|range| format!("billing/0 {range}")));
}

pub(crate) async fn a_reset_ends_the_range_where_the_position_was(bed: Bed) {
    bed.orders(9).await;
    let lease = bed.acquire("billing", 0, "one").await;
    commit(&bed, &lease, 0, 6, &[(0, "a")]).await;
    let reset = |to| Reset { group: "billing".into(), to: [(0, Offset(to))].into(), force: true, ..Reset::default() };
    bed.store.reset(&Reset { dry_run: true, ..reset(2) }).await.unwrap();
    assert_eq!(ranges(&bed, "handler").await, ["billing/0 0.. sha256:a"]);
    bed.store.reset(&reset(2)).await.unwrap();
    assert_eq!(ranges(&bed, "handler").await, ["billing/0 0..6 sha256:a"]);
    assert_eq!(bed.claim("billing", 0, "one").await.handled_by, None, "what comes next is on record again");
    let again = bed.acquire("billing", 0, "one").await;
    commit(&bed, &again, 2, 3, &[(2, "a")]).await;
    assert_eq!(ranges(&bed, "handler").await, ["billing/0 0..6 sha256:a", "billing/0 2.. sha256:a"]);
}

pub(crate) async fn the_newest_ranges_are_kept(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let changes = RANGES_MAX + 20;
    let handled_by: Vec<_> = (0..changes).map(|number| (Offset(0), format!("sha256:{number}"))).collect();
    for part in handled_by.chunks(100) {
        let commit = Commit { handled_by: part.to_vec(), ..moves(&lease, 0, 0) };
        assert_eq!(bed.commit(commit).await, CommitOutcome::Committed);
    }
    let kept = ranges(&bed, "handler").await;
    assert_eq!(kept.len(), RANGES_MAX);
    assert_eq!(kept.first().map(String::as_str), Some("billing/0 0..0 sha256:20"));
    assert_eq!(kept.last(), Some(&format!("billing/0 0.. sha256:{}", changes - 1)));
}

pub(crate) async fn ranges_are_those_of_the_handler_that_the_group_had(bed: Bed) {
    bed.orders(4).await;
    let lease = bed.acquire("billing", 0, "one").await;
    commit(&bed, &lease, 0, 2, &[(0, "a")]).await;
    let spec =
        GroupSpec { name: "billing".into(), stream: "orders".into(), handler: "other".into(), start: Start::Earliest };
    bed.store.declare_group(&spec).await.unwrap();
    commit(&bed, &lease, 2, 4, &[(2, "b")]).await;
    assert_eq!(ranges(&bed, "handler").await, ["billing/0 0..2 sha256:a"]);
    assert_eq!(ranges(&bed, "other").await, ["billing/0 2.. sha256:b"]);
}

pub(crate) async fn ranges_go_with_their_group(bed: Bed) {
    bed.orders(4).await;
    let lease = bed.acquire("billing", 0, "one").await;
    commit(&bed, &lease, 0, 2, &[(0, "a")]).await;
    bed.store.release(&lease).await.unwrap();
    bed.store.delete_group("billing", false).await.unwrap();
    assert!(ranges(&bed, "handler").await.is_empty());
}

pub(crate) async fn a_group_created_again_has_nothing_on_record(bed: Bed) {
    bed.orders(4).await;
    let lease = bed.acquire("billing", 0, "one").await;
    commit(&bed, &lease, 0, 2, &[(0, "a")]).await;
    bed.store.release(&lease).await.unwrap();
    bed.store.delete_group("billing", false).await.unwrap();
    bed.group("billing", "orders").await;
    assert_eq!(bed.claim("billing", 0, "one").await.handled_by, None);
}

pub(crate) async fn a_skip_leaves_the_version_on_record(bed: Bed) {
    bed.orders(4).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let stopped = Commit { mark: Some(stop(2, 1)), handled_by: by(&[(0, "a")]), ..moves(&lease, 0, 2) };
    assert_eq!(bed.commit(stopped).await, CommitOutcome::Committed);
    bed.store.skip("billing", 0, false).await.unwrap();
    assert_eq!(bed.claim("billing", 0, "two").await.handled_by.as_deref(), Some("sha256:a"));
    assert_eq!(ranges(&bed, "handler").await, ["billing/0 0.. sha256:a"]);
}

pub(crate) async fn of_ranges_of_one_moment_the_newest_come_last(bed: Bed) {
    bed.orders(9).await;
    let lease = bed.acquire("billing", 0, "one").await;
    commit(&bed, &lease, 0, 9, &[(0, "a"), (3, "b"), (3, "c"), (8, "a")]).await;
    let newest = bed.store.ranges("handler", 2).await.unwrap();
    assert_eq!(newest.iter().map(|range| range.from).collect::<Vec<_>>(), [Offset(3), Offset(8)]);
    assert_eq!(newest[0].digest, "sha256:c");
    assert!(bed.store.ranges("handler", 0).await.unwrap().is_empty());
}

pub(crate) async fn versions_take_over_in_many_partitions_at_once(bed: Bed) {
    let partitions = 12;
    bed.stream("orders", partitions).await;
    bed.stream("mail", 1).await;
    bed.group("billing", "orders").await;
    let keyed = |n: u32| {
        let key = Some(key_for(n % partitions, partitions));
        pelton_core::NewEvent { key, ..event(&format!("o{n}")) }
    };
    bed.store.append("orders", (0..4 * partitions).map(keyed).collect()).await.unwrap();
    let mut leases = Vec::new();
    for partition in 0..partitions {
        leases.push(bed.acquire("billing", partition, "one").await);
    }
    let first =
        join_all(leases.iter().map(|lease| bed.commit(Commit { handled_by: by(&[(0, "a")]), ..moves(lease, 0, 1) })));
    assert!(first.await.into_iter().all(|outcome| outcome == CommitOutcome::Committed));

    // Others go with them: with emits, with dead letters, with nothing, and two that are not stored.
    let aside = letter(bed.read("orders", 4).await.swap_remove(1), false);
    let commit = |lease: &Lease| {
        let partition = lease.partition;
        let commit = Commit { handled_by: by(&[(1, "b"), (2, "c")]), ..moves(lease, 1, 3) };
        match partition {
            0 => Commit { lease: Lease { epoch: pelton_core::Epoch(0), ..lease.clone() }, ..commit },
            1 => Commit { to: Offset(100), ..commit },
            2 => Commit { handled_by: Vec::new(), ..commit },
            3 => Commit { effects: emits("mail", &["m"]), ..commit },
            4 => Commit { set_aside: vec![aside.clone()], ..commit },
            5 => Commit { mark: None, ..commit },
            6 => Commit { mark: Some(Mark::Clear), handled_by: by(&[(3, "c")]), ..commit },
            _ => commit,
        }
    };
    let outcomes = join_all(leases.iter().map(|lease| bed.commit(commit(lease)))).await;
    assert_eq!(outcomes[0], CommitOutcome::Fenced);
    assert!(matches!(outcomes[1], CommitOutcome::Refused(_)), "{outcomes:?}");
    assert!(outcomes[2..].iter().all(|outcome| *outcome == CommitOutcome::Committed), "{outcomes:?}");
    let expected = (0..partitions).flat_map(|partition| {
        let ranges: &[&str] = match partition {
            0..=2 => &["0.. sha256:a"],
            6 => &["0..3 sha256:a", "3.. sha256:c"],
            _ => &["0..1 sha256:a", "1..2 sha256:b", "2.. sha256:c"],
        };
        ranges.iter().map(move |range| format!("billing/{partition} {range}"))
    });
    assert_eq!(ranges(&bed, "handler").await, expected.collect::<Vec<_>>());
}
