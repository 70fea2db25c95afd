//! A handler's module is replaced while hosts work: canaries, gates, files that come and go, several hosts. The guest
//! `edition` says with every effect which version made it, and the history has to say the same.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, fs};

use pelton_core::partition_of;
use pelton_sandbox::digest_of;
use serde_json::{Value, json};
use support::{Daemon, Stage, event, guest, host_section, source, wait_for};

const PARTITIONS: u32 = 4;
/// Quick attempts, so that a version that fails soon does so often.
const QUICK: &str = "on_failure = { strategy = \"retry\", backoff = { initial = \"1ms\", max = \"10ms\" } }";

/// The guest `edition` as another version: `good`, or one that fails at every eighth event of a key.
fn edition(does: &str, number: u32) -> Vec<u8> {
    let mut module = guest("edition");
    let (before, after) = (b"edition:good:00000000", format!("edition:{does}:{number:08}"));
    let at: Vec<_> = (0..module.len() - before.len()).filter(|at| module[*at..].starts_with(before)).collect();
    let [at] = at[..] else { panic!("the guest says {} times which edition it is", at.len()) };
    module[at..at + before.len()].copy_from_slice(after.as_bytes());
    module
}

/// A folder with the first edition as `h.wasm`, and what `[handlers.h]` says besides.
struct Site {
    stage: Stage,
    /// Events appended for each partition.
    appended: u64,
}

impl Site {
    fn new(handler: &str) -> Self {
        let site = Self { stage: Stage::new(&workers("one", "h.wasm", handler)), appended: 0 };
        site.put(&edition("good", 1));
        site
    }

    /// A file changes.
    fn put(&self, module: &[u8]) {
        self.stage.replace("h.wasm", module);
    }

    /// Another host on the same store.
    fn other_daemon(&self, id: &str, module: &str, handler: &str) -> Daemon {
        self.stage.write(&format!("{id}.toml"), workers(id, module, handler));
        let daemon = self.stage.start(&["run", "-c", &format!("{id}.toml")]);
        daemon.await_log("pelton is running");
        daemon
    }

    /// So many events for each partition, all of one key there.
    fn append(&mut self, count: u64) {
        let keys = (0..PARTITIONS).map(|partition| {
            (0..).map(|n| format!("k{n}")).find(|key| partition_of(key, PARTITIONS) == partition).unwrap()
        });
        let keys: Vec<_> = keys.collect();
        let numbers = self.appended..self.appended + count;
        let events = numbers.flat_map(|n| keys.iter().map(move |key| (n, key)));
        let events: Vec<_> =
            events.map(|(n, key)| event(format_args!("{key}/{n}"), key, "k", json!({}), json!(0))).collect();
        self.stage.append("in", &events);
        self.appended += count;
    }

    /// The same, and waits until they are handled.
    #[track_caller]
    fn handle(&mut self, count: u64) {
        self.append(count);
        self.stage.await_drained("work");
    }

    /// What each host reports of the handler.
    #[track_caller]
    fn reports(&self) -> BTreeMap<String, Value> {
        let rows = self.stage.pelton(&["handlers", "--json"]).json();
        let rows = rows.as_array().unwrap().iter().filter(|row| row["handler"] == "h" && !row["host"].is_null());
        rows.map(|row| (row["host"].as_str().unwrap().to_owned(), row.clone())).collect()
    }

    /// Waits until a host runs this version, as canary or everywhere.
    #[track_caller]
    fn await_version(&self, host: &str, field: &str, module: &[u8]) -> Value {
        let digest = digest_of(module);
        let look = || self.reports().remove(host).filter(|row| row[field] == *digest);
        wait_for(&format!("{field} of {host} to be {digest}"), look)
    }

    #[track_caller]
    fn await_both(&self, module: &[u8]) {
        for host in ["one", "two"] {
            self.await_version(host, "digest", module);
        }
    }

    #[track_caller]
    fn await_refusal(&self, host: &str, reason: &str) -> Value {
        let told = |row: &Value| row["error"].as_str().is_some_and(|error| error.contains(reason));
        wait_for(&format!("{host} to refuse: {reason:?}"), || self.reports().remove(host).filter(told))
    }

    #[track_caller]
    fn history(&self) -> Value {
        self.stage.pelton(&["handler", "history", "h", "--json"]).json()
    }

    #[track_caller]
    fn await_fate(&self, module: &[u8], state: &str) -> Value {
        let digest = digest_of(module);
        wait_for(&format!("{digest} to be {state}"), || {
            let mut history = self.history();
            let versions = history["versions"].as_array_mut().unwrap();
            versions.iter_mut().find(|row| row["digest"] == *digest && row["state"] == state).map(Value::take)
        })
    }

    /// Which editions handled how many events in a partition, one after the other. Effects and history must say the same,
    /// and each event must have been handled once, in its order.
    #[track_caller]
    fn editions(&self, partition: u64, known: &[(u32, &[u8])]) -> Vec<(u32, u64)> {
        let mut effects: Vec<_> =
            self.stage.tail("out").into_iter().filter(|event| source(event).0 == partition).collect();
        effects.sort_by_key(source);
        let offsets: Vec<_> = effects.iter().map(|effect| source(effect).1).collect();
        assert_eq!(offsets, (0..self.appended).collect::<Vec<_>>(), "events of partition {partition}, each once");
        let mut told: Vec<(u32, u64)> = Vec::new();
        for (effect, count) in effects.iter().zip(1_u64..) {
            assert_eq!(effect["payload"]["count"], count, "{effect}");
            let edition = effect["payload"]["edition"].as_str().unwrap().parse().unwrap();
            match told.last_mut() {
                Some((last, count)) if *last == edition => *count += 1,
                _ => told.push((edition, 1)),
            }
        }
        let history = self.history();
        let ranges = history["ranges"].as_array().unwrap().iter().filter(|range| range["partition"] == partition);
        let number = |range: &Value| known.iter().find(|(_, module)| range["digest"] == *digest_of(module)).unwrap().0;
        let ranges: Vec<_> = ranges.map(|range| (number(range), range["events"].as_u64().unwrap())).collect();
        assert_eq!(told, ranges, "partition {partition}: effects, and the history");
        told
    }

    fn restarted(&self, daemon: Daemon) -> Daemon {
        daemon.stop();
        self.stage.daemon()
    }
}

fn workers(id: &str, module: &str, handler: &str) -> String {
    let host = host_section().replace("[host]\n", &format!("[host]\nid = {id:?}\n"));
    format!(
        "{host}\n[store]\nurl = \"sqlite://shared.db\"\n\
         [streams.in]\npartitions = {PARTITIONS}\n[streams.out]\npartitions = 1\n\
         [handlers.h]\nmodule = {module:?}\nallow = {{ emit = [\"out\"] }}\nlimits = {{ timeout = \"1s\" }}\n{handler}\n\
         [groups.work]\nstream = \"in\"\nhandler = \"h\"\n{QUICK}\n"
    )
}

/// The good version handled the first four events of each partition and the last ones; where the bad one came to handle any,
/// it was in between. When it is taken back some partitions may have had more of it than others, or nothing.
#[track_caller]
fn assert_bad_in_between(site: &Site, good: &[u8], bad: &[u8]) {
    let mut handled_by_bad = 0;
    for partition in 0..u64::from(PARTITIONS) {
        let told = site.editions(partition, &[(1, good), (2, bad)]);
        let ends = (told[0].0, told.last().unwrap().0);
        assert!(ends == (1, 1) && (told.len() == 1 || told[0].1 == 4), "partition {partition}: {told:?}");
        handled_by_bad += told.iter().filter(|(edition, _)| *edition == 2).map(|(_, events)| events).sum::<u64>();
    }
    assert!(handled_by_bad > 0, "the bad version never came to handle anything");
}

// --- Canaries -------------------------------------------------------------------------------------------------------

#[test]
fn a_canary_that_traps_is_rolled_back_and_the_other_partitions_never_saw_it() {
    let mut site = Site::new("rollout = { canary = { partitions = 1, for = \"1h\" } }");
    let daemon = site.stage.daemon();
    site.handle(10);
    let (good, bad) = (edition("good", 1), edition("trap", 2));
    site.put(&bad);
    let tried = site.await_version("one", "trial", &bad);
    assert_eq!((&tried["digest"], &tried["differs"]), (&json!(digest_of(&good)), &json!(false)));
    site.handle(30);

    let told = site.await_fate(&bad, "rolled-back");
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.starts_with("3 of its first ") && reason.contains("trap"), "{reason}");
    assert_eq!(told["live_since"], Value::Null, "it was live nowhere");
    assert_eq!(site.history()["live"], json!(digest_of(&good)));
    // The sixteenth event is the first that it cannot do. It was tried by the bad one three times, and done by the good one.
    let known: &[(u32, &[u8])] = &[(1, &good), (2, &bad)];
    assert_eq!(site.editions(0, known), [(1, 10), (2, 5), (1, 25)]);
    for partition in 1..u64::from(PARTITIONS) {
        assert_eq!(site.editions(partition, known), [(1, 40)]);
    }
    assert_eq!(daemon.logged("version rolled back").len(), 1);
    daemon.stop();
}

#[test]
fn a_canary_that_does_well_is_live_everywhere_after_its_time() {
    let mut site = Site::new("rollout = { canary = { partitions = 2, for = \"300ms\" } }");
    let daemon = site.stage.daemon();
    site.handle(10);
    let (old, new) = (edition("good", 1), edition("good", 2));
    site.put(&new);
    let tried = daemon.await_log("new version is tried in some partitions");
    assert_eq!((&tried["digest"], &tried["partitions"]), (&json!(digest_of(&new)), &json!(2)));
    site.await_version("one", "digest", &new);
    daemon.await_log("canary is over: new version is live");
    site.handle(10);
    let history = site.history();
    assert_eq!((&history["live"], &history["canary"]), (&json!(digest_of(&new)), &Value::Null));
    for partition in 0..u64::from(PARTITIONS) {
        assert_eq!(site.editions(partition, &[(1, &old), (2, &new)]), [(1, 10), (2, 10)]);
    }
    daemon.stop();
}

#[test]
fn a_canary_goes_on_where_it_was_after_a_restart_and_a_newer_file_ends_it() {
    let mut site = Site::new("rollout = { canary = { partitions = 1, for = \"1h\" } }");
    let daemon = site.stage.daemon();
    site.handle(1);
    let [first, second, third] = [1, 2, 3].map(|number| edition("good", number));
    site.put(&second);
    site.await_version("one", "trial", &second);
    let daemon = site.restarted(daemon);
    site.await_version("one", "trial", &second);
    site.handle(2);
    site.put(&third);
    site.await_version("one", "trial", &third);
    site.handle(3);
    let known: &[(u32, &[u8])] = &[(1, &first), (2, &second), (3, &third)];
    assert_eq!(site.editions(0, known), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(site.editions(1, known), [(1, 6)]);
    site.await_fate(&second, "superseded");
    daemon.stop();
}

// --- Back by itself -------------------------------------------------------------------------------------------------

#[test]
fn what_was_rolled_back_and_lies_there_still_is_not_run_after_a_restart() {
    for does in ["trap", "loop"] {
        let mut site = Site::new("");
        let daemon = site.stage.daemon();
        site.handle(4);
        let (good, bad) = (edition("good", 1), edition(does, 2));
        site.put(&bad);
        site.await_version("one", "digest", &bad);
        site.handle(16);
        site.await_fate(&bad, "rolled-back");
        site.await_version("one", "digest", &good);
        let daemon = site.restarted(daemon);
        site.await_refusal("one", "was rolled back (3 of its first");
        site.await_version("one", "digest", &good);
        site.handle(8);
        assert_bad_in_between(&site, &good, &bad);
        daemon.stop();
    }
}

// --- Self-test and gate ----------------------------------------------------------------------------------------------

#[test]
fn a_gate_compares_with_what_the_live_version_makes_of_recorded_events() {
    let same = "rollout = { replay = { last = 100, require = \"same\" } }";
    let mut site = Site::new(same);
    let daemon = site.stage.daemon();
    site.handle(20);
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.put(&second);
    let refused = site.await_refusal("one", "differ");
    assert_eq!((&refused["digest"], &refused["state"]), (&json!(digest_of(&first)), &json!("refused")));
    // It is to do something else: no new errors are enough. One that traps has some.
    let no_new_errors = same.replace("same", "no-new-errors");
    site.stage.replace("workers.toml", workers("one", "h.wasm", &no_new_errors));
    site.await_version("one", "digest", &second);
    site.handle(20);
    site.put(&edition("trap", 3));
    site.await_refusal("one", "fail");
    site.handle(20);
    assert_eq!(site.editions(0, &[(1, &first), (2, &second)]), [(1, 20), (2, 40)]);
    assert_eq!(site.history()["versions"].as_array().unwrap().len(), 2, "what is refused is no version");
    daemon.stop();
}

#[test]
fn a_self_test_refuses_what_does_not_do_as_expected() {
    let mut site = Site::new("");
    let events: String = (0..8).map(|n| format!("{}\n", event(n, "k", "k", json!({}), json!(0)))).collect();
    site.stage.write("h.events.ndjson", events);
    let daemon = site.stage.daemon();
    site.handle(10);
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.put(&edition("trap", 9));
    site.await_refusal("one", "self-test");
    site.put(&second);
    site.await_version("one", "digest", &second);
    site.handle(10);
    assert_eq!(site.editions(0, &[(1, &first), (2, &second)]), [(1, 10), (2, 10)]);
    daemon.stop();
}

// --- Files that come and go, at the start ----------------------------------------------------------------------------

#[test]
fn a_version_that_came_while_nobody_ran_is_taken_at_the_start() {
    let mut site = Site::new("");
    let daemon = site.stage.daemon();
    site.handle(3);
    daemon.stop();
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.put(&second);
    site.append(4);
    let daemon = site.stage.daemon();
    site.stage.await_drained("work");
    assert_eq!(site.editions(0, &[(1, &first), (2, &second)]), [(1, 3), (2, 4)], "nothing by the old one");
    // A host that is alone takes an old file, too: somebody put it back.
    daemon.stop();
    site.put(&first);
    let daemon = site.stage.daemon();
    site.handle(5);
    assert_eq!(site.editions(0, &[(1, &first), (2, &second)]), [(1, 3), (2, 4), (1, 5)]);
    daemon.stop();
}

#[test]
fn a_file_that_is_gone_changes_nothing_not_even_at_the_next_start() {
    let mut site = Site::new("");
    let daemon = site.stage.daemon();
    site.handle(2);
    fs::remove_file(site.stage.path("h.wasm")).unwrap();
    site.handle(2);
    let daemon = site.restarted(daemon);
    let first = edition("good", 1);
    site.await_version("one", "digest", &first);
    site.handle(2);
    assert_eq!(site.editions(0, &[(1, &first)]), [(1, 6)]);
    // And it is noticed when it comes back as another one.
    let second = edition("good", 2);
    site.put(&second);
    site.await_version("one", "digest", &second);
    daemon.stop();
}

// --- Several hosts ----------------------------------------------------------------------------------------------------

#[test]
fn a_host_without_the_file_follows_through_the_store_forward_and_back() {
    let mut site = Site::new("");
    let one = site.stage.daemon();
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.await_version("one", "digest", &first);
    let two = site.other_daemon("two", "nowhere.wasm", "");
    site.await_version("two", "digest", &first);
    let shared = || {
        let owners = site.stage.group("work")["partitions"].take();
        let held = owners.as_array().unwrap().iter().filter(|row| row["owner"] == "two").count();
        (held == 2).then_some(())
    };
    wait_for("the partitions to be shared", shared);
    site.handle(10);
    site.put(&second);
    site.await_both(&second);
    site.handle(10);
    site.stage.pelton(&["handler", "rollback", "h"]).ok();
    site.await_both(&first);
    site.handle(10);
    for partition in 0..u64::from(PARTITIONS) {
        assert_eq!(site.editions(partition, &[(1, &first), (2, &second)]), [(1, 10), (2, 10), (1, 10)]);
    }
    for daemon in [one, two] {
        daemon.stop();
    }
}

#[test]
fn a_bad_version_that_one_host_judges_is_taken_back_on_all() {
    let mut site = Site::new("");
    let one = site.stage.daemon();
    let (good, bad) = (edition("good", 1), edition("trap", 2));
    site.await_version("one", "digest", &good);
    let two = site.other_daemon("two", "nowhere.wasm", "");
    site.await_version("two", "digest", &good);
    site.handle(4);
    site.put(&bad);
    site.await_both(&bad);
    site.handle(40);
    site.await_fate(&bad, "rolled-back");
    site.await_both(&good);
    assert_bad_in_between(&site, &good, &bad);
    for daemon in [one, two] {
        daemon.stop();
    }
}

#[test]
fn an_old_copy_on_a_host_that_comes_later_overrules_nobody() {
    let mut site = Site::new("");
    let one = site.stage.daemon();
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.await_version("one", "digest", &first);
    site.put(&second);
    site.await_version("one", "digest", &second);
    site.stage.write("old.wasm", &first);
    let two = site.other_daemon("two", "old.wasm", "");
    site.await_refusal("two", "was superseded by");
    site.await_version("two", "digest", &second);
    site.handle(10);
    assert_eq!(site.editions(0, &[(2, &second)]), [(2, 10)]);
    for daemon in [one, two] {
        daemon.stop();
    }
}

#[test]
fn a_host_that_is_told_which_digest_to_run_runs_it_and_is_shown() {
    let site = Site::new("");
    let one = site.stage.daemon();
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.await_version("one", "digest", &first);
    site.stage.write("mine.wasm", &first);
    let two = site.other_daemon("two", "mine.wasm", &format!("digest = \"{}\"", digest_of(&first)));
    site.put(&second);
    site.await_version("one", "digest", &second);
    let look =
        || site.reports().remove("two").filter(|row| row["live"] == *digest_of(&second) && row["differs"] == true);
    let told = wait_for("two to differ", look);
    assert_eq!((&told["digest"], &told["state"]), (&json!(digest_of(&first)), &json!("live")));
    assert_eq!(site.reports()["one"]["differs"], json!(false));
    for daemon in [one, two] {
        daemon.stop();
    }
}

// --- What must not lead anywhere ---------------------------------------------------------------------------------------

#[test]
fn an_event_that_no_version_can_do_takes_back_the_newest_and_no_other() {
    let mut site = Site::new("");
    let daemon = site.stage.daemon();
    let [first, second, third] = [("good", 1), ("trap", 2), ("trap", 3)].map(|(does, number)| edition(does, number));
    site.handle(4);
    for next in [&second, &third] {
        site.put(next);
        site.await_version("one", "digest", next);
        site.handle(1);
    }
    // Neither the third nor the second can do the eighth; the second was well for as long as it was new.
    site.append(10);
    site.await_fate(&third, "rolled-back");
    wait_for("the second to fail too", || {
        let failed = |line: &Value| line["attempt"].as_u64().is_some_and(|attempt| attempt > 12);
        daemon.logged("event failed").iter().any(failed).then_some(())
    });
    site.await_fate(&second, "live");
    let daemon = site.restarted(daemon);
    wait_for("it to fail after the restart", || (daemon.logged("event failed").len() > 6).then_some(()));
    site.await_fate(&second, "live");
    site.await_fate(&first, "superseded");
    daemon.stop();
}

#[test]
fn an_edit_of_workers_toml_is_no_change_of_the_module_beside_it() {
    let mut site = Site::new("");
    let one = site.stage.daemon();
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.handle(1);
    site.put(&second);
    site.await_version("one", "digest", &second);
    site.stage.write("old.wasm", &first);
    let two = site.other_daemon("two", "old.wasm", "");
    site.await_refusal("two", "was superseded by");
    site.stage.write("two.new", workers("two", "old.wasm", "config = { currency = \"EUR\" }"));
    fs::rename(site.stage.path("two.new"), site.stage.path("two.toml")).unwrap();
    two.await_log("handler has new grants and limits");
    site.stage.write("old.events.ndjson", format!("{}\n", event("e", "k", "k", json!({}), json!(0))));
    std::thread::sleep(std::time::Duration::from_secs(3));
    site.await_both(&second);
    assert_eq!(site.history()["live"], json!(digest_of(&second)));
    one.stop();
    two.stop();
}

#[test]
fn the_digest_that_one_host_is_told_to_run_is_nobody_elses() {
    let mut site = Site::new("");
    let one = site.stage.daemon();
    let [first, second, third] = [1, 2, 3].map(|number| edition("good", number));
    site.handle(1);
    site.put(&second);
    site.await_version("one", "digest", &second);
    site.stage.write("old.wasm", &first);
    let two = site.other_daemon("two", "old.wasm", "");
    site.await_both(&second);
    let tell = |handler: &str| {
        site.stage.write("two.new", workers("two", "old.wasm", handler));
        fs::rename(site.stage.path("two.new"), site.stage.path("two.toml")).unwrap();
    };
    tell(&format!("digest = {:?}", digest_of(&first)));
    site.await_version("two", "digest", &first);
    assert_eq!(site.history()["live"], json!(digest_of(&second)));
    site.put(&third);
    site.await_version("one", "digest", &third);
    tell("");
    site.await_both(&third);
    assert_eq!(site.history()["live"], json!(digest_of(&third)));
    one.stop();
    two.stop();
}

#[test]
fn a_gate_is_asked_at_the_start_of_a_host_too() {
    let mut site = Site::new("rollout = { replay = { last = 100, require = \"same\" } }");
    let daemon = site.stage.daemon();
    site.handle(20);
    daemon.stop();
    site.put(&edition("good", 2));
    let daemon = site.stage.daemon();
    site.await_refusal("one", "rollout.replay");
    assert_eq!(site.history()["live"], json!(digest_of(&edition("good", 1))));
    daemon.stop();
}

#[test]
fn putting_the_file_back_ends_a_canary() {
    let mut site = Site::new("rollout = { canary = { partitions = 1, for = \"1h\" } }");
    let daemon = site.stage.daemon();
    site.handle(1);
    let [first, second] = [1, 2].map(|number| edition("good", number));
    site.put(&second);
    site.await_version("one", "trial", &second);
    site.put(&first);
    site.await_fate(&second, "superseded");
    site.handle(1);
    assert_eq!(site.editions(0, &[(1, &first), (2, &second)]), [(1, 2)]);
    daemon.stop();
}

#[test]
fn a_canary_that_becomes_live_is_watched_as_something_new() {
    let rollout = "rollout = { canary = { partitions = 1, for = \"2s\" }, rollback = { watch = \"1500ms\" } }";
    let mut site = Site::new(rollout);
    let daemon = site.stage.daemon();
    site.handle(1);
    let (good, bad) = (edition("good", 1), edition("trap", 2));
    site.put(&bad);
    site.await_version("one", "digest", &bad);
    site.append(16);
    site.await_fate(&bad, "rolled-back");
    site.await_version("one", "digest", &good);
    site.stage.await_drained("work");
    daemon.stop();
}

#[test]
fn a_canary_is_watched_for_as_long_as_it_is_one() {
    let rollout = "rollout = { canary = { partitions = 1, for = \"1h\" }, rollback = { watch = \"200ms\" } }";
    let mut site = Site::new(rollout);
    let daemon = site.stage.daemon();
    site.handle(1);
    let bad = edition("trap", 2);
    site.put(&bad);
    site.await_version("one", "trial", &bad);
    // Whoever takes the partition over later sees as much of it.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let daemon = site.restarted(daemon);
    site.await_version("one", "trial", &bad);
    site.append(16);
    site.await_fate(&bad, "rolled-back");
    site.stage.await_drained("work");
    daemon.stop();
}

#[test]
fn what_is_not_allowed_any_more_is_over_at_once_even_for_what_cannot_do_without() {
    let allow = |allow: &str| {
        let workers = workers("one", "h.wasm", "");
        workers.replace("allow = { emit = [\"out\"] }", allow).replace(
            "strategy = \"retry\", backoff = { initial = \"1ms\", max = \"10ms\" }",
            "strategy = \"dead-letter\"",
        )
    };
    let stage = Stage::new(&allow("allow = { emit = [\"out\"], http = [\"http://127.0.0.1:9\"] }"));
    stage.replace("h.wasm", guest("explorer"));
    let daemon = stage.daemon();
    stage.append("in", &[event("before", "k", "time", json!({}), json!(0))]);
    stage.await_drained("work");
    assert_eq!(stage.tail("out").len(), 1);
    stage.replace("workers.toml", allow("allow = { emit = [] }"));
    daemon.await_log("what the handler is granted now does not suffice for it; it goes on without");
    stage.append("in", &[event("after", "k", "time", json!({}), json!(0))]);
    stage.await_drained("work");
    assert_eq!(stage.tail("out").len(), 1, "{}", daemon.log());
    wait_for("the refusal to be shown", || {
        let row = stage.pelton(&["handlers", "--json"]).json()[0].clone();
        row["error"].as_str().is_some_and(|error| error.contains("wasi:http")).then_some(())
    });
    daemon.stop();
}
