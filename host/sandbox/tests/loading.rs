//! From bytes to a module: what is refused and why, and what the cache saves.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use common::{SANDBOX, Stage, event, grants, guest};
use pelton_core::Outcome;
use pelton_sandbox::{LoadError, Sandbox, SandboxOptions, World, digest_of};

const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

async fn refusal(bytes: &[u8]) -> LoadError {
    match SANDBOX.load(bytes.to_vec(), grants()).await {
        Ok(_) => panic!("{} was loaded", bytes.escape_ascii()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn the_world_is_found_out_by_what_a_component_exports() {
    for (name, world) in [("noop", World::Worker), ("noop-batch", World::BatchWorker)] {
        let stage = Stage::of(name).await;
        assert_eq!(stage.module.world(), world);
        assert_eq!(**stage.module.digest(), digest_of(&guest(name)));
        assert_eq!(&*stage.module.grants().handler, "invoice");
    }
}

#[tokio::test]
async fn what_is_no_component_is_refused_in_words_for_its_author() {
    assert_eq!(refusal(b"").await, LoadError::Empty);
    let text = refusal(b"#!/bin/sh\necho hello").await.to_string();
    assert!(text.contains("#!/bin/sh") && text.contains("pelton build"), "{text}");
    let core = refusal(b"\0asm\x01\0\0\0").await.to_string();
    assert!(core.contains("core module, not a component") && core.contains("pelton build"), "{core}");
    let whole = guest("noop");
    for length in [6, 12, whole.len() / 2, whole.len() - 1] {
        let error = refusal(&whole[..length]).await;
        assert!(matches!(error, LoadError::Invalid(_)), "{length} bytes: {error}");
    }
}

#[tokio::test]
async fn a_component_that_is_no_handler_is_told_what_was_expected() {
    let text = refusal(EMPTY_COMPONENT).await.to_string();
    assert!(text.contains("exports nothing"), "{text}");
    assert!(text.contains("pelton:worker/handler@0.1.0 or pelton:worker/batch-handler@0.1.0"), "{text}");
}

#[tokio::test]
async fn every_import_that_is_not_served_is_named() {
    // The names of imports lie in a component as they are, and another one of the same length keeps it whole.
    let mut bytes = guest("misbehave");
    let renamed = replace(&mut bytes, b"pelton:worker/outbox@0.1.0", b"pelton:worker/outbix@0.1.0")
        + replace(&mut bytes, b"pelton:worker/state@0.1.0", b"pelton:worker/stale@0.1.0");
    assert!(renamed >= 2, "the guest does not import what this test renames");
    let LoadError::Imports(faults) = refusal(&bytes).await else { panic!("another error") };
    assert_eq!(faults.len(), 2, "{faults:?}");
    for name in ["pelton:worker/outbix@0.1.0", "pelton:worker/stale@0.1.0"] {
        assert!(faults.iter().any(|fault| fault.starts_with(name)), "{faults:?}");
    }
}

#[tokio::test]
async fn a_second_sandbox_takes_a_module_from_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    load_through(&cache, "noop").await;
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    // A time that no file written now would have.
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
    let path = compiled(&cache);
    fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
    load_through(&cache, "noop").await;
    assert_eq!(fs::metadata(compiled(&cache)).unwrap().modified().unwrap(), long_ago, "compiled again");
}

#[tokio::test]
async fn a_damaged_file_in_the_cache_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    load_through(dir.path(), "noop").await;
    let path = compiled(dir.path());
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damage in [&whole[..whole.len() / 2], b"", b"not code at all", &flipped] {
        fs::write(&path, damage).unwrap();
        load_through(dir.path(), "noop").await;
        assert!(fs::read(&path).unwrap() == whole, "the damage is still there");
    }
}

#[tokio::test]
async fn a_directory_that_others_may_write_to_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    load_through(dir.path(), "noop").await;
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cache_that_cannot_be_made_fails_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    load_through(&file.join("cache"), "noop").await;
}

#[tokio::test]
async fn without_address_space_to_set_aside_handlers_run_all_the_same() {
    let options = SandboxOptions { instances_max: u32::MAX, ..SandboxOptions::default() };
    let module = Sandbox::new(options).unwrap().load(guest("noop"), grants()).await.unwrap();
    assert_eq!(Stage::around(module).call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn more_instances_than_there_is_room_for_are_not_the_handlers_failure() {
    let options = SandboxOptions { instances_max: 1, ..SandboxOptions::default() };
    let module = Sandbox::new(options).unwrap().load(guest("noop"), grants()).await.unwrap();
    let (mut first, mut second) = (Stage::around(module.clone()), Stage::around(module));
    assert_eq!(first.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
    let crowded = second.call(&[event(0, "ok", "")]).await.outcome;
    assert!(matches!(&crowded, Outcome::StoreUnavailable(reason) if reason.contains("no room")), "{crowded:?}");
    first.worker.forget_instance();
    assert_eq!(second.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

/// Loads a guest in a sandbox of its own and sees that it works.
async fn load_through(cache: &Path, name: &str) {
    let options = SandboxOptions { cache_dir: Some(cache.to_owned()), instances_max: 10, ..SandboxOptions::default() };
    let module = Sandbox::new(options).unwrap().load(guest(name), grants()).await.unwrap();
    let mut stage = Stage::around(module);
    assert_eq!(stage.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

/// The one compiled module of a cache.
fn compiled(cache: &Path) -> PathBuf {
    let mut found = fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"));
    let path = found.next().expect("nothing was cached");
    assert_eq!(found.next(), None);
    path
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
    for at in &places {
        bytes[*at..*at + to.len()].copy_from_slice(to);
    }
    places.len()
}
