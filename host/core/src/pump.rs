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

use crate::{
    Claim, Control, Epoch, FailurePolicy, Mark, Offset, Outcome, RETRY_AFTER_MS_MAX, Timestamp, Verdict, verdict,
};

/// The first wait after the store did not answer; doubles up to [`STORE_WAIT_MS_MAX`].
const STORE_WAIT_MS_MIN: u64 = 20;
/// The longest wait between two tries at the store.
const STORE_WAIT_MS_MAX: u64 = 2_000;
/// The wait before a partition that could not be acquired is asked for again, should nobody say that it is free now.
const ACQUIRE_WAIT_MS: u64 = 500;
/// A reason is kept in a row that is rewritten often, and shown in a table: this much of it, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// What a group's configuration says about its pumps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PumpSettings {
    /// Events handed to the handler at once, at most; at least 1.
    pub batch_events_max: u32,
    /// Batches that may be handled while earlier ones are being committed.
    pub commit_ahead: u32,
    /// What to do with an event that fails.
    pub on_failure: FailurePolicy,
}

/// What the driver is to do next. It answers each with an [`Input`], some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the partition: answered by `Acquired`, `NotAcquired` or `StoreFailed`.
    Acquire,
    /// Read up to `events` events from `from` on: answered by `Fetched` or `StoreFailed`.
    Fetch {
        /// The first offset.
        from: Offset,
        /// How many at most.
        events: u32,
    },
    /// Hand the first `events` of those held to the handler: answered by `Invoked`.
    Invoke {
        /// How many.
        events: u32,
        /// Which delivery this is for the first of them; for the others it is the first.
        attempt: u32,
    },
    /// Commit what was handled from `from` up to `to`: answered by `Committed`, `Fenced`, `Refused` or `StoreFailed`.
    /// After `StoreFailed` the same commit is asked for again, to the letter: the first may have happened.
    Commit {
        /// The position as the store should have it.
        from: Offset,
        /// The new one.
        to: Offset,
        /// What to store about the event at `to`.
        mark: Mark,
    },
    /// Drop the events and effects that are held, the state overlay, and the instance if it is in a call: nothing past
    /// `committed` ever happened. The fetch and the call that are under way are broken off and not answered; nor is this.
    Rewind,
    /// Give the partition back: answered by `Released` or `StoreFailed`.
    Release,
    /// Nothing more will come of this machine.
    Finish(End),
}

/// Why a machine finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to drain; everything handled is committed and the partition is released.
    Drained,
    /// Somebody else acquired the partition. Nothing that was under way is kept.
    Fenced,
}

/// Which request a store did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `Action::Acquire`.
    Acquire,
    /// `Action::Fetch`.
    Fetch,
    /// `Action::Commit`.
    Commit,
    /// `Action::Release`.
    Release,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The partition is ours.
    Acquired(Claim),
    /// It is not, yet: its owner has not let go of it, or it is meant for somebody else.
    NotAcquired,
    /// So many events from the asked offset on were read, and the next one to read is `next`. None: the head is there.
    Fetched {
        /// How many.
        events: u32,
        /// The offset after the last one; the asked one if there was none.
        next: Offset,
    },
    /// A call ended.
    Invoked {
        /// How many events of the batch were handled.
        handled: u32,
        /// The offset after the last of them; that of the first of the batch if there was none.
        next: Offset,
        /// How it ended.
        outcome: Outcome,
        /// Whether the event at `next` is known to be the one that failed.
        located: bool,
        /// Uniform in 0 to 1.
        chance: f64,
    },
    /// The commit under way is stored.
    Committed,
    /// The lease is not the present one.
    Fenced,
    /// The store will never take the data of the commit under way.
    Refused {
        /// Why.
        reason: String,
        /// Uniform in 0 to 1.
        chance: f64,
    },
    /// The store did not answer; the request may have been carried out.
    StoreFailed(Request),
    /// The partition is given back.
    Released,
    /// What others found out about the partition.
    Told {
        /// Its head is at least here.
        head: Offset,
        /// What is asked of it from outside.
        control: Control,
        /// Its term. A later one than ours says that somebody else acquired it.
        epoch: Epoch,
        /// Who holds it in that term. In our term anybody but us says that it was taken from us.
        holder: Holder,
    },
    /// A new version of the handler takes over from the next batch on.
    HandlerChanged,
    /// The group's settings changed.
    Settings(PumpSettings),
    /// Finish what is under way, commit, release, end.
    Drain,
}

/// Who holds a partition, as a hint tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: it was released, or taken away.
    Nobody,
    /// This host.
    Us,
    /// Another one; or nothing is known yet.
    #[default]
    Other,
}

/// Where a partition stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not ours yet.
    Acquiring,
    /// Events are handled as they come.
    Running,
    /// The event at the position failed; it is tried again at this time.
    Retrying(Timestamp),
    /// The event at the position failed and waits for somebody to resume the partition.
    Stopped,
    /// It ends.
    Draining,
    /// It has ended.
    Ended,
}

/// A commit that was asked for and is not answered for good yet.
#[derive(Clone, Debug)]
struct PendingCommit {
    to: Offset,
    events: u32,
    mark: Mark,
    sent: bool,
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

    acquiring: bool,
    /// Somebody said that the partition is free, after it was asked for or while a wait is under way.
    free_told: bool,
    fetching: bool,
    /// Events in the call that is under way; 0 if there is none.
    call_events: u32,
    commit: Option<PendingCommit>,
    releasing: bool,
    rewind: bool,

    /// What the next commit stores about the event at `finished`; set by a verdict, and then no event is handed out.
    verdict: Option<Mark>,
    /// A new version or a resume came while a verdict was on its way to the store: do not wait then.
    try_at_once: bool,
    /// The event that failed last, and its failed attempts so far.
    failed: (Offset, u32),
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
            acquiring: false,
            free_told: false,
            fetching: false,
            call_events: 0,
            commit: None,
            releasing: false,
            rewind: false,
            verdict: None,
            try_at_once: false,
            failed: (Offset::default(), 0),
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
        if let Phase::Retrying(at) = self.phase
            && now >= at
            && self.commit.is_none()
        {
            self.phase = Phase::Running;
        }
        if self.store_not_before.is_some_and(|at| now >= at) {
            self.store_not_before = None;
        }
        self.acquire()
            .or_else(|| self.commit_finished())
            .or_else(|| self.release())
            .or_else(|| self.fetch())
            .or_else(|| self.invoke())
    }

    /// When to ask for an action again, even if nothing happens until then.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let retry = if let Phase::Retrying(at) = self.phase { Some(at) } else { None };
        // A wait for the store comes first: a retry that is due may depend on it.
        self.store_not_before.or(retry)
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
            Input::Invoked { handled, next, outcome, located, chance } => {
                self.invoked(now, handled, next, &outcome, located, chance);
            }
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
            Input::HandlerChanged => self.try_again(),
            Input::Settings(settings) => {
                self.settings = settings;
                self.batch_events = settings.batch_events_max.max(1);
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
    fn commit_finished(&mut self) -> Option<Action> {
        // After a release nothing is ours to commit. What a late resume asked for is stored by whoever asked.
        if self.store_not_before.is_some() || self.releasing {
            return None;
        }
        if self.commit.is_none() && (self.finished > self.committed || self.verdict.is_some()) {
            self.commit = Some(PendingCommit {
                to: self.finished,
                events: std::mem::take(&mut self.uncommitted_events),
                mark: self.verdict.take().unwrap_or_default(),
                sent: false,
            });
            self.uncommitted_batches = 0;
        }
        let commit = self.commit.as_mut().filter(|commit| !commit.sent)?;
        commit.sent = true;
        Some(Action::Commit { from: self.committed, to: commit.to, mark: commit.mark.clone() })
    }

    fn release(&mut self) -> Option<Action> {
        let busy = self.call_events > 0 || self.commit.is_some() || self.fetching || self.releasing;
        let ours = self.phase != Phase::Acquiring;
        if !self.draining || !ours || busy || self.store_not_before.is_some() {
            return None;
        }
        self.releasing = true;
        Some(Action::Release)
    }

    /// One batch is read ahead of the one that is being handled.
    fn fetch(&mut self) -> Option<Action> {
        let batch = self.settings.batch_events_max.max(1);
        let wanted = self.may_work() && self.held_events - self.call_events < batch && self.fetched < self.head;
        if !wanted || self.fetching || self.store_not_before.is_some() {
            return None;
        }
        self.fetching = true;
        Some(Action::Fetch { from: self.fetched, events: batch })
    }

    fn invoke(&mut self) -> Option<Action> {
        let ready = self.may_work() && self.phase == Phase::Running && self.verdict.is_none();
        if !ready || self.call_events > 0 || self.held_events == 0 || self.store_not_before.is_some() {
            return None;
        }
        if let Some(commit) = &self.commit {
            // After a verdict nothing runs ahead: the next attempt counts from what that commit stores.
            let failed = commit.mark != Mark::Clear;
            if failed || self.uncommitted_batches >= self.settings.commit_ahead {
                return None;
            }
        }
        self.call_events = self.held_events.min(self.batch_events);
        let attempt = self.attempts_at(self.finished).saturating_add(1);
        Some(Action::Invoke { events: self.call_events, attempt })
    }

    /// Whether new events may be read and handed out.
    fn may_work(&self) -> bool {
        let held = matches!(self.phase, Phase::Running | Phase::Retrying(_));
        held && !self.draining && !self.control.paused && !self.rewind
    }

    // --- What happened ------------------------------------------------------------------------------------------

    fn acquired(&mut self, now: Timestamp, claim: Claim) {
        self.acquiring = false;
        self.store_answered();
        self.epoch = claim.epoch;
        self.control = claim.control;
        (self.committed, self.finished, self.fetched) = (claim.committed, claim.committed, claim.committed);
        self.head = self.head.max(claim.head);
        self.failed = (claim.committed, claim.mark.attempts());
        self.phase = match claim.mark {
            Mark::Clear => Phase::Running,
            // A time further away than any wait can be comes from a clock that was wrong.
            Mark::Retry { next, .. } => Phase::Retrying(next.min(now.plus_ms(self.longest_wait_ms()))),
            Mark::Stop { .. } => Phase::Stopped,
        };
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

    fn invoked(&mut self, now: Timestamp, handled: u32, next: Offset, outcome: &Outcome, located: bool, chance: f64) {
        let left = std::mem::take(&mut self.call_events).saturating_sub(handled);
        if handled > 0 {
            self.finished = next;
            self.held_events -= handled.min(self.held_events);
            self.uncommitted_events += handled;
            self.uncommitted_batches += 1;
        }
        match outcome {
            Outcome::Done if handled > 0 => {}
            Outcome::Interrupted if self.draining => {}
            // Nothing came of the call, and nothing would come of the same one at once.
            Outcome::Done | Outcome::Interrupted | Outcome::StoreUnavailable(_) => self.wait_for_store(now),
            // The batch failed somewhere: halves of it, on fresh instances, find out where. That costs no attempt.
            _ if !located && left > 1 => self.batch_events = left / 2,
            failure => self.judge(now, failure, chance),
        }
    }

    fn judge(&mut self, now: Timestamp, failure: &Outcome, chance: f64) {
        let attempts = self.attempts_at(self.finished).saturating_add(1);
        self.failed = (self.finished, attempts);
        let reason = shortened(failure.to_string());
        self.verdict = Some(match verdict(&self.settings.on_failure, attempts, failure, now, chance) {
            Verdict::RetryAt(next) => Mark::Retry { attempts, next, reason },
            Verdict::Stop => Mark::Stop { attempts, reason },
        });
    }

    fn commit_stored(&mut self) {
        self.store_answered();
        let Some(commit) = self.commit.take() else { return };
        self.committed = commit.to;
        // What failed as a large batch may do well again once the event that was at fault is past.
        if commit.events > 0 {
            self.batch_events = self.batch_events.saturating_mul(2).min(self.settings.batch_events_max.max(1));
        }
        match commit.mark {
            Mark::Clear => return,
            Mark::Retry { next, .. } => self.phase = Phase::Retrying(next),
            Mark::Stop { .. } => self.phase = Phase::Stopped,
        }
        if std::mem::take(&mut self.try_at_once) {
            self.try_again();
        }
    }

    /// The data of a range of events will never be stored. Which event is at fault is found as in a batch that failed
    /// without saying where; alone, it has failed like any other.
    fn refused(&mut self, now: Timestamp, reason: &str, chance: f64) {
        self.store_answered();
        let Some(commit) = self.commit.take() else { return };
        let events = commit.events.max(1);
        self.rewind_to_committed();
        if events > 1 {
            self.batch_events = (events / 2).min(self.batch_events);
        } else {
            self.judge(now, &Outcome::Transient(format!("the store refused the effects: {reason}")), chance);
        }
    }

    fn rewind_to_committed(&mut self) {
        (self.finished, self.fetched) = (self.committed, self.committed);
        (self.held_events, self.uncommitted_events, self.uncommitted_batches) = (0, 0, 0);
        (self.fetching, self.call_events) = (false, 0);
        self.verdict = None;
        self.rewind = true;
    }

    fn store_failed(&mut self, now: Timestamp, request: Request) {
        match request {
            Request::Acquire => self.acquiring = false,
            Request::Fetch => self.fetching = false,
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
        self.control = Control { resumes: control.resumes.max(self.control.resumes), ..control };
        if resumed {
            self.failed.1 = 0;
            self.try_again();
        }
    }

    /// Ends a wait and a stop. A stop that is stored is cleared in the store first, or a restart would bring it back.
    fn try_again(&mut self) {
        match self.phase {
            Phase::Retrying(_) => self.phase = Phase::Running,
            Phase::Stopped => {
                self.phase = Phase::Running;
                self.failed.1 = 0;
                self.verdict = Some(Mark::Clear);
            }
            Phase::Running => {
                let under_way = self.commit.as_ref().is_some_and(|commit| commit.mark != Mark::Clear);
                self.try_at_once = under_way || self.verdict.is_some();
            }
            Phase::Acquiring | Phase::Draining | Phase::Ended => {}
        }
    }

    fn attempts_at(&self, offset: Offset) -> u32 {
        if self.failed.0 == offset { self.failed.1 } else { 0 }
    }

    fn longest_wait_ms(&self) -> u64 {
        match self.settings.on_failure {
            FailurePolicy::Retry { backoff, .. } => backoff.longest_ms().max(RETRY_AFTER_MS_MAX),
            FailurePolicy::Stop => RETRY_AFTER_MS_MAX,
        }
    }

    fn finish(&mut self, end: End) {
        self.end = Some(end);
    }
}

fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let mut end = REASON_BYTES_MAX;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests;
