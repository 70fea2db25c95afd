//! Who works for a group: hosts and members, as a store shows them, and what whoever looks should do about it.
//!
//! Every host looks, and all come to the same conclusions; compare-and-set in the store lets one of them carry each out.
//! A host is given up for dead for one of two reasons:
//!
//! * **its process is gone**: the lock that it held is free, has been for a grace period, and was held under this very
//!   registration and in this very incarnation of the store ([`LockSeen::Free`]). The restart of a database frees all
//!   locks at once and kills nobody. A lock on a file needs no grace ([`LockSeen::Gone`]).
//! * **it has not been heard of** for its session timeout, counted from its last heartbeat or the start of the store,
//!   whichever is later.

use std::{collections::BTreeMap, sync::Arc};

use crate::{Candidate, Seat, Timestamp, assign};

/// How long a lock must have been free before its host is given up: time for one that only lost its connection to break
/// off its calls and to register again.
pub const LOCK_GRACE_MS: u64 = 300;

/// The session timeout of a host that works for no group.
pub const SESSION_TIMEOUT_MS_DEFAULT: u64 = 30_000;

/// One registration of a host. Another one, of the same id, has another incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// The host.
    pub host: Arc<str>,
    /// Which registration of it; never used twice.
    pub incarnation: u64,
}

/// What a host asks for when it joins a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// Without a heartbeat for so long, the member has lost its partitions.
    pub session_timeout_ms: u64,
    /// Partitions it takes at most; 0 for as many as there are.
    pub partitions_max: u32,
}

/// Whether the lock that lives and dies with a host's process is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockSeen {
    /// It is.
    Held,
    /// It is not, and it was: under this registration, in this incarnation of the store. The process is gone, or its
    /// connection broke.
    Free,
    /// It is not, and nothing but the end of its process frees it.
    Gone,
    /// The store cannot tell, or was restarted since the host registered: heartbeats alone count.
    Unknown,
}

/// A registered host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSeen {
    /// Its registration.
    pub session: Session,
    /// By the store's clock.
    pub last_heartbeat: Timestamp,
    /// Its process.
    pub lock: LockSeen,
    /// It was given up for dead; its registration is over.
    pub expelled: bool,
}

/// A host's membership in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSeen {
    /// The host, in the registration under which it joined.
    pub session: Session,
    /// As in [`Membership`].
    pub session_timeout_ms: u64,
    /// As in [`Membership`].
    pub partitions_max: u32,
    /// It was given up.
    pub expelled: bool,
}

/// A partition of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatSeen {
    /// Who holds it.
    pub owner: Option<Arc<str>>,
    /// Who is to hold it.
    pub target: Option<Arc<str>>,
    /// Who held it last and is away: a host that comes back gets its own partitions back.
    pub previous: Option<Arc<str>>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSeen {
    /// Its name.
    pub group: String,
    /// Grows whenever its members or targets change; targets are written under the one they were computed from.
    pub generation: u64,
    /// In the order of the bytes of their hosts' ids.
    pub members: Vec<MemberSeen>,
    /// By partition.
    pub seats: Vec<SeatSeen>,
}

/// All hosts and groups, of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The moment, by the store's clock.
    pub now: Timestamp,
    /// Since when the store is there, by its clock: nobody expires within a session timeout of its start.
    pub since: Timestamp,
    /// In the order of the bytes of their ids.
    pub hosts: Vec<HostSeen>,
    /// By name.
    pub groups: Vec<GroupSeen>,
}

/// Why a host or member is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expelled {
    /// Its process is gone.
    LockFree,
    /// Nothing was heard of it for so long, in milliseconds.
    Silent(u64),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take away what a host holds, in one group or all, if it has not been heard of in between.
    Expel {
        /// Who.
        session: Session,
        /// In which group; `None` in all, and its registration is over.
        group: Option<String>,
        /// Its last heartbeat, as it was seen.
        last_heartbeat: Timestamp,
        /// Why.
        why: Expelled,
    },
    /// Write who is to hold which partition, if nothing else changed the group in between.
    Assign {
        /// The group.
        group: String,
        /// As it was seen.
        generation: u64,
        /// By partition.
        targets: Vec<Option<Arc<str>>>,
        /// By partition: who is to get it back when it returns.
        homes: Vec<Option<Arc<str>>>,
    },
}

/// One observer's memory: since when it has seen which locks free.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    /// By this host's own monotonic clock, in milliseconds.
    free_since: BTreeMap<Session, u64>,
}

impl Observer {
    /// What follows from a look at the store. `now_ms` is the observer's own monotonic clock.
    pub fn decide(&mut self, now_ms: u64, survey: &Survey) -> Vec<Decision> {
        let free = |host: &&HostSeen| host.lock == LockSeen::Free && !host.expelled;
        let before = std::mem::take(&mut self.free_since);
        for host in survey.hosts.iter().filter(free) {
            let since = before.get(&host.session).copied().unwrap_or(now_ms);
            self.free_since.insert(host.session.clone(), since);
        }
        let mut decisions = Vec::new();
        for host in survey.hosts.iter().filter(|host| !host.expelled) {
            self.look_at_host(now_ms, survey, host, &mut decisions);
        }
        for group in &survey.groups {
            decisions.extend(reassigned(survey, group, &decisions));
        }
        decisions
    }

    /// When to look again at the latest, in milliseconds from `now_ms`, because a grace period ends then.
    #[must_use]
    pub fn grace_left_ms(&self, now_ms: u64) -> Option<u64> {
        self.free_since.values().map(|since| (since + LOCK_GRACE_MS).saturating_sub(now_ms)).min()
    }

    fn look_at_host(&self, now_ms: u64, survey: &Survey, host: &HostSeen, decisions: &mut Vec<Decision>) {
        let expel = |group, why| Decision::Expel {
            session: host.session.clone(),
            group,
            last_heartbeat: host.last_heartbeat,
            why,
        };
        let free_for = self.free_since.get(&host.session).map(|since| now_ms.saturating_sub(*since));
        if host.lock == LockSeen::Gone || free_for.is_some_and(|ms| ms >= LOCK_GRACE_MS) {
            return decisions.push(expel(None, Expelled::LockFree));
        }
        let silent = survey.silent_ms(host);
        let members: Vec<_> = survey.memberships(&host.session).collect();
        let longest = members.iter().map(|(_, member)| member.session_timeout_ms).max();
        if silent > longest.unwrap_or(SESSION_TIMEOUT_MS_DEFAULT) {
            return decisions.push(expel(None, Expelled::Silent(silent)));
        }
        for (group, member) in members {
            if !member.expelled && silent > member.session_timeout_ms {
                decisions.push(expel(Some(group.group.clone()), Expelled::Silent(silent)));
            }
        }
    }
}

impl Survey {
    /// For how long nothing was heard of a host, in milliseconds; while the store was down nothing could be.
    #[must_use]
    pub fn silent_ms(&self, host: &HostSeen) -> u64 {
        self.now.0.saturating_sub(host.last_heartbeat.max(self.since).0)
    }

    /// In how many milliseconds the first member that still counts will have been silent for too long, should nothing be
    /// heard of it until then.
    #[must_use]
    pub fn silence_left_ms(&self) -> Option<u64> {
        let members = self.groups.iter().flat_map(|group| &group.members).filter(|member| self.is_active(member));
        let left = |member: &MemberSeen| {
            let silent = self.silent_ms(self.host(&member.session)?);
            (member.session_timeout_ms + 1).checked_sub(silent)
        };
        members.filter_map(left).min()
    }

    /// Whether a host is to be shown as active: not given up, not silent for too long, its process not gone.
    #[must_use]
    pub fn shows_active(&self, host: &HostSeen) -> bool {
        let timeouts = self.memberships(&host.session).map(|(_, member)| member.session_timeout_ms);
        let longest = timeouts.max().unwrap_or(SESSION_TIMEOUT_MS_DEFAULT);
        let gone = matches!(host.lock, LockSeen::Free | LockSeen::Gone);
        !host.expelled && !gone && self.silent_ms(host) <= longest
    }

    /// Whether a member is to be shown as active.
    #[must_use]
    pub fn shows_active_member(&self, member: &MemberSeen) -> bool {
        let alive = |host: &HostSeen| self.shows_active(host) && self.silent_ms(host) <= member.session_timeout_ms;
        !member.expelled && self.host(&member.session).is_some_and(alive)
    }

    /// Whether a member counts: it was not given up, nor its host, and it joined under its host's present registration.
    #[must_use]
    pub fn is_active(&self, member: &MemberSeen) -> bool {
        !member.expelled && self.host(&member.session).is_some_and(|host| !host.expelled)
    }

    /// A host under this registration.
    fn host(&self, session: &Session) -> Option<&HostSeen> {
        let at = self.hosts.binary_search_by(|host| host.session.host.cmp(&session.host)).ok()?;
        Some(&self.hosts[at]).filter(|host| host.session == *session)
    }

    /// The memberships of a host under this registration.
    fn memberships(&self, session: &Session) -> impl Iterator<Item = (&GroupSeen, &MemberSeen)> {
        self.groups.iter().filter_map(|group| {
            let at = group.members.binary_search_by(|member| member.session.host.cmp(&session.host)).ok()?;
            Some((group, &group.members[at])).filter(|(_, member)| member.session == *session)
        })
    }
}

/// Other targets for a group, if its members call for some. None while one of them is being given up: that may fail, since
/// it was heard of in the meantime, and then it must not lose its partitions all the same. Whoever succeeds looks again.
fn reassigned(survey: &Survey, group: &GroupSeen, decisions: &[Decision]) -> Option<Decision> {
    let given_up = |member: &MemberSeen| {
        decisions.iter().any(|decision| match decision {
            Decision::Expel { session, group: from, .. } => {
                *session == member.session && from.as_ref().is_none_or(|from| *from == group.group)
            }
            Decision::Assign { .. } => false,
        })
    };
    let members: Vec<&MemberSeen> = group.members.iter().filter(|member| survey.is_active(member)).collect();
    if members.iter().any(|member| given_up(member)) {
        return None;
    }
    let candidates: Vec<Candidate<'_>> = members
        .iter()
        .map(|member| Candidate { host: &member.session.host, partitions_max: member.partitions_max })
        .collect();
    let seats: Vec<Seat<'_>> = group
        .seats
        .iter()
        .map(|seat| Seat { target: seat.target.as_deref(), previous: seat.previous.as_deref() })
        .collect();
    let assigned = assign(&seats, &candidates);
    if assigned.iter().zip(&seats).all(|(new, seat)| new.target == seat.target) {
        return None;
    }
    let targets = assigned.iter().map(|seat| seat.target.map(Arc::from)).collect();
    let homes = assigned.iter().map(|seat| seat.previous.map(Arc::from)).collect();
    Some(Decision::Assign { group: group.group.clone(), generation: group.generation, targets, homes })
}

#[cfg(test)]
mod tests;
