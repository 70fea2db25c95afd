//! What `bindgen!` makes of `wit/`, and by hand the types that cross the border on every call.

/// Everything of ours that a handler may import, whichever world it is of.
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub(crate) mod imports {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package pelton:host;
            world imports {
                import pelton:worker/outbox@0.1.0;
                import pelton:worker/state@0.1.0;
                import pelton:worker/checkpoint@0.1.0;
                import pelton:worker/progress@0.1.0;
                import wasi:config/store@0.2.0-rc.1;
                import wasi:logging/logging@0.1.0-draft;
            }
        ",
        imports: {
            "pelton:worker/state@0.1.0.get": async | trappable,
            default: trappable,
        },
    });
}

/// The export of the world `worker`.
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub(crate) mod worker {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package pelton:host;
            world worker { export pelton:worker/handler@0.1.0; }
        ",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
        with: { "pelton:worker/types": crate::bindings::types },
    });
}

/// The export of the world `batch-worker`.
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub(crate) mod batch_worker {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package pelton:host;
            world batch-worker { export pelton:worker/batch-handler@0.1.0; }
        ",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
        with: { "pelton:worker/types": crate::bindings::types },
    });
}

/// `pelton:worker/types`. Bound by hand so that an event is lowered straight from where the host keeps it: `bindgen!`
/// would want its headers as a slice of pairs of `&str`, which would have to be made for each event first.
#[allow(dead_code, unreachable_pub, reason = "the generated code re-exports it, and asks for more than it uses")]
pub mod types {
    use wasmtime::component::{ComponentType, HasData, Lift, Linker, Lower};

    /// `record event`.
    #[derive(Clone, Copy, Debug, ComponentType, Lower)]
    #[component(record)]
    pub struct Event<'a> {
        pub id: &'a str,
        pub stream: &'a str,
        pub partition: u32,
        pub offset: u64,
        pub key: Option<&'a str>,
        pub kind: &'a str,
        pub time: u64,
        pub headers: &'a [(String, String)],
        pub payload: &'a [u8],
        pub attempt: u32,
    }

    /// `variant error`.
    #[derive(Debug, ComponentType, Lift)]
    #[component(variant)]
    pub enum Error {
        #[component(name = "transient")]
        Transient(String),
        #[component(name = "retry-after")]
        RetryAfter((u64, String)),
        #[component(name = "permanent")]
        Permanent(String),
    }

    /// The interface has types only; generated code expects the rest of any interface all the same.
    pub trait Host {}
    impl<T: ?Sized> Host for T {}

    /// As [`Host`].
    pub trait HostWithStore<T>: HasData {}
    impl<H: HasData, T> HostWithStore<T> for H {}

    /// As [`Host`]: there is nothing to link.
    pub fn add_to_linker<T, D: HasData>(_: &mut Linker<T>, _: fn(&mut T) -> D::Data<'_>) -> wasmtime::Result<()> {
        Ok(())
    }
}
