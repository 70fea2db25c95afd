//! How wasmtime is set up. The numbers come from measurements: see the comments.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::memory::TABLE_ELEMENTS_MAX;

/// Deep enough for a recursive-descent parser in a guest, far from what a thread of the host has.
const GUEST_STACK_BYTES: usize = 1024 * 1024;

/// The fiber that a call runs on: the guest's share, and as much again for host calls on top of it.
const FIBER_STACK_BYTES: usize = 2 * GUEST_STACK_BYTES;

/// Memory that a slot keeps when its instance goes, so that the next one finds it mapped. 16 MiB made fresh instances
/// slower: what is kept has to be cleared.
const KEEP_RESIDENT_BYTES: usize = 256 * 1024;

/// Frames in the reason of a trap. The first few tell; the rest is the way into the handler.
const BACKTRACE_FRAMES_MAX: usize = 16;

/// An engine with room set aside for so many instances, or one without if the address space does not allow it.
pub(crate) fn new(instances_max: u32) -> Result<Engine, wasmtime::Error> {
    match Engine::new(&config(Some(instances_max))) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(
                instances_max,
                error = format!("{error:#}"),
                "no address space to set aside for instances; making each takes longer now (see `ulimit -v`)"
            );
            Engine::new(&config(None))
        }
    }
}

/// Names all that a compiled module depends on besides its source: wasmtime, the settings and the processor.
pub(crate) fn compatibility(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn config(pool: Option<u32>) -> Config {
    let mut config = Config::new();
    // Without it an empty call takes 137 ns, with it 510 ns: every call would be set up as a concurrent task.
    config.concurrency_support(false);
    // Epochs, not fuel, which costs up to three quarters of the speed.
    config.epoch_interruption(true);
    config.max_wasm_stack(GUEST_STACK_BYTES);
    config.async_stack_size(FIBER_STACK_BYTES);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    if let Some(instances_max) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots(instances_max)));
    }
    config
}

/// One slot is address space, not memory. Components of interpreters are some dozens of core modules and tables around
/// one memory.
fn slots(instances_max: u32) -> PoolingAllocationConfig {
    let mut slots = PoolingAllocationConfig::default();
    slots.total_component_instances(instances_max);
    slots.total_memories(instances_max);
    slots.total_stacks(instances_max);
    slots.total_core_instances(instances_max.saturating_mul(8));
    slots.total_tables(instances_max.saturating_mul(4));
    slots.max_tables_per_module(4);
    slots.table_elements(TABLE_ELEMENTS_MAX);
    slots.max_core_instance_size(4 * 1024 * 1024);
    slots.max_component_instance_size(4 * 1024 * 1024);
    slots.linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
    slots.table_keep_resident(64 * 1024);
    slots
}
