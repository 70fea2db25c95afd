//! Versions of a handler, as a person or a program sees and changes them. No host runs in most of these scenarios: what
//! hosts would store is put into the store by hand.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, future::Future, sync::Arc};

use pelton_core::{
    Acquired, Canary, Class, Commit, Decision, Found, Lease, Membership, Offset, Proposal, Rollout, Timestamp,
};
use pelton_store::{HandlerReport, HandlerState, Registration, Store, StoreOptions};
use serde_json::{Value, json};
use support::{Stage, count_event, count_events, event, guest, misbehave_v2, wait_for};

const CANARY: Canary = Canary { partitions: 1, for_ms: 120_000 };
/// 2023-11-14T22:13:20Z
const EPOCH: u64 = 1_700_000_000_000;

/// The digest of a version that is called by one hexadecimal digit.
fn digest(name: char) -> String {
    format!("sha256:{}", name.to_string().repeat(64))
}

/// A digest as tables show it.
fn short(name: char) -> String {
    format!("sha256:{}", name.to_string().repeat(12))
}

/// So many seconds on.
fn at(seconds: u64) -> Timestamp {
    Timestamp(EPOCH + seconds * 1000)
}

fn proposal(name: char, canary: Option<Canary>) -> Proposal {
    Proposal { digest: digest(name), bytes: 2500, host: "worker-1".into(), canary, found: Found::Changed }
}

fn proposed(rollout: &Rollout, name: char, seconds: u64) -> Rollout {
    rollout.propose(&proposal(name, None), at(seconds)).unwrap()
}

/// What a host stored: every row in turn, from the first on.
struct Told(Vec<Rollout>);

impl Told {
    /// Versions that took over one after the other, ten seconds apart.
    fn versions(names: &str) -> Self {
        let mut told = Self(Vec::new());
        for (name, number) in names.chars().zip(0..) {
            told.then(|rollout| proposed(rollout, name, number * 10));
        }
        told
    }

    fn then(&mut self, next: impl Fn(&Rollout) -> Rollout) -> &mut Self {
        let next = self.0.last().map_or_else(|| next(&Rollout::of("h")), &next);
        self.0.push(next);
        self
    }

    /// The last version is a canary of one partition.
    fn with_canary(mut self, name: char) -> Self {
        let seconds = self.0.len() as u64 * 10;
        self.then(|rollout| rollout.propose(&proposal(name, Some(CANARY)), at(seconds)).unwrap());
        self
    }

    fn pinned(mut self) -> Self {
        self.then(|rollout| rollout.pin(None, true, at(1_000)).unwrap());
        self
    }

    /// A stage whose store was told all this.
    fn stage(&self) -> Stage {
        let stage = stage();
        with_store(&stage, |store| async move {
            for rollout in &self.0 {
                let module = rollout.versions.last().map(|version| Arc::from(version.digest.as_bytes()));
                assert!(store.save_rollout(rollout, module).await.unwrap());
            }
        });
        stage
    }
}

fn stage() -> Stage {
    let stage = Stage::with_group(2, "");
    stage.pelton(&["migrate"]).ok();
    stage
}

/// Does something with the store of a stage, in the place of a host.
fn with_store<F: Future<Output = T>, T>(stage: &Stage, work: impl FnOnce(Arc<dyn Store>) -> F) -> T {
    let url = format!("sqlite://{}", stage.shown("pelton.db"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = pelton_store::open(&url, &StoreOptions { host: true, ..StoreOptions::default() }).await.unwrap();
        work(store).await
    })
}

fn stored(stage: &Stage) -> Rollout {
    with_store(stage, |store| async move { store.rollouts().await.unwrap().swap_remove(0) })
}

#[track_caller]
fn history(stage: &Stage) -> Value {
    stage.pelton(&["handler", "history", "h", "--json"]).json()
}

#[track_caller]
fn handler(stage: &Stage, args: &[&str]) -> support::Output {
    stage.pelton(&[&["handler"], args].concat())
}

// --- History ------------------------------------------------------------------------------------------------------

#[test]
fn a_handler_that_no_host_has_loaded_has_no_history() {
    let stage = stage();
    let history = history(&stage);
    assert_eq!(
        history,
        json!({ "handler": "h", "live": null, "canary": null, "pinned": false, "versions": [], "ranges": [] })
    );
    assert_eq!(
        handler(&stage, &["history", "h"]).ok().stdout,
        "handler h: none is live\n\nno version yet: start `pelton run`\n\nno version handled anything yet\n"
    );
}

#[test]
fn a_handler_that_does_not_exist_is_told_with_those_that_do() {
    let stage = Told::versions("a").stage();
    for args in [&["history", "x"][..], &["rollback", "x"], &["pin", "x"], &["pin", "x", "--off"]] {
        handler(&stage, args).fails(1, r#"error: handler "x" does not exist; known handlers: "h""#);
    }
    let stage = Stage::new("");
    stage.pelton(&["migrate"]).ok();
    handler(&stage, &["history", "x"]).fails(1, r#"error: handler "x" does not exist; there are no handlers yet"#);
}

#[test]
fn a_history_tells_every_version_the_newest_first_and_what_became_of_it() {
    let mut told = Told::versions("abc");
    told.then(|rollout| rollout.take_back(&digest('c'), "3 of its first 7 calls ended in a trap", at(25)).unwrap());
    let stage = told.with_canary('d').stage();
    let history = history(&stage);
    assert_eq!((&history["live"], &history["pinned"]), (&json!(digest('b')), &json!(false)));
    assert_eq!(
        history["canary"],
        json!({
            "digest": digest('d'), "partitions": 1,
            "since": "2023-11-14T22:14:00.000Z", "until": "2023-11-14T22:16:00.000Z",
        })
    );
    let versions = history["versions"].as_array().unwrap();
    let told: Vec<_> = versions.iter().map(|version| (&version["digest"], &version["state"])).collect();
    let [a, b, c, d] = ['a', 'b', 'c', 'd'].map(|name| json!(digest(name)));
    let states = ["canary", "rolled-back", "live", "superseded"].map(|state| json!(state));
    assert_eq!(told, [&d, &c, &b, &a].into_iter().zip(&states).collect::<Vec<_>>());
    assert_eq!(
        versions[1],
        json!({
            "digest": c, "bytes": 2500, "proposed_at": "2023-11-14T22:13:40.000Z", "host": "worker-1",
            "live_since": "2023-11-14T22:13:40.000Z", "state": "rolled-back", "pinned": false, "kept": true,
            "reason": "3 of its first 7 calls ended in a trap",
        })
    );
    assert_eq!(versions[0]["live_since"], json!(null), "it never was");

    let table = handler(&stage, &["history", "h"]).ok().stdout;
    let lines: Vec<_> = table.lines().collect();
    let (b, c, d) = (short('b'), short('c'), short('d'));
    assert_eq!(lines[0], format!("handler h: {b} is live, canary {d} in 1 partition until 2023-11-14T22:16:00.000Z"));
    let row: Vec<_> = lines[4].split_whitespace().collect();
    let (size, proposed) = (["3", "KiB"], "2023-11-14T22:13:40.000Z");
    assert_eq!(row[..7], [&*c, size[0], size[1], "rolled-back", proposed, "worker-1", proposed]);
    assert!(lines[4].ends_with("3 of its first 7 calls ended in a trap"), "{table}");
}

/// A commit: from where to where, and which versions handled what from which offset on.
type Step = (u64, u64, &'static [(u64, char)]);

/// Commits in the place of a host: of partition 0, which begins at 0.
async fn handle(store: &dyn Store, steps: &[Step]) {
    let membership = Membership { group: "work".into(), session_timeout_ms: 10_000, partitions_max: 0 };
    let registration =
        Registration { host: "worker-1".into(), memberships: vec![membership], ..Registration::default() };
    let session = store.register(&registration).await.unwrap();
    let generation = store.survey().await.unwrap().groups[0].generation;
    let targets = vec![Some("worker-1".into()), None];
    let assign = Decision::Assign { group: "work".into(), generation, targets, homes: vec![None, None] };
    assert!(store.decide(&assign).await.unwrap());
    let Acquired::Claimed(claim) = store.acquire("work", 0, &session).await.unwrap() else { panic!("not acquired") };
    let lease = Lease { group: "work".into(), partition: 0, host: "worker-1".into(), epoch: claim.epoch };
    for ((from, to, versions), sequence) in steps.iter().zip(1..) {
        let handled_by = versions.iter().map(|(from, name)| (Offset(*from), digest(*name))).collect();
        let moving = Commit::moving(lease.clone(), sequence, Offset(*from), Offset(*to));
        store.commit(Arc::new(Commit { handled_by, ..moving })).await.unwrap();
    }
    store.deregister(&session).await.unwrap();
}

#[test]
fn a_history_tells_which_version_handled_what() {
    let stage = Told::versions("ab").stage();
    stage.append("in", &count_events(40, 20));
    let steps: [Step; 4] = [(0, 3, &[(0, 'a')]), (3, 7, &[(5, 'b')]), (7, 9, &[]), (9, 10, &[(9, 'a')])];
    with_store(&stage, |store| async move { handle(&*store, &steps).await });
    let shown = history(&stage);
    let ranges = shown["ranges"].as_array().unwrap();
    let fields = ["group", "partition", "from", "until", "open", "events", "digest", "host"];
    let of = |range: &Value| fields.map(|name| range[name].clone());
    let expected = |from: u64, until: u64, open: bool, name: char| {
        [
            json!("work"),
            json!(0),
            json!(from),
            json!(until),
            json!(open),
            json!(until - from),
            json!(digest(name)),
            json!("worker-1"),
        ]
    };
    let told: Vec<_> = ranges.iter().map(of).collect();
    assert_eq!(told, [expected(0, 5, false, 'a'), expected(5, 9, false, 'b'), expected(9, 10, true, 'a')]);
    assert!(ranges[0]["since"].as_str().unwrap().ends_with('Z'));

    let newest = handler(&stage, &["history", "h", "--limit", "1", "--json"]).json();
    assert_eq!(newest["ranges"].as_array().unwrap().iter().map(of).collect::<Vec<_>>(), told[2..]);
    let table = handler(&stage, &["history", "h", "--limit", "2"]).ok().stdout;
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let [.., middle, last, _] = &rows[..] else { panic!("{table}") };
    assert_eq!(middle[..6], ["work", "0", "5", "9", "4", &short('b')], "{table}");
    assert_eq!(last[..8], ["work", "0", "9", "10", "so", "far", "1", &short('a')], "{table}");
    assert!(table.ends_with("these are the newest 2; --limit N shows more\n"), "{table}");
}

// --- Going back ---------------------------------------------------------------------------------------------------

#[test]
fn a_rollback_goes_to_the_version_before() {
    let stage = Told::versions("abc").stage();
    let (b, c) = (short('b'), short('c'));
    assert_eq!(
        handler(&stage, &["rollback", "h"]).ok().stdout,
        format!(
            "handler h goes from {c} to {b}\n\
             - hosts follow within a second or two; `pelton handlers` shows which did\n\
             - no file brings {c} back; `pelton handler rollback h --to {c}` does\n"
        )
    );
    let rollout = stored(&stage);
    assert_eq!((rollout.live.as_ref(), rollout.pinned, rollout.revision), (Some(&digest('b')), false, 4));
    let back = history(&stage)["versions"][0].take();
    assert_eq!(
        (&back["digest"], &back["state"], &back["reason"]),
        (&json!(digest('c')), &json!("rolled-back"), &json!("by hand"))
    );

    // What was taken back is not gone back to by chance.
    assert_eq!(
        handler(&stage, &["rollback", "h", "--json"]).json(),
        json!({
            "handler": "h", "from": digest('b'), "to": digest('a'), "canary_ended": null, "pinned": false,
            "done": "rolled-back",
        })
    );
    handler(&stage, &["rollback", "h"]).fails(1, r#"error: handler "h" has no version before this one to go back to"#);
    // But it can be named.
    handler(&stage, &["rollback", "h", "--to", &c]).ok();
    assert_eq!(stored(&stage).live, Some(digest('c')));
}

#[test]
fn a_rollback_goes_to_a_version_that_is_known_and_kept() {
    let stage = Told::versions("0123456789").stage();
    let known = "`pelton handler history h` shows those that are";
    handler(&stage, &["rollback", "h", "--to", "sha256:ab"])
        .fails(1, &format!(r#"error: no version sha256:ab of handler "h" is known; {known}"#));
    let gone = digest('0');
    handler(&stage, &["rollback", "h", "--to", "00"])
        .fails(1, &format!("error: the module of {gone} is not kept any more; put its file back instead"));
    handler(&stage, &["rollback", "h", "--to", &digest('9')]).fails(
        1,
        &format!(r#"error: handler "h" is at {} already, and no other version is tried beside it"#, short('9')),
    );
    let kept = |version: &Value| version["kept"] == json!(true);
    assert_eq!(history(&stage)["versions"].as_array().unwrap().iter().filter(|version| kept(version)).count(), 6);
    handler(&stage, &["rollback", "h", "--to", "44"]).ok();
    assert_eq!(stored(&stage).live, Some(digest('4')));
}

#[test]
fn a_rollback_ends_a_canary_and_leaves_what_is_live() {
    let stage = Told::versions("a").with_canary('b').stage();
    assert_eq!(
        handler(&stage, &["rollback", "h", "--json"]).json(),
        json!({
            "handler": "h", "from": digest('b'), "to": digest('a'), "canary_ended": digest('b'), "pinned": false,
            "done": "rolled-back",
        })
    );
    let stage = Told::versions("ab").with_canary('c').stage();
    let said = handler(&stage, &["rollback", "h", "--to", &digest('a')]).ok().stdout;
    let (a, b, c) = (short('a'), short('b'), short('c'));
    assert!(said.starts_with(&format!("handler h goes from {b} to {a}\n- the canary of {c} ends with it\n")), "{said}");
    assert_eq!((stored(&stage).trial, stored(&stage).live), (None, Some(digest('a'))));
}

#[test]
fn of_many_who_go_back_at_once_none_undoes_another() {
    let stage = Told::versions("abcdef").stage();
    let before = stored(&stage).revision;
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let stage = &stage;
        let asked: Vec<_> = "abcde"
            .chars()
            .map(|to| scope.spawn(move || handler(stage, &["rollback", "h", "--to", &digest(to)])))
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap().ok()).collect()
    });
    assert_eq!(stored(&stage).revision, before + 5);
    let last = stored(&stage).live.unwrap();
    assert!(outputs.iter().any(|output| output.stdout.contains(&format!("to {}", &last[..19]))), "{outputs:?}");
    let fates: Vec<_> = stored(&stage).versions.into_iter().map(|version| version.fate.as_str()).collect();
    assert_eq!(fates.iter().filter(|fate| **fate == "live").count(), 1, "{fates:?}");
}

// --- Pinning ------------------------------------------------------------------------------------------------------

#[test]
fn a_pin_keeps_what_is_live_until_it_is_taken_away() {
    let stage = Told::versions("ab").stage();
    let b = short('b');
    assert_eq!(
        handler(&stage, &["pin", "h"]).ok().stdout,
        format!(
            "handler h is pinned to {b}: no file and no failure replaces it\n- `pelton handler pin h --off` lets new versions in\n"
        )
    );
    let pinned = stored(&stage);
    assert!(
        pinned.propose(&proposal('c', None), at(99)).is_err()
            && pinned.take_back(&digest('b'), "traps", at(99)).is_err()
    );
    assert_eq!((&history(&stage)["pinned"], &history(&stage)["versions"][0]["pinned"]), (&json!(true), &json!(true)));
    handler(&stage, &["pin", "h"]).fails(1, r#"error: handler "h" is pinned already"#);
    handler(&stage, &["pin", "h", &b]).fails(1, &format!(r#"error: handler "h" is pinned to {b} already"#));

    let off = handler(&stage, &["pin", "h", "--off", "--json"]).json();
    assert_eq!(
        off,
        json!({ "handler": "h", "from": null, "to": digest('b'), "canary_ended": null, "pinned": false, "done": "unpinned" })
    );
    assert!(stored(&stage).propose(&proposal('c', None), at(99)).is_ok());
    handler(&stage, &["pin", "h", "--off"]).fails(1, r#"error: handler "h" is not pinned"#);
}

#[test]
fn a_version_can_be_pinned_that_is_not_live() {
    let stage = Told::versions("abc").stage();
    let said = handler(&stage, &["pin", "h", "aa"]).ok().stdout;
    let (a, c) = (short('a'), short('c'));
    assert!(said.starts_with(&format!("handler h goes from {c} to {a}\n")), "{said}");
    assert!(said.contains(&format!("handler h is pinned to {a}: ")), "{said}");
    assert_eq!((stored(&stage).live, stored(&stage).pinned), (Some(digest('a')), true));
    handler(&stage, &["pin", "h", "ff"])
        .fails(1, r#"error: no version ff of handler "h" is known; `pelton handler history h` shows those that are"#);
}

#[test]
fn who_goes_back_by_hand_overrules_a_pin_and_keeps_it() {
    let stage = Told::versions("ab").pinned().stage();
    let said = handler(&stage, &["rollback", "h"]).ok().stdout;
    assert!(said.ends_with("- it is pinned as before; `pelton handler pin h --off` lets new versions in\n"), "{said}");
    assert_eq!((stored(&stage).live, stored(&stage).pinned), (Some(digest('a')), true));
}

#[test]
fn a_pin_that_is_not_there_is_not_taken_away_from_a_canary() {
    let stage = Told::versions("a").with_canary('b').stage();
    handler(&stage, &["pin", "h", "--off"]).fails(1, r#"error: handler "h" is not pinned"#);
    assert!(stored(&stage).trial.is_some(), "it goes on");
    let told = handler(&stage, &["pin", "h", "--json"]).json();
    assert_eq!((&told["to"], &told["canary_ended"]), (&json!(digest('a')), &json!(digest('b'))), "{told}");
}

// --- Overview -----------------------------------------------------------------------------------------------------

fn report(host: &str, name: char) -> HandlerReport {
    HandlerReport {
        handler: "h".into(),
        host: host.into(),
        digest: digest(name),
        since: at(5),
        state: HandlerState::Live,
        error: None,
        calls: 7,
        failures: 1,
        by_class: BTreeMap::from([(Class::Trap, 1)]),
        trial: None,
        usage: BTreeMap::from([("instances".into(), 2)]),
    }
}

#[test]
fn a_host_that_runs_another_version_is_shown() {
    let stage = Told::versions("ab").with_canary('c').stage();
    let reports = [report("worker-1", 'a'), HandlerReport { trial: Some(digest('c')), ..report("worker-2", 'b') }];
    // As long as somebody has the store in hand, the hosts live.
    let alive = with_store(&stage, |store| async move {
        for host in ["worker-1", "worker-2"] {
            store.register(&Registration { host: host.into(), ..Registration::default() }).await.unwrap();
        }
        store.report_handlers(&reports).await.unwrap();
        store
    });
    let rows = stage.pelton(&["handlers", "--json"]).json();
    assert_eq!(
        rows[0],
        json!({
            "handler": "h", "host": "worker-1", "digest": digest('a'), "since": "2023-11-14T22:13:25.000Z",
            "state": "live", "gone": false, "error": null, "calls": 7, "failures": 1, "outcomes": { "trap": 1 },
            "usage": { "instances": 2 }, "trial": null, "differs": true,
            "live": digest('b'), "pinned": false,
            "canary": {
                "digest": digest('c'), "partitions": 1,
                "since": "2023-11-14T22:13:40.000Z", "until": "2023-11-14T22:15:40.000Z",
            },
        })
    );
    assert_eq!(
        (&rows[1]["differs"], &rows[1]["trial"], &rows[1]["live"]),
        (&json!(false), &json!(digest('c')), &json!(digest('b')))
    );
    let table = stage.pelton(&["handlers"]).ok().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[1].contains(&format!("live (another digest than {})", short('b'))), "{table}");
    assert!(!lines[2].contains("another digest"), "{table}");
    assert!(lines[2].contains(&format!("canary {} in 1 partition until", short('c'))), "{table}");
    drop(alive);
    let table = stage.pelton(&["handlers"]).ok().stdout;
    assert!(table.contains("worker-1  gone ") && !table.contains("live"), "{table}");
}

#[test]
fn a_handler_is_shown_that_no_host_runs() {
    let stage = Told::versions("a").pinned().stage();
    assert_eq!(
        stage.handler("h"),
        json!({
            "handler": "h", "host": null, "digest": null, "since": null, "state": null, "gone": false, "error": null,
            "calls": 0, "failures": 0, "outcomes": {}, "usage": {}, "trial": null, "differs": false, "live": digest('a'),
            "canary": null, "pinned": true,
        })
    );
    let table = stage.pelton(&["handlers"]).ok().stdout;
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["h", "no", "host", &short('a'), "0", "0", "pinned"], "{table}");
}

// --- With a host at work --------------------------------------------------------------------------------------------

#[test]
fn a_host_at_work_goes_back_and_stays_there() {
    let stage = stage();
    let daemon = stage.daemon();
    let [old, new] = [guest("misbehave"), misbehave_v2()].map(|module| pelton_sandbox::digest_of(&module));
    let runs = |digest: &str| {
        wait_for(&format!("the host to run {digest}"), || (stage.handler("h")["digest"] == *digest).then_some(()));
    };
    let handle = |id: &str| {
        stage.append("in", &[count_event(id, "k")]);
        stage.await_drained("work");
    };
    runs(&old);
    handle("e0");
    stage.replace("misbehave.wasm", misbehave_v2());
    runs(&new);
    handle("e1");
    let told = handler(&stage, &["rollback", "h", "--json"]).json();
    assert_eq!((&told["from"], &told["to"]), (&json!(new), &json!(old)));
    runs(&old);
    handle("e2");

    // The file still holds what was taken back: nobody asks for it, and its return is refused with the way to it.
    stage.replace("misbehave.wasm", misbehave_v2());
    let refused = stage.await_handler("h", "refused");
    let remedy = format!("`pelton handler rollback h --to {new}` brings it back all the same");
    let error = refused["error"].as_str().unwrap();
    assert!(
        error.contains("was rolled back (by hand) and is not taken from a file again") && error.contains(&remedy),
        "{error}"
    );
    assert_eq!((&refused["digest"], &refused["live"], &refused["differs"]), (&json!(old), &json!(old), &json!(false)));

    let kinds: Vec<_> = stage.tail("out").iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["counted", "tallied", "counted"]);
    let ranges = history(&stage)["ranges"].take();
    let digests: Vec<_> = ranges.as_array().unwrap().iter().map(|range| (&range["digest"], &range["events"])).collect();
    assert_eq!(digests, [(&json!(old), &json!(1)), (&json!(new), &json!(1)), (&json!(old), &json!(1))]);
    daemon.stop();
}

#[test]
fn a_pinned_version_goes_on_however_it_does() {
    let stage = Stage::with_group(1, "on_failure = { strategy = \"dead-letter\" }");
    stage.pelton(&["migrate"]).ok();
    let daemon = stage.daemon();
    let new = pelton_sandbox::digest_of(&misbehave_v2());
    stage.await_handler("h", "live");
    stage.append("in", &[count_event("e0", "k")]);
    stage.await_drained("work");
    stage.replace("misbehave.wasm", misbehave_v2());
    wait_for("the new version", || (stage.handler("h")["digest"] == *new).then_some(()));
    handler(&stage, &["pin", "h"]).ok();
    wait_for("the pin to be seen", || (stage.handler("h")["pinned"] == true).then_some(()));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let events: Vec<_> = (0..200)
        .map(|n| match n % 10 {
            0 => event(format_args!("p{n}"), "k", "panic", json!({}), json!("boom")),
            _ => count_event(format_args!("e{n}"), "k"),
        })
        .collect();
    for events in events.chunks(20) {
        stage.append("in", events);
    }
    stage.await_drained("work");
    let history = history(&stage);
    let digests: Vec<_> =
        history["ranges"].as_array().unwrap().iter().map(|range| (&range["digest"], &range["events"])).collect();
    assert_eq!(digests[1..], [(&json!(new), &json!(200))], "{}", daemon.log());
    assert_eq!((&history["live"], &history["pinned"]), (&json!(new), &json!(true)));
    assert!(daemon.logged("taken back").is_empty(), "not for a moment: {}", daemon.log());
    daemon.stop();
}
