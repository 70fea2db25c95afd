//! Recorded events through a module, and beside them the version that runs.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value, json};
use support::{Output, Stage, count_event, event, guest, misbehave_v2, wait_for};

/// Partition and offset of an event or of a line about it.
#[track_caller]
fn at(line: &Value) -> (u64, u64) {
    (line["partition"].as_u64().unwrap(), line["offset"].as_u64().unwrap())
}

/// The lines about events, and the summary after them.
#[track_caller]
fn told(output: &Output) -> (Vec<Value>, Value) {
    let mut lines = output.lines();
    let summary = lines.pop().unwrap_or_else(|| panic!("{output:?}"));
    assert!(summary.get("compared").is_some(), "{summary}");
    (lines, summary)
}

fn replay(stage: &Stage, args: &[&str]) -> Output {
    stage.pelton(&[&["replay", "work"], args].concat())
}

/// Events that are counted, one in a hundred of which is reported to `out` too.
fn one_in_a_hundred(count: usize) -> Vec<Value> {
    let headers = |n: usize| if n % 100 == 42 { json!({ "to": "out" }) } else { json!({}) };
    (0..count).map(|n| event(format_args!("e{n}"), &format!("k{}", n % 7), "count", headers(n), json!(0))).collect()
}

/// One partition with ten events of one key that were counted and reported.
fn ten_counted() -> Stage {
    let stage = Stage::with_group(1, "");
    stage.append("in", &(0..10).map(|n| count_event(n, "k")).collect::<Vec<_>>());
    stage.run_until_idle();
    stage
}

// --- Two versions -------------------------------------------------------------------------------------------------

#[test]
fn a_module_does_not_differ_from_itself() {
    let stage = Stage::with_group(2, "on_failure = { strategy = \"dead-letter\" }");
    let mut events = one_in_a_hundred(300);
    for (n, kind) in ["permanent", "panic", "unreachable", "transient", "log"].into_iter().enumerate() {
        events.push(event(format_args!("f{n}"), "k", kind, json!({}), json!("no such order")));
    }
    stage.append("in", &events);
    stage.run_until_idle();
    let before = stage.group("work");

    let output = replay(&stage, &["--module", "misbehave.wasm", "--diff", "--json"]).ok();
    let (lines, summary) = told(&output);
    assert_eq!(lines, [Value::Null; 0]);
    assert_eq!(
        (&summary["compared"], &summary["differing"], &summary["new_errors"]),
        (&json!(305), &json!(0), &json!(0))
    );
    assert_eq!(
        (&summary["group"], &summary["module"], &summary["state"]),
        (&json!("work"), &json!("misbehave.wasm"), &json!("empty"))
    );
    assert_eq!((&summary["old"]["errors"], &summary["new"]["errors"]), (&json!(4), &json!(4)));
    assert_eq!(summary["old"]["digest"], summary["digest"]);
    assert!(summary["new"]["micros_per_event"].as_f64().unwrap() > 0.0, "{summary}");
    assert_eq!(stage.group("work"), before, "nothing was moved or stored");
}

#[test]
fn exactly_the_events_differ_that_a_version_handles_otherwise() {
    let stage = Stage::with_group(3, "");
    stage.append("in", &one_in_a_hundred(1000));
    stage.run_until_idle();
    stage.write("new.wasm", misbehave_v2());
    let reported = stage.tail("in").into_iter().filter(|event| event["headers"]["to"] == "out");
    let expected: BTreeSet<_> = reported.map(|event| at(&event)).collect();
    assert_eq!(expected.len(), 10);

    let output = replay(&stage, &["--module", "new.wasm", "--diff", "--json"]);
    assert_eq!(output.status, 1, "{output:?}");
    let (lines, summary) = told(&output);
    assert_eq!(lines.iter().map(at).collect::<BTreeSet<_>>(), expected);
    assert_eq!(lines.len(), expected.len());
    for line in &lines {
        assert_eq!(line["differs"], json!(["emitted"]));
        assert_eq!(line["event"], line["new"]["event"]);
        assert_eq!(
            (&line["old"]["emitted"][0]["kind"], &line["new"]["emitted"][0]["kind"]),
            (&json!("counted"), &json!("tallied"))
        );
        assert_eq!(line["old"]["state"], line["new"]["state"]);
    }
    assert_eq!((&summary["compared"], &summary["differing"]), (&json!(1000), &json!(10)));
    assert_eq!(summary["differs"], json!({ "emitted": 10, "state": 0, "outcome": 0 }));

    let people = replay(&stage, &["--module", "new.wasm", "--diff"]);
    assert!(people.stdout.contains("    emitted/0/kind: \"counted\" → \"tallied\"\n"), "{}", people.stdout);
    assert!(
        people.stdout.contains("10 events differ: 10 in what they emit, 0 in state, 0 in the outcome; 0 new errors"),
        "{}",
        people.stdout
    );
}

#[test]
fn what_fails_newly_is_told_from_what_is_repaired() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"skip\" }");
    stage.append("in", &[count_event("fine", "k"), event("bad", "k", "permanent", json!({}), json!("no such order"))]);
    stage.run_until_idle();
    stage.write("repaired.wasm", guest("misbehave-repaired"));

    let output = replay(&stage, &["--module", "repaired.wasm", "--diff", "--json"]);
    let (lines, summary) = told(&output);
    assert_eq!(output.status, 1);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&line["event"], &line["differs"]), (&json!("bad"), &json!(["state", "outcome"])));
    assert_eq!((&line["old"]["outcome"], &line["new"]["outcome"]), (&json!("permanent"), &json!("done")));
    assert_eq!(
        (&summary["new_errors"], &summary["old"]["errors"], &summary["new"]["errors"]),
        (&json!(0), &json!(1), &json!(0))
    );

    // The other way round, with the repaired one running.
    stage.replace("misbehave.wasm", guest("misbehave-repaired"));
    stage.run_until_idle();
    stage.write("old.wasm", guest("misbehave"));
    let (_, summary) = told(&replay(&stage, &["--module", "old.wasm", "--diff", "--json"]));
    assert_eq!((&summary["differing"], &summary["new_errors"]), (&json!(1), &json!(1)));
    assert_eq!(summary["differs"], json!({ "emitted": 0, "state": 1, "outcome": 1 }));
}

#[test]
fn the_running_version_is_that_of_the_store_and_the_new_one_may_lie_in_its_file() {
    let stage = ten_counted();
    stage.replace("misbehave.wasm", misbehave_v2());
    let output = replay(&stage, &["--diff", "--json"]);
    assert_eq!((output.status, &*output.stderr), (1, ""));
    let (lines, summary) = told(&output);
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0]["old"]["emitted"][0]["kind"], "counted");
    assert_eq!(
        (&summary["module"], &summary["old"]["digest"]),
        (&json!(stage.shown("misbehave.wasm")), &stage.handler("h")["digest"])
    );
    assert_ne!(summary["old"]["digest"], summary["new"]["digest"]);
}

#[test]
fn where_no_version_is_on_record_the_file_is_taken_for_the_running_one_and_that_is_said() {
    let stage = Stage::with_group(1, "");
    stage.append("in", &[count_event("e", "k")]);
    stage.write("new.wasm", misbehave_v2());
    let output = replay(&stage, &["--module", "new.wasm", "--diff", "--json"]);
    assert_eq!(told(&output).1["differing"], 1);
    assert!(output.stderr.starts_with("note: the store knows no version of handler \"h\"; "), "{}", output.stderr);
    assert!(output.stderr.trim_end().ends_with("is taken for the running one"), "{}", output.stderr);
}

#[test]
fn the_running_version_is_not_compared_with_itself_unasked() {
    let stage = ten_counted();
    let output = replay(&stage, &["--diff"]);
    assert_eq!(output.status, 1);
    assert!(
        output.stderr.contains("which would be compared with itself; name the new one with --module"),
        "{}",
        output.stderr
    );
}

// --- One version --------------------------------------------------------------------------------------------------

#[test]
fn without_a_difference_to_look_for_every_event_is_told_as_in_a_test() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"skip\" }");
    stage.append("in", &[count_event("fine", "k"), event("bad", "k", "permanent", json!({}), json!("no such order"))]);
    let output = replay(&stage, &["--json"]);
    let (lines, summary) = told(&output);
    assert_eq!(output.status, 1, "one fails");
    let outcomes: Vec<_> = lines.iter().map(|line| (at(line).1, &line["event"], &line["outcome"])).collect();
    assert_eq!(outcomes, [(0, &json!("fine"), &json!("done")), (1, &json!("bad"), &json!("permanent"))]);
    assert_eq!(lines[0]["emitted"][0]["payload"], 1);
    assert_eq!(
        (&summary["differing"], &summary["old"], &summary["new"]["errors"]),
        (&Value::Null, &Value::Null, &json!(1))
    );
    assert_eq!(stage.tail("out"), [Value::Null; 0], "nothing was emitted");
}

#[test]
fn events_that_the_group_does_not_want_are_passed_over() {
    let stage = Stage::with_group(1, "filter = { kind = [\"count\"] }");
    let other = event("other", "k", "permanent", json!({}), json!("not for this group"));
    stage.append("in", &[count_event("a", "k"), other, count_event("b", "k")]);
    let (lines, summary) = told(&replay(&stage, &["--json"]).ok());
    assert_eq!(lines.iter().map(|line| at(line).1).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(summary["compared"], 2);
}

#[test]
fn a_range_is_given_by_offset_time_or_what_was_handled_last() {
    let stage = ten_counted();
    thread::sleep(Duration::from_millis(10));
    stage.append("in", &[count_event("late", "k")]);
    let late = stage.tail("in").pop().unwrap()["time"].as_str().unwrap().to_owned();
    let offsets = |args: &[&str]| {
        let (lines, _) = told(&replay(&stage, &[args, &["--json"]].concat()).ok());
        lines.iter().map(|line| at(line).1).collect::<Vec<_>>()
    };
    assert_eq!(offsets(&["--from", "3", "--to", "5"]), [3, 4]);
    assert_eq!(offsets(&["--from", &late]), [10]);
    assert_eq!(offsets(&["--to", &late, "--from", "9"]), [9]);
    assert_eq!(offsets(&["--last", "2"]), [8, 9], "the last one is not handled yet");
    assert_eq!(offsets(&["--from", "latest"]), [0; 0]);
    assert_eq!(offsets(&["--partition", "0"]).len(), 11);
    let (_, summary) = told(&replay(&stage, &["--from", "3", "--json"]).ok());
    assert_eq!(summary["partitions"], json!([{ "partition": 0, "from": 3, "to": 11 }]));
}

// --- State --------------------------------------------------------------------------------------------------------

#[test]
fn the_first_event_meets_no_state_that_of_today_or_what_the_versions_make_of_those_before() {
    let stage = ten_counted();
    let first = |args: &[&str]| {
        let (lines, summary) = told(&replay(&stage, &[args, &["--json"]].concat()).ok());
        (lines[0]["emitted"][0]["payload"].as_u64().unwrap(), summary["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(first(&[]), (1, "empty".into()), "the first event of all");
    assert_eq!(first(&["--state", "today"]), (11, "today".into()));
    assert_eq!(first(&["--from", "5"]), (11, "today".into()));
    assert_eq!(first(&["--from", "5", "--state", "empty"]), (1, "empty".into()));
    assert_eq!(first(&["--from", "5", "--state", "rebuild"]), (6, "rebuilt".into()));
    assert_eq!(stage.tail("out").len(), 10, "nothing was emitted");
}

/// A partition of ten dead letters and one event, of which retention has left the event.
fn trimmed() -> Stage {
    let config = support::one_group(1, "on_failure = { strategy = \"dead-letter\" }")
        .replace("[host]", "[host]\ncleanup_interval = \"1s\"")
        .replacen("[streams.in]", "[streams.in]\nretention = \"1ms\"", 1);
    let stage = Stage::new(&config);
    let bad = |n| event(n, "k", "panic", json!({}), json!("no such order"));
    stage.append("in", &(0..10).map(bad).collect::<Vec<_>>());
    let daemon = stage.daemon();
    let first = || stage.pelton(&["streams", "--json"]).json()[0]["partitions"][0]["first"].as_u64();
    wait_for("retention", || first().filter(|first| *first == 10));
    daemon.stop();
    stage.append("in", &[count_event("last", "k")]);
    stage
}

#[test]
fn state_is_not_rebuilt_from_a_part_of_history() {
    let stage = trimmed();
    replay(&stage, &["--state", "rebuild"]).fails(
        1,
        "error: state cannot be rebuilt: partition 0 of stream \"in\" begins at offset 10, what was before is not kept any more; say --state today, --state empty, or another --partition",
    );
    let (_, summary) = told(&replay(&stage, &["--json"]).ok());
    assert_eq!((&summary["state"], &summary["compared"]), (&json!("today"), &json!(1)));
}

// --- One event ----------------------------------------------------------------------------------------------------

#[test]
fn one_event_is_shown_with_its_logs_and_one_that_traps_with_its_backtrace() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"skip\" }");
    stage.append(
        "in",
        &[
            event("said", "k", "log", json!({}), json!("hello")),
            event("trap", "k", "panic", json!({}), json!("no such order")),
        ],
    );
    let said = replay(&stage, &["--event", "0/0"]).ok();
    assert!(said.stdout.contains("    log    critical"), "{}", said.stdout);
    let trap = replay(&stage, &["--event", "0/1"]);
    assert_eq!(trap.status, 1);
    assert!(trap.stdout.contains("\n  trap  ") && trap.stdout.contains("boom: \"no such order\""), "{}", trap.stdout);
    assert!(trap.stdout.contains("\n    at     0:   0x"), "{}", trap.stdout);

    let both = replay(&stage, &["--event", "0/1", "--module", "misbehave.wasm", "--diff", "--json"]).json();
    assert_eq!((at(&both), &both["event"]["id"], &both["source"]), ((0, 1), &json!("trap"), &json!("stream")));
    assert_eq!(
        (&both["old"]["outcome"], &both["new"]["outcome"], &both["differs"]),
        (&json!("trap"), &json!("trap"), &json!([]))
    );
    assert!(both["new"]["reason"].as_str().unwrap().contains("wasm backtrace"), "{both}");

    let none = replay(&stage, &["--event", "0/2"]);
    none.fails(1, "error: there is no event 0/2: partition 0 of stream \"in\" holds offsets 0 to 2 (not included), and it is no dead letter of group \"work\"");
}

#[test]
fn an_event_that_is_kept_as_a_dead_letter_alone_can_be_looked_at() {
    let stage = trimmed();
    let letter = replay(&stage, &["--event", "0/3", "--json"]);
    assert_eq!(letter.status, 1);
    let [letter] = &letter.lines()[..] else { panic!("{letter:?}") };
    assert_eq!((&letter["source"], &letter["new"]["outcome"]), (&json!("dead-letter"), &json!("trap")));
}

#[test]
fn one_event_meets_the_state_that_was_asked_for() {
    let stage = ten_counted();
    let payload = |args: &[&str]| {
        let output = replay(&stage, &[&["--event", "0/5", "--json"], args].concat()).json();
        output["new"]["emitted"][0]["payload"].as_u64().unwrap()
    };
    assert_eq!((payload(&[]), payload(&["--state", "empty"]), payload(&["--state", "rebuild"])), (11, 1, 6));
}

// --- As a gate ----------------------------------------------------------------------------------------------------

#[test]
fn a_range_in_which_no_event_can_lie_is_refused_with_what_there_is() {
    let stage = ten_counted();
    for (from, to) in [("2", "1"), ("999", "latest"), ("latest", "earliest")] {
        replay(&stage, &["--from", from, "--to", to]).fails(
            1,
            &format!("error: no event can lie between --from {from} and --to {to}: of stream \"in\", partition 0 offsets 0 to 10 (not included) are there; choose a range within that"),
        );
    }
    let stage = Stage::with_group(3, "");
    stage.append("in", &[count_event("e", "k")]);
    let output = replay(&stage, &["--from", "1"]);
    assert_eq!(output.status, 0, "one partition has it as its head: {output:?}");
    let output = replay(&stage, &["--from", "2"]);
    assert_eq!(output.stderr.matches("no events, and 0 comes next").count(), 2, "{}", output.stderr);
}

#[test]
fn a_comparison_of_nothing_lets_no_version_pass() {
    let stage = ten_counted();
    stage.write("new.wasm", misbehave_v2());
    let output = replay(&stage, &["--module", "new.wasm", "--diff", "--from", "latest"]);
    assert_eq!(output.status, 1);
    assert!(
        output.stdout.contains("\nnothing was compared: ") && !output.stdout.contains("no difference"),
        "{output:?}"
    );
    let output = replay(&stage, &["--module", "new.wasm", "--diff", "--from", "latest", "--json"]);
    assert_eq!((output.status, &told(&output).1["compared"]), (1, &json!(0)));
    replay(&stage, &["--module", "new.wasm", "--from", "latest"]).ok();
}

#[test]
fn a_version_that_is_compared_with_itself_is_told_so() {
    let stage = ten_counted();
    stage.write("copy.wasm", guest("misbehave"));
    let output = replay(&stage, &["--module", "copy.wasm", "--diff"]).ok();
    let digest = pelton_sandbox::digest_of(&guest("misbehave"));
    let note = format!("note: copy.wasm is the version that is live ({digest}): it is compared with itself\n");
    assert_eq!(output.stderr, note);
    assert!(output.stdout.ends_with("\nno difference: this is the version that is live\n"), "{}", output.stdout);
}

// --- What is refused ----------------------------------------------------------------------------------------------

#[test]
fn what_cannot_be_replayed_is_refused_with_the_remedy() {
    let stage = Stage::with_group(2, "");
    stage.append("in", &[count_event("e", "k")]);
    assert_eq!(replay(&stage, &["--event", "7"]).status, 2);
    assert_eq!(replay(&stage, &["--last", "0"]).status, 2);
    assert_eq!(replay(&stage, &["--last", "5", "--from", "1"]).status, 2);
    let missing = replay(&stage, &["--module", "new.wasm"]);
    assert!(
        missing.stderr.contains(
            "module new.wasm cannot be read: No such file or directory (os error 2); build it, or correct the path"
        ),
        "{}",
        missing.stderr
    );
    let partition = replay(&stage, &["--partition", "2"]);
    assert!(partition.stderr.contains("stream \"in\" has no partition 2"), "{}", partition.stderr);
    let group = stage.pelton(&["replay", "play"]);
    group.fails(1, "error: group \"play\" does not exist; known groups: \"work\"");
}
