//! What can go wrong before a handler is called.

use std::io;

use semver::Version;

/// The sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// wasmtime does not run here.
    #[error("WebAssembly engine does not start: {0}")]
    Engine(String),
    /// The thread that interrupts guests could not be started.
    #[error("thread of the WebAssembly engine does not start: {0}")]
    Ticker(#[from] io::Error),
}

/// A module cannot be used as a handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Nothing there.
    #[error("module is empty; expected a WebAssembly component")]
    Empty,
    /// Something else.
    #[error("not WebAssembly: begins with {found}; expected a component, which `pelton build` makes")]
    NotWasm {
        /// The first bytes, readable.
        found: String,
    },
    /// WebAssembly, but not yet a component.
    #[error("this is a core module, not a component; build it with `pelton build`, or with `wasm-tools component new`")]
    CoreModule,
    /// Truncated, damaged, or in need of a feature that the host does not have.
    #[error("component is not valid: {0}")]
    Invalid(String),
    /// Not a handler.
    #[error("not a handler: exports {found}; expected {expected}")]
    NoWorld {
        /// What it exports.
        found: String,
        /// What would make it a handler.
        expected: String,
    },
    /// A handler, and yet built for a version of the contract that is not served here.
    #[error(
        "the handler speaks version {found} of the contract pelton:worker, and this host serves {served}: {}",
        if found > served { "update the host, or build the handler with the SDK of this host" }
        else { "build the handler with the SDK of this host" }
    )]
    Contract {
        /// What the handler speaks.
        found: Version,
        /// What the host speaks.
        served: Version,
    },
    /// An export has the name of a handler's, but another signature.
    #[error(
        "export {export} does not match this host's wit/worker.wit: {fault}; rebuild the handler with the SDK of this version"
    )]
    Export {
        /// Which one.
        export: String,
        /// How it differs.
        fault: String,
    },
    /// It imports what the host does not serve.
    #[error("imports what this host does not serve: {}", .0.join("; "))]
    Imports(
        /// All of them: name and fault.
        Vec<String>,
    ),
    /// It is larger than any module may be.
    #[error("module has {found} bytes; {most} are the most a module may have")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
        /// The most it may have.
        most: usize,
    },
    /// Compiling it was given up.
    #[error("compiling it took more than {limit}: it is too large, or unfolds into too much; make it smaller")]
    TooCostly {
        /// The bound that it came to.
        limit: String,
    },
    /// Each size of stack takes an engine of its own, and no more are to be had.
    #[error("limits.stack of {wanted} bytes would be one size too many on this host; use one of {in_use:?}")]
    Stacks {
        /// The size that was asked for.
        wanted: u64,
        /// Those that others use, in bytes.
        in_use: Vec<u64>,
    },
    /// The stack is that of the engine that a module was loaded for.
    #[error("limits.stack is to be {wanted} bytes, but the module was loaded for {found}; load it anew")]
    Stack {
        /// The size that was asked for.
        wanted: u64,
        /// The size that it has, in bytes.
        found: u64,
    },
    /// The compiler broke down.
    #[error("compiling did not end well: {0}")]
    Compiler(String),
}
