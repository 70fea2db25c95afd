//! Versions of the contract: what was built for an older one goes on working, and what is newer is told apart.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{EventExt, SANDBOX, Stage, emitted, event, grants, guest};
use pelton_core::Outcome;
use pelton_sandbox::{CONTRACT, LoadError, Module, is_served};

async fn load(bytes: Vec<u8>) -> Result<Module, LoadError> {
    SANDBOX.load(bytes.into(), grants(), Arc::default()).await
}

fn contracts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contracts")
}

/// What a guest was built for, moved to another version of the same length.
fn moved(mut bytes: Vec<u8>, version: &str) -> Vec<u8> {
    let names = ["handler", "types", "outbox", "state", "checkpoint", "progress"];
    for name in names {
        let from = format!("pelton:worker/{name}@{CONTRACT}");
        let to = format!("pelton:worker/{name}@{version}");
        replace(&mut bytes, &from, &to);
    }
    bytes
}

fn replace(bytes: &mut [u8], from: &str, to: &str) -> usize {
    assert_eq!(from.len(), to.len());
    let is_there = |(_, window): &(usize, &[u8])| *window == from.as_bytes();
    let places: Vec<usize> = bytes.windows(from.len()).enumerate().filter(is_there).map(|(at, _)| at).collect();
    for at in &places {
        bytes[*at..*at + to.len()].copy_from_slice(to.as_bytes());
    }
    places.len()
}

/// State, an emitted event and a failure: a handler that does these speaks the contract.
async fn works(module: Module) {
    let mut stage = Stage::around(module);
    let events = [1, 2].map(|offset| event(offset, "count", "x").key("k").header("to", "out"));
    let done = stage.call(&events).await;
    assert_eq!((done.outcome.clone(), emitted(&done).len()), (Outcome::Done, 2));
    assert!(!done.effects.state.is_empty());
    let failed = stage.call(&[event(3, "permanent", "no")]).await;
    assert_eq!(failed.outcome, Outcome::Permanent("no".into()));
}

#[tokio::test]
async fn components_of_every_released_version_run() {
    let folders = fs::read_dir(contracts()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut versions = 0;
    for folder in folders {
        let version = folder.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert!(is_served(&version), "{version} was released, and is not served any more");
        for world in ["worker", "batch-worker"] {
            let bytes = fs::read(folder.join(world).with_extension("wasm")).unwrap();
            works(load(bytes).await.unwrap_or_else(|error| panic!("{world} of {version}: {error}"))).await;
        }
        versions += 1;
    }
    assert!(versions > 0);
}

#[test]
fn the_contract_of_the_host_is_that_of_the_wit_folder_and_is_held_by_a_component() {
    let wit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/worker.wit")).unwrap();
    assert!(wit.starts_with(&format!("package pelton:worker@{CONTRACT};")), "{}", wit.lines().next().unwrap());
    assert!(contracts().join(CONTRACT.to_string()).is_dir(), "tests/contracts has no component of version {CONTRACT}");
}

#[tokio::test]
async fn versions_that_differ_in_what_was_added_link_with_one_another() {
    // As an older component meets a newer host, and a newer one that uses nothing new an older host.
    works(load(moved(guest("misbehave"), "0.1.9")).await.unwrap()).await;
}

#[tokio::test]
async fn a_component_that_uses_what_a_newer_version_added_is_told_so() {
    let mut bytes = moved(guest("misbehave"), "0.1.9");
    assert!(replace(&mut bytes, "pelton:worker/state@0.1.9", "pelton:worker/later@0.1.9") > 0);
    let Err(error) = load(bytes).await else { panic!("it was loaded") };
    let text = error.to_string();
    assert!(text.contains("pelton:worker/later@0.1.9"), "{text}");
    assert!(
        text.contains("built for version 0.1.9") && text.contains("this host serves 0.1.0: update the host"),
        "{text}"
    );
}

#[tokio::test]
async fn a_component_of_another_contract_is_told_which() {
    for (version, remedy) in [("0.2.0", "update the host"), ("0.0.9", "build the handler with the SDK of this host")] {
        let Err(error) = load(moved(guest("misbehave"), version)).await else { panic!("it was loaded") };
        let (found, served) = (version.parse().unwrap(), CONTRACT);
        assert_eq!(error, LoadError::Contract { found, served });
        let text = error.to_string();
        assert!(text.contains(&format!("speaks version {version}")) && text.contains(remedy), "{text}");
    }
}
