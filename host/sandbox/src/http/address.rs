//! Which addresses a name may lead to. A name belongs to whoever runs its server, who can have it stand for an address
//! inside this machine's network, where much is open to everybody who can connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::target::Leave;

impl Leave {
    /// Whether an address may be connected to.
    pub(super) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Itself(named) => address == named,
            Self::Loopback => address.to_canonical().is_loopback(),
            Self::Public => is_public(address),
            Self::Private => true,
        }
    }
}

/// Whether an address is one that anybody on the internet can reach: neither loopback, link-local, private, shared,
/// multicast, broadcast, unspecified, reserved nor for documentation, as the special-purpose registries of IANA have it.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-mapped and IPv4-compatible, and behind a NAT64: as good as what is inside.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // For protocols, among them Teredo and benchmarks; for documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // All that is given out to the public so far.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn public_addresses_are_reached_by_any_name() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
            "64:ff9b::8.8.8.8",
            "2002:0808:0808::1",
        ] {
            assert!(Leave::Public.allows(address(public)), "{public}");
        }
    }

    #[test]
    fn addresses_within_are_not_however_they_are_written() {
        for within in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:0a00:0001::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "5f00::1",
        ] {
            assert!(!Leave::Public.allows(address(within)), "{within}");
            assert!(Leave::Private.allows(address(within)), "{within}");
        }
    }

    #[test]
    fn what_was_named_itself_is_allowed_and_nothing_beside_it() {
        let named = Leave::Itself(address("10.0.0.1"));
        assert!(named.allows(address("10.0.0.1")) && !named.allows(address("10.0.0.2")));
        for here in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"] {
            assert!(Leave::Loopback.allows(address(here)), "{here}");
        }
        assert!(!Leave::Loopback.allows(address("1.1.1.1")) && !Leave::Loopback.allows(address("10.0.0.1")));
    }
}
