//! Scenarios, and properties of groups whose members come and go at random.

use std::collections::BTreeSet;

use super::*;

/// Names of members, in their order.
const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// A group whose members come and go, and which is assigned after each change.
#[derive(Clone, Debug)]
struct Group {
    seats: Vec<Seat<'static>>,
    members: Vec<Candidate<'static>>,
}

impl Group {
    fn of(partitions: usize, members: &[&'static str]) -> Self {
        let members = members.iter().map(|host| Candidate { host, partitions_max: 0 }).collect();
        let mut group = Self { seats: vec![Seat::default(); partitions], members };
        group.assign();
        group
    }

    /// Assigns, checks what must hold of every assignment, and says which partitions moved.
    fn assign(&mut self) -> Vec<usize> {
        let seats = assign(&self.seats, &self.members);
        let moved = (0..seats.len()).filter(|at| seats[*at].target != self.seats[*at].target).collect();
        let mut backwards = self.members.clone();
        backwards.reverse();
        assert_eq!(assign(&self.seats, &backwards), seats, "the order of candidates matters: {self:?}");
        self.seats = seats;

        assert_eq!(targets(&assign(&self.seats, &self.members)), self.targets(), "no fixed point: {self:?}");
        // A store may remember homes in its own way: still nothing may move once it is balanced.
        let mut odd = self.clone();
        let anybody = self.members.iter().map(|member| member.host).cycle();
        odd.seats.iter_mut().zip(anybody).for_each(|(seat, host)| seat.previous = Some(host));
        assert_eq!(targets(&assign(&odd.seats, &odd.members)), self.targets(), "no fixed point: {odd:?}");
        self.check_balance();
        moved
    }

    /// Max-min fair: whoever has two more than another has them because the other takes no more.
    fn check_balance(&self) {
        for member in &self.members {
            let held = self.held_by(member.host).len();
            let cap = if member.partitions_max == 0 { usize::MAX } else { member.partitions_max as usize };
            assert!(held <= cap, "{} holds more than it takes: {self:?}", member.host);
            let most = self.members.iter().map(|other| self.held_by(other.host).len()).max().unwrap_or(0);
            assert!(held == cap || most <= held + 1, "{} holds too few: {self:?}", member.host);
            assert!(held == cap || self.seats.iter().all(|seat| seat.target.is_some()), "one is left over: {self:?}");
        }
        let present: BTreeSet<&str> = self.members.iter().map(|member| member.host).collect();
        assert!(self.seats.iter().all(|seat| seat.target.is_none_or(|host| present.contains(host))), "{self:?}");
    }

    fn leave(&mut self, host: &str) -> Vec<usize> {
        self.members.retain(|member| member.host != host);
        self.assign()
    }

    fn join(&mut self, host: &'static str, partitions_max: u32) -> Vec<usize> {
        self.members.push(Candidate { host, partitions_max });
        self.assign()
    }

    fn held_by(&self, host: &str) -> Vec<usize> {
        (0..self.seats.len()).filter(|at| self.seats[*at].target == Some(host)).collect()
    }

    fn targets(&self) -> Vec<Option<&'static str>> {
        targets(&self.seats)
    }

    fn shows(&self) -> String {
        self.seats.iter().map(|seat| seat.target.unwrap_or("-")).collect()
    }
}

fn targets<'a>(seats: &[Seat<'a>]) -> Vec<Option<&'a str>> {
    seats.iter().map(|seat| seat.target).collect()
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Groups of all sizes with a random past, under each seed; `capped` for some members that do not take everything.
fn groups(capped: bool, mut then: impl FnMut(&mut Group, &mut Dice)) {
    for seed in 1..=800_u64 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (seed << 20));
        let mut group = Group::of(dice.below(24), &[]);
        for _ in 0..dice.below(16) {
            let host = NAMES[dice.below(NAMES.len())];
            let cap = if capped && dice.below(3) == 0 { 1 + dice.below(5) as u32 } else { 0 };
            match group.members.iter().any(|member| member.host == host) {
                true => group.leave(host),
                false => group.join(host, cap),
            };
        }
        then(&mut group, &mut dice);
    }
}

#[test]
fn a_new_group_is_dealt_out_evenly() {
    assert_eq!(Group::of(4, &["a"]).shows(), "aaaa");
    assert_eq!(Group::of(7, &["a", "b", "c"]).shows(), "aabcabc");
    assert_eq!(Group::of(2, &["a", "b", "c"]).shows(), "ab");
    assert_eq!(Group::of(0, &["a"]).shows(), "");
    assert_eq!(Group::of(3, &[]).shows(), "---");
}

#[test]
fn a_member_that_joins_takes_its_share_and_nothing_else_moves() {
    let mut group = Group::of(5, &["a"]);
    group.join("b", 0);
    assert_eq!(group.shows(), "aaabb");
    group.join("c", 0);
    assert_eq!(group.shows(), "aacbb");
}

#[test]
fn what_a_member_does_not_take_goes_to_the_others_and_stays_if_nobody_may() {
    let mut group = Group::of(6, &[]);
    group.join("a", 1);
    assert_eq!(group.shows(), "a-----");
    group.join("b", 2);
    assert_eq!(group.shows(), "abb---");
    group.join("c", 0);
    assert_eq!(group.shows(), "abbccc");
}

#[test]
fn a_member_that_now_takes_less_gives_up_only_the_rest() {
    let mut group = Group::of(6, &["a", "b"]);
    group.members[0].partitions_max = 1;
    assert_eq!(group.assign().len(), 2);
    assert_eq!(group.shows(), "abbbbb");
}

#[test]
fn the_first_host_gets_its_own_back_although_it_once_held_everything() {
    let mut group = Group::of(4, &["a"]);
    group.join("b", 0);
    assert_eq!(group.shows(), "aabb");
    group.leave("a");
    assert_eq!(group.shows(), "bbbb");
    group.join("a", 0);
    assert_eq!(group.shows(), "aabb");
}

#[test]
fn one_partition_more_than_the_others_had_comes_home_too() {
    let mut group = Group::of(7, &["a", "b", "c"]);
    let before = group.shows();
    assert_eq!(group.leave("a").len(), 3);
    group.join("a", 0);
    assert_eq!(group.shows(), before);
}

#[test]
fn a_spare_that_took_over_keeps_it() {
    let mut group = Group::of(2, &["a", "b", "c"]);
    assert_eq!(group.leave("a"), [0]);
    assert_eq!(group.shows(), "cb");
    assert!(group.join("a", 0).is_empty(), "the one that comes back stands by");
}

#[test]
fn when_a_member_leaves_only_its_partitions_move() {
    for capped in [false, true] {
        groups(capped, |group, dice| {
            let Some(host) = group.members.get(dice.below(12)).map(|member| member.host) else { return };
            let held = group.held_by(host);
            // With caps, partitions that nobody took may move too: from nobody to somebody.
            let idle = group.seats.iter().filter(|seat| seat.target.is_none()).count();
            let moved = group.leave(host);
            assert!(held.iter().all(|at| moved.contains(at)) && moved.len() <= held.len() + idle, "{group:?}");
        });
    }
}

#[test]
fn when_a_member_joins_only_what_goes_to_it_moves() {
    for capped in [false, true] {
        groups(capped, |group, dice| {
            let host = NAMES[dice.below(NAMES.len())];
            if group.members.iter().any(|member| member.host == host) {
                return;
            }
            let moved = group.join(host, if capped { dice.below(4) as u32 } else { 0 });
            assert_eq!(moved, group.held_by(host), "{group:?}");
        });
    }
}

#[test]
fn whoever_leaves_and_comes_back_finds_everything_as_it_was() {
    for capped in [false, true] {
        groups(capped, |group, dice| {
            let Some(member) = group.members.get(dice.below(12)).copied() else { return };
            let before = group.clone();
            group.leave(member.host);
            group.join(member.host, member.partitions_max);
            if group.members.len() <= group.seats.len() {
                assert_eq!(group.targets(), before.targets(), "{before:?}");
            }
        });
    }
}

#[test]
fn a_rolling_restart_ends_where_it_began() {
    groups(true, |group, _| {
        let before = group.clone();
        for member in &before.members {
            group.leave(member.host);
            group.join(member.host, member.partitions_max);
        }
        if group.members.len() <= group.seats.len() {
            assert_eq!(group.targets(), before.targets(), "{before:?}");
        }
    });
}

#[test]
fn a_thousand_members_share_as_many_partitions() {
    let names: Vec<String> = (0..1000).map(|n| format!("host-{n:04}")).collect();
    let candidate = |host: &'static str| Candidate { host, partitions_max: 0 };
    let mut members: Vec<Candidate<'static>> = names.iter().map(|name| candidate(String::leak(name.clone()))).collect();
    let first = assign(&[Seat::default(); 1024], &members);
    let gone = members.remove(500);
    let second = assign(&first, &members);
    let moved = first.iter().zip(&second).filter(|(before, after)| before.target != after.target).count();
    assert_eq!(moved, 1, "only the partition of {}", gone.host);
    members.push(gone);
    assert_eq!(targets(&assign(&second, &members)), targets(&first));
}
