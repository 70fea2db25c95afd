//! What goes wrong with a request, in the words of `wasi:http`.

use std::{error::Error as _, io};

use wasmtime_wasi_http::{Error, p2::bindings::http::types::ErrorCode};

/// A request whose head or body could not be exchanged.
pub(super) fn of_hyper(error: &hyper::Error) -> ErrorCode {
    // What the guest's own side of a body ended with.
    if let Some(code) = error.source().and_then(|source| source.downcast_ref::<ErrorCode>()) {
        return code.clone();
    }
    if error.is_parse_too_large() {
        ErrorCode::HttpResponseHeaderSectionSize(None)
    } else if error.is_incomplete_message() || io_kind(error) == Some(io::ErrorKind::UnexpectedEof) {
        ErrorCode::HttpResponseIncomplete
    } else if error.is_timeout() {
        ErrorCode::HttpResponseTimeout
    } else if error.is_closed() || error.is_canceled() || io_kind(error).is_some() {
        ErrorCode::ConnectionTerminated
    } else {
        ErrorCode::HttpProtocolError
    }
}

fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// A connection that was not made.
pub(super) fn of_connect(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Error::ConnectionTerminated,
        _ => Error::DestinationUnavailable,
    }
}

/// A connection that was made, but not over TLS.
pub(super) fn of_tls(error: &io::Error) -> Error {
    use tokio_rustls::rustls::Error as Tls;
    match error.get_ref().and_then(|source| source.downcast_ref::<Tls>()) {
        Some(Tls::InvalidCertificate(_) | Tls::NoCertificatesPresented) => Error::TlsCertificateError,
        Some(Tls::AlertReceived(alert)) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::TlsProtocolError,
    }
}

/// What the stream of a response ended with, if it was this module that ended it.
pub(super) fn code_of(error: &wasmtime::Error) -> Option<ErrorCode> {
    match error.downcast_ref::<Error>() {
        Some(Error::Hyper(error)) => Some(of_hyper(error)),
        Some(Error::HttpResponseBodySize(bytes)) => Some(ErrorCode::HttpResponseBodySize(*bytes)),
        Some(Error::ConnectionReadTimeout) => Some(ErrorCode::ConnectionReadTimeout),
        Some(_) => Some(ErrorCode::InternalError(None)),
        None => error.downcast_ref::<ErrorCode>().cloned(),
    }
}
