//! How soon others work on the partitions of a daemon that is killed, stopped gracefully, or frozen.
//!
//! `scripts/with-postgres cargo bench -p pelton --bench failover [-- ROUNDS [FREEZES]]`
//!
//! Three daemons, processes of their own, share the partitions of one group on one PostgreSQL. Each round picks the next of
//! them while it holds its share, sends it a signal, appends an event to each partition that it held, and asks the database
//! every two milliseconds until others own all of these partitions, and until they have committed these events. Then
//! the daemon is started again, and gets its share back.
//!
//! A trigger in the database keeps an account of every move of a position: by which process, under which owner and
//! epoch, from where to where. At the end the account must be without gap or repetition, and no process may have committed
//! for another, nor under an epoch that was over.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use pelton_core::{NewEvent, partition_of};
use pelton_store::{Store, StoreOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tempfile::TempDir;
use tokio::time::sleep;

const ROUNDS: usize = 50;
const FREEZES: usize = 10;
const HOSTS: usize = 3;
const PARTITIONS: u32 = 12;
const LOOK_EVERY: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// Events in each partition of a daemon that is frozen in the middle of them.
const BACKLOG: u64 = 2_000;

/// What a daemon suffers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// kill -9
    Killed,
    /// SIGTERM
    Stopped,
    /// SIGSTOP, and SIGCONT once others work on what it held.
    Frozen,
}

/// What one round took.
struct Round {
    owned: Duration,
    handled: Duration,
    /// From SIGCONT until it has its share again.
    back: Option<Duration>,
}

#[tokio::main]
async fn main() {
    let Ok(url) = std::env::var("PELTON_TEST_POSTGRES") else {
        return println!("NOT RUN: PELTON_TEST_POSTGRES names no PostgreSQL; scripts/with-postgres starts one");
    };
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(ROUNDS);
    let freezes = numbers.get(1).copied().unwrap_or(FREEZES.min(rounds));

    println!("{HOSTS} daemons, {PARTITIONS} partitions; in milliseconds from the signal");
    println!("{:44} {:>6} {:>8} {:>8} {:>8}", "", "rounds", "median", "p90", "max");
    let patient = "";
    let impatient = "heartbeat_interval = \"500ms\"\nsession_timeout = \"2s\"\n";
    for (fate, rounds, settings) in
        [(Fate::Killed, rounds, patient), (Fate::Stopped, rounds, patient), (Fate::Frozen, freezes, impatient)]
    {
        let mut stage = Stage::start(&url, settings).await;
        let mut all = Vec::new();
        for round in 0..rounds {
            all.push(stage.round(fate, round % HOSTS).await);
        }
        let name = match fate {
            Fate::Killed => "kill -9",
            Fate::Stopped => "SIGTERM",
            Fate::Frozen => "SIGSTOP, session_timeout 2 s",
        };
        report(&format!("{name}: others own all"), all.iter().map(|round| round.owned).collect());
        report(&format!("{name}: and committed a new event"), all.iter().map(|round| round.handled).collect());
        if fate == Fate::Frozen {
            report("SIGCONT: it has its share again", all.iter().filter_map(|round| round.back).collect());
        }
        let moves = stage.check_account().await;
        println!("{:44} {moves} moves of positions: no gap, no repetition, nobody for another", "");
        stage.end().await;
    }
}

/// Three daemons, and what is needed to watch them.
struct Stage {
    folder: TempDir,
    schema: String,
    store: Arc<dyn Store>,
    sql: PgConnection,
    url: String,
    hosts: Vec<Child>,
    events: u64,
}

/// One partition of the group, as the database has it.
#[derive(Clone)]
struct Seat {
    owner: Option<String>,
    target: Option<String>,
    epoch: i64,
    committed: i64,
    head: i64,
}

impl Stage {
    async fn start(url: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let schema = format!("bench_failover_{}", std::process::id());
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt/noop.wasm");
        let workers = format!(
            "[host]\nid = \"${{BENCH_HOST}}\"\ncache = {cache:?}\n[store]\nschema = {schema:?}\n\
             [streams.events]\npartitions = {PARTITIONS}\n[handlers.noop]\nmodule = {module:?}\n\
             [groups.work]\nstream = \"events\"\nhandler = \"noop\"\n{settings}"
        );
        fs::write(folder.path().join("workers.toml"), workers).unwrap();
        let options = StoreOptions { schema: schema.clone(), ..StoreOptions::default() };
        let store = pelton_store::open(url, &options).await.unwrap();
        let mut sql = PgConnection::connect(url).await.unwrap();
        sql.execute(sqlx::raw_sql(AssertSqlSafe(ACCOUNT.replace("@.", &format!("{schema}."))))).await.unwrap();
        let mut stage = Self { folder, schema, store, sql, url: url.into(), hosts: Vec::new(), events: 0 };
        for host in 0..HOSTS {
            let child = stage.spawn(host);
            stage.hosts.push(child);
        }
        stage.settle().await;
        stage
    }

    /// A daemon, whose connections tell the database which one it is.
    fn spawn(&self, host: usize) -> Child {
        let (name, joint) = (format!("host-{host}"), if self.url.contains('?') { '&' } else { '?' });
        Command::new(env!("CARGO_BIN_EXE_pelton"))
            .arg("run")
            .current_dir(self.folder.path())
            .env_clear()
            .env("PELTON_STORE", format!("{}{joint}application_name={name}", self.url))
            .env("BENCH_HOST", &name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(self.folder.path().join(&name)).unwrap())
            .spawn()
            .unwrap()
    }

    async fn round(&mut self, fate: Fate, host: usize) -> Round {
        let name = format!("host-{host}");
        let held: BTreeMap<u32, Seat> = (0..).zip(self.seats().await).filter(|(_, seat)| seat.is_of(&name)).collect();
        assert_eq!(held.len(), PARTITIONS as usize / HOSTS, "the share of {name}");
        if fate == Fate::Frozen {
            // So that it is frozen in the middle of a batch or a commit.
            self.append(held.keys().copied(), BACKLOG).await;
            sleep(Duration::from_micros(500 * (self.events / BACKLOG % 20))).await;
        }
        let begun = Instant::now();
        match fate {
            Fate::Killed => self.hosts[host].kill().unwrap(),
            Fate::Stopped => self.signal(host, "TERM"),
            Fate::Frozen => self.signal(host, "STOP"),
        }
        self.append(held.keys().copied(), 1).await;
        let heads: Vec<i64> = self.seats().await.into_iter().map(|seat| seat.head).collect();

        let owned_by_others = |seats: &[Seat]| {
            held.keys().all(|&at| seats[at as usize].owner.as_ref().is_some_and(|owner| *owner != name))
        };
        let mut owned = None;
        let mut seats = self.seats().await;
        loop {
            if owned_by_others(&seats) {
                owned.get_or_insert_with(|| begun.elapsed());
                if held.keys().all(|&at| seats[at as usize].committed >= heads[at as usize]) {
                    break;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "nobody took over from {name}");
            sleep(LOOK_EVERY).await;
            seats = self.seats().await;
        }
        let mut round = Round { owned: owned.unwrap(), handled: begun.elapsed(), back: None };

        let continued = Instant::now();
        match fate {
            Fate::Killed | Fate::Stopped => {
                let status = self.hosts[host].wait().unwrap();
                assert!(fate == Fate::Killed || status.success(), "{name} ended with {status}");
                self.hosts[host] = self.spawn(host);
            }
            Fate::Frozen => self.signal(host, "CONT"),
        }
        self.settle().await;
        if fate == Fate::Frozen {
            round.back = Some(continued.elapsed());
            // A share under higher epochs: what it held before was over.
            for (at, seat) in (0..).zip(self.seats().await).filter(|(_, seat)| seat.is_of(&name)) {
                assert!(held.get(&at).is_none_or(|before| before.epoch < seat.epoch), "an epoch went on");
            }
        }
        // Other moments of heartbeats and looks in each round.
        sleep(Duration::from_millis(200 + self.events * 37 % 400)).await;
        round
    }

    fn signal(&self, host: usize, signal: &str) {
        let kill = format!("kill -{signal} {}", self.hosts[host].id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    /// Waits until all hosts hold their shares, and nothing is left to do.
    async fn settle(&mut self) {
        let begun = Instant::now();
        loop {
            let seats = self.seats().await;
            let mut shares = BTreeMap::<&str, usize>::new();
            for seat in seats.iter().filter(|seat| seat.owner == seat.target && seat.committed == seat.head) {
                *shares.entry(seat.owner.as_deref().unwrap_or_default()).or_default() += 1;
            }
            let even = |host| shares.get(&*format!("host-{host}")) == Some(&(PARTITIONS as usize / HOSTS));
            if seats.len() == PARTITIONS as usize && (0..HOSTS).all(even) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the hosts do not come to rest: {shares:?}");
            sleep(LOOK_EVERY * 5).await;
        }
    }

    /// Events for these partitions, so many for each.
    async fn append(&mut self, partitions: impl Iterator<Item = u32>, count: u64) {
        let mut events = Vec::new();
        for partition in partitions {
            let hits = |n: &u64| partition_of(&n.to_string(), PARTITIONS) == partition;
            let key = (0_u64..).find(hits).map(|n| n.to_string());
            for _ in 0..count {
                self.events += 1;
                let (id, kind) = (format!("event-{}", self.events), "k".into());
                events.push(NewEvent { id, key: key.clone(), kind, headers: Vec::new(), payload: vec![b'x'; 100] });
            }
        }
        self.store.append("events", events).await.unwrap();
    }

    async fn seats(&mut self) -> Vec<Seat> {
        let text = "SELECT g.owner, g.target, g.epoch, g.committed, p.next_offset
                    FROM @.group_partitions g JOIN @.stream_partitions p ON p.id = g.partition_id ORDER BY g.partition";
        let text = text.replace("@.", &format!("{}.", self.schema));
        let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut self.sql).await.unwrap();
        let seat = |row: &sqlx::postgres::PgRow| Seat {
            owner: row.get(0),
            target: row.get(1),
            epoch: row.get(2),
            committed: row.get(3),
            head: row.get(4),
        };
        rows.iter().map(seat).collect()
    }

    /// How many moves there were; fails if one of them should not have been.
    async fn check_account(&mut self) -> i64 {
        let text = WRONG.replace("@.", &format!("{}.", self.schema));
        let row = sqlx::query(AssertSqlSafe(text)).fetch_one(&mut self.sql).await.unwrap();
        let (moves, foreign, over, torn): (i64, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!((foreign, over, torn), (0, 0, 0), "moves by others, under epochs that were over, with gaps");
        moves
    }

    async fn end(mut self) {
        for host in &mut self.hosts {
            host.kill().unwrap();
            host.wait().unwrap();
        }
        self.hosts.clear();
        let drop = format!("DROP SCHEMA {} CASCADE", self.schema);
        self.sql.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await.unwrap();
    }
}

impl Drop for Stage {
    /// After a failure: nothing may be left behind.
    fn drop(&mut self) {
        for host in &mut self.hosts {
            let _ = host.kill();
            let _ = host.wait();
        }
        if std::thread::panicking() {
            for host in 0..HOSTS {
                let log = fs::read_to_string(self.folder.path().join(format!("host-{host}"))).unwrap_or_default();
                let from = log.len().saturating_sub(4_000);
                eprintln!("the end of host-{host}'s log:\n{}", String::from_utf8_lossy(&log.as_bytes()[from..]));
            }
        }
    }
}

impl Seat {
    fn is_of(&self, host: &str) -> bool {
        self.owner.as_deref() == Some(host)
    }
}

/// Every move of a position, with the name under which the process connected that made it.
const ACCOUNT: &str = "
    CREATE TABLE @.account (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        partition int, process text, owner text, epoch bigint, from_offset bigint, to_offset bigint);
    CREATE FUNCTION @.keep_account() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO @.account (partition, process, owner, epoch, from_offset, to_offset)
        VALUES (new.partition, current_setting('application_name'), new.owner, new.epoch, old.committed, new.committed);
        RETURN NULL;
    END $$;
    CREATE TRIGGER keep_account AFTER UPDATE ON @.group_partitions
    FOR EACH ROW WHEN (old.committed <> new.committed) EXECUTE FUNCTION @.keep_account();
";

/// Moves; those by a process that did not own the partition; those under an epoch after which there was a later one; those
/// that do not begin where the one before them ended.
const WRONG: &str = "
    WITH moves AS (
        SELECT a.*, max(epoch) OVER earlier AS epoch_before, lag(to_offset, 1, 0::bigint) OVER w AS should_begin
        FROM @.account a
        WINDOW w AS (PARTITION BY partition ORDER BY n),
               earlier AS (PARTITION BY partition ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
    SELECT count(*), count(*) FILTER (WHERE process IS DISTINCT FROM owner),
           count(*) FILTER (WHERE epoch < epoch_before), count(*) FILTER (WHERE from_offset <> should_begin)
    FROM moves
";

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len());
        took[index - 1].as_secs_f64() * 1e3
    };
    if took.is_empty() {
        return println!("{what:44} {:>6}", 0);
    }
    println!("{what:44} {:>6} {:>8.0} {:>8.0} {:>8.0}", took.len(), at(0.5), at(0.9), at(1.0));
}
