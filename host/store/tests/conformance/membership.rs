//! Who is to hold which partition, who holds it, and how others take it away from those who are gone.

use std::{collections::BTreeMap, sync::Arc};

use pelton_core::{Acquired, CommitOutcome, Decision, Epoch, Membership, Offset, SeatSeen, Session, Timestamp};
use pelton_store::Registration;

use crate::bed::{Bed, expulsion, member_of, moves};

fn seat(owner: Option<&str>, target: Option<&str>, previous: Option<&str>) -> SeatSeen {
    SeatSeen { owner: owner.map(Arc::from), target: target.map(Arc::from), previous: previous.map(Arc::from) }
}

/// A stream of two partitions and two groups on it.
async fn two_groups(bed: &Bed) {
    bed.stream("orders", 2).await;
    bed.group("audit", "orders").await;
    bed.group("billing", "orders").await;
}

pub(crate) async fn only_the_target_acquires(bed: Bed) {
    bed.orders(0).await;
    let one = bed.register("one", &["billing"]).await;
    let two = bed.register("two", &["billing"]).await;
    assert!(!bed.may_acquire("billing", 0, &one).await, "it is meant for nobody");
    bed.aim("billing", 0, Some("two")).await;
    assert!(!bed.may_acquire("billing", 0, &one).await);
    assert!(bed.may_acquire("billing", 0, &two).await);
    let place = bed.place("billing", 0).await;
    assert_eq!((place.owner.as_deref(), place.epoch), (Some("two"), Epoch(1)), "a refused one raises no epoch");
}

pub(crate) async fn a_held_partition_is_not_acquired_until_it_is_released(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "one").await;
    let two = bed.register("two", &["billing"]).await;
    bed.aim("billing", 0, Some("two")).await;
    assert!(!bed.may_acquire("billing", 0, &two).await);
    assert_eq!(bed.commit(moves(&lease, 0, 1)).await, CommitOutcome::Committed, "until then its owner goes on");
    bed.store.release(&lease).await.unwrap();
    assert!(bed.may_acquire("billing", 0, &two).await);
    assert_eq!(bed.place("billing", 0).await.owner.as_deref(), Some("two"));
}

pub(crate) async fn the_same_host_acquires_again_after_a_lost_answer(bed: Bed) {
    bed.orders(1).await;
    let one = bed.register("one", &["billing"]).await;
    bed.aim("billing", 0, Some("one")).await;
    let Acquired::Claimed(lost) = bed.store.acquire("billing", 0, &one).await.unwrap() else { panic!() };
    let Acquired::Claimed(claim) = bed.store.acquire("billing", 0, &one).await.unwrap() else { panic!() };
    assert_eq!(claim.epoch.0, lost.epoch.0 + 1);
}

pub(crate) async fn only_a_member_in_good_standing_acquires(bed: Bed) {
    two_groups(&bed).await;
    let one = bed.register("one", &["billing"]).await;
    bed.aim("audit", 0, Some("one")).await;
    bed.aim("billing", 0, Some("one")).await;
    assert!(!bed.may_acquire("audit", 0, &one).await, "it did not join");
    assert!(bed.expel("one", Some("billing")).await);
    assert!(!bed.may_acquire("billing", 0, &one).await, "it was given up there");
}

pub(crate) async fn an_ended_registration_acquires_nothing(bed: Bed) {
    bed.orders(1).await;
    let old = bed.register("one", &["billing"]).await;
    bed.aim("billing", 0, Some("one")).await;
    let new = bed.register("one", &["billing"]).await;
    assert!(!bed.may_acquire("billing", 0, &old).await);
    bed.expel("one", None).await;
    assert!(!bed.may_acquire("billing", 0, &new).await);
    let newest = bed.register("one", &["billing"]).await;
    bed.store.deregister(&newest).await.unwrap();
    assert!(!bed.may_acquire("billing", 0, &newest).await);
}

pub(crate) async fn registering_again_frees_the_seats_and_keeps_the_targets(bed: Bed) {
    bed.orders(1).await;
    let old = bed.register("one", &["billing"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.set_time(2_000).await;
    let new = bed.register("one", &["billing"]).await;
    assert!(new.incarnation > old.incarnation);
    assert_eq!(bed.seen("billing").await.seats, [seat(None, Some("one"), None)]);
    assert_eq!(bed.commit(moves(&lease, 0, 1)).await, CommitOutcome::Fenced);
    assert_eq!(bed.store.heartbeat(&[old.clone(), new.clone()]).await.unwrap(), [false, true]);
    assert!(!bed.store.join(&old, &[]).await.unwrap());
    bed.store.deregister(&old).await.unwrap();
    assert_eq!(bed.store.hosts().await.unwrap()[0].registered_at, Timestamp(2_000));
    assert!(bed.may_acquire("billing", 0, &new).await);
}

pub(crate) async fn an_incarnation_is_never_used_twice(bed: Bed) {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let session = bed.register("one", &[]).await;
        seen.push(session.incarnation);
        bed.store.deregister(&session).await.unwrap();
    }
    assert!(seen.is_sorted_by(|earlier, later| earlier < later), "{seen:?}");
}

pub(crate) async fn many_heartbeats_are_answered_one_by_one(bed: Bed) {
    bed.orders(0).await;
    let mut sessions = Vec::new();
    for n in 0..40 {
        sessions.push(bed.register(&format!("host-{n}"), &["billing"]).await);
    }
    bed.expel("host-7", None).await;
    sessions.push(Session { host: "nobody".into(), incarnation: 1 });
    bed.set_time(5_000).await;
    let answers = bed.store.heartbeat(&sessions).await.unwrap();
    assert!(answers.iter().zip(0..).all(|(stands, n)| *stands == (n != 7 && n != 40)), "{answers:?}");
    for host in bed.store.survey().await.unwrap().hosts {
        assert_eq!(host.last_heartbeat == Timestamp(5_000), &*host.session.host != "host-7", "{host:?}");
    }
}

pub(crate) async fn expelling_a_host_ends_its_registration_and_frees_what_it_holds(bed: Bed) {
    two_groups(&bed).await;
    let one = bed.register("one", &["audit", "billing"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.acquire("audit", 1, "one").await;
    assert!(bed.expel("one", None).await);
    assert!(!bed.beat(&one).await);
    assert!(!bed.store.join(&one, &[]).await.unwrap());
    assert_eq!(bed.commit(moves(&lease, 0, 0)).await, CommitOutcome::Fenced);
    assert!(bed.store.progress().await.unwrap().iter().all(|one| one.owner.is_none()));
    assert!(bed.seen_host("one").await.expelled);
    assert!(!bed.expel("one", None).await, "it was already");
    let new = bed.register("one", &["audit"]).await;
    assert!(bed.beat(&new).await && !bed.seen_host("one").await.expelled);
    assert_eq!(bed.seen("audit").await.members.iter().filter(|member| !member.expelled).count(), 1);
}

pub(crate) async fn expelling_from_one_group_keeps_the_others(bed: Bed) {
    two_groups(&bed).await;
    let one = bed.register("one", &["audit", "billing"]).await;
    let kept = bed.acquire("audit", 0, "one").await;
    let lost = bed.acquire("billing", 0, "one").await;
    assert!(bed.expel("one", Some("billing")).await);
    assert_eq!(bed.commit(moves(&kept, 0, 0)).await, CommitOutcome::Committed);
    assert_eq!(bed.commit(moves(&lost, 0, 0)).await, CommitOutcome::Fenced);
    assert!(!bed.seen_host("one").await.expelled && !bed.seen("audit").await.members[0].expelled);
    assert!(bed.seen("billing").await.members[0].expelled);
    assert!(!bed.beat(&one).await, "it must register again");
    assert!(!bed.store.join(&one, &[member_of("billing")]).await.unwrap(), "joining does not hide that");
    let again = bed.register("one", &["billing"]).await;
    assert!(bed.beat(&again).await && !bed.seen("billing").await.members[0].expelled);
}

pub(crate) async fn expelling_fails_when_a_heartbeat_came_in_between(bed: Bed) {
    bed.orders(0).await;
    let one = bed.register("one", &["billing"]).await;
    bed.acquire("billing", 0, "one").await;
    let (host, group) = (bed.seen_host("one").await, bed.seen("billing").await);
    bed.set_time(2_000).await;
    assert!(bed.beat(&one).await);
    assert!(!bed.store.decide(&expulsion(&host, None)).await.unwrap());
    assert!(!bed.store.decide(&expulsion(&host, Some("billing"))).await.unwrap());
    assert!(bed.beat(&one).await);
    assert_eq!(bed.seen("billing").await, group);
}

pub(crate) async fn expelling_does_not_hit_a_later_registration(bed: Bed) {
    bed.register("one", &[]).await;
    let host = bed.seen_host("one").await;
    let new = bed.register("one", &[]).await;
    assert!(!bed.store.decide(&expulsion(&host, None)).await.unwrap(), "even within the same millisecond");
    assert!(bed.beat(&new).await);
}

pub(crate) async fn assigning_under_an_old_generation_changes_nothing(bed: Bed) {
    bed.orders(0).await;
    let generation = bed.seen("billing").await.generation;
    let to = |host: &str| Decision::Assign {
        group: "billing".into(),
        generation,
        targets: vec![Some(host.into())],
        homes: vec![None],
    };
    assert!(bed.store.decide(&to("one")).await.unwrap());
    let seen = bed.seen("billing").await;
    assert!(seen.generation > generation);
    assert!(!bed.store.decide(&to("two")).await.unwrap());
    assert_eq!(bed.seen("billing").await, seen);
    let elsewhere = Decision::Assign { group: "gone".into(), generation: 0, targets: Vec::new(), homes: Vec::new() };
    assert!(!bed.store.decide(&elsewhere).await.unwrap());
}

pub(crate) async fn targets_and_homes_of_many_partitions_are_written_at_once(bed: Bed) {
    bed.stream("orders", 3).await;
    bed.group("billing", "orders").await;
    bed.group("audit", "orders").await;
    bed.aim("billing", 1, Some("one")).await;
    let generation = bed.seen("billing").await.generation;
    let targets = vec![Some("two".into()), None, Some("one".into())];
    let homes = vec![Some("one".into()), Some("one".into()), None];
    let assign = Decision::Assign { group: "billing".into(), generation, targets, homes };
    assert!(bed.store.decide(&assign).await.unwrap());
    let expected = [seat(None, Some("two"), Some("one")), seat(None, None, Some("one")), seat(None, Some("one"), None)];
    assert_eq!(bed.seen("billing").await.seats, expected);
    assert!(bed.seen("audit").await.seats.iter().all(|seat| seat.target.is_none()));
}

pub(crate) async fn joining_and_leaving_change_the_generation(bed: Bed) {
    two_groups(&bed).await;
    let mut before = (bed.seen("audit").await.generation, bed.seen("billing").await.generation);
    let mut grown = async || {
        let now = (bed.seen("audit").await.generation, bed.seen("billing").await.generation);
        let grown = (now.0 > before.0, now.1 > before.1);
        before = now;
        grown
    };
    let one = bed.register("one", &["billing"]).await;
    assert_eq!(grown().await, (false, true), "registering");
    bed.store.join(&one, &[member_of("audit")]).await.unwrap();
    assert_eq!(grown().await, (true, true), "from one to the other");
    bed.beat(&one).await;
    assert_eq!(grown().await, (false, false), "a heartbeat");
    bed.expel("one", Some("audit")).await;
    assert_eq!(grown().await, (true, false), "expelling");
    let one = bed.register("one", &["billing"]).await;
    assert_eq!(grown().await, (true, true), "registering again, elsewhere");
    bed.store.deregister(&one).await.unwrap();
    assert_eq!(grown().await, (false, true), "leaving for good");
}

pub(crate) async fn leaving_a_group_keeps_what_is_owned_until_it_is_released(bed: Bed) {
    bed.orders(1).await;
    let one = bed.register("one", &["billing"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    assert!(bed.store.join(&one, &[]).await.unwrap());
    assert!(bed.seen("billing").await.members.is_empty());
    assert_eq!(bed.commit(moves(&lease, 0, 1)).await, CommitOutcome::Committed);
    bed.store.release(&lease).await.unwrap();
    assert_eq!(bed.seen("billing").await.seats, [seat(None, Some("one"), None)]);
}

pub(crate) async fn deregistering_frees_everything(bed: Bed) {
    two_groups(&bed).await;
    let one = bed.register("one", &["audit", "billing"]).await;
    let lease = bed.acquire("billing", 0, "one").await;
    bed.acquire("audit", 1, "one").await;
    let other = bed.acquire("audit", 0, "two").await;
    bed.store.deregister(&one).await.unwrap();
    bed.store.deregister(&one).await.unwrap();
    let survey = bed.store.survey().await.unwrap();
    assert!(survey.hosts.iter().all(|host| &*host.session.host == "two"));
    assert!(survey.groups.iter().all(|group| group.members.is_empty()));
    assert_eq!(bed.seen("billing").await.seats[0], seat(None, Some("one"), None), "it finds its targets again");
    assert_eq!(bed.commit(moves(&lease, 0, 0)).await, CommitOutcome::Fenced);
    assert_eq!(bed.commit(moves(&other, 0, 0)).await, CommitOutcome::Committed);
    assert!(!bed.beat(&one).await);
}

pub(crate) async fn a_survey_tells_hosts_members_and_seats(bed: Bed) {
    two_groups(&bed).await;
    bed.set_time(10_000).await;
    let memberships = vec![
        Membership { group: "audit".into(), session_timeout_ms: 3_000, partitions_max: 1 },
        Membership { group: "billing".into(), session_timeout_ms: 6_000, partitions_max: 0 },
    ];
    let registration = Registration { host: "two".into(), memberships, ..Registration::default() };
    let two = bed.store.register(&registration).await.unwrap();
    bed.set_time(11_000).await;
    let one = bed.register("one", &["billing"]).await;
    bed.acquire("billing", 1, "one").await;
    bed.aim("billing", 1, Some("two")).await;

    let survey = bed.store.survey().await.unwrap();
    assert!(survey.now >= Timestamp(11_000), "{:?}", survey.now);
    let lock = bed.lock_of_the_living();
    let hosts: Vec<_> = survey.hosts.iter().map(|host| (&host.session, host.last_heartbeat, host.lock)).collect();
    assert_eq!(hosts, [(&one, Timestamp(11_000), lock), (&two, Timestamp(10_000), lock)]);
    let names: Vec<&str> = survey.groups.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["audit", "billing"]);
    let member = |group: usize, at: usize| {
        let member = &survey.groups[group].members[at];
        (&member.session, member.session_timeout_ms, member.partitions_max, member.expelled)
    };
    assert_eq!(member(0, 0), (&two, 3_000, 1, false));
    assert_eq!(member(1, 0), (&one, 10_000, 0, false));
    assert_eq!(member(1, 1), (&two, 6_000, 0, false));
    assert_eq!((survey.groups[0].members.len(), survey.groups[1].members.len()), (1, 2));
    assert_eq!(survey.groups[1].seats, [SeatSeen::default(), seat(Some("one"), Some("two"), None)]);
}

pub(crate) async fn cleaning_up_removes_the_expelled_and_names_them(bed: Bed) {
    bed.orders(0).await;
    let sessions = [bed.register("one", &["billing"]).await, bed.register("three", &["billing"]).await];
    bed.register("two", &["billing"]).await;
    bed.register("four", &["billing"]).await;
    assert!(bed.store.cleanup().await.unwrap().is_empty());
    bed.expel("two", None).await;
    bed.expel("four", None).await;
    bed.expel("three", Some("billing")).await;
    assert_eq!(bed.store.cleanup().await.unwrap(), ["four", "two"]);
    let hosts: Vec<String> = bed.store.hosts().await.unwrap().into_iter().map(|host| host.host).collect();
    assert_eq!(hosts, ["one", "three"]);
    let answers = bed.store.heartbeat(&sessions).await.unwrap();
    assert_eq!(answers, [true, false], "who was given up in a single group still learns of it");
    assert!(bed.store.cleanup().await.unwrap().is_empty());
}

pub(crate) async fn progress_tells_owner_and_target(bed: Bed) {
    bed.stream("orders", 2).await;
    bed.group("billing", "orders").await;
    bed.acquire("billing", 1, "one").await;
    bed.aim("billing", 1, Some("two")).await;
    let progress = bed.store.progress().await.unwrap();
    let told = |at: usize| (progress[at].owner.as_deref(), progress[at].target.as_deref());
    assert_eq!((told(0), told(1)), ((None, None), (Some("one"), Some("two"))));
    assert_eq!((progress[1].epoch, progress[1].committed), (Epoch(1), Offset(0)));
}

pub(crate) async fn hosts_show_labels_and_groups(bed: Bed) {
    two_groups(&bed).await;
    let labels = BTreeMap::from([("zone".to_owned(), "a \"b\"".to_owned()), ("ключ".to_owned(), String::new())]);
    let registration = Registration {
        host: "one".into(),
        labels: labels.clone(),
        memberships: vec![member_of("billing"), member_of("audit")],
    };
    bed.store.register(&registration).await.unwrap();
    bed.register("two", &[]).await;
    let hosts = bed.store.hosts().await.unwrap();
    assert_eq!((&hosts[0].labels, &hosts[0].groups[..]), (&labels, &["audit".to_owned(), "billing".to_owned()][..]));
    assert!(hosts[1].labels.is_empty() && hosts[1].groups.is_empty());
    let registration = Registration { labels: BTreeMap::new(), ..registration };
    bed.store.register(&registration).await.unwrap();
    assert!(bed.store.hosts().await.unwrap()[0].labels.is_empty());
}

pub(crate) async fn a_silent_host_shows_as_stale(bed: Bed) {
    two_groups(&bed).await;
    let one = bed.register("one", &["billing"]).await;
    let long = Membership { session_timeout_ms: 60_000, ..member_of("audit") };
    bed.store.join(&one, &[long, member_of("billing")]).await.unwrap();
    let shown = async || {
        let host = bed.store.hosts().await.unwrap().swap_remove(0).active;
        let groups = bed.store.groups().await.unwrap();
        (host, groups[0].consumers[0].active, groups[1].consumers[0].active)
    };
    assert_eq!(shown().await, (true, true, true));
    bed.set_time(30_000).await;
    assert_eq!(shown().await, (true, true, false), "each member by its own session timeout");
    bed.set_time(90_000).await;
    assert_eq!(shown().await, (false, false, false));
    assert!(bed.beat(&one).await, "nobody has given it up");
    assert_eq!(shown().await, (true, true, true));
    bed.expel("one", None).await;
    assert_eq!(shown().await, (false, false, false));
}
