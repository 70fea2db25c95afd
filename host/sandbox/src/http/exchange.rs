//! One request and its response.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, io::TokioIo};

use super::{
    HEADERS_BYTES_MAX,
    body::{RequestBody, ResponseBody},
    connect::{Fault, Net},
    target::{Leave, Target},
};
use crate::{console::Console, log::LogLevel, usage::Usage};

/// Headers of a response, in number.
const HEADERS_MAX: usize = 256;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const FIRST_BYTE_MAX: Duration = Duration::from_secs(30);
const BETWEEN_BYTES_MAX: Duration = Duration::from_secs(30);

/// How long each step may take: what the guest asks for, within the host's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Times {
    pub(super) fn within(asked: Option<RequestOptions>) -> Self {
        let asked = asked.unwrap_or_default();
        let within = |asked: Option<Duration>, most: Duration| asked.map_or(most, |asked| asked.min(most));
        Self {
            connect: within(asked.connect_timeout, CONNECT_MAX),
            first_byte: within(asked.first_byte_timeout, FIRST_BYTE_MAX),
            between_bytes: within(asked.between_bytes_timeout, BETWEEN_BYTES_MAX),
        }
    }
}

/// All that a request needs once it may go out.
pub(super) struct Exchange {
    pub(super) target: Target,
    pub(super) leave: Leave,
    pub(super) times: Times,
    pub(super) body_bytes_max: u64,
    pub(super) net: Arc<Net>,
    pub(super) console: Arc<Console>,
    pub(super) usage: Arc<Usage>,
}

impl Exchange {
    /// Sends the request and waits for the head of its response. The second future drives the rest, and ends when the body
    /// was read or the connection broke.
    pub(super) async fn send(
        self,
        request: Request<WasiBody>,
    ) -> Result<(Response<WasiBody>, impl Future<Output = ()> + Send + use<>), Error> {
        let request = self.prepare(request)?;
        let stream = match self.net.connect(&self.target, self.leave, self.times.connect).await {
            Ok(stream) => stream,
            Err(Fault::Failed(error)) => return Err(error),
            Err(Fault::Denied(addresses)) => {
                self.usage.http_denied.fetch_add(1, Ordering::Relaxed);
                let message = format!(
                    "HTTP request to {} denied: the name stands for {addresses:?} here, which is not public; if it may, \
                     allow private addresses for this origin in allow.http",
                    self.target
                );
                self.console.log(LogLevel::Warn, "pelton", &message);
                return Err(Error::DestinationIpProhibited);
            }
        };
        let mut client = hyper::client::conn::http1::Builder::new();
        client.max_headers(HEADERS_MAX).max_buf_size(HEADERS_BYTES_MAX);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await?;
        self.usage.http_requests.fetch_add(1, Ordering::Relaxed);

        // Boxed: it is moved out of here half-way.
        let mut connection = Box::pin(connection);
        let mut broken = None;
        let response = {
            let mut response = std::pin::pin!(timeout(self.times.first_byte, sender.send_request(request)));
            loop {
                tokio::select! {
                    biased;
                    response = &mut response => break response,
                    ended = &mut connection, if broken.is_none() => broken = Some(ended),
                }
            }
        };
        let response = match (response, &mut broken) {
            (Ok(Ok(response)), _) => response,
            // The connection knows better than the request what went wrong.
            (Ok(Err(_)), Some(ended)) if ended.is_err() => return Err(Self::ended(broken)),
            (Ok(Err(error)), _) => return Err(error.into()),
            (Err(_), _) => return Err(Error::ConnectionReadTimeout),
        };

        let declared = response.body().size_hint().lower();
        if declared > self.body_bytes_max {
            return Err(Error::HttpResponseBodySize(Some(declared)));
        }
        let (bytes_max, pause_max) = (self.body_bytes_max, self.times.between_bytes);
        let response = response.map(|body| ResponseBody::new(body, bytes_max, pause_max).boxed_unsync());
        let rest = async move {
            if broken.is_none() {
                // A fault of the connection reaches the body, whose reader is told.
                let _ = connection.await;
            }
        };
        Ok((response, rest))
    }

    fn ended(broken: Option<Result<(), hyper::Error>>) -> Error {
        match broken {
            Some(Err(error)) => error.into(),
            _ => Error::ConnectionTerminated,
        }
    }

    /// Makes it what goes over the wire: a path alone, the headers that are the host's own, and a body that keeps within
    /// its limit.
    fn prepare(&self, mut request: Request<WasiBody>) -> Result<Request<RequestBody>, Error> {
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if let Some(length) = declared.and_then(|length| length.parse::<u64>().ok())
            && length > self.body_bytes_max
        {
            return Err(Error::HttpRequestBodySize(Some(length)));
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        *request.uri_mut() = Uri::try_from(path).map_err(|_| Error::HttpRequestUriInvalid)?;
        let host = HeaderValue::try_from(self.target.authority()).map_err(|_| Error::HttpRequestUriInvalid)?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let bytes_max = self.body_bytes_max;
        Ok(request.map(|body| RequestBody::new(body, bytes_max)))
    }
}
