//! Streams and groups in a schema of a PostgreSQL database.
//!
//! Reads and rare writes take connections of a small pool ([`pool`]). What is written all the time goes through lanes
//! ([`lane`]): tasks with a connection each, that write together what waits together. Two more connections listen: one
//! for notifications ([`wake`]), one that holds the locks of this process's hosts ([`liveness`]). Every statement names the
//! schema, and every wait has an end.
//!
//! Behind a pooler that gives each transaction another connection ([`pooler`]) neither of these two would last, and there
//! is none: changes are looked for, and time-outs alone tell who lives.

mod append;
mod by_hand;
mod commit;
mod connect;
mod connection;
mod groups;
mod hosts;
mod lane;
mod letters;
mod liveness;
mod migrate;
mod own;
mod pool;
mod pooler;
mod read;
mod request;
mod retention;
mod set_aside;
mod sql;
mod streams;
mod survey;
mod versions;
mod wake;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use pelton_core::{
    Acquired, Commit, CommitOutcome, DeadLetter, Decision, Event, Lease, LetterRequest, Membership, NewEvent, Offset,
    Rollout, Session, Survey, Timestamp,
};
use tokio::sync::OnceCell;

use self::{
    append::{Append, Appends},
    commit::Commits,
    connect::Connector,
    hosts::By,
    lane::Lane,
    liveness::{Liveness, Taken},
    own::Own,
    pool::Pool,
    request::Database,
    sql::Sql,
    streams::{Known, Streams},
    wake::{Listener, Wake},
};
use crate::{
    Appended, Backup, Changed, GroupInfo, GroupSpec, HandledRange, HandlerReport, HostInfo, LetterInfo, LetterQuery,
    ParkedKey, Progress, ReadLimit, Registration, Reset, Store, StoreError, StoreOptions, StreamInfo, StreamSpec,
    open::without_any_password, rules,
};

/// Lanes for what may wait for a stream's counters, which a stranger may hold: one stream that is held up takes no more
/// than its share of the others along.
const STREAM_LANES: usize = 4;

/// Connections for heartbeats and decisions, at most.
const MEMBERSHIP_CONNECTIONS: u32 = 2;

/// A store in a schema of a PostgreSQL database.
pub struct PostgresStore {
    database: Database,
    /// For what keeps hosts alive: reads that wait for a place must not cost anybody his partitions.
    membership: Database,
    connector: Connector,
    streams: Arc<Streams>,
    positions: Lane<Commits>,
    emits: Vec<Lane<Commits>>,
    appends: Vec<Lane<Appends>>,
    listener: OnceCell<Listener>,
    liveness: OnceCell<Liveness>,
    /// For where there are no locks.
    own: Own,
}

impl PostgresStore {
    /// See [`crate::check_url`].
    pub(crate) fn check_url(url: &str) -> Result<(), StoreError> {
        Connector::new(url).map(drop)
    }

    /// Opens a schema.
    ///
    /// # Errors
    /// As [`crate::open()`].
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut connector = Connector::new(url)?;
        sql::check_schema(&options.schema)
            .map_err(|reason| StoreError::CannotOpen { url: connector.url().into(), reason })?;
        let sql = Arc::new(Sql::new(&options.schema));
        let mut connection = connector.first().await.map_err(|error| connector.cannot_open(&error))?;
        if options.host && connector.pooled() {
            pooler::warn(connector.url());
        }
        migrate::run(&mut connection, &connector, &sql, options).await?;
        connect::close(connection);

        let (streams, wake) = (Arc::<Streams>::default(), Arc::new(Wake::new(connector.pooled())));
        let commits = Arc::new(Commits {
            sql: Arc::clone(&sql),
            streams: Arc::clone(&streams),
            wake: Arc::clone(&wake),
            durability: options.durability,
        });
        let appends =
            Arc::new(Appends { sql: Arc::clone(&sql), streams: Arc::clone(&streams), wake: Arc::clone(&wake) });
        let database = |connections_max| Database {
            sql: Arc::clone(&sql),
            pool: Pool::new(connector.clone(), connections_max),
            wake: Arc::clone(&wake),
        };
        let store = Self {
            database: database(options.connections_max),
            membership: database(MEMBERSHIP_CONNECTIONS),
            streams,
            positions: Lane::start(&connector, Arc::clone(&commits)),
            emits: (0..STREAM_LANES).map(|_| Lane::start(&connector, Arc::clone(&commits))).collect(),
            appends: (0..STREAM_LANES).map(|_| Lane::start(&connector, Arc::clone(&appends))).collect(),
            listener: OnceCell::new(),
            liveness: OnceCell::new(),
            own: Own::default(),
            connector,
        };
        if options.host {
            store.listen().await;
        }
        Ok(store)
    }

    async fn listen(&self) {
        if self.connector.pooled() {
            return;
        }
        let Database { sql, wake, .. } = &self.database;
        self.listener.get_or_init(|| Listener::start(&self.connector, sql.schema(), wake)).await;
    }

    /// `None` where locks do not last.
    async fn liveness(&self) -> Option<&Liveness> {
        if self.connector.pooled() {
            return None;
        }
        Some(self.liveness.get_or_init(async || Liveness::start(&self.connector, &self.database.sql)).await)
    }

    /// Registers a host whose heartbeats alone tell that it lives.
    async fn register_without_lock(&self, registration: &Registration) -> Result<Session, StoreError> {
        let host = &registration.host;
        let drawn = self.membership.ask(&hosts::Draw).await?;
        self.own.remember(host, drawn);
        let by = By::Heartbeats { incarnation: drawn, own: &self.own.of(host) };
        self.membership.ask(&hosts::Register { registration, by }).await
    }

    /// A stream as it was last seen.
    async fn known(&self, stream: &str) -> Result<Arc<Known>, StoreError> {
        match self.streams.known(stream) {
            Some(known) => Ok(known),
            None => self.database.ask(&streams::Find { streams: &self.streams, stream }).await,
        }
    }

    /// The id of a stream's partition.
    async fn partition_id(&self, stream: &str, partition: u32) -> Result<i64, StoreError> {
        let known = self.known(stream).await?;
        let found = known.ids.get(partition as usize).copied();
        found.ok_or_else(|| rules::unknown_stream_partition(stream, partition, known.ids.len() as u32))
    }
}

/// The lane of a stream.
fn lane_of<'a, K: lane::Kind>(lanes: &'a [Lane<K>], stream: &str) -> &'a Lane<K> {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(stream);
    &lanes[hash as usize % lanes.len()]
}

#[async_trait]
impl Store for PostgresStore {
    async fn declare_stream(&self, spec: &StreamSpec) -> Result<(), StoreError> {
        self.database.ask(&streams::Declare(spec)).await
    }

    async fn declare_group(&self, spec: &GroupSpec) -> Result<(), StoreError> {
        self.database.ask(&groups::Declare(spec)).await
    }

    async fn streams(&self) -> Result<Vec<StreamInfo>, StoreError> {
        self.database.ask(&streams::List).await
    }

    async fn groups(&self) -> Result<Vec<GroupInfo>, StoreError> {
        self.database.ask(&groups::List).await
    }

    async fn append(&self, stream: &str, events: Vec<NewEvent>) -> Result<Vec<Appended>, StoreError> {
        lane_of(&self.appends, stream).ask(Append { stream: stream.into(), events }).await
    }

    async fn read(
        &self,
        stream: &str,
        partition: u32,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Event>, StoreError> {
        let partition_id = self.partition_id(stream, partition).await?;
        self.database.ask(&read::Read { partition_id, from, limit }).await
    }

    async fn acquire(&self, group: &str, partition: u32, session: &Session) -> Result<Acquired, StoreError> {
        self.database.ask(&groups::Acquire { group, partition, session }).await
    }

    async fn commit(&self, commit: Arc<Commit>) -> Result<CommitOutcome, StoreError> {
        let lane = match commit.effects.emits.iter().map(|emit| &emit.stream).min() {
            None => &self.positions,
            Some(stream) => lane_of(&self.emits, stream),
        };
        lane.ask(commit).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.database.ask(&groups::Release(lease)).await
    }

    async fn letters_requested(
        &self,
        group: &str,
        partition: u32,
        limit: ReadLimit,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.database.ask(&letters::Requested { group, partition, limit }).await
    }

    async fn remembered(&self, group: &str, partition: u32, ids: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
        self.database.ask(&retention::Remembered { group, partition, ids: &ids }).await
    }

    async fn state(&self, group: &str, partition: u32, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.database.ask(&groups::State { group, partition, key }).await
    }

    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Result<(), StoreError> {
        self.database.ask(&groups::Pause { group, partition, paused }).await
    }

    async fn resume(&self, group: &str, partition: Option<u32>) -> Result<(), StoreError> {
        self.database.ask(&groups::Resume { group, partition }).await
    }

    async fn letters(
        &self,
        group: &str,
        query: &LetterQuery,
        after: Option<(u32, Offset)>,
        limit: ReadLimit,
    ) -> Result<Vec<LetterInfo>, StoreError> {
        self.database.ask(&letters::List { group, query, after, limit }).await
    }

    async fn parked(&self, group: &str, limit: u32) -> Result<Vec<ParkedKey>, StoreError> {
        self.database.ask(&letters::Parked { group, limit }).await
    }

    async fn request_letters(
        &self,
        group: &str,
        query: &LetterQuery,
        request: LetterRequest,
    ) -> Result<u64, StoreError> {
        letters::ask(&self.database, group, query, request).await
    }

    async fn edit_letter(
        &self,
        group: &str,
        partition: u32,
        offset: Offset,
        payload: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.database.ask(&letters::Edit { group, partition, offset, payload: &payload }).await
    }

    async fn skip(&self, group: &str, partition: u32, park: bool) -> Result<Offset, StoreError> {
        self.database.ask(&by_hand::Skip { group, partition, park }).await
    }

    async fn reset(&self, reset: &Reset) -> Result<(), StoreError> {
        self.database.ask(&by_hand::Move(reset)).await
    }

    async fn offset_at(&self, stream: &str, partition: u32, time: Timestamp) -> Result<Offset, StoreError> {
        let partition_id = self.partition_id(stream, partition).await?;
        self.database.ask(&groups::OffsetAt { partition_id, time }).await
    }

    async fn delete_group(&self, group: &str, with_letters: bool) -> Result<(), StoreError> {
        self.database.ask(&by_hand::Delete { group, with_letters }).await
    }

    async fn trim(&self, stream: &str, before: Timestamp, events_max: u32) -> Result<u64, StoreError> {
        self.known(stream).await?;
        let mut trimmed = Ok(0);
        for partition_id in self.database.ask(&retention::Old { stream, before }).await? {
            let trim = retention::Trim { stream, partition_id, before, events_max };
            // A partition whose counter somebody holds is none of the others' business.
            match self.database.ask(&trim).await {
                Ok(removed) => trimmed = trimmed.map(|so_far| so_far + removed),
                Err(error) => trimmed = Err(error),
            }
        }
        trimmed
    }

    async fn forget(&self, group: &str, before: Timestamp, keep: u64, ids_max: u32) -> Result<u64, StoreError> {
        self.database.ask(&retention::Forget { group, before, keep, ids_max }).await
    }

    async fn backup(&self, to: &Path) -> Result<Backup, StoreError> {
        let schema = self.database.sql.schema();
        let [url, to] =
            [without_any_password(self.connector.url()), to.display().to_string()].map(|text| quoted(&text));
        Ok(Backup::Commands {
            dump: format!("pg_dump --format=custom --schema={schema} --file={to} {url}"),
            restore: format!("pg_restore --clean --if-exists --single-transaction --dbname={url} {to}"),
        })
    }

    async fn register(&self, registration: &Registration) -> Result<Session, StoreError> {
        let Some(liveness) = self.liveness().await else {
            return self.register_without_lock(registration).await;
        };
        let (server, new) = match liveness.take(&registration.host).await? {
            Taken::Held { server, new } => (server, new),
            Taken::NotKept => return self.register_without_lock(registration).await,
            Taken::InUse => return Err(self.membership.ask(&hosts::InUse(&registration.host)).await?),
        };
        let by = By::Lock { server: server.as_deref() };
        let registered = self.membership.ask(&hosts::Register { registration, by }).await;
        // Unless it may have been stored: then the lock belongs to it.
        if new && registered.as_ref().is_err_and(|error| !error.is_transient()) {
            liveness.release(&registration.host).await;
        }
        registered
    }

    async fn join(&self, session: &Session, memberships: &[Membership]) -> Result<bool, StoreError> {
        self.membership.ask(&hosts::Join { session, memberships }).await
    }

    async fn heartbeat(&self, sessions: &[Session]) -> Result<Vec<bool>, StoreError> {
        self.membership.ask(&hosts::Heartbeat(sessions)).await
    }

    async fn deregister(&self, session: &Session) -> Result<(), StoreError> {
        if self.membership.ask(&hosts::Deregister(session)).await? {
            self.own.forget(&session.host);
            if let Some(liveness) = self.liveness().await {
                liveness.release(&session.host).await;
            }
        }
        Ok(())
    }

    async fn lock_lost(&self) {
        match self.liveness().await {
            Some(liveness) => liveness.lost().await,
            // What there is not cannot be lost.
            None => std::future::pending().await,
        }
    }

    async fn survey(&self) -> Result<Survey, StoreError> {
        self.membership.ask(&survey::NoteServer).await?;
        self.membership.ask(&survey::Look).await
    }

    async fn decide(&self, decision: &Decision) -> Result<bool, StoreError> {
        self.membership.ask(&survey::Decide(decision)).await
    }

    async fn cleanup(&self) -> Result<Vec<String>, StoreError> {
        self.database.ask(&hosts::Cleanup).await
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, StoreError> {
        self.database.ask(&hosts::List).await
    }

    async fn report_handlers(&self, reports: &[HandlerReport]) -> Result<(), StoreError> {
        self.database.ask(&hosts::Report(reports)).await
    }

    async fn handlers(&self) -> Result<Vec<HandlerReport>, StoreError> {
        self.database.ask(&hosts::Handlers).await
    }

    async fn rollouts_revision(&self) -> Result<u64, StoreError> {
        self.database.ask(&versions::Revision).await
    }

    async fn rollouts(&self) -> Result<Vec<Rollout>, StoreError> {
        self.database.ask(&versions::List).await
    }

    async fn save_rollout(&self, rollout: &Rollout, module: Option<Arc<[u8]>>) -> Result<bool, StoreError> {
        self.database.ask(&versions::Save { rollout, module: module.as_deref() }).await
    }

    async fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.database.ask(&versions::Module(digest)).await
    }

    async fn ranges(&self, handler: &str, limit: u32) -> Result<Vec<HandledRange>, StoreError> {
        self.database.ask(&versions::Handled { handler, limit }).await
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        self.database.ask(&groups::Standing).await
    }

    async fn changed(&self, at_most: Duration) -> Changed {
        self.listen().await;
        self.database.wake.wait(&self.database, at_most).await
    }

    async fn membership_changed(&self, at_most: Duration) {
        self.listen().await;
        self.database.wake.wait_for_membership(at_most).await;
    }
}

/// As a shell takes it for one word, whatever it holds.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
