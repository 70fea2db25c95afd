//! Bounds on what an instance takes from the host: memory, tables and the instances inside it.

use wasmtime::ResourceLimiter;

/// Elements of all tables together. CPython, the largest guest known, has some 20,000 functions.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// A component is many core modules linked together; `componentize-py` makes some dozens, with one memory.
const CORE_INSTANCES_MAX: usize = 500;
const TABLES_MAX: usize = 100;
const MEMORIES_MAX: usize = 20;

/// Counts what one instance has, and remembers that it was refused more.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    bytes_max: u64,
    bytes: u64,
    bytes_last: u64,
    table_elements: usize,
    denied: bool,
}

impl MemoryLimiter {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, bytes_last: 0, table_elements: 0, denied: false }
    }

    /// All linear memories together, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether memory was refused since the last [`Self::forgive`].
    pub(crate) fn denied(&self) -> bool {
        self.denied
    }

    /// A new call begins.
    pub(crate) fn forgive(&mut self) {
        self.denied = false;
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let fits = self.bytes.saturating_add(more) <= self.bytes_max;
        self.bytes_last = if fits { more } else { 0 };
        self.bytes += self.bytes_last;
        self.denied |= !fits;
        Ok(fits)
    }

    /// The guest has as little of it as if it had been refused.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.bytes -= self.bytes_last;
        self.bytes_last = 0;
        self.denied = true;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        let fits = elements <= TABLE_ELEMENTS_MAX;
        if fits {
            self.table_elements = elements;
        }
        self.denied |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
