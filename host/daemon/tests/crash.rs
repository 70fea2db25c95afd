//! `kill -9` at random moments in the middle of work: nothing is lost, and everything takes effect once.
//!
//! The suite does five rounds; `PELTON_CRASH_ROUNDS=50` does more of them (with `--nocapture` it tells of each), and `PELTON_CRASH_SEED` repeats the moments
//! of a run as far as a machine can be repeated.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;
use support::{Stage, assert_counted_once, count_events};

const EVENTS: usize = 10_000;
const KEYS: usize = 100;
const KILLS_A_ROUND: usize = 3;

#[test]
fn a_daemon_killed_in_the_middle_of_work_loses_nothing_and_repeats_no_effect() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let rounds = number("PELTON_CRASH_ROUNDS").unwrap_or(5);
    let seed = number("PELTON_CRASH_SEED").unwrap_or_else(rand::random);
    println!("PELTON_CRASH_SEED={seed} PELTON_CRASH_ROUNDS={rounds}");
    let mut chance = SmallRng::seed_from_u64(seed);
    let (mut kills, mut hits) = (0, 0);
    for round in 1..=rounds {
        let lags = round_of_kills(&mut chance);
        let before = [EVENTS as u64].into_iter().chain(lags.iter().copied());
        kills += lags.len();
        hits += lags.iter().zip(before).filter(|(lag, before)| (1..*before).contains(*lag)).count();
        println!("round {round}: left to do after each kill: {lags:?}; every event took effect once");
    }
    println!("{hits} of {kills} kills came after some events were handled, and before all were");
    assert!(hits * 2 > kills, "only {hits} of {kills} kills hit the middle of work: this proves too little");
}

/// Kills the daemon a few times while it drains, then lets it finish. How much was left to do after each kill.
fn round_of_kills(chance: &mut SmallRng) -> Vec<u64> {
    let stage = Stage::with_group(4, "batch_size = 50\n");
    stage.append("in", &count_events(EVENTS, KEYS));
    let (mut lag, mut lags) = (EVENTS as u64, Vec::new());
    // How long the rest may take; the machine shows how fast it is.
    let mut drain = Duration::from_millis(400);
    while lags.len() < KILLS_A_ROUND && lag > 0 {
        let daemon = stage.daemon();
        // It has given up the host that was killed before it, and taken the partitions.
        daemon.await_log("partitions are shared out anew");
        let began = Instant::now();
        thread::sleep(drain.mul_f64(chance.random_range(0.0..0.7)));
        daemon.kill();
        let handled = lag - stage.lag("work");
        if handled > 0 {
            drain = began.elapsed().mul_f64((lag - handled) as f64 / handled as f64);
        }
        lag -= handled;
        lags.push(lag);
    }
    stage.run_until_idle();
    assert_eq!(stage.lag("work"), 0);
    assert_counted_once(&stage, EVENTS);
    assert_counters_stored(&stage);
    lags
}

/// Asks the handler itself for each counter that it stored.
fn assert_counters_stored(stage: &Stage) {
    let ask = |key: usize| {
        let key = format!("k{key}");
        json!({ "id": format!("ask-{key}"), "key": key, "kind": "state-get", "payload_base64": BASE64_STANDARD.encode(&key) })
    };
    stage.append("in", &(0..KEYS).map(ask).collect::<Vec<_>>());
    stage.run_until_idle();
    let answers: Vec<_> = stage.tail("out").into_iter().filter(|event| event["kind"] == "state").collect();
    assert_eq!(answers.len(), KEYS);
    for answer in answers {
        assert_eq!(answer["payload"], EVENTS / KEYS, "stored counter in {answer}");
    }
}
