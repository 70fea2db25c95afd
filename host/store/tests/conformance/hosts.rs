//! Hosts: registration, heartbeats, and what they report of their handlers.

use pelton_core::Timestamp;
use pelton_store::{HandlerReport, HandlerState, StoreError};

use crate::bed::Bed;

pub(crate) async fn a_host_registers_beats_and_leaves(bed: Bed) {
    bed.orders(0).await;
    bed.set_time(10);
    bed.store.register("one", &["billing".into()]).await.unwrap();
    bed.set_time(20);
    assert!(bed.store.heartbeat("one").await.unwrap());
    let hosts = bed.store.hosts().await.unwrap();
    assert_eq!(
        (hosts[0].host.as_str(), hosts[0].registered_at, hosts[0].last_heartbeat),
        ("one", Timestamp(10), Timestamp(20))
    );
    assert!(hosts[0].alive);
    assert_eq!(hosts[0].groups, ["billing"]);
    bed.store.deregister("one").await.unwrap();
    assert!(bed.store.hosts().await.unwrap().is_empty());
}

pub(crate) async fn a_heartbeat_of_an_unknown_host_is_told_so(bed: Bed) {
    assert!(!bed.store.heartbeat("nobody").await.unwrap());
    bed.store.deregister("nobody").await.unwrap();
}

pub(crate) async fn registering_again_changes_the_groups(bed: Bed) {
    bed.orders(0).await;
    bed.group("audit", "orders").await;
    bed.set_time(10);
    bed.store.register("one", &["billing".into()]).await.unwrap();
    bed.set_time(20);
    bed.store.register("one", &["audit".into(), "billing".into()]).await.unwrap();
    let groups = bed.store.groups().await.unwrap();
    let since = |group: usize| groups[group].consumers[0].registered_at;
    assert_eq!((since(0), since(1)), (Timestamp(20), Timestamp(10)));
    bed.store.register("one", &["audit".into()]).await.unwrap();
    let hosts = bed.store.hosts().await.unwrap();
    assert_eq!((hosts.len(), hosts[0].registered_at, hosts[0].last_heartbeat), (1, Timestamp(10), Timestamp(20)));
    assert_eq!(hosts[0].groups, ["audit"]);
}

pub(crate) async fn a_host_cannot_join_an_unknown_group(bed: Bed) {
    bed.orders(0).await;
    let error = bed.store.register("one", &["billing".into(), "none".into()]).await.unwrap_err();
    assert!(matches!(&error, StoreError::UnknownGroup { group, .. } if group == "none"), "{error}");
    assert!(bed.store.hosts().await.unwrap().is_empty());
}

pub(crate) async fn a_group_names_its_consumers(bed: Bed) {
    bed.orders(0).await;
    bed.store.register("two", &["billing".into()]).await.unwrap();
    bed.store.register("one", &["billing".into()]).await.unwrap();
    bed.store.register("idle", &[]).await.unwrap();
    let consumers = bed.store.groups().await.unwrap().swap_remove(0).consumers;
    assert_eq!(consumers.iter().map(|one| one.host.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(consumers.iter().all(|one| one.alive));
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

pub(crate) async fn reports_outlive_their_host(bed: Bed) {
    bed.store.register("one", &[]).await.unwrap();
    bed.store.report_handlers(&[report("a", "one")]).await.unwrap();
    bed.store.deregister("one").await.unwrap();
    assert_eq!(bed.store.handlers().await.unwrap(), [report("a", "one")]);
}
