//! What `wit-bindgen` makes of the contract in `wit/`.
//!
//! Everything a handler may import is bound once, in [`imports`]; the two worlds reuse it and add only their export.
//! The description of a whole world, which tells the component encoder what must be exported, is part of the expansion
//! of its export macro, so a handler carries that of one world only. Imports that nothing calls are dropped when the
//! component is encoded.

#![allow(missing_docs, unreachable_pub, clippy::all)]

/// The imports of both worlds, and the types they share.
pub mod imports {
    wit_bindgen::generate!({
        inline: "
            package pelton:sdk;

            world imports {
                include pelton:worker/imports@0.1.0;
                import pelton:worker/types@0.1.0;
                import pelton:worker/checkpoint@0.1.0;
                import pelton:worker/progress@0.1.0;
            }
        ",
        path: "../../wit",
        world: "pelton:sdk/imports",
        generate_all,
    });
}

/// The world of [`Handler`](crate::Handler).
pub mod worker {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "pelton:worker/worker@0.1.0",
        with: {
            "pelton:worker/types@0.1.0": crate::bindings::imports::pelton::worker::types,
            "pelton:worker/outbox@0.1.0": crate::bindings::imports::pelton::worker::outbox,
            "pelton:worker/state@0.1.0": crate::bindings::imports::pelton::worker::state,
            "pelton:worker/checkpoint@0.1.0": crate::bindings::imports::pelton::worker::checkpoint,
            "pelton:worker/handler@0.1.0": generate,
            "wasi:config/store@0.2.0-rc.1": crate::bindings::imports::wasi::config::store,
            "wasi:logging/logging@0.1.0-draft": crate::bindings::imports::wasi::logging::logging,
        },
        pub_export_macro: true,
        export_macro_name: "export_worker",
        default_bindings_module: "pelton_sdk::__private::worker",
    });
}

/// The world of [`BatchHandler`](crate::BatchHandler).
pub mod batch_worker {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "pelton:worker/batch-worker@0.1.0",
        with: {
            "pelton:worker/types@0.1.0": crate::bindings::imports::pelton::worker::types,
            "pelton:worker/outbox@0.1.0": crate::bindings::imports::pelton::worker::outbox,
            "pelton:worker/state@0.1.0": crate::bindings::imports::pelton::worker::state,
            "pelton:worker/progress@0.1.0": crate::bindings::imports::pelton::worker::progress,
            "pelton:worker/batch-handler@0.1.0": generate,
            "wasi:config/store@0.2.0-rc.1": crate::bindings::imports::wasi::config::store,
            "wasi:logging/logging@0.1.0-draft": crate::bindings::imports::wasi::logging::logging,
        },
        pub_export_macro: true,
        export_macro_name: "export_batch_worker",
        default_bindings_module: "pelton_sdk::__private::batch_worker",
    });
}

pub use batch_worker::export_batch_worker;
pub use worker::export_worker;
