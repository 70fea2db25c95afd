//! `[handlers]`

use std::{collections::BTreeMap, path::Path};

use pelton_sandbox::{Limits, Recycle, Secret};
use pelton_store::StreamSpec;

use super::{HandlerConfig, origins::http, reader::Section, rollout::rollout, units::show_size};

/// One page.
const MEMORY_LEAST: u64 = 64 << 10;
const MEMORY_MOST: u64 = 4 << 30;
const LOG_RATE_MOST: u64 = 1_000_000;
/// A body is held in memory.
const HTTP_BODY_MOST: u64 = 1 << 30;

pub(super) fn handlers(
    section: &Section<'_>,
    streams: &BTreeMap<String, StreamSpec>,
    folder: &Path,
) -> BTreeMap<String, HandlerConfig> {
    let named = section.named_sections().into_iter();
    named.map(|(name, section)| (name.clone(), handler(&name, section, streams, folder))).collect()
}

fn handler(name: &str, section: Section<'_>, streams: &BTreeMap<String, StreamSpec>, folder: &Path) -> HandlerConfig {
    let config = section.string_map("config");
    let secrets = secrets(&section, &config);
    // Whether a module can be loaded depends on what follows, up to the limits: with a fault in it nobody can tell.
    let before = section.faults();
    let allow = section.section("allow");
    let module = section.required_string("module", &format!("\"handlers/{name}.wasm\"")).unwrap_or_default();
    let digest = section.string("digest");
    if let Some(digest) = &digest
        && !is_digest(digest)
    {
        section.fault_at("digest", format_args!("expected \"sha256:\" and 64 hexadecimal digits, found {digest:?}"));
    }
    let http = http(&allow);
    let [clocks, random] = ["clocks", "random"].map(|name| allow.boolean(name).unwrap_or(false));
    let (limits, recycle) = limits_and_recycle(&section);
    if section.faults() == before {
        section.mark("module");
    }
    let emit = emit(&allow, streams);
    allow.finish();
    let rollout = rollout(&section);
    section.finish();
    let module = folder.join(module);
    HandlerConfig { module, digest, config, secrets, emit, http, clocks, random, limits, recycle, rollout }
}

/// What `secrets` says. A handler reads both through one interface, where a name stands for one value.
fn secrets(section: &Section<'_>, config: &[(String, String)]) -> Vec<(String, Secret)> {
    let secrets = section.secret_map("secrets");
    for (name, _) in secrets.iter().filter(|(name, _)| config.iter().any(|(other, _)| other == name)) {
        section.fault_of_entry(
            "secrets",
            name,
            "config has this name too, and a handler reads both through one interface; remove it from one of them",
        );
    }
    secrets
}

fn emit(allow: &Section<'_>, streams: &BTreeMap<String, StreamSpec>) -> Vec<String> {
    let emit = allow.strings("emit").unwrap_or_default();
    for stream in emit.iter().filter(|stream| !streams.contains_key(*stream)) {
        allow.fault_at("emit", format_args!("stream {stream:?} is not declared; add [streams.{stream}]"));
    }
    emit
}

/// `limits` and `instances`, of which one memory bounds the other.
fn limits_and_recycle(handler: &Section<'_>) -> (Limits, Recycle) {
    let section = handler.section("limits");
    let limits = limits(&section);
    let memory = section.size("memory");
    // What cannot be read is a fault already, and not one of the fields that depend on it.
    let is_known = memory.is_some() || !section.is_set("memory");
    section.finish();

    let section = handler.section("instances");
    let mark = section.size("memory");
    let usual = Recycle::default();
    let recycle = Recycle {
        calls: section.integer("reuse", 1, u64::from(u32::MAX)).unwrap_or(usual.calls),
        age: section.duration("age").unwrap_or(usual.age),
        memory_bytes: mark.unwrap_or(limits.memory_bytes / 4 * 3),
    };
    if recycle.age.is_zero() {
        section.fault_at("age", "expected more than 0; reuse = 1 gives every call a fresh instance");
    }
    if mark == Some(0) {
        section.fault_at("memory", "expected more than 0; reuse = 1 gives every call a fresh instance");
    }
    if let Some(mark) = mark.filter(|mark| is_known && *mark > limits.memory_bytes) {
        let (mark, limit) = (show_size(mark), show_size(limits.memory_bytes));
        let of_limit = if memory.is_some() { "" } else { ", the default" };
        section.fault_at("memory", format_args!("({mark}) must be at most limits.memory ({limit}{of_limit}): no instance ever has more; lower it, or raise limits.memory"));
    }
    section.finish();
    (limits, recycle)
}

fn limits(section: &Section<'_>) -> Limits {
    let usual = Limits::default();
    let integer = |name, least, most, usual: u32| section.integer(name, least, most).map_or(usual, |n| n as u32);
    let limits = Limits {
        memory_bytes: section.size("memory").unwrap_or(usual.memory_bytes),
        table_elements: section.integer("table", 1, Limits::TABLE_ELEMENTS_MOST).unwrap_or(usual.table_elements),
        stack_bytes: section.size("stack").unwrap_or(usual.stack_bytes),
        timeout: section.duration("timeout").unwrap_or(usual.timeout),
        output_bytes: section.size("output").unwrap_or(usual.output_bytes),
        log_lines: integer("log_rate", 1, LOG_RATE_MOST, usual.log_lines),
        instances: integer("instances", 0, u64::from(u32::MAX), usual.instances),
        http_body_bytes: section.size("http_body").unwrap_or(usual.http_body_bytes),
    };
    if limits.timeout.is_zero() {
        section.fault_at("timeout", "expected more than 0; no call could ever end in time");
    }
    if !(MEMORY_LEAST..=MEMORY_MOST).contains(&limits.memory_bytes) {
        let found = limits.memory_bytes;
        section.fault_at("memory", format_args!("expected \"64KiB\" (one page) to \"4GiB\", found {found} bytes"));
    }
    let (least, most) = (Limits::STACK_BYTES_LEAST, Limits::STACK_BYTES_MOST);
    if !(least..=most).contains(&limits.stack_bytes) {
        let [least, most, found] = [least, most, limits.stack_bytes].map(show_size);
        section.fault_at("stack", format_args!("expected {least:?} to {most:?}, found {found:?}"));
    }
    if limits.http_body_bytes > HTTP_BODY_MOST {
        let [most, found] = [HTTP_BODY_MOST, limits.http_body_bytes].map(show_size);
        section.fault_at("http_body", format_args!("expected at most {most:?}, found {found:?}"));
    }
    limits
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}
