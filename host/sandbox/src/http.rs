//! `wasi:http/outgoing-handler`: requests to the origins that a handler was granted, and to no other.
//!
//! * Each request is judged by itself, before a name is resolved (see `target`) and after (see `address`). The host follows
//!   no redirect: a guest that does asks anew.
//! * A connection carries one request and is closed. Absent on purpose: pooling, proxies, HTTP/2.
//! * A request belongs to the call that made it. What is in flight when the call ends is broken off, however it ends.

mod address;
mod body;
mod connect;
mod exchange;
mod failure;
mod target;

use std::{
    future::ready,
    sync::{Arc, atomic::Ordering},
};

use http::{Request, Response};
use tokio::sync::{Semaphore, watch};
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    p2::bindings::http::types::ErrorCode,
};

pub use connect::Resolver;
pub(crate) use connect::{Net, SystemResolver};

use crate::{
    console::Console,
    grants::{Grants, HttpGrant},
    host::Host,
    log::LogLevel,
    usage::Usage,
};
use exchange::{Exchange, Times};
use target::{Leave, Target};

/// Requests of one instance at a time.
const IN_FLIGHT_MAX: usize = 16;

/// All headers of a request, and of a response, with what the host keeps them in; in bytes.
const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// What a guest hands over of a body at a time, in bytes. Two of these wait for each body.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// `wasi:http/types` as the host serves it.
const TYPES: &str = "wasi:http/types@0.2.12";

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// The host's side of one instance's requests.
pub(crate) struct Http {
    context: WasiHttpCtx,
    gate: Gate,
}

/// Who may be called, and what is being asked.
struct Gate {
    grants: Arc<Grants>,
    console: Arc<Console>,
    usage: Arc<Usage>,
    net: Arc<Net>,
    /// Made at the first request of a call, and dropped when the call is over.
    call: Option<Call>,
}

/// What the requests of one call have in common.
struct Call {
    /// Never sent anything: every request waits for its end.
    over: watch::Sender<()>,
    in_flight: Arc<Semaphore>,
}

impl Default for Call {
    fn default() -> Self {
        Self { over: watch::channel(()).0, in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) }
    }
}

/// Serves `wasi:http`.
pub(crate) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    // wasmtime's own knows the errors of its streams by another type than it looks for, and would tell none of them.
    linker.allow_shadowing(true);
    linker.instance(TYPES)?.func_wrap(
        "http-error-code",
        |mut store: wasmtime::StoreContextMut<'_, Host>, (error,): (Resource<wasmtime::Error>,)| {
            let code: Option<ErrorCode> = failure::code_of(store.data_mut().resources().get(&error)?);
            Ok((code,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Http {
    pub(crate) fn new(grants: Arc<Grants>, console: Arc<Console>, usage: Arc<Usage>, net: Arc<Net>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HEADERS_BYTES_MAX);
        Self { context, gate: Gate { grants, console, usage, net, call: None } }
    }

    /// The call is over, and its requests with it.
    pub(crate) fn end_call(&mut self) {
        self.gate.call = None;
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (http, table) = self.http_and_resources();
        WasiHttpCtxView { hooks: &mut http.gate, table, ctx: &mut http.context }
    }
}

impl WasiHttpHooks for Gate {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _failed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (target, leave) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(error) => return Box::new(ready(Err(error))),
        };
        let call = self.call.get_or_insert_default();
        let Ok(permit) = Arc::clone(&call.in_flight).try_acquire_owned() else {
            return Box::new(ready(Err(Error::ConnectionLimitReached)));
        };
        let (mut over, mut over_later) = (call.over.subscribe(), call.over.subscribe());
        let exchange = Exchange {
            target,
            leave,
            times: Times::within(options),
            body_bytes_max: self.grants.limits.http_body_bytes,
            net: Arc::clone(&self.net),
            console: Arc::clone(&self.console),
            usage: Arc::clone(&self.usage),
        };
        Box::new(async move {
            let (response, connection) = tokio::select! {
                biased;
                _ = over.changed() => return Err(Error::ConnectionTerminated),
                sent = exchange.send(request) => sent?,
            };
            let connection = async move {
                let _permit = permit;
                // What goes wrong from here on, whoever reads the body is told.
                tokio::select! {
                    biased;
                    _ = over_later.changed() => {}
                    () = connection => {}
                }
                Ok(())
            };
            Ok((response, Box::new(connection) as Box<dyn Future<Output = Result<(), Error>> + Send>))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        failure::of_hyper(error)
    }
}

impl Gate {
    /// Whom the request is for, if it may go out.
    fn admit(&self, request: &Request<WasiBody>) -> Result<(Target, Leave), Error> {
        if request.method() == http::Method::CONNECT {
            // A tunnel would lead to somewhere that nobody has judged.
            return Err(Error::HttpRequestMethodInvalid);
        }
        let target = match Target::of(request.uri()) {
            Ok(target) => target,
            Err(fault) => {
                self.deny(&format!("HTTP request denied: {fault}"));
                return Err(Error::HttpRequestUriInvalid);
            }
        };
        let origins = match &self.grants.http {
            HttpGrant::Origins(origins) => origins.as_slice(),
            HttpGrant::None => &[],
        };
        target.leave(origins).map(|leave| (target.clone(), leave)).ok_or_else(|| {
            let named: Vec<String> = origins.iter().map(|origin| Target::from(origin).to_string()).collect();
            self.deny(&format!(
                "HTTP request to {target} denied: allow.http of handler \"{}\" names {named:?}; add \"{target}\" there",
                self.grants.handler,
            ));
            Error::HttpRequestDenied
        })
    }

    fn deny(&self, message: &str) {
        self.usage.http_denied.fetch_add(1, Ordering::Relaxed);
        self.console.log(LogLevel::Warn, "pelton", message);
    }
}
