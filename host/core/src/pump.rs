//! The state machine that drives one partition of one group: acquire → fetch → invoke → commit → (verdict) → next.
//!
//! It holds no events and does no I/O. A driver carries out its [`Action`]s and tells it what came of them as
//! [`Input`]s; time and chance come with them. The same machine runs in the daemon and in the simulation.
//!
//! Four marks move along the partition, never past each other:
//!
//! ```text
//! committed ≤ finished ≤ fetched ≤ head
//!     │          │          └ events that the driver holds, read ahead
//!     │          └ events whose handling is over and whose effects the driver holds
//!     └ what the store knows
//! ```
//!
//! At most one fetch, one invocation and one commit are under way. While a commit is, at most `commit_ahead` further
//! batches are handled; what they gave is committed next, joined into one range. Whatever makes the store's position
//! differ from what was thought throws away everything past `committed`, effects and all.
//!
//! Dead letters of which something is asked are seen to between two batches, when nothing else is under way: what is parked
//! and un-parked by one machine, in one order, needs no rule for what happens at the same time.

mod words;

pub use words::{Action, CommitMode, End, Holder, Input, Invoked, Phase, PumpSettings, Replayed, Request};

use crate::{
    Aside, Circumstances, Claim, Control, Epoch, FULL_WAIT_MS, Failure, Hold, Mark, Offset, Outcome, Timestamp,
    Verdict, verdict,
};

/// The first wait after the store did not answer; doubles up to [`STORE_WAIT_MS_MAX`].
const STORE_WAIT_MS_MIN: u64 = 20;
/// The longest wait between two tries at the store.
const STORE_WAIT_MS_MAX: u64 = 2_000;
/// The wait before a partition that could not be acquired is asked for again, should nobody say that it is free now.
const ACQUIRE_WAIT_MS: u64 = 500;
/// A commit that was asked for and is not answered for good yet.
#[derive(Clone, Debug)]
struct PendingCommit {
    to: Offset,
    /// Events that it moves past, or dead letters that it settles.
    events: u32,
    mark: Option<Mark>,
    given_up_in_row: u32,
    with_effects: bool,
    /// Dead letters that it adds, and that it removes.
    letters_added: u64,
    letters_gone: u64,
    /// It sets an event aside by verdict.
    gives_up: bool,
    /// It settles dead letters and moves nothing.
    replays: bool,
    sent: bool,
}

impl PendingCommit {
    /// After a verdict nothing runs ahead: what comes next counts from what that commit stores.
    fn is_verdict(&self) -> bool {
        self.gives_up || self.mark.as_ref().is_some_and(|mark| *mark != Mark::Clear)
    }
}

/// An event whose attempts failed.
#[derive(Clone, Debug)]
struct Failed {
    at: Offset,
    failure: Failure,
}

impl Failed {
    fn of(mark: &Mark) -> Option<Self> {
        mark.failed().map(|(at, failure)| Self { at, failure: failure.clone() })
    }
}

/// The state machine of one partition of one group.
#[derive(Clone, Debug)]
pub struct Pump {
    settings: PumpSettings,
    phase: Phase,
    epoch: Epoch,
    /// The latest term that was told of, and whether we hold the partition in it. Within a term it is lost only once.
    told: (Epoch, bool),
    control: Control,
    draining: bool,

    committed: Offset,
    finished: Offset,
    fetched: Offset,
    head: Offset,
    /// Events in `finished..fetched`, which the driver holds. Offsets of other engines may have gaps: they are not counted by subtraction.
    held_events: u32,
    /// Events and batches that are finished and not in the commit under way.
    uncommitted_events: u32,
    uncommitted_batches: u32,
    /// When the first of them was finished.
    uncommitted_since: Option<Timestamp>,
    /// They must not wait for their time: an event among them was set aside, or their effects are too many to be held.
    commit_now: bool,
    /// Under manual commits: what the handler gave free.
    checkpoint: Offset,
    /// Under manual commits: what it has not given free is to be handed out again.
    start_over: bool,
    /// The store has refused what came of the events before this offset: until it is passed, each is committed alone.
    narrow_until: Offset,

    acquiring: bool,
    /// Somebody said that the partition is free, after it was asked for or while a wait is under way.
    free_told: bool,
    fetching: bool,
    /// Events in the call that is under way; 0 if there is none.
    call_events: u32,
    commit: Option<PendingCommit>,
    releasing: bool,
    rewind: bool,

    /// What the next commit stores about the event that failed; set by a verdict, and then no event is handed out.
    verdict: Option<Mark>,
    /// The event at `finished` is given up, and is to be taken off the partition as soon as the driver holds it.
    giving_up: Option<(Aside, Failure)>,
    /// Under manual commits: the event at this offset is given up, and those before it are handed out again first.
    given_up_at: Option<(Offset, Aside, Failure)>,
    /// Whether one that was given up is among what is not committed.
    uncommitted_gives_up: bool,
    /// A new version or a resume came while a verdict was on its way to the store: do not wait then.
    try_at_once: bool,
    /// The event that failed last, unless it is over with; as stored, and as it is now.
    failed_stored: Option<Failed>,
    failed: Option<Failed>,
    /// Different events that were given up since one was handled; as stored, and as it is now.
    given_up_in_row: (u32, u32),

    /// Dead letters in the store, and those that are not committed yet.
    letters: u64,
    uncommitted_letters: u64,
    /// Something may be asked of dead letters.
    letters_requested: bool,
    /// Requests known of when dead letters were seen to last.
    requests_seen: u64,
    replaying: bool,
    /// What is to be committed of it.
    replayed: Option<Replayed>,
    /// What the store refused of it.
    replay_refused: Option<String>,
    /// Dead letters handed out at once at the moment.
    replay_events: u32,
    /// Batches and dead letters take turns.
    replays_turn: bool,
    /// Events handed out at once at the moment: fewer than the settings say while a failing batch is being split.
    batch_events: u32,

    store_failures: u32,
    store_not_before: Option<Timestamp>,
    end: Option<End>,
    finish_told: bool,
}

impl Pump {
    /// A machine that begins by acquiring its partition.
    #[must_use]
    pub fn new(settings: PumpSettings) -> Self {
        Self {
            settings,
            phase: Phase::Acquiring,
            epoch: Epoch::default(),
            told: (Epoch::default(), true),
            control: Control::default(),
            draining: false,
            committed: Offset::default(),
            finished: Offset::default(),
            fetched: Offset::default(),
            head: Offset::default(),
            held_events: 0,
            uncommitted_events: 0,
            uncommitted_batches: 0,
            uncommitted_since: None,
            commit_now: false,
            checkpoint: Offset::default(),
            start_over: false,
            narrow_until: Offset::default(),
            acquiring: false,
            free_told: false,
            fetching: false,
            call_events: 0,
            commit: None,
            releasing: false,
            rewind: false,
            verdict: None,
            giving_up: None,
            given_up_at: None,
            uncommitted_gives_up: false,
            try_at_once: false,
            failed_stored: None,
            failed: None,
            given_up_in_row: (0, 0),
            letters: 0,
            uncommitted_letters: 0,
            letters_requested: false,
            requests_seen: 0,
            replaying: false,
            replayed: None,
            replay_refused: None,
            replay_events: settings.batch_events_max.max(1),
            replays_turn: true,
            batch_events: settings.batch_events_max.max(1),
            store_failures: 0,
            store_not_before: None,
            end: None,
            finish_told: false,
        }
    }

    /// The next thing to do at this time, if there is one. Ask until there is none, after every input and at
    /// [`Self::deadline`].
    pub fn next_action(&mut self, now: Timestamp) -> Option<Action> {
        if let Some(end) = self.end {
            return (!std::mem::replace(&mut self.finish_told, true)).then_some(Action::Finish(end));
        }
        if std::mem::take(&mut self.rewind) {
            return Some(Action::Rewind);
        }
        if let Phase::Retrying(at) | Phase::Held(at, _) = self.phase
            && now >= at
            && self.commit.is_none()
        {
            self.phase = Phase::Running;
        }
        if self.store_not_before.is_some_and(|at| now >= at) {
            self.store_not_before = None;
        }
        self.acquire()
            .or_else(|| self.start_over())
            .or_else(|| self.give_up(now))
            .or_else(|| self.commit_finished(now))
            .or_else(|| self.release())
            .or_else(|| self.replay())
            .or_else(|| self.fetch())
            .or_else(|| self.invoke())
    }

    /// When to ask for an action again, even if nothing happens until then: later than now. What is due and cannot be done
    /// yet waits for an input, or whoever asks would spin.
    #[must_use]
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let retry = if let Phase::Retrying(at) | Phase::Held(at, _) = self.phase { Some(at) } else { None };
        let commit = self.commit_at().filter(|_| self.commit.is_none());
        // A wait for the store comes first: what is due may depend on it.
        let waits = self.store_not_before.or_else(|| retry.into_iter().chain(commit).min());
        waits.filter(|at| *at > now)
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        if self.end.is_some() {
            return;
        }
        match input {
            Input::Acquired(claim) => self.acquired(now, claim),
            Input::NotAcquired => self.not_acquired(now),
            Input::Fetched { events, next } => self.fetched(now, events, next),
            Input::Invoked(invoked) => self.invoked(now, &invoked),
            Input::NoRoom => self.no_room(now),
            Input::Replayed(replayed) => self.replayed(now, replayed),
            Input::Committed => self.commit_stored(),
            Input::Fenced => self.finish(End::Fenced),
            Input::Refused { reason, chance } => self.refused(now, &reason, chance),
            Input::StoreFailed(request) => self.store_failed(now, request),
            Input::Released => self.finish(End::Drained),
            Input::Told { head, control, epoch, holder } => {
                self.head = self.head.max(head);
                self.controlled(control);
                self.told_of(epoch, holder);
            }
            Input::HandlerChanged => {
                // What the old version kept in its own memory is gone with it: the new one sees those events again.
                self.start_over |= self.settings.commit == CommitMode::Manual;
                self.given_up_at = None;
                self.try_again();
            }
            Input::Settings(settings) => {
                // What the handler has not given free may be in its memory alone: no other mode may commit it.
                let manual = |mode| mode == CommitMode::Manual;
                self.start_over |= manual(self.settings.commit) && !manual(settings.commit);
                if manual(settings.commit) && !manual(self.settings.commit) {
                    // What another mode was about to commit waits for nobody's leave.
                    self.checkpoint = self.finished;
                }
                self.settings = settings;
                self.batch_events = settings.batch_events_max.max(1);
                self.replay_events = self.batch_events;
                self.look_for_room();
            }
            Input::Drain => self.draining = true,
        }
    }

    /// Where the partition stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase {
            _ if self.end.is_some() => Phase::Ended,
            _ if self.draining => Phase::Draining,
            phase => phase,
        }
    }

    /// The offset that will be handed out next.
    #[must_use]
    pub fn position(&self) -> Offset {
        Offset(self.finished.0 + u64::from(self.call_events))
    }

    /// The offset that the store knows.
    #[must_use]
    pub fn committed(&self) -> Offset {
        self.committed
    }

    // --- What to do ---------------------------------------------------------------------------------------------

    fn acquire(&mut self) -> Option<Action> {
        if self.phase != Phase::Acquiring || self.acquiring {
            return None;
        }
        if self.draining {
            self.finish(End::Drained);
            self.finish_told = true;
            return Some(Action::Finish(End::Drained));
        }
        if self.store_not_before.is_some() {
            return None;
        }
        (self.acquiring, self.free_told) = (true, false);
        Some(Action::Acquire)
    }

    /// Commits come before anything else: they make room, and what is finished should not wait.
    fn commit_finished(&mut self, now: Timestamp) -> Option<Action> {
        // After a release nothing is ours to commit. What a late resume asked for is stored by whoever asked.
        if self.store_not_before.is_some() || self.releasing {
            return None;
        }
        if self.commit.is_none() {
            self.commit = self.next_commit(now);
        }
        let commit = self.commit.as_mut().filter(|commit| !commit.sent)?;
        commit.sent = true;
        Some(Action::Commit {
            from: self.committed,
            to: commit.to,
            mark: commit.mark.clone(),
            given_up_in_row: commit.given_up_in_row,
            with_effects: commit.with_effects,
        })
    }

    fn next_commit(&mut self, now: Timestamp) -> Option<PendingCommit> {
        if let Some(Replayed { settled, gone, .. }) = self.replayed.take() {
            return Some(PendingCommit {
                to: self.committed,
                events: settled,
                mark: None,
                given_up_in_row: self.given_up_in_row.0,
                with_effects: true,
                letters_added: 0,
                letters_gone: u64::from(gone),
                gives_up: false,
                replays: true,
                sent: false,
            });
        }
        let due = self.finished > self.committed && self.commit_at().is_some_and(|at| now >= at);
        if !due && self.verdict.is_none() {
            return None;
        }
        // Under manual commits a mark is stored without what the handler has not given free.
        let with_effects = due || self.settings.commit != CommitMode::Manual;
        let to = if with_effects { self.finished } else { self.committed };
        // A mark about an event further on stays.
        let passed = self.failed.as_ref().is_none_or(|failed| failed.at < to);
        let mark = self.verdict.take().or_else(|| passed.then_some(Mark::Clear));
        let mut commit = PendingCommit {
            to,
            events: 0,
            mark,
            given_up_in_row: self.given_up_in_row.1,
            with_effects,
            letters_added: 0,
            letters_gone: 0,
            gives_up: false,
            replays: false,
            sent: false,
        };
        if with_effects {
            commit.events = std::mem::take(&mut self.uncommitted_events);
            commit.letters_added = std::mem::take(&mut self.uncommitted_letters);
            commit.gives_up = std::mem::take(&mut self.uncommitted_gives_up);
            (self.uncommitted_batches, self.uncommitted_since, self.commit_now) = (0, None, false);
        }
        Some(commit)
    }

    /// When what is finished is to be committed; `None` if not by itself.
    fn commit_at(&self) -> Option<Timestamp> {
        let since = self.uncommitted_since?;
        match self.settings.commit {
            _ if self.commit_now => Some(since),
            CommitMode::AfterBatch | CommitMode::AfterEach => Some(since),
            CommitMode::Every(_) if self.draining || self.letters_requested || self.verdict.is_some() => Some(since),
            CommitMode::Every(_) if self.finished <= self.narrow_until => Some(since),
            CommitMode::Every(ms) => Some(since.plus_ms(ms)),
            CommitMode::Manual => (self.checkpoint == self.finished).then_some(since),
        }
    }

    /// Under manual commits: drops what the handler has not given free, to hand those events out again.
    fn start_over(&mut self) -> Option<Action> {
        if !self.start_over || self.commit.is_some() || self.releasing {
            return None;
        }
        self.start_over = false;
        if self.finished == self.checkpoint && self.call_events == 0 {
            return None;
        }
        let verdict = self.verdict.take();
        if let Some((aside, failure)) = self.giving_up.take() {
            self.given_up_at = Some((self.finished, aside, failure));
        }
        self.rewind_to_committed();
        (self.verdict, self.rewind) = (verdict, false);
        Some(Action::Rewind)
    }

    /// Takes an event that was given up off the partition. After the store refused what came of it, it is read again first.
    ///
    /// It is a commit point, unless under manual commits the handler has not given free what comes before: the event is
    /// committed with that then.
    fn give_up(&mut self, now: Timestamp) -> Option<Action> {
        if let Some((at, aside, failure)) = self.given_up_at.take() {
            match at == self.finished {
                true => self.giving_up = Some((aside, failure)),
                false => self.given_up_at = Some((at, aside, failure)).filter(|(at, ..)| *at > self.finished),
            }
        }
        if self.held_events == 0 || self.call_events > 0 || self.commit.is_some() {
            return None;
        }
        let (aside, failure) = self.giving_up.take()?;
        let waits = self.settings.commit == CommitMode::Manual && self.finished > self.checkpoint;
        self.held_events -= 1;
        self.finished = self.finished.next();
        self.fetched = self.fetched.max(self.finished);
        self.uncommitted_events += 1;
        self.uncommitted_letters += u64::from(aside != Aside::Skip);
        self.uncommitted_since.get_or_insert(now);
        self.uncommitted_gives_up = true;
        if !waits {
            (self.checkpoint, self.commit_now) = (self.finished, true);
        }
        Some(Action::SetAside { aside, failure })
    }

    fn release(&mut self) -> Option<Action> {
        let busy = self.call_events > 0 || self.commit.is_some() || self.fetching || self.releasing || self.replaying;
        let busy = busy || self.giving_up.is_some() || self.replayed.is_some();
        let ours = self.phase != Phase::Acquiring;
        if !self.draining || !ours || busy || self.store_not_before.is_some() {
            return None;
        }
        self.releasing = true;
        Some(Action::Release)
    }

    /// Sees to dead letters, when nothing else is under way.
    fn replay(&mut self) -> Option<Action> {
        if !self.may_replay() || self.replaying || self.store_not_before.is_some() {
            return None;
        }
        let quiet = self.call_events == 0 && self.commit.is_none() && self.verdict.is_none();
        let idle = self.held_events == 0 || self.phase != Phase::Running;
        // Under manual commits the handler's own pace is waited for, unless there is nothing more for it to do.
        let quiet = quiet && (self.finished == self.committed || (idle && self.fetched >= self.head && !self.fetching));
        if !quiet || self.giving_up.is_some() || !(self.replays_turn || idle) {
            return None;
        }
        if self.finished > self.committed {
            // Only under manual commits. What is replayed must not build on what may never be committed.
            self.start_over = true;
            return self.start_over();
        }
        self.replaying = true;
        self.requests_seen = self.control.requests;
        let refused = self.replay_refused.take();
        let events = if refused.is_some() { 1 } else { self.replay_events };
        Some(Action::Replay { events, refused })
    }

    /// Dead letters lie behind the position: they do not wait for an event that is tried again.
    fn may_replay(&self) -> bool {
        let working = matches!(self.phase, Phase::Running | Phase::Retrying(_) | Phase::Held(..));
        self.letters_requested && working && !self.draining && !self.control.paused && !self.rewind
    }

    /// One batch is read ahead of the one that is being handled.
    fn fetch(&mut self) -> Option<Action> {
        let batch = self.settings.batch_events_max.max(1);
        let may_fetch = self.may_work() || (self.giving_up.is_some() && !self.rewind);
        let wanted = may_fetch && self.held_events - self.call_events < batch && self.fetched < self.head;
        if !wanted || self.fetching || self.store_not_before.is_some() {
            return None;
        }
        self.fetching = true;
        Some(Action::Fetch { from: self.fetched, events: batch })
    }

    fn invoke(&mut self) -> Option<Action> {
        let ready = self.may_work() && self.phase == Phase::Running && self.verdict.is_none();
        let ready = ready && self.giving_up.is_none() && !self.replaying && !self.start_over;
        if !ready || self.call_events > 0 || self.held_events == 0 || self.store_not_before.is_some() {
            return None;
        }
        let manual = self.settings.commit == CommitMode::Manual;
        if self.may_replay() && self.replays_turn && (!manual || self.finished == self.checkpoint) {
            return None;
        }
        if self.commit.as_ref().is_some_and(|commit| commit.is_verdict() || commit.replays) {
            return None;
        }
        let waits = match self.settings.commit {
            CommitMode::AfterBatch => self.commit.is_some() && self.uncommitted_batches >= self.settings.commit_ahead,
            CommitMode::AfterEach => self.commit.is_some(),
            // What may be committed is, before more is laid on top of it.
            CommitMode::Every(_) => self.commit_now,
            CommitMode::Manual => self.finished > self.committed && self.commit_at().is_some(),
        };
        if waits {
            return None;
        }
        let before_given_up = self.given_up_at.as_ref().map_or(u64::MAX, |(at, ..)| at.since(self.finished));
        let before_given_up = u32::try_from(before_given_up).unwrap_or(u32::MAX).max(1);
        self.call_events = self.held_events.min(self.batch_events).min(before_given_up);
        let attempt = self.failure_at(self.finished).map_or(0, |failure| failure.attempts).saturating_add(1);
        let breaker = self.settings.on_failure.breaker;
        let tries_one = breaker.is_some_and(|breaker| self.given_up_in_row.1.saturating_add(1) >= breaker.failures);
        let calls = if tries_one || self.settings.commit == CommitMode::AfterEach { 1 } else { u32::MAX };
        let room = self.room();
        Some(Action::Invoke { events: self.call_events, calls, room, attempt })
    }

    /// How many more events may be set aside.
    fn room(&self) -> u64 {
        let under_way = self.commit.as_ref().map_or(0, |commit| commit.letters_added);
        self.settings.letters_max.saturating_sub(self.letters + under_way + self.uncommitted_letters)
    }

    /// A partition that is full goes on as soon as it is not.
    fn look_for_room(&mut self) {
        if matches!(self.phase, Phase::Held(_, Hold::Full)) && self.room() > 0 {
            self.phase = Phase::Running;
        }
    }

    /// Whether new events may be read and handed out.
    fn may_work(&self) -> bool {
        let held = matches!(self.phase, Phase::Running | Phase::Retrying(_) | Phase::Held(..));
        held && !self.draining && !self.control.paused && !self.rewind
    }

    // --- What happened ------------------------------------------------------------------------------------------

    fn acquired(&mut self, now: Timestamp, claim: Claim) {
        self.acquiring = false;
        self.store_answered();
        self.epoch = claim.epoch;
        self.control = claim.control;
        (self.committed, self.finished, self.fetched) = (claim.committed, claim.committed, claim.committed);
        self.checkpoint = claim.committed;
        self.head = self.head.max(claim.head);
        self.failed = Failed::of(&claim.mark);
        self.failed_stored.clone_from(&self.failed);
        self.given_up_in_row = (claim.given_up_in_row, claim.given_up_in_row);
        self.letters = claim.letters;
        self.letters_requested = claim.letters_requested;
        // A time further away than any wait can be comes from a clock that was wrong.
        let latest = now.plus_ms(self.settings.on_failure.longest_wait_ms());
        self.phase = match claim.mark {
            Mark::Clear => Phase::Running,
            Mark::Retry { next, .. } => Phase::Retrying(next.min(latest)),
            Mark::Hold { until, why, .. } => Phase::Held(until.min(latest), why),
            Mark::Stop { .. } => Phase::Stopped,
        };
        self.look_for_room();
        self.look_at_term();
    }

    /// Whoever holds it is asked to let go. A hint says when it has; the wait is for hints that get lost.
    fn not_acquired(&mut self, now: Timestamp) {
        self.acquiring = false;
        self.store_answered();
        if !std::mem::take(&mut self.free_told) {
            self.store_not_before = Some(now.plus_ms(ACQUIRE_WAIT_MS));
        }
    }

    fn told_of(&mut self, epoch: Epoch, holder: Holder) {
        let ours = holder == Holder::Us;
        self.told = match self.told {
            (known, held) if known == epoch => (known, held && ours),
            (known, held) if known > epoch => (known, held),
            _ => (epoch, ours),
        };
        if self.phase == Phase::Acquiring && holder == Holder::Nobody {
            self.free_told = self.acquiring;
            if !self.acquiring && self.store_failures == 0 {
                self.store_not_before = None;
            }
        }
        self.look_at_term();
    }

    /// A partition that waits writes nothing, and would never be told by a fence that it is somebody else's.
    fn look_at_term(&mut self) {
        let (epoch, ours) = self.told;
        let taken = epoch > self.epoch || (epoch == self.epoch && !ours);
        // While it is being given back, nobody holding it is what we asked for.
        if self.phase != Phase::Acquiring && taken && !self.releasing {
            self.finish(End::Fenced);
        }
    }

    fn fetched(&mut self, now: Timestamp, events: u32, next: Offset) {
        self.fetching = false;
        if events == 0 {
            // Somebody said that there is more, and this read did not see it yet. Asking again at once would spin.
            return self.wait_for_store(now);
        }
        self.store_answered();
        self.held_events += events;
        self.fetched = self.fetched.max(next);
    }

    fn invoked(&mut self, now: Timestamp, invoked: &Invoked) {
        let Invoked { done, handled, parked, next, outcome, located, checkpoint, full, chance } = invoked;
        let left = std::mem::take(&mut self.call_events).saturating_sub(*done);
        let gave_all_free = self.checkpoint == self.finished;
        if *done > 0 {
            self.finished = *next;
            self.held_events = self.held_events.saturating_sub(*done);
            self.uncommitted_events += done;
            self.uncommitted_batches += 1;
            self.uncommitted_letters += u64::from(*parked);
            self.uncommitted_since.get_or_insert(now);
            // What waits behind its key is stored at once, unless the handler may have something before it in its memory.
            self.commit_now |= self.settings.commit != CommitMode::Manual && (*full || *parked > 0);
            // What was only passed over or parked needs nobody's leave to be committed.
            if *checkpoint || (*handled == 0 && gave_all_free) {
                self.checkpoint = self.finished;
            }
        }
        if *handled > 0 {
            self.given_up_in_row.1 = 0;
        }
        self.replays_turn = true;
        // What the handler kept in its own memory of events it has not given free went with the instance.
        self.start_over |= self.settings.commit == CommitMode::Manual && !(outcome.keeps_instance() && *located);
        match outcome {
            Outcome::Done if *done > 0 => {}
            Outcome::Interrupted if self.draining => {}
            // Nothing came of the call, and nothing would come of the same one at once.
            Outcome::Done | Outcome::Interrupted | Outcome::StoreUnavailable(_) => self.wait_for_store(now),
            // The batch failed somewhere: halves of it, on fresh instances, find out where. That costs no attempt.
            _ if !located && left > 1 => self.batch_events = left / 2,
            failure => self.judge(now, failure, *chance),
        }
    }

    fn judge(&mut self, now: Timestamp, outcome: &Outcome, chance: f64) {
        let at = self.finished;
        let failure = Failure::after(self.failure_at(at), outcome, now);
        self.failed = Some(Failed { at, failure: failure.clone() });
        let circumstances = Circumstances {
            attempts: failure.attempts,
            given_up_in_row: self.given_up_in_row.1,
            has_room: self.room() > 0,
            now,
            chance,
        };
        let mark = match verdict(&self.settings.on_failure, outcome, circumstances) {
            Verdict::SetAside(aside) => {
                self.given_up_in_row.1 = self.given_up_in_row.1.saturating_add(1);
                self.giving_up = Some((aside, failure));
                return;
            }
            Verdict::RetryAt(next) => Mark::Retry { at, failure, next },
            Verdict::HoldUntil(until, why) => Mark::Hold { at, failure, until, why },
            Verdict::Stop => Mark::Stop { at, failure },
        };
        self.verdict = Some(mark);
    }

    /// An event waits behind its key, and the partition holds all the dead letters it may: nothing can pass it.
    fn no_room(&mut self, now: Timestamp) {
        self.call_events = 0;
        let at = self.finished;
        let failure = self.failure_at(at).cloned().unwrap_or_else(|| Failure::parked(now));
        self.failed = Some(Failed { at, failure: failure.clone() });
        self.verdict = Some(Mark::Hold { at, failure, until: now.plus_ms(FULL_WAIT_MS), why: Hold::Full });
    }

    fn replayed(&mut self, now: Timestamp, replayed: Replayed) {
        self.replaying = false;
        self.replays_turn = false;
        let Replayed { found, called, settled, outcome, .. } = &replayed;
        if *found == 0 {
            self.store_answered();
            // Unless something was asked while they were being read.
            self.letters_requested = self.control.requests > self.requests_seen;
        } else if *settled > 0 {
            self.store_answered();
            self.replay_events = self.replay_events.saturating_mul(2).min(self.settings.batch_events_max.max(1));
            self.replayed = Some(replayed);
        } else if outcome.is_failure() && *called > 1 {
            self.replays_turn = true;
            self.replay_events = called / 2;
        } else if !(self.draining && *outcome == Outcome::Interrupted) {
            self.wait_for_store(now);
        }
    }

    fn commit_stored(&mut self) {
        self.store_answered();
        let Some(commit) = self.commit.take() else { return };
        self.committed = commit.to;
        self.checkpoint = self.checkpoint.max(self.committed);
        self.given_up_in_row.0 = commit.given_up_in_row;
        self.letters = (self.letters + commit.letters_added).saturating_sub(commit.letters_gone);
        if let Some(mark) = &commit.mark {
            self.failed_stored = Failed::of(mark);
            self.failed = Failed::of(mark).or_else(|| self.failed.take().filter(|failed| failed.at >= self.committed));
        }
        // What failed as a large batch may do well again once the event that was at fault is past.
        if commit.events > 0 && !commit.replays {
            self.batch_events = self.batch_events.saturating_mul(2).min(self.settings.batch_events_max.max(1));
        }
        match commit.mark {
            None | Some(Mark::Clear) => {}
            Some(Mark::Retry { next, .. }) => self.phase = Phase::Retrying(next),
            Some(Mark::Hold { until, why, .. }) => self.phase = Phase::Held(until, why),
            Some(Mark::Stop { .. }) => self.phase = Phase::Stopped,
        }
        self.look_for_room();
        if commit.mark.is_some_and(|mark| mark != Mark::Clear) && std::mem::take(&mut self.try_at_once) {
            self.try_again();
        }
    }

    /// The data of a range of events will never be stored. Which event is at fault is found as in a batch that failed
    /// without saying where; alone, it has failed like any other.
    fn refused(&mut self, now: Timestamp, reason: &str, chance: f64) {
        self.store_answered();
        let Some(commit) = self.commit.take() else { return };
        let events = commit.events.max(1);
        let reason = format!("the store refused the effects: {reason}");
        self.rewind_to_committed();
        if commit.replays {
            self.replays_turn = true;
            match events {
                1 => self.replay_refused = Some(reason),
                _ => self.replay_events = (events / 2).min(self.replay_events),
            }
        } else if events > 1 && self.settings.commit != CommitMode::Manual {
            self.batch_events = (events / 2).min(self.batch_events);
            self.narrow_until = commit.to;
        } else {
            // Under manual commits the range is what the handler made it: its first event answers for it.
            self.judge(now, &Outcome::Transient(reason), chance);
        }
    }

    fn rewind_to_committed(&mut self) {
        (self.finished, self.fetched) = (self.committed, self.committed);
        (self.held_events, self.uncommitted_events, self.uncommitted_batches) = (0, 0, 0);
        (self.uncommitted_since, self.commit_now, self.checkpoint) = (None, false, self.committed);
        (self.uncommitted_letters, self.uncommitted_gives_up) = (0, false);
        self.given_up_in_row.1 = self.given_up_in_row.0;
        self.failed.clone_from(&self.failed_stored);
        (self.fetching, self.call_events, self.replaying) = (false, 0, false);
        (self.verdict, self.giving_up, self.replayed) = (None, None, None);
        self.rewind = true;
    }

    fn store_failed(&mut self, now: Timestamp, request: Request) {
        match request {
            Request::Acquire => self.acquiring = false,
            Request::Fetch => self.fetching = false,
            Request::Replay => self.replaying = false,
            Request::Commit => {
                if let Some(commit) = &mut self.commit {
                    commit.sent = false;
                }
            }
            Request::Release => self.releasing = false,
        }
        self.wait_for_store(now);
    }

    fn wait_for_store(&mut self, now: Timestamp) {
        let wait_ms = STORE_WAIT_MS_MIN.saturating_mul(1 << self.store_failures.min(16)).min(STORE_WAIT_MS_MAX);
        self.store_failures = self.store_failures.saturating_add(1);
        self.store_not_before = Some(now.plus_ms(wait_ms));
    }

    fn store_answered(&mut self) {
        self.store_failures = 0;
    }

    fn controlled(&mut self, control: Control) {
        let resumed = control.resumes > self.control.resumes;
        // A hint may be older than what was found when the partition was acquired.
        self.letters_requested |= control.requests > self.control.requests;
        let (resumes, requests) =
            (control.resumes.max(self.control.resumes), control.requests.max(self.control.requests));
        self.control = Control { paused: control.paused, resumes, requests };
        if resumed {
            (self.failed, self.failed_stored, self.given_up_at) = (None, None, None);
            self.given_up_in_row.1 = 0;
            self.try_again();
        }
    }

    /// Ends a wait and a stop. A stop that is stored is cleared in the store first, or a restart would bring it back.
    fn try_again(&mut self) {
        match self.phase {
            Phase::Retrying(_) | Phase::Held(..) => self.phase = Phase::Running,
            Phase::Stopped => {
                self.phase = Phase::Running;
                (self.failed, self.failed_stored) = (None, None);
                self.verdict = Some(Mark::Clear);
            }
            Phase::Running => {
                let under_way = self.commit.as_ref().and_then(|commit| commit.mark.as_ref());
                self.try_at_once = under_way.is_some_and(|mark| *mark != Mark::Clear) || self.verdict.is_some();
            }
            Phase::Acquiring | Phase::Draining | Phase::Ended => {}
        }
    }

    fn failure_at(&self, offset: Offset) -> Option<&Failure> {
        self.failed.as_ref().filter(|failed| failed.at == offset).map(|failed| &failed.failure)
    }

    fn finish(&mut self, end: End) {
        self.end = Some(end);
    }
}

#[cfg(test)]
mod tests;
