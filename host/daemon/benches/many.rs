//! A thousand handlers on one host: how long it takes until all their groups work, and how much memory it takes.
//!
//! `cargo bench -p pelton --bench many [-- HANDLERS]`, on SQLite.
//!
//! Each handler has a group of its own, over one stream of one partition with one event in it. They are the same small
//! component, once under as many digests as there are handlers, by a custom section with a number at its end, and once
//! under one. Each daemon runs in a process of its own, twice over the same folder: first nothing is compiled and nothing is
//! in the store, then everything is. It is at work when every group has committed the event.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    fmt::Write,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use pelton_core::NewEvent;
use pelton_store::{StoreOptions, StreamSpec};
use tokio::runtime::Builder;

const HANDLERS: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    // The daemon is this program too, and starts it to compile modules.
    if std::env::args().nth(1).is_some_and(|command| command == "compile-module" || command == "run") {
        return pelton::cli::main();
    }
    let handlers = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(HANDLERS);
    let module =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests/prebuilt/noop.wasm"))
            .unwrap();
    println!("{:40} {:>9} {:>12} {:>12} {:>12}", "", "at work", "processor", "resident", "of it file");
    for count in [1, handlers] {
        for is_one in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            for n in 0..count {
                let mut module = module.clone();
                if !is_one {
                    module.extend([0, 10, 1, b'n']);
                    module.extend(n.to_le_bytes());
                }
                std::fs::write(folder.path().join(format!("h{n}.wasm")), module).unwrap();
            }
            let what = if is_one { "one digest" } else { "a digest each" };
            for (round, when) in [(0, "first start"), (1, "next start")] {
                let figures = start(folder.path(), count, round);
                println!("{:40} {figures}", format!("{count} handlers, {what}, {when}"));
            }
        }
    }
    ExitCode::SUCCESS
}

fn start(folder: &Path, handlers: u64, round: u64) -> String {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("sqlite://{}", folder.join("bench.db").display());
    let mut workers = format!(
        "[host]\nid = \"host-{round}\"\ncache = {:?}\n[store]\nurl = {url:?}\n[streams.events]\npartitions = 1\n",
        folder.join("cache")
    );
    for n in 0..handlers {
        write!(
            workers,
            "[handlers.h{n}]\nmodule = \"h{n}.wasm\"\n[groups.g{n}]\nstream = \"events\"\nhandler = \"h{n}\"\n"
        )
        .unwrap();
    }
    std::fs::write(folder.join("workers.toml"), workers).unwrap();
    let store = runtime.block_on(async {
        let store = pelton_store::open(&url, &StoreOptions::default()).await.unwrap();
        let spec = StreamSpec { name: "events".into(), partitions: 1, payload_bytes_max: 1 << 20, retention_ms: None };
        store.declare_stream(&spec).await.unwrap();
        let event = NewEvent { id: format!("event-{round}"), kind: "nothing".into(), ..NewEvent::default() };
        store.append("events", vec![event]).await.unwrap();
        store
    });

    let began = Instant::now();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["run", "--config"])
        .arg(folder.join("workers.toml"))
        .stdout(Stdio::null())
        .stderr(if std::env::var_os("PELTON_BENCH_LOG").is_some() { Stdio::inherit() } else { Stdio::null() })
        .spawn()
        .unwrap();
    runtime.block_on(async {
        loop {
            let progress = store.progress().await.unwrap();
            if progress.len() as u64 == handlers && progress.iter().all(|row| row.committed.0 == round + 1) {
                break;
            }
            assert!(began.elapsed() < PATIENCE && daemon.try_wait().unwrap().is_none(), "not all groups work");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let took = began.elapsed();
    let processor = processor_secs(daemon.id());
    // What was needed for the start only is given back, or never will be.
    thread::sleep(Duration::from_secs(2));
    let (resident, of_files) = (status_mib(daemon.id(), "VmRSS:"), status_mib(daemon.id(), "RssFile:"));
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    daemon.wait().unwrap();
    format!("{:>7.2} s {processor:>10.2} s {resident:>8.1} MiB {of_files:>8.1} MiB", took.as_secs_f64())
}

/// What a process and those it waited for have computed; 0 where the system does not tell, which is everywhere but on Linux.
fn processor_secs(process: u32) -> f64 {
    let told = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = told.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = after_name.split(' ').skip(11).take(4).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

fn status_mib(process: u32, field: &str) -> f64 {
    let told = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}
