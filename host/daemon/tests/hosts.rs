//! Several daemons on one store: they share the partitions, take over from each other, and nothing is lost or doubled.
//!
//! Nearly every scenario runs twice: on SQLite, where several processes share a file, and on PostgreSQL, where
//! `PELTON_TEST_POSTGRES` names a server.
#![allow(clippy::unwrap_used)]

#[path = "../../store/tests/postgres/cluster.rs"]
mod cluster;
mod support;
#[path = "../../store/tests/postgres/user.rs"]
mod user;

use std::{
    collections::BTreeMap,
    io::{Write, stderr},
    net::TcpListener,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pelton_core::partition_of;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use support::{Daemon, Stage, assert_counted_once, count_event, count_events, event, one_group, wait_for};

/// Nobody is given up for silence: whoever takes over from a daemon that is gone has noticed that it is gone.
const NEVER_SILENT: &str = "session_timeout = \"1h\"\nbatch_size = 20\n";
/// As short as a daemon may be given up for silence.
const SOON_SILENT: &str = "heartbeat_interval = \"200ms\"\nsession_timeout = \"1s\"\nbatch_size = 20\n";

macro_rules! on_both_stores {
    ($($scenario:ident)*) => {
        mod sqlite {
            $(#[test]
            fn $scenario() {
                super::$scenario(super::Database::Sqlite);
            })*
        }
        mod postgres {
            $(#[test]
            fn $scenario() {
                if let Some(database) = super::postgres_database() {
                    super::$scenario(database);
                }
            })*
        }
    };
}

on_both_stores! {
    a_second_daemon_gets_half_of_the_partitions_and_the_others_do_not_notice
    a_daemon_that_is_killed_is_replaced_long_before_its_session_timeout
    a_daemon_that_is_asked_to_stop_hands_over_at_once_and_gets_its_own_partitions_back
    spare_daemons_stand_by_and_take_over
    a_daemon_takes_no_more_partitions_than_it_is_allowed
    a_daemon_whose_handler_is_refused_joins_no_group
    daemons_that_disagree_about_a_stream_do_not_work_together
    a_forced_reset_is_obeyed_by_daemons_at_work
    calls_that_never_end_do_not_keep_a_partition_from_being_handed_over
}

// --- Where daemons meet ---------------------------------------------------------------------------------------------

/// What daemons share.
enum Database {
    Sqlite,
    Postgres(Schema),
}

/// A schema of one scenario, gone with it.
struct Schema {
    url: String,
    name: String,
}

fn postgres_database() -> Option<Database> {
    static TOLD: Once = Once::new();
    let Some(url) = std::env::var("PELTON_TEST_POSTGRES").ok().filter(|url| !url.is_empty()) else {
        // Not by `eprintln`, of which nobody sees anything when a test passes.
        let line = b"NOT RUN: several daemons on PostgreSQL; PELTON_TEST_POSTGRES names no server\n";
        TOLD.call_once(|| stderr().write_all(line).unwrap());
        return None;
    };
    let name = format!("hosts_{:016x}", rand::random::<u64>());
    Some(Database::Postgres(Schema { url, name }))
}

impl Database {
    fn section(&self) -> String {
        match self {
            Self::Sqlite => "[store]\nurl = \"sqlite://shared.db\"\n".into(),
            Self::Postgres(Schema { url, name }) => format!("[store]\nurl = {url:?}\nschema = {name:?}\n"),
        }
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop = async {
            let mut connection = PgConnection::connect(&self.url).await?;
            // Names of schemas need no quotes.
            connection.execute(sqlx::AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name))).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if let Err(error) = runtime.block_on(drop) {
            eprintln!("schema {} stays: {error}", self.name);
        }
    }
}

/// A folder from which several daemons run, and what they share. Daemons are made after it, and so are gone before it.
struct Site {
    stage: Stage,
    workers: String,
    _database: Database,
}

impl Site {
    /// With the group `work` from `in` to `out`, see [`one_group`].
    fn new(database: Database, partitions: u32, group: &str) -> Self {
        Self::with(database, &one_group(partitions, group))
    }

    fn with(database: Database, workers: &str) -> Self {
        let workers = format!("{}{workers}", database.section());
        Self { stage: Stage::new(&workers), workers, _database: database }
    }

    /// Starts a daemon with this id, and waits until it works.
    #[track_caller]
    fn daemon(&self, id: &str) -> Daemon {
        self.other_daemon(id, |workers| workers)
    }

    /// A daemon whose `workers.toml` differs.
    #[track_caller]
    fn other_daemon(&self, id: &str, change: impl FnOnce(String) -> String) -> Daemon {
        let daemon = self.try_daemon(id, change);
        daemon.await_log("pelton is running");
        daemon
    }

    fn try_daemon(&self, id: &str, change: impl FnOnce(String) -> String) -> Daemon {
        let workers = self.workers.replace("[host]\n", &format!("[host]\nid = {id:?}\n"));
        self.stage.write(&format!("{id}.toml"), change(workers));
        self.stage.start(&["run", "-c", &format!("{id}.toml")])
    }

    #[track_caller]
    fn seats(&self) -> Vec<Seat> {
        let group = self.stage.group("work");
        let seat = |row: &Value| Seat {
            owner: row["owner"].as_str().map(str::to_owned),
            epoch: row["epoch"].as_u64().unwrap(),
        };
        group["partitions"].as_array().unwrap().iter().map(seat).collect()
    }

    /// Waits until each of these hosts holds so many partitions, and nobody else any.
    #[track_caller]
    fn await_shares(&self, shares: &[(&str, usize)]) -> Vec<Seat> {
        let wanted: BTreeMap<_, _> =
            shares.iter().filter(|(_, count)| *count > 0).map(|(host, count)| ((*host).to_owned(), *count)).collect();
        wait_for(&format!("the partitions to be shared like {shares:?}"), || {
            let seats = self.seats();
            let mut found = BTreeMap::<String, usize>::new();
            seats.iter().flat_map(|seat| seat.owner.clone()).for_each(|owner| *found.entry(owner).or_default() += 1);
            (found == wanted).then_some(seats)
        })
    }

    /// Who works for the group.
    #[track_caller]
    fn consumers(&self) -> Vec<String> {
        let group = self.stage.group("work");
        group["consumers"].as_array().unwrap().iter().map(|row| row["host"].as_str().unwrap().to_owned()).collect()
    }

    /// Does something while events flow in; waits until all of them are handled, and checks that each was, once.
    #[track_caller]
    fn while_events_flow(&self, act: impl FnOnce()) {
        let enough = AtomicBool::new(false);
        let events = thread::scope(|scope| {
            let feeder = scope.spawn(|| {
                let mut events = 0;
                while !enough.load(Ordering::Acquire) {
                    let batch: Vec<_> = (events..events + 400)
                        .map(|n| count_event(format_args!("e{n}"), &format!("k{}", n % 50)))
                        .collect();
                    self.stage.append("in", &batch);
                    events += batch.len();
                }
                events
            });
            // Also when what is done panics, or the feeder would go on for ever.
            let _stop = OnDrop(|| enough.store(true, Ordering::Release));
            wait_for("events to be handled", || (!self.stage.tail("out").is_empty()).then_some(()));
            act();
            enough.store(true, Ordering::Release);
            feeder.join().unwrap()
        });
        self.stage.await_drained("work");
        assert_counted_once(&self.stage, events);
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// A partition of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    owner: Option<String>,
    epoch: u64,
}

fn held_by(seats: &[Seat], host: &str) -> Vec<usize> {
    (0..seats.len()).filter(|partition| seats[*partition].owner.as_deref() == Some(host)).collect()
}

// --- Come and go ------------------------------------------------------------------------------------------------------

fn a_second_daemon_gets_half_of_the_partitions_and_the_others_do_not_notice(database: Database) {
    let site = Site::new(database, 6, NEVER_SILENT);
    let first = site.daemon("first");
    let alone = site.await_shares(&[("first", 6)]);
    let mut second = None;
    site.while_events_flow(|| {
        second = Some(site.daemon("second"));
        let shared = site.await_shares(&[("first", 3), ("second", 3)]);
        for partition in 0..6 {
            let moved = shared[partition].owner.as_deref() == Some("second");
            let epochs = shared[partition].epoch - alone[partition].epoch;
            assert_eq!(
                epochs,
                u64::from(moved),
                "epochs that partition {partition} went through: {alone:?} {shared:?}"
            );
        }
    });
    // Nothing moves without a cause.
    let shared = site.await_shares(&[("first", 3), ("second", 3)]);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(site.seats(), shared);
    assert_eq!(site.consumers(), ["first", "second"]);
    assert_eq!(first.logged("partition is handed over to another host").len(), 3);
    first.stop();
    second.unwrap().stop();
}

fn a_daemon_that_is_killed_is_replaced_long_before_its_session_timeout(database: Database) {
    let site = Site::new(database, 4, NEVER_SILENT);
    let (first, second) = (site.daemon("first"), site.daemon("second"));
    let before = site.await_shares(&[("first", 2), ("second", 2)]);
    let mut again = None;
    site.while_events_flow(|| {
        first.kill();
        let after = site.await_shares(&[("second", 4)]);
        for partition in held_by(&before, "second") {
            assert_eq!(after[partition], before[partition], "what the other one held is not touched");
        }
        assert_eq!(second.logged("a host is gone; others take over its partitions").len(), 1);
        // Its id is free.
        again = Some(site.daemon("first"));
        let back = site.await_shares(&[("first", 2), ("second", 2)]);
        assert_eq!(held_by(&back, "first"), held_by(&before, "first"), "it gets its own partitions back");
    });
    again.unwrap().stop();
    second.stop();
}

fn a_daemon_that_is_asked_to_stop_hands_over_at_once_and_gets_its_own_partitions_back(database: Database) {
    let site = Site::new(database, 6, NEVER_SILENT);
    let daemons = [site.daemon("a"), site.daemon("b"), site.daemon("c")];
    let before = site.await_shares(&[("a", 2), ("b", 2), ("c", 2)]);
    let [a, b, c] = daemons;
    let mut again = None;
    site.while_events_flow(|| {
        b.stop();
        let after = site.await_shares(&[("a", 3), ("c", 3)]);
        for partition in [held_by(&before, "a"), held_by(&before, "c")].concat() {
            assert_eq!(after[partition], before[partition], "what the others held is not touched");
        }
        assert_eq!(site.consumers(), ["a", "c"]);
        again = Some(site.daemon("b"));
        let back = site.await_shares(&[("a", 2), ("b", 2), ("c", 2)]);
        assert_eq!(held_by(&back, "b"), held_by(&before, "b"), "it gets its own partitions back");
    });
    for daemon in [a, c] {
        assert_eq!(daemon.logged("a host is gone").len(), 0, "one that says good-bye is not given up");
        daemon.stop();
    }
    again.unwrap().stop();
}

fn spare_daemons_stand_by_and_take_over(database: Database) {
    let site = Site::new(database, 2, NEVER_SILENT);
    let daemons = [site.daemon("a"), site.daemon("b")];
    site.await_shares(&[("a", 1), ("b", 1)]);
    let spares = [site.daemon("c"), site.daemon("d")];
    wait_for("the spares to join", || (site.consumers() == ["a", "b", "c", "d"]).then_some(()));
    site.await_shares(&[("a", 1), ("b", 1)]);
    site.while_events_flow(|| {
        daemons.into_iter().for_each(Daemon::kill);
        site.await_shares(&[("c", 1), ("d", 1)]);
    });
    spares.into_iter().for_each(Daemon::stop);
}

fn a_daemon_takes_no_more_partitions_than_it_is_allowed(database: Database) {
    let site = Site::new(database, 4, NEVER_SILENT);
    let small = site.other_daemon("small", |workers| format!("{workers}partitions_max = 1\n"));
    let seats = site.await_shares(&[("small", 1)]);
    site.stage.append("in", &count_events(400, 50));
    let lag = || {
        let group = site.stage.group("work");
        let partitions = group["partitions"].as_array().unwrap().clone();
        partitions.into_iter().map(|row| row["lag"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let mine = held_by(&seats, "small")[0];
    wait_for("its partition to be drained", || (lag()[mine] == 0).then_some(()));
    assert!(lag().iter().enumerate().all(|(partition, lag)| partition == mine || *lag > 0), "the others wait");

    let large = site.daemon("large");
    let shared = site.await_shares(&[("small", 1), ("large", 3)]);
    assert_eq!(shared[mine], seats[mine]);
    site.stage.await_drained("work");
    assert_counted_once(&site.stage, 400);
    large.stop();
    small.stop();
}

// --- Silence ------------------------------------------------------------------------------------------------------------

/// On PostgreSQL only: a process that is stopped while it writes to a SQLite file holds the file's lock, and nobody can
/// write until it goes on. There is nothing that others could do about that.
#[test]
fn a_daemon_that_was_stopped_commits_nothing_when_it_goes_on_and_joins_again() {
    let Some(database) = postgres_database() else { return };
    let site = Site::new(database, 4, SOON_SILENT);
    let (first, second) = (site.daemon("first"), site.daemon("second"));
    site.await_shares(&[("first", 2), ("second", 2)]);
    site.while_events_flow(|| {
        for round in 1..=3 {
            let before = site.seats();
            first.signal("STOP");
            let after = site.await_shares(&[("second", 4)]);
            for partition in held_by(&before, "first") {
                assert!(after[partition].epoch > before[partition].epoch, "{before:?} {after:?}");
            }
            first.signal("CONT");
            wait_for("it to register again", || (first.logged("registered again").len() >= round).then_some(()));
            site.await_shares(&[("first", 2), ("second", 2)]);
        }
    });
    let told = second.logged("a host was not heard of for its session timeout");
    assert!(told.iter().any(|line| line["host"] == "first"), "{told:?}");
    first.stop();
    second.stop();
}

fn calls_that_never_end_do_not_keep_a_partition_from_being_handed_over(database: Database) {
    let workers = one_group(2, NEVER_SILENT)
        .replace("[host]\n", "[host]\nshutdown_grace = \"100ms\"\n")
        .replace("[groups.work]", "limits = { timeout = \"1h\" }\n[groups.work]");
    let site = Site::with(database, &workers);
    let first = site.daemon("first");
    // Each partition's call is handed both.
    for partition in 0..2 {
        let key = (0..).map(|n| format!("k{n}")).find(|key| partition_of(key, 2) == partition).unwrap();
        let kinds = [("log", json!("here we go")), ("loop", json!(null))];
        let events =
            kinds.map(|(kind, payload)| event(format_args!("{kind}{partition}"), &key, kind, json!({}), payload));
        site.stage.append("in", &events);
    }
    wait_for("both calls to be under way", || {
        let lines = first.logged("here we go");
        (lines.iter().filter(|line| line["level"] == "INFO").count() == 2).then_some(())
    });
    let second = site.daemon("second");
    site.await_shares(&[("first", 1), ("second", 1)]);
    assert_eq!(first.logged("the batch takes too long").len(), 1);
    for row in site.stage.group("work")["partitions"].as_array().unwrap() {
        assert_eq!(row["attempts"], 0, "an interruption counts as nothing: {row}");
    }
    first.kill();
    site.await_shares(&[("second", 2)]);
    second.stop();
}

// --- Who may take part --------------------------------------------------------------------------------------------------

fn a_daemon_whose_handler_is_refused_joins_no_group(database: Database) {
    let site = Site::new(database, 2, NEVER_SILENT);
    let well = site.daemon("well");
    site.await_shares(&[("well", 2)]);
    let before = site.seats();
    // One handler that works, or the daemon would not start at all.
    let other = "[handlers.other]\nmodule = \"misbehave.wasm\"\n[groups.other]\nstream = \"in\"\nhandler = \"other\"\n";
    // Without its file alone it would run what the store keeps.
    let nowhere = format!("none.wasm\"\ndigest = \"sha256:{}", "0".repeat(64));
    let ill = site.other_daemon("ill", |workers| format!("{}{other}", workers.replacen("misbehave.wasm", &nowhere, 1)));
    wait_for("the other group to be joined", || {
        (site.stage.group("other")["consumers"][0]["host"] == "ill").then_some(())
    });
    site.stage.append("in", &count_events(100, 10));
    site.stage.await_drained("work");
    assert_eq!(site.consumers(), ["well"]);
    assert_eq!(site.seats(), before);
    assert_counted_once(&site.stage, 100);
    ill.stop();
    well.stop();
}

fn daemons_that_disagree_about_a_stream_do_not_work_together(database: Database) {
    let site = Site::new(database, 2, NEVER_SILENT);
    let mut first = site.daemon("first");
    let refused = |id: &str, change: &dyn Fn(String) -> String, why: &str| {
        let mut daemon = site.try_daemon(id, change);
        assert_eq!(daemon.wait(), 1);
        let log = daemon.log();
        assert_eq!(log.lines().last(), Some(why), "{log}");
    };
    refused(
        "reads-another-stream",
        &|workers| {
            workers.replace("[groups.work]\nstream = \"in\"", "[streams.other]\n[groups.work]\nstream = \"other\"")
        },
        "error: group \"work\" is declared on stream \"other\" but reads \"in\"; its positions mean nothing there: use a \
         group of another name",
    );
    refused(
        "has-more-partitions",
        &|workers| workers.replace("partitions = 2", "partitions = 3"),
        "error: stream \"in\" is declared with 3 partitions but has 2; the number is fixed once the stream is created: \
         declare 2, or a stream of another name",
    );
    assert!(first.runs());
    site.stage.append("in", &count_events(100, 10));
    site.stage.await_drained("work");
    assert_eq!(site.consumers(), ["first"]);
    assert_counted_once(&site.stage, 100);
    first.stop();
}

// --- By hand ------------------------------------------------------------------------------------------------------------

fn a_forced_reset_is_obeyed_by_daemons_at_work(database: Database) {
    const EVENTS: usize = 2_000;
    let site = Site::new(database, 4, NEVER_SILENT);
    let daemons = [site.daemon("a"), site.daemon("b")];
    let before = site.await_shares(&[("a", 2), ("b", 2)]);
    site.stage.append("in", &count_events(EVENTS, 50));
    wait_for("some of the events to be handled", || (!site.stage.tail("out").is_empty()).then_some(()));
    // In the middle of work, and when all is done.
    for _ in 0..2 {
        let reset = ["group", "reset", "work", "--to", "earliest", "--state", "clear", "--execute"];
        let refused = site.stage.pelton(&reset);
        assert_eq!(refused.status, 1);
        assert!(refused.stderr.contains("has active members: a, b"), "{}", refused.stderr);
        site.stage.pelton(&[&reset[..], &["--force"]].concat()).ok();
        site.stage.await_drained("work");
    }
    let after = site.await_shares(&[("a", 2), ("b", 2)]);
    assert!(before.iter().zip(&after).all(|(before, after)| after.epoch >= before.epoch + 2), "{before:?} {after:?}");
    // What is emitted again has the ids that it had.
    assert_counted_once(&site.stage, EVENTS);
    daemons.into_iter().for_each(Daemon::stop);
    let handlers = site.stage.pelton(&["handlers", "--json"]).json();
    let calls: u64 = handlers.as_array().unwrap().iter().map(|row| row["calls"].as_u64().unwrap()).sum();
    assert!(calls >= 2 * EVENTS as u64, "all events were handled again: {handlers}");
}

// --- A server that does not let anybody in ------------------------------------------------------------------------------

#[test]
fn a_database_server_that_is_not_there_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stage =
        Stage::new(&format!("[store]\nurl = \"postgres://me:s3cret@127.0.0.1:{port}/db\"\n{}", one_group(1, "")));
    let refused = stage.pelton(&["run"]);
    assert_eq!((refused.status, &*refused.stdout), (1, ""));
    let expected = format!("postgres://me:***@127.0.0.1:{port}/db does not answer");
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    assert!(refused.stderr.contains("check that the server runs and that store.url is right"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_wrong_password_is_told_and_never_printed() {
    let Some(mut cluster) = cluster::Cluster::start().await else { return };
    cluster.wants_passwords().await;
    let url = cluster.url().replace("pelton@", "pelton:s3cret@");
    let stage = Stage::new(&format!("[store]\nurl = {url:?}\n{}", one_group(1, "")));
    for args in [&["run"][..], &["groups"], &["append", "in"], &["migrate"]] {
        let mut command = stage.command(args);
        // Nothing is logged that would not be otherwise: everything is.
        let refused = command.env("PELTON_LOG", "trace").output().unwrap();
        let [stdout, stderr] = [refused.stdout, refused.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!((refused.status.code(), &*stdout), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("check the user and the password in store.url"), "{args:?}: {stderr}");
        assert!(stderr.contains("pelton:***@"), "{args:?}: {stderr}");
        assert!(!stderr.contains("s3cret"), "{args:?}: {stderr}");
    }
}
