//! One handler, written with every SDK, does the same with the same events: `guest-sdk/conformance`. Run by
//! `scripts/conformance`, which builds the handlers; what comes out is the table in `docs/languages.md`.
#![allow(clippy::unwrap_used, reason = "what is not there fails the test, which is what it is for")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Where the handlers are: `rust.wasm`, `rust-batch.wasm` and so on.
const MODULES_VAR: &str = "PELTON_TEST_CONFORMANCE";
/// Whether the table is written instead of compared.
const UPDATE_VAR: &str = "PELTON_UPDATE_DOCS";
const BEGIN: &str = "<!-- the table: made by scripts/conformance --update -->\n";
const END: &str = "<!-- end of the table -->\n";

/// The name of an SDK, and how the table calls its languages.
const LANGUAGES: [(&str, &str); 5] =
    [("rust", "Rust"), ("javascript", "JavaScript, TypeScript"), ("python", "Python"), ("c", "C"), ("zig", "Zig")];

#[derive(Deserialize)]
struct Features {
    feature: Vec<Feature>,
}

#[derive(Deserialize)]
struct Feature {
    id: String,
    name: String,
    /// How each language says it.
    #[serde(flatten)]
    words: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Case {
    feature: String,
    event: Value,
    /// Absent where the event is handled together with one before it.
    expect: Option<Value>,
}

#[test]
fn every_language_does_the_same() {
    let Some(modules) = env::var_os(MODULES_VAR).map(PathBuf::from) else {
        let line = format!("NOT RUN: the guest conformance suite: {MODULES_VAR} names no folder of handlers\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let features: Features = toml::from_str(&read(&suite().join("features.toml"))).unwrap();
    let named: BTreeSet<String> = features.feature.iter().map(|feature| feature.id.clone()).collect();
    let tried: BTreeSet<String> =
        ["worker", "batch"].iter().flat_map(|file| cases(file)).map(|case| case.feature).collect();
    assert_eq!(named, tried, "every feature has cases, and every case is of a feature");
    let mut faults = Vec::new();
    let mut failed: BTreeSet<(&str, String)> = BTreeSet::new();
    for (language, _) in LANGUAGES {
        for (cases, module, batch) in [("worker", language.to_owned(), 1), ("batch", format!("{language}-batch"), 4)] {
            for (feature, fault) in run(&features, language, cases, &modules.join(format!("{module}.wasm")), batch) {
                failed.insert((language, feature.clone()));
                faults.push(format!("{module}: {feature}: {fault}"));
            }
        }
    }
    let table = table(&features, &failed);
    let page = root().join("docs/languages.md");
    let text = read(&page);
    let (before, rest) = text.split_once(BEGIN).expect("the page has a place for the table");
    let (found, after) = rest.split_once(END).expect("the place for the table ends");
    if env::var_os(UPDATE_VAR).is_some() {
        fs::write(&page, [before, BEGIN, &table, END, after].concat()).unwrap();
    }
    assert!(faults.is_empty(), "{} differ from what the suite expects:\n{}", faults.len(), faults.join("\n"));
    assert!(
        env::var_os(UPDATE_VAR).is_some() || found == table,
        "the table in docs/languages.md is not what came out; `scripts/conformance --update` writes it:\n{table}"
    );
}

/// Runs the cases of a file through a handler; gives back what differs, by feature.
fn run(features: &Features, language: &str, cases: &str, module: &Path, batch: u32) -> Vec<(String, String)> {
    let offered: BTreeSet<&str> = features
        .feature
        .iter()
        .filter(|feature| feature.words.contains_key(language))
        .map(|feature| &*feature.id)
        .collect();
    let cases: Vec<Case> = self::cases(cases).into_iter().filter(|case| offered.contains(&*case.feature)).collect();

    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("events.ndjson");
    let lines: String = cases.iter().map(|case| format!("{}\n", expanded(&case.event))).collect();
    fs::write(&events, lines).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pelton"))
        .args(["test", "--json", "--handler", "conformance", "--batch", &batch.to_string(), "--events"])
        .arg(&events)
        .arg("--config")
        .arg(suite().join("workers.toml"))
        .arg(module)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let found: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let expected: Vec<&Case> = cases.iter().filter(|case| case.expect.is_some()).collect();
    if found.len() != expected.len() {
        let ids: Vec<_> = found.iter().map(|line| line["event"].as_str().unwrap_or_default()).collect();
        let fault = format!("expected {} lines, found {} ({}) {said}", expected.len(), found.len(), ids.join(", "));
        return vec![("all".into(), fault)];
    }
    let pairs = expected.iter().zip(&found);
    let faults = pairs.filter_map(|(case, found)| {
        let fault = differs(case.event["id"].as_str().unwrap(), case.expect.as_ref().unwrap(), found)?;
        Some((case.feature.clone(), fault))
    });
    faults.collect()
}

/// What is not as expected of a line of `pelton test`.
fn differs(id: &str, expect: &Value, found: &Value) -> Option<String> {
    let fault = |what: &str, expected: &Value, found: &Value| {
        let short = |value: &Value| value.to_string().chars().take(400).collect::<String>();
        Some(format!("event {id:?}: {what}: expected {}, found {}", short(expected), short(found)))
    };
    if found["event"] != id {
        return fault("event", &json!(id), &found["event"]);
    }
    for (field, expected) in expect.as_object().unwrap() {
        let is = &found[field];
        let same = match field.as_str() {
            "emitted" => emitted(expected, is),
            "state" => state(expected, is),
            "logs" => logs(expected, is),
            _ => text(expected, is),
        };
        if !same {
            let is = if field == "outcome" { found } else { is };
            return fault(field, expected, is);
        }
    }
    None
}

/// Equal; or a text that contains what is listed, and not what it is to be without.
fn text(expected: &Value, found: &Value) -> bool {
    let Some(rules) = expected.as_object() else { return expected == found };
    let found = found.as_str().unwrap_or_default();
    let contains = rules["contains"].as_array().cloned().unwrap_or_else(|| vec![rules["contains"].clone()]);
    contains.iter().all(|part| found.contains(part.as_str().unwrap()))
        && rules.get("without").is_none_or(|part| !found.contains(part.as_str().unwrap()))
}

fn emitted(expected: &Value, found: &Value) -> bool {
    let found = found.as_array().cloned().unwrap_or_default();
    if let Some(count) = expected["$count"].as_u64() {
        let right = |(index, event): (usize, &Value)| {
            event["stream"] == expected["stream"]
                && event["kind"] == expected["kind"]
                && event["payload"] == json!(index)
        };
        return found.len() as u64 == count && found.iter().enumerate().all(right);
    }
    let expected = expected.as_array().unwrap();
    expected.len() == found.len() && expected.iter().zip(&found).all(|(expected, found)| event(expected, found))
}

/// Of an emitted event everything counts: what is not named is not to be there. Only the id may be the host's own.
fn event(expected: &Value, found: &Value) -> bool {
    let or = |field: &str, default: Value| expected.get(field).cloned().unwrap_or(default);
    let same = |field: &str, default: Value| found[field] == or(field, default);
    let payload = || found["payload_base64"].as_str().map(|text| BASE64_STANDARD.decode(text).unwrap());
    let as_text =
        || payload().map_or_else(|| found["payload"].to_string(), |bytes| String::from_utf8_lossy(&bytes).into());
    let payload_is = match (expected.get("payload"), expected.get("payload_base64"), expected.get("text")) {
        (Some(json), _, _) => found["payload"] == expanded(json),
        (_, Some(bytes), _) => found["payload_base64"] == *bytes,
        (_, _, Some(expected)) => text(expected, &json!(as_text())),
        _ => panic!("an expected event names no payload: {expected}"),
    };
    same("stream", Value::Null)
        && same("kind", Value::Null)
        && same("key", Value::Null)
        && same("headers", json!({}))
        && expected.get("id").is_none_or(|id| *id == found["id"])
        && payload_is
}

fn state(expected: &Value, found: &Value) -> bool {
    let (expected, found) = (expected.as_object().unwrap(), found.as_object().unwrap());
    let value = |expected: &Value, found: &Value| match expected.get("json") {
        Some(json) => {
            serde_json::from_str::<Value>(found.as_str().unwrap_or_default()).is_ok_and(|found| found == *json)
        }
        None => expected == found,
    };
    expected.len() == found.len()
        && expected.iter().all(|(key, expected)| found.get(key).is_some_and(|found| value(expected, found)))
}

/// A line is its level, perhaps a context, and the message.
fn logs(expected: &Value, found: &Value) -> bool {
    let (expected, found) = (expected.as_array().unwrap(), found.as_array().unwrap());
    let line = |expected: &Value, found: &Value| match expected.as_str() {
        None => text(expected, found),
        Some(expected) => {
            let (level, message) = expected.split_once(' ').unwrap();
            let found = found.as_str().unwrap_or_default();
            found.split(' ').next() == Some(level) && found.ends_with(&format!(" {message}"))
        }
    };
    expected.len() == found.len() && expected.iter().zip(found).all(|(expected, found)| line(expected, found))
}

/// `{"$repeat": [text, times]}` stands for a long text.
fn expanded(value: &Value) -> Value {
    match value {
        Value::Object(fields) if fields.contains_key("$repeat") => {
            let repeat = &fields["$repeat"];
            repeat[0].as_str().unwrap().repeat(usize::try_from(repeat[1].as_u64().unwrap()).unwrap()).into()
        }
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), expanded(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn table(features: &Features, failed: &BTreeSet<(&str, String)>) -> String {
    let heading: String = LANGUAGES.iter().map(|(_, name)| format!(" {name} |")).collect();
    let rule = " --- |".repeat(LANGUAGES.len());
    let mut table = format!("| |{heading}\n| --- |{rule}\n");
    for Feature { id, name, words, .. } in &features.feature {
        let cell = |language: &str| match words.get(language) {
            None => "–".to_owned(),
            Some(_) if failed.contains(&(language, id.clone())) || failed.contains(&(language, "all".into())) => {
                "**fails**".into()
            }
            Some(words) => words.clone(),
        };
        let cells: String = LANGUAGES.iter().map(|(language, _)| format!(" {} |", cell(language))).collect();
        table += &format!("| {name} |{cells}\n");
    }
    table
}

fn cases(file: &str) -> Vec<Case> {
    let text = read(&suite().join(format!("cases/{file}.ndjson")));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn suite() -> PathBuf {
    root().join("guest-sdk/conformance")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
