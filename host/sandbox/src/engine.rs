//! How wasmtime is set up. The numbers come from measurements: see the comments.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::{
    grants::Limits,
    memory::{CORE_INSTANCES_MAX, TABLES_MAX},
};

/// What host calls get of a call's stack at least, beyond the guest's share.
const HOST_STACK_BYTES: usize = 1024 * 1024;

/// Memory that a slot keeps when its instance goes, so that the next one finds it mapped. 16 MiB made fresh instances
/// slower: what is kept has to be cleared.
const KEEP_RESIDENT_BYTES: usize = 256 * 1024;

/// Frames in the reason of a trap. The first few tell; the rest is the way into the handler.
const BACKTRACE_FRAMES_MAX: usize = 16;

/// An engine with room set aside for so many instances, or one without if the address space does not allow it. How much
/// stack a guest may use is a matter of the engine, and of nothing that is compiled.
pub(crate) fn new(instances_max: u32, stack_bytes: usize, interrupts: bool) -> Result<Engine, wasmtime::Error> {
    match Engine::new(&config(Some(instances_max), stack_bytes, interrupts)) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(
                instances_max,
                error = format!("{error:#}"),
                "no address space to set aside for instances; making each takes longer now (see `ulimit -v`)"
            );
            Engine::new(&config(None, stack_bytes, interrupts))
        }
    }
}

/// An engine that compiles what the others run, and runs nothing: it sets nothing aside.
pub(crate) fn compiling() -> Result<Engine, wasmtime::Error> {
    let stack_bytes = usize::try_from(Limits::default().stack_bytes).unwrap_or(HOST_STACK_BYTES);
    Engine::new(&config(None, stack_bytes, true))
}

/// Names all that a compiled module depends on besides its source: wasmtime, the settings and the processor.
pub(crate) fn compatibility(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn config(pool: Option<u32>, stack_bytes: usize, interrupts: bool) -> Config {
    let mut config = Config::new();
    // Without it an empty call takes 137 ns, with it 510 ns: every call would be set up as a concurrent task.
    config.concurrency_support(false);
    // Epochs, not fuel, which costs up to three quarters of the speed.
    config.epoch_interruption(interrupts);
    config.max_wasm_stack(stack_bytes);
    // The fiber that a call runs on: the guest's share, and as much again for host calls on top of it.
    config.async_stack_size(stack_bytes + stack_bytes.max(HOST_STACK_BYTES));
    config.wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    if let Some(instances_max) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots(instances_max)));
    }
    config
}

/// One slot is address space, not memory. There are core instances and tables for as many as each instance may have, so
/// that nobody uses up those of others: the former are counted and nothing else, and all tables together are a small part
/// of what memories take. Of memories there is one for each, as most have; see [`Worker`](crate::Worker) for what happens
/// when they are used up.
fn slots(instances_max: u32) -> PoolingAllocationConfig {
    let mut slots = PoolingAllocationConfig::default();
    slots.total_component_instances(instances_max);
    slots.total_memories(instances_max);
    slots.total_stacks(instances_max);
    slots.total_core_instances(instances_max.saturating_mul(CORE_INSTANCES_MAX));
    slots.total_tables(instances_max.saturating_mul(TABLES_MAX));
    slots.max_tables_per_module(4);
    slots.table_elements(usize::try_from(Limits::TABLE_ELEMENTS_MOST).unwrap_or(usize::MAX));
    slots.max_core_instance_size(4 * 1024 * 1024);
    slots.max_component_instance_size(4 * 1024 * 1024);
    slots.linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
    slots.table_keep_resident(64 * 1024);
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_engine_compiles_every_other_runs() {
        let compiling = compiling().expect("it starts");
        for (pool, stack_bytes) in [(Some(2), 1 << 20), (Some(2), 64 << 10), (None, 8 << 20)] {
            let engine = Engine::new(&config(pool, stack_bytes, true)).expect("it starts");
            assert_eq!(compatibility(&engine), compatibility(&compiling), "{pool:?}, {stack_bytes} bytes of stack");
        }
    }
}
