use proptest::prelude::*;

use super::*;

const CANARY: Canary = Canary { partitions: 2, for_ms: 1_000 };

fn proposal(digest: &str, found: Found) -> Proposal {
    Proposal { digest: format!("sha256:{digest}"), bytes: 1, host: "h".into(), canary: None, found }
}

/// A handler whose versions took over one after the other, one a second.
fn after(digests: &[&str]) -> Rollout {
    let propose = |rollout: Rollout, (second, digest): (usize, &&str)| {
        rollout
            .propose(&proposal(digest, Found::Changed), Timestamp(second as u64 * 1_000))
            .expect("nothing is against it")
    };
    digests.iter().enumerate().fold(Rollout::of("invoice"), propose)
}

#[test]
fn the_first_version_is_live_at_once_whatever_the_canary() {
    let first = Proposal { canary: Some(CANARY), ..proposal("a", Found::AtStart { alone: true }) };
    let rollout = Rollout::of("invoice").propose(&first, Timestamp(5)).expect("nothing is against it");
    assert_eq!((rollout.live.as_deref(), &rollout.trial), (Some("sha256:a"), &None));
    assert_eq!(rollout.version("sha256:a").and_then(|version| version.live_at), Some(Timestamp(5)));
}

#[test]
fn a_canary_answers_in_its_partitions_until_its_time_is_over() {
    let tried = Proposal { canary: Some(CANARY), ..proposal("b", Found::Changed) };
    let rollout = after(&["a"]).propose(&tried, Timestamp(500)).expect("nothing is against it");
    let answers: Vec<_> = (0..4).map(|partition| rollout.version_for(partition).unwrap_or_default()).collect();
    assert_eq!(answers, ["sha256:b", "sha256:b", "sha256:a", "sha256:a"]);
    assert_eq!(rollout.promote(Timestamp(1_499)), None);
    let promoted = rollout.promote(Timestamp(1_500)).expect("its time is over");
    assert_eq!((promoted.version_for(3), &promoted.trial), (Some("sha256:b"), &None));
    assert_eq!(promoted.previous().map(|version| &*version.digest), Some("sha256:a"));
}

#[test]
fn putting_the_file_back_ends_a_canary() {
    let tried = Proposal { canary: Some(CANARY), ..proposal("b", Found::Changed) };
    let rollout = after(&["a"]).propose(&tried, Timestamp(500)).expect("nothing is against it");
    let again = rollout.propose(&proposal("a", Found::AtStart { alone: true }), Timestamp(600));
    assert_eq!(again, Err(Refusal::Already), "the file was there before the canary");
    let back = rollout.propose(&proposal("a", Found::Changed), Timestamp(600)).expect("somebody put it back");
    assert_eq!((back.live.as_deref(), &back.trial), (Some("sha256:a"), &None));
    assert_eq!(back.version("sha256:b").map(|version| version.fate), Some(Fate::Superseded));
}

#[test]
fn what_was_live_before_is_told_by_order_and_not_by_anybodys_clock() {
    let rollout = after(&["a", "b", "c"]).go_back(Some("a"), Timestamp(0)).expect("a is kept");
    let rollout = rollout.propose(&proposal("d", Found::Changed), Timestamp(0)).expect("nothing is against it");
    assert_eq!(rollout.previous().map(|version| &*version.digest), Some("sha256:a"));
}

#[test]
fn what_was_rolled_back_is_not_proposed_again_by_a_file_that_still_lies_there() {
    let rollout = after(&["a", "b"]).take_back("sha256:b", "3 traps", Timestamp(9_000)).expect("a was before it");
    assert_eq!(rollout.live.as_deref(), Some("sha256:a"));
    for found in [Found::Changed, Found::AtStart { alone: true }, Found::AtStart { alone: false }] {
        let refused = rollout.propose(&proposal("b", found), Timestamp(9_500));
        assert!(matches!(refused, Err(Refusal::RolledBack { .. })), "{refused:?}");
    }
    let by_hand = rollout.go_back(Some("b"), Timestamp(9_600)).expect("people may");
    assert_eq!(by_hand.live.as_deref(), Some("sha256:b"));
    assert_eq!(by_hand.version("sha256:a").map(|version| version.fate), Some(Fate::RolledBack));
}

#[test]
fn an_old_copy_is_proposed_only_by_a_change_or_by_a_host_that_is_alone() {
    let rollout = after(&["a", "b"]);
    let old = |found| rollout.propose(&proposal("a", found), Timestamp(9_000)).map(|next| next.live);
    assert!(matches!(old(Found::AtStart { alone: false }), Err(Refusal::Superseded { .. })));
    assert_eq!(old(Found::AtStart { alone: true }), Ok(Some("sha256:a".into())));
    assert_eq!(old(Found::Changed), Ok(Some("sha256:a".into())));
}

#[test]
fn nothing_is_proposed_or_taken_back_over_a_pin() {
    let pinned = after(&["a", "b"]).pin(None, true, Timestamp(1)).expect("b is live");
    assert!(matches!(pinned.propose(&proposal("c", Found::Changed), Timestamp(2)), Err(Refusal::Pinned { .. })));
    assert!(matches!(pinned.take_back("sha256:b", "3 traps", Timestamp(2)), Err(Refusal::Pinned { .. })));
    let to_a = pinned.pin(Some("sha256:a"), true, Timestamp(3)).expect("a is kept");
    assert_eq!((to_a.live.as_deref(), to_a.pinned), (Some("sha256:a"), true));
    let free = to_a.pin(None, false, Timestamp(4)).expect("it was pinned");
    assert!(!free.pinned && free.propose(&proposal("c", Found::Changed), Timestamp(5)).is_ok());
}

#[test]
fn without_one_before_it_a_version_stays_whatever_it_does() {
    let only = after(&["a"]);
    assert!(matches!(only.take_back("sha256:a", "3 traps", Timestamp(1)), Err(Refusal::NoneBefore { .. })));
    let both_bad = after(&["a", "b"]).take_back("sha256:b", "3 traps", Timestamp(1)).expect("a was before it");
    assert!(matches!(both_bad.take_back("sha256:a", "3 traps", Timestamp(2)), Err(Refusal::NoneBefore { .. })));
}

#[test]
fn only_what_came_last_is_new() {
    let new = |rollout: &Rollout| rollout.newcomer().map(|(digest, since)| (digest.to_owned(), since.0));
    assert_eq!(new(&after(&["a"])), None, "nothing is there to go back to");
    let rollout = after(&["a", "b", "c"]);
    assert_eq!(new(&rollout), Some(("sha256:c".into(), 2_000)));
    let back = rollout.take_back("sha256:c", "3 traps", Timestamp(9_000)).expect("b was before it");
    assert_eq!(new(&back), None, "an outage would lead back to the very first");
    let tried = Proposal { canary: Some(CANARY), ..proposal("d", Found::Changed) };
    let tried = back.propose(&tried, Timestamp(9_500)).expect("nothing is against it");
    assert_eq!(new(&tried), Some(("sha256:d".into(), 9_500)));
    assert_eq!(new(&rollout.pin(None, true, Timestamp(9_000)).expect("c is live")), None);
}

#[test]
fn a_digest_may_be_given_by_its_beginning() {
    let rollout = after(&["abc", "abd", "x"]);
    assert_eq!(rollout.find("sha256:abd").map(|version| &*version.digest), Ok("sha256:abd"));
    assert_eq!(rollout.find("x").map(|version| &*version.digest), Ok("sha256:x"));
    assert!(matches!(rollout.find("ab"), Err(Refusal::Ambiguous { .. })));
    assert!(matches!(rollout.find("q"), Err(Refusal::Unknown { .. })));
    assert!(matches!(rollout.find(""), Err(Refusal::Unknown { .. } | Refusal::Ambiguous { .. })));
}

#[test]
fn traps_and_a_share_of_errors_are_too_many() {
    let tolerance = Tolerance::default();
    let seen = |calls, failures, traps| tolerance.exceeded(Seen { calls, failures, traps }).is_some();
    assert!(!seen(1_000, 2, 2) && seen(1_000, 3, 3));
    assert!(!seen(19, 19, 0) && seen(20, 10, 0) && !seen(20, 9, 0));
    let patient = Tolerance { traps: 0, errors: 1.1, ..tolerance };
    assert_eq!(patient.exceeded(Seen { calls: 50, failures: 50, traps: 50 }), None);
}

#[derive(Clone, Debug)]
enum Change {
    Propose(u8, bool, Found),
    Promote,
    TakeBack(u8),
    GoBack(Option<u8>),
    Pin(Option<u8>, bool),
}

fn change() -> impl Strategy<Value = Change> {
    let found = prop_oneof![Just(Found::Changed), any::<bool>().prop_map(|alone| Found::AtStart { alone }),];
    prop_oneof![
        4 => (0..80u8, any::<bool>(), found).prop_map(|(digest, canary, found)| Change::Propose(digest, canary, found)),
        2 => Just(Change::Promote),
        2 => (0..80u8).prop_map(Change::TakeBack),
        1 => proptest::option::of(0..80u8).prop_map(Change::GoBack),
        1 => (proptest::option::of(0..80u8), any::<bool>()).prop_map(|(digest, pinned)| Change::Pin(digest, pinned)),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_what_answers_is_known_kept_and_not_taken_back(changes in prop::collection::vec(change(), 1..200)) {
        let mut rollout = Rollout::of("invoice");
        for (second, change) in changes.into_iter().enumerate() {
            let now = Timestamp(second as u64 * 700);
            let name = |digest: u8| format!("sha256:{digest:02}");
            let next = match change {
                Change::Propose(digest, canary, found) => {
                    let canary = canary.then_some(CANARY);
                    rollout.propose(&Proposal { canary, ..proposal(&format!("{digest:02}"), found) }, now).ok()
                }
                Change::Promote => rollout.promote(now),
                Change::TakeBack(digest) => rollout.take_back(&name(digest), "why", now).ok(),
                Change::GoBack(to) => rollout.go_back(to.map(name).as_deref(), now).ok(),
                Change::Pin(to, pinned) => rollout.pin(to.map(name).as_deref(), pinned, now).ok(),
            };
            let Some(next) = next else { continue };
            // A module that was let go of is nowhere to be had; with a proposal it comes.
            let came = next.versions.last().filter(|last| last.proposed_at == now).map(|last| last.digest.clone());
            for kept in next.kept().filter(|kept| came.as_deref() != Some(kept)) {
                prop_assert!(rollout.kept().any(|before| before == kept));
            }
            prop_assert_eq!(next.revision, rollout.revision + 1);
            rollout = next;
            let with = |fate| rollout.versions.iter().filter(|version| version.fate == fate).collect::<Vec<_>>();
            let (live, trial) = (with(Fate::Live), with(Fate::Trial));
            prop_assert_eq!(live.len(), 1);
            prop_assert_eq!(rollout.live.as_ref(), Some(&live[0].digest));
            prop_assert!(live[0].live_at.is_some());
            prop_assert_eq!(trial.len(), usize::from(rollout.trial.is_some()));
            prop_assert_eq!(rollout.trial.as_ref().map(|trial| &trial.digest), trial.first().map(|version| &version.digest));
            prop_assert!(rollout.versions.len() <= VERSIONS_MAX);
            let kept: Vec<_> = rollout.kept().collect();
            prop_assert!(kept.len() <= MODULES_KEPT + 2);
            for answers in live.iter().chain(&trial) {
                prop_assert!(kept.contains(&&*answers.digest));
            }
            prop_assert!(rollout.previous().is_none_or(|previous| kept.contains(&&*previous.digest)));
            let mut digests: Vec<_> = rollout.versions.iter().map(|version| &version.digest).collect();
            digests.sort();
            digests.dedup();
            prop_assert_eq!(digests.len(), rollout.versions.len());
        }
    }
}
