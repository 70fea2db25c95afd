//! Versions beside each other on a store in memory.

use std::{fs, path::Path, time::Duration};

use pelton_core::NewEvent;
use pelton_sandbox::{EmitGrant, Grants, Sandbox, SandboxOptions};
use pelton_store::{GroupSpec, MemoryStore, Reset, Start, StreamSpec, system_clock};

use super::*;
use crate::config::{Gate, Require};

const PARTITIONS: u32 = 2;

struct Scene {
    store: Arc<dyn Store>,
    sandbox: Sandbox,
}

fn event(id: u32, kind: &str, key: &str, reported: bool) -> NewEvent {
    let headers = if reported { vec![("to".to_owned(), "out".to_owned())] } else { Vec::new() };
    NewEvent { id: id.to_string(), key: Some(key.into()), kind: kind.into(), headers, payload: b"0".to_vec() }
}

impl Scene {
    /// A stream with these events and a group that has handled all of them.
    async fn new(events: Vec<NewEvent>) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(system_clock()));
        let spec =
            StreamSpec { name: "in".into(), partitions: PARTITIONS, payload_bytes_max: 1024, retention_ms: None };
        store.declare_stream(&spec).await.expect("declared");
        store.append("in", events).await.expect("appended");
        let (name, stream, handler) = ("work".into(), "in".into(), "h".into());
        store.declare_group(&GroupSpec { name, stream, handler, start: Start::Latest }).await.expect("declared");
        Self { store, sandbox: Sandbox::new(SandboxOptions::default()).expect("the sandbox starts") }
    }

    async fn module(&self, bytes: Vec<u8>) -> Module {
        let emit = EmitGrant::Any { payload_bytes_max: 1024 };
        let grants = Grants { emit, ..Grants::nothing("h") }.held_back();
        self.sandbox.load(bytes.into(), grants, Arc::default()).await.expect("it loads")
    }

    async fn gate(&self, live: &Module, new: &Module, last: u32, require: Require) -> Result<(), String> {
        let groups = [("work".to_owned(), "in".to_owned(), Filter::default())];
        let passed = crate::history::check_gate(&self.store, &groups, live, new, Gate { last, require }).await;
        passed.map_err(|fault| match fault {
            GateFault::Refused(reason) | GateFault::NotRun(reason) => reason,
        })
    }
}

fn guest(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt");
    fs::read(folder.join(format!("{name}.wasm"))).expect("there")
}

/// What `misbehave` emits is called otherwise.
fn misbehave_v2() -> Vec<u8> {
    let mut module = guest("misbehave");
    let at = module.windows(7).position(|word| word == b"counted").expect("the word is in it");
    module[at..at + 7].copy_from_slice(b"tallied");
    module
}

fn whole(partition: u32, to: u64) -> Span {
    Span { partition, start: Offset(0), from: Offset(0), to: Offset(to) }
}

fn reader() -> Reader {
    Reader { group: "work".into(), stream: "in".into(), filter: Filter::default() }
}

#[tokio::test]
async fn only_what_a_version_does_otherwise_differs_and_a_run_ends_where_it_is_told() {
    let events = (0..40).map(|n| event(n, "count", "k", n % 10 == 3)).collect();
    let scene = Scene::new(events).await;
    let (old, new) = (scene.module(guest("misbehave")).await, scene.module(misbehave_v2()).await);
    let partition = pelton_core::partition_of("k", PARTITIONS);
    let versions = Versions { old: Some(old), new };
    let spans = [whole(partition, 25)];
    let mut run = Run::new(Arc::clone(&scene.store), reader(), Base::Empty, versions, spans, ProgressBar::hidden());
    let (mut totals, mut differing) = (Totals::default(), Vec::new());
    while let Some(step) = run.next().await.expect("it runs") {
        totals.count(&step);
        if step.differs.any() {
            assert_eq!(step.differs.words(), ["emitted"]);
            differing.push(step.event.offset.0);
        }
    }
    assert_eq!(differing, [3, 13, 23]);
    assert_eq!((totals.compared, totals.differing, totals.new_errors), (25, 3, 0));
}

#[tokio::test]
async fn state_that_does_not_fit_ends_a_run_with_the_remedy() {
    let events = (0..10)
        .map(|n| NewEvent { payload: [b"k=".as_slice(), &[b'x'; 500]].concat(), ..event(n, "state-set", "k", false) });
    let scene = Scene::new(events.collect()).await;
    let module = scene.module(guest("misbehave")).await;
    let versions = Versions { old: None, new: module };
    let spans = [whole(pelton_core::partition_of("k", PARTITIONS), 10)];
    let mut run = Run::new(Arc::clone(&scene.store), reader(), Base::Empty, versions, spans, ProgressBar::hidden());
    run.state_bytes_max = 400;
    let error = run.next().await.err().expect("too much").to_string();
    assert!(error.contains("replay fewer events at once, with --from and --to"), "{error}");
}

#[tokio::test]
async fn a_gate_lets_the_same_version_pass_and_names_the_first_event_that_differs() {
    let events = (0..40).map(|n| event(n, "count", "k", n == 30)).collect();
    let scene = Scene::new(events).await;
    let (old, new) = (scene.module(guest("misbehave")).await, scene.module(misbehave_v2()).await);
    assert_eq!(scene.gate(&old, &old, 100, Require::Same).await, Ok(()));
    assert_eq!(scene.gate(&old, &new, 9, Require::Same).await, Ok(()), "the last nine are the same");
    assert_eq!(scene.gate(&old, &new, 100, Require::NoNewErrors).await, Ok(()));
    let partition = pelton_core::partition_of("k", PARTITIONS);
    let refused = scene.gate(&old, &new, 10, Require::Same).await.expect_err("one differs");
    let expected = format!(
        "rollout.replay: event {partition}/30 of group \"work\" differs in emitted; \
         `pelton replay work --partition {partition} --from 30 --to 31 --state today --diff` shows it"
    );
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn a_gate_takes_new_errors_for_what_they_are_and_old_ones_too() {
    let mut events: Vec<_> = (0..10).map(|n| event(n, "count", "k", false)).collect();
    events.push(event(10, "permanent", "k", false));
    let scene = Scene::new(events).await;
    let (fails, repaired) = (scene.module(guest("misbehave")).await, scene.module(guest("misbehave-repaired")).await);
    assert_eq!(scene.gate(&fails, &repaired, 100, Require::NoNewErrors).await, Ok(()), "one error less");
    assert_eq!(scene.gate(&fails, &fails, 100, Require::NoNewErrors).await, Ok(()), "the same error");
    let refused = scene.gate(&repaired, &fails, 100, Require::NoNewErrors).await.expect_err("a new error");
    assert!(refused.contains("/10 of group \"work\" fails (permanent: 0); `pelton replay work"), "{refused}");
}

#[tokio::test]
async fn a_gate_that_does_not_end_in_time_refuses_with_the_remedy() {
    let scene = Scene::new(vec![event(0, "loop", "k", false)]).await;
    let module = scene.module(guest("misbehave")).await;
    let groups = [("work".to_owned(), "in".to_owned(), Filter::default())];
    let gate = Gate { last: 1000, require: Require::Same };
    let bounds = gate::Bounds { time: Duration::from_millis(100), ..gate::BOUNDS };
    let refused = gate::check_within(bounds, &scene.store, &groups, &module, &module, gate).await;
    let reason = "rollout.replay did not come to its end within 100ms; lower rollout.replay.last (it is 1000)";
    assert!(matches!(&refused, Err(GateFault::Refused(found)) if found == reason), "{refused:?}");
}

#[tokio::test]
async fn a_gate_for_which_state_does_not_fit_refuses_with_the_remedy() {
    let payload = [b"k=".as_slice(), &[b'x'; 500]].concat();
    for kind in ["state-set", "state-get"] {
        let scene = Scene::new(vec![NewEvent { payload: payload.clone(), ..event(0, kind, "k", false) }]).await;
        let module = scene.module(guest("misbehave")).await;
        let groups = [("work".to_owned(), "in".to_owned(), Filter::default())];
        let gate = Gate { last: 1000, require: Require::Same };
        let bounds = gate::Bounds { state_bytes: 400, ..gate::BOUNDS };
        let refused = gate::check_within(bounds, &scene.store, &groups, &module, &module, gate).await;
        let partition = pelton_core::partition_of("k", PARTITIONS);
        let reason = format!(
            "rollout.replay stopped at event {partition}/0: the state that the handler read and wrote takes more than 0 MiB; \
             lower rollout.replay.last (it is 1000), or leave rollout.replay out"
        );
        assert!(matches!(&refused, Err(GateFault::Refused(found)) if *found == reason), "{kind}: {refused:?}");
    }
}

#[tokio::test]
async fn a_gate_looks_at_handled_events_alone_and_at_each_partition() {
    let keys: Vec<String> = (0..PARTITIONS)
        .map(|partition| {
            (0..).map(|n: u32| format!("k{n}")).find(|key| pelton_core::partition_of(key, PARTITIONS) == partition)
        })
        .map(|key| key.expect("some key leads there"))
        .collect();
    let mut events: Vec<_> = (0..50).map(|n| event(n, "count", &keys[0], false)).collect();
    events.push(event(50, "count", &keys[1], true));
    let scene = Scene::new(events).await;
    let (old, new) = (scene.module(guest("misbehave")).await, scene.module(misbehave_v2()).await);
    let refused = scene.gate(&old, &new, 2, Require::Same).await.expect_err("the lonely one of the other partition");
    assert!(refused.contains("event 1/0 "), "{refused}");

    let to = [(1, Offset(0))].into();
    let back = Reset { group: "work".into(), to, clear_state: Some(false), force: true, dry_run: false };
    scene.store.reset(&back).await.expect("moved");
    assert_eq!(scene.gate(&old, &new, 2, Require::Same).await, Ok(()), "it is not handled yet");
}
