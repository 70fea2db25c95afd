//! Requests. Headers of the event say how:
//!
//! | header | means |
//! | --- | --- |
//! | `method` | `get` if it is left out; any other word as it is |
//! | `body` | so many bytes are sent |
//! | `declare` | `content-length` says so many |
//! | `connect-ms`, `first-byte-ms`, `between-bytes-ms` | how long to wait |
//! | `header` | `name: value`, sent along |

use pelton_sdk::Event;

use crate::bindings::wasi::{
    http::{
        outgoing_handler::handle,
        types::{
            ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
            OutgoingRequest, RequestOptions, Scheme, http_error_code,
        },
    },
    io::streams::StreamError,
};

/// Status and body, or what went wrong.
pub(crate) fn request(event: &Event, url: &str) -> String {
    told(send(event, url).and_then(wait).and_then(read))
}

pub(crate) fn many(event: &Event, url: &str) -> String {
    let sent: Vec<_> = (0..number(event, "n").unwrap_or(1)).map(|_| send(event, url)).collect();
    let told: Vec<_> = sent.into_iter().map(|sent| told(sent.and_then(wait).and_then(read))).collect();
    told.join("; ")
}

pub(crate) fn leave(event: &Event, url: &str) -> String {
    match send(event, url) {
        Ok(future) => {
            // Kept, as a guest would that means to come back to it.
            std::mem::forget(future);
            "left".into()
        }
        Err(problem) => problem,
    }
}

fn told(result: Result<String, String>) -> String {
    result.unwrap_or_else(|problem| problem)
}

fn number(event: &Event, header: &str) -> Option<u64> {
    event.header(header).and_then(|value| value.parse().ok())
}

fn words(code: ErrorCode) -> String {
    format!("{code:?}")
}

fn send(event: &Event, url: &str) -> Result<FutureIncomingResponse, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let headers = Fields::new();
    if let Some((name, value)) = event.header("header").and_then(|header| header.split_once(": ")) {
        headers.append(name, value.as_bytes()).map_err(|problem| format!("{problem:?}"))?;
    }
    if let Some(length) = event.header("declare") {
        headers.append("content-length", length.as_bytes()).map_err(|problem| format!("{problem:?}"))?;
    }
    let request = OutgoingRequest::new(headers);
    let method = match event.header("method") {
        None | Some("get") => Method::Get,
        Some("post") => Method::Post,
        Some("connect") => Method::Connect,
        Some(other) => Method::Other(other.into()),
    };
    request.set_method(&method).map_err(|()| "method refused")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.into()),
    };
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme refused")?;
    request.set_authority(Some(authority)).map_err(|()| "authority refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path refused")?;
    let options = RequestOptions::new();
    let nanos = |header| number(event, header).map(|ms| ms * 1_000_000);
    let _ = options.set_connect_timeout(nanos("connect-ms"));
    let _ = options.set_first_byte_timeout(nanos("first-byte-ms"));
    let _ = options.set_between_bytes_timeout(nanos("between-bytes-ms"));
    let body = request.body().map_err(|()| "no body to be had")?;
    let future = handle(request, Some(options)).map_err(words)?;
    write(&body, number(event, "body").unwrap_or(0));
    // What the server makes of a body that is short, the response tells.
    let _ = OutgoingBody::finish(body, None);
    Ok(future)
}

fn write(body: &OutgoingBody, mut bytes: u64) {
    let Ok(stream) = body.write() else { return };
    while bytes > 0 {
        let part = bytes.min(4096);
        if stream.blocking_write_and_flush(&vec![b'x'; part as usize]).is_err() {
            return;
        }
        bytes -= part;
    }
}

fn wait(future: FutureIncomingResponse) -> Result<IncomingResponse, String> {
    loop {
        match future.get() {
            Some(response) => return response.map_err(|()| "taken twice")?.map_err(words),
            None => future.subscribe().block(),
        }
    }
}

fn read(response: IncomingResponse) -> Result<String, String> {
    let status = response.status();
    let location = response.headers().get("location").pop().unwrap_or_default();
    let body = response.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut read = Vec::new();
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(part) => read.extend(part),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(problem)) => {
                let code = http_error_code(&problem).map_or_else(|| problem.to_debug_string(), words);
                return Err(format!("{code} after {} bytes", read.len()));
            }
        }
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    let text = if read.len() > 200 { format!("{} bytes", read.len()) } else { String::from_utf8_lossy(&read).into() };
    Ok(format!("{status} {}{text}", String::from_utf8_lossy(&location)))
}
