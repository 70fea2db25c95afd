//! What a handler uses on this host, over all its versions and instances: for overviews, and for the limits that count
//! across instances.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{gate::Gate, log_budget::LogBudget};

/// Counters of one handler. Those that only grow count since the host started.
#[derive(Debug, Default)]
pub struct Usage {
    /// Instances alive now.
    pub instances: AtomicU64,
    /// Instances made.
    pub instances_made: AtomicU64,
    /// Instances that made way because of calls, age or memory.
    pub recycled: AtomicU64,
    /// Linear memory of all instances alive now, in bytes.
    pub memory_bytes: AtomicU64,
    /// The most that one instance ever had, in bytes.
    pub memory_bytes_most: AtomicU64,
    /// Times that memory, a table or a further instance was refused.
    pub refused: AtomicU64,
    /// Log lines that were dropped: too many a second, or too much in one call.
    pub log_lines_dropped: AtomicU64,
    /// HTTP requests that went out.
    pub http_requests: AtomicU64,
    /// HTTP requests that were denied.
    pub http_denied: AtomicU64,
    /// Who may have an instance.
    pub(crate) gate: Gate,
    /// How much may be said.
    pub(crate) log_budget: LogBudget,
}

impl Usage {
    /// Every counter by its name, in the order in which they are shown.
    #[must_use]
    pub fn read(&self) -> [(&'static str, u64); 9] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("instances", read(&self.instances)),
            ("instances_made", read(&self.instances_made)),
            ("recycled", read(&self.recycled)),
            ("memory_bytes", read(&self.memory_bytes)),
            ("memory_bytes_most", read(&self.memory_bytes_most)),
            ("refused", read(&self.refused)),
            ("log_lines_dropped", read(&self.log_lines_dropped)),
            ("http_requests", read(&self.http_requests)),
            ("http_denied", read(&self.http_denied)),
        ]
    }
}
