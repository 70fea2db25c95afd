//! Events that are set aside, as a person or a program meets them: seen, tried out, edited, replayed, discarded, skipped.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Stage, count_event, event, guest, wait_for};

const PARKING: &str = "on_failure = { strategy = \"dead-letter-key\" }";

/// An event that is refused for its payload until somebody edits it to `KEY=VALUE`.
fn misspelt(id: &str, key: &str) -> Value {
    event(id, key, "state-set", json!({}), json!("nothing"))
}

/// An event that fails once, and is copied to stream `out` then.
fn fails_once(id: &str, key: &str) -> Value {
    event(id, key, "fail-until", json!({ "n": "1", "id": id }), json!(id))
}

/// A group that has set these events aside, as its strategy says; no host runs it any more.
fn set_aside(group: &str, events: &[Value]) -> Stage {
    let stage = Stage::with_group(1, group);
    stage.pelton(&["migrate"]).ok();
    stage.append("in", events);
    stage.run_until_idle();
    stage
}

/// Key `a` is parked with two events behind a misspelt one; of key `b`, one trapped.
fn two_keys() -> Stage {
    let trap = event("b1", "b", "panic", json!({}), json!("no such customer"));
    set_aside(PARKING, &[misspelt("a1", "a"), count_event("a2", "a"), trap, count_event("a3", "a")])
}

#[track_caller]
fn list(stage: &Stage, args: &[&str]) -> Vec<Value> {
    let all = stage.pelton(&[&["dead-letters", "list", "work", "--json"], args].concat()).json();
    all.as_array().unwrap().clone()
}

#[track_caller]
fn ids(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

#[track_caller]
fn replay(stage: &Stage, args: &[&str]) -> support::Output {
    stage.pelton(&[&["dead-letters", "replay", "work"], args].concat())
}

/// Ids of what was emitted, without the group in front.
#[track_caller]
fn emitted(stage: &Stage) -> Vec<String> {
    let own = |event: &Value| event["id"].as_str().unwrap().trim_start_matches("work/").to_owned();
    stage.tail("out").iter().map(own).collect()
}

// --- Seeing -------------------------------------------------------------------------------------------------------

#[test]
fn one_or_all_can_be_listed_and_exported() {
    let stage = two_keys();
    assert_eq!(ids(&list(&stage, &["--id", "0/1"])), ["0/1"]);
    assert_eq!(ids(&list(&stage, &["--id", "b1"])), ["0/2"]);
    assert_eq!(list(&stage, &["--all"]).len(), 4);
    let exported = stage.pelton(&["dead-letters", "export", "work", "--id", "a1"]).ok().lines();
    assert_eq!(ids(&exported), ["0/0"]);
    assert_eq!(stage.pelton(&["dead-letters", "export", "work", "--all"]).ok().lines().len(), 4);
    let missing = stage.pelton(&["dead-letters", "list", "work", "--id", "0/9"]);
    assert_eq!(missing.status, 1, "{missing:?}");
    for more in [&["--all"][..], &["--key", "a"]] {
        assert_eq!(stage.pelton(&[&["dead-letters", "list", "work", "--id", "a1"], more].concat()).status, 2);
    }
}

#[test]
fn a_dead_letter_is_told_with_its_event_and_its_failure() {
    let stage = two_keys();
    let letters = list(&stage, &[]);
    assert_eq!(ids(&letters), ["0/0", "0/1", "0/2", "0/3"]);
    let [first, behind, trap, _] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(first["event"], stage.tail("in")[0]);
    let fields = ["group", "partition", "reason", "class", "attempts", "parks", "parked_behind", "requested", "edited"];
    let of = |letter: &Value| fields.map(|name| letter[name].clone());
    let reason = json!("state-set: payload is not key=value");
    assert_eq!(
        of(first),
        [
            json!("work"),
            json!(0),
            reason,
            json!("permanent"),
            json!(1),
            json!(true),
            json!(null),
            json!(null),
            json!(false)
        ]
    );
    assert!(first["digest"].as_str().unwrap().starts_with("sha256:") && first["first"] == first["last"]);
    assert_eq!(
        (&behind["class"], &behind["attempts"], &behind["digest"], &behind["parked_behind"]),
        (&json!("parked"), &json!(0), &json!(null), &json!("0/0"))
    );
    let (reason, frames) = (trap["reason"].as_str().unwrap(), trap["backtrace"].as_str().unwrap());
    assert!(reason.starts_with("boom: \"no such customer\"") && !reason.contains("backtrace"), "{reason}");
    assert!(frames.lines().count() > 2, "{frames}");
    assert_eq!(stage.pelton(&["dead-letters", "show", "work", "--id", "0/2", "--json"]).json(), *trap);
    assert_eq!(stage.pelton(&["dead-letters", "show", "work", "--id", "b1", "--json"]).json(), *trap);
    assert_eq!(stage.pelton(&["dead-letters", "export", "work"]).ok().lines(), letters);
}

#[test]
fn a_selection_is_narrowed_by_key_class_reason_and_number() {
    let stage = two_keys();
    assert_eq!(ids(&list(&stage, &["--key", "a"])), ["0/0", "0/1", "0/3"]);
    assert_eq!(ids(&list(&stage, &["--key", "a", "--class", "parked", "-n", "1"])), ["0/1"]);
    assert_eq!(ids(&list(&stage, &["--reason", "customer"])), ["0/2"]);
    assert_eq!(ids(&list(&stage, &["--partition", "0", "-n", "2"])), ["0/0", "0/1"]);
    assert!(list(&stage, &["--reason", "%"]).is_empty(), "text, and not a pattern");
    let exported = stage.pelton(&["dead-letters", "export", "work", "--class", "trap"]).ok().lines();
    assert_eq!(ids(&exported), ["0/2"]);
}

#[test]
fn a_table_shows_what_fits_and_one_letter_everything() {
    let stage = two_keys();
    let table = stage.pelton(&["dead-letters", "list", "work", "-n", "3"]).ok().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(&rows[1][..5], ["0/0", "a1", "a", "state-set", "permanent"]);
    assert!(table.lines().nth(2).unwrap().ends_with("behind 0/0"), "{table}");
    assert!(!table.contains("unreachable"), "one line of a reason: {table}");
    assert!(table.ends_with("and more: -n N shows more of them, --all every one\n"), "{table}");
    let shown = stage.pelton(&["dead-letters", "show", "work", "--id", "b1"]).ok().stdout;
    assert!(shown.starts_with("dead letter 0/2 of group work, from stream in\nevent     b1\nkey       b\n"), "{shown}");
    assert!(
        shown.contains("instruction executed\nbacktrace 0:") && shown.ends_with("payload   \"no such customer\"\n")
    );
    let none = stage.pelton(&["dead-letters", "list", "work", "--key", "c"]).ok().stdout;
    assert_eq!(none, "no dead letter of group work is of this kind\n");
}

#[test]
fn groups_tell_how_many_are_set_aside_and_which_keys_are_parked() {
    let stage = two_keys();
    let group = stage.group("work");
    let parked = group["parked"].as_array().unwrap();
    let keys: Vec<_> = parked.iter().map(|parked| (&parked["key"], &parked["events"], &parked["requested"])).collect();
    assert_eq!(keys, [(&json!("a"), &json!(3), &json!(false)), (&json!("b"), &json!(1), &json!(false))]);
    assert_eq!(parked[0]["since"], list(&stage, &[])[0]["first"]);
    let partition = &group["partitions"][0];
    let fields = ["dead_letters", "skipped", "held", "failed_at"].map(|name| partition[name].clone());
    assert_eq!(fields, [json!(4), json!(0), json!(null), json!(null)]);
    let shown = stage.pelton(&["group", "show", "work"]).ok().stdout;
    let row = shown.lines().find(|row| row.starts_with("a ")).unwrap();
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["a", "0", "3"], "{shown}");
    assert_eq!(stage.handler("h")["outcomes"], json!({ "permanent": 1, "trap": 1 }));
}

#[test]
fn what_is_not_there_is_told_with_the_way_to_what_is() {
    let stage = two_keys();
    for id in ["0/4", "1/0", "a", "zz"] {
        let fault = format!(
            r#"error: group "work" has no dead letter {id}; `pelton dead-letters list work` shows what there is"#
        );
        for verb in [&["show"][..], &["replay"], &["replay", "--dry-run"], &["discard"], &["edit", "--payload", "1"]] {
            let args = [&["dead-letters", verb[0], "work", "--id", id], &verb[1..]].concat();
            stage.pelton(&args).fails(1, &fault);
        }
    }
    stage
        .pelton(&["dead-letters", "list", "wrok"])
        .fails(1, r#"error: group "wrok" does not exist; known groups: "work""#);
    stage
        .pelton(&["dead-letters", "list", "work", "--partition", "1"])
        .fails(1, r#"error: group "work" has no partition 1; it has 1, numbered from 0"#);
    assert_eq!(
        replay(&stage, &["--key", "c"]).ok().stdout,
        "group work has no such dead letters; nothing is replayed\n"
    );
}

#[test]
fn nothing_is_asked_without_saying_of_which() {
    let stage = Stage::with_group(1, PARKING);
    for args in [&["replay", "work"][..], &["discard", "work", "--class", "trap"], &["edit", "work", "--id", "0/0"]] {
        let output = stage.pelton(&[&["dead-letters"], args].concat());
        assert_eq!((output.status, &*output.stdout), (2, ""), "{args:?}");
    }
}

// --- Asking -------------------------------------------------------------------------------------------------------

#[test]
fn a_replay_without_an_owner_is_queued_and_done_when_a_host_comes() {
    let stage = set_aside(PARKING, &[fails_once("a1", "a"), event("a2", "a", "emit", json!({ "id": "a2" }), json!(2))]);
    let said = replay(&stage, &["--id", "a1"]).ok().stdout;
    assert_eq!(
        said,
        "2 dead letters of group work are to be replayed\n\
         - key \"a\" is parked: all that waits in it is replayed, in order\n\
         queued: partition 0 has no owner; they are replayed when a host runs the group\n"
    );
    assert_eq!(
        replay(&stage, &["--all", "--json"]).json(),
        json!({
            "group": "work", "request": "replay", "requested": 2, "queued": [{ "partition": 0, "why": "no owner" }],
        })
    );
    assert_eq!(list(&stage, &[])[1]["requested"], "replay");
    let daemon = stage.daemon();
    wait_for("the dead letters to be handled", || list(&stage, &[]).is_empty().then_some(()));
    assert_eq!(emitted(&stage), ["a1", "a2"], "in order");
    assert_eq!(stage.group("work")["parked"], json!([]));
    daemon.stop();
}

#[test]
fn a_replay_of_a_paused_group_is_queued_until_it_is_resumed() {
    let stage = set_aside(PARKING, &[fails_once("a1", "a")]);
    let daemon = stage.daemon();
    stage.pelton(&["group", "pause", "work"]).ok();
    let said = replay(&stage, &["--id", "0/0"]).ok().stdout;
    assert!(
        said.ends_with("queued: partition 0 is paused; it is replayed after `pelton group resume work`\n"),
        "{said}"
    );
    let output = replay(&stage, &["--all", "--wait=100ms", "--json"]);
    assert_eq!(
        (output.lines()[0]["waited"].clone(), output.status),
        (json!({ "gone": 0, "back": [], "left": ["0/0"] }), 1)
    );
    stage.pelton(&["group", "resume", "work"]).ok();
    wait_for("the dead letter to be handled", || list(&stage, &[]).is_empty().then_some(()));
    daemon.stop();
}

#[test]
fn a_replay_of_a_stopped_partition_is_queued() {
    let stage = Stage::with_group(1, PARKING);
    stage.append("in", &[fails_once("a1", "a")]);
    stage.run_until_idle();
    stage.replace("workers.toml", stage.config().replace("\"dead-letter-key\"", "\"stop\""));
    stage.append("in", &[misspelt("b1", "b")]);
    let daemon = stage.daemon();
    stage.await_state("work", "stopped");
    let report = replay(&stage, &["--all", "--json"]).json();
    assert_eq!(report["queued"], json!([{ "partition": 0, "why": "stopped" }]));
    daemon.stop();
}

#[test]
fn a_replay_can_be_waited_for() {
    let stage = set_aside(PARKING, &[fails_once("a1", "a"), misspelt("b1", "b"), count_event("b2", "b")]);
    let daemon = stage.daemon();
    let output = replay(&stage, &["--all", "--wait", "--json"]);
    let waited = json!({ "gone": 1, "back": ["0/1", "0/2"], "left": [] });
    assert_eq!((output.lines()[0]["waited"].clone(), output.status), (waited, 1), "{output:?}");
    let letters = list(&stage, &[]);
    assert_eq!((&letters[0]["attempts"], &letters[1]["parked_behind"]), (&json!(2), &json!("0/1")));

    // A payload that was edited is what the handler sees.
    stage.pelton(&["dead-letters", "edit", "work", "--id", "b1", "--payload", "k=v"]).ok();
    let said = replay(&stage, &["--key", "b", "--wait"]).ok().stdout;
    assert_eq!(said, "2 dead letters of group work are to be replayed\n2 handled\n");
    assert!(list(&stage, &[]).is_empty());
    daemon.stop();
}

#[test]
fn a_replay_of_many_can_be_waited_for() {
    let mut events: Vec<Value> = (0..150).map(|n| misspelt(&format!("e{n}"), "a")).collect();
    events.insert(70, fails_once("good", "b"));
    let stage = set_aside("on_failure = { strategy = \"dead-letter\" }", &events);
    let daemon = stage.daemon();
    let output = replay(&stage, &["--all", "--wait", "--json"]);
    let back: Vec<String> = (0..151).filter(|n| *n != 70).map(|n| format!("0/{n}")).collect();
    let waited = json!({ "gone": 1, "back": back, "left": [] });
    assert_eq!((output.lines()[0]["waited"].clone(), output.status), (waited, 1), "{output:?}");
    daemon.stop();
}

#[test]
fn a_discard_forgets_and_lets_the_key_go() {
    let stage = two_keys();
    let daemon = stage.daemon();
    stage.await_state("work", "idle");
    let said = stage.pelton(&["dead-letters", "discard", "work", "--id", "b1", "--wait"]).ok().stdout;
    assert_eq!(
        said,
        "1 dead letter of group work is to be discarded\n\
         - key \"b\" stays parked as long as later events wait in it\n1 discarded\n"
    );
    stage.pelton(&["dead-letters", "discard", "work", "--key", "a", "--wait"]).ok();
    assert_eq!((list(&stage, &[]), stage.group("work")["parked"].clone()), (Vec::new(), json!([])));
    daemon.stop();
}

#[test]
fn what_is_to_be_replayed_is_neither_discarded_nor_edited() {
    let stage = two_keys();
    replay(&stage, &["--id", "a2"]).ok();
    let is = "is to be replayed; wait until it was handled or is back";
    let fault = |id: &str| format!(r#"error: dead letter {id} of group "work" {is}"#);
    stage.pelton(&["dead-letters", "discard", "work", "--id", "a3"]).fails(1, &fault("0/3"));
    stage.pelton(&["dead-letters", "discard", "work", "--all"]).fails(1, &fault("0/0"));
    stage.pelton(&["dead-letters", "edit", "work", "--id", "a1", "--payload", "k=v"]).fails(1, &fault("0/0"));
    stage.pelton(&["dead-letters", "discard", "work", "--id", "b1"]).ok();
    replay(&stage, &["--id", "b1"])
        .fails(1, r#"error: dead letter 0/2 of group "work" is to be discarded; wait until it is gone"#);
    let asked: Vec<_> = list(&stage, &[]).iter().map(|letter| letter["requested"].clone()).collect();
    assert_eq!(asked, ["replay", "replay", "discard", "replay"]);
}

// --- Editing and trying out ---------------------------------------------------------------------------------------

#[test]
fn a_payload_comes_from_the_command_line_a_file_or_standard_input() {
    let stage = two_keys();
    stage.write("payload", [0xff, 0]);
    let said = stage.pelton(&["dead-letters", "edit", "work", "--id", "0/0", "--file", "payload"]).ok().stdout;
    assert_eq!(
        said,
        "dead letter 0/0 of group work has a new payload of 2 bytes\n- the old one was JSON, this one is not\n\
         - `pelton dead-letters replay work --id 0/0` hands it to the handler\n"
    );
    let first = || list(&stage, &["-n", "1"]).remove(0);
    assert_eq!((first()["event"]["payload_base64"].clone(), first()["edited"].clone()), (json!("/wA="), json!(true)));
    stage.feed(&["dead-letters", "edit", "work", "--id", "a1", "--file", "-"], "{\"x\":1}").ok();
    assert_eq!(first()["event"]["payload"], json!({ "x": 1 }));
    assert_eq!(stage.tail("in")[0]["payload"], "nothing", "the stream's own event stays as it is");
    let output = stage.feed(&["dead-letters", "edit", "work", "--id", "a1", "--file", "-"], &"x".repeat((1 << 20) + 1));
    output.fails(
        1,
        r#"error: the new payload has 1048577 bytes or more; stream "in" takes at most 1048576 (payload_max)"#,
    );
}

#[test]
fn a_dry_run_shows_what_the_handler_would_do_and_does_nothing() {
    let counted = |id: &str| event(id, "a", "count", json!({ "to": "out" }), json!(0));
    let events = [counted("a0"), fails_once("a1", "a"), counted("a2"), misspelt("b1", "b"), count_event("b2", "b")];
    let stage = set_aside(PARKING, &events);
    let before = (list(&stage, &[]), stage.tail("out"));
    let output = replay(&stage, &["--all", "--dry-run", "--json"]);
    let lines = output.lines();
    let told: Vec<_> = lines.iter().map(|line| [&line["id"], &line["event"], &line["outcome"]]).collect();
    let expected = [["0/1", "a1", "done"], ["0/2", "a2", "done"], ["0/3", "b1", "permanent"], ["0/4", "b2", "parked"]];
    assert_eq!((json!(told), output.status), (json!(expected), 1));
    assert_eq!(lines[1]["state"], json!({ "a": "2" }), "the stored state was read: one event was counted before");
    assert_eq!(lines[3]["reason"], "waits behind 0/3, which fails");
    assert_eq!((list(&stage, &[]), stage.tail("out")), before);
    let said = replay(&stage, &["--id", "a2", "--dry-run"]).ok().stdout;
    assert!(said.ends_with("2 done, 0 failed; nothing was stored, and nothing is asked for\n"), "{said}");
}

#[test]
fn a_dry_run_takes_the_module_of_the_configuration_and_its_pin() {
    let stage = set_aside(PARKING, &[misspelt("a1", "a")]);
    let zeros = "0".repeat(64);
    let pinned = stage.config().replace("[handlers.h]\n", &format!("[handlers.h]\ndigest = \"sha256:{zeros}\"\n"));
    stage.write("workers.toml", pinned);
    let output = replay(&stage, &["--all", "--dry-run"]);
    assert!(output.stderr.contains(&format!("but the configuration pins sha256:{zeros}")), "{}", output.stderr);
    assert_eq!(output.status, 1);
}

// --- Skipping -----------------------------------------------------------------------------------------------------

#[test]
fn an_event_that_blocks_is_skipped_and_comes_back_by_a_replay() {
    let stage = Stage::with_group(1, "");
    stage.append("in", &[misspelt("a1", "a"), count_event("a2", "a")]);
    let daemon = stage.daemon();
    let blocked = stage.await_state("work", "retrying");
    assert_eq!((&blocked["failed_at"], &blocked["dead_letters"]), (&json!(0), &json!(0)));
    let said = stage.pelton(&["group", "skip", "work", "--partition", "0"]).ok().stdout;
    assert_eq!(
        said,
        "skipped offset 0 of partition 0 (event \"a1\"): it is dead letter 0/0 of group work\n\
         - `pelton dead-letters replay work --id 0/0` hands it to the handler again\n"
    );
    stage.await_drained("work");
    let letters = list(&stage, &[]);
    assert_eq!((ids(&letters), &letters[0]["parks"]), (vec!["0/0"], &json!(false)));
    stage.pelton(&["dead-letters", "edit", "work", "--id", "a1", "--payload", "k=v"]).ok();
    replay(&stage, &["--id", "a1", "--wait"]).ok();
    daemon.stop();
}

#[test]
fn a_skip_may_park_the_key() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"stop\" }");
    stage.append("in", &[misspelt("a1", "a"), count_event("a2", "a"), count_event("b1", "b")]);
    let daemon = stage.daemon();
    stage.await_state("work", "stopped");
    let skipped = stage.pelton(&["group", "skip", "work", "--partition", "0", "--key", "--json"]).json();
    assert_eq!(
        skipped,
        json!({
            "group": "work", "partition": 0, "offset": 0, "id": "0/0", "event": "a1", "key": "a", "parks": true,
            "done": "skipped",
        })
    );
    stage.await_drained("work");
    assert_eq!(ids(&list(&stage, &[])), ["0/0", "0/1"]);
    daemon.stop();
}

#[test]
fn a_skip_where_nothing_blocks_is_refused() {
    let stage = two_keys();
    stage
        .pelton(&["group", "skip", "work", "--partition", "0"])
        .fails(1, r#"error: group "work", partition 0: no event has failed at offset 4; there is nothing to skip"#);
    stage
        .pelton(&["group", "skip", "work", "--partition", "1"])
        .fails(1, r#"error: group "work" has no partition 1; it has 1, numbered from 0"#);
}

// --- What dead letters stand in the way of ------------------------------------------------------------------------

#[test]
fn positions_do_not_go_back_over_dead_letters() {
    let stage = two_keys();
    let fault = r#"group "work" has 2 dead letters from the new position on, which would be handled twice; replay or discard them first (`pelton dead-letters list work`)"#;
    let plan = stage.pelton(&["group", "reset", "work", "--to", "2", "--json"]).json();
    assert_eq!(plan["refusals"], json!([fault]));
    stage.pelton(&["group", "reset", "work", "--to", "2", "--execute"]).fails(1, &format!("error: {fault}"));
    stage.pelton(&["group", "reset", "work", "--to", "latest", "--execute"]).ok();
}

#[test]
fn a_group_goes_with_its_dead_letters_only_if_that_is_meant() {
    let stage = two_keys();
    stage.pelton(&["group", "delete", "work"]).fails(
        1,
        r#"error: group "work" has 4 dead letters that would be lost with it; replay or discard them first (`pelton dead-letters list work`), or delete them too with --force"#,
    );
    let deleted = stage.pelton(&["group", "delete", "work", "--force", "--json"]).json();
    assert_eq!(deleted["dead_letters"], 4);
}

// --- Manual commits -----------------------------------------------------------------------------------------------

const FAULT: &str = r#"its world is batch-worker, but group "work" says commit = "manual", which needs world worker; give the group another commit, or a handler that takes one event at a time"#;

#[test]
fn manual_commits_need_a_worker() {
    let stage = Stage::with_group(1, "commit = \"manual\"");
    stage.pelton(&["check"]).ok();
    stage.write("misbehave.wasm", guest("misbehave-batch"));
    let fault = format!("module {}: {FAULT}", stage.shown("misbehave.wasm"));
    let report = stage.pelton(&["check", "--json"]);
    assert_eq!((&report.lines()[0]["handlers"][0]["error"], report.status), (&json!(fault), 2));
    let mut daemon = stage.start(&["run"]);
    assert_eq!(daemon.wait(), 1);
    assert!(daemon.log().contains(&fault), "{}", daemon.log());
}

#[test]
fn a_module_that_cannot_commit_by_hand_never_replaces_one_that_can() {
    let stage = Stage::with_group(1, "commit = \"manual\"");
    let daemon = stage.daemon();
    stage.await_handler("h", "live");
    stage.replace("misbehave.wasm", guest("misbehave-batch"));
    let refused = stage.await_handler("h", "refused");
    assert!(refused["error"].as_str().unwrap().ends_with(FAULT), "{refused}");
    assert_eq!(refused["digest"], pelton_sandbox::digest_of(&guest("misbehave")), "the old one goes on");
    daemon.stop();
}

#[test]
fn a_configuration_that_asks_a_batch_handler_for_manual_commits_is_refused() {
    let stage = Stage::with_group(1, "commit = \"after-batch\"");
    stage.write("misbehave.wasm", guest("misbehave-batch"));
    let daemon = stage.daemon();
    stage.await_handler("h", "live");
    stage.replace("workers.toml", stage.config().replace("after-batch", "manual"));
    daemon.await_log(&format!("handler \"h\": {FAULT}: going on with the old configuration"));
    stage.append("in", &[count_event("e", "k")]);
    stage.await_drained("work");
    // With another module it is right.
    stage.write("other.wasm", guest("misbehave"));
    stage.replace(
        "workers.toml",
        stage.config().replace("after-batch", "manual").replace("misbehave.wasm", "other.wasm"),
    );
    daemon.await_log("configuration changed");
    daemon.stop();
}
