//! One engine for each size of stack that handlers ask for: wasmtime sets it for an engine as a whole. Most handlers ask
//! for the same.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::Engine;

use crate::{
    engine,
    error::{LoadError, SandboxError},
    grants::Limits,
    linkers::Linkers,
    resting::Places,
    ticker::{Clock, Ticker},
};

/// Sizes of stack beside the usual one. Each has slots for all instances of the host, which is address space.
const OTHERS_MAX: usize = 4;

/// An engine, and what handlers import on it.
pub(crate) struct Realm {
    pub(crate) engine: Engine,
    pub(crate) linkers: Linkers,
    /// Where its instances rest: each has a part of its pool.
    pub(crate) places: Arc<Places>,
    stack_bytes: u64,
    /// Whether guests are neither limited nor broken off on it.
    pub(crate) is_unlimited: bool,
}

/// All that are in use. The others are made when the first handler asks for them, and go with the last one.
pub(crate) struct Realms {
    instances_max: u32,
    is_unlimited: bool,
    usual: Arc<Realm>,
    others: Mutex<Vec<Weak<Realm>>>,
    ticker: Ticker,
}

impl Realms {
    /// Starts the usual one, and the thread that ticks for all.
    pub(crate) fn start(instances_max: u32, is_unlimited: bool) -> Result<Self, SandboxError> {
        let usual = Realm::new(instances_max, Limits::default().stack_bytes, is_unlimited)
            .map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let ticker = Ticker::start(&usual.engine)?;
        Ok(Self { instances_max, is_unlimited, usual: Arc::new(usual), others: Mutex::default(), ticker })
    }

    pub(crate) fn usual(&self) -> &Arc<Realm> {
        &self.usual
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.ticker.clock()
    }

    /// The one for this size of stack. The lock is held while one is made, so that there are never two of a size.
    pub(crate) fn with_stack(&self, stack_bytes: u64) -> Result<Arc<Realm>, LoadError> {
        let stack_bytes = bounded(stack_bytes);
        if stack_bytes == self.usual.stack_bytes {
            return Ok(Arc::clone(&self.usual));
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.retain(|realm| realm.strong_count() > 0);
        let in_use: Vec<Arc<Realm>> = others.iter().filter_map(Weak::upgrade).collect();
        if let Some(realm) = in_use.iter().find(|realm| realm.stack_bytes == stack_bytes) {
            return Ok(Arc::clone(realm));
        }
        if in_use.len() >= OTHERS_MAX {
            let in_use = in_use.iter().map(|realm| realm.stack_bytes).chain([self.usual.stack_bytes]).collect();
            return Err(LoadError::Stacks { wanted: stack_bytes, in_use });
        }
        let realm = Realm::new(self.instances_max, stack_bytes, self.is_unlimited)
            .map_err(|error| LoadError::Compiler(format!("no engine for limits.stack ({stack_bytes}): {error:#}")))?;
        self.ticker.add(&realm.engine);
        let realm = Arc::new(realm);
        others.push(Arc::downgrade(&realm));
        Ok(realm)
    }
}

impl Realm {
    fn new(instances_max: u32, stack_bytes: u64, is_unlimited: bool) -> wasmtime::Result<Self> {
        let engine = engine::new(instances_max, usize::try_from(stack_bytes)?, !is_unlimited)?;
        let linkers = Linkers::new(&engine)?;
        Ok(Self { engine, linkers, places: Arc::default(), stack_bytes, is_unlimited })
    }

    /// Refuses another size of stack than it has.
    pub(crate) fn check_stack(&self, stack_bytes: u64) -> Result<(), LoadError> {
        let (wanted, found) = (bounded(stack_bytes), self.stack_bytes);
        if wanted == found { Ok(()) } else { Err(LoadError::Stack { wanted, found }) }
    }
}

fn bounded(stack_bytes: u64) -> u64 {
    stack_bytes.clamp(Limits::STACK_BYTES_LEAST, Limits::STACK_BYTES_MOST)
}
