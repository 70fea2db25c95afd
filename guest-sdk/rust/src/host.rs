//! Where calls to the host go: to the imports of the contract in WebAssembly, to the mock that a test set up elsewhere.
//!
//! Both have the same functions, and everything else in this crate is the same for both.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::contract::imports::{
    checkpoint, config, emit, log, progress, state_delete, state_get, state_set,
};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::mock::imports::{checkpoint, config, emit, log, progress, state_delete, state_get, state_set};
