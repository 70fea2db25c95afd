//! `[defaults]` and `[groups]`.

use std::{collections::BTreeMap, time::Duration};

use pelton_core::{CommitMode, Filter, PumpSettings};
use pelton_store::{GroupSpec, Start, StreamSpec};

use super::{GroupConfig, HandlerConfig, failures::on_failure, reader::Section, units::show_duration};
use crate::{pump::GroupSettings, time};

const BATCH_SIZE_DEFAULT: u32 = 100;
/// A batch is one transaction and, for batch handlers, one value in the guest's memory.
const BATCH_SIZE_MAX: u64 = 10_000;
const COMMIT_AHEAD_MAX: u64 = 100;
const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// More often would be a busy loop over the database.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// More often would be what "after-batch" does.
const COMMIT_EVERY_MIN: Duration = Duration::from_millis(1);
const IDEMPOTENT_WINDOW_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
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
    group_fields(&defaults, false);
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
    section.mark("stream");
    let handler = section.required_string("handler", "\"invoice\"").unwrap_or_default();
    if !handler.is_empty() && !handlers.contains_key(&handler) {
        section.fault_at("handler", format_args!("handler {handler:?} is not declared; add [handlers.{handler}]"));
    }
    let fields = group_fields(&section, true);
    let (heartbeat_interval, session_timeout) = session(&section, &format!("group {name:?}"));
    section.finish();
    GroupConfig {
        spec: GroupSpec { name: name.into(), stream, handler, start: fields.start },
        settings: fields.settings,
        idempotent_window: fields.idempotent_window,
        auto_replay: fields.auto_replay,
        letters_retention: fields.letters_retention,
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
    settings: GroupSettings,
    idempotent_window: Duration,
    auto_replay: Option<Duration>,
    letters_retention: Option<Duration>,
    poll_interval: Duration,
    partitions_max: u32,
    exit_on_stop: bool,
}

/// Not `is_group`: these are `[defaults]`, of which a group may take one field without another.
fn group_fields(section: &Section<'_>, is_group: bool) -> Fields {
    let start = section.string("start").map_or(Start::Earliest, |text| start(section, &text));
    let commit = commit(section);
    let partitions_max = section.integer("partitions_max", 0, u64::from(u32::MAX)).map_or(0, |n| n as u32);
    let poll_interval = section.duration("poll_interval").unwrap_or(POLL_INTERVAL_DEFAULT);
    if poll_interval < POLL_INTERVAL_MIN {
        let (found, least) = (show_duration(poll_interval), show_duration(POLL_INTERVAL_MIN));
        section.fault_at(
            "poll_interval",
            format_args!("expected at least {least:?}, found {found:?}; a new event wakes the group at once anyway"),
        );
    }
    let failures = on_failure(section);
    let pump = PumpSettings {
        batch_events_max: section.integer("batch_size", 1, BATCH_SIZE_MAX).map_or(BATCH_SIZE_DEFAULT, |n| n as u32),
        commit,
        commit_ahead: section.integer("commit_ahead", 0, COMMIT_AHEAD_MAX).map_or(1, |n| n as u32),
        on_failure: failures.policy,
        letters_max: failures.letters_max,
    };
    let (idempotent, idempotent_window) = idempotent(section, is_group);
    Fields {
        start,
        settings: GroupSettings { pump, filter: filter(section), idempotent },
        idempotent_window,
        auto_replay: failures.auto_replay,
        letters_retention: failures.letters_retention,
        poll_interval,
        partitions_max,
        exit_on_stop: failures.exit,
    }
}

/// Whether handled ids are remembered, and for how long.
fn idempotent(section: &Section<'_>, is_group: bool) -> (bool, Duration) {
    let idempotent = section.boolean("idempotent");
    let window = section.duration("idempotent_window");
    if window.is_some_and(|window| window.is_zero()) {
        section.fault_at("idempotent_window", "expected more than 0; nothing would be remembered");
    }
    let is_off = idempotent == Some(false) || !section.is_set("idempotent");
    // A window of the defaults is for those groups that remember.
    if is_group && is_off && section.sets_any(&["idempotent_window"]) {
        section.fault_at(
            "idempotent_window",
            "says how long handled ids are remembered, but none are; add idempotent = true, or remove it",
        );
    }
    (idempotent.unwrap_or(false), window.unwrap_or(IDEMPOTENT_WINDOW_DEFAULT))
}

/// A word, or `{ every = "5s" }`.
fn commit(section: &Section<'_>) -> CommitMode {
    let words = [
        ("after-batch", CommitMode::AfterBatch),
        ("after-each", CommitMode::AfterEach),
        ("manual", CommitMode::Manual),
    ];
    if !section.is_table("commit") {
        let expected = "\"after-batch\", \"after-each\", \"manual\" or { every = \"5s\" }";
        return section.word_or("commit", &words, expected).unwrap_or_default();
    }
    let Some(table) = section.section_if_set("commit") else { return CommitMode::default() };
    let every = table.duration("every");
    match every {
        None if !table.is_set("every") => table.fault("every is missing; expected { every = \"5s\" }"),
        Some(every) if every < COMMIT_EVERY_MIN => {
            let (least, found) = (show_duration(COMMIT_EVERY_MIN), show_duration(every));
            table.fault_at(
                "every",
                format_args!("expected at least {least:?}, found {found:?}; \"after-batch\" commits as soon as it can"),
            );
        }
        _ => {}
    }
    table.finish();
    every.map_or(CommitMode::default(), |every| CommitMode::Every(every.as_millis() as u64))
}

fn filter(group: &Section<'_>) -> Filter {
    let Some(section) = group.section_if_set("filter") else { return Filter::default() };
    let kinds = section.strings("kind");
    if kinds.as_ref().is_some_and(Vec::is_empty) {
        section.fault_at("kind", "lists no kind, so that no event would match; list some, or remove it");
    }
    let headers: BTreeMap<String, Vec<String>> = section.string_lists("headers").into_iter().collect();
    for (name, _) in headers.iter().filter(|(_, values)| values.is_empty()) {
        section.fault_at(
            "headers",
            format_args!("lists no value for {name:?}, so that no event would match; list some, or remove it"),
        );
    }
    if kinds.is_none() && headers.is_empty() && !section.is_set("kind") && !section.is_set("headers") {
        section.fault("says nothing; expected kind = [\"order.placed\"] or headers = { name = [\"value\"] }");
    }
    section.finish();
    Filter { kinds: kinds.unwrap_or_default(), headers }
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
