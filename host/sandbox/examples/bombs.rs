//! Writes modules into a folder that cost whoever compiles them more than they look like: `doubling.wasm`, a component of a
//! few KiB that unfolds into 2^40 parts, and `functions.wasm`, a handler with 100,000 functions, all of them alike so that
//! it can be packed. `scripts/attacks` takes them from `tests/guests/prebuilt`.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "a tool for tests")]

#[path = "../tests/common/text.rs"]
mod text;

use std::{env, fmt::Write, fs, path::PathBuf};

fn main() {
    let folder = PathBuf::from(env::args().nth(1).expect("a folder"));
    fs::write(folder.join("doubling.wasm"), doubling()).unwrap();
    fs::write(folder.join("functions.wasm"), functions(100_000)).unwrap();
}

fn doubling() -> Vec<u8> {
    let mut text = "(component (component $c0 (core module $m (func)) (core instance (instantiate $m)))".to_owned();
    for level in 1..=40 {
        let below = level - 1;
        write!(text, "(component $c{level} (instance (instantiate $c{below})) (instance (instantiate $c{below})))")
            .unwrap();
    }
    text.push_str("(instance (instantiate $c40)))");
    text::encode(&text)
}

fn functions(count: usize) -> Vec<u8> {
    text::handler(&"(func (param i32) (result i32) (i32.add (local.get 0) (i32.const 7)))".repeat(count), "")
}
