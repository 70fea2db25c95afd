//! What is PostgreSQL's own: SQL from any application, several stores on one schema, and a server that goes away.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "postgres/bouncer.rs"]
mod bouncer;
#[path = "postgres/cluster.rs"]
mod cluster;
#[path = "postgres/failures.rs"]
mod failures;
#[path = "postgres/half_open.rs"]
mod half_open;
#[path = "postgres/hosts.rs"]
mod hosts;
#[path = "postgres/letters.rs"]
mod letters;
#[path = "postgres/open.rs"]
mod open;
#[path = "postgres/pooled.rs"]
mod pooled;
#[path = "postgres/schema.rs"]
mod schema;
#[path = "postgres/sql.rs"]
mod sql;
#[path = "postgres/user.rs"]
mod user;
#[path = "postgres/versions.rs"]
mod versions;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pelton_core::{
    Acquired, Commit, Decision, Effects, Emit, HostSeen, Lease, LockSeen, Membership, NewEvent, Offset, Session,
};
use pelton_store::{GroupSpec, PostgresStore, ReadLimit, Registration, Start, Store, StoreError, StreamSpec};

/// Larger than any test's events.
const ALL: ReadLimit = ReadLimit { events: 10_000, bytes: 1 << 30 };

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn event(id: &str) -> NewEvent {
    NewEvent { id: id.into(), payload: format!("payload of {id}").into(), ..NewEvent::default() }
}

async fn stream(store: &PostgresStore, name: &str, partitions: u32) {
    let spec = StreamSpec { name: name.into(), partitions, payload_bytes_max: 1_000, retention_ms: None };
    store.declare_stream(&spec).await.unwrap();
}

async fn group(store: &PostgresStore, name: &str, stream: &str) {
    let (name, stream, handler) = (name.into(), stream.into(), "handler".into());
    store.declare_group(&GroupSpec { name, stream, handler, start: Start::Earliest }).await.unwrap();
}

async fn register(store: &PostgresStore, host: &str, group: &str) -> Session {
    try_register(store, host, group).await.unwrap()
}

async fn try_register(store: &PostgresStore, host: &str, group: &str) -> Result<Session, StoreError> {
    let membership = Membership { group: group.into(), session_timeout_ms: 10_000, partitions_max: 0 };
    let registration = Registration { host: host.into(), memberships: vec![membership], ..Registration::default() };
    store.register(&registration).await
}

/// Makes a registered host the owner of a free partition.
async fn acquire(store: &PostgresStore, group: &str, partition: u32, session: &Session) -> Lease {
    assign(store, group, partition, &session.host).await;
    match store.acquire(group, partition, session).await.unwrap() {
        Acquired::Claimed(claim) => {
            Lease { group: group.into(), partition, host: Arc::clone(&session.host), epoch: claim.epoch }
        }
        Acquired::NotYet => panic!("{} does not get partition {partition} of {group}", session.host),
    }
}

async fn assign(store: &PostgresStore, group: &str, partition: u32, host: &Arc<str>) {
    let survey = store.survey().await.unwrap();
    let seen = survey.groups.into_iter().find(|seen| seen.group == group).unwrap();
    let mut targets: Vec<Option<Arc<str>>> = seen.seats.into_iter().map(|seat| seat.target).collect();
    targets[partition as usize] = Some(Arc::clone(host));
    let homes = vec![None; targets.len()];
    let decision = Decision::Assign { group: group.into(), generation: seen.generation, targets, homes };
    assert!(store.decide(&decision).await.unwrap());
}

async fn seen_host(store: &PostgresStore, host: &str) -> HostSeen {
    store.survey().await.unwrap().hosts.into_iter().find(|seen| &*seen.session.host == host).unwrap()
}

/// Waits until a host's lock shows so.
async fn until_lock(store: &PostgresStore, host: &str, lock: LockSeen) {
    let shows = async {
        while seen_host(store, host).await.lock != lock {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shows).await.unwrap();
}

fn moving(lease: &Lease, sequence: u64, from: u64, to: u64) -> Arc<Commit> {
    Arc::new(Commit::moving(lease.clone(), sequence, Offset(from), Offset(to)))
}

fn emitting(lease: &Lease, sequence: u64, from: u64, to: u64, stream: &str, id: &str) -> Arc<Commit> {
    let effects = Effects { emits: vec![Emit { stream: stream.into(), event: event(id) }], ..Effects::default() };
    Arc::new(Commit { effects, ..Commit::moving(lease.clone(), sequence, Offset(from), Offset(to)) })
}

/// The offsets of all events of a partition are dense and their ids differ; says how many there are.
async fn assert_dense(store: &PostgresStore, stream: &str, partition: u32) -> usize {
    let events = store.read(stream, partition, Offset(0), ALL).await.unwrap();
    for (at, event) in (0..).zip(&events) {
        assert_eq!(event.offset, Offset(at));
    }
    assert_eq!(events.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len(), events.len());
    events.len()
}
