//! The daemon at work: it drains, waits, stops, contains bad handlers and takes new ones, and nothing is lost or doubled.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use pelton::{
    config::Config,
    host::{self, Ended, RunOptions},
};
use pelton_core::partition_of;
use serde_json::{Value, json};
use support::{
    CORE_MODULE, Daemon, EMPTY_COMPONENT, PATIENCE, Stage, assert_counted_once, count_event, count_events, event,
    guest, host_section, misbehave_v2, one_group, source, wait_for,
};

/// A back-off that first waits for a moment, and from then on for longer than any test.
const ONE_QUICK_RETRY: &str =
    "[groups.work.on_failure]\nbackoff = { initial = \"20ms\", factor = 1000, max = \"7d\", jitter = 0 }\n";

fn digest(module: &[u8]) -> String {
    pelton_sandbox::digest_of(module)
}

fn failing(id: &str, kind: &str) -> Value {
    event(id, "k", kind, json!({}), json!("no luck"))
}

// --- The end of a run -----------------------------------------------------------------------------------------------

#[test]
fn sigterm_in_the_middle_of_work_commits_and_releases_and_nothing_is_handled_twice() {
    let stage = Stage::with_group(4, "batch_size = 20\n");
    stage.append("in", &count_events(20_000, 50));
    let daemon = stage.daemon();
    wait_for("some of the events to be handled", || (stage.lag("work") < 20_000).then_some(()));
    daemon.stop();

    let calls = || stage.handler("h")["calls"].as_u64().unwrap();
    let handled_before = calls();
    let group = stage.group("work");
    let left = group["lag"].as_u64().unwrap();
    assert!(left > 0, "the drain was over before the signal");
    assert_eq!(group["consumers"], json!([]), "it left the group");
    for partition in group["partitions"].as_array().unwrap() {
        assert_eq!((&partition["owner"], &partition["position"]), (&Value::Null, &partition["committed"]));
    }
    assert_eq!(stage.tail("out").len() as u64, 20_000 - left, "what is committed took effect, and nothing else");

    stage.run_until_idle();
    assert_counted_once(&stage, 20_000);
    assert_eq!(handled_before + calls(), 20_000, "no event was handed out twice");
}

/// A daemon with this grace period, in the middle of a call that never ends.
fn in_an_endless_call(grace: &str) -> (Stage, Daemon) {
    let workers = one_group(1, "")
        .replace("[host]\n", &format!("[host]\nshutdown_grace = {grace:?}\n"))
        .replace("[groups.work]", "limits = { timeout = \"1h\" }\n[groups.work]");
    let stage = Stage::new(&workers);
    let daemon = stage.daemon();
    // One call is handed both.
    let kinds = [("e1", "log"), ("e2", "loop")];
    stage.append("in", &kinds.map(|(id, kind)| event(id, "k", kind, json!({}), json!("here we go"))));
    daemon.await_log("here we go");
    (stage, daemon)
}

#[test]
fn a_call_that_never_ends_is_broken_off_after_the_grace_period_and_costs_no_attempt() {
    let (stage, mut daemon) = in_an_endless_call("100ms");
    daemon.terminate();
    assert_eq!(daemon.wait(), 0);
    assert_eq!(daemon.logged("batches still run after the grace period").len(), 1);
    let partition = stage.partition("work");
    assert_eq!((&partition["attempts"], &partition["owner"]), (&json!(0), &Value::Null));
    assert_eq!(partition["committed"], 1, "what was handled before it is kept");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (stage, mut daemon) = in_an_endless_call("1h");
    daemon.terminate();
    daemon.await_log("asked to stop");
    daemon.terminate();
    assert_eq!(daemon.wait(), 1);
    assert_eq!(stage.partition("work")["attempts"], 0);
}

#[test]
fn until_idle_ends_when_the_last_group_of_a_chain_is_done() {
    let chain = "[groups.second]\nstream = \"out\"\nhandler = \"h\"\n";
    let stage = Stage::with_group(2, chain);
    stage.append("in", &count_events(500, 5));
    stage.run_until_idle();
    assert_eq!((stage.lag("work"), stage.lag("second")), (0, 0));
    assert_counted_once(&stage, 500);
}

#[test]
fn until_idle_sees_to_what_was_asked_of_dead_letters_while_nobody_ran() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"dead-letter\" }\n");
    stage.append("in", &[failing("bad", "permanent"), failing("worse", "permanent")]);
    stage.run_until_idle();
    stage.pelton(&["dead-letters", "replay", "work", "--all"]).ok();
    stage.replace("misbehave.wasm", guest("noop"));
    stage.run_until_idle();
    assert_eq!(stage.pelton(&["dead-letters", "list", "work", "--json"]).json(), json!([]));
}

#[test]
fn until_idle_ends_where_there_is_nothing_to_do() {
    let stage = Stage::new("[streams.in]\n");
    stage.run_until_idle();
}

#[test]
fn until_idle_ends_with_status_1_where_a_partition_is_stopped_and_says_so() {
    let stage = Stage::with_group(4, "on_failure = { strategy = \"stop\" }\n");
    let mut events = vec![failing("bad", "permanent")];
    events.extend(count_events(100, 20));
    stage.append("in", &events);
    let mut daemon = stage.start(&["run", "--until-idle"]);
    assert_eq!(daemon.wait(), 1);
    let stuck = daemon.logged("cannot become idle");
    assert_eq!(stuck.len(), 1, "only one partition is stopped: {}", daemon.log());
    assert_eq!(stuck[0]["why"], "it is stopped: `pelton group resume` or a new module version starts it");
    assert_eq!((&stuck[0]["group"], &stuck[0]["offset"]), (&json!("work"), &json!(0)));
    let stopped = partition_of("k", 4);
    for partition in stage.group("work")["partitions"].as_array().unwrap() {
        let blocked = partition["partition"] == stopped;
        assert_eq!(partition["lag"].as_u64() > Some(0), blocked, "the other partitions are drained: {partition}");
    }
}

#[test]
fn until_idle_ends_with_status_1_where_a_partition_is_paused() {
    let stage = Stage::with_group(1, "");
    stage.append("in", &count_events(3, 1));
    stage.pelton(&["group", "pause", "work"]).ok();
    let mut daemon = stage.start(&["run", "--until-idle"]);
    assert_eq!(daemon.wait(), 1);
    assert_eq!(daemon.logged("cannot become idle")[0]["why"], "it is paused: `pelton group resume` lets it go on");
    assert_eq!(stage.lag("work"), 3);
}

#[test]
fn until_idle_ends_with_status_1_where_dead_letters_are_full_and_goes_on_where_there_is_room() {
    let full = "on_failure = { strategy = \"dead-letter\", dead_letters_max = 1 }\n";
    let stage = Stage::with_group(1, full);
    stage.append("in", &[failing("bad", "permanent"), failing("worse", "permanent")]);
    let mut daemon = stage.start(&["run", "--until-idle"]);
    assert_eq!(daemon.wait(), 1);
    let stuck = daemon.logged("cannot become idle");
    assert_eq!(stuck.len(), 1, "{}", daemon.log());
    assert_eq!(
        (&stuck[0]["why"], &stuck[0]["lag"]),
        (&json!("its dead letters are full (on_failure.dead_letters_max): replay or discard some"), &json!(1))
    );
    // What was asked makes room, and a new module may need none.
    stage.pelton(&["dead-letters", "discard", "work", "--id", "bad"]).ok();
    stage.run_until_idle();
    stage.append("in", &[failing("worst", "permanent")]);
    assert_eq!(stage.start(&["run", "--until-idle"]).wait(), 1);
    stage.replace("misbehave.wasm", guest("noop"));
    stage.run_until_idle();
    assert_eq!(stage.pelton(&["dead-letters", "list", "work", "--json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn until_idle_waits_for_the_pause_of_a_breaker() {
    let breaker = "on_failure = { strategy = \"dead-letter\", breaker = { failures = 2, pause = \"1s\" } }\n";
    let stage = Stage::with_group(1, breaker);
    let flaky = event("e1", "k", "fail-until", json!({ "n": "1" }), json!(null));
    stage.append("in", &[failing("bad", "permanent"), flaky]);
    let began = Instant::now();
    stage.run_until_idle();
    assert!(began.elapsed() >= Duration::from_secs(1), "it was not paused");
    assert_eq!(stage.lag("work"), 0);
}

#[test]
fn a_refused_handler_holds_up_its_own_group_only() {
    let refused = "[handlers.bad]\nmodule = \"none.wasm\"\n[groups.waits]\nstream = \"in\"\nhandler = \"bad\"\n";
    let stage = Stage::with_group(1, refused);
    stage.append("in", &count_events(10, 2));
    let mut daemon = stage.start(&["run", "--until-idle"]);
    assert_eq!(daemon.wait(), 1);
    assert_eq!(daemon.logged("cannot become idle")[0]["why"], "its handler was refused");
    assert_eq!((stage.lag("work"), stage.lag("waits")), (0, 10));
}

#[test]
fn a_stop_that_exits_ends_the_process_with_status_3() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"stop\", exit = true }\n");
    stage.append("in", &[count_event("good", "k"), failing("bad", "permanent"), count_event("later", "k")]);
    let mut daemon = stage.start(&["run"]);
    assert_eq!(daemon.wait(), 3);
    assert_eq!(daemon.logged("its group says exit = true")[0]["offset"], 1);
    let partition = stage.partition("work");
    assert_eq!(
        (&partition["state"], &partition["committed"], &partition["owner"]),
        (&json!("stopped"), &json!(1), &Value::Null)
    );
    assert_eq!(partition["reason"], "permanent: \"no luck\"");
}

#[test]
fn a_daemon_that_was_killed_is_seen_as_gone_at_once_and_its_partitions_are_taken_over() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    stage.append("in", &count_events(10, 1));
    stage.await_drained("work");
    daemon.kill();
    let gone = stage.group("work");
    assert_eq!((&gone["state"], &gone["members"]), (&json!("unowned"), &json!(0)));
    assert_eq!(gone["consumers"][0]["status"], "stale");

    let daemon = stage.daemon();
    let partition =
        wait_for("the partition to be taken over", || Some(stage.partition("work")).filter(|p| p["epoch"] == 2));
    assert_ne!(partition["owner"], gone["partitions"][0]["owner"]);
    let consumers = stage.group("work")["consumers"].as_array().unwrap().clone();
    let active = consumers.iter().filter(|consumer| consumer["status"] == "active").count();
    assert_eq!((active, consumers.len()), (1, 2), "the dead host is shown until somebody cleans up");
    daemon.stop();
}

// --- Retry, stop, pause ---------------------------------------------------------------------------------------------

#[test]
fn a_partition_that_waits_to_try_again_holds_up_no_other() {
    let stage = Stage::with_group(4, ONE_QUICK_RETRY);
    stage.append("in", &[failing("bad", "transient")]);
    let daemon = stage.daemon();
    stage.append("in", &count_events(200, 20));
    let waits = partition_of("k", 4);
    wait_for("all other partitions to be drained", || {
        let group = stage.group("work");
        let drained = |partition: &Value| partition["partition"] == waits || partition["lag"] == 0;
        let retrying = group["partitions"][waits as usize]["attempts"] == 2;
        (retrying && group["partitions"].as_array().unwrap().iter().all(drained)).then_some(())
    });
    assert_eq!(stage.group("work")["state"], "retrying");
    daemon.stop();
}

#[test]
fn attempts_and_the_next_one_survive_a_restart() {
    let stage = Stage::with_group(1, ONE_QUICK_RETRY);
    let flaky = event("e1", "k", "fail-until", json!({ "n": "2" }), json!(null));
    stage.append("in", &[flaky, count_event("e2", "k")]);
    let daemon = stage.daemon();
    let waits =
        wait_for("two attempts", || Some(stage.partition("work")).filter(|partition| partition["attempts"] == 2));
    assert_eq!((&waits["state"], &waits["reason"]), (&json!("retrying"), &json!("transient: attempt 2 of 2 to fail")));
    assert!(waits["next_attempt"].is_string());
    daemon.kill();

    let daemon = stage.daemon();
    let again =
        wait_for("the partition to be acquired again", || Some(stage.partition("work")).filter(|p| p["epoch"] == 2));
    for field in ["attempts", "next_attempt", "reason"] {
        assert_eq!(again[field], waits[field], "{field}");
    }
    // A new version tries at once, and its attempt is the third.
    stage.replace("misbehave.wasm", misbehave_v2());
    stage.await_drained("work");
    let emitted: Vec<_> = stage.tail("out").iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(emitted, ["fail-until", "tallied"]);
    assert_eq!(stage.partition("work")["attempts"], 0);
    daemon.stop();
}

#[test]
fn after_the_last_attempt_comes_what_then_says() {
    let policy = "on_failure = { attempts = 3, backoff = { initial = \"1ms\", jitter = 0 }, then = \"stop\" }\n";
    let stage = Stage::with_group(1, policy);
    stage.append("in", &[failing("bad", "transient")]);
    let daemon = stage.daemon();
    let stopped = stage.await_state("work", "stopped");
    assert_eq!((&stopped["attempts"], &stopped["next_attempt"]), (&json!(3), &Value::Null));
    let attempts: Vec<_> = daemon.logged("event failed").iter().map(|line| line["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 2, 3]);
    daemon.stop();
}

#[test]
fn a_stopped_partition_stays_stopped_over_a_restart_and_is_tried_again_when_resumed() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"stop\" }\n");
    stage.append("in", &[failing("bad", "transient")]);
    let daemon = stage.daemon();
    stage.await_state("work", "stopped");
    daemon.stop();

    let daemon = stage.daemon();
    wait_for("the partition to be acquired again", || (stage.partition("work")["epoch"] == 2).then_some(()));
    stage.append("in", &[count_event("later", "k")]);
    let stopped = stage.await_state("work", "stopped");
    assert_eq!((&stopped["committed"], &stopped["lag"]), (&json!(0), &json!(2)));
    assert_eq!(daemon.logged("event failed"), [] as [Value; 0], "nothing is tried before somebody resumes it");

    stage.pelton(&["group", "resume", "work", "--partition", "0"]).ok();
    let failed = daemon.await_log("event failed");
    assert_eq!((&failed["id"], &failed["attempt"]), (&json!("bad"), &json!(1)));
    stage.await_state("work", "stopped");
    daemon.stop();
}

#[test]
fn a_stopped_partition_starts_again_with_a_new_module() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"stop\" }\n");
    stage.append("in", &[failing("bad", "permanent"), count_event("later", "k")]);
    let daemon = stage.daemon();
    stage.await_state("work", "stopped");
    // It succeeds, whatever comes.
    stage.replace("misbehave.wasm", guest("noop"));
    stage.await_drained("work");
    assert_eq!(stage.partition("work")["state"], "idle");
    daemon.stop();
}

#[test]
fn another_configuration_of_the_handler_wakes_a_partition_that_waits_and_one_that_is_stopped() {
    let configured = |group: &str, service: &str| {
        one_group(1, group).replace("allow =", &format!("config = {{ service = {service:?} }}\nallow ="))
    };
    for (group, state) in [
        ("on_failure = { backoff = { initial = \"1h\", max = \"1h\" } }\n", "retrying"),
        ("on_failure = { strategy = \"stop\" }\n", "stopped"),
    ] {
        let stage = Stage::new(&configured(group, "down"));
        stage.append("in", &[failing("bad", "transient"), count_event("later", "k")]);
        let daemon = stage.daemon();
        stage.await_state("work", state);
        stage.replace("workers.toml", configured(group, "up"));
        wait_for("another attempt", || (daemon.logged("event failed").len() == 2).then_some(()));
        daemon.stop();
    }
}

#[test]
fn a_module_that_was_replaced_while_the_daemon_was_down_starts_a_stopped_partition() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"stop\", exit = true }\n");
    stage.append("in", &[failing("bad", "permanent"), count_event("later", "k")]);
    assert_eq!(stage.start(&["run"]).wait(), 3);
    // The same module again is no reason to try again, and a stop that was found is none to end.
    let daemon = stage.daemon();
    stage.await_state("work", "stopped");
    daemon.stop();
    stage.replace("misbehave.wasm", guest("noop"));
    assert_eq!(stage.start(&["run", "--until-idle"]).wait(), 0);
    assert_eq!(stage.lag("work"), 0);
}

#[test]
fn a_module_that_was_only_touched_does_not_start_a_stopped_partition() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"stop\" }\n");
    stage.append("in", &[failing("bad", "permanent")]);
    let daemon = stage.daemon();
    stage.await_state("work", "stopped");
    stage.replace("misbehave.wasm", guest("misbehave"));
    // What follows the look at the file: a module that is another one.
    stage.write("other.wasm", guest("noop"));
    stage.replace("workers.toml", format!("{}\n[handlers.other]\nmodule = \"other.wasm\"\n", stage.config()));
    wait_for("the new handler", || {
        daemon.logged("module loaded").iter().any(|line| line["handler"] == "other").then_some(())
    });
    assert_eq!(stage.partition("work")["state"], "stopped");
    assert_eq!(daemon.logged("event failed").len(), 1);
    daemon.stop();
}

#[test]
fn a_configuration_that_is_half_written_is_waited_for() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    let whole = format!("[streams.wide]\npartitions = 3\n{}", stage.config());
    stage.write("workers.toml", "[streams.wide]\n");
    std::thread::sleep(std::time::Duration::from_millis(150));
    stage.write("workers.toml", whole);
    daemon.await_log("configuration changed");
    let streams = stage.pelton(&["streams", "--json"]).json();
    let wide = streams.as_array().unwrap().iter().find(|stream| stream["stream"] == "wide").unwrap();
    assert_eq!(wide["partitions"].as_array().unwrap().len(), 3, "the half file would have created 8, for ever");
    assert_eq!(daemon.logged("group leaves this host"), [] as [Value; 0]);
    daemon.stop();
}

#[test]
fn a_second_name_of_a_database_leads_to_the_same_hosts() {
    let stage = Stage::new(&support::one_group(1, "").replace("[host]\n", "[host]\nid = \"one\"\n"));
    let daemon = stage.daemon();
    std::os::unix::fs::symlink(stage.path("pelton.db"), stage.path("alias.db")).unwrap();
    let config = format!("[store]\nurl = \"sqlite://alias.db\"\n{}", stage.config());
    stage.write("alias.toml", config);
    let mut second = stage.start(&["run", "-c", "alias.toml"]);
    assert_eq!(second.wait(), 1);
    assert!(second.log().contains("host id \"one\" is in use"), "{}", second.log());
    daemon.stop();
}

#[test]
fn a_paused_group_hands_out_nothing_until_it_is_resumed() {
    let other = "[streams.aside]\npartitions = 1\n[groups.other]\nstream = \"aside\"\nhandler = \"h\"\n";
    let stage = Stage::with_group(1, other);
    let daemon = stage.daemon();
    stage.append("in", &count_events(5, 1));
    stage.await_drained("work");

    stage.pelton(&["group", "pause", "work"]).ok();
    stage.append("in", &[count_event("later", "k0")]);
    stage.append("aside", &count_events(5, 1));
    stage.await_drained("other");
    let paused = stage.partition("work");
    assert_eq!((&paused["state"], &paused["lag"]), (&json!("paused"), &json!(1)));

    stage.pelton(&["group", "resume", "work"]).ok();
    stage.await_drained("work");
    daemon.stop();
}

#[test]
fn a_pause_of_one_partition_leaves_the_others_alone_and_outlives_a_restart() {
    let stage = Stage::with_group(2, "");
    stage.pelton(&["migrate"]).ok();
    stage.pelton(&["group", "pause", "work", "--partition", "0"]).ok();
    let daemon = stage.daemon();
    stage.append("in", &count_events(100, 10));
    wait_for("partition 1 to be drained", || (stage.group("work")["partitions"][1]["lag"] == 0).then_some(()));
    daemon.stop();
    let daemon = stage.daemon();
    let paused = stage.await_state("work", "paused");
    assert_eq!(paused["committed"], 0);
    stage.pelton(&["group", "resume", "work", "--partition", "0"]).ok();
    stage.await_drained("work");
    daemon.stop();
    assert_counted_once(&stage, 100);
}

#[test]
fn an_append_of_another_process_wakes_the_daemon() {
    let stage = Stage::with_group(2, "poll_interval = \"7d\"\n");
    let daemon = stage.daemon();
    for round in 0..3 {
        stage.append("in", &[count_event(round, "k")]);
        stage.await_drained("work");
    }
    daemon.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_does_not_end_the_daemon() {
    let stage = Stage::with_group(1, "");
    stage.append("in", &[count_event("one", "k"), failing("two", "transient")]);
    let mut daemon = stage.command(&["run"]).stderr(File::create("/dev/full").unwrap()).spawn().unwrap();
    wait_for("an event to be handled", || (stage.lag("work") == 1).then_some(()));
    wait_for("the other one to be tried again", || {
        (stage.partition("work")["attempts"].as_u64() > Some(1)).then_some(())
    });
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

// --- Containment ----------------------------------------------------------------------------------------------------

#[test]
fn handlers_that_loop_trap_bomb_and_flood_hurt_neither_other_groups_nor_heartbeats() {
    let mut workers = format!("{}shutdown_grace = \"10ms\"\n[streams.out]\n", host_section());
    for (name, partitions) in [("loops", 2), ("traps", 1), ("bombs", 1), ("floods", 1), ("well", 2)] {
        workers.push_str(&format!(
            "[streams.{name}]\npartitions = {partitions}\n[handlers.{name}]\nmodule = \"misbehave.wasm\"\n\
             allow = {{ emit = [\"out\"] }}\nlimits = {{ timeout = \"1h\" }}\n\
             [groups.{name}]\nstream = \"{name}\"\nhandler = \"{name}\"\nheartbeat_interval = \"100ms\"\n\
             on_failure = {{ backoff = {{ initial = \"10ms\", max = \"50ms\" }} }}\n"
        ));
    }
    let stage = Stage::new(&workers);
    // As many workers as two cores give, each with a loop of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let path = stage.path("workers.toml");
    let config = Config::load(&path).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let host = runtime.spawn(async move {
        let stop = async { drop(stopped.await) };
        host::run(&path, config, RunOptions::default(), stop).await
    });

    wait_for("the host to register", || stage.path("pelton.db").exists().then_some(()));
    let [first, second] = keys_of_two_partitions();
    stage.append("loops", &[first, second].map(|key| event(&key, &key, "loop", json!({}), json!(null))));
    for (stream, kind) in [("traps", "unreachable"), ("bombs", "bomb"), ("floods", "flood")] {
        stage.append(stream, &[event("e", "k", kind, json!({}), json!(null))]);
    }
    let reasons = [("traps", "trap: "), ("bombs", "memory: "), ("floods", "output: ")].map(|(group, class)| {
        let look = || Some(stage.partition(group)).filter(|partition| partition["attempts"].as_u64() >= Some(2));
        (group, wait_for(&format!("group {group} to try again"), look)["reason"].as_str().unwrap().to_owned(), class)
    });

    let heartbeat = || stage.group("loops")["consumers"][0]["last_heartbeat"].as_str().map(str::to_owned);
    let mut beats = BTreeSet::new();
    for round in 0..5 {
        let events: Vec<_> = (0..200).map(|n| count_event(format_args!("{round}-{n}"), &format!("k{n}"))).collect();
        stage.append("well", &events);
        stage.await_drained("well");
        wait_for("the next heartbeat", || heartbeat().filter(|beat| beats.insert(beat.clone())));
    }

    let loops = stage.group("loops");
    assert_eq!((&loops["lag"], &loops["state"]), (&json!(2), &json!("running")), "both loops still run");
    stop.send(()).unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, host).await }).unwrap().unwrap().unwrap();
    assert_eq!(ended, Ended::Cleanly);
    for (group, reason, class) in reasons {
        assert!(reason.starts_with(class), "{group}: {reason}");
    }
}

fn keys_of_two_partitions() -> [String; 2] {
    [0, 1].map(|partition| (0..).map(|n| format!("k{n}")).find(|key| partition_of(key, 2) == partition).unwrap())
}

#[test]
fn a_call_over_its_time_is_a_failure_like_any_other() {
    let stage = Stage::new(
        &one_group(1, ONE_QUICK_RETRY).replace("[groups.work]", "limits = { timeout = \"50ms\" }\n[groups.work]"),
    );
    stage.append("in", &[event("e", "k", "loop", json!({}), json!(null))]);
    let daemon = stage.daemon();
    let failed = daemon.await_log("event failed");
    assert_eq!((&failed["class"], &failed["id"], &failed["group"]), (&json!("timeout"), &json!("e"), &json!("work")));
    daemon.stop();
}

// --- Hot swap -------------------------------------------------------------------------------------------------------

#[test]
fn a_module_replaced_while_a_hundred_thousand_events_flow_loses_and_repeats_nothing() {
    const EVENTS: usize = 100_000;
    const PARTITIONS: u32 = 4;
    let stage = Stage::with_group(PARTITIONS, "batch_size = 500\n");
    stage.append("in", &count_events(EVENTS, 1000));
    let daemon = stage.daemon();
    wait_for("a tenth of the events to be handled", || (stage.lag("work") < EVENTS as u64 * 9 / 10).then_some(()));
    stage.replace("misbehave.wasm", misbehave_v2());
    stage.await_drained("work");

    let out = assert_counted_once(&stage, EVENTS);
    let (old, new) = (digest(&guest("misbehave")), digest(&misbehave_v2()));
    let changes = daemon.logged("new version answers from this offset on");
    assert_eq!(changes.len(), PARTITIONS as usize, "the log names the change of each partition, once");
    for change in changes {
        assert_eq!((&change["old"], &change["new"]), (&json!(old), &json!(new)));
        let (partition, offset) = (change["partition"].as_u64().unwrap(), change["offset"].as_u64().unwrap());
        let (mut before, mut after) = (0, 0);
        for emitted in out.iter().filter(|emitted| source(emitted).0 == partition) {
            let is_old = source(emitted).1 < offset;
            *(if is_old { &mut before } else { &mut after }) += 1;
            assert_eq!(emitted["kind"], if is_old { "counted" } else { "tallied" }, "change at {offset}: {emitted}");
        }
        assert!(before > 0 && after > 0, "partition {partition}: {before} before and {after} after the change");
    }
    daemon.stop();
}

#[test]
fn a_broken_module_never_replaces_one_that_works_and_a_good_one_is_taken_afterwards() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    let live = digest(&guest("misbehave"));
    let broken = [
        (&b"#!/bin/sh"[..], "not WebAssembly"),
        (CORE_MODULE, "core module"),
        (EMPTY_COMPONENT, "not a handler"),
        (&guest("misbehave")[..10_000], "component is not valid"),
        (b"", "module is empty"),
    ];
    for (round, (module, fault)) in broken.into_iter().enumerate() {
        stage.replace("misbehave.wasm", module);
        let refused = wait_for(&format!("{fault:?} in `pelton handlers`"), || {
            Some(stage.handler("h")).filter(|row| row["error"].as_str().is_some_and(|error| error.contains(fault)))
        });
        assert_eq!((&refused["state"], &refused["digest"]), (&json!("refused"), &json!(live)));
        stage.append("in", &[count_event(round, "k")]);
        stage.await_drained("work");
    }
    assert_eq!(daemon.logged("module refused; the old one goes on").len(), broken.len());

    stage.replace("misbehave.wasm", misbehave_v2());
    let taken = wait_for("the good module", || Some(stage.handler("h")).filter(|row| row["state"] == "live"));
    assert_eq!((&taken["digest"], &taken["error"]), (&json!(digest(&misbehave_v2())), &Value::Null));
    stage.append("in", &[count_event("last", "k")]);
    stage.await_drained("work");
    let kinds: Vec<_> = stage.tail("out").iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["counted", "counted", "counted", "counted", "counted", "tallied"]);
    daemon.stop();
}

#[test]
fn a_module_that_is_written_in_two_halves_is_taken_when_it_is_whole() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    let module = misbehave_v2();
    let (first, second) = module.split_at(module.len() / 2);
    stage.write("misbehave.wasm", first);
    stage.append("in", &[count_event("between", "k")]);
    stage.await_drained("work");
    stage.await_handler("h", "refused");
    OpenOptions::new().append(true).open(stage.path("misbehave.wasm")).unwrap().write_all(second).unwrap();
    let whole = stage.await_handler("h", "live");
    assert_eq!(whole["digest"], digest(&module));
    stage.append("in", &[count_event("after", "k")]);
    stage.await_drained("work");
    let kinds: Vec<_> = stage.tail("out").iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["counted", "tallied"]);
    daemon.stop();
}

#[test]
fn a_module_that_is_written_slowly_is_waited_for() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    let module = misbehave_v2();
    stage.write("misbehave.wasm", b"");
    let mut file = OpenOptions::new().append(true).open(stage.path("misbehave.wasm")).unwrap();
    for piece in module.chunks(module.len() / 10) {
        file.write_all(piece).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    wait_for("the whole module", || (stage.handler("h")["digest"] == digest(&module)).then_some(()));
    assert_eq!(stage.handler("h")["state"], "live");
    daemon.stop();
}

#[test]
fn a_module_that_was_removed_goes_on_from_memory() {
    let stage = Stage::with_group(1, "");
    let daemon = stage.daemon();
    std::fs::remove_file(stage.path("misbehave.wasm")).unwrap();
    stage.append("in", &count_events(10, 1));
    stage.await_drained("work");
    assert_eq!(stage.handler("h")["state"], "live");
    daemon.stop();
}

#[test]
fn a_daemon_waits_for_the_module_of_a_handler_that_was_refused_at_the_start() {
    let late = "[handlers.late]\nmodule = \"late.wasm\"\n[groups.late]\nstream = \"in\"\nhandler = \"late\"\n";
    let stage = Stage::with_group(1, late);
    stage.append("in", &count_events(10, 1));
    let daemon = stage.daemon();
    let refused = stage.await_handler("late", "refused");
    assert_eq!((&refused["digest"], &refused["since"]), (&Value::Null, &Value::Null));
    stage.replace("late.wasm", guest("noop"));
    stage.await_drained("late");
    daemon.stop();
}

// --- workers.toml -----------------------------------------------------------------------------------------------------

#[test]
fn groups_and_handlers_come_change_and_go_with_the_file() {
    let stage = Stage::with_group(2, "");
    let daemon = stage.daemon();
    stage.append("in", &count_events(100, 10));
    stage.await_drained("work");

    // A stream, a handler and a group come.
    let more = "[streams.extra]\npartitions = 1\n[handlers.n]\nmodule = \"n.wasm\"\n[groups.added]\nstream = \"in\"\nhandler = \"n\"\n";
    stage.write("n.wasm", guest("noop"));
    stage.replace("workers.toml", one_group(2, more));
    wait_for("the group to be added", || {
        let groups = stage.pelton(&["groups", "--json"]).json();
        groups.as_array().unwrap().iter().any(|group| group["group"] == "added" && group["lag"] == 0).then_some(())
    });
    assert_eq!(stage.group("added")["members"], 1);

    // Its handler changes: what it reads by `wasi:config` is another thing from now on.
    let config = |currency: &str| {
        one_group(2, "").replace("allow =", &format!("config = {{ currency = {currency:?} }}\nallow ="))
    };
    stage.replace("workers.toml", config("EUR"));
    wait_for("the group to leave", || (stage.group("added")["consumers"] == json!([])).then_some(()));
    let ask = json!({ "id": "ask", "key": "k", "kind": "config", "payload_base64": "Y3VycmVuY3k=" });
    wait_for("the new configuration to be read", || {
        (!daemon.logged("handler has new grants and limits").is_empty()).then_some(())
    });
    stage.append("in", &[ask]);
    stage.await_drained("work");
    let answer = stage.tail("out").into_iter().find(|event| event["kind"] == "config").unwrap();
    assert_eq!(answer["payload_base64"], "RVVS", "{answer}");

    // The group that left has not read on.
    assert_eq!(stage.lag("added"), 1);
    for partition in stage.group("added")["partitions"].as_array().unwrap() {
        assert_eq!(partition["owner"], Value::Null);
    }
    daemon.stop();
}

#[test]
fn a_group_that_leaves_and_comes_back_in_the_middle_of_work_repeats_nothing() {
    const EVENTS: usize = 40_000;
    let stage = Stage::with_group(4, "batch_size = 20\n");
    let (with, without) =
        (one_group(4, "batch_size = 20\n"), one_group(4, "").split("[groups").next().unwrap().to_owned());
    stage.append("in", &count_events(EVENTS, 50));
    let daemon = stage.daemon();
    for round in 1..=3 {
        let before = stage.lag("work");
        wait_for("some of the events to be handled", || (stage.lag("work") < before).then_some(()));
        stage.replace("workers.toml", &without);
        wait_for("the group to leave", || (daemon.logged("group leaves this host").len() == round).then_some(()));
        stage.replace("workers.toml", &with);
        wait_for("the group to come back", || (daemon.logged("group works here").len() == round + 1).then_some(()));
    }
    assert!(stage.lag("work") > 0, "the drain was over before the group came back");
    stage.await_drained("work");
    assert_counted_once(&stage, EVENTS);
    assert_eq!(stage.handler("h")["failures"], 0);
    daemon.stop();
}

#[test]
fn new_settings_of_a_group_count_from_the_next_failure_on() {
    let stage = Stage::with_group(1, ONE_QUICK_RETRY);
    stage.append("in", &[failing("bad", "transient")]);
    let daemon = stage.daemon();
    wait_for("two attempts", || (stage.partition("work")["attempts"] == 2).then_some(()));
    stage.replace("workers.toml", one_group(1, "on_failure = { strategy = \"stop\" }\n"));
    daemon.await_log("group has new settings");
    stage.pelton(&["group", "resume", "work"]).ok();
    let stopped = stage.await_state("work", "stopped");
    assert_eq!(stopped["attempts"], 1);
    daemon.stop();
}

#[test]
fn an_invalid_file_changes_nothing() {
    let stage = Stage::with_group(1, "");
    let mut daemon = stage.daemon();
    for (round, (bad, fault)) in [
        (one_group(1, "batch = 1\n"), "unknown field \"batch\" in [groups.work]"),
        ("[groups".to_owned(), "unclosed table"),
        (one_group(2, ""), "stream \"in\" is declared with 2 partitions but has 1"),
    ]
    .into_iter()
    .enumerate()
    {
        stage.replace("workers.toml", bad);
        let line = daemon.await_log(fault);
        assert_eq!((&line["level"], &line["file"]), (&json!("ERROR"), &json!("workers.toml")));
        stage.replace("workers.toml", one_group(1, ""));
        stage.append("in", &[count_event(round, "k")]);
        stage.await_drained("work");
    }
    std::fs::remove_file(stage.path("workers.toml")).unwrap();
    thread::sleep(Duration::from_millis(100));
    assert!(daemon.runs(), "a file that is gone changes nothing either");
    daemon.stop();
}
