//! `on_failure`: what a group does with an event that fails.

use std::time::Duration;

use pelton_core::{Backoff, Breaker, FailurePolicy, PumpSettings, Retry, Then};

use super::{reader::Section, units::show_duration};

const LETTERS_MAX_MOST: u64 = 10_000_000;
/// More often would try a dependency that is away without end.
const AUTO_REPLAY_MIN: Duration = Duration::from_millis(100);

/// What `on_failure` says.
pub(super) struct Failures {
    pub(super) policy: FailurePolicy,
    pub(super) exit: bool,
    pub(super) auto_replay: Option<Duration>,
    pub(super) letters_max: u64,
    pub(super) letters_retention: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
enum Strategy {
    Retry,
    AtOnce(Then),
}

const THENS: [(&str, Then); 4] = [
    ("dead-letter", Then::DeadLetter),
    ("dead-letter-key", Then::DeadLetterKey),
    ("skip", Then::Skip),
    ("stop", Then::Stop),
];

pub(super) fn on_failure(group: &Section<'_>) -> Failures {
    let letters_max = PumpSettings::default().letters_max;
    let Some(section) = group.section_or_word("on_failure", "strategy") else {
        let policy = FailurePolicy::default();
        return Failures { policy, exit: false, auto_replay: None, letters_max, letters_retention: None };
    };
    let mut strategies = vec![("retry", Strategy::Retry)];
    strategies.extend(THENS.map(|(word, then)| (word, Strategy::AtOnce(then))));
    let strategy = section.word("strategy", &strategies).unwrap_or(Strategy::Retry);
    let attempts_max = section.integer("attempts", 1, u64::from(u32::MAX)).map(|n| n as u32);
    let then = section.word("then", &THENS);
    let backoff = backoff(&section);
    let (retry, then) = match strategy {
        Strategy::AtOnce(then) => {
            needs_retry(&section, &["attempts", "then", "backoff"]);
            (None, Some(then))
        }
        Strategy::Retry => {
            if attempts_max.is_some() && !section.is_set("then") {
                section.fault_at(
                    "attempts",
                    "says when to give up but not what to do then; add then = \"dead-letter\" (or \"dead-letter-key\", \"skip\", \"stop\"), or remove it to retry for ever",
                );
            }
            (Some(Retry { attempts_max, backoff }), then)
        }
    };
    let exit = section.boolean("exit").unwrap_or(false);
    // What cannot be read is a fault already, and not one of the fields that depend on it.
    let is_known = then.is_some() || !(section.is_set("then") || section.is_set("strategy"));
    let lacks = |thens: &[Then]| is_known && !then.is_some_and(|then| thens.contains(&then));
    if exit && lacks(&[Then::Stop]) {
        section.fault_at("exit", "ends the process when a partition stops, but nothing stops one here; use strategy = \"stop\" or then = \"stop\"");
    }
    let failures = Failures {
        policy: FailurePolicy {
            retry,
            then,
            breaker: breaker(&section, lacks(&[Then::DeadLetter, Then::DeadLetterKey, Then::Skip])),
        },
        exit,
        auto_replay: auto_replay(&section, lacks(&[Then::DeadLetterKey])),
        letters_max: section.integer("dead_letters_max", 1, LETTERS_MAX_MOST).unwrap_or(letters_max),
        letters_retention: section.duration_or_for_ever("dead_letters_retention", "dead letters"),
    };
    if failures.letters_retention.is_some_and(|retention| retention.is_zero()) {
        section.fault_at("dead_letters_retention", "expected more than 0; every dead letter would be lost at once");
    }
    if lacks(&[Then::DeadLetter, Then::DeadLetterKey]) {
        for name in ["dead_letters_max", "dead_letters_retention"].into_iter().filter(|name| section.is_set(name)) {
            section.fault_at(name, "only means something where events become dead letters; use \"dead-letter\" or \"dead-letter-key\" as strategy or then, or remove it");
        }
    }
    section.finish();
    failures
}

fn needs_retry(section: &Section<'_>, names: &[&'static str]) {
    for name in names.iter().filter(|name| section.is_set(name)) {
        section.fault_at(name, "only means something with strategy = \"retry\"; remove it, or change the strategy");
    }
}

/// `is_idle`: nothing is given up here.
fn breaker(on_failure: &Section<'_>, is_idle: bool) -> Option<Breaker> {
    let section = on_failure.section_if_set("breaker")?;
    let failures = section.integer("failures", 1, u64::from(u32::MAX));
    let pause = section.duration("pause");
    for (name, is_set) in [("failures", failures.is_some()), ("pause", pause.is_some())] {
        if !is_set && !section.is_set(name) {
            section.fault(format_args!("{name} is missing; expected breaker = {{ failures = 20, pause = \"30s\" }}"));
        }
    }
    if pause.is_some_and(|pause| pause.is_zero()) {
        section.fault_at("pause", "expected more than 0; a failing event would be tried in a busy loop");
    }
    if is_idle {
        on_failure.fault_at("breaker", "pauses a partition instead of giving one event after another up, but nothing gives one up here; use \"dead-letter\", \"dead-letter-key\" or \"skip\" as strategy or then, or remove it");
    }
    section.finish();
    Some(Breaker { failures: failures? as u32, pause_ms: pause?.as_millis() as u64 })
}

/// `is_idle`: no key is parked here.
fn auto_replay(section: &Section<'_>, is_idle: bool) -> Option<Duration> {
    let auto_replay = section.duration("auto_replay")?;
    if is_idle {
        section.fault_at("auto_replay", "replays parked keys by itself, but nothing parks one here; use strategy = \"dead-letter-key\" or then = \"dead-letter-key\", or remove it");
    }
    if auto_replay < AUTO_REPLAY_MIN {
        let (least, found) = (show_duration(AUTO_REPLAY_MIN), show_duration(auto_replay));
        section.fault_at("auto_replay", format_args!("expected at least {least:?}, found {found:?}"));
    }
    Some(auto_replay)
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
    // What cannot be read is a fault already.
    let is_known = |name| section.duration(name).is_some() || !section.is_set(name);
    if is_known("initial") && is_known("max") && backoff.max_ms < backoff.initial_ms {
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
