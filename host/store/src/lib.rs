//! Streams, groups and what commits with them, behind one trait with several engines.
//!
//! `core` says what the rules are; this crate keeps them in storage. One conformance suite (`tests/conformance`) holds
//! every engine to the same meaning.

mod error;
mod memory;
mod open;
mod postgres;
mod rules;
mod sqlite;
mod store;
mod wakeup;

pub use error::StoreError;
pub use memory::MemoryStore;
pub use open::{StoreOptions, check_url, open, without_password};
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
pub use store::{
    Appended, Backup, Changed, Clock, ConsumerInfo, Durability, GroupInfo, GroupPartition, GroupSpec, HandledRange,
    HandlerReport, HandlerState, HostInfo, LETTERS_AT_ONCE, LetterInfo, LetterQuery, ParkedKey, Progress, RANGES_MAX,
    ReadLimit, Registration, Reset, Start, Store, StreamInfo, StreamPartition, StreamSpec, system_clock,
};
