//! `[defaults]`, `[groups]` and their `on_failure`.

use std::{collections::BTreeMap, time::Duration};

use pelton_core::{Backoff, FailurePolicy, PumpSettings, Then};
use pelton_store::{GroupSpec, Start, StreamSpec};

use super::{GroupConfig, HandlerConfig, reader::Section, units::show_duration};
use crate::time;

const BATCH_SIZE_DEFAULT: u32 = 100;
/// A batch is one transaction and, for batch handlers, one value in the guest's memory.
const BATCH_SIZE_MAX: u64 = 10_000;
const COMMIT_AHEAD_MAX: u64 = 100;
const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// More often would be a busy loop over the database.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// More often would cost the store more than an earlier take-over is worth.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);
const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// A host may miss two heartbeats and is still there.
const HEARTBEATS_PER_SESSION: u32 = 3;

pub(super) fn groups(
    root: &Section<'_>,
    streams: &BTreeMap<String, StreamSpec>,
    handlers: &BTreeMap<String, HandlerConfig>,
) -> BTreeMap<String, GroupConfig> {
    let defaults = root.section("defaults");
    let mut groups = BTreeMap::new();
    for (name, section) in root.section("groups").named_sections() {
        let group = group(&name, section.with_fallback(&defaults), streams, handlers);
        groups.insert(name, group);
    }
    // What no group uses is checked all the same.
    group_fields(&defaults);
    session(&defaults, "[defaults]");
    for name in ["stream", "handler"] {
        defaults.string(name);
    }
    defaults.finish();
    groups
}

fn group(
    name: &str,
    section: Section<'_>,
    streams: &BTreeMap<String, StreamSpec>,
    handlers: &BTreeMap<String, HandlerConfig>,
) -> GroupConfig {
    let stream = section.required_string("stream", "\"orders\"").unwrap_or_default();
    if !stream.is_empty() && !streams.contains_key(&stream) {
        section.fault_at("stream", format_args!("stream {stream:?} is not declared; add [streams.{stream}]"));
    }
    let handler = section.required_string("handler", "\"invoice\"").unwrap_or_default();
    if !handler.is_empty() && !handlers.contains_key(&handler) {
        section.fault_at("handler", format_args!("handler {handler:?} is not declared; add [handlers.{handler}]"));
    }
    let fields = group_fields(&section);
    let (heartbeat_interval, session_timeout) = session(&section, &format!("group {name:?}"));
    section.finish();
    GroupConfig {
        spec: GroupSpec { name: name.into(), stream, handler, start: fields.start },
        pump: fields.pump,
        poll_interval: fields.poll_interval,
        heartbeat_interval,
        session_timeout,
        partitions_max: fields.partitions_max,
        exit_on_stop: fields.exit_on_stop,
    }
}

/// Fields that stand for themselves and that `[defaults]` may set too.
struct Fields {
    start: Start,
    pump: PumpSettings,
    poll_interval: Duration,
    partitions_max: u32,
    exit_on_stop: bool,
}

fn group_fields(section: &Section<'_>) -> Fields {
    let start = section.string("start").map_or(Start::Earliest, |text| start(section, &text));
    section.word("commit", &[("after-batch", ())]);
    let partitions_max = section.integer("partitions_max", 0, u64::from(u32::MAX)).map_or(0, |n| n as u32);
    let poll_interval = section.duration("poll_interval").unwrap_or(POLL_INTERVAL_DEFAULT);
    if poll_interval < POLL_INTERVAL_MIN {
        let (found, least) = (show_duration(poll_interval), show_duration(POLL_INTERVAL_MIN));
        section.fault_at(
            "poll_interval",
            format_args!("expected at least {least:?}, found {found:?}; a new event wakes the group at once anyway"),
        );
    }
    let (on_failure, exit_on_stop) = on_failure(section);
    let pump = PumpSettings {
        batch_events_max: section.integer("batch_size", 1, BATCH_SIZE_MAX).map_or(BATCH_SIZE_DEFAULT, |n| n as u32),
        commit_ahead: section.integer("commit_ahead", 0, COMMIT_AHEAD_MAX).map_or(1, |n| n as u32),
        on_failure,
    };
    Fields { start, pump, poll_interval, partitions_max, exit_on_stop }
}

/// The heartbeat's interval and the session timeout, which must fit together.
fn session(section: &Section<'_>, whose: &str) -> (Duration, Duration) {
    const NAMES: [&str; 2] = ["session_timeout", "heartbeat_interval"];
    let found = NAMES.map(|name| section.duration(name));
    let timeout = found[0].unwrap_or(SESSION_TIMEOUT_DEFAULT);
    let heartbeat = found[1].unwrap_or(HEARTBEAT_INTERVAL_DEFAULT);
    if heartbeat < HEARTBEAT_INTERVAL_MIN {
        let (least, found) = (show_duration(HEARTBEAT_INTERVAL_MIN), show_duration(heartbeat));
        section.fault_at(NAMES[1], format_args!("expected at least {least:?}, found {found:?}; a host whose process is gone is noticed within a second anyway"));
        return (heartbeat, timeout);
    }
    let least = heartbeat.saturating_mul(HEARTBEATS_PER_SESSION);
    let is_faulty = NAMES.iter().zip(found).any(|(name, found)| found.is_none() && section.is_set(name));
    // What a group takes from `[defaults]` as a whole is told there, once.
    if timeout >= least || is_faulty || !section.sets_any(&NAMES) {
        return (heartbeat, timeout);
    }
    let (raised, lowered) = (show_duration(least), timeout / HEARTBEATS_PER_SESSION);
    let [of_timeout, of_heartbeat] = found.map(|found| if found.is_some() { "" } else { ", the default" });
    let remedy = match found {
        [None, _] => format!("set it to {raised}"),
        [_, None] if lowered >= HEARTBEAT_INTERVAL_MIN => {
            format!("raise it to {raised}, or set heartbeat_interval to {}", show_duration(lowered))
        }
        _ => format!("raise it to {raised}"),
    };
    let (timeout_shown, heartbeat_shown) = (show_duration(timeout), show_duration(heartbeat));
    section.fault_among(
        &NAMES,
        format_args!(
            "{whose}: session_timeout ({timeout_shown}{of_timeout}) must be at least {HEARTBEATS_PER_SESSION} × heartbeat_interval ({heartbeat_shown}{of_heartbeat}); {remedy}"
        ),
    );
    (heartbeat, timeout)
}

fn start(section: &Section<'_>, text: &str) -> Start {
    match text {
        "earliest" => Start::Earliest,
        "latest" => Start::Latest,
        other => {
            match time::parse(other) {
                Some(time) => Start::At(time),
                None => {
                    section.fault_at("start", format_args!("expected \"earliest\", \"latest\" or a time such as \"2026-01-31T12:00:00Z\", found {other:?}"));
                    Start::Earliest
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Strategy {
    Retry,
    Stop,
}

fn on_failure(group: &Section<'_>) -> (FailurePolicy, bool) {
    let Some(section) = group.section_if_set("on_failure") else { return (FailurePolicy::default(), false) };
    let strategies = [("retry", Strategy::Retry), ("stop", Strategy::Stop)];
    let strategy = section.word("strategy", &strategies).unwrap_or(Strategy::Retry);
    let attempts_max = section.integer("attempts", 1, u64::from(u32::MAX)).map(|n| n as u32);
    let then = section.word("then", &[("stop", Then::Stop)]);
    let backoff = backoff(&section);
    let exit = section.boolean("exit").unwrap_or(false);

    if strategy == Strategy::Stop {
        for name in ["attempts", "then", "backoff"] {
            if section.is_set(name) {
                section.fault_at(
                    name,
                    "only means something with strategy = \"retry\"; remove it, or change the strategy",
                );
            }
        }
    } else if attempts_max.is_some() && !section.is_set("then") {
        section.fault_at(
            "attempts",
            "says when to give up but not what to do then; add then = \"stop\", or remove it to retry for ever",
        );
    }
    if exit && strategy != Strategy::Stop && then != Some(Then::Stop) {
        section.fault_at("exit", "ends the process when a partition stops, but nothing stops one here; use strategy = \"stop\" or then = \"stop\"");
    }
    section.finish();
    let policy = match strategy {
        Strategy::Retry => FailurePolicy::Retry { attempts_max, backoff, then },
        Strategy::Stop => FailurePolicy::Stop,
    };
    (policy, exit)
}

fn backoff(on_failure: &Section<'_>) -> Backoff {
    let usual = Backoff::default();
    let Some(section) = on_failure.section_if_set("backoff") else { return usual };
    let ms = |name, usual_ms| section.duration(name).map_or(usual_ms, |duration| duration.as_millis() as u64);
    let backoff = Backoff {
        initial_ms: ms("initial", usual.initial_ms),
        max_ms: ms("max", usual.max_ms),
        factor: section.number("factor").unwrap_or(usual.factor),
        jitter: section.number("jitter").unwrap_or(usual.jitter),
    };
    if backoff.initial_ms == 0 {
        section.fault_at("initial", "expected more than 0; a failing event would be tried in a busy loop");
    }
    if backoff.max_ms < backoff.initial_ms {
        let (max, initial) =
            [backoff.max_ms, backoff.initial_ms].map(|ms| show_duration(Duration::from_millis(ms))).into();
        section.fault_at("max", format_args!("({max}) must be at least initial ({initial})"));
    }
    if !(1.0..=1000.0).contains(&backoff.factor) {
        section.fault_at("factor", format_args!("expected 1.0 to 1000.0, found {}", backoff.factor));
    }
    if !(0.0..=1.0).contains(&backoff.jitter) {
        section.fault_at("jitter", format_args!("expected 0.0 to 1.0, found {}", backoff.jitter));
    }
    section.finish();
    backoff
}
