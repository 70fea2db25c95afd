//! What an observer concludes from what a store shows it.

use super::*;

const NOW: u64 = 1_000_000;
const TIMEOUT_MS: u64 = 10_000;

fn session(host: &str, incarnation: u64) -> Session {
    Session { host: host.into(), incarnation }
}

/// Hosts of these names that were just heard of and are members of group `g`, which is balanced over four partitions.
fn healthy(hosts: &[&str]) -> Survey {
    let host = |(name, incarnation): (&&str, u64)| HostSeen {
        session: session(name, incarnation),
        last_heartbeat: Timestamp(NOW),
        lock: LockSeen::Held,
        expelled: false,
    };
    let hosts: Vec<HostSeen> = hosts.iter().zip(1..).map(host).collect();
    let mut survey = Survey { now: Timestamp(NOW), since: Timestamp(0), hosts, groups: vec![] };
    add_group(&mut survey, "g", TIMEOUT_MS);
    survey
}

/// All hosts join another group.
fn add_group(survey: &mut Survey, group: &str, session_timeout_ms: u64) {
    let member = |host: &HostSeen| MemberSeen {
        session: host.session.clone(),
        session_timeout_ms,
        partitions_max: 0,
        expelled: false,
    };
    let members = survey.hosts.iter().map(member).collect();
    let seat = |at: usize| SeatSeen {
        target: survey.hosts.get(at % survey.hosts.len().max(1)).map(|host| host.session.host.clone()),
        ..SeatSeen::default()
    };
    let seats = (0..4).map(seat).collect();
    survey.groups.push(GroupSeen { group: group.into(), generation: 7, members, seats });
}

fn expelled(decisions: &[Decision]) -> Vec<(&str, Option<&str>, Expelled)> {
    let expelled = decisions.iter().map(|decision| match decision {
        Decision::Expel { session, group, why, .. } => (&*session.host, group.as_deref(), *why),
        Decision::Assign { .. } => panic!("nobody is to be given partitions: {decisions:?}"),
    });
    expelled.collect()
}

/// The targets of the only decision, a letter each.
fn assigned(decisions: &[Decision]) -> String {
    match decisions {
        [Decision::Assign { group, generation: 7, targets, .. }] if group == "g" => {
            targets.iter().map(|target| target.as_deref().unwrap_or("-")).collect()
        }
        _ => panic!("one assignment was expected: {decisions:?}"),
    }
}

fn look(survey: &Survey) -> Vec<Decision> {
    Observer::default().decide(0, survey)
}

#[test]
fn where_nothing_is_wrong_nothing_is_decided() {
    assert_eq!(look(&healthy(&["a", "b"])), []);
    assert_eq!(look(&healthy(&[])), []);
    assert_eq!(look(&Survey::default()), []);
}

#[test]
fn a_free_lock_costs_its_host_the_membership_after_the_grace_and_not_before() {
    let mut survey = healthy(&["a", "b"]);
    survey.hosts[0].lock = LockSeen::Free;
    let mut observer = Observer::default();
    assert_eq!(observer.grace_left_ms(500), None);
    assert_eq!(observer.decide(500, &survey), []);
    assert_eq!(observer.grace_left_ms(600), Some(LOCK_GRACE_MS - 100));
    assert_eq!(observer.decide(500 + LOCK_GRACE_MS - 1, &survey), []);
    let decisions = observer.decide(500 + LOCK_GRACE_MS, &survey);
    assert_eq!(expelled(&decisions), [("a", None, Expelled::LockFree)]);
    let Decision::Expel { session, last_heartbeat, .. } = &decisions[0] else { panic!("{decisions:?}") };
    assert_eq!((session.incarnation, *last_heartbeat), (1, Timestamp(NOW)), "only if it is as it was seen");

    survey.hosts[0].expelled = true;
    observer.decide(2_000, &survey);
    assert_eq!(observer.grace_left_ms(2_000), None, "nothing is left to wait for");
}

#[test]
fn a_lock_that_was_held_in_between_begins_its_grace_again() {
    let mut survey = healthy(&["a", "b"]);
    let mut observer = Observer::default();
    for (now_ms, lock) in [(0, LockSeen::Free), (200, LockSeen::Held), (400, LockSeen::Free), (699, LockSeen::Free)] {
        survey.hosts[0].lock = lock;
        assert_eq!(observer.decide(now_ms, &survey), [], "at {now_ms} ms");
    }
    assert_eq!(expelled(&observer.decide(700, &survey)), [("a", None, Expelled::LockFree)]);
}

#[test]
fn a_new_registration_has_a_grace_of_its_own() {
    let mut survey = healthy(&["a"]);
    survey.hosts[0].lock = LockSeen::Free;
    let mut observer = Observer::default();
    observer.decide(0, &survey);
    survey.hosts[0].session.incarnation = 9;
    survey.groups[0].members[0].session.incarnation = 9;
    assert_eq!(observer.decide(LOCK_GRACE_MS, &survey), []);
}

#[test]
fn a_lock_that_says_nothing_never_costs_anything() {
    let mut survey = healthy(&["a", "b"]);
    let mut observer = Observer::default();
    survey.hosts[0].lock = LockSeen::Free;
    observer.decide(0, &survey);
    survey.hosts[0].lock = LockSeen::Unknown;
    for now_ms in [LOCK_GRACE_MS, 1_000_000] {
        assert_eq!(observer.decide(now_ms, &survey), []);
    }
}

#[test]
fn a_silent_host_is_given_up_after_its_session_timeout_whatever_its_lock_says() {
    for lock in [LockSeen::Held, LockSeen::Unknown] {
        let mut survey = healthy(&["a", "b"]);
        survey.hosts[0].lock = lock;
        survey.hosts[0].last_heartbeat = Timestamp(NOW - TIMEOUT_MS);
        assert_eq!(look(&survey), []);
        survey.hosts[0].last_heartbeat = Timestamp(NOW - TIMEOUT_MS - 1);
        assert_eq!(expelled(&look(&survey)), [("a", None, Expelled::Silent(TIMEOUT_MS + 1))]);
    }
}

#[test]
fn each_membership_has_its_own_patience_and_the_host_that_of_the_longest() {
    let mut survey = healthy(&["a"]);
    add_group(&mut survey, "patient", 60_000);
    survey.hosts[0].last_heartbeat = Timestamp(NOW - 20_000);
    assert_eq!(expelled(&look(&survey)), [("a", Some("g"), Expelled::Silent(20_000))]);
    survey.groups[0].members[0].expelled = true;
    survey.groups[0].seats.iter_mut().for_each(|seat| seat.target = None);
    assert_eq!(look(&survey), [], "once is enough");
    survey.hosts[0].last_heartbeat = Timestamp(NOW - 60_001);
    assert_eq!(expelled(&look(&survey)), [("a", None, Expelled::Silent(60_001))]);
}

#[test]
fn a_host_that_works_for_no_group_is_given_up_too() {
    let mut survey = healthy(&["a"]);
    survey.groups.clear();
    survey.hosts[0].last_heartbeat = Timestamp(NOW - SESSION_TIMEOUT_MS_DEFAULT - 1);
    assert_eq!(expelled(&look(&survey)), [("a", None, Expelled::Silent(SESSION_TIMEOUT_MS_DEFAULT + 1))]);
}

#[test]
fn nobody_is_silent_for_longer_than_the_store_is_there() {
    let mut survey = healthy(&["a", "b"]);
    survey.hosts.iter_mut().for_each(|host| (host.last_heartbeat, host.lock) = (Timestamp(1), LockSeen::Unknown));
    survey.since = Timestamp(NOW - TIMEOUT_MS);
    assert_eq!(look(&survey), []);
    survey.since = Timestamp(NOW - TIMEOUT_MS - 1);
    assert_eq!(expelled(&look(&survey)).len(), 2);
}

#[test]
fn a_clock_that_was_set_back_gives_nobody_up() {
    let mut survey = healthy(&["a", "b"]);
    survey.now = Timestamp(0);
    assert_eq!(look(&survey), []);
}

#[test]
fn a_new_member_is_given_its_share() {
    let mut survey = healthy(&["a", "b"]);
    survey.groups[0].seats.iter_mut().for_each(|seat| seat.target = Some("a".into()));
    assert_eq!(assigned(&look(&survey)), "aabb");
}

#[test]
fn who_was_given_up_or_registered_anew_without_joining_is_given_nothing() {
    let mut by_host = healthy(&["a", "b"]);
    by_host.hosts[0].expelled = true;
    let mut by_group = healthy(&["a", "b"]);
    by_group.groups[0].members[0].expelled = true;
    let mut earlier = healthy(&["a", "b"]);
    earlier.hosts[0].session.incarnation = 9;
    let mut unknown = healthy(&["a", "b"]);
    unknown.hosts.remove(0);
    for survey in [by_host, by_group, earlier, unknown] {
        assert_eq!(assigned(&look(&survey)), "bbbb", "{survey:?}");
        let member = &survey.groups[0].members[0];
        assert!(!survey.is_active(member) && !survey.shows_active_member(member));
    }
}

#[test]
fn while_a_member_is_being_given_up_nothing_is_assigned_in_its_group() {
    // Giving it up may fail, because it was heard of in the meantime. Then nothing of it may move.
    let mut survey = healthy(&["a", "b"]);
    add_group(&mut survey, "other", TIMEOUT_MS);
    survey.groups[1].members.remove(0);
    survey.hosts[0].last_heartbeat = Timestamp(0);
    let decisions = look(&survey);
    assert!(
        matches!(
            &decisions[..],
            [Decision::Expel { session, group: None, .. }, Decision::Assign { group, .. }]
                if &*session.host == "a" && group == "other"
        ),
        "groups that it is no member of need not wait: {decisions:?}"
    );
}

#[test]
fn a_member_shows_as_active_while_it_is_heard_of_and_its_process_lives() {
    let mut survey = healthy(&["a", "b", "c"]);
    survey.hosts[0].last_heartbeat = Timestamp(NOW - TIMEOUT_MS - 1);
    survey.hosts[1].lock = LockSeen::Free;
    let shown: Vec<bool> = survey.groups[0].members.iter().map(|member| survey.shows_active_member(member)).collect();
    assert_eq!(shown, [false, false, true]);
    let shown: Vec<bool> = survey.hosts.iter().map(|host| survey.shows_active(host)).collect();
    assert_eq!(shown, [false, false, true]);
}

#[test]
fn a_process_that_is_gone_for_certain_is_given_up_at_once() {
    let mut survey = healthy(&["a", "b"]);
    survey.hosts[0].lock = LockSeen::Gone;
    assert_eq!(expelled(&Observer::default().decide(0, &survey)), [("a", None, Expelled::LockFree)]);
    assert!(!survey.shows_active(&survey.hosts[0]));
}
