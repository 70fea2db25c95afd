//! From bytes to a module: what is refused and why, and what the cache saves.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use common::{PATIENCE, SANDBOX, Stage, event, grants, guest};
use pelton_core::Outcome;
use pelton_sandbox::{CompilerProgram, LoadError, Sandbox, SandboxOptions, World, digest_of};

/// A time that no file written now would have.
const LONG_AGO: SystemTime = SystemTime::UNIX_EPOCH;

const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

async fn refusal(bytes: &[u8]) -> LoadError {
    match SANDBOX.load(bytes.into(), grants(), Arc::default()).await {
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
    let path = compiled(&cache);
    let written = fs::metadata(&path).unwrap().ino();
    touch(&path, LONG_AGO);
    load_through(&cache, "noop").await;
    let loaded = fs::metadata(compiled(&cache)).unwrap();
    assert_eq!(loaded.ino(), written, "compiled again");
    // What was loaded is not what goes first.
    assert!(loaded.modified().unwrap() > LONG_AGO + Duration::from_secs(86_400));
}

#[tokio::test]
async fn a_cache_that_is_full_loses_what_was_loaded_longest_ago_and_nothing_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let others = ["notes.txt", "other.cwasm", ".1-2.tmp.bak"];
    let unfinished = [".123-0.tmp", ".124-0.tmp"];
    for name in others.iter().chain(&unfinished) {
        fs::write(dir.path().join(name), "x").unwrap();
        touch(&dir.path().join(name), LONG_AGO);
    }
    touch(&dir.path().join(unfinished[1]), SystemTime::now());
    let options = SandboxOptions {
        cache_dir: Some(dir.path().to_owned()),
        cache_bytes_max: 1,
        instances_max: 2,
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::new(options).unwrap();
    for name in ["noop", "noop-batch", "noop"] {
        sandbox.load(guest(name).into(), grants(), Arc::default()).await.unwrap();
        // The newest stays, however large it is.
        let digest = digest_of(&guest(name));
        let names: Vec<String> = names_in(dir.path());
        let own: Vec<&String> =
            names.iter().filter(|name| name.contains(".cwasm") && !others.contains(&&***name)).collect();
        assert_eq!(own.len(), 2, "{names:?}");
        assert!(own.iter().all(|name| digest.ends_with(name.split('-').next().unwrap())), "{names:?}");
        assert!(others.iter().all(|other| names.iter().any(|name| name == other)), "{names:?}");
        assert!(names.iter().any(|name| name == unfinished[1]), "somebody may be writing it");
        assert!(!names.iter().any(|name| name == unfinished[0]), "left over");
    }
}

#[tokio::test]
async fn what_a_host_of_the_same_process_id_is_writing_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    // In another container, which shares the cache. It counts its files from 0.
    let theirs: Vec<String> = (0..1000).map(|number| format!(".{}-{number}.tmp", std::process::id())).collect();
    for name in &theirs {
        fs::write(dir.path().join(name), "theirs").unwrap();
    }
    load_through(dir.path(), "noop").await;
    assert_eq!(names_in(dir.path()).len(), theirs.len() + 2);
    for name in &theirs {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"theirs", "{name}");
    }
}

#[tokio::test]
async fn a_cache_with_room_keeps_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["noop", "noop-batch", "noop"] {
        load_through(dir.path(), name).await;
    }
    assert_eq!(names_in(dir.path()).iter().filter(|name| name.ends_with(".cwasm")).count(), 2);
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

/// Somebody else. Only root can make files theirs, so those who are not see less tested.
const SOMEBODY: u32 = 65_534;

fn is_root() -> bool {
    let dir = tempfile::tempdir().unwrap();
    fs::metadata(dir.path()).unwrap().uid() == 0
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

type Change<'a> = Box<dyn Fn(&Path) + 'a>;

#[tokio::test]
async fn a_file_in_the_cache_that_is_not_this_users_alone_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    load_through(&cache, "noop").await;
    let code = compiled(&cache);
    let seal = code.with_extension("cwasm.sha256");
    let linked = |path: &Path| {
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(path, &elsewhere).unwrap();
        symlink(&elsewhere, path).unwrap();
    };
    let mut changes: Vec<(&str, Change<'_>)> = vec![
        ("writable by all", Box::new(|path| set_mode(path, 0o602))),
        ("writable by its group", Box::new(|path| set_mode(path, 0o620))),
        ("a link", Box::new(linked)),
        (
            "a directory",
            Box::new(|path| {
                fs::remove_file(path).unwrap();
                symlink("/", path).unwrap();
            }),
        ),
    ];
    if is_root() {
        changes.push(("somebody else's", Box::new(|path| chown(path, Some(SOMEBODY), None).unwrap())));
    }
    for (what, change) in &changes {
        for path in [&code, &seal] {
            let written = fs::metadata(&code).unwrap().ino();
            change(path);
            load_through(&cache, "noop").await;
            for path in [&code, &seal] {
                let found = fs::symlink_metadata(path).unwrap();
                assert!(found.is_file() && found.mode() & 0o777 == 0o600, "{what}: {}", path.display());
            }
            assert_ne!(fs::metadata(&code).unwrap().ino(), written, "{what}: {} was trusted", path.display());
        }
    }
}

#[tokio::test]
async fn a_directory_that_others_could_put_another_in_the_place_of_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    fs::create_dir(&above).unwrap();
    // As a folder for temporary files is: everybody may write to it, and nobody may move what belongs to others.
    for (mode, is_trusted) in [(0o777, false), (0o1777, true), (0o755, true)] {
        set_mode(&above, mode);
        let cache = above.join(format!("{mode:o}/cache"));
        load_through(&cache, "noop").await;
        assert_eq!(!names_in(&cache).is_empty(), is_trusted, "{mode:o}");
    }
    // A link may lead there; whose it is matters, and what lies on the way.
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    symlink(&real, &link).unwrap();
    fs::create_dir(&real).unwrap();
    load_through(&link.join("through"), "noop").await;
    assert!(!names_in(&real.join("through")).is_empty());
    set_mode(&above, 0o777);
    symlink(above.join("755/cache"), real.join("inside")).unwrap();
    load_through(&real.join("inside"), "noop-batch").await;
    assert_eq!(names_in(&above.join("755/cache")).len(), 2);
    if is_root() {
        lchown(&link, Some(SOMEBODY), None).unwrap();
        load_through(&link.join("by-somebody"), "noop").await;
        assert!(names_in(&real.join("by-somebody")).is_empty());
        chown(&real, Some(SOMEBODY), None).unwrap();
        load_through(&real.join("of-somebody"), "noop").await;
        assert!(names_in(&real.join("of-somebody")).is_empty());
    }
}

/// A sandbox with this cache, which compiles with a shell script; `$0` and its arguments are the compiler.
fn with_script(cache: &Path, script: &str) -> Sandbox {
    let program = env!("CARGO_BIN_EXE_pelton-sandbox-compile-module");
    let compiler = CompilerProgram::new("/bin/sh".into(), vec!["-c".into(), script.into(), program.into()]);
    let options = SandboxOptions {
        cache_dir: Some(cache.to_owned()),
        compiler: Some(compiler),
        instances_max: 10,
        ..SandboxOptions::default()
    };
    Sandbox::new(options).unwrap()
}

#[tokio::test]
async fn what_is_in_the_cache_waits_for_no_compilation() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, begun) = (dir.path().join("cache"), dir.path().join("begun"));
    load_through(&cache, "noop").await;
    let sandbox = with_script(&cache, &format!("echo > {}; exec /bin/sleep 100", begun.display()));
    let slow = |name: &'static str| {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.load(guest(name).into(), grants(), Arc::default()).await.err() })
    };
    // More than may look into the cache at once.
    let compiling: Vec<_> = ["noop-batch"; 10].into_iter().map(slow).collect();
    while !begun.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cached = tokio::time::timeout(PATIENCE, sandbox.load(guest("noop").into(), grants(), Arc::default())).await;
    assert!(cached.expect("it waited").is_ok());
    assert!(compiling.iter().all(|load| !load.is_finished()));
    for load in compiling {
        load.abort();
    }
}

#[tokio::test]
async fn a_module_that_is_wanted_twice_at_once_is_compiled_once() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, begun) = (dir.path().join("cache"), dir.path().join("begun"));
    let sandbox = with_script(&cache, &format!("echo >> {}; exec \"$0\" \"$@\"", begun.display()));
    let load = || sandbox.load(guest("noop").into(), grants(), Arc::default());
    let (one, other) = tokio::join!(load(), load());
    assert_eq!(one.unwrap().digest(), other.unwrap().digest());
    assert_eq!(fs::read_to_string(begun).unwrap().lines().count(), 1);
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
    let module = Sandbox::new(options).unwrap().load(guest("noop").into(), grants(), Arc::default()).await.unwrap();
    assert_eq!(Stage::around(module).call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn more_instances_at_work_than_there_is_room_for_are_not_the_handlers_failure() {
    let options = SandboxOptions { instances_max: 1, ..SandboxOptions::default() };
    let module =
        Sandbox::new(options).unwrap().load(guest("misbehave").into(), grants(), Arc::default()).await.unwrap();
    let (mut first, mut second) = (Stage::around(module.clone()), Stage::around(module));
    let (usage, interrupt) = (Arc::clone(first.module.usage()), first.interrupt.clone());
    let busy = tokio::spawn(async move { first.call(&[event(0, "loop", "")]).await });
    while usage.instances_made.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let crowded = second.call(&[event(0, "ok", "")]).await.outcome;
    assert!(matches!(&crowded, Outcome::StoreUnavailable(reason) if reason.contains("no room")), "{crowded:?}");
    interrupt.trigger();
    assert_eq!(busy.await.unwrap().outcome, Outcome::Interrupted);
    assert_eq!(second.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

/// Loads a guest in a sandbox of its own and sees that it works.
async fn load_through(cache: &Path, name: &str) {
    let options = SandboxOptions { cache_dir: Some(cache.to_owned()), instances_max: 10, ..SandboxOptions::default() };
    let module = Sandbox::new(options).unwrap().load(guest(name).into(), grants(), Arc::default()).await.unwrap();
    let mut stage = Stage::around(module);
    assert_eq!(stage.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

fn touch(path: &Path, time: SystemTime) {
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn names_in(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
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
