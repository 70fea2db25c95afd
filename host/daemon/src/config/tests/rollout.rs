//! How a new version of a handler takes over, and what brings the one before it back.

use pelton_core::{Canary, Tolerance};

use super::{accepts, refuses_handler};
use crate::config::{Gate, Require, RolloutConfig};

#[track_caller]
fn rollout(fields: &str) -> RolloutConfig {
    let text = format!("[handlers.invoice]\nmodule = \"invoice.wasm\"\n{fields}");
    accepts(&text).handlers.remove("invoice").expect("declared").rollout
}

#[test]
fn a_new_version_takes_over_everywhere_and_is_watched() {
    let usual = RolloutConfig { canary: None, tolerance: Some(Tolerance::default()), replay: None };
    assert_eq!(rollout(""), usual);
    assert_eq!(rollout("rollout = {}\n"), usual);
    assert_eq!(rollout("rollout = { rollback = true }\n"), usual);
    assert_eq!(RolloutConfig::default(), usual);
}

#[test]
fn everything_about_a_rollout_can_be_set() {
    let set = rollout(
        "[handlers.invoice.rollout]\ncanary = { partitions = 2, for = \"2m\" }\n\
         rollback = { traps = 0, errors = 0.25, calls = 5, watch = \"30s\" }\n\
         replay = { last = 1000, require = \"same\" }\n",
    );
    assert_eq!(
        set,
        RolloutConfig {
            canary: Some(Canary { partitions: 2, for_ms: 120_000 }),
            tolerance: Some(Tolerance { traps: 0, errors: 0.25, calls: 5, watch_ms: 30_000 }),
            replay: Some(Gate { last: 1000, require: Require::Same }),
        }
    );
    let gate = rollout("rollout = { replay = { last = 1, require = \"no-new-errors\" } }\n").replay;
    assert_eq!(gate, Some(Gate { last: 1, require: Require::NoNewErrors }));
}

#[test]
fn a_rollback_is_tuned_field_by_field_or_turned_off() {
    let tolerance = |fields: &str| rollout(&format!("rollout = {{ rollback = {fields} }}\n")).tolerance;
    assert_eq!(tolerance("false"), None);
    assert_eq!(tolerance("{}"), Some(Tolerance::default()));
    assert_eq!(tolerance("{ traps = 1 }"), Some(Tolerance { traps: 1, ..Tolerance::default() }));
    assert_eq!(tolerance("{ errors = 1 }"), Some(Tolerance { errors: 1.0, ..Tolerance::default() }));
}

#[test]
fn a_rollback_is_a_table_or_false() {
    refuses_handler(
        "rollout = { rollback = \"off\" }\n",
        &[(
            1,
            r#"handlers.invoice.rollout.rollback: expected false or a table such as { traps = 3, errors = 0.5, calls = 20, watch = "10m" }, found the string "off""#,
        )],
    );
}

#[test]
fn a_rollback_out_of_bounds_is_refused_with_the_bounds() {
    refuses_handler(
        "[handlers.invoice.rollout.rollback]\ntraps = -1\nerrors = 1.5\ncalls = 0\nwatch = \"0s\"\n",
        &[
            (2, "handlers.invoice.rollout.rollback.traps: expected 0 to 4294967295, found -1"),
            (
                3,
                "handlers.invoice.rollout.rollback.errors: expected a share of all calls, more than 0 and at most 1, found 1.5",
            ),
            (4, "handlers.invoice.rollout.rollback.calls: expected 1 to 4294967295, found 0"),
            (5, "handlers.invoice.rollout.rollback.watch: expected more than 0; rollback = false watches nothing"),
        ],
    );
    for bad in ["0.0", "nan", "-0.1", "inf"] {
        let found = bad.replace("nan", "NaN").replace("0.0", "0");
        refuses_handler(
            &format!("rollout = {{ rollback = {{ errors = {bad} }} }}\n"),
            &[(
                1,
                &format!(
                    "handlers.invoice.rollout.rollback.errors: expected a share of all calls, more than 0 and at most 1, found {found}"
                ),
            )],
        );
    }
}

#[test]
fn a_canary_says_where_and_for_how_long() {
    let expected = "expected canary = { partitions = 1, for = \"2m\" }";
    refuses_handler(
        "rollout = { canary = {} }\n",
        &[
            (1, &format!("handlers.invoice.rollout.canary: partitions is missing; {expected}")),
            (1, &format!("handlers.invoice.rollout.canary: for is missing; {expected}")),
        ],
    );
    refuses_handler(
        "rollout = { canary = { partitions = 0, for = \"0s\" } }\n",
        &[
            (1, "handlers.invoice.rollout.canary.partitions: expected 1 to 4096, found 0"),
            (
                1,
                "handlers.invoice.rollout.canary.for: expected more than 0; without a canary a new version takes over everywhere at once",
            ),
        ],
    );
    refuses_handler(
        "rollout = { canary = true }\n",
        &[(1, "handlers.invoice.rollout.canary: expected a table, found the boolean true")],
    );
}

#[test]
fn a_gate_says_how_many_events_and_what_is_asked() {
    let expected = "expected replay = { last = 1000, require = \"no-new-errors\" }";
    refuses_handler(
        "rollout = { replay = { last = 10 } }\n",
        &[(1, &format!("handlers.invoice.rollout.replay: require is missing; {expected}"))],
    );
    refuses_handler(
        "[handlers.invoice.rollout.replay]\nlast = 100_001\nrequire = \"all\"\n",
        &[
            (2, "handlers.invoice.rollout.replay.last: expected 1 to 100000, found 100001"),
            (3, r#"handlers.invoice.rollout.replay.require: expected "same" or "no-new-errors", found "all""#),
        ],
    );
}

#[test]
fn an_unknown_field_of_a_rollout_is_refused() {
    refuses_handler(
        "[handlers.invoice.rollout]\nblue_green = true\nrollback = { latency = 1 }\n",
        &[
            (
                2,
                r#"unknown field "blue_green" in [handlers.invoice.rollout]; expected one of: canary, replay, rollback"#,
            ),
            (
                3,
                r#"unknown field "latency" in [handlers.invoice.rollout.rollback]; expected one of: calls, errors, traps, watch"#,
            ),
        ],
    );
}
