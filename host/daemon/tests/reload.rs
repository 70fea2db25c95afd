//! Edits of `workers.toml` while work goes on: each takes effect whole, and what it takes away is gone.
#![allow(clippy::unwrap_used)]

mod support;

use std::{thread, time::Duration};

use pelton::{
    config::Config,
    host::{self, RunOptions},
};
use serde_json::{Value, json};
use support::{PATIENCE, Stage, count_event, count_events, event, guest, misbehave_v2, one_group, wait_for};

/// Events that make one call: `here we go` is logged, and then it never ends by itself.
fn endless(id: &str) -> [Value; 2] {
    [("log", "log"), ("loop", "loop")]
        .map(|(part, kind)| event(format_args!("{id}-{part}"), "k", kind, json!({}), json!("here we go")))
}

#[test]
fn a_group_that_comes_back_while_its_last_call_still_runs_begins_when_that_has_ended() {
    let slow = "limits = { timeout = \"4s\" }\n[groups.work]";
    let with = one_group(1, "on_failure = { strategy = \"skip\" }\n").replace("[groups.work]", slow);
    let without = with.split("[groups").next().unwrap().to_owned();
    let stage = Stage::new(&with);
    let daemon = stage.daemon();
    stage.append("in", &endless("e"));
    daemon.await_log("here we go");

    stage.replace("workers.toml", &without);
    daemon.await_log("group leaves this host");
    stage.replace("workers.toml", &with);
    wait_for("the file to be read", || (daemon.logged("configuration changed").len() == 2).then_some(()));
    stage.append("in", &count_events(100, 1));
    stage.await_drained("work");
    assert_eq!(daemon.logged("group works here").len(), 2);
    let epoch = stage.partition("work")["epoch"].as_u64().unwrap();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(stage.partition("work")["epoch"], epoch, "two at work for one partition take it from each other");
    assert_eq!(epoch, 2);
    daemon.stop();
}

#[test]
fn a_handler_that_takes_its_time_at_the_start_holds_up_its_own_group_only() {
    let slow = "[handlers.slow]\nmodule = \"slow.wasm\"\nlimits = { timeout = \"50s\" }\n\
                [groups.slow]\nstream = \"in\"\nhandler = \"slow\"\n";
    let stage = Stage::with_group(1, slow);
    stage.write("slow.wasm", guest("misbehave"));
    stage.write("slow.events.ndjson", endless("test").map(|line| format!("{line}\n")).concat());
    stage.append("in", &count_events(10, 1));
    let daemon = stage.start(&["run"]);
    stage.await_drained("work");
    assert_eq!(daemon.logged("pelton is running"), [] as [Value; 0], "the self-test of the other handler goes on");
    daemon.stop();
}

#[test]
fn a_handler_that_is_gone_from_the_file_answers_no_more_even_if_the_next_one_is_refused() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    stage.append("in", &count_events(10, 1));
    stage.await_drained("work");

    let other = one_group(1, "").replace("[handlers.h]", "[handlers.n]").replace("\"h\"", "\"n\"");
    stage.write("n.wasm", "no module");
    stage.replace("workers.toml", other.replace("misbehave.wasm", "n.wasm"));
    daemon.await_log("group leaves this host until its handler has a version that may answer");
    stage.append("in", &[count_event("later", "k0")]);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(stage.lag("work"), 1);

    stage.replace("n.wasm", guest("misbehave"));
    stage.await_drained("work");
    daemon.stop();
}

#[test]
fn manual_commits_begin_with_the_version_that_can_ask_for_them() {
    let stage = Stage::with_group(1, "");
    stage.replace("misbehave.wasm", guest("misbehave-batch"));
    let daemon = stage.daemon();
    stage.append("in", &count_events(10, 1));
    stage.await_drained("work");

    // The new module does not pass its self-test: the old one goes on, and has no way to ask for a commit.
    stage.write("next.wasm", guest("misbehave"));
    stage.write("next.events.ndjson", format!("{}\n", event("test", "k", "permanent", json!({}), json!("no"))));
    let manual = one_group(1, "commit = \"manual\"\n").replace("misbehave.wasm", "next.wasm");
    stage.replace("workers.toml", manual);
    daemon.await_log("its new settings wait");
    daemon.await_log("module refused");
    stage.append("in", &[count_event("later", "k0")]);
    stage.await_drained("work");

    stage.replace("next.events.ndjson", format!("{}\n", count_event("test", "k")));
    daemon.await_log("group has new settings");
    daemon.stop();
}

#[test]
fn what_is_pinned_answers_or_nothing() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    stage.append("in", &count_events(10, 1));
    stage.await_drained("work");

    let good = misbehave_v2();
    let pin = format!("digest = {:?}\nallow =", pelton_sandbox::digest_of(&good));
    stage.replace("workers.toml", one_group(1, "").replace("allow =", &pin));
    daemon.await_log("group leaves this host until its handler has a version that may answer");
    stage.append("in", &[count_event("later", "k0")]);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(stage.lag("work"), 1);
    assert_eq!(stage.handler("h")["state"], "refused");

    stage.replace("misbehave.wasm", good);
    stage.await_drained("work");
    let last = stage.tail("out").pop().unwrap();
    assert_eq!(last["kind"], "tallied", "{last}");
    daemon.stop();
}

#[tokio::test]
async fn an_edit_between_reading_the_file_and_the_start_is_seen() {
    let stage = Stage::with_group(1, "");
    let path = stage.path("workers.toml");
    stage.pelton(&["migrate"]).ok();
    let config = Config::load(&path).unwrap();
    stage.write("workers.toml", one_group(1, "[groups.added]\nstream = \"in\"\nhandler = \"h\"\n"));
    let look = async {
        let began = tokio::time::Instant::now();
        loop {
            let groups = stage.pelton(&["groups", "--json"]).json();
            if groups.as_array().unwrap().iter().any(|group| group["group"] == "added") {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{groups}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    host::run(&path, config, RunOptions::default(), look).await.unwrap();
}
