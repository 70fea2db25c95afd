//! Events with expected effects beside a module: what it has to show before it is called.
//!
//! Beside `handlers/invoice.wasm` these are `handlers/invoice.events.ndjson` and `handlers/invoice.expected.ndjson`, as
//! `pelton test --events … --expect …` takes them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use pelton_sandbox::Module;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    cli::Format,
    expected::{self, Difference, Script},
};

/// A swap waits for a self-test so long at most.
const SELF_TEST_TIME_MAX: Duration = Duration::from_secs(60);
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

/// Runs the events that lie beside the module's file through the module, as it is: give it with its grants held back.
///
/// # Errors
/// A sentence for the log and for `pelton handlers`: the first event that came out otherwise, what was expected, and the
/// command that shows it; or why the test could not be run.
pub(crate) async fn self_test(module: &Module, path: &Path) -> Result<SelfTest, String> {
    let files = Files::beside(path);
    if !files.events.exists() {
        return Ok(SelfTest::Absent);
    }
    let refused = |reason: String| Err(format!("self-test: {reason}; `{}` shows it", files.command()));
    match timeout(SELF_TEST_TIME_MAX, run(module, &files)).await {
        Ok(Ok(Verdict::Passed(events))) => Ok(SelfTest::Passed { events }),
        Ok(Ok(Verdict::Failed(reason))) => refused(reason),
        Ok(Err(error)) => Err(format!("self-test cannot be run: {error:#}")),
        Err(_) => refused(format!(
            "{} did not come to their end within {SELF_TEST_TIME_MAX:?}; take fewer events",
            files.events.display()
        )),
    }
}

struct Files<'a> {
    module: &'a Path,
    events: PathBuf,
    /// `None` if nothing more is expected than that all events are handled.
    expected: Option<PathBuf>,
}

enum Verdict {
    Passed(usize),
    Failed(String),
}

impl<'a> Files<'a> {
    fn beside(module: &'a Path) -> Self {
        let expected = Some(module.with_extension("expected.ndjson")).filter(|file| file.exists());
        Self { module, events: module.with_extension("events.ndjson"), expected }
    }

    fn command(&self) -> String {
        let command = format!("pelton test {} --events {}", self.module.display(), self.events.display());
        match &self.expected {
            Some(file) => format!("{command} --expect {}", file.display()),
            None => command,
        }
    }
}

async fn run(module: &Module, files: &Files<'_>) -> anyhow::Result<Verdict> {
    let mut script = Script::open(module, &files.events, Format::Event)?;
    let mut results: Vec<Value> = Vec::new();
    while let Some(tried) = script.next().await? {
        if files.expected.is_none() && !tried.is_done() {
            return Ok(Verdict::Failed(format!("event {:?} ended {}", tried.event, shown(&tried.outcome.to_string()))));
        }
        results.push(tried.json());
    }
    let Some(file) = &files.expected else { return Ok(Verdict::Passed(results.len())) };
    Ok(match expected::differences(file, &results)?.first() {
        None => Verdict::Passed(results.len()),
        Some(Difference { event, expected, found }) => {
            let (expected, found) = (shown(&expected.to_string()), shown(&found.to_string()));
            Verdict::Failed(format!("event {event}: expected {expected}, found {found}"))
        }
    })
}

fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN_MAX).collect();
    if shown.len() < line.len() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pelton_sandbox::{EmitGrant, Grants, Sandbox, SandboxOptions};
    use tempfile::TempDir;

    use super::*;

    const EVENTS: &str = "{\"id\":\"1\",\"kind\":\"emit\",\"payload\":1}\n";
    const EXPECTED: &str = concat!(
        r#"{"event":"1","outcome":"done","reason":null,"#,
        r#""emitted":[{"stream":"out","id":"test@test/0/0/0","key":null,"kind":"emit","headers":{},"payload":1}],"state":{}}"#
    );

    async fn module() -> Module {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt/misbehave.wasm");
        let sandbox = Sandbox::new(SandboxOptions::default()).expect("the sandbox starts");
        let grants = Grants { emit: EmitGrant::Any { payload_bytes_max: 1024 }, ..Grants::nothing("h") };
        let bytes = fs::read(file).expect("there").into();
        sandbox.load(bytes, grants.held_back(), std::sync::Arc::default()).await.expect("it loads")
    }

    #[tokio::test]
    async fn events_beside_a_module_have_to_come_out_as_expected() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        let at = |name: &str| folder.path().join(name);
        let path = at("h.wasm");
        assert_eq!(self_test(&module, &path).await, Ok(SelfTest::Absent));

        fs::write(at("h.events.ndjson"), EVENTS).expect("written");
        assert_eq!(self_test(&module, &path).await, Ok(SelfTest::Passed { events: 1 }));

        fs::write(at("h.expected.ndjson"), EXPECTED).expect("written");
        assert_eq!(self_test(&module, &path).await, Ok(SelfTest::Passed { events: 1 }));

        fs::write(at("h.expected.ndjson"), EXPECTED.replace("out", "elsewhere")).expect("written");
        let refused = self_test(&module, &path).await.expect_err("it differs");
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
        let refused = self_test(&module, &folder.path().join("h.wasm")).await.expect_err("one fails");
        assert!(refused.starts_with("self-test: event \"2\" ended permanent: "), "{refused}");
        assert!(refused.contains("no such order"), "{refused}");
    }

    #[tokio::test]
    async fn files_that_cannot_be_read_refuse_too() {
        let (module, folder) = (module().await, TempDir::new().expect("a folder"));
        fs::write(folder.path().join("h.events.ndjson"), "{").expect("written");
        let refused = self_test(&module, &folder.path().join("h.wasm")).await.expect_err("no event");
        assert!(refused.starts_with("self-test cannot be run: ") && refused.contains("line 1"), "{refused}");
    }
}
