//! A folder with a `workers.toml`, the binary run in it, and patience that ends.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "shared by the scenarios, each of which uses a part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Display,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a test waits for what takes milliseconds to seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A component for tests, see `host/sandbox/tests/guests`.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../sandbox/tests/guests/prebuilt/{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `misbehave` in a second version: what `count` emits is called `tallied` instead of `counted`.
pub(crate) fn misbehave_v2() -> Vec<u8> {
    let mut module = guest("misbehave");
    let at: Vec<_> = (0..module.len() - 7).filter(|at| &module[*at..at + 7] == b"counted").collect();
    let [at] = at[..] else { panic!("misbehave holds the word `counted` {} times", at.len()) };
    module[at..at + 7].copy_from_slice(b"tallied");
    module
}

/// The smallest core module.
pub(crate) const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// The smallest component: it exports nothing.
pub(crate) const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// What a `[host]` of a test says: compiled modules are shared by all tests, dev builds compile slowly.
pub(crate) fn host_section() -> String {
    format!("[host]\ncache = {:?}\n", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
}

/// A stream `in`, a stream `out`, and a group `work` between them that calls `misbehave.wasm`.
pub(crate) fn one_group(partitions: u32, group: &str) -> String {
    format!(
        "{}\n[streams.in]\npartitions = {partitions}\n[streams.out]\npartitions = {partitions}\n\
         [handlers.h]\nmodule = \"misbehave.wasm\"\nallow = {{ emit = [\"out\"] }}\n\
         [groups.work]\nstream = \"in\"\nhandler = \"h\"\n{group}\n",
        host_section()
    )
}

/// An event as a line of the format `event`.
pub(crate) fn event(id: impl Display, key: &str, kind: &str, headers: Value, payload: Value) -> Value {
    json!({ "id": id.to_string(), "key": key, "kind": kind, "headers": headers, "payload": payload })
}

/// An event that `misbehave` counts, and reports to stream `out`.
pub(crate) fn count_event(id: impl Display, key: &str) -> Value {
    event(id, key, "count", json!({ "to": "out" }), json!(0))
}

pub(crate) fn count_events(count: usize, keys: usize) -> Vec<Value> {
    (0..count).map(|n| count_event(format_args!("e{n}"), &format!("k{}", n % keys))).collect()
}

/// Waits until something is there.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// That it failed with this status and these very words on stderr.
    #[track_caller]
    pub(crate) fn fails(self, status: i32, stderr: &str) {
        assert_eq!((self.stderr.trim_end(), self.status), (stderr, status), "stdout:\n{}", self.stdout);
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let stdout = self.ok().stdout;
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error} in {stdout}"))
    }

    /// What it printed, a JSON object a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// A folder for one test, gone with it.
pub(crate) struct Stage {
    folder: TempDir,
}

impl Stage {
    /// With this `workers.toml`, and `misbehave.wasm` beside it.
    pub(crate) fn new(workers: &str) -> Self {
        let stage = Self { folder: TempDir::new().unwrap() };
        stage.write("workers.toml", workers);
        stage.write("misbehave.wasm", guest("misbehave"));
        stage
    }

    /// [`one_group`]
    pub(crate) fn with_group(partitions: u32, group: &str) -> Self {
        Self::new(&one_group(partitions, group))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `workers.toml` as it is.
    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.path("workers.toml")).unwrap()
    }

    /// The path as messages show it.
    pub(crate) fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Puts a file in place as a careful tool does: whole or not at all.
    pub(crate) fn replace(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.write("new-file", bytes);
        fs::rename(self.path("new-file"), self.path(name)).unwrap();
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pelton"));
        command.current_dir(self.folder.path()).args(args).env_clear().stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn pelton<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        output_of(self.command(args), "")
    }

    /// Runs a command that reads this from its standard input.
    #[track_caller]
    pub(crate) fn feed<S: AsRef<OsStr>>(&self, args: &[S], input: &str) -> Output {
        output_of(self.command(args), input)
    }

    /// Appends events in the format `event`.
    #[track_caller]
    pub(crate) fn append(&self, stream: &str, events: &[Value]) {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        self.feed(&["append", stream, "--format", "event"], &lines).ok();
    }

    /// All events of a stream.
    #[track_caller]
    pub(crate) fn tail(&self, stream: &str) -> Vec<Value> {
        self.pelton(&["tail", stream, "--json"]).ok().lines()
    }

    #[track_caller]
    pub(crate) fn group(&self, group: &str) -> Value {
        self.pelton(&["group", "show", group, "--json"]).json()
    }

    #[track_caller]
    pub(crate) fn lag(&self, group: &str) -> u64 {
        self.group(group)["lag"].as_u64().unwrap()
    }

    /// The first partition of a group.
    #[track_caller]
    pub(crate) fn partition(&self, group: &str) -> Value {
        self.group(group)["partitions"][0].take()
    }

    /// Waits until the first partition of a group is in this state.
    #[track_caller]
    pub(crate) fn await_state(&self, group: &str, state: &str) -> Value {
        let look = || Some(self.partition(group)).filter(|partition| partition["state"] == state);
        wait_for(&format!("group {group} to be {state}"), look)
    }

    #[track_caller]
    pub(crate) fn await_drained(&self, group: &str) {
        wait_for(&format!("group {group} to reach lag 0"), || (self.lag(group) == 0).then_some(()));
    }

    /// What the host says of a handler, where there was one host only.
    #[track_caller]
    pub(crate) fn handler(&self, name: &str) -> Value {
        let handlers = self.pelton(&["handlers", "--json"]).json();
        handlers.as_array().unwrap().iter().find(|row| row["handler"] == name).cloned().unwrap_or(Value::Null)
    }

    /// Waits until the daemon reported a handler in this state.
    #[track_caller]
    pub(crate) fn await_handler(&self, name: &str, state: &str) -> Value {
        let look = || Some(self.handler(name)).filter(|row| row["state"] == state);
        wait_for(&format!("handler {name} to be {state}"), look)
    }

    /// Starts the daemon, and waits until it works.
    #[track_caller]
    pub(crate) fn daemon(&self) -> Daemon {
        let daemon = self.start(&["run"]);
        daemon.await_log("pelton is running");
        daemon
    }

    /// Drains everything.
    #[track_caller]
    pub(crate) fn run_until_idle(&self) {
        let mut daemon = self.start(&["run", "--until-idle"]);
        assert_eq!(daemon.wait(), 0);
    }

    /// Starts a command whose log is kept.
    #[track_caller]
    pub(crate) fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Daemon {
        let log = self.path(&format!("{:08x}.log", rand::random::<u32>()));
        let mut command = self.command(args);
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Daemon { child: command.spawn().unwrap(), log, status: None }
    }
}

#[track_caller]
fn output_of(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pelton starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeder = thread::spawn(move || {
        // It need not read to the end.
        let _ = stdin.write_all(input.as_bytes());
    });
    let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let status = wait(&mut child);
    feeder.join().unwrap();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    match status {
        Some(status) => Output { status: status.code().unwrap_or(-1), stdout, stderr },
        None => panic!("{command:?} did not end within {PATIENCE:?}\nstdout:\n{stdout}\nstderr:\n{stderr}"),
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Waits for the end of a process; kills one that does not come to it.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(LOOK_EVERY / 4);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// A process that runs beside the test, killed with it.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    status: Option<i32>,
}

impl Daemon {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM
    #[track_caller]
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, such as `STOP`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// SIGKILL
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.status = Some(self.child.wait().unwrap().code().unwrap_or(-1));
    }

    /// Asks it to end, and waits until it did.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.terminate();
        assert_eq!(self.wait(), 0, "{}", self.log());
    }

    /// Waits for its end, and gives the exit status.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        let status = wait(&mut self.child);
        self.status = status.map(|status| status.code().unwrap_or(-1));
        self.status.unwrap_or_else(|| panic!("no end within {PATIENCE:?}:\n{}", self.log()))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The lines of the log so far with this message.
    #[track_caller]
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        let log = self.log();
        // The last line may not be whole yet.
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"].as_str().is_some_and(|text| text.contains(message))).collect()
    }

    /// Waits for a line with this message.
    #[track_caller]
    pub(crate) fn await_log(&self, message: &str) -> Value {
        wait_for(&format!("{message:?} in the log:\n{}", self.log()), || self.logged(message).into_iter().next())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("log of process {}:\n{}", self.child.id(), self.log());
        }
    }
}

/// What `count` left behind: from each source partition every event from offset 0 to the head was counted and reported
/// once, and the counters of each key ran from 1 on without a gap or repetition. What was emitted.
#[track_caller]
pub(crate) fn assert_counted_once(stage: &Stage, expected: usize) -> Vec<Value> {
    let counted = stage.tail("out");
    assert_eq!(counted.len(), expected, "events emitted");
    let sources: BTreeSet<_> = counted.iter().map(source).collect();
    assert_eq!(sources.len(), expected, "events that were handled, each once");
    let streams = stage.pelton(&["streams", "--json"]).json();
    let input = streams.as_array().unwrap().iter().find(|stream| stream["stream"] == "in").unwrap();
    let every = input["partitions"].as_array().unwrap().iter().flat_map(|partition| {
        let number = partition["partition"].as_u64().unwrap();
        (0..partition["head"].as_u64().unwrap()).map(move |offset| (number, offset))
    });
    assert_eq!(sources, every.collect(), "events of the stream, each handled");

    let mut counters = BTreeMap::<&str, u64>::new();
    let mut heads = BTreeMap::<u64, u64>::new();
    let mut in_order: Vec<_> = counted.iter().collect();
    in_order.sort_by_key(|event| (event["partition"].as_u64(), event["offset"].as_u64()));
    for event in in_order {
        let counter = counters.entry(event["key"].as_str().unwrap()).or_default();
        *counter += 1;
        assert_eq!(event["payload"].as_u64(), Some(*counter), "counter of the key in {event}");
        let head = heads.entry(event["partition"].as_u64().unwrap()).or_default();
        assert_eq!(event["offset"].as_u64(), Some(*head), "gap in the partition at {event}");
        *head += 1;
    }
    counted
}

/// Partition and offset of the event that made the handler emit this one: `GROUP@STREAM/PARTITION/OFFSET/INDEX`.
#[track_caller]
pub(crate) fn source(emitted: &Value) -> (u64, u64) {
    let id = emitted["id"].as_str().unwrap();
    let mut parts = id.split('/').skip(1).map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}
