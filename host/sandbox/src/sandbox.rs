//! From bytes to a module that can be called.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};
use wasmtime::{Engine, component::Component};

use crate::{
    cache::Cache,
    compiler::CompilerProgram,
    digest::digest_of,
    engine,
    error::{LoadError, SandboxError},
    grants::Grants,
    host_memory::HostMemory,
    http::{Net, Resolver, SystemResolver},
    inspect, machine,
    module::{Module, Surroundings},
    realm::{Realm, Realms},
    usage::Usage,
};

/// The largest module, in bytes. CPython with its library has 18 MB.
pub const MODULE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Modules looked for in the cache at the same time. Each is read twice, as it came and as it was compiled.
const LOOKS_MAX: usize = 4;

/// How a [`Sandbox`] is set up.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Where compiled modules are kept; `None` compiles each at every start. Must belong to the user of this process and
    /// be closed to others, and nobody else may be able to put another in its place, or it is not used: what lies there is
    /// run as native code.
    pub cache_dir: Option<PathBuf>,
    /// What lies there at most, in bytes; at least the newest module stays.
    pub cache_bytes_max: u64,
    /// What compiles modules; `None` compiles them in this process, where neither the memory nor the time that one takes
    /// is bounded.
    pub compiler: Option<CompilerProgram>,
    /// Modules compiled at the same time; at least 1. Each takes a processor and some hundred MiB for an interpreter.
    pub compilations_max: usize,
    /// Instances alive at the same time, one for each partition that is at work, and their memories. Takes address space,
    /// not memory. Instances that rest make way for those over it; when all are at work, further calls end as
    /// [`StoreUnavailable`](pelton_core::Outcome::StoreUnavailable).
    pub instances_max: u32,
    /// Linear memory of all instances of all handlers together, in bytes; `None` is three quarters of what the machine
    /// has. Calls that fail because others have it end as
    /// [`StoreUnavailable`](pelton_core::Outcome::StoreUnavailable).
    pub memory_bytes_max: Option<u64>,
    /// Finds the addresses of the hosts that handlers call; `None` asks the system.
    pub resolver: Option<Arc<dyn Resolver>>,
    /// Limits nothing and breaks nothing off: what the benchmark of limits compares with. For nothing else.
    #[doc(hidden)]
    pub unlimited: bool,
}

impl Default for SandboxOptions {
    /// No cache (1 GiB if there is one), compiling in this process, one at a time, 2,000 instances, three quarters of the
    /// machine's memory, the system's resolver.
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_bytes_max: 1 << 30,
            compiler: None,
            compilations_max: 1,
            instances_max: 2000,
            memory_bytes_max: None,
            resolver: None,
            unlimited: false,
        }
    }
}

/// The engine that compiles and runs handlers. Cheap to clone; one is enough for a process.
#[derive(Clone)]
pub struct Sandbox {
    tools: Arc<Tools>,
    looks: Arc<Semaphore>,
    compilations: Arc<Semaphore>,
}

struct Tools {
    realms: Realms,
    host_memory: Arc<HostMemory>,
    net: Arc<Net>,
    cache: Option<Cache>,
    compiler: Option<CompilerProgram>,
}

impl Sandbox {
    /// Starts the engine, and the thread that interrupts guests.
    ///
    /// # Errors
    /// If the engine does not run on this machine, or no thread is to be had.
    pub fn new(options: SandboxOptions) -> Result<Self, SandboxError> {
        let SandboxOptions { cache_bytes_max, compiler, .. } = options;
        let realms = Realms::start(options.instances_max, options.unlimited)?;
        let compatibility = engine::compatibility(&realms.usual().engine);
        let cache = options.cache_dir.and_then(|dir| Cache::open(&dir, cache_bytes_max, compatibility));
        let memory_bytes_max = options.memory_bytes_max.or_else(|| machine::memory_bytes().map(|bytes| bytes / 4 * 3));
        let host_memory = Arc::new(HostMemory::new(memory_bytes_max.unwrap_or(u64::MAX), realms.clock().clone()));
        let net = Arc::new(Net::new(options.resolver.unwrap_or_else(|| Arc::new(SystemResolver))));
        let tools = Arc::new(Tools { realms, host_memory, net, cache, compiler });
        let compilations = Arc::new(Semaphore::new(options.compilations_max.max(1)));
        Ok(Self { tools, looks: Arc::new(Semaphore::new(LOOKS_MAX)), compilations })
    }

    /// Compiles a component, or takes it from the cache, and checks that it is a handler and that all its imports are
    /// served. Runs off the hot path, a bounded number at a time; what is in the cache waits for no compilation. Needs a
    /// tokio runtime with I/O and time.
    ///
    /// `usage` counts what all versions of the handler use together; whoever has none gives a fresh one.
    ///
    /// Dropping the future gives the compilation up, if it is one by a [`CompilerProgram`].
    pub async fn load(&self, module: Arc<[u8]>, grants: Grants, usage: Arc<Usage>) -> Result<Module, LoadError> {
        self.load_hashed(module, None, grants, usage).await
    }

    /// As [`Self::load`], for whoever has made [`digest_of`] these very bytes before: of a large module that takes as long as
    /// to load it from the cache.
    pub async fn load_hashed(
        &self,
        module: Arc<[u8]>,
        digest: Option<String>,
        grants: Grants,
        usage: Arc<Usage>,
    ) -> Result<Module, LoadError> {
        if module.len() > MODULE_BYTES_MAX {
            return Err(LoadError::TooLarge { found: module.len(), most: MODULE_BYTES_MAX });
        }
        inspect::check_bytes(&module)?;
        let (realm, digest, found) = self.look(&module, digest, grants.limits.stack_bytes).await?;
        let component = match found {
            Some(component) => component,
            None => self.compile(&realm, &digest, module).await?,
        };
        let tools = Arc::clone(&self.tools);
        off_the_path(move || tools.finish(component, digest, realm, grants, usage)).await
    }

    /// The engine it is to run on, its digest, and what the cache has.
    async fn look(
        &self,
        module: &Arc<[u8]>,
        digest: Option<String>,
        stack_bytes: u64,
    ) -> Result<(Arc<Realm>, String, Option<Component>), LoadError> {
        let _permit = permit(&self.looks).await?;
        let (tools, bytes) = (Arc::clone(&self.tools), Arc::clone(module));
        off_the_path(move || {
            let realm = tools.realms.with_stack(stack_bytes)?;
            let digest = digest.unwrap_or_else(|| digest_of(&bytes));
            let found = tools.cached(&realm.engine, &digest);
            Ok((realm, digest, found))
        })
        .await
    }

    /// Compiles what the cache does not have.
    async fn compile(&self, realm: &Arc<Realm>, digest: &str, module: Arc<[u8]>) -> Result<Component, LoadError> {
        let work = || (Arc::clone(&self.tools), Arc::clone(realm), digest.to_owned());
        let _permit = match self.compilations.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let permit = permit(&self.compilations).await?;
                // Whoever was waited for may have compiled the very same.
                let (tools, realm, digest) = work();
                let found = off_the_path(move || Ok(tools.cached(&realm.engine, &digest))).await?;
                if let Some(component) = found {
                    return Ok(component);
                }
                permit
            }
        };
        let code = match &self.tools.compiler {
            Some(compiler) => Some(compiler.compile(&module).await?),
            None => None,
        };
        let (tools, realm, digest) = work();
        off_the_path(move || match code {
            Some(code) => tools.take_in(&realm.engine, &digest, &code),
            None => tools.compile_here(&realm.engine, &digest, &module),
        })
        .await
    }
}

/// The semaphore is never closed.
async fn permit(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, LoadError> {
    semaphore.acquire().await.map_err(|error| LoadError::Compiler(error.to_string()))
}

impl Tools {
    fn cached(&self, engine: &Engine, digest: &str) -> Option<Component> {
        self.cache.as_ref().and_then(|cache| cache.load(engine, digest))
    }

    fn compile_here(&self, engine: &Engine, digest: &str, bytes: &[u8]) -> Result<Component, LoadError> {
        let component =
            Component::from_binary(engine, bytes).map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
        if let Some(cache) = &self.cache {
            match component.serialize() {
                Ok(code) => drop(cache.keep(engine, digest, &code)),
                Err(error) => tracing::warn!(digest, %error, "a compiled module could not be cached"),
            }
        }
        Ok(component)
    }

    /// Loads what the compiler made.
    #[allow(unsafe_code, reason = "wasmtime offers no safe way to load compiled code")]
    fn take_in(&self, engine: &Engine, digest: &str, code: &[u8]) -> Result<Component, LoadError> {
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.keep(engine, digest, code)) {
            return Ok(component);
        }
        // SAFETY: the bytes are what a process wrote that this one started, of a program that whoever set it up named,
        // through a pipe that nobody else has an end of. It ended well, so they are all of what
        // `Engine::precompile_component` gave. wasmtime checks its own version, the settings and the processor.
        unsafe { Component::deserialize(engine, code) }
            .map_err(|error| LoadError::Compiler(format!("what it made does not load: {error:#}")))
    }

    fn finish(
        &self,
        component: Component,
        digest: String,
        realm: Arc<Realm>,
        grants: Grants,
        usage: Arc<Usage>,
    ) -> Result<Module, LoadError> {
        let (clock, host_memory) = (self.realms.clock().clone(), Arc::clone(&self.host_memory));
        let surroundings = Surroundings { net: Arc::clone(&self.net), clock, host_memory, realm };
        Module::new(digest.into(), component, grants, usage, surroundings)
    }
}

/// On a thread where it holds nobody up.
async fn off_the_path<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(LoadError::Compiler(error.to_string())),
    }
}
