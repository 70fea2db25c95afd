//! `[handlers.NAME.rollout]`: how a new version takes over.

use pelton_core::{Canary, Tolerance};

use super::{Gate, Require, RolloutConfig, reader::Section, sections::PARTITIONS_MAX};

/// They are read and handled before the new version is called: more would take minutes.
const REPLAY_LAST_MOST: u64 = 100_000;

pub(super) fn rollout(handler: &Section<'_>) -> RolloutConfig {
    let section = handler.section("rollout");
    let rollout = RolloutConfig { canary: canary(&section), tolerance: tolerance(&section), replay: replay(&section) };
    section.finish();
    rollout
}

fn canary(rollout: &Section<'_>) -> Option<Canary> {
    let section = rollout.section_if_set("canary")?;
    let partitions = section.integer("partitions", 1, PARTITIONS_MAX);
    let time = section.duration("for");
    needs_all(&section, &["partitions", "for"], "canary = { partitions = 1, for = \"2m\" }");
    if time.is_some_and(|time| time.is_zero()) {
        section.fault_at("for", "expected more than 0; without a canary a new version takes over everywhere at once");
    }
    section.finish();
    Some(Canary { partitions: partitions? as u32, for_ms: time?.as_millis() as u64 })
}

/// A table, or `false` for none.
fn tolerance(rollout: &Section<'_>) -> Option<Tolerance> {
    let usual = Tolerance::default();
    if !rollout.is_table("rollback") {
        let expected = "false or a table such as { traps = 3, errors = 0.5, calls = 20, watch = \"10m\" }";
        return rollout.boolean_or("rollback", expected).unwrap_or(true).then_some(usual);
    }
    let section = rollout.section_if_set("rollback")?;
    let integer = |name, least, usual| section.integer(name, least, u64::from(u32::MAX)).map_or(usual, |n| n as u32);
    let watch = section.duration("watch");
    let tolerance = Tolerance {
        traps: integer("traps", 0, usual.traps),
        errors: section.number("errors").unwrap_or(usual.errors),
        calls: integer("calls", 1, usual.calls),
        watch_ms: watch.map_or(usual.watch_ms, |watch| watch.as_millis() as u64),
    };
    // Not a number is refused too.
    if !(tolerance.errors > 0.0 && tolerance.errors <= 1.0) {
        let found = tolerance.errors;
        section.fault_at(
            "errors",
            format_args!("expected a share of all calls, more than 0 and at most 1, found {found}"),
        );
    }
    if tolerance.watch_ms == 0 {
        section.fault_at("watch", "expected more than 0; rollback = false watches nothing");
    }
    section.finish();
    Some(tolerance)
}

fn replay(rollout: &Section<'_>) -> Option<Gate> {
    let section = rollout.section_if_set("replay")?;
    let last = section.integer("last", 1, REPLAY_LAST_MOST);
    let require = section.word("require", &[("same", Require::Same), ("no-new-errors", Require::NoNewErrors)]);
    needs_all(&section, &["last", "require"], "replay = { last = 1000, require = \"no-new-errors\" }");
    section.finish();
    Some(Gate { last: last? as u32, require: require? })
}

fn needs_all(section: &Section<'_>, names: &[&'static str], example: &str) {
    for name in names.iter().filter(|name| !section.is_set(name)) {
        section.fault(format_args!("{name} is missing; expected {example}"));
    }
}
