//! What lies between a host and its store: requests and replies are late or lost, and a request outlives whoever sent it.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pelton_core::{Claim, Commit, CommitOutcome, Event, Lease, NewEvent, Offset, Timestamp};
use pelton_store::{
    Appended, Clock, GroupInfo, GroupSpec, HandlerReport, HostInfo, MemoryStore, Progress, ReadLimit, Store,
    StoreError, StreamInfo, StreamSpec,
};
use tokio::time::{Instant, sleep};

use super::{Dice, auditor::Auditor};

type Answer<T> = Result<T, StoreError>;

/// A store that is out of reach at times.
pub(super) struct Network {
    dice: Dice,
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
    pub(super) fn tell(&self, line: &str) {
        if let Some(story) = &self.story {
            let mut story = story.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(story, "{} {line}", self.now().0);
        }
    }

    pub(super) fn story(&self) -> String {
        self.story
            .as_ref()
            .map(|story| story.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }

    fn is_calm(&self) -> bool {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).calm
    }

    fn is_out(&self) -> bool {
        let weather = self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        !weather.calm && Instant::now() < weather.outage_until
    }

    /// Sends a request. It is carried out even if whoever sent it is gone by then.
    async fn send<T: Debug + Send + 'static>(
        &self,
        what: String,
        request: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let lost = |doing| Err(StoreError::Unavailable { doing, reason: "the simulated network lost it".into() });
        if self.is_calm() {
            let answer = request.await;
            self.tell(&format!("{what} -> {answer:?}"));
            self.auditor.check().await;
            return answer;
        }
        if self.is_out() || self.dice.one_in(25) {
            sleep(self.dice.up_to_ms(200)).await;
            self.tell(&format!("{what}: request lost"));
            return lost("sending a request");
        }
        // Most requests are quick; some linger so long that the world has changed when they arrive.
        let late = if self.dice.one_in(40) { self.dice.up_to_ms(6_000) } else { self.dice.up_to_ms(8) };
        let auditor = Arc::clone(&self.auditor);
        let request = async move {
            sleep(late).await;
            let answer = request.await;
            auditor.check().await;
            answer
        };
        let request = tokio::spawn(request);
        if self.dice.one_in(30) {
            // The sender gives up, and the request goes on: its repetition and it are under way at once.
            sleep(self.dice.up_to_ms(50)).await;
            if !request.is_finished() {
                self.tell(&format!("{what}: given up while under way"));
                return lost("waiting for a reply");
            }
        }
        let answer = request.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        self.tell(&format!("{what} -> {answer:?}"));
        if self.dice.one_in(25) {
            self.tell(&format!("{what}: reply lost"));
            return lost("waiting for a reply");
        }
        answer
    }
}

#[async_trait]
impl Store for Network {
    async fn acquire(&self, group: &str, partition: u32, host: &str) -> Answer<Claim> {
        let (memory, group, host) = (Arc::clone(&self.memory), group.to_owned(), host.to_owned());
        let what = format!("acquire {group}/{partition}");
        self.send(what, async move { memory.acquire(&group, partition, &host).await }).await
    }

    async fn read(&self, stream: &str, partition: u32, from: Offset, limit: ReadLimit) -> Answer<Vec<Event>> {
        let (memory, stream) = (Arc::clone(&self.memory), stream.to_owned());
        let what = format!("read {stream}/{partition}@{from}");
        // Some reads come from a copy that lags behind.
        let seen = if !self.is_calm() && self.dice.one_in(4) { self.dice.below(3) as usize } else { usize::MAX };
        self.send(what, async move {
            let mut events = memory.read(&stream, partition, from, limit).await?;
            events.truncate(seen);
            Ok(events)
        })
        .await
    }

    async fn commit(&self, commit: Arc<Commit>) -> Answer<CommitOutcome> {
        let memory = Arc::clone(&self.memory);
        let Commit { lease, from, to, mark, .. } = &*commit;
        let what = format!("commit {}/{} epoch {} {from}..{to} {mark:?}", lease.group, lease.partition, lease.epoch);
        self.send(what, async move { memory.commit(commit).await }).await
    }

    async fn release(&self, lease: &Lease) -> Answer<()> {
        let (memory, lease) = (Arc::clone(&self.memory), lease.clone());
        let what = format!("release {}/{}", lease.group, lease.partition);
        self.send(what, async move { memory.release(&lease).await }).await
    }

    async fn state(&self, group: &str, partition: u32, key: &str) -> Answer<Option<Vec<u8>>> {
        let (memory, group, key) = (Arc::clone(&self.memory), group.to_owned(), key.to_owned());
        let what = format!("state {group}/{partition} {key}");
        self.send(what, async move { memory.state(&group, partition, &key).await }).await
    }

    async fn progress(&self) -> Answer<Vec<Progress>> {
        let memory = Arc::clone(&self.memory);
        self.send("progress".into(), async move { memory.progress().await }).await
    }

    async fn changed(&self, at_most: Duration) {
        // Every second wake-up is lost: polling alone has to do then.
        if self.dice.one_in(2) { sleep(at_most).await } else { self.memory.changed(at_most).await }
    }

    async fn append(&self, stream: &str, events: Vec<NewEvent>) -> Answer<Vec<Appended>> {
        self.memory.append(stream, events).await
    }

    async fn declare_stream(&self, spec: &StreamSpec) -> Answer<()> {
        self.memory.declare_stream(spec).await
    }

    async fn declare_group(&self, spec: &GroupSpec) -> Answer<()> {
        self.memory.declare_group(spec).await
    }

    async fn streams(&self) -> Answer<Vec<StreamInfo>> {
        self.memory.streams().await
    }

    async fn groups(&self) -> Answer<Vec<GroupInfo>> {
        self.memory.groups().await
    }

    async fn pause(&self, group: &str, partition: Option<u32>, paused: bool) -> Answer<()> {
        self.memory.pause(group, partition, paused).await
    }

    async fn resume(&self, group: &str, partition: Option<u32>) -> Answer<()> {
        self.memory.resume(group, partition).await
    }

    async fn register(&self, host: &str, groups: &[String]) -> Answer<()> {
        self.memory.register(host, groups).await
    }

    async fn heartbeat(&self, host: &str) -> Answer<bool> {
        self.memory.heartbeat(host).await
    }

    async fn deregister(&self, host: &str) -> Answer<()> {
        self.memory.deregister(host).await
    }

    async fn hosts(&self) -> Answer<Vec<HostInfo>> {
        self.memory.hosts().await
    }

    async fn report_handlers(&self, reports: &[HandlerReport]) -> Answer<()> {
        self.memory.report_handlers(reports).await
    }

    async fn handlers(&self) -> Answer<Vec<HandlerReport>> {
        self.memory.handlers().await
    }
}
