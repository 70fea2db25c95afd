//! Commit and failure strategies, filters, remembered ids and retention.

use std::{collections::BTreeMap, time::Duration};

use pelton_core::{Breaker, CommitMode, FailurePolicy, Filter, PumpSettings, Retry, Then};

use super::{AROUND, accepts, group, refuses, refuses_group};

/// That `on_failure` with these fields, one a line, has these faults.
#[track_caller]
fn refuses_failures(fields: &str, expected: &[(usize, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(line, fault)| (line + 1, format!("groups.billing.on_failure.{fault}"))).collect();
    let expected: Vec<_> = expected.iter().map(|(line, fault)| (*line, fault.as_str())).collect();
    refuses_group(&format!("[groups.billing.on_failure]\n{fields}"), &expected);
}

// --- Good ones --------------------------------------------------------------------------------------------------

#[test]
fn what_is_not_set_has_its_default() {
    let group = group("");
    assert_eq!(group.settings.pump, PumpSettings::default());
    assert_eq!((group.settings.filter, group.settings.idempotent), (Filter::default(), false));
    assert_eq!(group.idempotent_window, Duration::from_secs(7 * 86_400));
    assert_eq!((group.auto_replay, group.letters_retention), (None, None));
    assert_eq!(accepts(AROUND).streams["orders"].retention_ms, None);
}

#[test]
fn there_are_four_ways_to_commit() {
    let mode = |commit: &str| group(&format!("commit = {commit}\n")).settings.pump.commit;
    assert_eq!(mode("\"after-batch\""), CommitMode::AfterBatch);
    assert_eq!(mode("\"after-each\""), CommitMode::AfterEach);
    assert_eq!(mode("\"manual\""), CommitMode::Manual);
    assert_eq!(mode("{ every = \"5s\" }"), CommitMode::Every(5_000));
}

#[test]
fn there_are_five_ways_to_fail() {
    let policy =
        |strategy: &str| group(&format!("on_failure = {{ strategy = {strategy:?} }}\n")).settings.pump.on_failure;
    assert_eq!(policy("retry"), FailurePolicy::default());
    assert_eq!(policy("dead-letter"), FailurePolicy::at_once(Then::DeadLetter));
    assert_eq!(policy("dead-letter-key"), FailurePolicy::at_once(Then::DeadLetterKey));
    assert_eq!(policy("skip"), FailurePolicy::at_once(Then::Skip));
    assert_eq!(policy("stop"), FailurePolicy::at_once(Then::Stop));
}

#[test]
fn everything_can_be_set() {
    let group = group(
        r#"
idempotent = true
idempotent_window = "1h"
filter = { kind = ["placed", "paid"], headers = { tier = ["gold"], region = ["${REGION}", "us"] } }
[groups.billing.on_failure]
attempts = 5
then = "dead-letter-key"
auto_replay = "10m"
dead_letters_max = 50
dead_letters_retention = "90d"
breaker = { failures = 20, pause = "30s" }
"#,
    );
    let headers = [("tier".into(), vec!["gold".into()]), ("region".into(), vec!["eu".into(), "us".into()])].into_iter();
    let kinds = vec!["placed".into(), "paid".into()];
    assert_eq!(group.settings.filter, Filter { kinds, headers: headers.collect::<BTreeMap<_, _>>() });
    assert!(group.settings.idempotent);
    assert_eq!(group.idempotent_window, Duration::from_secs(3600));
    let retry = Some(Retry { attempts_max: Some(5), ..Retry::default() });
    let breaker = Some(Breaker { failures: 20, pause_ms: 30_000 });
    let policy = FailurePolicy { retry, then: Some(Then::DeadLetterKey), breaker };
    assert_eq!((group.settings.pump.on_failure, group.settings.pump.letters_max), (policy, 50));
    assert_eq!(group.auto_replay, Some(Duration::from_secs(600)));
    assert_eq!(group.letters_retention, Some(Duration::from_secs(90 * 86_400)));
    let text = AROUND.replace("[streams.orders]\n", "[streams.orders]\nretention = \"30d\"\n");
    assert_eq!(accepts(&text).streams["orders"].retention_ms, Some(30 * 86_400_000));
}

// --- Commits, filters, remembered ids, retention ----------------------------------------------------------------

#[test]
fn a_commit_is_a_word_or_every_so_often() {
    let expected = r#"groups.billing.commit: expected "after-batch", "after-each", "manual" or { every = "5s" }"#;
    refuses_group("commit = \"each\"\n", &[(1, &format!("{expected}, found \"each\""))]);
    refuses_group("commit = 5\n", &[(1, &format!("{expected}, found the integer 5"))]);
    refuses_group("commit = {}\n", &[(1, r#"groups.billing.commit: every is missing; expected { every = "5s" }"#)]);
    refuses_group(
        "commit = { every = \"0s\" }\n",
        &[(
            1,
            r#"groups.billing.commit.every: expected at least "1ms", found "0ms"; "after-batch" commits as soon as it can"#,
        )],
    );
    refuses_group(
        "commit = { each = \"5s\", every = 5 }\n",
        &[
            (1, r#"groups.billing.commit.every: expected a duration in quotes, such as "30s", found the integer 5"#),
            (1, r#"unknown field "each" in [groups.billing.commit]; expected one of: every"#),
        ],
    );
}

#[test]
fn a_filter_lets_something_pass() {
    refuses_group(
        "filter = {}\n",
        &[(
            1,
            r#"groups.billing.filter: says nothing; expected kind = ["order.placed"] or headers = { name = ["value"] }"#,
        )],
    );
    refuses_group(
        "[groups.billing.filter]\nkind = []\nheaders = { tier = [] }\n",
        &[
            (2, "groups.billing.filter.kind: lists no kind, so that no event would match; list some, or remove it"),
            (
                3,
                r#"groups.billing.filter.headers: lists no value for "tier", so that no event would match; list some, or remove it"#,
            ),
        ],
    );
    refuses_group(
        "[groups.billing.filter]\nkind = \"placed\"\nheaders = { tier = \"gold\" }\nkey = [\"k\"]\n",
        &[
            (2, r#"groups.billing.filter.kind: expected a list of strings, found the string "placed""#),
            (3, r#"groups.billing.filter.headers.tier: expected a list of strings, found the string "gold""#),
            (4, r#"unknown field "key" in [groups.billing.filter]; expected one of: headers, kind"#),
        ],
    );
}

#[test]
fn a_window_needs_ids_that_are_remembered() {
    let fault = "groups.billing.idempotent_window: says how long handled ids are remembered, but none are; add idempotent = true, or remove it";
    refuses_group("idempotent_window = \"1d\"\n", &[(1, fault)]);
    refuses_group("idempotent = false\nidempotent_window = \"1d\"\n", &[(2, fault)]);
    refuses_group(
        "idempotent = true\nidempotent_window = \"0s\"\n",
        &[(2, "groups.billing.idempotent_window: expected more than 0; nothing would be remembered")],
    );
    refuses_group(
        "idempotent = \"yes\"\nidempotent_window = \"1d\"\n",
        &[(1, r#"groups.billing.idempotent: expected true or false, found the string "yes""#)],
    );
}

#[test]
fn a_window_may_come_from_the_defaults_for_the_groups_that_remember() {
    let config = accepts(&format!(
        "[defaults]\nstream = \"orders\"\nidempotent_window = \"1h\"\n{AROUND}[groups.audit]\nhandler = \"invoice\"\nidempotent = true\n"
    ));
    let remembers = |name: &str| (config.groups[name].settings.idempotent, config.groups[name].idempotent_window);
    assert_eq!(remembers("audit"), (true, Duration::from_secs(3600)));
    assert!(!remembers("billing").0);
    let text = format!("[defaults]\nidempotent = true\n{AROUND}idempotent_window = \"2h\"\n");
    let billing = &accepts(&text).groups["billing"];
    assert_eq!((billing.settings.idempotent, billing.idempotent_window), (true, Duration::from_secs(7200)));
    refuses(
        &format!("[defaults]\nidempotent = true\n{AROUND}idempotent = false\nidempotent_window = \"2h\"\n"),
        &[(
            10,
            "groups.billing.idempotent_window: says how long handled ids are remembered, but none are; add idempotent = true, or remove it",
        )],
    );
    // The group takes its stream from the defaults, and is a group all the same.
    refuses(
        "[defaults]\nstream = \"orders\"\nhandler = \"h\"\n[streams.orders]\n[handlers.h]\nmodule = \"h\"\n[groups.billing]\nidempotent_window = \"2h\"\n",
        &[(
            8,
            "groups.billing.idempotent_window: says how long handled ids are remembered, but none are; add idempotent = true, or remove it",
        )],
    );
}

#[test]
fn retention_is_some_time() {
    let stream = |retention: &str| format!("[streams.orders]\nretention = {retention}\n");
    let at = "streams.orders.retention";
    refuses(
        &stream("\"0d\""),
        &[(2, &format!("{at}: expected more than 0, or no retention at all: events are kept for ever then"))],
    );
    refuses(
        &stream("30"),
        &[(2, &format!("{at}: expected a duration in quotes, such as \"30d\", found the integer 30"))],
    );
    let duration = "expected a duration such as \"250ms\", \"30s\", \"5m\", \"2h\" or \"7d\"";
    refuses(
        &stream("\"forever\""),
        &[(2, &format!("{at}: {duration}, found \"forever\"; or leave it out to keep events for ever"))],
    );
    refuses(
        &stream("\"365001d\""),
        &[(
            2,
            &format!("{at}: expected at most \"365000d\", found \"365001d\"; or leave it out to keep events for ever"),
        )],
    );
}

// --- Failures ---------------------------------------------------------------------------------------------------

#[test]
fn a_strategy_and_a_then_are_words() {
    let words = r#""dead-letter", "dead-letter-key", "skip" or "stop""#;
    refuses_failures("strategy = \"dlq\"\n", &[(1, &format!(r#"strategy: expected "retry", {words}, found "dlq""#))]);
    refuses_failures("then = \"retry\"\n", &[(1, &format!("then: expected {words}, found \"retry\""))]);
    refuses_failures("then = true\n", &[(1, &format!("then: expected {words}, found the boolean true"))]);
}

#[test]
fn what_cannot_be_read_is_one_fault() {
    let fields = "then = \"dlq\"\nattempts = 3\nexit = true\nauto_replay = \"1m\"\nbreaker = { failures = 1, pause = \"1s\" }\ndead_letters_max = 1\n";
    refuses_failures(
        fields,
        &[(1, r#"then: expected "dead-letter", "dead-letter-key", "skip" or "stop", found "dlq""#)],
    );
}

#[test]
fn a_then_and_attempts_need_retry() {
    let only = r#"only means something with strategy = "retry"; remove it, or change the strategy"#;
    for strategy in ["dead-letter", "dead-letter-key", "skip", "stop"] {
        refuses_failures(
            &format!("strategy = {strategy:?}\nthen = \"skip\"\nattempts = 2\n"),
            &[(2, &format!("then: {only}")), (3, &format!("attempts: {only}"))],
        );
    }
}

#[test]
fn a_breaker_needs_something_that_gives_up() {
    let fault = r#"breaker: pauses a partition instead of giving one event after another up, but nothing gives one up here; use "dead-letter", "dead-letter-key" or "skip" as strategy or then, or remove it"#;
    let breaker = "breaker = { failures = 20, pause = \"30s\" }\n";
    refuses_failures(breaker, &[(1, fault)]);
    refuses_failures(&format!("strategy = \"stop\"\n{breaker}"), &[(2, fault)]);
    refuses_failures(&format!("then = \"stop\"\n{breaker}"), &[(2, fault)]);
    for strategy in ["dead-letter", "dead-letter-key", "skip"] {
        group(&format!("[groups.billing.on_failure]\nstrategy = {strategy:?}\n{breaker}"));
        group(&format!("[groups.billing.on_failure]\nthen = {strategy:?}\n{breaker}"));
    }
}

#[test]
fn a_breaker_has_a_number_and_a_pause() {
    let expected = r#"expected breaker = { failures = 20, pause = "30s" }"#;
    refuses_failures(
        "strategy = \"skip\"\nbreaker = {}\n",
        &[
            (2, &format!("breaker: failures is missing; {expected}")),
            (2, &format!("breaker: pause is missing; {expected}")),
        ],
    );
    refuses_failures(
        "strategy = \"skip\"\nbreaker = { failures = 0, pause = \"0s\" }\n",
        &[
            (2, "breaker.failures: expected 1 to 4294967295, found 0"),
            (2, "breaker.pause: expected more than 0; a failing event would be tried in a busy loop"),
        ],
    );
}

#[test]
fn auto_replay_needs_parked_keys() {
    let fault = r#"auto_replay: replays parked keys by itself, but nothing parks one here; use strategy = "dead-letter-key" or then = "dead-letter-key", or remove it"#;
    refuses_failures("auto_replay = \"10m\"\n", &[(1, fault)]);
    refuses_failures("strategy = \"dead-letter\"\nauto_replay = \"10m\"\n", &[(2, fault)]);
    refuses_failures(
        "strategy = \"dead-letter-key\"\nauto_replay = \"1ms\"\n",
        &[(2, r#"auto_replay: expected at least "100ms", found "1ms""#)],
    );
}

#[test]
fn limits_of_dead_letters_need_dead_letters() {
    let fault = r#"only means something where events become dead letters; use "dead-letter" or "dead-letter-key" as strategy or then, or remove it"#;
    refuses_failures(
        "strategy = \"skip\"\ndead_letters_max = 5\ndead_letters_retention = \"1d\"\n",
        &[(2, &format!("dead_letters_max: {fault}")), (3, &format!("dead_letters_retention: {fault}"))],
    );
    refuses_failures(
        "then = \"dead-letter\"\ndead_letters_max = 0\ndead_letters_retention = \"0s\"\n",
        &[
            (2, "dead_letters_max: expected 1 to 10000000, found 0"),
            (3, "dead_letters_retention: expected more than 0; every dead letter would be lost at once"),
        ],
    );
}

#[test]
fn an_exit_needs_a_stop() {
    let fault = r#"exit: ends the process when a partition stops, but nothing stops one here; use strategy = "stop" or then = "stop""#;
    refuses_failures("then = \"skip\"\nexit = true\n", &[(2, fault)]);
    refuses_failures("strategy = \"dead-letter\"\nexit = true\n", &[(2, fault)]);
}

#[test]
fn a_back_off_does_not_overflow() {
    refuses_failures(
        "[groups.billing.on_failure.backoff]\ninitial = \"1d\"\nmax = \"99999999999999999d\"\nfactor = inf\njitter = 1.5\n",
        &[
            (3, r#"backoff.max: expected at most "365000d", found "99999999999999999d""#),
            (4, "backoff.factor: expected 1.0 to 1000.0, found inf"),
            (5, "backoff.jitter: expected 0.0 to 1.0, found 1.5"),
        ],
    );
    let policy = group("on_failure = { backoff = { max = \"365000d\", factor = 1000, jitter = 1.0 } }\n")
        .settings
        .pump
        .on_failure;
    let longest = policy.retry.expect("retries").backoff.delay_ms(u32::MAX, 1.0);
    assert_eq!(longest, 2 * 365_000 * 86_400_000);
}
