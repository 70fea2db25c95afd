//! `pelton new`, `build`, `test` and `dev`, as far as they go without a compiler: a script stands in for one. What real
//! compilers make of the templates is tried by `scripts/languages`.
#![allow(clippy::unwrap_used, reason = "what is not there fails the test, which is what it is for")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};
use support::{Output, Stage, guest, host_section, misbehave_v2, wait_for};

/// A project in Python whose compiler copies the module that `handler.py` names.
fn project() -> Stage {
    let stage = Stage::new(&format!(
        "{}\n[store]\nurl = \"sqlite://pelton.db\"\n[streams.in]\npartitions = 1\n[streams.out]\npartitions = 1\n\
         [handlers.greeter]\nmodule = \"greeter.wasm\"\nallow = {{ emit = [\"out\"] }}\n\
         [groups.greeter]\nstream = \"in\"\nhandler = \"greeter\"\n",
        host_section()
    ));
    stage.write("pyproject.toml", "[project]\nname = \"greeter\"\n[tool.pelton]\nwit = \"wit\"\n");
    stage.write("handler.py", "misbehave.wasm");
    for folder in ["wit", "guest-sdk/python", "tests", ".venv/bin"] {
        fs::create_dir_all(stage.path(folder)).unwrap();
    }
    stage.write(
        "tests/events.ndjson",
        "{\"id\":\"one\",\"key\":\"k\",\"kind\":\"count\",\"headers\":{\"to\":\"out\"},\"payload\":1}\n",
    );
    compiler(&stage, "read module < handler.py; while [ \"$1\" != -o ]; do shift; done; /bin/cp \"$module\" \"$2\"");
    stage
}

/// Puts a script in the place of the compiler.
fn compiler(stage: &Stage, script: &str) {
    let path = ".venv/bin/componentize-py";
    stage.write(path, format!("#!/bin/sh\n[ \"$1\" = --version ] && echo componentize-py 0.25.99 && exit\n{script}\n"));
    fs::set_permissions(stage.path(path), fs::Permissions::from_mode(0o755)).unwrap();
}

fn fails(output: &Output, status: i32, parts: &[&str]) {
    assert_eq!(output.status, status, "{}", output.stderr);
    for part in parts {
        assert!(output.stderr.contains(part), "{part:?} is not in:\n{}", output.stderr);
    }
}

#[test]
fn a_new_project_is_whole_in_every_language() {
    let stage = Stage::new("");
    for lang in ["rust", "js", "ts", "python", "c", "zig"] {
        let name = format!("my-{lang}");
        let made = stage.pelton(&["new", &name, "--lang", lang, "--json"]).json();
        assert_eq!((&made["project"], &made["language"]), (&json!(name), &json!(lang)));
        let files: Vec<&str> = made["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
        for file in ["workers.toml", "README.md", "tests/events.ndjson"] {
            assert!(files.contains(&file), "{lang}: {files:?}");
        }
        assert!(files.iter().all(|file| stage.path(&name).join(file).is_file()));
        // The module is not there yet, and nothing else is wrong.
        let config = stage.path(&name).join("workers.toml");
        let checked = stage.pelton(&["check", "-c", config.to_str().unwrap()]);
        let wrong: Vec<&str> = checked.stderr.lines().collect();
        assert_eq!(wrong.len(), 1, "{lang}: {checked:?}");
        assert!(wrong[0].contains(&format!("{name}.wasm cannot be read")), "{lang}: {}", wrong[0]);
    }
    let words = stage.pelton(&["new", "again", "--lang", "js"]).ok().stdout;
    assert!(words.contains("pelton build --install-tools") && words.contains("cd again"), "{words}");
}

#[test]
fn a_name_that_is_none_or_is_taken_is_refused_and_nothing_is_written() {
    let stage = Stage::new("");
    for name in ["../up", "Greeter", "test", "a b", ""] {
        fails(&stage.pelton(&["new", name, "--lang", "rust"]), 2, &["cannot be the name of a project"]);
    }
    fails(
        &stage.pelton(&["new", "fortran", "--lang", "fortran"]),
        2,
        &["possible values: rust, js, ts, python, c, zig"],
    );
    fs::create_dir(stage.path("taken")).unwrap();
    fails(&stage.pelton(&["new", "taken", "--lang", "c"]), 1, &["taken exists already", "choose another name"]);
    let names: Vec<_> = fs::read_dir(stage.path("taken")).unwrap().collect();
    assert!(names.is_empty());
}

#[test]
fn what_was_built_is_told_with_size_and_digest() {
    let stage = project();
    let built = stage.pelton(&["build", "--json"]).json();
    assert_eq!(built["bytes"], guest("misbehave").len());
    assert!(built["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(built["tool"], "componentize-py 0.25.99");
    let output = stage.pelton(&["build"]).ok();
    assert!(output.stdout.contains("greeter.wasm") && output.stdout.contains("KiB  sha256:"), "{}", output.stdout);
    assert_eq!(output.stderr.trim_end(), "building greeter with componentize-py 0.25.99");
}

#[test]
fn a_missing_compiler_is_told_how_to_get() {
    let stage = project();
    fs::remove_dir_all(stage.path(".venv")).unwrap();
    let mut command = stage.command(&["build"]);
    command.env("PELTON_TOOLS", stage.path("tools")).env("PATH", "/nonexistent");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for part in [
        "componentize-py is not installed; get it with one of",
        "pelton build --install-tools",
        "pip install componentize-py==",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let mut command = stage.command(&["build", "--install-tools"]);
    command.env("PELTON_TOOLS", stage.path("tools")).env("PATH", "/nonexistent");
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.contains("python3 is not installed; get Python 3.10 or later"), "{said}");
}

#[test]
fn what_a_compiler_says_is_shown_as_it_is_and_the_module_of_before_stays() {
    let stage = project();
    stage.pelton(&["build"]).ok();
    compiler(&stage, "printf '\\033[31merror\\033[0m: a mistake in line 7\\n' >&2; exit 3");
    fails(&stage.pelton(&["build"]), 1, &["\u{1b}[31merror\u{1b}[0m: a mistake in line 7", "componentize-py failed"]);
    assert_eq!(fs::read(stage.path("greeter.wasm")).unwrap(), guest("misbehave"));
    let left: Vec<_> = fs::read_dir(stage.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[test]
fn a_component_of_another_world_is_no_handler() {
    let stage = project();
    stage.write("other.wasm", wat::parse_str("(component)").unwrap());
    stage.write("handler.py", "other.wasm");
    fails(&stage.pelton(&["build"]), 1, &["the component exports [] but none of [pelton:worker/handler", "@handler"]);
    assert!(!stage.path("greeter.wasm").exists());
}

#[test]
fn an_sdk_newer_than_the_host_is_told_apart() {
    let stage = project();
    let newer = "(component (instance $nothing) (export \"pelton:worker/handler@0.9.0\" (instance $nothing)))";
    stage.write("newer.wasm", wat::parse_str(newer).unwrap());
    stage.write("handler.py", "newer.wasm");
    let words = "speaks version 0.9.0 of the contract pelton:worker, and this";
    fails(&stage.pelton(&["build"]), 1, &[words, "update pelton, or take the SDK of this one"]);
    fs::copy(stage.path("newer.wasm"), stage.path("greeter.wasm")).unwrap();
    let checked = stage.pelton(&["check"]);
    assert!(format!("{}{}", checked.stdout, checked.stderr).contains(words), "{checked:?}");
}

#[test]
fn an_sdk_is_brought_up_to_date_and_one_that_is_not_there_is_missed() {
    let stage = project();
    fails(&stage.pelton(&["build", "--update-sdk"]), 1, &["has no vendor/pelton that could be updated"]);
    fs::create_dir_all(stage.path("vendor/pelton/guest-sdk/python")).unwrap();
    stage.write("vendor/pelton/old", "old");
    let output = stage.pelton(&["build", "--update-sdk"]).ok();
    assert!(output.stderr.contains("vendor/pelton is that of pelton"), "{}", output.stderr);
    assert!(stage.path("vendor/pelton/wit/worker.wit").is_file() && !stage.path("vendor/pelton/old").exists());
}

#[test]
fn a_project_is_tested_with_its_own_events() {
    let stage = project();
    fails(&stage.pelton(&["test"]), 1, &["greeter.wasm is not there yet; `pelton build` makes it"]);
    stage.pelton(&["build"]).ok();
    let output = stage.pelton(&["test"]).ok();
    assert!(output.stdout.ends_with("1 done, 0 failed\n"), "{}", output.stdout);
    stage.pelton(&["test", "--update"]).ok();
    assert!(stage.pelton(&["test"]).ok().stdout.ends_with("1 as expected, 0 differ\n"));
    stage.write("v2.wasm", misbehave_v2());
    stage.write("handler.py", "v2.wasm");
    stage.pelton(&["build"]).ok();
    fails(&stage.pelton(&["test"]), 1, &["event \"one\" differs", "counted", "tallied"]);
    fails(&stage.pelton(&["test", "greeter.wasm"]), 2, &["name a file with --events"]);
    let with_events = ["test", "greeter.wasm", "--events", "tests/events.ndjson"];
    fails(&stage.pelton(&[&with_events[..], &["--update"]].concat()), 2, &["name it with --expect"]);
    fails(
        &stage.pelton(&[&with_events[..], &["--handler", "x"]].concat()),
        2,
        &["has no handler \"x\"; known: greeter"],
    );
}

#[test]
fn several_events_of_a_call_are_told_together_and_where_one_failed_each_alone() {
    let stage = project();
    stage.write("greeter.wasm", guest("misbehave-batch"));
    let event =
        |id: &str, kind: &str| json!({ "id": id, "key": "k", "kind": kind, "headers": {}, "payload": 1 }).to_string();
    let events = [event("a", "ok"), event("b", "ok"), event("c", "permanent"), event("d", "ok")].join("\n");
    stage.write("tests/events.ndjson", events);
    let lines: Vec<Value> = stage.pelton(&["test", "--batch", "4", "--json"]).lines();
    let told: Vec<(&str, &str)> =
        lines.iter().map(|line| (line["event"].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect();
    assert_eq!(told, [("a", "done"), ("b", "done"), ("c", "permanent"), ("d", "done")], "{lines:?}");
    let lines: Vec<Value> = stage.pelton(&["test", "--batch", "2", "--json"]).lines();
    assert_eq!(
        (&lines[0]["event"], &lines[0]["with"], &lines[0]["outcome"]),
        (&json!("a"), &json!(["b"]), &json!("done"))
    );
}

#[test]
fn a_change_is_built_swapped_in_and_shown_at_work() {
    let stage = project();
    let mut dev = stage.start(&["dev"]);
    let emitted = |what: &str| wait_for(what, || dev.log().contains(what).then_some(()));
    emitted("emitted");
    emitted("counted");
    compiler(&stage, "echo a mistake >&2; exit 1");
    stage.write("handler.py", "v2.wasm");
    emitted("componentize-py failed");
    stage.write("v2.wasm", misbehave_v2());
    compiler(&stage, "read module < handler.py; while [ \"$1\" != -o ]; do shift; done; /bin/cp \"$module\" \"$2\"");
    // The compiler is none of the sources; saving one again is what people do.
    stage.write("handler.py", "v2.wasm\n");
    emitted("tallied");
    dev.terminate();
    assert_eq!(dev.wait(), 0, "{}", dev.log());
    assert!(!dev.log().contains("panicked"), "{}", dev.log());
    assert!(!stage.path("pelton.db").exists(), "the project's own store is not touched");
}

#[test]
fn a_changed_configuration_is_taken_and_nothing_stays_behind_whatever_ends_the_command() {
    let stage = project();
    let dev = stage.start(&["dev"]);
    wait_for("an effect", || dev.log().contains("emitted").then_some(()));
    let more = stage.config().replace("[streams.out]", "[streams.more]\npartitions = 1\n[streams.out]");
    stage.write("workers.toml", more);
    wait_for("a new start", || dev.log().contains("has changed: the daemon starts anew").then_some(()));
    wait_for("another feed", || (dev.log().matches("appended 1 events").count() == 2).then_some(()));
    let folders = temporary_stores(dev.id());
    dev.kill();
    // The daemon notices that nobody is there any more.
    wait_for("the daemon's end", || folders.iter().all(|folder| !is_in_use(folder)).then_some(()));
    folders.iter().for_each(|folder| drop(fs::remove_dir_all(folder)));
}

/// What a process has open below folders of `pelton dev`.
fn temporary_stores(process: u32) -> Vec<std::path::PathBuf> {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let files = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut folders: Vec<_> = files
        .filter(|file| file.to_string_lossy().contains("pelton-dev."))
        .filter_map(|file| Some(file.parent()?.to_owned()))
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

/// Whether any process has a file open below a folder.
fn is_in_use(folder: &std::path::Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let open = processes.flat_map(|process| fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten());
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| file.starts_with(folder))
}

#[test]
fn a_folder_that_nothing_is_built_in_is_told_what_it_lacks() {
    let stage = Stage::new("");
    fails(&stage.pelton(&["dev"]), 1, &["is no handler project: it has none of Cargo.toml (Rust)"]);
    let stage = project();
    stage.write("workers.toml", "[store]\nurl = \"sqlite://pelton.db\"\n");
    fails(&stage.pelton(&["dev"]), 1, &["has no handler of module", "add one, and a group for it"]);
}
