//! What time asks of a store: events that are old enough are removed, ids are forgotten, dead letters are discarded, and
//! parked keys are tried again. Every host does it for what its configuration declares; who comes second finds nothing to
//! do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pelton_core::{LetterRequest, Timestamp};
use pelton_store::{LetterQuery, ReadLimit, Store, StoreError};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::config::Config;

/// The longest and the shortest time between two rounds; in between, a tenth of the shortest time that is asked for.
const ROUND_MAX: Duration = Duration::from_secs(10);
const ROUND_MIN: Duration = Duration::from_millis(100);
const ROUNDS_PER_TIME: u32 = 10;
/// Rows that one step removes at most, of each partition: a transaction of a few milliseconds.
const STEP_ROWS: u32 = 500;
/// The wait between two steps, so that others get their turn.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// So many failed rounds in a row are worth a line in the log.
const ROUNDS_UNTIL_TOLD: u32 = 6;
/// Ids that are remembered for each partition at most, counted in offsets: those of older events are forgotten whatever the
/// window.
const REMEMBERED_MAX: u64 = 1_000_000;

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chores(Vec<Chore>);

/// One thing to do for one stream or group, with what is older than this.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Chore {
    what: What,
    name: String,
    age: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Trim,
    Forget,
    Discard,
    Replay,
}

impl Chores {
    /// What a configuration asks for.
    pub(crate) fn of(config: &Config) -> Self {
        let streams = config.streams.iter().map(|(name, stream)| {
            let retention = stream.retention_ms.map(Duration::from_millis);
            (What::Trim, name, retention)
        });
        let groups = config.groups.iter().flat_map(|(name, group)| {
            let window = group.settings.idempotent.then_some(group.idempotent_window);
            let times =
                [(What::Forget, window), (What::Discard, group.letters_retention), (What::Replay, group.auto_replay)];
            times.map(|(what, age)| (what, name, age))
        });
        let chore =
            |(what, name, age): (What, &String, Option<Duration>)| Some(Chore { what, name: name.clone(), age: age? });
        Self(streams.chain(groups).filter_map(chore).collect())
    }

    fn pause(&self) -> Duration {
        let times = self.0.iter().map(|chore| chore.age);
        times.min().map_or(ROUND_MAX, |least| (least / ROUNDS_PER_TIME).clamp(ROUND_MIN, ROUND_MAX))
    }
}

/// Does what there is to do, round after round. Never returns.
pub(crate) async fn do_chores(store: Arc<dyn Store>, mut chores: watch::Receiver<Chores>) {
    // What failed is not asked for again at every step that others have to take, but at this time.
    let (mut resting, mut until) = (BTreeSet::new(), Instant::now());
    let mut failed_in_row = 0;
    loop {
        let now = chores.borrow_and_update().clone();
        if until <= Instant::now() {
            failed_in_row = if resting.is_empty() { 0 } else { failed_in_row + 1 };
            resting.clear();
            until = Instant::now() + now.pause();
        }
        let Round { left, failed } = round(&*store, &now, &mut resting).await;
        if let Some(error) = failed {
            let rounds = failed_in_row + 1;
            // Pumps and heartbeats have more to say about a store that is away.
            if rounds % ROUNDS_UNTIL_TOLD == 0 {
                warn!(%error, rounds, "old events, ids and dead letters could not be seen to; trying again");
            } else {
                debug!(%error, "old events, ids and dead letters could not be seen to; trying again");
            }
        }
        // A step of each at a time: a long one keeps nobody waiting, and what is corrected counts from the next step on.
        let pause = if left == Left::More { STEP_PAUSE } else { now.pause() };
        // What is asked for more often now does not wait for what was asked before.
        if let Ok(Err(_)) = timeout(pause, chores.changed()).await {
            sleep(pause).await;
        }
    }
}

/// Whether a step found as much as it could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    More,
}

impl Left {
    fn after(removed: u64) -> Self {
        if removed < u64::from(STEP_ROWS) { Self::Nothing } else { Self::More }
    }
}

/// What came of a step of everything.
#[derive(Debug)]
struct Round {
    /// Whether any of what was done found as much as it could take.
    left: Left,
    /// The last thing that failed.
    failed: Option<StoreError>,
}

/// A step of everything but what rests. What fails for one stream or group rests from then on, and the others are none the
/// slower for it.
async fn round(store: &dyn Store, chores: &Chores, resting: &mut BTreeSet<Chore>) -> Round {
    let mut round = Round { left: Left::Nothing, failed: None };
    if chores.0.iter().all(|chore| resting.contains(chore)) {
        return round;
    }
    // The store's own clock wrote the times; a host whose clock is wrong must not remove what is young.
    let now = match store.survey().await {
        Ok(survey) => survey.now,
        Err(error) => {
            resting.extend(chores.0.iter().cloned());
            return Round { failed: Some(error), ..round };
        }
    };
    for chore in &chores.0 {
        if resting.contains(chore) {
            continue;
        }
        let before = Timestamp(now.0.saturating_sub(chore.age.as_millis() as u64));
        match chore.step(store, before).await {
            Ok(Left::Nothing) => {}
            Ok(Left::More) => round.left = Left::More,
            Err(error) => {
                resting.insert(chore.clone());
                round.failed = Some(error);
            }
        }
    }
    round
}

impl Chore {
    async fn step(&self, store: &dyn Store, before: Timestamp) -> Result<Left, StoreError> {
        let name = &self.name;
        match self.what {
            What::Trim => trim(store, name, before).await,
            What::Forget => Ok(Left::after(store.forget(name, before, REMEMBERED_MAX, STEP_ROWS).await?)),
            What::Discard => ask(store, name, before, LetterRequest::Discard).await,
            What::Replay => ask(store, name, before, LetterRequest::Replay).await,
        }
    }
}

async fn trim(store: &dyn Store, stream: &str, before: Timestamp) -> Result<Left, StoreError> {
    let removed = store.trim(stream, before, STEP_ROWS).await?;
    if removed > 0 {
        debug!(stream, removed, "old events removed");
    }
    Ok(Left::after(removed))
}

/// Asks something of letters that failed last before a time and wait behind no other: those behind a parked one get their
/// turn when they are the first.
async fn ask(store: &dyn Store, group: &str, before: Timestamp, request: LetterRequest) -> Result<Left, StoreError> {
    let old = LetterQuery { before: Some(before), first: true, idle: true, ..LetterQuery::default() };
    // Looked for without a lock first: mostly there are none.
    if store.letters(group, &old, None, ReadLimit { events: 1, bytes: 1 }).await?.is_empty() {
        return Ok(Left::Nothing);
    }
    let letters = store.request_letters(group, &old, request).await?;
    match request {
        LetterRequest::Replay if letters > 0 => {
            info!(group, letters, "dead letters are tried again by themselves (auto_replay)")
        }
        LetterRequest::Discard if letters > 0 => {
            info!(group, letters, "dead letters are older than dead_letters_retention and go")
        }
        _ => {}
    }
    Ok(Left::Nothing)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use pelton_core::{
        Acquired, Commit, DeadLetter, Decision, Failure, Lease, LetterRequest, Membership, NewEvent, Offset,
    };
    use pelton_store::{GroupSpec, MemoryStore, Registration, Start, StreamSpec};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// A stream of one partition with `count` events of key `k` at time 0, and a group that has passed `passed` of them, of
    /// which it has set the first `letters` aside.
    struct House {
        store: MemoryStore,
        now: Arc<AtomicU64>,
    }

    impl House {
        async fn with(count: u64, passed: u64, letters: usize) -> Self {
            let now = Arc::new(AtomicU64::new(0));
            let time = Arc::clone(&now);
            let store = MemoryStore::new(Arc::new(move || Timestamp(time.load(Ordering::Relaxed))));
            let spec = StreamSpec { name: "in".into(), partitions: 1, payload_bytes_max: 1000, retention_ms: None };
            store.declare_stream(&spec).await.expect("declared");
            let (name, stream, handler) = ("g".into(), "in".into(), "h".into());
            let spec = GroupSpec { name, stream, handler, start: Start::Earliest };
            store.declare_group(&spec).await.expect("declared");
            let event = |n| NewEvent { id: format!("e{n}"), key: Some("k".into()), ..NewEvent::default() };
            store.append("in", (0..count).map(event).collect()).await.expect("appended");

            let memberships = vec![Membership { group: "g".into(), session_timeout_ms: 1000, partitions_max: 0 }];
            let registration = Registration { host: "h".into(), memberships, ..Registration::default() };
            let session = store.register(&registration).await.expect("registered");
            let generation = store.survey().await.expect("readable").groups[0].generation;
            let targets = vec![Some(Arc::clone(&session.host))];
            let assign = Decision::Assign { group: "g".into(), generation, targets, homes: vec![None] };
            assert!(store.decide(&assign).await.expect("decided"));
            let Acquired::Claimed(claim) = store.acquire("g", 0, &session).await.expect("answered") else {
                panic!("it is free");
            };
            let lease = Lease { group: "g".into(), partition: 0, host: session.host, epoch: claim.epoch };
            let all = ReadLimit { events: u32::MAX, bytes: u64::MAX };
            let events = store.read("in", 0, Offset(0), all).await.expect("readable");
            let letter = |event| DeadLetter {
                event,
                failure: Failure::parked(Timestamp(0)),
                digest: None,
                parks: true,
                request: None,
                edited: false,
            };
            let set_aside = events.into_iter().take(letters).map(letter).collect();
            let remembered = (0..passed).map(|n| (Offset(n), format!("e{n}"))).collect();
            let moving = Commit::moving(lease, 1, Offset(0), Offset(passed));
            store.commit(Arc::new(Commit { set_aside, remembered, ..moving })).await.expect("committed");
            Self { store, now }
        }

        async fn round(&self, chores: &Chores) -> Left {
            let Round { left, failed } = round(&self.store, chores, &mut BTreeSet::new()).await;
            assert!(failed.is_none(), "{failed:?}");
            left
        }

        async fn first(&self) -> Offset {
            self.store.streams().await.expect("readable")[0].partitions[0].first
        }

        /// What is asked of each letter.
        async fn asked(&self) -> Vec<Option<LetterRequest>> {
            let all = ReadLimit { events: u32::MAX, bytes: u64::MAX };
            let letters = self.store.letters("g", &LetterQuery::default(), None, all).await.expect("readable");
            letters.into_iter().map(|info| info.letter.request).collect()
        }
    }

    /// To be done with what is older than a day.
    fn daily(what: What, name: &str) -> Chores {
        Chores(vec![Chore { what, name: name.into(), age: DAY }])
    }

    #[tokio::test]
    async fn retention_takes_what_is_old_and_passed_a_step_at_a_time() {
        let house = House::with(1_300, 1_200, 0).await;
        let chores = daily(What::Trim, "in");
        assert!(house.round(&chores).await == Left::Nothing);
        assert_eq!(house.first().await, Offset(0), "nothing is old yet");
        house.now.store(2 * DAY.as_millis() as u64, Ordering::Relaxed);
        assert!(house.round(&chores).await == Left::More);
        assert_eq!(house.first().await, Offset(u64::from(STEP_ROWS)));
        while house.round(&chores).await == Left::More {}
        assert_eq!(house.first().await, Offset(1_200), "what the group has not passed stays");
    }

    #[tokio::test]
    async fn old_letters_are_discarded_from_the_front_of_their_key_and_none_behind_it() {
        let house = House::with(3, 3, 3).await;
        let chores = daily(What::Discard, "g");
        house.round(&chores).await;
        assert_eq!(house.asked().await, [None, None, None]);
        house.now.store(2 * DAY.as_millis() as u64, Ordering::Relaxed);
        house.round(&chores).await;
        assert_eq!(house.asked().await, [Some(LetterRequest::Discard), None, None]);
    }

    #[tokio::test]
    async fn a_parked_key_is_tried_again_as_a_whole_when_its_first_event_failed_long_enough_ago() {
        let house = House::with(3, 3, 2).await;
        let chores = daily(What::Replay, "g");
        house.round(&chores).await;
        assert_eq!(house.asked().await, [None, None]);
        house.now.store(2 * DAY.as_millis() as u64, Ordering::Relaxed);
        house.round(&chores).await;
        assert_eq!(house.asked().await, [Some(LetterRequest::Replay); 2]);
    }

    #[tokio::test]
    async fn ids_are_forgotten_when_their_window_is_over() {
        let house = House::with(3, 3, 0).await;
        let chores = daily(What::Forget, "g");
        let known = async || house.store.remembered("g", 0, vec!["e0".into()]).await.expect("readable").len();
        house.round(&chores).await;
        assert_eq!(known().await, 1);
        house.now.store(2 * DAY.as_millis() as u64, Ordering::Relaxed);
        house.round(&chores).await;
        assert_eq!(known().await, 0);
    }

    #[tokio::test]
    async fn a_stream_that_is_not_there_keeps_nobody_waiting() {
        let house = House::with(1_300, 1_200, 0).await;
        house.now.store(2 * DAY.as_millis() as u64, Ordering::Relaxed);
        let chores = Chores([daily(What::Trim, "gone").0, daily(What::Trim, "in").0].concat());
        let mut resting = BTreeSet::new();
        let first = round(&house.store, &chores, &mut resting).await;
        assert_eq!((first.left, first.failed.is_some()), (Left::More, true));
        assert_eq!(house.first().await, Offset(u64::from(STEP_ROWS)));
        let second = round(&house.store, &chores, &mut resting).await;
        assert_eq!((second.left, second.failed.is_some()), (Left::More, false), "what failed is left alone meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn retention_is_none_the_slower_for_a_stream_that_is_not_there() {
        let House { store, now } = House::with(1_300, 1_200, 0).await;
        now.store(2 * DAY.as_millis() as u64, Ordering::Relaxed);
        let store: Arc<dyn Store> = Arc::new(store);
        let chores = Chores([daily(What::Trim, "gone").0, daily(What::Trim, "in").0].concat());
        let (_chores, chores) = watch::channel(chores);
        let at_work = tokio::spawn(do_chores(Arc::clone(&store), chores));
        sleep(STEP_PAUSE * 4).await;
        at_work.abort();
        assert_eq!(store.streams().await.expect("readable")[0].partitions[0].first, Offset(1_200));
    }
}
