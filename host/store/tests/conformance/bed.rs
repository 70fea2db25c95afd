//! A store to test, a clock to turn, and short words for what tests do with them.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pelton_core::{
    Acquired, Claim, Class, Commit, CommitOutcome, DeadLetter, Decision, Effects, Emit, Event, Expelled, Failure,
    GroupSeen, HostSeen, Lease, LetterRequest, LockSeen, Mark, Membership, NewEvent, Offset, Session, Timestamp,
    partition_of,
};
use pelton_store::{
    Appended, GroupPartition, GroupSpec, LetterInfo, LetterQuery, MemoryStore, PostgresStore, ReadLimit, Registration,
    Start, Store, StoreOptions, StreamSpec, open,
};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{bouncer, bouncer::Bouncer, schema::Schema};

/// Larger than any test's events.
pub(crate) const ALL: ReadLimit = ReadLimit { events: 100_000, bytes: 1 << 30 };

/// The limit of payloads in streams that a bed declares, in bytes.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 100_000;

pub(crate) struct Bed {
    pub(crate) store: Arc<dyn Store>,
    now: Arc<AtomicU64>,
    /// The last registration of each host, for [`Self::acquire`].
    sessions: Mutex<BTreeMap<String, Session>>,
    _folder: Option<TempDir>,
    /// Where the database's own clock is the store's.
    schema: Option<Schema>,
    bouncer: Option<Bouncer>,
}

impl Bed {
    pub(crate) async fn memory() -> Self {
        let (now, clock) = clock();
        Self::new(Arc::new(MemoryStore::new(clock)), now)
    }

    fn new(store: Arc<dyn Store>, now: Arc<AtomicU64>) -> Self {
        Self { store, now, sessions: Mutex::default(), _folder: None, schema: None, bouncer: None }
    }

    /// `None` where there is no PostgreSQL to test with.
    pub(crate) async fn postgres() -> Option<Self> {
        let schema = Schema::new()?;
        let store = schema.open(true).await;
        turn_clock(&schema).await;
        Some(Self { schema: Some(schema), ..Self::new(Arc::new(store), clock().0) })
    }

    /// The same behind PgBouncer in transaction mode; also `None` where that is missing.
    pub(crate) async fn postgres_pooled() -> Option<Self> {
        let schema = Schema::new()?;
        let bouncer = Bouncer::start(&schema.url, bouncer::TRANSACTIONS)?;
        let store = PostgresStore::open(&bouncer.url(), &schema.options(true)).await.unwrap();
        turn_clock(&schema).await;
        Some(Self { schema: Some(schema), bouncer: Some(bouncer), ..Self::new(Arc::new(store), clock().0) })
    }

    pub(crate) async fn sqlite() -> Self {
        let (now, clock) = clock();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("pelton.db").display());
        let store = open(&url, &StoreOptions { clock, host: true, ..StoreOptions::default() }).await.unwrap();
        Self { _folder: Some(folder), ..Self::new(store, now) }
    }

    /// How the lock of a host shows whose process lives: not at all where locks do not last.
    pub(crate) fn lock_of_the_living(&self) -> LockSeen {
        if self.bouncer.is_some() { LockSeen::Unknown } else { LockSeen::Held }
    }

    /// Asynchronous for engines whose clock is the database's.
    pub(crate) async fn set_time(&self, ms: u64) {
        self.now.store(ms, Ordering::Relaxed);
        if let Some(schema) = &self.schema {
            schema.run(&format!("UPDATE @.test_clock SET ms = {ms}")).await;
        }
    }

    pub(crate) async fn stream(&self, name: &str, partitions: u32) {
        self.store.declare_stream(&stream(name, partitions)).await.unwrap();
    }

    pub(crate) async fn group(&self, name: &str, stream: &str) {
        self.store.declare_group(&group(name, stream, Start::Earliest)).await.unwrap();
    }

    /// A stream `orders` of one partition with so many events, and a group `billing` on it.
    pub(crate) async fn orders(&self, events: u64) {
        self.stream("orders", 1).await;
        self.group("billing", "orders").await;
        let events = (0..events).map(|n| event(&format!("o{n}"))).collect();
        self.store.append("orders", events).await.unwrap();
    }

    /// A stream `orders` of one partition with an event of each of these keys, `o0` and so on (`-` is none), and a group
    /// `billing` on it.
    pub(crate) async fn orders_of(&self, keys: &[&str]) {
        self.orders(0).await;
        let of = |(n, key): (usize, &&str)| match *key {
            "-" => event(&format!("o{n}")),
            key => keyed(&format!("o{n}"), key),
        };
        self.store.append("orders", keys.iter().enumerate().map(of).collect()).await.unwrap();
    }

    /// Sets events of `orders` aside, beginning at the position, which moves past them. With `parks` they park their keys.
    pub(crate) async fn set_aside(&self, lease: &Lease, offsets: Range<u64>, parks: bool) {
        let events = self.read("orders", lease.partition).await.into_iter();
        let events = events.filter(|event| offsets.contains(&event.offset.0));
        let set_aside = events.map(|event| letter(event, parks)).collect();
        let commit = Commit { set_aside, ..moves(lease, offsets.start, offsets.end) };
        assert_eq!(self.commit(commit).await, CommitOutcome::Committed);
    }

    /// Dead letters of `billing`.
    pub(crate) async fn letters(&self, query: &LetterQuery) -> Vec<LetterInfo> {
        self.store.letters("billing", query, None, ALL).await.unwrap()
    }

    /// All dead letters of `billing`, without where they stand.
    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        self.letters(&LetterQuery::default()).await.into_iter().map(|info| info.letter).collect()
    }

    /// Asks something of dead letters of `billing`, and tells of how many.
    pub(crate) async fn ask(&self, query: &LetterQuery, request: LetterRequest) -> u64 {
        self.store.request_letters("billing", query, request).await.unwrap()
    }

    pub(crate) async fn append(&self, stream: &str, ids: &[&str]) -> Vec<Appended> {
        self.store.append(stream, ids.iter().map(|id| event(id)).collect()).await.unwrap()
    }

    pub(crate) async fn read(&self, stream: &str, partition: u32) -> Vec<Event> {
        self.store.read(stream, partition, Offset(0), ALL).await.unwrap()
    }

    pub(crate) async fn ids(&self, stream: &str, partition: u32) -> Vec<String> {
        self.read(stream, partition).await.into_iter().map(|event| event.id).collect()
    }

    /// Registers a host, as a member of these groups with a session timeout of 10 s.
    pub(crate) async fn register(&self, host: &str, groups: &[&str]) -> Session {
        let memberships = groups.iter().map(|group| member_of(group)).collect();
        let registration = Registration { host: host.into(), memberships, ..Registration::default() };
        let session = self.store.register(&registration).await.unwrap();
        self.sessions.lock().await.insert(host.into(), session.clone());
        session
    }

    /// Makes a host the owner of a partition, by whatever that takes: it is registered, the present owner expelled.
    pub(crate) async fn acquire(&self, group: &str, partition: u32, host: &str) -> Lease {
        let claim = self.claim(group, partition, host).await;
        Lease { group: group.into(), partition, host: host.into(), epoch: claim.epoch }
    }

    /// The same, for what the new owner finds.
    pub(crate) async fn claim(&self, group: &str, partition: u32, host: &str) -> Claim {
        // One after the other: decisions fail if another comes in between.
        let mut sessions = self.sessions.lock().await;
        if !sessions.contains_key(host) {
            let registration = Registration { host: host.into(), ..Registration::default() };
            sessions.insert(host.into(), self.store.register(&registration).await.unwrap());
        }
        let owner = self.seen(group).await.seats[partition as usize].owner.clone();
        if let Some(owner) = owner.filter(|owner| **owner != *host) {
            assert!(self.expel(&owner, None).await);
            sessions.remove(&*owner);
        }
        let session = &sessions[host];
        let groups = self.store.survey().await.unwrap().groups;
        let joined = groups.iter().filter(|seen| seen.members.iter().any(|member| member.session == *session));
        let before: Vec<Membership> = joined.map(|seen| member_of(&seen.group)).collect();
        if before.iter().all(|membership| membership.group != group) {
            self.join(session, before.iter().cloned().chain([member_of(group)]).collect()).await;
        }
        self.aim(group, partition, Some(host)).await;
        let claim = match self.store.acquire(group, partition, session).await.unwrap() {
            Acquired::Claimed(claim) => claim,
            Acquired::NotYet => panic!("{host} does not get partition {partition} of {group}"),
        };
        if before.iter().all(|membership| membership.group != group) {
            // An owner keeps what it holds of a group that it leaves, and is no active member in anybody's way.
            self.join(session, before).await;
        }
        claim
    }

    async fn join(&self, session: &Session, memberships: Vec<Membership>) {
        assert!(self.store.join(session, &memberships).await.unwrap());
    }

    /// Whether a host gets a partition that may not be meant for it, or not be free.
    pub(crate) async fn may_acquire(&self, group: &str, partition: u32, session: &Session) -> bool {
        self.store.acquire(group, partition, session).await.unwrap() != Acquired::NotYet
    }

    /// Says who is to hold a partition.
    pub(crate) async fn aim(&self, group: &str, partition: u32, host: Option<&str>) {
        let seen = self.seen(group).await;
        let mut targets: Vec<Option<Arc<str>>> = seen.seats.into_iter().map(|seat| seat.target).collect();
        targets[partition as usize] = host.map(Arc::from);
        let homes = vec![None; targets.len()];
        let decision = Decision::Assign { group: group.into(), generation: seen.generation, targets, homes };
        assert!(self.store.decide(&decision).await.unwrap());
    }

    /// Gives a host up, in one group or all, by what is seen of it now.
    pub(crate) async fn expel(&self, host: &str, group: Option<&str>) -> bool {
        let seen = self.seen_host(host).await;
        self.store.decide(&expulsion(&seen, group)).await.unwrap()
    }

    /// A group as a survey shows it.
    pub(crate) async fn seen(&self, group: &str) -> GroupSeen {
        self.store.survey().await.unwrap().groups.into_iter().find(|seen| seen.group == group).unwrap()
    }

    /// A host as a survey shows it.
    pub(crate) async fn seen_host(&self, host: &str) -> HostSeen {
        self.store.survey().await.unwrap().hosts.into_iter().find(|seen| &*seen.session.host == host).unwrap()
    }

    /// Whether a registration stands, as its heartbeat is told.
    pub(crate) async fn beat(&self, session: &Session) -> bool {
        self.store.heartbeat(std::slice::from_ref(session)).await.unwrap() == [true]
    }

    pub(crate) async fn commit(&self, commit: Commit) -> CommitOutcome {
        self.store.commit(Arc::new(commit)).await.unwrap()
    }

    pub(crate) async fn state(&self, group: &str, partition: u32, key: &str) -> Option<Vec<u8>> {
        self.store.state(group, partition, key).await.unwrap()
    }

    /// A group's place in a partition.
    pub(crate) async fn place(&self, group: &str, partition: usize) -> GroupPartition {
        let groups = self.store.groups().await.unwrap();
        groups.into_iter().find(|info| info.name == group).unwrap().partitions.swap_remove(partition)
    }
}

/// Puts a clock in the place of the database's; the server started when it began.
async fn turn_clock(schema: &Schema) {
    schema
        .run(
            "CREATE TABLE @.test_clock (ms bigint NOT NULL);
             INSERT INTO @.test_clock VALUES (1000);
             CREATE OR REPLACE FUNCTION @.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
                 'SELECT timestamptz ''1970-01-01 00:00:00Z'' + ms * interval ''1 ms'' FROM @.test_clock';
             CREATE OR REPLACE FUNCTION @.server_started() RETURNS timestamptz LANGUAGE sql STABLE AS
                 'SELECT timestamptz ''1970-01-01 00:00:00Z''';
             UPDATE @.server_token SET since = @.server_started();",
        )
        .await;
}

/// With the session timeout of [`Bed::register`].
pub(crate) fn member_of(group: &str) -> Membership {
    Membership { group: group.into(), session_timeout_ms: 10_000, partitions_max: 0 }
}

/// The decision to give up a host that was seen so.
pub(crate) fn expulsion(seen: &HostSeen, group: Option<&str>) -> Decision {
    let (session, last_heartbeat) = (seen.session.clone(), seen.last_heartbeat);
    Decision::Expel { session, group: group.map(Into::into), last_heartbeat, why: Expelled::LockFree }
}

fn clock() -> (Arc<AtomicU64>, pelton_store::Clock) {
    let now = Arc::new(AtomicU64::new(1_000));
    let read = now.clone();
    (now, Arc::new(move || Timestamp(read.load(Ordering::Relaxed))))
}

/// A stream that keeps its events for ever.
pub(crate) fn stream(name: &str, partitions: u32) -> StreamSpec {
    StreamSpec { name: name.into(), partitions, payload_bytes_max: PAYLOAD_BYTES_MAX, retention_ms: None }
}

pub(crate) fn group(name: &str, stream: &str, start: Start) -> GroupSpec {
    GroupSpec { name: name.into(), stream: stream.into(), handler: "handler".into(), start }
}

pub(crate) fn event(id: &str) -> NewEvent {
    NewEvent { id: id.into(), payload: format!("payload of {id}").into(), ..NewEvent::default() }
}

pub(crate) fn keyed(id: &str, key: &str) -> NewEvent {
    NewEvent { key: Some(key.into()), ..event(id) }
}

/// A key that belongs to a partition.
pub(crate) fn key_for(partition: u32, partitions: u32) -> String {
    let mut keys = (0..).map(|n: u32| format!("key-{n}"));
    keys.find(|key| partition_of(key, partitions) == partition).unwrap()
}

/// Each commit is a later one than all before it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A commit that moves the position and nothing else.
pub(crate) fn moves(lease: &Lease, from: u64, to: u64) -> Commit {
    Commit::moving(lease.clone(), NEXT.fetch_add(1, Ordering::Relaxed), Offset(from), Offset(to))
}

/// What is known of an event that failed so often.
pub(crate) fn failure(attempts: u32, reason: &str) -> Failure {
    let (first, last) = (Timestamp(100), Timestamp(100 + u64::from(attempts)));
    Failure { class: Class::Transient, reason: reason.into(), attempts, first, last }
}

/// An event that failed once and is set aside.
pub(crate) fn letter(event: Event, parks: bool) -> DeadLetter {
    let (failure, parks) = (failure(1, "bad"), parks && event.key.is_some());
    DeadLetter { event, failure, digest: Some("sha256:1".into()), parks, request: None, edited: false }
}

/// The dead letters of a key.
pub(crate) fn of_key(key: &str) -> LetterQuery {
    LetterQuery { key: Some(key.into()), ..LetterQuery::default() }
}

/// The dead letters at an offset.
pub(crate) fn at(offset: u64) -> LetterQuery {
    LetterQuery { offset: Some(Offset(offset)), ..LetterQuery::default() }
}

/// A partition stopped at an event that failed so often.
pub(crate) fn stop(at: u64, attempts: u32) -> Mark {
    Mark::Stop { at: Offset(at), failure: failure(attempts, "bad") }
}

/// An event that failed so often waits for its next attempt.
pub(crate) fn retry(at: u64, attempts: u32) -> Mark {
    Mark::Retry { at: Offset(at), failure: failure(attempts, "later"), next: Timestamp(5_000) }
}

pub(crate) fn emits(stream: &str, ids: &[&str]) -> Effects {
    let emit = |id: &&str| Emit { stream: stream.into(), event: event(id) };
    Effects { emits: ids.iter().map(emit).collect(), state: BTreeMap::new() }
}

pub(crate) fn writes(key: &str, value: Option<&str>) -> Effects {
    Effects { emits: Vec::new(), state: BTreeMap::from([(key.to_owned(), value.map(|value| value.into()))]) }
}
