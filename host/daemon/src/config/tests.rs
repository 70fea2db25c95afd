//! Bad configurations and their exact errors; and good ones, as they are understood.

use std::{path::Path, time::Duration};

use pelton_core::{Backoff, Canary, FailurePolicy, Retry, Then, Timestamp};
use pelton_sandbox::{HttpGrant, Limits, Origin, Recycle, Secret};
use pelton_store::{Durability, Start};

use super::{Config, GroupConfig, RolloutConfig};

mod handlers;
mod rollout;
mod strategies;

/// What the groups of most tests here need.
const AROUND: &str = "[streams.orders]
[handlers.invoice]
module = \"invoice.wasm\"
[groups.billing]
stream = \"orders\"
handler = \"invoice\"
";

fn environment(name: &str) -> Option<String> {
    match name {
        "REGION" => Some("eu".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, super::ConfigError> {
    Config::parse(text, Path::new("/etc/pelton/workers.toml"), &environment)
}

#[track_caller]
fn accepts(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("refused:\n{errors}\nin:\n{text}"))
}

/// That these are the faults of a text, in this order: line, and message.
#[track_caller]
fn refuses(text: &str, expected: &[(usize, &str)]) {
    let errors = parse(text).expect_err("refused");
    let faults: Vec<_> = errors.faults.iter().map(|fault| (fault.line, fault.message.as_str())).collect();
    assert_eq!(faults, expected, "in:\n{text}");
}

/// That these are the faults of a group with these fields, which begin on line 1.
#[track_caller]
fn refuses_group(fields: &str, expected: &[(usize, &str)]) {
    let before = AROUND.lines().count();
    let expected: Vec<_> = expected.iter().map(|(line, message)| (line + before, *message)).collect();
    refuses(&format!("{AROUND}{fields}"), &expected);
}

#[track_caller]
fn refuses_handler(fields: &str, expected: &[(usize, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(line, message)| (line + 2, *message)).collect();
    refuses(&format!("[handlers.invoice]\nmodule = \"invoice.wasm\"\n{fields}"), &expected);
}

#[track_caller]
fn group(fields: &str) -> GroupConfig {
    accepts(&format!("{AROUND}{fields}")).groups.remove("billing").expect("declared")
}

// --- Unknown fields ---------------------------------------------------------------------------------------------

#[test]
fn an_unknown_field_is_refused_in_every_table() {
    refuses(
        "hosts = 1\n",
        &[(
            1,
            r#"unknown field "hosts" in the file; expected one of: defaults, groups, handlers, host, store, streams"#,
        )],
    );
    refuses(
        "[host]\nname = \"a\"\n",
        &[(
            2,
            r#"unknown field "name" in [host]; expected one of: cache, cache_max, cleanup_interval, compilations, id, labels, memory, shutdown_grace"#,
        )],
    );
    refuses(
        "[store]\npath = \"a\"\n",
        &[(2, r#"unknown field "path" in [store]; expected one of: auto_migrate, durability, schema, url"#)],
    );
    refuses(
        "[streams.orders]\npartition = 1\n",
        &[(2, r#"unknown field "partition" in [streams.orders]; expected one of: partitions, payload_max, retention"#)],
    );
    let of_handler = "allow, config, digest, instances, limits, module, rollout, secrets";
    refuses_handler(
        "wasm = \"a\"\n",
        &[(1, &format!(r#"unknown field "wasm" in [handlers.invoice]; expected one of: {of_handler}"#))],
    );
    refuses_handler(
        "[handlers.invoice.limits]\ncpu = 1\n",
        &[(
            2,
            r#"unknown field "cpu" in [handlers.invoice.limits]; expected one of: http_body, instances, log_rate, memory, output, stack, table, timeout"#,
        )],
    );
    refuses_handler(
        "[handlers.invoice.instances]\nmin = 1\n",
        &[(2, r#"unknown field "min" in [handlers.invoice.instances]; expected one of: age, memory, reuse"#)],
    );
    refuses_group(
        "[groups.billing.on_failure]\nretries = 1\n",
        &[(
            2,
            r#"unknown field "retries" in [groups.billing.on_failure]; expected one of: attempts, auto_replay, backoff, breaker, dead_letters_max, dead_letters_retention, exit, strategy, then"#,
        )],
    );
    refuses_group(
        "on_failure = { backoff = { min = \"1s\" } }\n",
        &[(
            1,
            r#"unknown field "min" in [groups.billing.on_failure.backoff]; expected one of: factor, initial, jitter, max"#,
        )],
    );
}

#[test]
fn an_unknown_field_of_a_group_is_refused_in_the_defaults_too() {
    let expected = "batch_size, commit, commit_ahead, filter, handler, heartbeat_interval, idempotent, idempotent_window, on_failure, partitions_max, poll_interval, session_timeout, start, stream";
    refuses_group(
        "batch = 1\n",
        &[(1, &format!(r#"unknown field "batch" in [groups.billing]; expected one of: {expected}"#))],
    );
    refuses(
        "[defaults]\nbatch = 1\n",
        &[(2, &format!(r#"unknown field "batch" in [defaults]; expected one of: {expected}"#))],
    );
}

#[test]
fn fields_that_later_versions_bring_are_unknown_and_not_ignored() {
    for (table, field) in
        [("host", "listen = \"127.0.0.1:7878\""), ("host", "admin_token = \"t\""), ("handlers.invoice", "warm = 2")]
    {
        let own = AROUND.replace(&format!("[{table}]\n"), "");
        let declared = own.len() != AROUND.len();
        let text = match declared {
            true => AROUND.replace(&format!("[{table}]\n"), &format!("[{table}]\n{field}\n")),
            false => format!("{AROUND}[{table}]\n{field}\n"),
        };
        let name = field.split(' ').next().unwrap_or_default();
        let errors = parse(&text).expect_err(name).to_string();
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(&format!("unknown field {name:?} in [{table}]; expected one of: ")), "{errors}");
    }
}

// --- Types and values -------------------------------------------------------------------------------------------

#[test]
fn a_wrong_type_names_the_path_and_both_types() {
    refuses("host = 1\n", &[(1, "host: expected a table, found the integer 1")]);
    refuses("[streams]\norders = 8\n", &[(2, "streams.orders: expected a table, found the integer 8")]);
    refuses("[host]\nid = 7\n", &[(2, "host.id: expected a string, found the integer 7")]);
    refuses(
        "[host]\nshutdown_grace = 10\n",
        &[(2, r#"host.shutdown_grace: expected a duration in quotes, such as "30s", found the integer 10"#)],
    );
    refuses(
        "[store]\nauto_migrate = \"yes\"\n",
        &[(2, r#"store.auto_migrate: expected true or false, found the string "yes""#)],
    );
    refuses(
        "[streams.orders]\npartitions = \"8\"\npayload_max = 1024\n",
        &[
            (2, r#"streams.orders.partitions: expected a whole number, found the string "8""#),
            (3, r#"streams.orders.payload_max: expected a size in quotes, such as "64MiB", found the integer 1024"#),
        ],
    );
    refuses_handler(
        "config = { retries = 3 }\nallow = { emit = \"orders\" }\n",
        &[
            (1, "handlers.invoice.config.retries: expected a string, found the integer 3"),
            (2, r#"handlers.invoice.allow.emit: expected a list of strings, found the string "orders""#),
        ],
    );
    refuses_group("batch_size = 1.5\n", &[(1, "groups.billing.batch_size: expected a whole number, found a float")]);
    refuses_group(
        "on_failure = \"retry\"\n",
        &[(
            1,
            r#"groups.billing.on_failure: expected a table, found the string "retry"; write { strategy = "retry" }"#,
        )],
    );
    refuses_group(
        "on_failure = { backoff = { factor = true } }\n",
        &[(1, "groups.billing.on_failure.backoff.factor: expected a number, found the boolean true")],
    );
}

#[test]
fn a_missing_field_is_asked_for_with_an_example() {
    refuses(
        "[handlers.invoice]\n",
        &[(1, r#"handlers.invoice: module is missing; add module = "handlers/invoice.wasm""#)],
    );
    refuses(
        "[groups.billing]\n",
        &[
            (1, r#"groups.billing: stream is missing; add stream = "orders""#),
            (1, r#"groups.billing: handler is missing; add handler = "invoice""#),
        ],
    );
}

#[test]
fn a_name_that_nothing_declares_is_refused_with_the_table_to_add() {
    refuses(
        "[groups.billing]\nstream = \"order\"\nhandler = \"invoices\"\n",
        &[
            (2, r#"groups.billing.stream: stream "order" is not declared; add [streams.order]"#),
            (3, r#"groups.billing.handler: handler "invoices" is not declared; add [handlers.invoices]"#),
        ],
    );
    refuses_handler(
        "[handlers.invoice.allow]\nemit = [\"invoices\"]\n",
        &[(2, r#"handlers.invoice.allow.emit: stream "invoices" is not declared; add [streams.invoices]"#)],
    );
}

#[test]
fn a_duration_needs_a_number_and_a_unit() {
    let expected = r#"expected a duration such as "250ms", "30s", "5m", "2h" or "7d""#;
    for bad in ["", "10", "10 parsecs", "-1s", "s"] {
        refuses_group(
            &format!("poll_interval = {bad:?}\n"),
            &[(1, &format!("groups.billing.poll_interval: {expected}, found {bad:?}"))],
        );
    }
    refuses_group(
        "poll_interval = \"1ms\"\n",
        &[(
            1,
            r#"groups.billing.poll_interval: expected at least "10ms", found "1ms"; a new event wakes the group at once anyway"#,
        )],
    );
    refuses_handler(
        "limits = { timeout = \"0s\" }\n",
        &[(1, "handlers.invoice.limits.timeout: expected more than 0; no call could ever end in time")],
    );
}

#[test]
fn a_size_needs_a_number_and_a_unit() {
    refuses_handler(
        "limits = { memory = \"64\" }\n",
        &[(1, r#"handlers.invoice.limits.memory: expected a size such as "512KiB", "64MiB" or "1GiB", found "64""#)],
    );
    refuses_handler(
        "limits = { memory = \"1KiB\" }\n",
        &[(1, r#"handlers.invoice.limits.memory: expected "64KiB" (one page) to "4GiB", found 1024 bytes"#)],
    );
    refuses(
        "[streams.orders]\npayload_max = \"1GiB\"\n",
        &[(
            2,
            r#"streams.orders.payload_max: expected at most "64MiB", found 1073741824 bytes; put larger bodies elsewhere and their address into the event"#,
        )],
    );
}

#[test]
fn a_number_out_of_bounds_is_refused_with_the_bounds() {
    refuses(
        "[streams.a]\npartitions = 0\n[streams.b]\npartitions = 5_000\n",
        &[
            (2, "streams.a.partitions: expected 1 to 4096, found 0"),
            (4, "streams.b.partitions: expected 1 to 4096, found 5000"),
        ],
    );
    refuses_group(
        "batch_size = -1\ncommit_ahead = 101\n",
        &[
            (1, "groups.billing.batch_size: expected 1 to 10000, found -1"),
            (2, "groups.billing.commit_ahead: expected 0 to 100, found 101"),
        ],
    );
    refuses_handler(
        "instances = { reuse = 0 }\n",
        &[(1, "handlers.invoice.instances.reuse: expected 1 to 4294967295, found 0")],
    );
}

#[test]
fn a_digest_is_sha256_in_full() {
    refuses_handler(
        "digest = \"sha256:abc\"\n",
        &[(1, r#"handlers.invoice.digest: expected "sha256:" and 64 hexadecimal digits, found "sha256:abc""#)],
    );
}

#[test]
fn names_keep_to_letters_digits_and_a_few_signs() {
    let rule = "expected 1 to 128 letters, digits, '_', '-' or '.', beginning with a letter or digit";
    refuses("[streams.\"a b\"]\n", &[(1, &format!(r#"streams: "a b" is not a name; {rule}"#))]);
    refuses("[handlers.-]\nmodule = \"m\"\n", &[(1, &format!(r#"handlers: "-" is not a name; {rule}"#))]);
    refuses("[host]\nid = \"worker/1\"\n", &[(2, &format!(r#"host.id: "worker/1" is not a name; {rule}"#))]);
}

#[test]
fn a_start_is_a_word_or_a_time() {
    refuses_group(
        "start = \"yesterday\"\n",
        &[(
            1,
            r#"groups.billing.start: expected "earliest", "latest" or a time such as "2026-01-31T12:00:00Z", found "yesterday""#,
        )],
    );
}

#[test]
fn a_store_of_another_kind_is_refused_without_showing_a_password() {
    refuses(
        "[store]\nurl = \"mysql://me:s3cret@host/db\"\n",
        &[(2, r#"store.url: expected "sqlite://FILE" or "postgres://USER@HOST/DATABASE", found "mysql""#)],
    );
    refuses(
        "[store]\nurl = \"me:s3cret@host/db\"\n",
        &[(
            2,
            r#"store.url: expected "sqlite://FILE" or "postgres://USER@HOST/DATABASE", found a URL without "://"; write "sqlite://pelton.db""#,
        )],
    );
    for (url, meant) in [("pelton.db", "sqlite://pelton.db"), ("sqlite:/data/p.db", "sqlite:///data/p.db")] {
        refuses(
            &format!("[store]\nurl = {url:?}\n"),
            &[(
                2,
                &format!(
                    r#"store.url: expected "sqlite://FILE" or "postgres://USER@HOST/DATABASE", found a URL without "://"; write {meant:?}"#
                ),
            )],
        );
    }
    let errors = parse("[store]\nurl = \"postgres://me:s3cret@db:54x2/events\"\n").expect_err("refused").to_string();
    assert!(
        errors.starts_with("/etc/pelton/workers.toml:2: store.url: ") && errors.contains("invalid port number"),
        "{errors}"
    );
    assert!(!errors.contains("s3cret"), "{errors}");
    refuses(
        "[store]\nurl = \"sqlite://\"\n",
        &[(2, r#"store.url: expected a file after sqlite://, as in "sqlite://pelton.db""#)],
    );
}

#[test]
fn a_url_that_cannot_be_filled_in_is_not_shown() {
    refuses(
        "[store]\nurl = \"postgres://me:s3cret@${HOST\"\n",
        &[(2, r#"store.url: "${" without "}"; write ${NAME} or ${NAME:-default}"#)],
    );
    refuses(
        "[store]\nurl = \"postgres://me:${s3cret@host/db?a={b}\"\n",
        &[(2, r#"store.url: "${…}" holds no name of a variable; write ${NAME} or ${NAME:-default}"#)],
    );
}

#[test]
fn a_schema_needs_no_quotes() {
    let rule = "expected 1 to 63 lower-case letters, digits or '_', not beginning with a digit or \"pg_\"";
    for bad in ["", "Pelton", "1st", "pg_x", "a-b", "a b", &"x".repeat(64)] {
        refuses(
            &format!("[store]\nurl = \"postgres://host/db\"\nschema = {bad:?}\n"),
            &[(3, &format!("store.schema: {rule}, found {bad:?}"))],
        );
    }
}

#[test]
fn labels_are_short_words() {
    let rule = "expected 1 to 128 letters, digits, '_', '-' or '.', beginning with a letter or digit";
    refuses("[host]\nlabels = { \"a b\" = \"c\" }\n", &[(2, &format!(r#"host.labels: "a b" is not a name; {rule}"#))]);
    refuses("[host]\nlabels = { rack = 7 }\n", &[(2, "host.labels.rack: expected a string, found the integer 7")]);
    refuses(
        &format!("[host]\nlabels = {{ zone = \"{}\", note = \"a\\nb\" }}\n", "x".repeat(257)),
        &[
            (2, r#"host.labels: expected one line of text in "note", found "a\nb""#),
            (2, r#"host.labels: expected at most 256 bytes in "zone", found 257; labels are shown in tables"#),
        ],
    );
}

#[test]
fn an_interval_that_is_too_short_is_refused_with_the_least() {
    refuses(
        "[host]\ncleanup_interval = \"500ms\"\n",
        &[(2, r#"host.cleanup_interval: expected at least "1s", found "500ms"; take-over never waits for it"#)],
    );
    refuses_group(
        "heartbeat_interval = \"99ms\"\n",
        &[(
            1,
            r#"groups.billing.heartbeat_interval: expected at least "100ms", found "99ms"; a host whose process is gone is noticed within a second anyway"#,
        )],
    );
}

// --- Contradictions ---------------------------------------------------------------------------------------------

#[test]
fn schema_contradicts_sqlite() {
    let only =
        "store.schema: only means something with PostgreSQL, and the store is SQLite; remove it, or change store.url";
    refuses("[store]\nschema = \"pelton\"\n", &[(2, only)]);
    refuses("[store]\nurl = \"sqlite://a.db\"\nschema = \"pelton\"\n", &[(3, only)]);
}

#[test]
fn a_session_outlasts_two_heartbeats_that_are_missed() {
    refuses_group(
        "session_timeout = \"5s\"\nheartbeat_interval = \"3s\"\n",
        &[(1, r#"group "billing": session_timeout (5s) must be at least 3 × heartbeat_interval (3s); raise it to 9s"#)],
    );
    refuses_group(
        "session_timeout = \"6s\"\n",
        &[(
            1,
            r#"group "billing": session_timeout (6s) must be at least 3 × heartbeat_interval (10s, the default); raise it to 30s, or set heartbeat_interval to 2s"#,
        )],
    );
    refuses_group(
        "session_timeout = \"200ms\"\n",
        &[(
            1,
            r#"group "billing": session_timeout (200ms) must be at least 3 × heartbeat_interval (10s, the default); raise it to 30s"#,
        )],
    );
    refuses_group(
        "heartbeat_interval = \"20s\"\n",
        &[(
            1,
            r#"group "billing": session_timeout (30s, the default) must be at least 3 × heartbeat_interval (20s); set it to 1m"#,
        )],
    );
    group("session_timeout = \"300ms\"\nheartbeat_interval = \"100ms\"\n");
}

#[test]
fn a_session_is_checked_with_what_the_defaults_say() {
    refuses(
        &format!("[defaults]\nheartbeat_interval = \"3s\"\n{AROUND}session_timeout = \"5s\"\n"),
        &[(9, r#"group "billing": session_timeout (5s) must be at least 3 × heartbeat_interval (3s); raise it to 9s"#)],
    );
    refuses(
        &format!("[defaults]\nheartbeat_interval = \"3s\"\nsession_timeout = \"5s\"\n{AROUND}"),
        &[(3, "[defaults]: session_timeout (5s) must be at least 3 × heartbeat_interval (3s); raise it to 9s")],
    );
    refuses_group(
        "session_timeout = \"5\"\nheartbeat_interval = \"20s\"\n",
        &[(
            1,
            r#"groups.billing.session_timeout: expected a duration such as "250ms", "30s", "5m", "2h" or "7d", found "5""#,
        )],
    );
}

#[test]
fn attempts_need_a_then() {
    refuses_group(
        "on_failure = { attempts = 5 }\n",
        &[(
            1,
            r#"groups.billing.on_failure.attempts: says when to give up but not what to do then; add then = "dead-letter" (or "dead-letter-key", "skip", "stop"), or remove it to retry for ever"#,
        )],
    );
}

#[test]
fn what_only_retry_means_contradicts_stop() {
    let only = r#"only means something with strategy = "retry"; remove it, or change the strategy"#;
    refuses_group(
        "[groups.billing.on_failure]\nstrategy = \"stop\"\nattempts = 3\nthen = \"stop\"\nbackoff = { max = \"1m\" }\n",
        &[
            (3, &format!("groups.billing.on_failure.attempts: {only}")),
            (4, &format!("groups.billing.on_failure.then: {only}")),
            (5, &format!("groups.billing.on_failure.backoff: {only}")),
        ],
    );
}

#[test]
fn exit_needs_something_that_stops() {
    refuses_group(
        "on_failure = { exit = true }\n",
        &[(
            1,
            r#"groups.billing.on_failure.exit: ends the process when a partition stops, but nothing stops one here; use strategy = "stop" or then = "stop""#,
        )],
    );
}

#[test]
fn a_back_off_must_grow_and_wait() {
    refuses_group(
        "[groups.billing.on_failure.backoff]\ninitial = \"2m\"\nmax = \"90s\"\nfactor = 0.5\njitter = nan\n",
        &[
            (3, "groups.billing.on_failure.backoff.max: (90s) must be at least initial (2m)"),
            (4, "groups.billing.on_failure.backoff.factor: expected 1.0 to 1000.0, found 0.5"),
            (5, "groups.billing.on_failure.backoff.jitter: expected 0.0 to 1.0, found NaN"),
        ],
    );
    refuses_group(
        "on_failure = { backoff = { initial = \"0s\" } }\n",
        &[(
            1,
            "groups.billing.on_failure.backoff.initial: expected more than 0; a failing event would be tried in a busy loop",
        )],
    );
}

// --- Environment ------------------------------------------------------------------------------------------------

#[test]
fn a_variable_that_is_not_set_is_named_with_its_field() {
    let remedy = "environment variable NONE is not set; set it, or give a default: ${NONE:-…}";
    refuses_handler(
        "config = { key = \"${NONE}\" }\n[handlers.invoice.limits]\ntimeout = \"${NONE}\"\n",
        &[
            (1, &format!("handlers.invoice.config.key: {remedy}")),
            (3, &format!("handlers.invoice.limits.timeout: {remedy}")),
        ],
    );
    refuses("[host]\nid = \"${REGION\"\n", &[(2, r#"host.id: "${" without "}"; write ${NAME} or ${NAME:-default}"#)]);
}

#[test]
fn variables_and_their_defaults_are_filled_in() {
    let text = "config = { a = \"${REGION}-${NONE:-west}\", b = \"${EMPTY:-or}\", c = \"${EMPTY}\", d = \"$5\" }\n";
    let config = accepts(&format!("[handlers.invoice]\nmodule = \"invoice.wasm\"\n{text}"));
    let pairs: Vec<_> = config.handlers["invoice"].config.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("a", "eu-west"), ("b", "or"), ("c", ""), ("d", "$5")]);
}

#[test]
fn the_store_of_the_environment_overrides_that_of_the_file() {
    let at = |url: &'static str| move |name: &str| (name == "PELTON_STORE").then(|| url.to_owned());
    let path = Path::new("/etc/pelton/workers.toml");
    let text = "[store]\nurl = \"sqlite://file.db\"\n";
    let config = Config::parse(text, path, &at("sqlite:///var/other.db")).expect("accepted");
    assert_eq!(config.store.url, "sqlite:///var/other.db");
    let errors = Config::parse(text, path, &at("mysql://me:s3cret@host")).expect_err("refused").to_string();
    assert_eq!(
        errors,
        r#"/etc/pelton/workers.toml:2: store.url: expected "sqlite://FILE" or "postgres://USER@HOST/DATABASE", found "mysql" (from PELTON_STORE)"#
    );
}

#[test]
fn a_file_for_postgres_can_be_tried_on_sqlite() {
    let at = |name: &str| (name == "PELTON_STORE").then(|| "sqlite://test.db".to_owned());
    let text = "[store]\nurl = \"postgres://me@host/db\"\nschema = \"billing\"\n";
    let config = Config::parse(text, Path::new("/etc/pelton/workers.toml"), &at).expect("accepted");
    assert_eq!(config.store.url, "sqlite:///etc/pelton/test.db");
    assert!(Config::parse("[store]\nschema = \"billing\"\n", Path::new("/etc/pelton/workers.toml"), &at).is_err());
}

// --- Several faults, and the defaults ---------------------------------------------------------------------------

#[test]
fn all_faults_come_at_once_and_in_the_order_of_the_file() {
    refuses(
        "[groups.billing]
stream = \"orders\"
handler = \"invoice\"
batch_size = \"many\"
[handlers.invoice]
module = \"invoice.wasm\"
timeout = \"5s\"
[streams.orders]
partitions = 0
[host]
id = 1
",
        &[
            (4, r#"groups.billing.batch_size: expected a whole number, found the string "many""#),
            (
                7,
                r#"unknown field "timeout" in [handlers.invoice]; expected one of: allow, config, digest, instances, limits, module, rollout, secrets"#,
            ),
            (9, "streams.orders.partitions: expected 1 to 4096, found 0"),
            (11, "host.id: expected a string, found the integer 1"),
        ],
    );
}

#[test]
fn a_fault_of_the_defaults_is_told_once_however_many_groups_take_it() {
    refuses(
        &format!(
            "[defaults]\non_failure = {{ attempts = 0, exit = 1 }}\n{AROUND}[groups.audit]\nstream = \"orders\"\nhandler = \"invoice\"\n"
        ),
        &[
            (2, "defaults.on_failure.attempts: expected 1 to 4294967295, found 0"),
            (2, "defaults.on_failure.exit: expected true or false, found the integer 1"),
        ],
    );
}

#[test]
fn defaults_are_checked_although_no_group_takes_them() {
    refuses(
        "[defaults]\nbatch_size = 0\nstream = 5\n",
        &[
            (2, "defaults.batch_size: expected 1 to 10000, found 0"),
            (3, "defaults.stream: expected a string, found the integer 5"),
        ],
    );
}

#[test]
fn a_group_takes_from_the_defaults_what_it_does_not_set() {
    let defaults = "[defaults]\nbatch_size = 7\ncommit_ahead = 3\non_failure = { strategy = \"stop\" }\n";
    let config = accepts(&format!(
        "{defaults}{AROUND}batch_size = 9\n[groups.audit]\nstream = \"orders\"\nhandler = \"invoice\"\non_failure = {{}}\n"
    ));
    let [audit, billing] = ["audit", "billing"].map(|name| config.groups[name].settings.pump);
    assert_eq!(
        (billing.batch_events_max, billing.commit_ahead, billing.on_failure),
        (9, 3, FailurePolicy::at_once(Then::Stop))
    );
    assert_eq!((audit.batch_events_max, audit.commit_ahead), (7, 3));
    assert_eq!(audit.on_failure, FailurePolicy::default(), "a table of its own replaces that of the defaults");
}

// --- Syntax -----------------------------------------------------------------------------------------------------

#[test]
fn a_syntax_error_has_its_line() {
    let errors = parse("[host]\nid = \"a\"\ncache = \n").expect_err("refused");
    assert_eq!(errors.faults[0].line, 3, "{errors}");
    let errors = parse("[host]\nid = \"a\"\nid = \"b\"\n").expect_err("refused");
    assert_eq!(
        errors.to_string(),
        "/etc/pelton/workers.toml:3: \"id\" is set twice in this table; remove one of the two"
    );
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_remedy() {
    let path = Path::new("/nowhere/workers.toml");
    assert_eq!(
        Config::load(path).expect_err("refused").to_string(),
        "/nowhere/workers.toml: cannot be read: No such file or directory (os error 2); name another file with -c, or create this one"
    );
}

#[test]
fn a_file_that_is_a_pipe_is_refused_and_not_waited_for() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("workers.toml");
    crate::plain_file::tests::make_pipe(&path);
    assert_eq!(
        Config::load(&path).expect_err("refused").to_string(),
        format!(
            "{}: cannot be read: expected a file, found a named pipe; name another file with -c, or create this one",
            path.display()
        )
    );
}

// --- Good ones --------------------------------------------------------------------------------------------------

#[test]
fn an_empty_file_is_a_configuration() {
    let config = accepts("");
    assert_eq!(config.host.id, None);
    assert_eq!(config.host.cache, Path::new("/etc/pelton/.pelton/cache"));
    assert_eq!(config.host.shutdown_grace, Duration::from_secs(10));
    assert_eq!((config.host.cleanup_interval, config.host.labels.len()), (Duration::from_secs(60), 0));
    assert_eq!(config.store.url, "sqlite:///etc/pelton/pelton.db");
    assert_eq!(config.store.schema, "pelton");
    assert!(config.store.auto_migrate);
    assert_eq!(config.store.durability, Durability::Durable);
    assert!(config.streams.is_empty() && config.handlers.is_empty() && config.groups.is_empty());
}

#[test]
fn everything_that_is_not_set_has_its_default() {
    let config = accepts(AROUND);
    let stream = &config.streams["orders"];
    assert_eq!((stream.partitions, stream.payload_bytes_max), (8, 1 << 20));
    let handler = &config.handlers["invoice"];
    assert_eq!(handler.module, Path::new("/etc/pelton/invoice.wasm"));
    assert_eq!(
        (&handler.digest, handler.config.len(), handler.emit.len(), handler.recycle.calls),
        (&None, 0, 0, 10_000)
    );
    assert_eq!(handler.limits, Limits::default());
    let group = &config.groups["billing"];
    assert_eq!(
        (group.spec.start, group.poll_interval, group.exit_on_stop),
        (Start::Earliest, Duration::from_secs(1), false)
    );
    let session = (group.heartbeat_interval, group.session_timeout, group.partitions_max);
    assert_eq!(session, (Duration::from_secs(10), Duration::from_secs(30), 0));
    assert_eq!((group.settings.pump.batch_events_max, group.settings.pump.commit_ahead), (100, 1));
    let backoff = Backoff { initial_ms: 200, factor: 2.0, max_ms: 60_000, jitter: 0.2 };
    assert_eq!(
        group.settings.pump.on_failure,
        FailurePolicy { retry: Some(Retry { attempts_max: None, backoff }), then: None, breaker: None }
    );
}

#[test]
fn everything_can_be_set() {
    let digest = format!("sha256:{}", "0f".repeat(32));
    let config = accepts(&format!(
        r#"
[host]
id = "worker-1"
cache = "/var/cache/pelton"
shutdown_grace = "1500ms"
cleanup_interval = "5m"
labels = {{ zone = "a", "rack.row" = "${{REGION}}" }}
[store]
url = "postgres://me:s3cret@db.example.com:5433/events?sslmode=require"
schema = "pelton_2"
auto_migrate = false
durability = "relaxed"
[streams.orders]
partitions = 3
payload_max = "2MiB"
[handlers.invoice]
module = "/opt/invoice.wasm"
digest = "{digest}"
config = {{ currency = "EUR" }}
secrets = {{ api_key = "s3cret" }}
allow = {{ emit = ["orders"], http = ["https://api.example.com"], clocks = true, random = true }}
limits = {{ memory = "128MiB", timeout = "1m", output = "1KiB" }}
instances = {{ reuse = 1, age = "1m", memory = "1MiB" }}
rollout = {{ canary = {{ partitions = 1, for = "2m" }}, rollback = false }}
[groups.billing]
stream = "orders"
handler = "invoice"
start = "2026-01-31T12:00:00Z"
batch_size = 1
poll_interval = "50ms"
commit = "after-batch"
commit_ahead = 0
heartbeat_interval = "250ms"
session_timeout = "2s"
partitions_max = 4
[groups.billing.on_failure]
strategy = "retry"
attempts = 5
backoff = {{ initial = "1s", factor = 1, max = "1h", jitter = 0.0 }}
then = "stop"
exit = true
"#
    ));
    assert_eq!(config.host.id.as_deref(), Some("worker-1"));
    assert_eq!(config.host.cache, Path::new("/var/cache/pelton"));
    assert_eq!(config.host.shutdown_grace, Duration::from_millis(1500));
    assert_eq!(config.host.cleanup_interval, Duration::from_secs(300));
    let labels: Vec<_> = config.host.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("rack.row", "eu"), ("zone", "a")]);
    assert_eq!(config.store.url, "postgres://me:s3cret@db.example.com:5433/events?sslmode=require");
    assert_eq!(config.store.schema, "pelton_2");
    assert!(!config.store.auto_migrate);
    assert_eq!(config.store.durability, Durability::Relaxed);
    assert_eq!((config.streams["orders"].partitions, config.streams["orders"].payload_bytes_max), (3, 2 << 20));
    let handler = &config.handlers["invoice"];
    assert_eq!(handler.module, Path::new("/opt/invoice.wasm"));
    assert_eq!(handler.digest.as_deref(), Some(&*digest));
    assert_eq!(handler.config, [("currency".to_owned(), "EUR".to_owned())]);
    assert_eq!(handler.emit, ["orders"]);
    assert_eq!(handler.secrets, [("api_key".to_owned(), Secret::new("s3cret".into()))]);
    let origin = Origin { tls: true, host: "api.example.com".into(), port: 443, private: false };
    assert_eq!((&handler.http, handler.clocks, handler.random), (&HttpGrant::Origins(vec![origin]), true, true));
    assert_eq!(handler.recycle, Recycle { calls: 1, age: Duration::from_secs(60), memory_bytes: 1 << 20 });
    let canary = Some(Canary { partitions: 1, for_ms: 120_000 });
    assert_eq!(handler.rollout, RolloutConfig { canary, tolerance: None, replay: None });
    let limits =
        Limits { memory_bytes: 128 << 20, timeout: Duration::from_secs(60), output_bytes: 1024, ..Limits::default() };
    assert_eq!(handler.limits, limits);
    let group = &config.groups["billing"];
    assert_eq!(group.spec.start, Start::At(Timestamp(1_769_860_800_000)));
    assert_eq!((group.settings.pump.batch_events_max, group.settings.pump.commit_ahead), (1, 0));
    let session = (group.heartbeat_interval, group.session_timeout, group.partitions_max);
    assert_eq!(session, (Duration::from_millis(250), Duration::from_secs(2), 4));
    assert_eq!((group.poll_interval, group.exit_on_stop), (Duration::from_millis(50), true));
    let backoff = Backoff { initial_ms: 1000, factor: 1.0, max_ms: 3_600_000, jitter: 0.0 };
    let retry = Some(Retry { attempts_max: Some(5), backoff });
    assert_eq!(group.settings.pump.on_failure, FailurePolicy { retry, then: Some(Then::Stop), breaker: None });
}

#[test]
fn a_store_has_a_url_of_one_of_three_forms() {
    let url = |url: &str| accepts(&format!("[store]\nurl = {url:?}\n")).store.url;
    assert_eq!(url("sqlite://data/pelton.db"), "sqlite:///etc/pelton/data/pelton.db");
    assert_eq!(url("postgres://me@host/db"), "postgres://me@host/db");
    assert_eq!(url("postgresql:///db?host=/var/run/postgresql"), "postgresql:///db?host=/var/run/postgresql");
}

#[test]
fn a_partition_that_stops_may_end_the_process() {
    assert!(group("on_failure = { strategy = \"stop\", exit = true }\n").exit_on_stop);
    assert!(group("on_failure = { then = \"stop\", exit = true }\n").exit_on_stop);
    assert!(!group("on_failure = { strategy = \"stop\" }\n").exit_on_stop);
}

#[test]
fn the_configuration_of_the_demo_is_right() {
    accepts(include_str!("../../../../workers.toml"));
}
