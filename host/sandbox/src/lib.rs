//! Runs handlers, which are WebAssembly components, in a cage: compile, cache, instantiate, limit, and turn every call
//! into an [`Outcome`](pelton_core::Outcome). The only crate that knows wasmtime, and none of its types show.
//!
//! [`Sandbox::load`] makes a [`Module`] from bytes and [`Grants`]; [`Module::worker`] makes a [`Worker`] for one partition;
//! [`Worker::call`] hands it a batch. Whatever a guest does (trap, endless loop, memory bomb, panic, flood of output)
//! comes back as a value, and the next call runs on a fresh instance.

mod backtrace;
mod bindings;
mod cache;
mod compile_command;
mod compiler;
mod config;
mod console;
mod deadline;
mod digest;
mod engine;
mod error;
mod gate;
mod grants;
mod host;
mod host_memory;
mod http;
mod imports;
mod inspect;
mod interrupt;
mod ledger;
mod linkers;
mod log;
mod log_budget;
mod machine;
mod memory;
mod module;
mod moment;
mod realm;
mod redact;
mod resting;
mod sandbox;
mod state;
mod stop;
mod text;
mod ticker;
mod usage;
mod worker;

pub use backtrace::split_backtrace;
pub use compile_command::compile_stdin_to_stdout;
pub use compiler::CompilerProgram;
pub use digest::digest_of;
pub use error::{LoadError, SandboxError};
pub use grants::{EmitGrant, Grants, HttpGrant, Limits, Origin, Recycle, Secret};
pub use http::Resolver;
pub use inspect::{CONTRACT, World, contract, is_served};
pub use interrupt::Interrupt;
pub use log::{LogLevel, LogLine, LogSink};
pub use module::{Module, Place};
pub use sandbox::{MODULE_BYTES_MAX, Sandbox, SandboxOptions};
pub use state::StateReader;
pub use usage::Usage;
pub use worker::Worker;
