//! Bodies within their limits: so many bytes, and not too long between two pieces.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};
use wasmtime_wasi_http::{Error, WasiBody, p2::bindings::http::types::ErrorCode};

/// What a guest sends.
pub(super) struct RequestBody {
    body: WasiBody,
    bytes: u64,
    bytes_max: u64,
}

impl RequestBody {
    pub(super) fn new(body: WasiBody, bytes_max: u64) -> Self {
        Self { body, bytes: 0, bytes_max }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ErrorCode;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ErrorCode>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.bytes = self.bytes.saturating_add(bytes_of(&frame));
                if self.bytes > self.bytes_max {
                    return Poll::Ready(Some(Err(ErrorCode::HttpRequestBodySize(Some(self.bytes)))));
                }
                Some(Ok(frame))
            }
            // The guest dropped it before it was finished.
            Some(Err(_)) => Some(Err(ErrorCode::HttpProtocolError)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a server answers.
pub(super) struct ResponseBody {
    body: Incoming,
    bytes: u64,
    bytes_max: u64,
    pause_max: Duration,
    /// Runs while something is waited for.
    pause: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(super) fn new(body: Incoming, bytes_max: u64, pause_max: Duration) -> Self {
        Self { body, bytes: 0, bytes_max, pause_max, pause: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.pause = None;
                this.bytes = this.bytes.saturating_add(bytes_of(&frame));
                if this.bytes > this.bytes_max {
                    return Poll::Ready(Some(Err(Error::HttpResponseBodySize(Some(this.bytes)))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let until = || Box::pin(sleep(this.pause_max));
                ready!(this.pause.get_or_insert_with(until).as_mut().poll(cx));
                this.pause = None;
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Trailers count too.
fn bytes_of(frame: &Frame<Bytes>) -> u64 {
    let data = frame.data_ref().map_or(0, Bytes::len);
    let trailers = frame
        .trailers_ref()
        .map_or(0, |map| map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>());
    (data + trailers) as u64
}
