//! Everything a handler may import. WASI is served in full, because toolchains import it in full, but with nothing in it:
//! no files, no environment, no arguments, no sockets, no time and no chance. `wasi:http` is there only for a handler
//! that names origins.

use wasmtime::{
    Engine,
    component::{HasSelf, Linker},
};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;

use crate::{bindings::imports::Imports, host::Host, http};

pub(crate) struct Linkers {
    /// For handlers that call nobody.
    pub(crate) plain: Linker<Host>,
    /// With `wasi:http` besides.
    pub(crate) http: Linker<Host>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut plain = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut plain)?;
        plain.allow_shadowing(true);
        monotonic_clock::add_to_linker::<_, HasSelf<Host>>(&mut plain, |host| host)?;
        plain.allow_shadowing(false);
        Imports::add_to_linker::<_, HasSelf<Host>>(&mut plain, |host| host)?;
        let mut http = plain.clone();
        http::add_to_linker(&mut http)?;
        Ok(Self { plain, http })
    }
}
