//! Every order of events, at small size: how partitions change hands, checked by an exhaustive search.
//!
//! A model of the store and of two or three hosts that share one or two partitions. The decisions are those of the real
//! [`Observer`] and of the real [`assign`]; the store's rules are written down here once more, short enough to be read
//! beside the engines. Steps are what can happen between two moments at which something could differ: a request leaves, it
//! arrives, its answer arrives, a host looks, a host carries out what it concluded from a look that may be old by then.
//! Each kind of fault has a budget. A host's impatience with a request is one of them: the request that it gave up stays
//! on its way and arrives at any later time, or never.
//!
//! Of every step from every state:
//!
//! * an epoch is given out once, epochs grow, and a partition is taken from nobody who did not let go or was given up;
//! * a commit passes only from the host that was given the present epoch, and only for the next event: none is effective
//!   twice, none is passed over, and nobody is told that something is stored that is not;
//! * nobody is given up for a lock that it did not lose by a fault of its own, nor for silence if it was heard of: a restart
//!   of the store costs nobody its membership;
//! * targets that are written fit the members of that very moment.
//!
//! And from a sample of states: when faults end and everybody runs, the hosts that live come to own all partitions,
//! balanced within one, all events are handled, and then nothing moves any more.
//!
//! That the model would notice is checked as well: each of [`BROKEN`] leaves one rule out, and is caught. Outside of the
//! store, this was caught by hand: an observer that gives a member up and shares out what it held in one look. The rule
//! that a repeated commit is answered like the first is not among them: without it nothing breaks, an owner only has to
//! acquire again.
//!
//! Left out: what a store keeps besides positions, members that are given up in one of several groups, clocks.
#![allow(clippy::print_stdout, reason = "how much was searched is worth knowing")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use pelton_core::{
    Candidate, Decision, Expelled, GroupSeen, HostSeen, LOCK_GRACE_MS, LockSeen, MemberSeen, Observer, SeatSeen,
    Session, Survey, Timestamp, assign,
};

const HOSTS_MAX: usize = 3;
const SEATS_MAX: usize = 2;

/// A rule that is left out, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    AcquireWhileOwned,
    AcquireForOldRegistration,
    AcquireWithoutNewEpoch,
    CommitWithoutEpoch,
    CommitWithoutOwner,
    CommitWithoutPosition,
    ReleaseWithoutEpoch,
    ExpelWithoutIncarnation,
    ExpelWithoutHeartbeat,
    AssignWithoutGeneration,
    RestartLooksLikeDeath,
    RestartForgivesNobody,
    StrayOwnershipIsKept,
}

/// All of them; with how many partitions and which faults it shows; and what the model says.
const BROKEN: [(Broken, usize, Faults, &str); 13] = [
    (Broken::AcquireWhileOwned, 2, faults(0), "was robbed"),
    (Broken::AcquireForOldRegistration, 1, faults(1), "went to a host that is not registered"),
    (Broken::AcquireWithoutNewEpoch, 1, faults(0), "was given out twice"),
    (Broken::CommitWithoutEpoch, 1, faults(1), "passed under another epoch or owner"),
    (Broken::CommitWithoutOwner, 1, faults(1), "passed under another epoch or owner"),
    (Broken::CommitWithoutPosition, 1, faults(1), "is effective twice"),
    (Broken::ReleaseWithoutEpoch, 1, faults(1), "was released under another epoch"),
    (Broken::ExpelWithoutIncarnation, 1, faults(1), "was given up"),
    (Broken::ExpelWithoutHeartbeat, 1, faults(1), "was given up"),
    (Broken::AssignWithoutGeneration, 1, faults(1), "do not fit the members"),
    (Broken::RestartLooksLikeDeath, 1, faults(1), "was given up"),
    (Broken::RestartForgivesNobody, 1, faults(1), "was given up"),
    (Broken::StrayOwnershipIsKept, 2, IMPATIENCE, "rest"),
];

/// One request is given up, and is on its way all the same.
const IMPATIENCE: Faults = Faults { all: 1, impatience: 1, ..NO_FAULTS };
const NO_FAULTS: Faults = Faults { all: 0, crash: 0, start: 0, pause: 0, cut: 0, restart: 0, impatience: 0, stop: 0 };

/// How many faults of each kind may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Faults {
    /// Of all kinds together.
    all: u8,
    crash: u8,
    start: u8,
    pause: u8,
    /// A host loses the connection that holds its lock.
    cut: u8,
    /// The store is restarted.
    restart: u8,
    impatience: u8,
    /// A host is stopped gracefully. No fault, but counted with them.
    stop: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ask {
    Acquire { incarnation: u8 },
    Commit { epoch: u8, sequence: u8, from: u8 },
    Release { epoch: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Claimed { epoch: u8, committed: u8 },
    NotYet,
    Committed,
    Fenced,
    Released,
}

/// Between a host and the store, for one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Wire {
    #[default]
    Quiet,
    Asked(Ask),
    Answered(Answer),
}

/// What a host believes that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lease {
    epoch: u8,
    committed: u8,
    /// Of the last commit that was answered.
    sequence: u8,
    /// A commit was sent and not answered: it may have been stored, and is sent again to the letter.
    pending: bool,
    /// It is being given back, whatever comes.
    releasing: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Pump {
    lease: Option<Lease>,
    wire: Wire,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Process {
    #[default]
    Down,
    Up,
    Stopping,
    /// Nothing of it runs, and what it sent is on its way.
    Paused,
}

/// What a host concluded from a look and has not carried out yet. Whether what it saw still stands is kept as flags
/// instead of time stamps and generations: these are only ever compared for being the same, and never come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Plan {
    /// By host: its incarnation, whether because of its lock, and whether its last heartbeat is still the one that was seen.
    expel: [Option<(u8, Why, bool)>; HOSTS_MAX],
    targets: Option<[Option<u8>; SEATS_MAX]>,
    homes: [Option<u8>; SEATS_MAX],
    /// The generation is still the one that was seen.
    stands: bool,
}

/// Why a host is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Why {
    Lock,
    Silence,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Host {
    process: Process,
    /// Of its registration, as far as it knows; 0 for none.
    incarnation: u8,
    /// It is about to learn that its lock is lost.
    lock_lost: bool,
    pumps: [Pump; SEATS_MAX],
    /// The incarnations that it saw without their lock when it looked last; 0 for none.
    seen_free: [u8; HOSTS_MAX],
    plan: Plan,
}

/// What the store knows of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Entry {
    /// 0 for none.
    incarnation: u8,
    expelled: bool,
    /// Nothing was heard of it for its session timeout.
    silent: bool,
    lock: bool,
    /// It registered since the store was restarted last.
    recent: bool,
    /// For the checks only: its lock went by a fault of its own.
    cut: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Seat {
    owner: Option<u8>,
    target: Option<u8>,
    previous: Option<u8>,
    epoch: u8,
    sequence: u8,
    committed: u8,
    /// For the checks only: the highest epoch that was given out, to whom, and how many events took effect.
    given: (u8, Option<u8>),
    effective: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    hosts: [Host; HOSTS_MAX],
    entries: [Entry; HOSTS_MAX],
    seats: [Seat; SEATS_MAX],
    registrations: u8,
    /// The store was restarted less than a session timeout ago.
    restarted: bool,
    /// Requests that their hosts gave up, or left behind when they crashed.
    late: Vec<(usize, usize, Ask)>,
    left: Faults,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Register(usize),
    Heartbeat(usize),
    /// With the grace of locks that were free before over, or not.
    Look(usize, bool),
    CarryOut(usize),
    Send(usize, usize, Ask),
    Arrive(usize, usize),
    Hear(usize, usize),
    LearnOfLaterEpoch(usize, usize),
    ArriveLate(usize),
    Leave(usize),
    Continue(usize),
    /// A session timeout passes without a word of it.
    FallSilent(usize),
    Start(usize),
    Crash(usize),
    Pause(usize),
    CutLock(usize),
    RestartStore,
    LosePatience(usize, usize),
    Stop(usize),
}

struct Model {
    hosts: usize,
    seats: usize,
    /// In each partition.
    events: u8,
    /// One in so many states is followed to its end.
    sample: u64,
    broken: Broken,
    names: [Arc<str>; HOSTS_MAX],
    /// What follows from a look, since many states look the same.
    looks: RefCell<BTreeMap<u64, (Plan, [u8; HOSTS_MAX])>>,
}

type Violation = String;

impl Model {
    fn new(hosts: usize, seats: usize, events: u8, broken: Broken) -> Self {
        let names = ["a", "b", "c"].map(Arc::from);
        let sample = if broken == Broken::Nothing { 101 } else { 7 };
        Self { hosts, seats, events, sample, broken, names, looks: RefCell::default() }
    }

    /// All hosts run; the first is registered, the others are about to be.
    fn start(&self, left: Faults) -> Result<State, Violation> {
        let mut state = State { left, ..State::default() };
        state.hosts[..self.hosts].iter_mut().for_each(|host| host.process = Process::Up);
        self.after(&state, Step::Register(0))
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == broken
    }

    // --- What may happen ------------------------------------------------------------------------------------------

    fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        for at in 0..self.hosts {
            let (host, entry) = (&state.hosts[at], &state.entries[at]);
            let heard_of = matches!(host.process, Process::Up | Process::Stopping) && state.stands(at);
            if entry.incarnation != 0 && !entry.expelled && !heard_of && (!entry.silent || state.restarted) {
                steps.push(Step::FallSilent(at));
            }
            for seat in 0..self.seats {
                if let Wire::Asked(_) = host.pumps[seat].wire {
                    steps.push(Step::Arrive(at, seat));
                }
            }
            match host.process {
                Process::Down => steps.push(Step::Start(at)),
                Process::Paused => steps.push(Step::Continue(at)),
                Process::Up | Process::Stopping => self.steps_of_running(state, at, &mut steps),
            }
        }
        steps.extend((0..state.late.len()).map(Step::ArriveLate));
        steps.push(Step::RestartStore);
        let left = state.left;
        let allowed = |step: &Step| match step {
            Step::Start(_) => left.start > 0,
            Step::Crash(_) => left.all > 0 && left.crash > 0,
            Step::Pause(_) => left.all > 0 && left.pause > 0,
            Step::CutLock(_) => left.all > 0 && left.cut > 0,
            Step::RestartStore => left.all > 0 && left.restart > 0,
            Step::LosePatience(..) => left.all > 0 && left.impatience > 0,
            Step::Stop(_) => left.all > 0 && left.stop > 0,
            _ => true,
        };
        steps.retain(allowed);
        steps
    }

    fn steps_of_running(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let (host, entry) = (&state.hosts[at], &state.entries[at]);
        let stopping = host.process == Process::Stopping;
        let idle = host.pumps.iter().all(|pump| *pump == Pump::default());
        if stopping && idle {
            steps.push(Step::Leave(at));
        }
        // Without a registration, without its lock, or told by a heartbeat that its registration is over.
        if host.incarnation == 0 || host.lock_lost || !state.stands(at) {
            if !stopping || !idle {
                steps.push(Step::Register(at));
            }
        } else {
            let watched = state.hosts.iter().any(|other| other.plan.expel[at].is_some_and(|(_, _, same)| same));
            if entry.silent || watched {
                steps.push(Step::Heartbeat(at));
            }
        }
        if host.plan != Plan::default() {
            steps.push(Step::CarryOut(at));
        } else if host.incarnation != 0 {
            let waited = (0..self.hosts).any(|other| {
                let entry = &state.entries[other];
                host.seen_free[other] == entry.incarnation && entry.lock_seen() == LockSeen::Free && !entry.expelled
            });
            for grace_over in if waited { &[false, true][..] } else { &[false] } {
                let (plan, seen_free) = self.look(state, at, *grace_over);
                if plan != Plan::default() || seen_free != host.seen_free {
                    steps.push(Step::Look(at, *grace_over));
                }
            }
        }
        for seat in 0..self.seats {
            let pump = &host.pumps[seat];
            match pump.wire {
                Wire::Quiet => {
                    steps.extend(self.next_request(state, at, seat).map(|ask| Step::Send(at, seat, ask)));
                    let later = |lease: Lease| lease.epoch < state.seats[seat].epoch;
                    if pump.lease.is_some_and(later) {
                        steps.push(Step::LearnOfLaterEpoch(at, seat));
                    }
                }
                Wire::Answered(_) => steps.extend([Step::Hear(at, seat), Step::LosePatience(at, seat)]),
                Wire::Asked(_) => steps.push(Step::LosePatience(at, seat)),
            }
        }
        steps.extend([Step::Crash(at), Step::Pause(at)]);
        if !stopping {
            steps.push(Step::Stop(at));
        }
        if entry.lock && state.stands(at) {
            steps.push(Step::CutLock(at));
        }
    }

    /// What a host asks for next in a partition, by what it believes and by what it can read in the store.
    fn next_request(&self, state: &State, at: usize, seat: usize) -> Option<Ask> {
        let host = &state.hosts[at];
        let (found, me) = (&state.seats[seat], Some(at as u8));
        let wanted = found.target == me && host.process == Process::Up;
        match host.pumps[seat].lease {
            _ if host.incarnation == 0 => None,
            None if wanted => Some(Ask::Acquire { incarnation: host.incarnation }),
            // A request to acquire that was given up has come through after all: nobody else would ever let go of it.
            None if found.owner == me && !self.is(Broken::StrayOwnershipIsKept) => {
                Some(Ask::Release { epoch: found.epoch })
            }
            None => None,
            Some(lease) if !lease.pending && (lease.releasing || !wanted) => Some(Ask::Release { epoch: lease.epoch }),
            Some(lease) if lease.pending || lease.committed < self.events => {
                Some(Ask::Commit { epoch: lease.epoch, sequence: lease.sequence + 1, from: lease.committed })
            }
            Some(_) => None,
        }
    }

    // --- What comes of it -----------------------------------------------------------------------------------------

    fn after(&self, before: &State, step: Step) -> Result<State, Violation> {
        let mut state = before.clone();
        match step {
            Step::Register(at) => state.register(at),
            Step::Heartbeat(at) => state.heard_of(at),
            Step::Look(at, grace_over) => {
                (state.hosts[at].plan, state.hosts[at].seen_free) = self.look(before, at, grace_over);
            }
            Step::CarryOut(at) => self.carry_out(&mut state, at)?,
            Step::Send(at, seat, ask) => {
                let pump = &mut state.hosts[at].pumps[seat];
                pump.wire = Wire::Asked(ask);
                if let Some(lease) = &mut pump.lease {
                    lease.pending |= matches!(ask, Ask::Commit { .. });
                    lease.releasing |= matches!(ask, Ask::Release { .. });
                }
            }
            Step::Arrive(at, seat) => {
                if let Wire::Asked(ask) = state.hosts[at].pumps[seat].wire {
                    let answer = self.answer(&mut state, at, seat, ask)?;
                    state.hosts[at].pumps[seat].wire = Wire::Answered(answer);
                }
            }
            Step::Hear(at, seat) => hear(&mut state, at, seat)?,
            Step::LearnOfLaterEpoch(at, seat) => state.hosts[at].pumps[seat] = Pump::default(),
            Step::ArriveLate(index) => {
                let (at, seat, ask) = state.late.remove(index);
                self.answer(&mut state, at, seat, ask)?;
            }
            Step::Leave(at) => state.leave(at),
            Step::Continue(at) => state.hosts[at].process = Process::Up,
            Step::FallSilent(at) => state.fall_silent(at),
            Step::Start(at) => {
                state.left.start -= 1;
                state.hosts[at].process = Process::Up;
            }
            Step::Crash(at) => {
                (state.left.all, state.left.crash) = (state.left.all - 1, state.left.crash - 1);
                state.break_off(at);
                state.hosts[at] = Host::default();
                (state.entries[at].lock, state.entries[at].cut) = (false, true);
            }
            Step::Pause(at) => {
                (state.left.all, state.left.pause) = (state.left.all - 1, state.left.pause - 1);
                state.hosts[at].process = Process::Paused;
            }
            Step::CutLock(at) => {
                (state.left.all, state.left.cut) = (state.left.all - 1, state.left.cut - 1);
                (state.entries[at].lock, state.entries[at].cut) = (false, true);
                state.hosts[at].lock_lost = true;
            }
            Step::RestartStore => {
                (state.left.all, state.left.restart) = (state.left.all - 1, state.left.restart - 1);
                state.restarted = true;
                for (entry, host) in state.entries.iter_mut().zip(&mut state.hosts) {
                    entry.lock = false;
                    entry.recent &= self.is(Broken::RestartLooksLikeDeath);
                    host.lock_lost = host.incarnation != 0;
                }
                if self.is(Broken::RestartForgivesNobody) {
                    state.restarted = false;
                    state.entries.iter_mut().for_each(|entry| entry.silent = entry.incarnation != 0);
                    state.entries.iter_mut().for_each(|entry| entry.cut = false);
                }
            }
            Step::LosePatience(at, seat) => {
                (state.left.all, state.left.impatience) = (state.left.all - 1, state.left.impatience - 1);
                if let Wire::Asked(ask) = std::mem::take(&mut state.hosts[at].pumps[seat].wire) {
                    state.late.push((at, seat, ask));
                }
            }
            Step::Stop(at) => {
                (state.left.all, state.left.stop) = (state.left.all - 1, state.left.stop - 1);
                state.hosts[at].process = Process::Stopping;
            }
        }
        for (now, then) in state.seats.iter().zip(&before.seats) {
            if now.epoch < then.epoch || now.committed < then.committed {
                return Err(format!("epoch or position fell: {then:?} -> {now:?}"));
            }
        }
        self.forget_what_changes_nothing(&mut state);
        Ok(state)
    }

    /// A request of an earlier registration or epoch is refused now and for ever. Fewer states, the same behaviour.
    fn forget_what_changes_nothing(&self, state: &mut State) {
        if self.broken == Broken::Nothing {
            let (entries, seats) = (state.entries, state.seats);
            state.late.retain(|(at, seat, ask)| match ask {
                Ask::Acquire { incarnation } => *incarnation == entries[*at].incarnation && !entries[*at].expelled,
                Ask::Commit { epoch, .. } | Ask::Release { epoch } => {
                    *epoch == seats[*seat].epoch && seats[*seat].owner == Some(*at as u8)
                }
            });
        }
        state.late.sort_by_key(|(at, seat, ask)| (*at, *seat, format!("{ask:?}")));
        state.late.dedup();
        for host in &mut state.hosts {
            for (seen, entry) in host.seen_free.iter_mut().zip(&state.entries) {
                if *seen != entry.incarnation || entry.expelled {
                    *seen = 0;
                }
            }
        }
    }

    /// The store's rules for the requests of a pump.
    fn answer(&self, state: &mut State, at: usize, seat: usize, ask: Ask) -> Result<Answer, Violation> {
        let me = Some(at as u8);
        let entry = state.entries[at];
        let found = &mut state.seats[seat];
        match ask {
            Ask::Acquire { incarnation } => {
                let registered = entry.incarnation == incarnation && !entry.expelled;
                let registered = registered || self.is(Broken::AcquireForOldRegistration);
                let free = found.owner.is_none() || found.owner == me;
                if !registered || found.target != me || !(free || self.is(Broken::AcquireWhileOwned)) {
                    return Ok(Answer::NotYet);
                }
                found.epoch += u8::from(!self.is(Broken::AcquireWithoutNewEpoch));
                (found.owner, found.sequence) = (me, 0);
                if !free {
                    return Err(format!("the owner of partition {seat} was robbed"));
                }
                if entry.incarnation != incarnation || entry.expelled {
                    return Err(format!("partition {seat} went to a host that is not registered"));
                }
                if found.epoch <= found.given.0 {
                    return Err(format!("epoch {} of partition {seat} was given out twice", found.epoch));
                }
                found.given = (found.epoch, me);
                Ok(Answer::Claimed { epoch: found.epoch, committed: found.committed })
            }
            Ask::Commit { epoch, sequence, from } => {
                let owns = found.owner == me || self.is(Broken::CommitWithoutOwner);
                let present = epoch == found.epoch || self.is(Broken::CommitWithoutEpoch);
                if owns && present && sequence == found.sequence {
                    return Ok(Answer::Committed);
                }
                let next = sequence > found.sequence && from == found.committed;
                if !owns || !present || !(next || self.is(Broken::CommitWithoutPosition)) {
                    return Ok(Answer::Fenced);
                }
                (found.sequence, found.committed) = (sequence, from + 1);
                if (epoch, me) != found.given || found.owner != me {
                    return Err(format!("a commit passed under another epoch or owner of partition {seat}"));
                }
                if from != found.effective {
                    return Err(format!("an event of partition {seat} is effective twice, or was passed over"));
                }
                found.effective += 1;
                Ok(Answer::Committed)
            }
            Ask::Release { epoch } => {
                if found.owner == me && (found.epoch == epoch || self.is(Broken::ReleaseWithoutEpoch)) {
                    if found.epoch != epoch {
                        return Err(format!("partition {seat} was released under another epoch"));
                    }
                    found.owner = None;
                }
                Ok(Answer::Released)
            }
        }
    }

    /// The store's rules for decisions: expulsions one by one, then targets.
    fn carry_out(&self, state: &mut State, by: usize) -> Result<(), Violation> {
        let plan = &mut state.hosts[by].plan;
        let Some(at) = plan.expel.iter().position(Option::is_some) else {
            let Plan { targets, homes, stands, .. } = std::mem::take(plan);
            let Some(targets) = targets.filter(|_| stands || self.is(Broken::AssignWithoutGeneration)) else {
                return Ok(());
            };
            if targets != self.fitting(state) {
                return Err(format!("targets do not fit the members of this moment: {targets:?}"));
            }
            for ((seat, target), home) in state.seats.iter_mut().zip(targets).zip(homes) {
                (seat.target, seat.previous) = (target, home);
            }
            state.membership_changed();
            return Ok(());
        };
        let Some((incarnation, why, same_heartbeat)) = plan.expel[at].take() else { return Ok(()) };
        let entry = state.entries[at];
        let registered = entry.incarnation == incarnation || self.is(Broken::ExpelWithoutIncarnation);
        if !registered || entry.expelled || !(same_heartbeat || self.is(Broken::ExpelWithoutHeartbeat)) {
            return Ok(());
        }
        let deserved = match why {
            Why::Lock => entry.cut,
            Why::Silence => entry.silent && !self.is(Broken::RestartForgivesNobody),
        };
        if entry.incarnation != incarnation || !deserved {
            return Err(format!("host {at} was given up ({why:?}) although it lives"));
        }
        state.entries[at].expelled = true;
        state.free_seats_of(at);
        state.membership_changed();
        Ok(())
    }

    /// The targets that the present members call for.
    fn fitting(&self, state: &State) -> [Option<u8>; SEATS_MAX] {
        let active = |at: &usize| state.entries[*at].incarnation != 0 && !state.entries[*at].expelled;
        let candidates: Vec<Candidate<'_>> =
            (0..self.hosts).filter(active).map(|at| Candidate { host: &self.names[at], partitions_max: 0 }).collect();
        let name = |at: Option<u8>| at.map(|at| &*self.names[at as usize]);
        let seat = |seat: &Seat| pelton_core::Seat { target: name(seat.target), previous: name(seat.previous) };
        let seats: Vec<_> = state.seats[..self.seats].iter().map(seat).collect();
        self.numbers(assign(&seats, &candidates).iter().map(|seat| seat.target))
    }

    fn numbers<'a>(&self, names: impl Iterator<Item = Option<&'a str>>) -> [Option<u8>; SEATS_MAX] {
        let mut numbers = [None; SEATS_MAX];
        let number = |name| self.names.iter().position(|known| &**known == name).map(|at| at as u8);
        numbers.iter_mut().zip(names).for_each(|(slot, name)| *slot = name.and_then(number));
        numbers
    }

    // --- Looking --------------------------------------------------------------------------------------------------

    /// What the real observer concludes, and which locks it has now seen free.
    fn look(&self, state: &State, at: usize, grace_over: bool) -> (Plan, [u8; HOSTS_MAX]) {
        let mut hasher = DefaultHasher::new();
        (&state.entries, state.restarted, state.hosts[at].seen_free, grace_over).hash(&mut hasher);
        state.seats.iter().for_each(|seat| (seat.target, seat.previous).hash(&mut hasher));
        let key = hasher.finish();
        if let Some(known) = self.looks.borrow().get(&key) {
            return *known;
        }
        let found = self.decide(state, at, grace_over);
        self.looks.borrow_mut().insert(key, found);
        found
    }

    fn decide(&self, state: &State, at: usize, grace_over: bool) -> (Plan, [u8; HOSTS_MAX]) {
        let mut observer = Observer::default();
        observer.decide(0, &self.earlier_survey(&state.hosts[at].seen_free));
        let survey = self.survey(state);
        let mut plan = Plan { stands: true, ..Plan::default() };
        let decisions = observer.decide(if grace_over { LOCK_GRACE_MS } else { 0 }, &survey);
        for decision in &decisions {
            match decision {
                Decision::Expel { session, why, .. } => {
                    let host = self.names.iter().position(|name| *name == session.host).unwrap_or_default();
                    let why = if *why == Expelled::LockFree { Why::Lock } else { Why::Silence };
                    plan.expel[host] = Some((session.incarnation as u8, why, true));
                }
                Decision::Assign { targets, homes, .. } => {
                    plan.targets = Some(self.numbers(targets.iter().map(Option::as_deref)));
                    plan.homes = self.numbers(homes.iter().map(Option::as_deref));
                }
            }
        }
        let plan = if decisions.is_empty() { Plan::default() } else { plan };
        let free = |entry: Entry| entry.lock_seen() == LockSeen::Free && !entry.expelled;
        (plan, state.entries.map(|entry| if free(entry) { entry.incarnation } else { 0 }))
    }

    /// A look that shows exactly these locks free, to give a new observer the memory of an old one.
    fn earlier_survey(&self, seen_free: &[u8; HOSTS_MAX]) -> Survey {
        let free = self.names.iter().zip(seen_free).filter(|(_, incarnation)| **incarnation != 0);
        let host = |(name, incarnation): (&Arc<str>, &u8)| HostSeen {
            session: Session { host: Arc::clone(name), incarnation: u64::from(*incarnation) },
            last_heartbeat: Timestamp(0),
            lock: LockSeen::Free,
            expelled: false,
        };
        Survey { hosts: free.map(host).collect(), ..Survey::default() }
    }

    fn survey(&self, state: &State) -> Survey {
        const NOW: u64 = 1_000_000;
        let registered = || self.names.iter().zip(&state.entries).filter(|(_, entry)| entry.incarnation != 0);
        let session = |name: &Arc<str>, entry: &Entry| Session {
            host: Arc::clone(name),
            incarnation: u64::from(entry.incarnation),
        };
        let host = |(name, entry): (&Arc<str>, &Entry)| HostSeen {
            session: session(name, entry),
            last_heartbeat: Timestamp(if entry.silent { 1 } else { NOW }),
            lock: entry.lock_seen(),
            expelled: entry.expelled,
        };
        let member = |(name, entry): (&Arc<str>, &Entry)| MemberSeen {
            session: session(name, entry),
            session_timeout_ms: 1_000,
            partitions_max: 0,
            expelled: entry.expelled,
        };
        let name = |at: Option<u8>| at.map(|at| Arc::clone(&self.names[at as usize]));
        let seat = |seat: &Seat| SeatSeen {
            owner: name(seat.owner),
            target: name(seat.target),
            previous: name(seat.previous),
        };
        let group = GroupSeen {
            group: "g".into(),
            generation: 0,
            members: registered().map(member).collect(),
            seats: state.seats[..self.seats].iter().map(seat).collect(),
        };
        let since = Timestamp(if state.restarted { NOW } else { 0 });
        Survey { now: Timestamp(NOW), since, hosts: registered().map(host).collect(), groups: vec![group] }
    }

    // --- The search -----------------------------------------------------------------------------------------------

    /// Visits every state that can be reached; how many there are and how far the last one is. Or the way to a violation.
    fn search(&self, left: Faults) -> Result<(usize, usize), Violation> {
        let first = self.start(left)?;
        let mut visited = BTreeSet::from([fingerprint(&first)]);
        // By state: the one before it, and the step from there.
        let mut ways: Vec<(usize, Option<Step>)> = vec![(0, None)];
        let (mut edge, mut depth) = (vec![(0, first)], 0);
        while !edge.is_empty() {
            let mut next = Vec::new();
            for (number, state) in edge {
                for step in self.steps(&state) {
                    let told = |violation| format!("{violation}\nafter {:#?}\nand {step:?}", way(&ways, number));
                    let after = self.after(&state, step).map_err(told)?;
                    let print = fingerprint(&after);
                    if !visited.insert(print) {
                        continue;
                    }
                    ways.push((number, Some(step)));
                    let number = ways.len() - 1;
                    if print.is_multiple_of(self.sample) {
                        let told = |violation| format!("{violation}\nafter {:#?}", way(&ways, number));
                        self.settle(after.clone(), print).map_err(told)?;
                    }
                    next.push((number, after));
                }
            }
            (edge, depth) = (next, depth + 1);
        }
        Ok((visited.len(), depth - 1))
    }

    /// Lets everybody who lives run, in an order that the seed draws, until nothing happens any more.
    fn settle(&self, mut state: State, seed: u64) -> Result<(), Violation> {
        state.left = NO_FAULTS;
        // The dead and the paused come back, or only the paused, or none of them; but one at least.
        let comes_back = |process| match process {
            Process::Down => (seed / self.sample).is_multiple_of(3),
            _ => seed / self.sample % 3 != 1,
        };
        for at in 0..self.hosts {
            let host = &mut state.hosts[at];
            if matches!(host.process, Process::Down | Process::Paused) && comes_back(host.process) {
                host.process = Process::Up;
            }
        }
        if !state.hosts.iter().any(|host| host.process == Process::Up) {
            let at = (0..self.hosts).rev().find(|at| state.hosts[*at].process != Process::Stopping).unwrap_or(0);
            state.hosts[at].process = Process::Up;
        }
        let mut dice = seed | 1;
        for _ in 0..1_000 {
            let mut steps = self.steps(&state);
            steps.retain(|step| !matches!(step, Step::Continue(_)));
            // Time passes when nothing else happens.
            if steps.iter().any(|step| !matches!(step, Step::FallSilent(_))) {
                steps.retain(|step| !matches!(step, Step::FallSilent(_)));
            }
            if steps.is_empty() {
                return self.check_rest(&state);
            }
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state = self.after(&state, steps[(dice >> 33) as usize % steps.len()])?;
        }
        Err(format!("it never comes to rest: {state:#?}"))
    }

    fn check_rest(&self, state: &State) -> Result<(), Violation> {
        let mut held = [0; HOSTS_MAX];
        for (at, seat) in state.seats[..self.seats].iter().enumerate() {
            let owner = seat.owner.map(usize::from).filter(|_| seat.owner == seat.target);
            let owner = owner.filter(|host| state.hosts[*host].process == Process::Up && state.stands(*host));
            let lease = owner.and_then(|host| state.hosts[host].pumps[at].lease);
            let works = lease.is_some_and(|lease| lease.epoch == seat.epoch);
            let (Some(owner), true) = (owner, works && seat.effective == self.events) else {
                return Err(format!("at rest, nobody who lives works on partition {at}: {state:#?}"));
            };
            held[owner] += 1;
        }
        let up = (0..self.hosts).filter(|at| state.hosts[*at].process == Process::Up);
        let (most, least) = (up.clone().map(|at| held[at]).max(), up.map(|at| held[at]).min());
        match most.zip(least) {
            Some((most, least)) if most > least + 1 => Err(format!("at rest, out of balance: {state:#?}")),
            _ => Ok(()),
        }
    }
}

impl Entry {
    fn lock_seen(&self) -> LockSeen {
        match (self.lock, self.recent) {
            (true, _) => LockSeen::Held,
            (false, true) => LockSeen::Free,
            (false, false) => LockSeen::Unknown,
        }
    }
}

impl State {
    /// Whether a host's registration is the present one, and not over.
    fn stands(&self, at: usize) -> bool {
        let (entry, known) = (&self.entries[at], self.hosts[at].incarnation);
        known != 0 && entry.incarnation == known && !entry.expelled
    }

    fn membership_changed(&mut self) {
        for host in &mut self.hosts {
            host.plan.stands = false;
            host.plan = host.plan.or_empty();
        }
    }

    fn free_seats_of(&mut self, at: usize) {
        let me = Some(at as u8);
        self.seats.iter_mut().filter(|seat| seat.owner == me).for_each(|seat| seat.owner = None);
    }

    fn heard_of(&mut self, at: usize) {
        self.entries[at].silent = false;
        self.hosts.iter_mut().filter_map(|host| host.plan.expel[at].as_mut()).for_each(|(_, _, same)| *same = false);
    }

    /// Its plan stays, as old as it may be. That its first heartbeat differs from the last one that somebody saw is not
    /// relied upon: clocks are coarse.
    fn register(&mut self, at: usize) {
        self.break_off(at);
        self.registrations += 1;
        let incarnation = self.registrations;
        self.entries[at] = Entry { incarnation, lock: true, recent: true, ..Entry::default() };
        self.free_seats_of(at);
        self.membership_changed();
        let host = &mut self.hosts[at];
        (host.incarnation, host.lock_lost) = (incarnation, false);
    }

    fn leave(&mut self, at: usize) {
        if self.entries[at].incarnation == self.hosts[at].incarnation {
            self.entries[at] = Entry::default();
            self.free_seats_of(at);
            self.membership_changed();
        }
        self.hosts[at] = Host::default();
    }

    /// Ends all of a host's pumps at once. What they sent is on its way.
    fn break_off(&mut self, at: usize) {
        for (seat, pump) in std::mem::take(&mut self.hosts[at].pumps).into_iter().enumerate() {
            if let Wire::Asked(ask) = pump.wire {
                self.late.push((at, seat, ask));
            }
        }
    }

    /// When a session timeout has passed since the store was restarted, all that run were heard of.
    fn fall_silent(&mut self, at: usize) {
        self.entries[at].silent = true;
        if std::mem::take(&mut self.restarted) {
            for other in 0..HOSTS_MAX {
                let runs = matches!(self.hosts[other].process, Process::Up | Process::Stopping);
                if runs && self.stands(other) {
                    self.heard_of(other);
                }
            }
        }
    }
}

impl Plan {
    /// A plan with nothing left to do is none.
    fn or_empty(self) -> Self {
        if self.targets.is_none() && self.expel.iter().all(Option::is_none) { Self::default() } else { self }
    }
}

/// What an answer does to the pump that waits for it.
fn hear(state: &mut State, at: usize, seat: usize) -> Result<(), Violation> {
    let effective = state.seats[seat].effective;
    let pump = &mut state.hosts[at].pumps[seat];
    let Wire::Answered(answer) = std::mem::take(&mut pump.wire) else { return Ok(()) };
    match answer {
        Answer::Claimed { epoch, committed } => {
            pump.lease = Some(Lease { epoch, committed, sequence: 0, pending: false, releasing: false });
        }
        Answer::Committed => {
            if let Some(lease) = &mut pump.lease {
                (lease.committed, lease.sequence, lease.pending) = (lease.committed + 1, lease.sequence + 1, false);
                if lease.committed > effective {
                    return Err(format!("host {at} was told that something is stored that is not"));
                }
            }
        }
        Answer::NotYet | Answer::Fenced | Answer::Released => pump.lease = None,
    }
    Ok(())
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// The steps that lead to a state.
fn way(ways: &[(usize, Option<Step>)], mut number: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (before, Some(step)) = ways[number] {
        steps.push(step);
        number = before;
    }
    steps.reverse();
    steps
}

/// One fault of each kind, and so many in all; who crashed may come back once.
const fn faults(all: u8) -> Faults {
    Faults { all, crash: 1, start: 1, pause: 1, cut: 1, restart: 1, impatience: 1, stop: 1 }
}

fn search(hosts: usize, seats: usize, events: u8, left: Faults) {
    let found = Model::new(hosts, seats, events, Broken::Nothing).search(left);
    let (states, depth) = found.unwrap_or_else(|violation| panic!("{violation}"));
    println!("model: {states} states, depth {depth} ({hosts} hosts, {seats} partitions, {events} events, {left:?})");
}

#[test]
fn two_hosts_share_a_partition_through_two_faults() {
    search(2, 1, 1, Faults { restart: 0, stop: 0, ..faults(2) });
    search(2, 1, 2, faults(1));
}

#[test]
fn three_hosts_share_a_partition_through_a_fault() {
    search(3, 1, 1, faults(1));
}

#[test]
fn two_hosts_share_two_partitions_through_a_fault() {
    search(2, 2, 1, faults(0));
    search(2, 2, 1, IMPATIENCE);
    search(2, 2, 1, Faults { all: 1, crash: 1, ..NO_FAULTS });
}

/// Some minutes in a release build: `cargo test --release -p pelton-core --test handover -- --ignored --nocapture`.
#[test]
#[ignore = "millions of states"]
fn more_faults_more_events() {
    search(2, 1, 2, faults(2));
    search(2, 2, 1, faults(1));
    search(3, 1, 2, Faults { all: 2, cut: 1, impatience: 1, restart: 1, ..NO_FAULTS });
}

#[test]
fn a_rule_that_is_left_out_is_missed() {
    for (broken, seats, left, violation) in BROKEN {
        let Err(found) = Model::new(2, seats, 2, broken).search(left) else { panic!("{broken:?} was not noticed") };
        assert!(found.contains(violation), "{broken:?} was noticed otherwise: {found}");
    }
}
