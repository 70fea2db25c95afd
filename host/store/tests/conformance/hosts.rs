//! Hosts: registration, heartbeats, and what they report of their handlers.

use std::collections::BTreeMap;

use pelton_core::{Class, Session, Timestamp};
use pelton_store::{HandlerReport, HandlerState, Registration, StoreError};

use crate::bed::{Bed, member_of};

pub(crate) async fn a_host_registers_beats_and_leaves(bed: Bed) {
    bed.orders(0).await;
    bed.set_time(10).await;
    let one = bed.register("one", &["billing"]).await;
    bed.set_time(20).await;
    assert!(bed.beat(&one).await);
    let hosts = bed.store.hosts().await.unwrap();
    assert_eq!(
        (hosts[0].host.as_str(), hosts[0].registered_at, hosts[0].last_heartbeat),
        ("one", Timestamp(10), Timestamp(20))
    );
    assert!(hosts[0].active);
    assert_eq!(hosts[0].groups, ["billing"]);
    bed.store.deregister(&one).await.unwrap();
    assert!(bed.store.hosts().await.unwrap().is_empty());
}

pub(crate) async fn a_heartbeat_of_an_unknown_host_is_told_so(bed: Bed) {
    let nobody = Session { host: "nobody".into(), incarnation: 1 };
    assert!(!bed.beat(&nobody).await);
    bed.store.deregister(&nobody).await.unwrap();
    assert!(bed.store.heartbeat(&[]).await.unwrap().is_empty());
}

pub(crate) async fn joining_changes_the_groups(bed: Bed) {
    bed.orders(0).await;
    bed.group("audit", "orders").await;
    bed.set_time(10).await;
    let one = bed.register("one", &["billing"]).await;
    bed.set_time(20).await;
    assert!(bed.store.join(&one, &[member_of("audit"), member_of("billing")]).await.unwrap());
    let groups = bed.store.groups().await.unwrap();
    let since = |group: usize| groups[group].consumers[0].registered_at;
    assert_eq!((since(0), since(1)), (Timestamp(20), Timestamp(10)));
    assert!(bed.store.join(&one, &[member_of("audit")]).await.unwrap());
    let hosts = bed.store.hosts().await.unwrap();
    assert_eq!((hosts.len(), hosts[0].registered_at, hosts[0].last_heartbeat), (1, Timestamp(10), Timestamp(20)));
    assert_eq!(hosts[0].groups, ["audit"]);
}

pub(crate) async fn a_host_cannot_join_an_unknown_group(bed: Bed) {
    bed.orders(0).await;
    let memberships = vec![member_of("billing"), member_of("none")];
    let registration = Registration { host: "one".into(), memberships: memberships.clone(), ..Registration::default() };
    let error = bed.store.register(&registration).await.unwrap_err();
    assert!(matches!(&error, StoreError::UnknownGroup { group, .. } if group == "none"), "{error}");
    assert!(bed.store.hosts().await.unwrap().is_empty());
    let one = bed.register("one", &[]).await;
    let error = bed.store.join(&one, &memberships).await.unwrap_err();
    assert!(matches!(&error, StoreError::UnknownGroup { group, .. } if group == "none"), "{error}");
    assert!(bed.store.hosts().await.unwrap()[0].groups.is_empty());
}

pub(crate) async fn a_group_names_its_consumers(bed: Bed) {
    bed.orders(0).await;
    bed.register("two", &["billing"]).await;
    bed.register("one", &["billing"]).await;
    bed.register("idle", &[]).await;
    let consumers = bed.store.groups().await.unwrap().swap_remove(0).consumers;
    assert_eq!(consumers.iter().map(|one| one.host.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(consumers.iter().all(|one| one.active && one.session_timeout_ms == 10_000));
}

fn report(handler: &str, host: &str) -> HandlerReport {
    HandlerReport {
        handler: handler.into(),
        host: host.into(),
        digest: "sha256:1".into(),
        since: Timestamp(5),
        state: HandlerState::Live,
        error: None,
        calls: 10,
        failures: 1,
        by_class: BTreeMap::from([(Class::Trap, 1)]),
        trial: Some("sha256:2".into()),
        usage: BTreeMap::from([("instances".into(), 3)]),
    }
}

pub(crate) async fn a_report_replaces_the_one_before(bed: Bed) {
    let refused =
        HandlerReport { state: HandlerState::Refused, error: Some("no world".into()), calls: 12, ..report("b", "one") };
    bed.store.report_handlers(&[report("b", "one"), report("a", "two"), report("a", "one")]).await.unwrap();
    bed.store.report_handlers(std::slice::from_ref(&refused)).await.unwrap();
    bed.store.report_handlers(&[]).await.unwrap();
    assert_eq!(bed.store.handlers().await.unwrap(), [report("a", "one"), report("a", "two"), refused]);
}

pub(crate) async fn a_report_tells_failures_of_every_class(bed: Bed) {
    let by_class: BTreeMap<Class, u64> = Class::ALL.into_iter().zip(1..).collect();
    let all = HandlerReport { failures: by_class.values().sum(), by_class, ..report("a", "one") };
    bed.store.report_handlers(std::slice::from_ref(&all)).await.unwrap();
    assert_eq!(bed.store.handlers().await.unwrap(), [all]);
    let none = HandlerReport {
        failures: 0,
        by_class: BTreeMap::new(),
        trial: None,
        usage: BTreeMap::new(),
        ..report("a", "one")
    };
    bed.store.report_handlers(std::slice::from_ref(&none)).await.unwrap();
    assert_eq!(bed.store.handlers().await.unwrap(), [none]);
}

pub(crate) async fn reports_outlive_their_host(bed: Bed) {
    let one = bed.register("one", &[]).await;
    bed.store.report_handlers(&[report("a", "one")]).await.unwrap();
    bed.store.deregister(&one).await.unwrap();
    assert_eq!(bed.store.handlers().await.unwrap(), [report("a", "one")]);
}
