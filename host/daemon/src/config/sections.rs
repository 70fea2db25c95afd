//! `[host]`, `[store]` and `[streams]`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use pelton_store::{Durability, StreamSpec};

use super::{
    HostConfig, StoreConfig,
    reader::{Document, Section},
    units::{show_duration, show_size},
};

const PARTITIONS_DEFAULT: u32 = 8;
/// Positions of all partitions are written and polled together.
pub(super) const PARTITIONS_MAX: u64 = 4096;
const PAYLOAD_MAX_DEFAULT: u64 = 1 << 20;
/// A payload is held in memory several times over, by host and guest.
const PAYLOAD_MAX_MOST: u64 = 64 << 20;
const CLEANUP_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// More often would be work for nothing: only rows that nobody looks at any more are removed.
const CLEANUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
const CACHE_MAX_DEFAULT: u64 = 1 << 30;
/// A module of an interpreter takes about as much: less would throw away what was just compiled.
const CACHE_MAX_LEAST: u64 = 16 << 20;
/// Each takes a processor and some hundred MiB.
const COMPILATIONS_MOST: u64 = 64;
const MEMORY_LEAST: u64 = 1 << 20;
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
    let memory_bytes_max = section.size("memory");
    at_least(&section, "memory", memory_bytes_max, MEMORY_LEAST);
    let cache_bytes_max = section.size("cache_max");
    at_least(&section, "cache_max", cache_bytes_max, CACHE_MAX_LEAST);
    let host = HostConfig {
        id,
        cache: folder.join(section.string("cache").unwrap_or_else(|| ".pelton/cache".into())),
        cache_bytes_max: cache_bytes_max.unwrap_or(CACHE_MAX_DEFAULT),
        compilations: section.integer("compilations", 1, COMPILATIONS_MOST).map_or(1, |n| n as usize),
        memory_bytes_max,
        shutdown_grace: section.duration("shutdown_grace").unwrap_or(Duration::from_secs(10)),
        cleanup_interval,
        labels: labels(&section),
    };
    section.finish();
    host
}

fn at_least(host: &Section<'_>, name: &'static str, found: Option<u64>, least: u64) {
    if let Some(found) = found.filter(|found| *found < least) {
        let (least, found) = (show_size(least), show_size(found));
        host.fault_at(name, format_args!("expected at least {least:?}, found {found:?}"));
    }
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
        None if is_postgres(&url) => {
            if let Err(reason) = pelton_store::check_url(&url) {
                section.fault_at("url", format_args!("{reason}{source}"));
            }
            url
        }
        None => {
            // The URL may hold a password: only its scheme is shown.
            let found = match url.split_once("://") {
                Some((scheme, _)) => format!("{scheme:?}{source}"),
                None => format!("a URL without \"://\"{source}; write {:?}", with_slashes(&url)),
            };
            let expected = "expected \"sqlite://FILE\" or \"postgres://USER@HOST/DATABASE\"";
            section.fault_at("url", format_args!("{expected}, found {found}"));
            url
        }
    };
    let schema = section.string("schema").unwrap_or_else(|| SCHEMA_DEFAULT.into());
    if !is_schema(&schema) {
        section.fault_at("schema", format_args!("expected 1 to {SCHEMA_BYTES_MAX} lower-case letters, digits or '_', not beginning with a digit or \"pg_\", found {schema:?}"));
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

/// What was meant by a URL that lacks them. Only what looks like a file is shown: anything else may hold a password.
fn with_slashes(url: &str) -> String {
    let file = url.strip_prefix("sqlite:").unwrap_or(url);
    if file.is_empty() || file.contains([':', '@']) { "sqlite://pelton.db".into() } else { format!("sqlite://{file}") }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// A name that needs no quotes in SQL: what it is called there and what people type are the same.
fn is_schema(name: &str) -> bool {
    // What begins with pg_, PostgreSQL keeps for itself.
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && !name.starts_with("pg_");
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
        section.mark("partitions");
        let retention = section.duration_or_for_ever("retention", "events");
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
