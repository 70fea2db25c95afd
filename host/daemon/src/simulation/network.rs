//! What lies between hosts and their store: requests and replies are late or lost, and a request outlives whoever sent
//! it. A host can be stopped as by SIGSTOP: nothing of it goes on, but what it had sent arrives.

use std::{
    collections::BTreeSet,
    fmt::{Debug, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pelton_core::{
    Acquired, Commit, CommitOutcome, DeadLetter, Decision, Event, Lease, LetterRequest, Membership, NewEvent, Offset,
    Rollout, Session, Survey, Timestamp,
};
use pelton_store::{
    Appended, Backup, Changed, Clock, GroupInfo, GroupSpec, HandledRange, HandlerReport, HostInfo, LetterInfo,
    LetterQuery, MemoryStore, ParkedKey, Progress, ReadLimit, Registration, Reset, Store, StoreError, StreamInfo,
    StreamSpec,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::{Dice, auditor::Auditor};

type Answer<T> = Result<T, StoreError>;

/// The store, and what it and the network go through, for all hosts.
pub(super) struct Network {
    pub(super) dice: Dice,
    memory: Arc<MemoryStore>,
    auditor: Arc<Auditor>,
    clock: Clock,
    weather: Mutex<Weather>,
    story: Option<Mutex<String>>,
}

struct Weather {
    calm: bool,
    outage_until: Instant,
}

impl Network {
    pub(super) fn new(dice: Dice, memory: Arc<MemoryStore>, auditor: Arc<Auditor>, clock: Clock, told: bool) -> Self {
        let weather = Mutex::new(Weather { calm: false, outage_until: Instant::now() });
        Self { dice, memory, auditor, clock, weather, story: told.then(Mutex::default) }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(super) fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// From now on nothing is lost or late.
    pub(super) fn calm(&self) {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).calm = true;
    }

    /// Nothing gets through for a while.
    pub(super) fn outage(&self, duration: Duration) {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).outage_until = Instant::now() + duration;
    }

    /// Adds a line to the story of the run.
    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(story) = &self.story {
            let mut story = story.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(story, "{} {}", self.now().0, line());
        }
    }

    pub(super) fn story(&self) -> String {
        let told = |story: &Mutex<String>| story.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.story.as_ref().map(told).unwrap_or_default()
    }

    fn is_calm(&self) -> bool {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).calm
    }

    fn is_out(&self) -> bool {
        let weather = self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        !weather.calm && Instant::now() < weather.outage_until
    }
}

impl Drop for Network {
    /// What led to a failure is told with it.
    fn drop(&mut self) {
        if std::thread::panicking() && self.story.is_some() {
            eprintln!("{}", self.story());
        }
    }
}

/// A host's end of it.
pub(super) struct Link {
    network: Arc<Network>,
    host: String,
    stopped_until: Mutex<Instant>,
    lock_lost: AtomicBool,
    notify: Notify,
}

impl Link {
    pub(super) fn new(network: &Arc<Network>, host: &str) -> Self {
        Self {
            network: Arc::clone(network),
            host: host.into(),
            stopped_until: Mutex::new(Instant::now()),
            lock_lost: AtomicBool::new(false),
            notify: Notify::new(),
        }
    }

    /// As by SIGSTOP, and SIGCONT after a while.
    pub(super) fn stop(&self, duration: Duration) {
        *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + duration;
    }

    /// The connection that holds the lock breaks, and this host notices.
    pub(super) fn lose_lock(&self) {
        self.lock_lost.store(true, Ordering::Relaxed);
        self.notify.notify_waiters();
    }

    /// A stopped host does nothing until it is continued.
    pub(super) async fn running(&self) {
        loop {
            let until = *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner);
            if self.network.is_calm() || Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.network.memory)
    }

    async fn send<T: Debug + Send + 'static>(
        &self,
        what: impl Fn() -> String + Send + Sync,
        request: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        self.running().await;
        let answer = self.send_running(what, request).await;
        self.running().await;
        answer
    }

    /// Sends a request that writes: afterwards the auditor looks at the store.
    async fn write<T: Debug + Send + 'static>(
        &self,
        what: impl Fn() -> String + Send + Sync,
        request: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let auditor = Arc::clone(&self.network.auditor);
        let audited = async move {
            let answer = request.await;
            auditor.check().await;
            answer
        };
        self.send(what, audited).await
    }

    /// Sends a request. It is carried out even if whoever sent it is gone by then.
    async fn send_running<T: Debug + Send + 'static>(
        &self,
        what: impl Fn() -> String + Send + Sync,
        request: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let dice = &self.network.dice;
        let what = || format!("{}: {}", self.host, what());
        let tell = |line: &str| self.network.tell(|| format!("{}{line}", what()));
        let lost = |doing| Err(StoreError::Unavailable { doing, reason: "the simulated network lost it".into() });
        if self.network.is_calm() {
            let answer = request.await;
            self.network.tell(|| format!("{} -> {answer:?}", what()));
            return answer;
        }
        if self.network.is_out() || dice.one_in(25) {
            sleep(dice.up_to_ms(200)).await;
            tell(": request lost");
            return lost("sending a request");
        }
        // Most requests are quick; some linger so long that the world has changed when they arrive.
        let late = if dice.one_in(40) { dice.up_to_ms(6_000) } else { dice.up_to_ms(8) };
        let request = async move {
            sleep(late).await;
            request.await
        };
        let request = tokio::spawn(request);
        if dice.one_in(30) {
            // The sender gives up, and the request goes on: its repetition and it are under way at once.
            sleep(dice.up_to_ms(50)).await;
            if !request.is_finished() {
                tell(": given up while under way");
                return lost("waiting for a reply");
            }
        }
        let answer = request.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        self.network.tell(|| format!("{} -> {answer:?}", what()));
        if dice.one_in(25) {
            tell(": reply lost");
            return lost("waiting for a reply");
        }
        answer
    }
}

#[async_trait]
impl Store for Link {
    // --- What a host asks while it works ----------------------------------------------------------------------------

    async fn acquire(&self, group: &str, partition: u32, session: &Session) -> Answer<Acquired> {
        let what = || format!("acquire {group}/{partition} as {}", session.incarnation);
        let (memory, group, session) = (self.memory(), group.to_owned(), session.clone());
        self.write(what, async move { memory.acquire(&group, partition, &session).await }).await
    }

    async fn read(&self, stream: &str, partition: u32, from: Offset, limit: ReadLimit) -> Answer<Vec<Event>> {
        let what = || format!("read {stream}/{partition}@{from}");
        let (memory, stream) = (self.memory(), stream.to_owned());
        // Some reads come from a copy that lags behind.
        let dice = &self.network.dice;
        let seen = if !self.network.is_calm() && dice.one_in(4) { dice.below(3) as usize } else { usize::MAX };
        self.send(what, async move {
            let mut events = memory.read(&stream, partition, from, limit).await?;
            events.truncate(seen);
            Ok(events)
        })
        .await
    }

    async fn commit(&self, commit: Arc<Commit>) -> Answer<CommitOutcome> {
        let (memory, auditor) = (self.memory(), Arc::clone(&self.network.auditor));
        let asked = Arc::clone(&commit);
        let what = move || {
            let Commit { lease, from, to, mark, set_aside, settled, .. } = &*asked;
            let aside: Vec<u64> = set_aside.iter().map(|letter| letter.event.offset.0).collect();
            let place = format!("{}/{} epoch {}", lease.group, lease.partition, lease.epoch);
            format!("commit {place} {from}..{to} {mark:?} aside {aside:?} settled {settled:?}")
        };
        let committing = async move {
            let before = auditor.letters(&commit).await;
            let outcome = memory.commit(Arc::clone(&commit)).await?;
            auditor.committed(&commit, &outcome, &before).await;
            Ok(outcome)
        };
        self.write(what, committing).await
    }

    async fn release(&self, lease: &Lease) -> Answer<()> {
        let what = || format!("release {}/{} epoch {}", lease.group, lease.partition, lease.epoch);
        let (memory, lease) = (self.memory(), lease.clone());
        self.write(what, async move { memory.release(&lease).await }).await
    }

    async fn letters_requested(&self, group: &str, partition: u32, limit: ReadLimit) -> Answer<Vec<DeadLetter>> {
        let what = || format!("letters of {group}/{partition}");
        let (memory, group) = (self.memory(), group.to_owned());
        self.send(what, async move { memory.letters_requested(&group, partition, limit).await }).await
    }

    async fn remembered(&self, group: &str, partition: u32, ids: Vec<String>) -> Answer<BTreeSet<String>> {
        let what = || format!("remembered of {group}/{partition}");
        let (memory, group) = (self.memory(), group.to_owned());
        self.send(what, async move { memory.remembered(&group, partition, ids).await }).await
    }

    async fn state(&self, group: &str, partition: u32, key: &str) -> Answer<Option<Vec<u8>>> {
        let what = || format!("state {group}/{partition} {key}");
        let (memory, group, key) = (self.memory(), group.to_owned(), key.to_owned());
        self.send(what, async move { memory.state(&group, partition, &key).await }).await
    }

    async fn progress(&self) -> Answer<Vec<Progress>> {
        let memory = self.memory();
        self.send(|| "progress".into(), async move { memory.progress().await }).await
    }

    async fn changed(&self, at_most: Duration) -> Changed {
        // Every second wake-up is lost: polling alone has to do then.
        let changed = if self.network.dice.one_in(2) {
            sleep(at_most).await;
            Changed::default()
        } else {
            self.network.memory.changed(at_most).await
        };
        self.running().await;
        changed
    }

    // --- Membership -------------------------------------------------------------------------------------------------

    async fn register(&self, registration: &Registration) -> Answer<Session> {
        let (memory, registration) = (self.memory(), registration.clone());
        self.lock_lost.store(false, Ordering::Relaxed);
        self.write(|| "register".into(), async move { memory.register(&registration).await }).await
    }

    async fn join(&self, session: &Session, memberships: &[Membership]) -> Answer<bool> {
        let (memory, session, memberships) = (self.memory(), session.clone(), memberships.to_vec());
        self.write(|| "join".into(), async move { memory.join(&session, &memberships).await }).await
    }

    async fn heartbeat(&self, sessions: &[Session]) -> Answer<Vec<bool>> {
        let (memory, sessions) = (self.memory(), sessions.to_vec());
        self.send(|| "heartbeat".into(), async move { memory.heartbeat(&sessions).await }).await
    }

    async fn deregister(&self, session: &Session) -> Answer<()> {
        let (memory, session) = (self.memory(), session.clone());
        self.write(|| "deregister".into(), async move { memory.deregister(&session).await }).await
    }

    async fn lock_lost(&self) {
        loop {
            let notified = self.notify.notified();
            if self.lock_lost.load(Ordering::Relaxed) {
                break;
            }
            notified.await;
        }
        self.running().await;
    }

    async fn survey(&self) -> Answer<Survey> {
        let memory = self.memory();
        self.send(|| "survey".into(), async move { memory.survey().await }).await
    }

    async fn decide(&self, decision: &Decision) -> Answer<bool> {
        let (memory, decision) = (self.memory(), decision.clone());
        let asked = decision.clone();
        self.write(move || format!("decide {asked:?}"), async move { memory.decide(&decision).await }).await
    }

    async fn cleanup(&self) -> Answer<Vec<String>> {
        let memory = self.memory();
        self.write(|| "cleanup".into(), async move { memory.cleanup().await }).await
    }

    // --- What only people ask ---------------------------------------------------------------------------------------

    async fn append(&self, stream: &str, events: Vec<NewEvent>) -> Answer<Vec<Appended>> {
        self.network.memory.append(stream, events).await
    }

    async fn declare_stream(&self, spec: &StreamSpec) -> Answer<()> {
        self.network.memory.declare_stream(spec).await
    }

    async fn declare_group(&self, spec: &GroupSpec) -> Answer<()> {
        self.network.memory.declare_group(spec).await
    }

    async fn streams(&self) -> Answer<Vec<StreamInfo>> {
        self.network.memory.streams().await
    }

    async fn groups(&self) -> Answer<Vec<GroupInfo>> {
        self.network.memory.groups().await
    }

    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Answer<()> {
        self.network.memory.pause(group, partition, paused).await
    }

    async fn resume(&self, group: &str, partition: Option<u32>) -> Answer<()> {
        self.network.memory.resume(group, partition).await
    }

    async fn letters(
        &self,
        group: &str,
        query: &LetterQuery,
        after: Option<(u32, Offset)>,
        limit: ReadLimit,
    ) -> Answer<Vec<LetterInfo>> {
        self.network.memory.letters(group, query, after, limit).await
    }

    async fn parked(&self, group: &str, limit: u32) -> Answer<Vec<ParkedKey>> {
        self.network.memory.parked(group, limit).await
    }

    async fn request_letters(&self, group: &str, query: &LetterQuery, request: LetterRequest) -> Answer<u64> {
        self.network.memory.request_letters(group, query, request).await
    }

    async fn edit_letter(&self, group: &str, partition: u32, offset: Offset, payload: Vec<u8>) -> Answer<()> {
        self.network.memory.edit_letter(group, partition, offset, payload).await
    }

    async fn skip(&self, group: &str, partition: u32, park: bool) -> Answer<Offset> {
        self.network.memory.skip(group, partition, park).await
    }

    async fn trim(&self, stream: &str, before: Timestamp, events_max: u32) -> Answer<u64> {
        self.network.memory.trim(stream, before, events_max).await
    }

    async fn forget(&self, group: &str, before: Timestamp, keep: u64, ids_max: u32) -> Answer<u64> {
        self.network.memory.forget(group, before, keep, ids_max).await
    }

    async fn reset(&self, reset: &Reset) -> Answer<()> {
        self.network.memory.reset(reset).await
    }

    async fn offset_at(&self, stream: &str, partition: u32, time: Timestamp) -> Answer<Offset> {
        self.network.memory.offset_at(stream, partition, time).await
    }

    async fn delete_group(&self, group: &str, with_letters: bool) -> Answer<()> {
        self.network.memory.delete_group(group, with_letters).await
    }

    async fn backup(&self, to: &Path) -> Answer<Backup> {
        self.network.memory.backup(to).await
    }

    async fn hosts(&self) -> Answer<Vec<HostInfo>> {
        self.network.memory.hosts().await
    }

    async fn report_handlers(&self, reports: &[HandlerReport]) -> Answer<()> {
        self.network.memory.report_handlers(reports).await
    }

    async fn handlers(&self) -> Answer<Vec<HandlerReport>> {
        self.network.memory.handlers().await
    }

    async fn rollouts_revision(&self) -> Answer<u64> {
        self.network.memory.rollouts_revision().await
    }

    async fn rollouts(&self) -> Answer<Vec<Rollout>> {
        self.network.memory.rollouts().await
    }

    async fn save_rollout(&self, rollout: &Rollout, module: Option<Arc<[u8]>>) -> Answer<bool> {
        self.network.memory.save_rollout(rollout, module).await
    }

    async fn module(&self, digest: &str) -> Answer<Option<Vec<u8>>> {
        self.network.memory.module(digest).await
    }

    async fn ranges(&self, handler: &str, limit: u32) -> Answer<Vec<HandledRange>> {
        self.network.memory.ranges(handler, limit).await
    }
}
