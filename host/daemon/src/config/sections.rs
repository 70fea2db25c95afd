//! `[host]`, `[store]`, `[streams]` and `[handlers]`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use pelton_sandbox::Limits;
use pelton_store::{Durability, StreamSpec};

use super::{
    HandlerConfig, HostConfig, StoreConfig,
    reader::{Document, Section},
    units::show_duration,
};

const PARTITIONS_DEFAULT: u32 = 8;
/// Positions of all partitions are written and polled together.
const PARTITIONS_MAX: u64 = 4096;
const PAYLOAD_MAX_DEFAULT: u64 = 1 << 20;
/// A payload is held in memory several times over, by host and guest.
const PAYLOAD_MAX_MOST: u64 = 64 << 20;
const REUSE_DEFAULT: u64 = 10_000;
const CLEANUP_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// More often would be work for nothing: only rows that nobody looks at any more are removed.
const CLEANUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
const LABEL_BYTES_MAX: usize = 256;
const SCHEMA_DEFAULT: &str = "pelton";
/// PostgreSQL cuts longer names off.
const SCHEMA_BYTES_MAX: usize = 63;

pub(super) fn host(section: Section<'_>, folder: &Path) -> HostConfig {
    let id = section.string("id");
    if let Some(Err(fault)) = id.as_deref().map(pelton_core::check_name) {
        section.fault_at("id", fault);
    }
    let cleanup_interval = section.duration("cleanup_interval").unwrap_or(CLEANUP_INTERVAL_DEFAULT);
    if cleanup_interval < CLEANUP_INTERVAL_MIN {
        let (least, found) = (show_duration(CLEANUP_INTERVAL_MIN), show_duration(cleanup_interval));
        section.fault_at(
            "cleanup_interval",
            format_args!("expected at least {least:?}, found {found:?}; take-over never waits for it"),
        );
    }
    let host = HostConfig {
        id,
        cache: folder.join(section.string("cache").unwrap_or_else(|| ".pelton/cache".into())),
        shutdown_grace: section.duration("shutdown_grace").unwrap_or(Duration::from_secs(10)),
        cleanup_interval,
        labels: labels(&section),
    };
    section.finish();
    host
}

fn labels(host: &Section<'_>) -> BTreeMap<String, String> {
    let labels: BTreeMap<_, _> = host.string_map("labels").into_iter().collect();
    for (name, value) in &labels {
        if let Err(fault) = pelton_core::check_name(name) {
            host.fault_at("labels", fault);
        }
        let bytes = value.len();
        if bytes > LABEL_BYTES_MAX {
            host.fault_at(
                "labels",
                format_args!(
                    "expected at most {LABEL_BYTES_MAX} bytes in {name:?}, found {bytes}; labels are shown in tables"
                ),
            );
        }
        if value.chars().any(char::is_control) {
            host.fault_at("labels", format_args!("expected one line of text in {name:?}, found {value:?}"));
        }
    }
    labels
}

pub(super) fn store(section: Section<'_>, folder: &Path, document: &Document<'_>) -> StoreConfig {
    let declared = section.string("url");
    let overridden = document.variable("PELTON_STORE");
    let source = if overridden.is_some() { " (from PELTON_STORE)" } else { "" };
    // A file that is made for PostgreSQL may say `schema` although a test of it runs on SQLite.
    let meant_for_postgres = declared.as_deref().is_some_and(is_postgres);
    let url = overridden.or(declared).unwrap_or_else(|| "sqlite://pelton.db".into());
    let url = match url.strip_prefix("sqlite://") {
        Some("") => {
            section
                .fault_at("url", format_args!("expected a file after sqlite://, as in \"sqlite://pelton.db\"{source}"));
            url
        }
        Some(path) => {
            if !meant_for_postgres && section.is_set("schema") {
                section.fault_at(
                    "schema",
                    "only means something with PostgreSQL, and the store is SQLite; remove it, or change store.url",
                );
            }
            format!("sqlite://{}", folder.join(path).display())
        }
        None if is_postgres(&url) => url,
        None => {
            // The URL may hold a password: only its scheme is shown.
            let scheme = url.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
            section.fault_at(
                "url",
                format_args!(
                    "expected \"sqlite://FILE\" or \"postgres://USER@HOST/DATABASE\", found {scheme:?}{source}"
                ),
            );
            url
        }
    };
    let schema = section.string("schema").unwrap_or_else(|| SCHEMA_DEFAULT.into());
    if !is_schema(&schema) {
        section.fault_at("schema", format_args!("expected 1 to {SCHEMA_BYTES_MAX} lower-case letters, digits or '_', not beginning with a digit, found {schema:?}"));
    }
    let durability = [("durable", Durability::Durable), ("relaxed", Durability::Relaxed)];
    let store = StoreConfig {
        url,
        schema,
        auto_migrate: section.boolean("auto_migrate").unwrap_or(true),
        durability: section.word("durability", &durability).unwrap_or_default(),
    };
    section.finish();
    store
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// A name that needs no quotes in SQL: what it is called there and what people type are the same.
fn is_schema(name: &str) -> bool {
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    begins && name.len() <= SCHEMA_BYTES_MAX && name.chars().all(legal)
}

pub(super) fn streams(section: &Section<'_>) -> BTreeMap<String, StreamSpec> {
    let read = |(name, section): (String, Section<'_>)| {
        let partitions = section.integer("partitions", 1, PARTITIONS_MAX).map_or(PARTITIONS_DEFAULT, |n| n as u32);
        let payload_bytes_max = section.size("payload_max").unwrap_or(PAYLOAD_MAX_DEFAULT);
        if payload_bytes_max > PAYLOAD_MAX_MOST {
            let most = PAYLOAD_MAX_MOST >> 20;
            section.fault_at("payload_max", format_args!("expected at most \"{most}MiB\", found {payload_bytes_max} bytes; put larger bodies elsewhere and their address into the event"));
        }
        let retention = section.duration("retention");
        if retention.is_some_and(|retention| retention.is_zero()) {
            section
                .fault_at("retention", "expected more than 0, or no retention at all: events are kept for ever then");
        }
        section.finish();
        let retention_ms = retention.map(|retention| retention.as_millis() as u64);
        (name.clone(), StreamSpec { name, partitions, payload_bytes_max, retention_ms })
    };
    section.named_sections().into_iter().map(read).collect()
}

pub(super) fn handlers(
    section: &Section<'_>,
    streams: &BTreeMap<String, StreamSpec>,
    folder: &Path,
) -> BTreeMap<String, HandlerConfig> {
    let named = section.named_sections().into_iter();
    named.map(|(name, section)| (name.clone(), handler(&name, section, streams, folder))).collect()
}

fn handler(name: &str, section: Section<'_>, streams: &BTreeMap<String, StreamSpec>, folder: &Path) -> HandlerConfig {
    let module = section.required_string("module", &format!("\"handlers/{name}.wasm\"")).unwrap_or_default();
    let digest = section.string("digest");
    if let Some(digest) = &digest
        && !is_digest(digest)
    {
        section.fault_at("digest", format_args!("expected \"sha256:\" and 64 hexadecimal digits, found {digest:?}"));
    }

    let allow = section.section("allow");
    let emit = allow.strings("emit").unwrap_or_default();
    for stream in emit.iter().filter(|stream| !streams.contains_key(*stream)) {
        allow.fault_at("emit", format_args!("stream {stream:?} is not declared; add [streams.{stream}]"));
    }
    allow.finish();

    let limits_section = section.section("limits");
    let usual = Limits::default();
    let limits = Limits {
        memory_bytes: limits_section.size("memory").unwrap_or(usual.memory_bytes),
        timeout: limits_section.duration("timeout").unwrap_or(usual.timeout),
        output_bytes: limits_section.size("output").unwrap_or(usual.output_bytes),
    };
    if limits.timeout.is_zero() {
        limits_section.fault_at("timeout", "expected more than 0; no call could ever end in time");
    }
    if limits.memory_bytes < 64 << 10 || limits.memory_bytes > 4 << 30 {
        let found = limits.memory_bytes;
        limits_section
            .fault_at("memory", format_args!("expected \"64KiB\" (one page) to \"4GiB\", found {found} bytes"));
    }
    limits_section.finish();

    let instances = section.section("instances");
    let reuse_calls = instances.integer("reuse", 1, u64::from(u32::MAX)).unwrap_or(REUSE_DEFAULT);
    instances.finish();

    let config = section.string_map("config");
    section.finish();
    HandlerConfig { module: folder.join(module), digest, config, emit, limits, reuse_calls }
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}
