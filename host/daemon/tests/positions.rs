//! Positions moved by hand, and what else an operator does beside the daemons: groups that end, hosts that are gone, copies.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{Daemon, Stage, count_events, event, one_group, wait_for};

/// [`one_group`] on a host with an id and a label.
fn stage(partitions: u32, group: &str) -> Stage {
    let host = "[host]\nid = \"worker-1\"\nlabels = { zone = \"a\" }\n";
    Stage::new(&one_group(partitions, group).replace("[host]\n", host))
}

/// Five events in one partition, which nobody has handled.
fn five_events() -> Stage {
    let stage = stage(1, "");
    let events: Vec<_> = (0..5).map(|n| event(n, "k", "", json!({}), json!(n))).collect();
    stage.append("in", &events);
    stage
}

/// A daemon that drained so many events: the group has state.
fn drained(partitions: u32, events: usize) -> (Stage, Daemon) {
    let stage = stage(partitions, "");
    let daemon = stage.daemon();
    stage.append("in", &count_events(events, 3));
    stage.await_drained("work");
    (stage, daemon)
}

#[track_caller]
fn reset(stage: &Stage, args: &[&str]) -> Value {
    stage.pelton(&[&["group", "reset", "work", "--json"], args].concat()).json()
}

#[track_caller]
fn committed(stage: &Stage) -> Vec<u64> {
    let group = stage.group("work");
    group["partitions"].as_array().unwrap().iter().map(|at| at["committed"].as_u64().unwrap()).collect()
}

/// Offsets that a tail prints.
#[track_caller]
fn offsets(stage: &Stage, args: &[&str]) -> Vec<u64> {
    let lines = stage.pelton(&[&["tail", "in", "--json"], args].concat()).ok().lines();
    lines.iter().map(|event| event["offset"].as_u64().unwrap()).collect()
}

// --- group reset --------------------------------------------------------------------------------------------------

#[test]
fn a_reset_is_shown_and_not_done() {
    let stage = five_events();
    stage.pelton(&["group", "reset", "work", "--to", "4", "--execute"]).ok();
    assert_eq!(committed(&stage), [4]);
    let shown = stage.pelton(&["group", "reset", "work", "--to", "1"]).ok().stdout;
    assert_eq!(
        shown,
        "PARTITION  FROM  TO  EVENTS  MEANING\n\
         0          4     1   -3      handled again\n\n\
         group work on in: 3 events handled again, 0 passed over\n\
         nothing was moved; --execute does it\n"
    );
    assert_eq!(committed(&stage), [4]);
    let shown = reset(&stage, &["--to", "latest"]);
    let partition = json!({ "partition": 0, "from": 4, "to": 5, "events": 1, "clamped": false });
    assert_eq!(
        shown,
        json!({
            "group": "work", "stream": "in", "executed": false, "partitions": [partition], "again": 0, "passed_over": 1,
            "active": [], "has_state": false, "state": null, "notes": [], "refusals": [],
        })
    );
}

#[test]
fn a_reset_goes_to_an_end_an_offset_or_a_time() {
    let stage = five_events();
    let to = |args: &[&str]| {
        reset(&stage, &[args, &["--execute"]].concat());
        committed(&stage)[0]
    };
    assert_eq!(to(&["--to", "latest"]), 5);
    assert_eq!(to(&["--to", "earliest"]), 0);
    assert_eq!(to(&["--to", "3"]), 3);
    assert_eq!(to(&["--to", "2000-01-01T00:00:00Z"]), 0);
    assert_eq!(to(&["--to", "2999-01-01T00:00:00Z"]), 5);
    // Several may have been appended in one millisecond: the first of them is meant.
    let events = stage.tail("in");
    let time = events[4]["time"].as_str().unwrap();
    let first = events.iter().position(|event| event["time"].as_str() >= Some(time)).unwrap();
    assert_eq!(to(&["--to", time]), first as u64);
}

#[test]
fn a_shift_ends_where_the_events_end_and_says_so() {
    let stage = five_events();
    let shifted = reset(&stage, &["--shift-by", "2", "--execute"]);
    assert_eq!((&shifted["partitions"][0]["to"], &shifted["partitions"][0]["clamped"]), (&json!(2), &json!(false)));
    let shown = stage.pelton(&["group", "reset", "work", "--shift-by", "-3"]).ok().stdout;
    let row = "0          2     0   -2      handled again; no further back: the first event that is there\n";
    assert!(shown.contains(row), "{shown}");
    let shown = reset(&stage, &["--shift-by", "100"]);
    assert_eq!((&shown["partitions"][0]["to"], &shown["partitions"][0]["clamped"]), (&json!(5), &json!(true)));
    assert_eq!(committed(&stage), [2]);
}

#[test]
fn a_reset_moves_one_partition_if_asked_to() {
    let stage = stage(3, "");
    stage.append("in", &count_events(60, 20));
    let before = committed(&stage);
    reset(&stage, &["--to", "2", "--partition", "1", "--execute"]);
    assert_eq!((before, committed(&stage)), (vec![0, 0, 0], vec![0, 2, 0]));
    stage
        .pelton(&["group", "reset", "work", "--to", "0", "--partition", "3"])
        .fails(1, r#"error: group "work" has no partition 3; it has 3, numbered from 0"#);
}

#[test]
fn an_offset_that_is_not_there_is_refused_with_the_range() {
    let stage = five_events();
    let fault = r#"error: group "work", partition 0: offset 6 lies outside 0 to 5, the first event that is there and the next that will be"#;
    for more in [&[][..], &["--execute"]] {
        stage.pelton(&[&["group", "reset", "work", "--to", "6"], more].concat()).fails(1, fault);
    }
    assert_eq!(committed(&stage), [0]);
}

#[test]
fn a_reset_has_one_target() {
    let stage = five_events();
    for args in [&[][..], &["--to", "1", "--shift-by", "1"], &["--to", "x"], &["--shift-by", "x"]] {
        let output = stage.pelton(&[&["group", "reset", "work"], args].concat());
        assert_eq!((output.status, &*output.stdout), (2, ""), "{args:?}: {}", output.stderr);
    }
    stage
        .pelton(&["group", "reset", "wrok", "--to", "1"])
        .fails(1, r#"error: group "wrok" does not exist; known groups: "work""#);
}

#[test]
fn state_is_kept_or_cleared_but_never_by_chance() {
    let (stage, daemon) = drained(1, 10);
    daemon.stop();
    let shown = reset(&stage, &["--to", "earliest"]);
    assert_eq!(shown["refusals"], json!(["these partitions hold state: say --state keep or --state clear"]));
    stage.pelton(&["group", "reset", "work", "--to", "earliest", "--execute"]).fails(
        1,
        r#"error: group "work" has state in the partitions to reset, built from the events before their positions; say --state keep or --state clear"#,
    );
    assert_eq!(committed(&stage), [10]);
    reset(&stage, &["--to", "earliest", "--state", "clear", "--execute"]);
    let shown = reset(&stage, &["--to", "latest"]);
    assert_eq!((&shown["has_state"], committed(&stage)), (&json!(false), vec![0]));
    stage.run_until_idle();
    assert_eq!(committed(&stage), [10]);
    assert_eq!(stage.tail("out").len(), 10, "events emitted again have the ids of the first time");
}

#[test]
fn members_at_work_lose_their_partitions_only_by_force() {
    let (stage, daemon) = drained(1, 10);
    let epoch = stage.partition("work")["epoch"].as_u64().unwrap();
    let args = ["group", "reset", "work", "--to", "earliest", "--state", "clear", "--execute"];
    stage.pelton(&args).fails(
        1,
        r#"error: group "work" has active members: worker-1; stop them first, or take the partitions away from them with --force"#,
    );
    stage.pelton(&[&args[..], &["--force"]].concat()).ok();
    wait_for("all events to be handled again", || (stage.handler("h")["calls"] == 20).then_some(()));
    stage.await_drained("work");
    assert!(stage.partition("work")["epoch"].as_u64().unwrap() > epoch);
    assert_eq!(stage.tail("out").len(), 10);
    daemon.stop();
}

#[test]
fn an_event_that_stopped_a_partition_is_tried_anew_after_a_reset() {
    let stage = stage(1, "on_failure = { strategy = \"stop\" }\n");
    stage.append("in", &[event(0, "k", "permanent", json!({}), json!("no")), event(1, "k", "", json!({}), json!(1))]);
    let daemon = stage.daemon();
    stage.await_state("work", "stopped");
    daemon.stop();
    reset(&stage, &["--shift-by", "1", "--execute"]);
    let partition = stage.partition("work");
    assert_eq!(
        (&partition["committed"], &partition["state"], &partition["attempts"]),
        (&json!(1), &json!("unowned"), &json!(0))
    );
}

// --- group export -------------------------------------------------------------------------------------------------

#[test]
fn exported_positions_are_taken_back() {
    let stage = stage(2, "");
    stage.append("in", &count_events(40, 20));
    reset(&stage, &["--to", "3", "--execute"]);
    reset(&stage, &["--to", "1", "--partition", "1", "--execute"]);
    let exported = stage.pelton(&["group", "export", "work"]).json();
    assert_eq!((&exported["group"], &exported["stream"]), (&json!("work"), &json!("in")));
    assert_eq!(exported["partitions"], json!([{ "partition": 0, "committed": 3 }, { "partition": 1, "committed": 1 }]));
    assert!(exported["exported_at"].as_str().unwrap().starts_with("20"));
    stage.write("positions.json", exported.to_string());

    reset(&stage, &["--to", "latest", "--execute"]);
    reset(&stage, &["--to-file", "positions.json", "--partition", "0", "--execute"]);
    let latest = stage.group("work")["partitions"][1]["head"].as_u64().unwrap();
    assert_eq!(committed(&stage), [3, latest]);
    reset(&stage, &["--to-file", "positions.json", "--execute"]);
    assert_eq!(committed(&stage), [3, 1]);
}

#[test]
fn positions_of_another_group_are_taken_and_those_of_another_stream_refused() {
    let stage = five_events();
    let positions = |group: &str, stream: &str| {
        let partitions = json!([{ "partition": 0, "committed": 2 }]);
        stage.write("p.json", json!({ "group": group, "stream": stream, "partitions": partitions }).to_string());
    };
    positions("audit", "in");
    let notes = reset(&stage, &["--to-file", "p.json", "--execute"])["notes"].take();
    assert_eq!(notes, json!([r#"the file has the positions of group "audit", which reads the same stream"#]));
    assert_eq!(committed(&stage), [2]);
    positions("work", "out");
    stage.pelton(&["group", "reset", "work", "--to-file", "p.json"]).fails(
        1,
        r#"error: p.json: these are positions in stream "out", and group "work" reads "in"; export those of a group that reads "in""#,
    );
    stage.write("p.json", "[1]");
    let output = stage.pelton(&["group", "reset", "work", "--to-file", "p.json"]);
    assert_eq!(output.status, 1);
    assert!(
        output.stderr.starts_with("error: p.json: not positions as `pelton group export` prints them: "),
        "{}",
        output.stderr
    );
    stage
        .pelton(&["group", "reset", "work", "--to-file", "none.json"])
        .fails(1, "error: cannot read none.json: No such file or directory (os error 2)");
}

// --- group delete -------------------------------------------------------------------------------------------------

#[test]
fn a_group_is_deleted_when_nobody_works_for_it() {
    let (stage, daemon) = drained(2, 10);
    stage
        .pelton(&["group", "delete", "work"])
        .fails(1, r#"error: group "work" has active members: worker-1; stop them first"#);
    daemon.stop();
    assert_eq!(
        stage.pelton(&["group", "delete", "work"]).ok().stdout,
        "deleted group work: its positions in 2 partitions of in, and its state\n\
         workers.toml still declares it: the next `run`, `migrate` or `append` creates it anew, at its start\n"
    );
    stage.pelton(&["group", "show", "work"]).fails(1, r#"error: group "work" does not exist; there are no groups yet"#);
    stage
        .pelton(&["group", "delete", "work"])
        .fails(1, r#"error: group "work" does not exist; there are no groups yet"#);
    stage.pelton(&["migrate"]).ok();
    assert_eq!(committed(&stage), [0, 0]);
    let deleted = stage.pelton(&["group", "delete", "work", "--json"]).json();
    assert_eq!((&deleted["done"], &deleted["state"]), (&json!("deleted"), &json!(false)));
}

// --- hosts --------------------------------------------------------------------------------------------------------

#[track_caller]
fn hosts(stage: &Stage) -> Value {
    stage.pelton(&["hosts", "--json"]).json()
}

#[test]
fn programs_read_hosts_under_the_documented_names() {
    let stage = stage(1, "session_timeout = \"45s\"\n");
    stage.pelton(&["migrate"]).ok();
    assert_eq!(hosts(&stage), json!([]));
    assert_eq!(stage.pelton(&["hosts"]).ok().stdout, "no hosts: start `pelton run`\n");
    let daemon = stage.daemon();
    let hosts = hosts(&stage);
    let mut host = hosts[0].clone();
    for time in ["registered_at", "last_heartbeat"] {
        assert!(host[time].take().as_str().unwrap().starts_with("20"), "{hosts}");
    }
    let expected = json!({ "host": "worker-1", "status": "active", "labels": { "zone": "a" }, "groups": ["work"], "registered_at": null, "last_heartbeat": null });
    assert_eq!((hosts.as_array().unwrap().len(), host), (1, expected));
    let consumer = stage.group("work")["consumers"][0].take();
    assert_eq!((&consumer["host"], &consumer["session_timeout"]), (&json!("worker-1"), &json!("45s")));
    let table = stage.pelton(&["hosts"]).ok().stdout;
    assert!(
        table.starts_with("HOST      STATUS  REGISTERED") && table.trim_end().ends_with("work    zone=a"),
        "{table}"
    );
    daemon.stop();
    assert_eq!(stage.pelton(&["hosts", "--json"]).json(), json!([]), "who stops leaves");
}

#[test]
fn a_host_that_was_killed_is_removed_by_hand() {
    let (stage, daemon) = drained(1, 1);
    assert_eq!(stage.pelton(&["hosts", "cleanup"]).ok().stdout, "no stale hosts\n");
    assert_eq!(hosts(&stage)[0]["status"], "active");
    daemon.kill();
    wait_for("the host to be shown as stale", || (hosts(&stage)[0]["status"] == "stale").then_some(()));
    let group = stage.group("work");
    assert_eq!((&group["members"], &group["consumers"][0]["status"]), (&json!(0), &json!("stale")));
    assert_eq!(group["partitions"][0]["state"], "unowned");
    let removed = stage.pelton(&["hosts", "cleanup", "--json"]).json();
    let gone = json!({ "host": "worker-1", "why": "its process is gone" });
    assert_eq!(removed, json!({ "removed": [gone], "memberships": [], "waiting": [] }));
    assert_eq!((hosts(&stage), stage.group("work")["consumers"].take()), (json!([]), json!([])));
}

// --- tail --group -------------------------------------------------------------------------------------------------

#[test]
fn tail_begins_where_a_group_reads_next() {
    let stage = five_events();
    assert_eq!(offsets(&stage, &["--group", "work"]), [0, 1, 2, 3, 4]);
    reset(&stage, &["--to", "3", "--execute"]);
    assert_eq!(offsets(&stage, &["--group", "work"]), [3, 4]);
    assert_eq!(offsets(&stage, &["--group", "work", "-n", "1"]), [3]);
    assert_eq!(offsets(&stage, &["--from", "2"]), [2, 3, 4], "without a group as ever");
    stage
        .pelton(&["tail", "out", "--group", "work"])
        .fails(1, r#"error: group "work" reads stream "in", not "out"; see `pelton tail in --group work`"#);
    stage
        .pelton(&["tail", "in", "--group", "wrok"])
        .fails(1, r#"error: group "wrok" does not exist; known groups: "work""#);
    let output = stage.pelton(&["tail", "in", "--group", "work", "--from", "1"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("cannot be used with"), "{}", output.stderr);
}

// --- backup -------------------------------------------------------------------------------------------------------

#[test]
fn a_backup_is_a_database_of_its_own_and_overwrites_nothing() {
    let (stage, daemon) = drained(2, 10);
    let answer = stage.pelton(&["backup", "copy.db", "--json"]).json();
    let bytes = std::fs::metadata(stage.path("copy.db")).unwrap().len();
    assert_eq!((&answer["file"], &answer["bytes"]), (&json!("copy.db"), &json!(bytes)));
    let shown = stage.pelton(&["backup", "copy2.db"]).ok().stdout;
    assert!(
        shown.starts_with("wrote ") && shown.contains("bytes to copy2.db: a consistent copy\nto restore it,"),
        "{shown}"
    );
    stage
        .pelton(&["backup", "copy.db"])
        .fails(1, "error: copy.db exists already, and a backup overwrites nothing; name a file that does not");
    stage.pelton(&["backup"]).fails(2, "error: say where the copy goes: `pelton backup FILE`");

    let before = stage.tail("in");
    daemon.stop();
    stage.append("in", &count_events(11, 3)[10..]);
    let mut restore = Command::new("sh");
    restore.args(["-c", answer["restore"].as_str().unwrap()]).current_dir(stage.path(""));
    assert!(restore.status().unwrap().success());
    assert_eq!(stage.tail("in"), before, "what came after the copy is gone");
    stage.run_until_idle();
    assert_eq!(stage.tail("out").len(), 10);
}
