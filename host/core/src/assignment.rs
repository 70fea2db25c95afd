//! Which member is to hold which partition: sticky, and balanced within one.
//!
//! A pure function of what is there: every host computes the same. Only what balance forces moves: a membership that does
//! not change moves nothing, one that leaves moves its own partitions, one that comes moves those it gets. The idea is
//! Kafka's cooperative sticky assignor (KIP-429), with one more rule: a partition goes home to the member that held it
//! before, so that a rolling restart ends where it began. Balance never forces anything out of the hands of a member that
//! took over while there are more members than partitions; there the one that comes back stands by.

use std::{cmp::Reverse, collections::BTreeMap};

/// A member that may be given partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its host.
    pub host: &'a str,
    /// How many it takes at most; 0 for any number.
    pub partitions_max: u32,
}

/// Who is to hold a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seat<'a> {
    /// Who is.
    pub target: Option<&'a str>,
    /// Who was when it went away: the partition's home.
    pub previous: Option<&'a str>,
}

/// What one candidate gets.
struct Share {
    cap: usize,
    /// How many it is to hold.
    quota: usize,
    /// How many it holds.
    held: usize,
    /// How many it would hold if everything were at home.
    settled: usize,
}

impl Share {
    fn has_room(&self) -> bool {
        self.held < self.quota
    }
}

type Shares<'a> = BTreeMap<&'a str, Share>;

/// Who is to hold each partition, `None` only where nobody may take more; and who is to be remembered as its home.
///
/// Only a member that is away has a home to come back to. If it were remembered also for what balance took from it, it
/// could not be told, when it comes back, from what it held when it went.
#[must_use]
pub fn assign<'a>(seats: &[Seat<'a>], candidates: &[Candidate<'a>]) -> Vec<Seat<'a>> {
    let mut shares = Shares::new();
    for candidate in candidates {
        let cap = if candidate.partitions_max == 0 { usize::MAX } else { candidate.partitions_max as usize };
        shares.insert(candidate.host, Share { cap, quota: 0, held: 0, settled: 0 });
    }
    let mut targets: Vec<Option<&str>> =
        seats.iter().map(|seat| seat.target.filter(|host| shares.contains_key(host))).collect();
    for host in targets.iter().flatten() {
        shares.entry(host).and_modify(|share| share.held += 1);
    }

    set_quotas(&mut shares, seats);
    take_what_is_too_much(&mut shares, seats, &mut targets);
    give_what_is_free(&mut shares, seats, &mut targets);

    let away = |host: &&str| !shares.contains_key(host);
    let home = |seat: &Seat<'a>| seat.target.filter(away).or(seat.previous.filter(away));
    seats.iter().zip(targets).map(|(seat, target)| Seat { target, previous: home(seat) }).collect()
}

/// Everybody gets the same number, its level, or one more; less where it takes no more.
fn set_quotas(shares: &mut Shares<'_>, seats: &[Seat<'_>]) {
    let (mut level, mut left) = (0, seats.len());
    loop {
        let open = shares.values().filter(|share| share.cap > level);
        let Some(cap) = open.clone().map(|share| share.cap).min() else { break };
        let open = open.count();
        // As many rounds at once as all that are open take part in.
        let rounds = (left / open).min(cap - level);
        if rounds == 0 {
            break;
        }
        (level, left) = (level + rounds, left - rounds * open);
    }
    shares.values_mut().for_each(|share| share.quota = share.cap.min(level));

    for seat in seats {
        let home = seat.previous.filter(|host| shares.get(host).is_some_and(Share::has_room)).or(seat.target);
        if let Some(share) = home.and_then(|host| shares.get_mut(host)) {
            share.settled += 1;
        }
    }
    // One more goes to those who hold or held it, so that nothing else moves for its sake; among them to those who are
    // at home there. The sort is stable: among equals the order of names decides.
    let mut open: Vec<&mut Share> = shares.values_mut().filter(|share| share.cap > level).collect();
    open.sort_by_key(|share| Reverse((share.held.max(share.settled) > level, share.settled)));
    open.into_iter().take(left).for_each(|share| share.quota += 1);
}

/// Takes partitions from those who hold more than their quota: first those that can go home, then the last ones.
fn take_what_is_too_much<'a>(shares: &mut Shares<'a>, seats: &[Seat<'a>], targets: &mut [Option<&'a str>]) {
    for going_home in [true, false] {
        for (target, seat) in targets.iter_mut().zip(seats).rev() {
            let Some(from) = *target else { continue };
            let home = seat.previous.filter(|host| going_home && shares.get(host).is_some_and(Share::has_room));
            if shares[from].held <= shares[from].quota || (going_home && home.is_none()) {
                continue;
            }
            *target = home;
            shares.entry(from).and_modify(|share| share.held -= 1);
            if let Some(share) = home.and_then(|host| shares.get_mut(host)) {
                share.held += 1;
            }
        }
    }
}

/// Gives free partitions to those below their quota: home if there is room, else to whoever is furthest below.
fn give_what_is_free<'a>(shares: &mut Shares<'a>, seats: &[Seat<'a>], targets: &mut [Option<&'a str>]) {
    for going_home in [true, false] {
        for (target, seat) in targets.iter_mut().zip(seats).filter(|(target, _)| target.is_none()) {
            *target = match going_home {
                true => seat.previous.filter(|host| shares.get(host).is_some_and(Share::has_room)),
                false => {
                    let open = shares.iter().filter(|(_, share)| share.has_room());
                    open.max_by_key(|(host, share)| (share.quota - share.held, Reverse(**host))).map(|(host, _)| *host)
                }
            };
            if let Some(share) = target.and_then(|host| shares.get_mut(host)) {
                share.held += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
