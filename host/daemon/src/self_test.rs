//! Events with expected effects beside a module: what it has to show before it is called.
//!
//! Beside `handlers/invoice.wasm` these are `handlers/invoice.events.ndjson` and `handlers/invoice.expected.ndjson`, as
//! `pelton test --events … --expect …` takes them.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use pelton_core::Outcome;
use pelton_sandbox::Module;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    cli::Format,
    expected::{self, Difference, Expected, Script},
    history::STATE_BYTES_MAX,
    lines::Lines,
    modules::Fault,
    plain_file,
};

/// A swap waits for a self-test so long at most.
const SELF_TEST_TIME_MAX: Duration = Duration::from_secs(60);
/// The longest line of what is expected, in bytes: what it means takes many times that in memory.
const EXPECTED_LINE_BYTES_MAX: u64 = 16 << 20;
/// How much of a line an error shows, in characters.
const SHOWN_MAX: usize = 300;

/// What came of a self-test that found nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelfTest {
    /// There are no events beside the module.
    Absent,
    /// All events came out as expected; without a file that says what is expected, all were handled.
    Passed {
        /// How many there were.
        events: usize,
    },
}

/// Runs the events that lie beside the module's file through the module, as it is: give it with its grants held back. Ends
/// at the first event that comes out otherwise. In memory are an event, what came of it, and the state: 256 MiB of it at
/// most.
///
/// # Errors
/// A sentence for the log and for `pelton handlers`: the first event that came out otherwise, what was expected, and the
/// command that shows it; or why the test could not be run. It passes where a call ended for want of what the host lacks
/// just now: that says nothing about the module.
pub(crate) async fn self_test(module: &Module, path: &Path) -> Result<SelfTest, Fault> {
    let cannot = |why: String| Fault::from(format!("self-test cannot be run: {why}"));
    let until = Instant::now() + SELF_TEST_TIME_MAX;
    let beside = path.to_owned();
    // Elsewhere: a file system may take its time.
    let files = match timeout_at(until, spawn_blocking(move || Files::beside(&beside))).await {
        Ok(files) => files.map_err(anyhow::Error::from).and_then(|files| files),
        Err(_) => return Err(cannot(format!("its files could not be opened within {SELF_TEST_TIME_MAX:?}"))),
    };
    let Some(files) = files.map_err(|error| cannot(format!("{error:#}")))? else { return Ok(SelfTest::Absent) };
    let (events, command) = (files.events_path.clone(), files.command(path));
    let refused = |reason: String| Fault::from(format!("self-test: {reason}; `{command}` shows it"));
    match timeout_at(until, run(module, files, STATE_BYTES_MAX)).await {
        Ok(Ok(Verdict::Passed(events))) => Ok(SelfTest::Passed { events }),
        Ok(Ok(Verdict::Failed(reason))) => Err(refused(reason)),
        Ok(Ok(Verdict::None(reason))) => {
            let reason = format!("self-test could not be run: {reason}; it is tried again");
            Err(Fault { reason, passes: true })
        }
        Ok(Err(error)) => Err(cannot(format!("{error:#}"))),
        Err(_) => Err(refused(format!(
            "{} did not come to their end within {SELF_TEST_TIME_MAX:?}; take fewer events",
            events.display()
        ))),
    }
}

/// What lies beside a module.
struct Files {
    events: Lines,
    events_path: PathBuf,
    /// `None` if nothing more is expected than that all events are handled.
    expected: Option<(Expected, PathBuf)>,
}

enum Verdict {
    Passed(usize),
    Failed(String),
    /// Nothing is known of the module: the host could not do it.
    None(String),
}

impl Files {
    /// Opens them; `None` if there are no events.
    fn beside(module: &Path) -> anyhow::Result<Option<Self>> {
        let (events_path, expected_path) =
            (module.with_extension("events.ndjson"), module.with_extension("expected.ndjson"));
        let Some(file) = open(&events_path)? else { return Ok(None) };
        let events = Lines::of(file, &events_path, Format::Event);
        let expected = open(&expected_path)?.map(|file| {
            let expected = Expected::of(file, &expected_path, EXPECTED_LINE_BYTES_MAX);
            (expected, expected_path)
        });
        Ok(Some(Self { events, events_path, expected }))
    }

    fn command(&self, module: &Path) -> String {
        let command = format!("pelton test {} --events {}", module.display(), self.events_path.display());
        match &self.expected {
            Some((_, file)) => format!("{command} --expect {}", file.display()),
            None => command,
        }
    }
}

fn open(path: &Path) -> anyhow::Result<Option<File>> {
    match plain_file::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot open {}; put a file there, or take it away", path.display()))
        }
    }
}

async fn run(module: &Module, files: Files, state_bytes_max: usize) -> anyhow::Result<Verdict> {
    let mut script = Script::of(module, files.events);
    let mut expected = files.expected.map(|(expected, _)| expected);
    let mut events = 0;
    while let Some(tried) = script.next().await? {
        if let Outcome::Interrupted | Outcome::StoreUnavailable(_) = tried.outcome {
            return Ok(Verdict::None(format!("event {:?} ended {}", tried.event, shown(&tried.outcome.to_string()))));
        }
        match &mut expected {
            None if !tried.is_done() => {
                let outcome = shown(&tried.outcome.to_string());
                return Ok(Verdict::Failed(format!("event {:?} ended {outcome}", tried.event)));
            }
            None => {}
            Some(expected) => match expected.next()? {
                None => bail!("{} expects {events} events, and there are more", expected.name()),
                Some(line) => {
                    if let Some(Difference { event, expected, found }) = expected::difference(line, &tried.json()) {
                        let (expected, found) = (shown(&expected.to_string()), shown(&found.to_string()));
                        return Ok(Verdict::Failed(format!("event {event}: expected {expected}, found {found}")));
                    }
                }
            },
        }
        events += 1;
        if script.held_bytes() > state_bytes_max {
            bail!(
                "the state that the handler wrote takes more than {} MiB after event {:?}; take fewer events",
                state_bytes_max >> 20,
                tried.event
            );
        }
    }
    if let Some(expected) = &mut expected
        && expected.next()?.is_some()
    {
        bail!("{} expects more events than the {events} that there are", expected.name());
    }
    Ok(Verdict::Passed(events))
}

fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN_MAX).collect();
    if shown.len() < line.len() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pelton_core::{Event, Offset, Timestamp};
    use pelton_sandbox::{EmitGrant, Grants, Place, Sandbox, SandboxOptions};
    use serde_json::json;
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::{bench::Bench, plain_file::tests::make_pipe};

    const EVENTS: &str = "{\"id\":\"1\",\"kind\":\"emit\",\"payload\":1}\n";
    const EXPECTED: &str = concat!(
        r#"{"event":"1","outcome":"done","reason":null,"#,
        r#""emitted":[{"stream":"out","id":"test@test/0/0/0","key":null,"kind":"emit","headers":{},"payload":1}],"state":{}}"#
    );

    async fn module() -> Module {
        module_in(SandboxOptions::default()).await
    }

    async fn module_in(options: SandboxOptions) -> Module {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt/misbehave.wasm");
        let sandbox = Sandbox::new(options).expect("the sandbox starts");
        let grants = Grants { emit: EmitGrant::Any { payload_bytes_max: 1024 }, ..Grants::nothing("h") };
        let bytes = fs::read(file).expect("there").into();
        sandbox.load(bytes, grants.held_back(), std::sync::Arc::default()).await.expect("it loads")
    }

    /// Why a module is not taken that the host has room for.
    async fn refused(module: &Module, path: &Path) -> String {
        let Fault { reason, passes } = self_test(module, path).await.expect_err("refused");
        assert!(!passes, "{reason}");
        reason
    }

    async fn passed(module: &Module, path: &Path) -> SelfTest {
        self_test(module, path).await.expect("it passes")
    }

    #[tokio::test]
    async fn events_beside_a_module_have_to_come_out_as_expected() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        let at = |name: &str| folder.path().join(name);
        let path = at("h.wasm");
        assert_eq!(passed(&module, &path).await, SelfTest::Absent);

        fs::write(at("h.events.ndjson"), EVENTS).expect("written");
        assert_eq!(passed(&module, &path).await, SelfTest::Passed { events: 1 });

        fs::write(at("h.expected.ndjson"), EXPECTED).expect("written");
        assert_eq!(passed(&module, &path).await, SelfTest::Passed { events: 1 });

        fs::write(at("h.expected.ndjson"), EXPECTED.replace("out", "elsewhere")).expect("written");
        let refused = refused(&module, &path).await;
        assert!(refused.starts_with("self-test: event \"1\": expected {"), "{refused}");
        assert!(refused.contains("elsewhere") && refused.contains(", found {"), "{refused}");
        let (events, expected) = (at("h.events.ndjson"), at("h.expected.ndjson"));
        let command =
            format!("`pelton test {} --events {} --expect {}`", path.display(), events.display(), expected.display());
        assert!(refused.ends_with(&format!("{command} shows it")), "{refused}");
    }

    #[tokio::test]
    async fn without_expectations_every_event_has_to_be_handled() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        let events =
            "{\"id\":\"1\",\"payload\":1}\n{\"id\":\"2\",\"kind\":\"permanent\",\"payload\":\"no such order\"}\n";
        fs::write(folder.path().join("h.events.ndjson"), events).expect("written");
        let refused = refused(&module, &folder.path().join("h.wasm")).await;
        assert!(refused.starts_with("self-test: event \"2\" ended permanent: "), "{refused}");
        assert!(refused.contains("no such order"), "{refused}");
    }

    #[tokio::test]
    async fn files_that_cannot_be_read_refuse_too() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        fs::write(folder.path().join("h.events.ndjson"), "{").expect("written");
        let refused = refused(&module, &folder.path().join("h.wasm")).await;
        assert!(refused.starts_with("self-test cannot be run: ") && refused.contains("line 1"), "{refused}");
    }

    #[tokio::test]
    async fn a_host_without_room_says_nothing_about_the_module() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("h.wasm");
        fs::write(folder.path().join("h.events.ndjson"), EVENTS).expect("written");
        // One place for an instance. Somebody has it, and keeps it: what was not given free may be in its memory alone.
        let module = module_in(SandboxOptions { instances_max: 1, ..SandboxOptions::default() }).await;
        let place = Place { group: "g".into(), stream: "in".into(), partition: 0 };
        let mut other = Bench::new(&module, place, None).with_manual_commits(true);
        let event = Event {
            offset: Offset(0),
            id: "1".into(),
            key: None,
            kind: "log".into(),
            time: Timestamp(0),
            headers: Vec::new(),
            payload: Vec::new(),
        };
        assert!(other.call(&event, 1).await.is_done());
        for expected in [None, Some(EXPECTED)] {
            if let Some(expected) = expected {
                fs::write(folder.path().join("h.expected.ndjson"), expected).expect("written");
            }
            let Fault { reason, passes } = self_test(&module, &path).await.expect_err("no room");
            assert!(passes && reason.starts_with("self-test could not be run: event \"1\" ended store: "), "{reason}");
        }
        drop(other);
        assert_eq!(passed(&module, &path).await, SelfTest::Passed { events: 1 });
    }

    #[tokio::test]
    async fn a_pipe_in_place_of_a_file_is_refused_at_once() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        let at = |name: &str| folder.path().join(name);
        make_pipe(&at("h.events.ndjson"));
        make_pipe(&at("g.expected.ndjson"));
        fs::write(at("g.events.ndjson"), EVENTS).expect("written");
        for (module_file, pipe) in [("h.wasm", "h.events.ndjson"), ("g.wasm", "g.expected.ndjson")] {
            let path = at(module_file);
            let refused = timeout(Duration::from_secs(10), refused(&module, &path)).await.expect("at once");
            let reason = format!(
                "self-test cannot be run: cannot open {}; put a file there, or take it away: expected a file, found a named pipe",
                at(pipe).display()
            );
            assert_eq!(refused, reason);
        }
    }

    #[tokio::test]
    async fn a_test_ends_at_the_first_event_that_comes_out_otherwise() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        let at = |name: &str| folder.path().join(name);
        fs::write(at("h.events.ndjson"), format!("{EVENTS}{{")).expect("written");
        fs::write(at("h.expected.ndjson"), EXPECTED.replace("out", "elsewhere")).expect("written");
        let refused = refused(&module, &at("h.wasm")).await;
        assert!(refused.starts_with("self-test: event \"1\": expected {"), "{refused}");
    }

    #[tokio::test]
    async fn expectations_of_other_events_refuse() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        let at = |name: &str| folder.path().join(name);
        fs::write(at("h.events.ndjson"), EVENTS).expect("written");
        for (lines, fault) in [
            (String::new(), "expects 0 events, and there are more"),
            (format!("{EXPECTED}\n{EXPECTED}\n"), "expects more events than the 1 that there are"),
        ] {
            fs::write(at("h.expected.ndjson"), lines).expect("written");
            let refused = refused(&module, &at("h.wasm")).await;
            assert!(refused.starts_with("self-test cannot be run: ") && refused.ends_with(fault), "{refused}");
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_into_memory_ends_the_test_with_the_remedy() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        let at = |name: &str| folder.path().join(name);
        let set = |n: u32| json!({ "id": n.to_string(), "kind": "state-set", "payload": format!("k{n}={}", "x".repeat(500)) });
        let events: String = (0..3).map(|n| format!("{}\n", set(n))).collect();
        fs::write(at("h.events.ndjson"), events).expect("written");
        let files = Files::beside(&at("h.wasm")).expect("readable").expect("there");
        let error = run(&module, files, 1_000).await.err().expect("too much").to_string();
        assert_eq!(
            error,
            "the state that the handler wrote takes more than 0 MiB after event \"1\"; take fewer events"
        );

        let expected = File::create(at("h.expected.ndjson")).expect("created");
        expected.set_len(EXPECTED_LINE_BYTES_MAX + 1).expect("a hole");
        let refused = refused(&module, &at("h.wasm")).await;
        assert!(refused.ends_with("line 1: longer than 16777216 bytes"), "{refused}");
    }
}
