//! `allow.http`: the origins that a handler may call. Read strictly: what is allowed must be what the reader of the file
//! thinks is.

use std::net::{Ipv4Addr, Ipv6Addr};

use pelton_sandbox::{HttpGrant, Origin};

use super::reader::{Item, Section};

/// What a name may have in DNS.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

pub(super) fn http(allow: &Section<'_>) -> HttpGrant {
    let expected = "a list of origins such as [\"https://api.example.com\"]";
    let Some(items) = allow.items("http", expected) else { return HttpGrant::None };
    let mut origins: Vec<Origin> = Vec::new();
    for item in items {
        let (read, private, span) = match item {
            Item::Text(text, span) => (origin(&text), false, span),
            Item::Table(section) => {
                let text = section.required_string("origin", "\"https://api.example.com\"");
                let (private, span) = (section.boolean("private").unwrap_or(false), section.span());
                section.finish();
                let Some(text) = text else { continue };
                (origin(&text), private, span)
            }
        };
        match read {
            Ok(origin) if origins.iter().any(|other| same(other, &origin)) => {
                allow.fault_in("http", &span, format_args!("{:?} stands there twice; remove one", show(&origin)));
            }
            Ok(origin) => origins.push(Origin { private, ..origin }),
            Err(fault) => allow.fault_in("http", &span, fault),
        }
    }
    HttpGrant::Origins(origins)
}

/// Reads an origin: scheme, host, and a port unless it is the scheme's own.
fn origin(text: &str) -> Result<Origin, String> {
    let expected = "expected an origin such as \"https://api.example.com\" or \"http://127.0.0.1:8080\"";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{expected}, found {}", shown(text)));
    };
    let tls = match &*scheme.to_ascii_lowercase() {
        "https" => true,
        "http" => false,
        _ => return Err(format!("expected http or https, found {} in {}", shown(scheme), shown(text))),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(
            "expected an origin without user name and password; they belong into secrets, and from there into a header"
                .into(),
        );
    }
    let (host, port) = authority_of(authority, tls).map_err(|fault| format!("{fault}, found {}", shown(text)))?;
    let origin = Origin { tls, host, port, private: false };
    if !matches!(path, "" | "/") {
        let found = shown(text);
        return Err(format!("expected no path, query or fragment, found {found}; write {:?}", show(&origin)));
    }
    Ok(origin)
}

fn authority_of(authority: &str, tls: bool) -> Result<(String, u16), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("expected \"]\" after an IPv6 address")?;
        let host: Ipv6Addr = host.parse().map_err(|_| "expected an IPv6 address in brackets, without a zone")?;
        return Ok((host.to_string(), port_of(port, tls)?));
    }
    let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
    if port.matches(':').count() > 1 {
        return Err("expected an IPv6 address in brackets, as in \"http://[::1]:8080\"".into());
    }
    Ok((host_of(&host.to_ascii_lowercase())?, port_of(port, tls)?))
}

fn host_of(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("expected a host after \"://\"".into());
    }
    if host.contains('*') {
        return Err("expected the name of one host: there are no wildcards, each origin is named".into());
    }
    if !host.is_ascii() {
        return Err("expected a host in ASCII; write an international name in its \"xn--\" form".into());
    }
    // What ends in a number is an address to a resolver, in more ways of writing it than anybody knows.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with("0x") || last.chars().all(|c| c.is_ascii_digit()) && !last.is_empty() {
        let address: Ipv4Addr = host.parse().map_err(|_| "expected an IPv4 address as four numbers")?;
        return Ok(address.to_string());
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.chars().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(is_label) {
        return Err("expected a host of letters, digits, '-' and '_' between dots".into());
    }
    Ok(host.into())
}

fn port_of(port: &str, tls: bool) -> Result<u16, String> {
    let Some(digits) = port.strip_prefix(':') else {
        return if port.is_empty() { Ok(own_port(tls)) } else { Err("expected \":\" and a port after \"]\"".into()) };
    };
    let number = digits.parse().ok().filter(|_| digits.chars().all(|c| c.is_ascii_digit()));
    number.filter(|port| *port > 0).ok_or_else(|| "expected a port from 1 to 65535".into())
}

fn own_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn same(one: &Origin, other: &Origin) -> bool {
    (one.tls, &one.host, one.port) == (other.tls, &other.host, other.port)
}

/// An origin as it is best written.
fn show(origin: &Origin) -> String {
    let Origin { tls, host, port, .. } = origin;
    let scheme = if *tls { "https" } else { "http" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    if *port == own_port(*tls) { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
}

/// What a message may show of a text: a password, or a token in a query, is cut off.
fn shown(text: &str) -> String {
    let without_query = text.split(['?', '#']).next().unwrap_or_default();
    match without_query.rsplit_once('@') {
        Some((_, host)) => format!("{:?}", format!("…@{host}")),
        None if without_query.len() < text.len() => format!("{:?}", format!("{without_query}…")),
        None => format!("{text:?}"),
    }
}
