//! Bounds on what an instance takes from the host: memory, tables and the instances inside it.

use std::sync::{Arc, atomic::Ordering};

use wasmtime::ResourceLimiter;

use crate::{grants::Limits, host_memory::Tenant, usage::Usage};

/// A component is many core modules linked together: `componentize-py` makes 14 to 40, or some dozens more with Python
/// packages that are native code.
pub(crate) const CORE_INSTANCES_MAX: u32 = 200;

/// Compilers make 2.
pub(crate) const TABLES_MAX: u32 = 16;

/// Compilers make 1, and that of JavaScript 2. The engine has slots for one an instance, so those with more take the place
/// of others; those who put components together need some.
pub(crate) const MEMORIES_MAX: u32 = 8;

/// What an instance wanted and did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Memory over its own limit.
    Memory,
    /// Elements of tables over its own limit.
    Table,
    /// Memory within its own limit, but more than there is for all.
    WholeHost,
    /// Memory within its own limit, which others have.
    HostMemory,
}

/// Counts what one instance has, and remembers that it was refused more. What it has is given back when it goes.
pub(crate) struct MemoryLimiter {
    bytes_max: u64,
    table_elements_max: u64,
    bytes: u64,
    bytes_last: u64,
    table_elements: u64,
    denied: Option<Denied>,
    /// Whether others have made way in this call. A guest that asks again and again would have them do nothing else.
    has_searched: bool,
    tenant: Arc<Tenant>,
    /// Which claims of others come before it.
    born: u64,
    usage: Arc<Usage>,
}

impl MemoryLimiter {
    pub(crate) fn new(limits: &Limits, tenant: Arc<Tenant>, usage: Arc<Usage>) -> Self {
        Self {
            bytes_max: limits.memory_bytes,
            table_elements_max: limits.table_elements.min(Limits::TABLE_ELEMENTS_MOST),
            bytes: 0,
            bytes_last: 0,
            table_elements: 0,
            denied: None,
            has_searched: false,
            born: tenant.now(),
            tenant,
            usage,
        }
    }

    /// All linear memories together, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was refused since the last [`Self::forgive`]. A limit of its own says more than what the host lacks.
    pub(crate) fn denied(&self) -> Option<Denied> {
        self.denied
    }

    /// How much memory the host has for all guests, in bytes.
    pub(crate) fn host_bytes_max(&self) -> u64 {
        self.tenant.bytes_max()
    }

    /// A new call begins.
    pub(crate) fn forgive(&mut self) {
        self.denied = None;
        self.has_searched = false;
    }

    fn take_from_host(&mut self, more: u64) -> bool {
        self.tenant.take(self.born, self.bytes, more)
            || (!std::mem::replace(&mut self.has_searched, true)
                && self.tenant.take_from_resting(self.born, self.bytes, more))
    }

    fn deny(&mut self, what: Denied) {
        if what != Denied::HostMemory || self.denied.is_none() {
            self.denied = Some(what);
        }
        self.usage.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        self.bytes_last = 0;
        let bytes = self.bytes.saturating_add(more);
        if bytes > self.bytes_max {
            self.deny(Denied::Memory);
            return Ok(false);
        }
        if bytes > self.tenant.bytes_max() {
            self.deny(Denied::WholeHost);
            return Ok(false);
        }
        if !self.take_from_host(more) {
            self.tenant.claim(bytes);
            self.deny(Denied::HostMemory);
            return Ok(false);
        }
        (self.bytes, self.bytes_last) = (bytes, more);
        self.usage.memory_bytes.fetch_add(more, Ordering::Relaxed);
        self.usage.memory_bytes_most.fetch_max(bytes, Ordering::Relaxed);
        Ok(true)
    }

    /// The guest has as little of it as if it had been refused.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.bytes -= self.bytes_last;
        self.tenant.give_back(self.bytes_last, self.bytes);
        self.usage.memory_bytes.fetch_sub(self.bytes_last, Ordering::Relaxed);
        self.bytes_last = 0;
        self.deny(Denied::Memory);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        if elements > self.table_elements_max {
            self.deny(Denied::Table);
            return Ok(false);
        }
        self.table_elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

impl Drop for MemoryLimiter {
    fn drop(&mut self) {
        self.tenant.give_back(self.bytes, 0);
        self.usage.memory_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host_memory::HostMemory, ticker::Clock};

    fn host() -> Arc<HostMemory> {
        Arc::new(HostMemory::new(100, Clock::default()))
    }

    fn limiter(limits: Limits, host: &Arc<HostMemory>, usage: &Arc<Usage>) -> MemoryLimiter {
        MemoryLimiter::new(&limits, Arc::new(Tenant::new(host)), Arc::clone(usage))
    }

    fn grow(limiter: &mut MemoryLimiter, from: usize, to: usize) -> bool {
        limiter.memory_growing(from, to, None).expect("it never fails")
    }

    #[test]
    fn what_one_instance_has_is_the_hosts_and_comes_back_with_its_end() {
        let (host, usage) = (host(), Arc::<Usage>::default());
        let limits = Limits { memory_bytes: 80, ..Limits::default() };
        let (mut one, mut two) = (limiter(limits, &host, &usage), limiter(limits, &host, &usage));
        assert!(grow(&mut one, 0, 70));
        assert!(!grow(&mut two, 0, 40));
        assert_eq!(two.denied(), Some(Denied::HostMemory));
        assert!(!grow(&mut two, 0, 90));
        assert_eq!(two.denied(), Some(Denied::Memory));
        drop(one);
        assert!(grow(&mut two, 0, 40));
        assert_eq!(usage.memory_bytes.load(Ordering::Relaxed), 40);
        drop(two);
        assert_eq!(usage.memory_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(usage.memory_bytes_most.load(Ordering::Relaxed), 70);
        assert_eq!(usage.refused.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_no_host_of_this_size_could_give_is_told_from_what_others_have() {
        let (host, usage) = (host(), Arc::<Usage>::default());
        let mut one = limiter(Limits::default(), &host, &usage);
        assert!(grow(&mut one, 0, 70) && !grow(&mut one, 70, 101));
        assert_eq!(one.denied(), Some(Denied::WholeHost));
        let mut two = limiter(Limits::default(), &host, &usage);
        assert!(!grow(&mut two, 0, 31));
        assert_eq!(two.denied(), Some(Denied::HostMemory));
    }

    #[test]
    fn growth_that_the_system_refuses_is_given_back() {
        let (host, usage) = (host(), Arc::<Usage>::default());
        let mut one = limiter(Limits::default(), &host, &usage);
        assert!(grow(&mut one, 0, 70));
        one.memory_grow_failed(wasmtime::Error::msg("no")).expect("it never fails");
        assert_eq!((one.bytes(), one.denied()), (0, Some(Denied::Memory)));
        // A refusal of ours is told to have failed too, and nothing is given back twice.
        assert!(!grow(&mut one, 0, 170));
        one.memory_grow_failed(wasmtime::Error::msg("no")).expect("it never fails");
        assert!(grow(&mut one, 0, 100));
    }

    #[test]
    fn elements_are_counted_over_all_tables() {
        let (host, usage) = (host(), Arc::<Usage>::default());
        let mut one = limiter(Limits { table_elements: 10, ..Limits::default() }, &host, &usage);
        assert!(one.table_growing(0, 6, None).expect("it never fails"));
        assert!(!one.table_growing(0, 5, None).expect("it never fails"));
        assert_eq!(one.denied(), Some(Denied::Table));
    }
}
