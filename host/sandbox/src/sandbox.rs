//! From bytes to a module that can be called.

use std::{path::PathBuf, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};
use wasmtime::{
    Engine,
    component::{Component, HasSelf, Linker},
};
use wasmtime_wasi_config::WasiConfig;

use crate::{
    bindings::imports::Imports,
    cache::Cache,
    digest::digest_of,
    engine,
    error::{LoadError, SandboxError},
    grants::Grants,
    host::Host,
    inspect,
    module::Module,
    ticker::{self, Clock},
};

/// How a [`Sandbox`] is set up.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Where compiled modules are kept; `None` compiles each at every start. Must belong to the user of this process and
    /// be closed to others, or it is not used: what lies there is run as native code.
    pub cache_dir: Option<PathBuf>,
    /// Modules compiled at the same time; at least 1. Each takes a processor and some hundred MiB for an interpreter.
    pub compilations_max: usize,
    /// Instances alive at the same time, one for each partition that is at work. Takes address space, not memory; calls
    /// over it end as [`StoreUnavailable`](pelton_core::Outcome::StoreUnavailable).
    pub instances_max: u32,
}

impl Default for SandboxOptions {
    /// No cache, one compilation, 2,000 instances.
    fn default() -> Self {
        Self { cache_dir: None, compilations_max: 1, instances_max: 2000 }
    }
}

/// The engine that compiles and runs handlers. Cheap to clone; one is enough for a process.
#[derive(Clone)]
pub struct Sandbox {
    tools: Arc<Tools>,
    compilations: Arc<Semaphore>,
}

struct Tools {
    engine: Engine,
    linker: Linker<Host>,
    clock: Clock,
    cache: Option<Cache>,
}

impl Sandbox {
    /// Starts the engine, and the thread that interrupts guests.
    ///
    /// # Errors
    /// If the engine does not run on this machine, or no thread is to be had.
    pub fn new(options: SandboxOptions) -> Result<Self, SandboxError> {
        let engine = engine::new(options.instances_max).map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let linker = linker(&engine).map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let clock = ticker::start(&engine)?;
        let cache = options.cache_dir.and_then(|dir| Cache::open(&dir, engine::compatibility(&engine)));
        let compilations = Arc::new(Semaphore::new(options.compilations_max.max(1)));
        Ok(Self { tools: Arc::new(Tools { engine, linker, clock, cache }), compilations })
    }

    /// Compiles a component, or takes it from the cache, and checks that it is a handler and that all its imports are
    /// served. Runs off the hot path, a bounded number at a time; needs a tokio runtime.
    ///
    /// # Errors
    /// Why it cannot be a handler, in words for its author.
    pub async fn load(&self, module: Vec<u8>, grants: Grants) -> Result<Module, LoadError> {
        inspect::check_bytes(&module)?;
        // The semaphore is never closed.
        let _permit = self.compilations.acquire().await.map_err(|error| LoadError::Compiler(error.to_string()))?;
        let tools = Arc::clone(&self.tools);
        match spawn_blocking(move || tools.load(&module, grants)).await {
            Ok(loaded) => loaded,
            Err(error) => Err(LoadError::Compiler(error.to_string())),
        }
    }
}

impl Tools {
    fn load(&self, bytes: &[u8], grants: Grants) -> Result<Module, LoadError> {
        let digest = digest_of(bytes);
        let cached = self.cache.as_ref().and_then(|cache| cache.load(&self.engine, &digest));
        let component = match cached {
            Some(component) => component,
            None => self.compile(bytes, &digest)?,
        };
        let handler = inspect::handler(&component, &self.linker)?;
        Ok(Module::new(digest.into(), handler, grants, self.clock.clone()))
    }

    fn compile(&self, bytes: &[u8], digest: &str) -> Result<Component, LoadError> {
        let component =
            Component::from_binary(&self.engine, bytes).map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
        if let Some(cache) = &self.cache {
            cache.store(digest, &component);
        }
        Ok(component)
    }
}

/// Everything a handler may import. WASI is served in full, because toolchains import it in full, but with nothing in
/// it: no files, no environment, no arguments, no sockets.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |host: &mut Host| WasiConfig::from(host.config()))?;
    Imports::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
    Ok(linker)
}
