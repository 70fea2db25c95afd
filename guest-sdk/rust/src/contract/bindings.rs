//! What `wit-bindgen` makes of the contract in `wit/`; `generate-bindings` makes it anew.
//!
//! Everything a handler may import is bound once, in [`all_imports`]; the two worlds reuse it and add only their export.
//! The description of a whole world, which tells the component encoder what must be exported, is part of the expansion
//! of its export macro, so a handler carries that of one world only. Imports that nothing calls are dropped when the
//! component is encoded.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated")]

#[rustfmt::skip]
pub(crate) mod all_imports;
#[rustfmt::skip]
pub mod batch_worker;
#[rustfmt::skip]
pub mod worker;

pub use batch_worker::export_batch_worker;
pub use worker::export_worker;
