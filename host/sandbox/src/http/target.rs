//! Whom a request is for, and whether that was granted.

use std::{fmt, net::IpAddr};

use http::{Uri, uri::Scheme};

use crate::grants::Origin;

/// The origin of a request: what it says, taken apart strictly. Whatever could be read in two ways is refused, for the
/// one who judges and the one who connects must read the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// In lower case, an IPv6 address without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Which addresses the name of a granted origin may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// This one, which was named itself.
    Itself(IpAddr),
    /// Those of this machine: the name was `localhost`.
    Loopback,
    /// Those that anybody on the internet can reach.
    Public,
    /// Any.
    Private,
}

impl Target {
    /// Takes the origin out of a URI. The fault is a phrase for a log line.
    pub(super) fn of(uri: &Uri) -> Result<Self, String> {
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            other => return Err(format!("scheme is {other:?}; expected http or https")),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("authority holds user information; expected a host, send credentials in a header".into());
        }
        let malformed = || format!("authority is {authority:?}; expected a host, or host:port");
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(malformed)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?;
                (host, port)
            }
            None => match authority.find(':') {
                Some(colon) => authority.split_at(colon),
                None => (authority, ""),
            },
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| malformed())?
            }
            None if port.is_empty() => default_port(tls),
            _ => return Err(malformed()),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(malformed());
        }
        Ok(Self { tls, host: host.to_ascii_lowercase(), port })
    }

    /// What is granted of it, if anything.
    pub(super) fn leave(&self, origins: &[Origin]) -> Option<Leave> {
        let mut matching = origins.iter().filter(|origin| self.is(origin)).peekable();
        matching.peek()?;
        Some(match self.address() {
            Some(address) => Leave::Itself(address),
            None if matching.any(|origin| origin.private) => Leave::Private,
            None if self.host == "localhost" => Leave::Loopback,
            None => Leave::Public,
        })
    }

    /// The address that it names itself by.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// As a `Host` header has it.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }

    fn is(&self, origin: &Origin) -> bool {
        let same_host = self.host.eq_ignore_ascii_case(&origin.host)
            || self.address().is_some_and(|address| origin.host.parse() == Ok(address));
        self.tls == origin.tls && self.port == origin.port && same_host
    }
}

impl From<&Origin> for Target {
    fn from(origin: &Origin) -> Self {
        Self { tls: origin.tls, host: origin.host.clone(), port: origin.port }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<Target, String> {
        Target::of(&uri.parse().map_err(|error| format!("{error}"))?)
    }

    fn origin(tls: bool, host: &str, port: u16) -> Origin {
        Origin { tls, host: host.into(), port, private: false }
    }

    #[test]
    fn an_origin_is_written_in_many_ways() {
        let origins = [origin(true, "api.stripe.com", 443), origin(false, "::1", 8080)];
        for uri in ["https://api.stripe.com/v1", "https://API.Stripe.com:443", "https://api.stripe.com:0443/"] {
            assert_eq!(target(uri).map(|target| target.leave(&origins)), Ok(Some(Leave::Public)), "{uri}");
        }
        let here = "::1".parse().expect("an address");
        for uri in ["http://[::1]:8080/", "http://[0:0::0001]:8080"] {
            assert_eq!(target(uri).map(|target| target.leave(&origins)), Ok(Some(Leave::Itself(here))), "{uri}");
        }
    }

    #[test]
    fn another_scheme_host_or_port_is_another_origin() {
        let origins = [origin(true, "api.stripe.com", 443)];
        for uri in [
            "http://api.stripe.com",
            "http://api.stripe.com:443",
            "https://api.stripe.com:8443",
            "https://stripe.com",
            "https://evil.api.stripe.com",
            "https://api.stripe.com.evil.com",
            "https://api.stripe.com.",
            "https://evil.com/https://api.stripe.com",
            "https://evil.com#api.stripe.com",
        ] {
            assert_eq!(target(uri).map(|target| target.leave(&origins)), Ok(None), "{uri}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for uri in [
            "https://api.stripe.com@evil.com/",
            "https://user:word@api.stripe.com/",
            "https://api.stripe.com:/",
            "https://api.stripe.com:99999/",
            "https://api.stripe.com:+443/",
            "https://[::1/",
            "https://[api.stripe.com]/",
            "https://a%2eb.com/",
            "ftp://api.stripe.com/",
            "/only/a/path",
        ] {
            assert!(target(uri).is_err(), "{uri}: {:?}", target(uri));
        }
    }

    #[test]
    fn leave_for_private_addresses_is_for_names() {
        let private = Origin { private: true, ..origin(false, "db", 80) };
        let db = target("http://db").expect("an origin");
        assert_eq!(db.leave(&[origin(false, "db", 80), private]), Some(Leave::Private));
        let localhost = target("http://LOCALHOST:80").expect("an origin");
        assert_eq!(localhost.leave(&[origin(false, "localhost", 80)]), Some(Leave::Loopback));
    }

    #[test]
    fn a_port_is_written_where_it_is_not_the_usual_one() {
        for uri in ["https://a.com", "http://a.com:443", "http://[::1]:81"] {
            assert_eq!(target(uri).map(|target| target.to_string()), Ok(uri.to_owned()));
        }
    }
}
