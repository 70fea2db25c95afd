//! The commands as a person or a program meets them: what they print, what they refuse, and how they end.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
    thread,
};

use serde_json::{Value, json};
use support::{CORE_MODULE, EMPTY_COMPONENT, Stage, count_event, count_events, event, guest, host_section, wait_for};

/// Streams alone.
const STREAMS: &str = "[streams.in]\npartitions = 3\n[streams.small]\npartitions = 1\npayload_max = \"10B\"\n";

/// The names of an object's fields.
#[track_caller]
fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap_or_else(|| panic!("{object} is no object")).keys().map(String::as_str).collect()
}

/// That an object has these fields, whatever else it has.
#[track_caller]
fn has_names(object: &Value, expected: &[&str]) {
    let missing: Vec<_> = expected.iter().filter(|name| object.get(name).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} missing in {object}");
}

// --- Usage and configuration --------------------------------------------------------------------------------------

#[test]
fn a_usage_error_has_status_2() {
    let stage = Stage::new("");
    for (args, fault) in [
        (&["--bogus"][..], "error: unexpected argument '--bogus' found"),
        (&["tail"], "error: the following required arguments were not provided:"),
        (
            &["tail", "in", "--from", "x"],
            "error: invalid value 'x' for '--from <FROM>': expected earliest, latest or an offset",
        ),
        (
            &["test", "m.wasm", "--events", "e", "--update"],
            "error: --update writes the file of expectations; name it with --expect",
        ),
        (&["dead-letters", "replay", "g", "--all", "--wait", "5m"], "error: unexpected argument '5m' found"),
        (&["append", "in", "--batch", "0"], "error: invalid value '0' for '--batch <N>': 0 is not in 1..=100000"),
    ] {
        let output = stage.pelton(args);
        assert_eq!((output.stderr.lines().next(), output.status), (Some(fault), 2), "{args:?}");
        assert_eq!(output.stdout, "");
    }
}

#[test]
fn a_configuration_that_is_not_there_has_status_2_in_every_command() {
    let stage = Stage::new("");
    let fault = "error: other.toml: cannot be read: No such file or directory (os error 2); name another file with -c, or create this one";
    for command in [
        &["run"][..],
        &["groups"],
        &["streams"],
        &["handlers"],
        &["hosts"],
        &["migrate"],
        &["backup", "copy.db"],
        &["append", "in"],
        &["tail", "in"],
    ] {
        let args: Vec<_> = ["-c", "other.toml"].iter().chain(command).collect();
        stage.pelton(&args).fails(2, fault);
    }
}

#[test]
fn a_wrong_configuration_has_status_2_and_tells_every_fault() {
    let stage = Stage::new(
        "[groups.billing]\nstream = \"orders\"\nhandler = \"h\"\non_failure = { attempts = 3 }\n[handlers.h]\nmodul = \"h.wasm\"\n",
    );
    let faults = [
        r#"workers.toml:2: groups.billing.stream: stream "orders" is not declared; add [streams.orders]"#,
        r#"workers.toml:4: groups.billing.on_failure.attempts: says when to give up but not what to do then; add then = "dead-letter" (or "dead-letter-key", "skip", "stop"), or remove it to retry for ever"#,
        r#"workers.toml:5: handlers.h: module is missing; add module = "handlers/h.wasm""#,
        r#"workers.toml:6: unknown field "modul" in [handlers.h]; expected one of: allow, config, digest, instances, limits, module, rollout, secrets"#,
    ]
    .join("\n");
    stage.pelton(&["run"]).fails(2, &format!("error: {faults}"));
    stage.pelton(&["check"]).fails(2, &faults);
    assert!(!stage.path("pelton.db").exists(), "nothing is created before the configuration is right");
}

#[test]
fn check_tells_a_wrong_configuration_to_programs() {
    let stage = Stage::new("[host]\nid = 1\n");
    let output = stage.pelton(&["check", "--json"]);
    let faults = json!([{ "line": 2, "message": "host.id: expected a string, found the integer 1" }]);
    assert_eq!(output.lines(), [json!({ "ok": false, "faults": faults, "handlers": [], "store": null })]);
    assert_eq!(output.status, 2);
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let stage = Stage::new(STREAMS);
    let output = stage.command(&["streams"]).env("PELTON_LOG", "pelton=loud").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with(r#"error: PELTON_LOG="pelton=loud" is not a filter such as"#), "{stderr}");
    assert_eq!(output.status.code(), Some(2));
}

// --- Modules ------------------------------------------------------------------------------------------------------

/// A stage with one handler, whose module is this.
fn with_module(module: Option<&[u8]>, more: &str) -> Stage {
    let stage = Stage::new(&format!(
        "{}[streams.in]\n[handlers.h]\nmodule = \"h.wasm\"\n{more}\n[groups.g]\nstream = \"in\"\nhandler = \"h\"\n",
        host_section()
    ));
    if let Some(module) = module {
        stage.write("h.wasm", module);
    }
    stage
}

/// That `check` finds this wrong with the module (status 2), and that `run` does not start with it alone (status 1).
#[track_caller]
fn refuses_module(stage: &Stage, fault: &str) {
    let output = stage.pelton(&["check"]);
    assert_eq!(output.stdout, "workers.toml: 1 stream, 1 handler, 1 group: 1 wrong\n");
    let line = stage.config().lines().position(|line| line.starts_with("module")).unwrap() + 1;
    output.fails(2, &format!("workers.toml:{line}: handlers.h.module: {}{fault}", stage.shown("h.wasm")));
    assert!(!stage.path("pelton.db").exists(), "check creates nothing");

    let json = stage.pelton(&["check", "--json"]).lines();
    assert_eq!(json[0]["handlers"][0]["error"], format!("module {}{fault}", stage.shown("h.wasm")));

    let mut daemon = stage.start(&["run"]);
    assert_eq!(daemon.wait(), 1);
    let last = format!("error: no handler can be loaded:\n  module {}{fault}", stage.shown("h.wasm"));
    assert!(daemon.log().trim_end().ends_with(&last), "expected:\n{last}\nfound:\n{}", daemon.log());
}

#[test]
fn a_missing_module_is_refused() {
    refuses_module(
        &with_module(None, ""),
        " cannot be read: No such file or directory (os error 2); build it, or correct the path",
    );
}

#[test]
fn a_module_that_is_a_pipe_is_refused_and_not_waited_for() {
    let stage = with_module(None, "");
    assert!(std::process::Command::new("mkfifo").arg(stage.path("h.wasm")).status().unwrap().success());
    refuses_module(&stage, " cannot be read: expected a file, found a named pipe; build it, or correct the path");
}

#[test]
fn an_empty_module_is_refused() {
    refuses_module(&with_module(Some(b""), ""), ": module is empty; expected a WebAssembly component");
}

#[test]
fn a_module_that_is_no_webassembly_is_refused() {
    refuses_module(
        &with_module(Some(b"#!/bin/sh"), ""),
        ": not WebAssembly: begins with \"#!/bin/sh\"; expected a component, which `pelton build` makes",
    );
}

#[test]
fn a_core_module_is_refused() {
    refuses_module(
        &with_module(Some(CORE_MODULE), ""),
        ": this is a core module, not a component; build it with `pelton build`, or with `wasm-tools component new`",
    );
}

#[test]
fn a_component_without_a_world_is_refused() {
    refuses_module(
        &with_module(Some(EMPTY_COMPONENT), ""),
        ": not a handler: exports nothing; expected pelton:worker/handler@0.1.0 or pelton:worker/batch-handler@0.1.0",
    );
}

#[test]
fn a_module_that_is_not_the_pinned_one_is_refused() {
    let zeros = "0".repeat(64);
    let stage = with_module(Some(&guest("noop")), &format!("digest = \"sha256:{zeros}\""));
    let found = pelton_sandbox::digest_of(&guest("noop"));
    refuses_module(
        &stage,
        &format!(
            " has digest {found}, but the configuration pins sha256:{zeros}; change the pin, or bring the module back"
        ),
    );
}

#[test]
fn check_finds_every_wrong_module_at_once_and_shows_the_good_ones() {
    let handlers = "[handlers.a]\nmodule = \"a.wasm\"\n[handlers.b]\nmodule = \"misbehave.wasm\"\n[handlers.c]\nmodule = \"c.wasm\"\n";
    let stage = Stage::new(handlers);
    stage.write("c.wasm", "");
    let output = stage.pelton(&["check", "--json"]);
    let report = &output.lines()[0];
    assert_eq!((report["ok"].clone(), output.status), (json!(false), 2));
    let handlers = report["handlers"].as_array().unwrap();
    assert_eq!(handlers.iter().map(|handler| handler["error"].is_null()).collect::<Vec<_>>(), [false, true, false]);
    let digest = pelton_sandbox::digest_of(&guest("misbehave"));
    assert_eq!(
        handlers[1],
        json!({ "handler": "b", "digest": digest, "world": "worker", "error": null, "line": 4, "notes": [] })
    );
}

#[test]
fn check_finds_wrong_modules_beside_a_wrong_file_and_a_store_that_says_otherwise() {
    let stage = Stage::with_group(2, "");
    stage.pelton(&["migrate"]).ok();
    let config = support::one_group(3, "")
        .replace("stream = \"in\"", "stream = \"out\"")
        .replace("[groups.work]", "[handlers.b]\nmodule = \"b.wasm\"\nallow = { emit = [\"nowhere\"] }\n[handlers.c]\nmodule = \"c.wasm\"\nlimits = { memory = 1 }\n[groups.work]")
        + "[groups.other]\nhandler = \"h\"\nstream = \"none\"\n";
    stage.write("other.toml", config);
    let output = stage.pelton(&["check", "-c", "other.toml"]);
    let place = |fault: &str| fault.split(": ").take(2).collect::<Vec<_>>().join(": ");
    assert_eq!(
        output.stderr.lines().map(place).collect::<Vec<_>>(),
        [
            "other.toml:5: streams.in.partitions",
            "other.toml:7: streams.out.partitions",
            "other.toml:12: handlers.b.module",
            "other.toml:13: handlers.b.allow.emit",
            "other.toml:16: handlers.c.limits.memory",
            "other.toml:18: groups.work.stream",
            "other.toml:23: groups.other.stream",
        ],
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("partitions: the stream has 2 in the store, found 3; the number is fixed"),
        "{output:?}"
    );
    let well = format!(
        "handler h: worker {}\nother.toml: 2 streams, 3 handlers, 2 groups: 7 wrong\n",
        pelton_sandbox::digest_of(&guest("misbehave"))
    );
    assert_eq!((output.stdout, output.status), (format!("ok    {well}"), 2));
}

#[test]
fn check_accepts_what_is_right_and_creates_nothing() {
    let stage = Stage::with_group(1, "");
    let output = stage.pelton(&["check"]).ok();
    let digest = pelton_sandbox::digest_of(&guest("misbehave"));
    assert_eq!(
        output.stdout,
        format!("ok    handler h: worker {digest}\nworkers.toml: 2 streams, 1 handler, 1 group: all well\n")
    );
    assert!(!stage.path("pelton.db").exists());
}

#[test]
fn check_notes_a_canary_that_leaves_nothing_out() {
    let stage = Stage::with_group(2, "");
    let config = stage.config();
    for (partitions, noted) in [(1, false), (2, true)] {
        let canary = format!("rollout = {{ canary = {{ partitions = {partitions}, for = \"2m\" }} }}\n[groups.work]");
        stage.write("workers.toml", config.replace("[groups.work]", &canary));
        let note = "rollout.canary tries a new version in 2 partitions, and group \"work\" has 2: it answers everywhere there from the start";
        let notes = stage.pelton(&["check", "--json"]).json()["handlers"][0]["notes"].take();
        assert_eq!(notes, if noted { json!([note]) } else { json!([]) });
        let said = stage.pelton(&["check"]).ok().stdout;
        assert_eq!(said.contains(&format!("\nnote  handler h: {note}\n")), noted, "{said}");
    }
}

#[test]
fn check_shows_no_secret() {
    let stage = Stage::with_group(1, "");
    let config = stage.config();
    for secrets in ["{ key = 5309 }", "\"5309\"", "{ key = \"5309${NONE}\" }", "{ key = 5309x }", "{ key = \"5309\" }"]
    {
        stage.write("workers.toml", config.replace("[groups.work]", &format!("secrets = {secrets}\n[groups.work]")));
        for args in [&["check"][..], &["check", "--json"], &["run", "--until-idle"]] {
            let output = stage.pelton(args);
            assert!(!format!("{output:?}").contains("5309"), "{output:?}");
        }
    }
}

#[test]
fn the_configurations_of_demo_and_examples_and_their_modules_are_right() {
    let stage = Stage::new("");
    for (file, handlers) in [("", 2), ("examples/flaky-dependency/", 1), ("examples/pipeline/", 2)] {
        let file = format!("{}/../../{file}workers.toml", env!("CARGO_MANIFEST_DIR"));
        let report = stage.pelton(&["check", "--json", "-c", &file]).json();
        assert_eq!((&report["ok"], report["handlers"].as_array().unwrap().len()), (&json!(true), handlers), "{file}");
    }
}

// --- The store ----------------------------------------------------------------------------------------------------

#[test]
fn commands_that_only_look_create_no_database() {
    let stage = Stage::with_group(1, "");
    let fault = format!(
        "error: store url \"sqlite://{}\" cannot be opened: there is no such file; `pelton run` or `pelton migrate` creates it",
        stage.shown("pelton.db")
    );
    for command in [&["streams"][..], &["groups"], &["handlers"], &["group", "show", "work"], &["tail", "in"]] {
        stage.pelton(command).fails(1, &fault);
    }
    assert!(!stage.path("pelton.db").exists());
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let stage = Stage::new(STREAMS);
    let text = "not a database, but something that somebody wants to keep. ".repeat(100);
    stage.write("pelton.db", &text);
    let fault = format!(
        "error: store url \"sqlite://{}\" cannot be opened: the file is no SQLite database; correct the path, or move the file away",
        stage.shown("pelton.db")
    );
    stage.pelton(&["streams"]).fails(1, &fault);
    stage.feed(&["append", "in"], "1\n").fails(1, &fault);
    stage.pelton(&["run"]).fails(1, &fault);
    assert_eq!(std::fs::read_to_string(stage.path("pelton.db")).unwrap(), text);
}

#[test]
fn a_folder_that_this_user_may_not_write_to_is_named() {
    use std::{fs, os::unix::fs::PermissionsExt};
    let stage = Stage::new(&STREAMS.replacen("[streams", "[store]\nurl = \"sqlite://shut/pelton.db\"\n[streams", 1));
    let shut = stage.path("shut");
    fs::create_dir(&shut).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(shut.join("probe"), "").is_ok() {
        // Past what the test runner captures.
        let _ = std::io::stderr().write_all(b"NOT RUN: a folder that is shut; this user may write to every one\n");
        return;
    }
    let folder = stage.shown("shut");
    let fault = format!(
        "error: store url \"sqlite://{folder}/pelton.db\" cannot be opened: this user cannot write to the folder {folder} (Permission denied (os error 13)), where SQLite makes files beside the database; run pelton as the owner, give it to this user, or name another file"
    );
    stage.feed(&["append", "in"], "1\n").fails(1, &fault);
    let mut new = stage.command(&["new", "greeter", "--lang", "c"]);
    let output = new.current_dir(&shut).output().unwrap();
    let fault = format!(
        "error: cannot make the folder greeter in {folder}: Permission denied (os error 13); go to a folder that you may write to\n"
    );
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), (&*fault, Some(1)));
}

#[test]
fn a_database_of_a_newer_schema_is_refused() {
    let stage = Stage::new(STREAMS);
    stage.feed(&["append", "in"], "1\n").ok();
    change_database(&stage, "UPDATE meta SET schema = 99, min_compatible = 99");
    let fault = "error: database has schema 99, this pelton knows up to 4; use a newer pelton";
    stage.feed(&["append", "in"], "2\n").fails(1, fault);
    stage.pelton(&["run"]).fails(1, fault);
    change_database(&stage, "UPDATE meta SET schema = 4, min_compatible = 4");
    assert_eq!(stage.tail("in").len(), 1, "nothing is lost, and nothing was added");
}

#[test]
fn a_database_that_lacks_migrations_is_refused_where_they_are_not_automatic() {
    let stage = Stage::new(&format!("[store]\nauto_migrate = false\n{STREAMS}"));
    stage.pelton(&["migrate"]).ok();
    change_database(&stage, "DROP TABLE meta");
    let fault =
        "error: database has schema 0, this pelton needs 4; run `pelton migrate`, or set store.auto_migrate = true";
    stage.pelton(&["streams"]).fails(1, fault);
}

#[test]
fn migrate_creates_what_the_configuration_declares() {
    let stage = Stage::with_group(2, "");
    assert_eq!(stage.pelton(&["migrate", "--json"]).json(), json!({ "streams": 2, "groups": 1 }));
    let output = stage.pelton(&["migrate"]).ok();
    assert_eq!(output.stdout, "schema is up to date; 2 streams and 1 group are declared\n");
    assert_eq!(stage.group("work")["partitions"].as_array().unwrap().len(), 2);
}

#[test]
fn a_declaration_that_contradicts_the_store_is_refused() {
    let stage = Stage::with_group(2, "");
    stage.pelton(&["migrate"]).ok();
    stage.write("workers.toml", support::one_group(3, ""));
    stage.pelton(&["run"]).fails(
        1,
        r#"error: stream "in" is declared with 3 partitions but has 2; the number is fixed once the stream is created: declare 2, or a stream of another name"#,
    );
    stage.write("workers.toml", support::one_group(2, "").replace("stream = \"in\"", "stream = \"out\""));
    stage.pelton(&["run"]).fails(
        1,
        r#"error: group "work" is declared on stream "out" but reads "in"; its positions mean nothing there: use a group of another name"#,
    );
}

#[test]
fn a_second_daemon_with_the_same_id_is_refused_and_the_first_goes_on() {
    let stage = Stage::new(&support::one_group(1, "").replace("[host]\n", "[host]\nid = \"one\"\n"));
    let first = stage.daemon();
    stage.pelton(&["run"]).fails(
        1,
        &format!(
            "error: host id \"one\" is in use (process {}); give each host an id of its own with host.id, or stop the other one first",
            first.id()
        ),
    );
    stage.append("in", &[count_event("e1", "k")]);
    stage.await_drained("work");
    first.stop();
}

fn change_database(stage: &Stage, sql: &'static str) {
    use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
    let path = stage.path("pelton.db");
    let change = async {
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(change);
}

// --- append -------------------------------------------------------------------------------------------------------

#[test]
fn each_line_is_a_payload_and_its_fields_are_taken_from_it() {
    let stage = Stage::new(STREAMS);
    let lines = "{\"order\":{\"id\":7},\"who\":\"ann\"}\n\n  {\"order\":{\"id\":8},\"who\":\"ben\"}  \n";
    let args = ["append", "in", "--json", "--key", "/who", "--id", "/order/id", "--kind", "order.placed"];
    let answers = stage.feed(&args, lines).ok().lines();
    assert_eq!(answers.iter().map(|answer| answer["id"].as_str().unwrap()).collect::<Vec<_>>(), ["7", "8"]);
    assert_eq!(names(&answers[0]), ["duplicate", "id", "offset", "partition", "stream"]);
    assert_eq!(
        (&answers[0]["stream"], &answers[0]["offset"], &answers[0]["duplicate"]),
        (&json!("in"), &json!(0), &json!(false))
    );

    let mut events = stage.tail("in");
    events.sort_by_key(|event| event["id"].to_string());
    assert_eq!((&events[0]["key"], &events[0]["kind"]), (&json!("ann"), &json!("order.placed")));
    assert_eq!(events[1]["payload"], json!({ "order": { "id": 8 }, "who": "ben" }));
}

#[test]
fn an_id_that_is_there_already_is_a_duplicate() {
    let stage = Stage::new(STREAMS);
    let append = |lines: &str| stage.feed(&["append", "in", "--id", "/id", "--key", "k"], lines).ok().stdout;
    assert_eq!(append("{\"id\":1}\n{\"id\":2}\n"), "appended 2 events to in\n");
    assert_eq!(append("{\"id\":2}\n{\"id\":3}\n"), "appended 1 event to in; 1 were there already\n");
    let answers = stage.feed(&["append", "in", "--json", "--id", "/id", "--key", "k"], "{\"id\":1}\n").ok().lines();
    assert_eq!((&answers[0]["duplicate"], &answers[0]["offset"]), (&json!(true), &json!(0)));
    assert_eq!(stage.tail("in").len(), 3);
}

#[test]
fn a_broken_line_stops_with_its_number_and_nothing_of_its_batch() {
    let stage = Stage::new(STREAMS);
    let output = stage.feed(&["append", "in", "--batch", "2"], "1\n2\n3\n{\"broken\n5\n");
    assert_eq!(output.stdout, "appended 2 events to in\n");
    output.fails(
        1,
        "error: appended 2 events to in, then stopped; nothing of the batch of this line was appended: standard input, line 4: not JSON: EOF while parsing a string at line 1 column 8",
    );
    let appended: BTreeSet<_> = stage.tail("in").iter().map(|event| event["payload"].as_u64()).collect();
    assert_eq!(appended, BTreeSet::from([Some(1), Some(2)]));
}

#[test]
fn a_broken_line_of_a_file_names_the_file() {
    let stage = Stage::new(STREAMS);
    stage.write("events.ndjson", "{\"id\":\"1\",\"payload\":1}\n{\"id\":\"2\",\"payloud\":2}\n");
    stage.pelton(&["append", "in", "events.ndjson", "--format", "event"]).fails(
        1,
        "error: appended 0 events to in, then stopped; nothing of the batch of this line was appended: events.ndjson, line 2: not an event: unknown field `payloud`, expected one of `id`, `key`, `kind`, `headers`, `payload`, `payload_base64`, `stream`, `partition`, `offset`, `time` at line 1 column 19",
    );
    assert_eq!(stage.tail("in"), [] as [Value; 0]);
    stage
        .pelton(&["append", "in", "none.ndjson"])
        .fails(1, "error: cannot open none.ndjson: No such file or directory (os error 2); correct the path, or say - for standard input");
}

#[test]
fn a_pointer_that_finds_nothing_stops_with_the_line() {
    let stage = Stage::new(STREAMS);
    let stopped =
        "error: appended 0 events to in, then stopped; nothing of the batch of this line was appended: standard input";
    stage
        .feed(&["append", "in", "--key", "/who"], "{\"who\":\"ann\"}\n{\"whom\":\"ben\"}\n")
        .fails(1, &format!("{stopped}, line 2: --key /who finds nothing in the payload"));
    stage.feed(&["append", "in", "--id", "/id"], "{\"id\":[1]}\n").fails(
        1,
        &format!("{stopped}, line 1: --id /id finds a list, an object or null; expected a string or a number"),
    );
    assert_eq!(stage.tail("in"), [] as [Value; 0]);
}

#[test]
fn a_payload_over_the_limit_stops_with_its_line_and_nothing_of_its_batch() {
    let stage = Stage::new(STREAMS);
    stage.feed(&["append", "small"], "1\n2\n\"12345678901\"\n").fails(
        1,
        "error: appended 0 events to small, then stopped; nothing of the batch of this line was appended: standard input, line 3: payload has 13 bytes, over the stream's payload_max of 10; send less, or raise payload_max",
    );
    assert_eq!(stage.tail("small"), [] as [Value; 0]);
}

#[test]
fn an_event_in_bytes_comes_out_as_it_went_in() {
    let stage = Stage::new(STREAMS);
    let lines =
        "{\"id\":\"1\",\"payload_base64\":\"/wA=\",\"headers\":{\"a\":\"b\"}}\n{\"id\":\"2\",\"payload\":null}\n";
    stage.feed(&["append", "small", "--format", "event"], lines).ok();
    let events = stage.tail("small");
    assert_eq!((&events[0]["payload_base64"], &events[0]["headers"]), (&json!("/wA="), &json!({ "a": "b" })));
    assert!(events[0].get("payload").is_none());
    assert_eq!(names(&events[1]), ["headers", "id", "key", "kind", "offset", "partition", "payload", "stream", "time"]);
    assert_eq!(
        (&events[1]["payload"], &events[1]["key"], &events[1]["kind"]),
        (&json!(null), &json!(null), &json!(""))
    );
}

#[test]
fn what_tail_prints_can_be_appended_to_another_stream() {
    let stage = Stage::new("[streams.a]\npartitions = 3\n[streams.b]\npartitions = 5\n");
    let events = [
        event(1, "k1", "x", json!({ "h": "1" }), json!({ "n": 1.50, "t": "ü\n" })),
        event(2, "k2", "", json!({}), json!([1, null])),
        json!({ "id": "3", "payload_base64": "gAE=" }),
    ];
    stage.append("a", &events);
    let printed = stage.pelton(&["tail", "a", "--json"]).ok().stdout;
    stage.feed(&["append", "b", "--format", "event"], &printed).ok();
    let without_place = |stream: &str| {
        let mut events = stage.tail(stream);
        for event in &mut events {
            event
                .as_object_mut()
                .unwrap()
                .retain(|name, _| !["stream", "partition", "offset", "time"].contains(&name.as_str()));
        }
        events.sort_by_key(|event| event["id"].to_string());
        events
    };
    assert_eq!(without_place("b"), without_place("a"));
}

#[test]
fn what_an_event_line_says_itself_is_not_taken_from_the_command_line() {
    let stage = Stage::new(STREAMS);
    for name in ["key", "kind", "id"] {
        stage.feed(&["append", "in", "--format", "event", &format!("--{name}"), "k"], "{\"payload\":1}\n").fails(
            2,
            &format!("error: --{name} is for --format json; in an event line the {name} is its field \"{name}\""),
        );
    }
    assert!(!stage.path("pelton.db").exists());
}

#[test]
fn a_stream_that_does_not_exist_is_refused_with_those_that_do() {
    let stage = Stage::new(STREAMS);
    stage.pelton(&["migrate"]).ok();
    stage
        .feed(&["append", "inn"], "1\n")
        .fails(1, r#"error: stream "inn" does not exist; known streams: "in", "small""#);
    stage.pelton(&["tail", "inn"]).fails(1, r#"error: stream "inn" does not exist; known streams: "in", "small""#);
}

// --- tail ---------------------------------------------------------------------------------------------------------

/// Ten events of three keys, the payload their number.
fn ten_events() -> Stage {
    let stage = Stage::new(STREAMS);
    let events: Vec<_> = (0..10).map(|n| event(n, &format!("k{}", n % 5), "", json!({}), json!(n))).collect();
    stage.append("in", &events);
    stage
}

#[test]
fn tail_ends_at_the_head_and_takes_a_number_of_events() {
    let stage = ten_events();
    let count = |args: &[&str]| stage.pelton(&[&["tail", "in", "--json"], args].concat()).ok().lines().len();
    assert_eq!(count(&[]), 10);
    assert_eq!(count(&["-n", "3"]), 3);
    assert_eq!(count(&["-n", "0"]), 0);
    assert_eq!(count(&["-n", "99"]), 10);
    assert_eq!(count(&["--from", "latest"]), 0);
}

#[test]
fn tail_reads_one_partition_from_an_offset() {
    let stage = ten_events();
    for partition in 0..3 {
        let all = stage.tail("in");
        let expected: Vec<_> =
            all.iter().filter(|event| event["partition"] == partition && event["offset"].as_u64() >= Some(1)).collect();
        let args = ["tail", "in", "--json", "--from", "1", "--partition", &partition.to_string()];
        let found = stage.pelton(&args).ok().lines();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
    stage
        .pelton(&["tail", "in", "--partition", "3"])
        .fails(1, r#"error: stream "in" has no partition 3; it has 3, numbered from 0"#);
}

#[test]
fn tail_follows_what_others_append() {
    let stage = ten_events();
    let mut tail = stage.command(&["tail", "in", "--follow", "--from", "latest", "--json", "-n", "2"]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(tail.stdout.take().unwrap()).lines();
    // It says nothing when it is ready: what is appended before is behind the head it began at.
    let reader = thread::spawn(move || (printed.next().unwrap().unwrap(), printed.next().unwrap().unwrap()));
    let mut appended = 0;
    wait_for("two events to be printed", || {
        appended += 1;
        stage.append("in", &[event(format_args!("new{appended}"), "k", "", json!({}), json!("new"))]);
        reader.is_finished().then_some(())
    });
    let (first, second) = reader.join().unwrap();
    for line in [first, second] {
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["payload"], "new");
    }
    assert!(tail.wait().unwrap().success(), "it ends after its number of events");
}

#[test]
fn a_person_sees_where_an_event_is_and_a_part_of_a_long_payload() {
    let stage = Stage::new("[streams.in]\npartitions = 1\n");
    stage.append("in", &[event(1, "k1", "note", json!({}), json!("x".repeat(1000)))]);
    let line = stage.pelton(&["tail", "in"]).ok().stdout;
    assert!(line.starts_with("in/0@0  20") && line.contains("  note  k1  \"xxx") && line.ends_with("x…\n"), "{line}");
    assert!(line.chars().count() < 250, "{line}");
}

/// Runs a command of which somebody reads the beginning and no more: its status, and what it said of errors.
fn read_the_beginning_of(stage: &Stage, args: &[&str]) -> (Option<i32>, String) {
    let mut child = stage.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What would paint a terminal red, ring it, and begin a line of its own.
const STEERING: &str = "\u{1b}[31m\u{7}red\nnext\u{9b}1m";
const STEERING_SHOWN: &str = "\\u{1b}[31m\\u{7}red\\nnext\\u{9b}1m";

#[test]
fn keys_and_kinds_of_others_steer_no_terminal() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"dead-letter-key\" }");
    let refused = event(STEERING, STEERING, "permanent", json!({}), json!("no such order"));
    stage.append("in", &[refused, event("2", "k", STEERING, json!({}), json!(1))]);
    stage.run_until_idle();
    for (args, expected) in [
        (&["tail", "in"][..], format!("  permanent  {STEERING_SHOWN}  \"no such order\"\n")),
        (&["tail", "in"], format!("  {STEERING_SHOWN}  k  1\n")),
        (&["dead-letters", "list", "work"], format!("0/0  {STEERING_SHOWN}  {STEERING_SHOWN}  permanent  permanent")),
        (&["dead-letters", "show", "work", "--id", "0/0"], format!("key       {STEERING_SHOWN}\nkind ")),
        (&["group", "show", "work"], format!("\n{STEERING_SHOWN}  0 ")),
    ] {
        let shown = stage.pelton(args).ok().stdout;
        assert!(shown.contains(&expected) && !shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let stage = Stage::new("[streams.in]\npartitions = 1\n");
    // More than a pipe holds.
    let events: Vec<_> = (0..2000).map(|n| event(n, "k", "", json!({}), json!("x".repeat(200)))).collect();
    stage.append("in", &events);
    for args in [&["tail", "in", "--json"][..], &["tail", "in", "--follow"]] {
        assert_eq!(read_the_beginning_of(&stage, args), (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn all_is_appended_whoever_reads_what_is_printed_of_it() {
    let stage = Stage::new("[streams.in]\npartitions = 1\n");
    let lines = |count: u32| (0..count).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    stage.write("events.ndjson", lines(5_000));
    let append = ["--json", "append", "in", "events.ndjson"];
    assert_eq!(read_the_beginning_of(&stage, &append), (Some(0), String::new()));
    assert_eq!(stage.tail("in").len(), 5_000);

    stage.write("events.ndjson", lines(4_000) + "{");
    let (status, error) = read_the_beginning_of(&stage, &append);
    assert_eq!(status, Some(1), "the last line is no event");
    assert!(error.starts_with("error: appended 4000 events to in, then stopped"), "{error}");
}

// --- Groups and overviews -------------------------------------------------------------------------------------------

#[test]
fn a_group_that_does_not_exist_is_refused_with_those_that_do() {
    let stage = Stage::with_group(1, "");
    stage.pelton(&["migrate"]).ok();
    for verb in ["show", "pause", "resume"] {
        stage.pelton(&["group", verb, "wrok"]).fails(1, r#"error: group "wrok" does not exist; known groups: "work""#);
    }
    for verb in ["pause", "resume"] {
        stage
            .pelton(&["group", verb, "work", "--partition", "1"])
            .fails(1, r#"error: group "work" has no partition 1; it has 1, numbered from 0"#);
    }
}

#[test]
fn programs_read_groups_streams_and_handlers_under_the_documented_names() {
    let stage = Stage::with_group(2, "");
    let daemon = stage.daemon();
    stage.append("in", &count_events(10, 3));
    stage.await_drained("work");
    wait_for("the calls to be reported", || (stage.handler("h")["calls"] == 10).then_some(()));

    let groups = stage.pelton(&["groups", "--json"]).json();
    let group = &groups[0];
    has_names(group, &["group", "stream", "handler", "state", "members", "lag", "partitions"]);
    assert_eq!((&group["group"], &group["stream"], &group["handler"]), (&json!("work"), &json!("in"), &json!("h")));
    assert_eq!((&group["state"], &group["members"], &group["lag"]), (&json!("idle"), &json!(1), &json!(0)));
    let partition = &group["partitions"][1];
    has_names(
        partition,
        &["partition", "committed", "position", "head", "lag", "owner", "epoch", "state", "attempts", "next_attempt"],
    );
    assert_eq!(
        (&partition["partition"], &partition["epoch"], &partition["attempts"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!((&partition["committed"], &partition["next_attempt"]), (&partition["head"], &Value::Null));

    let shown = stage.group("work");
    has_names(&shown, &["group", "partitions", "consumers", "parked"]);
    let consumer = &shown["consumers"][0];
    assert_eq!(names(consumer), ["host", "last_heartbeat", "registered_at", "session_timeout", "status"]);
    assert_eq!((&consumer["status"], &consumer["host"]), (&json!("active"), &partition["owner"]));
    assert_eq!(shown["parked"], json!([]));

    let streams = stage.pelton(&["streams", "--json"]).json();
    has_names(&streams[0], &["stream", "partitions", "retention"]);
    assert_eq!(names(&streams[0]["partitions"][0]), ["first", "head", "partition"]);

    let handler = stage.handler("h");
    has_names(&handler, &["handler", "digest", "since", "state", "gone", "error", "calls", "failures"]);
    assert_eq!(handler["gone"], false);
    assert_eq!((&handler["state"], &handler["error"], &handler["failures"]), (&json!("live"), &Value::Null, &json!(0)));
    assert_eq!(handler["digest"], pelton_sandbox::digest_of(&guest("misbehave")));
    daemon.stop();
    let handler = stage.handler("h");
    assert_eq!((&handler["state"], &handler["gone"]), (&json!("live"), &json!(true)), "what its host said last");
    let table = stage.pelton(&["handlers"]).ok().stdout;
    assert!(table.lines().nth(1).is_some_and(|row| row.split_whitespace().nth(2) == Some("gone")), "{table}");
}

#[test]
fn why_a_module_is_refused_stands_under_the_table() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    stage.replace("misbehave.wasm", CORE_MODULE);
    let error = stage.await_handler("h", "refused")["error"].as_str().unwrap().to_owned();
    let table = stage.pelton(&["handlers"]).ok().stdout;
    let (rows, under) = table.split_once("\n\n").unwrap();
    assert!(rows.lines().all(|row| row.len() <= 100) && rows.contains("refused"), "{table}");
    assert!(under.starts_with("error handler h on ") && under.ends_with(&format!(": {error}\n")), "{table}");
    daemon.stop();
}

#[test]
fn people_read_tables_or_a_sentence_where_there_is_nothing() {
    let stage = Stage::new("");
    stage.pelton(&["migrate"]).ok();
    let says = |command: &str| stage.pelton(&[command]).ok().stdout;
    assert_eq!(says("streams"), "no streams yet: declare one in workers.toml\n");
    assert_eq!(says("groups"), "no groups yet: declare one in workers.toml and start `pelton run`\n");
    assert_eq!(says("handlers"), "no handler was loaded yet: start `pelton run`\n");

    let stage = Stage::with_group(1, "");
    stage.append("in", &count_events(3, 1));
    assert_eq!(
        stage.pelton(&["streams"]).ok().stdout,
        "STREAM  PARTITIONS  EVENTS  RETENTION\nin      1           3       forever\nout     1           0       forever\n"
    );
    let groups = stage.pelton(&["groups"]).ok().stdout;
    assert_eq!(groups.split_whitespace().collect::<Vec<_>>()[7..], ["work", "in", "h", "unowned", "0", "0", "3"]);
}

#[test]
fn pause_and_resume_answer_programs_too() {
    let stage = Stage::with_group(2, "");
    stage.pelton(&["migrate"]).ok();
    let answer = stage.pelton(&["group", "pause", "work", "--partition", "1", "--json"]).json();
    assert_eq!(answer, json!({ "group": "work", "partition": 1, "done": "paused" }));
    let states = |group: &Value| [0, 1].map(|n| group["partitions"][n]["state"].as_str().unwrap().to_owned());
    let group = stage.group("work");
    assert_eq!((states(&group), &group["state"]), (["unowned".into(), "paused".into()], &json!("paused")));
    let answer = stage.pelton(&["group", "resume", "work", "--json"]).json();
    assert_eq!(answer, json!({ "group": "work", "partition": null, "done": "resumed" }));
    assert_eq!(states(&stage.group("work")), ["unowned", "unowned"]);
}

// --- test ---------------------------------------------------------------------------------------------------------

fn test_stage() -> Stage {
    let stage = Stage::new("");
    let events = [
        event("a", "k", "count", json!({ "to": "sums" }), json!(null)),
        event("b", "k", "count", json!({ "to": "sums" }), json!(null)),
        event("c", "k", "permanent", json!({}), json!("no such order")),
        event("d", "k", "panic", json!({}), json!("oh")),
        event("e", "k", "log", json!({}), json!("hello")),
    ];
    stage.write("events.ndjson", events.iter().map(|event| format!("{event}\n")).collect::<String>());
    stage
}

#[test]
fn test_prints_outcomes_effects_and_logs_under_the_documented_names() {
    let stage = test_stage();
    let output = stage.pelton(&["test", "misbehave.wasm", "--events", "events.ndjson", "--json"]);
    assert_eq!(output.status, 1, "some failed");
    let results = output.lines();
    assert_eq!(names(&results[0]), ["emitted", "event", "logs", "micros", "outcome", "reason", "state"]);
    let outcomes: Vec<_> = results.iter().map(|result| result["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["done", "done", "permanent", "trap", "done"]);
    assert_eq!(results[1]["state"], json!({ "k": "2" }));
    assert_eq!(
        (&results[1]["emitted"][0]["stream"], &results[1]["emitted"][0]["payload"]),
        (&json!("sums"), &json!(2))
    );
    assert_eq!(results[2]["reason"], "\"no such order\"");
    assert!(results[3]["reason"].as_str().unwrap().contains("boom: \"oh\""), "{}", results[3]);
    assert_eq!(results[4]["logs"].as_array().unwrap().len(), 6);
}

#[test]
fn test_writes_what_to_expect_and_compares_with_it() {
    let stage = test_stage();
    let test = |more: &[&str]| {
        stage.pelton(
            &[&["test", "misbehave.wasm", "--events", "events.ndjson", "--expect", "expected.ndjson"], more].concat(),
        )
    };
    let missing = test(&[]);
    assert_eq!(missing.status, 1);
    assert!(
        missing.stderr.starts_with("error: cannot read expected.ndjson; --update writes it: "),
        "{}",
        missing.stderr
    );

    assert_eq!(last_line(&test(&["--update"]).ok().stdout), "expected.ndjson written with 5 lines");
    assert_eq!(last_line(&test(&[]).ok().stdout), "5 as expected, 0 differ", "failures that are expected are well");

    let written = std::fs::read_to_string(stage.path("expected.ndjson")).unwrap();
    stage.write("expected.ndjson", written.replace("\"k\":\"2\"", "\"k\":\"3\""));
    let differs = test(&[]);
    assert_eq!((last_line(&differs.stdout), differs.status), ("4 as expected, 1 differ", 1));
    assert!(differs.stderr.starts_with("event \"b\" differs:\n  expected {"), "{}", differs.stderr);

    stage.write("expected.ndjson", written.lines().next().unwrap());
    test(&[]).fails(1, "error: expected.ndjson expects 1 events, found 5; --update writes it anew");
}

#[test]
fn events_without_an_id_are_the_same_in_every_run_of_test() {
    let stage = Stage::new("");
    stage.write("events.ndjson", "{\"n\":1}\n\n{\"n\":2}\n");
    let args =
        ["test", "misbehave.wasm", "--events", "events.ndjson", "--format", "json", "--expect", "expected.ndjson"];
    stage.pelton(&[&args[..], &["--update"]].concat()).ok();
    assert_eq!(last_line(&stage.pelton(&args).ok().stdout), "2 as expected, 0 differ");
    let ids: Vec<_> =
        stage.pelton(&args[..6]).ok().stdout.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(ids, ["1", "3", "2"], "the numbers of their lines, and the sum");
}

#[test]
fn test_gives_its_verdict_whoever_reads_what_came_of_each_event() {
    let stage = Stage::new("");
    let count = |n: u32| format!("{}\n", count_event(n, "k"));
    // More than a pipe holds, and then one that fails.
    let last = event("last", "k", "permanent", json!({}), json!("no such order"));
    stage.write("events.ndjson", (0..2_000).map(count).collect::<String>() + &last.to_string());
    let args = ["test", "misbehave.wasm", "--events", "events.ndjson", "--json"];
    assert_eq!(read_the_beginning_of(&stage, &args), (Some(1), String::new()));
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[test]
fn test_refuses_what_is_no_module_or_no_event() {
    let stage = test_stage();
    stage
        .pelton(&["test", "none.wasm", "--events", "events.ndjson"])
        .fails(1, "error: cannot read module none.wasm: No such file or directory (os error 2); build it with `pelton build`, or correct the path");
    stage.write("core.wasm", CORE_MODULE);
    stage.pelton(&["test", "core.wasm", "--events", "events.ndjson"]).fails(
        1,
        "error: module core.wasm: this is a core module, not a component; build it with `pelton build`, or with `wasm-tools component new`",
    );
    stage.write("events.ndjson", "{\"id\":\"a\"}\n");
    stage
        .pelton(&["test", "misbehave.wasm", "--events", "events.ndjson"])
        .fails(1, "error: events.ndjson, line 1: payload is missing; expected payload (JSON) or payload_base64");
}
