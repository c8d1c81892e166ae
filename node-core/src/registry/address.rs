//! Addresses and ports that a record may name and a node does not dial, unless its operator allows.
//!
//! Anybody can register `127.0.0.1` or a name that resolves to it, and have every node that looks it up knock on its own
//! services. A driver resolves a DNS name once, asks [`forbidden`] about every address, dials the address that it asked
//! about, and follows no redirect.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// `0.0.0.0/8`, `::`: this host, or none.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`, `fc00::/7`, `fec0::/10`, `64:ff9b:1::/48`.
    Private,
    /// `169.254.0.0/16`, `fe80::/10`: also where clouds serve their machines' credentials.
    LinkLocal,
    /// `100.64.0.0/10`, inside a provider's network.
    CarrierGrade,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `198.18.0.0/15`, `2001:2::/48`.
    Benchmarking,
    /// Examples in documents.
    Documentation,
    /// Everything else that is not unicast on the public internet.
    Reserved,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::CarrierGrade => "an address inside a provider's network",
            Self::Multicast => "a multicast address",
            Self::Benchmarking => "an address for benchmarks",
            Self::Documentation => "an address for documentation",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Why `address` is not to be dialled, or `None` if it is an ordinary address of the public internet. IPv4 addresses
/// inside IPv6 ones (mapped, NAT64, 6to4, Teredo) are judged by what they are.
pub fn forbidden(address: IpAddr) -> Option<AddressClass> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => forbidden_v6(address),
    }
}

/// Whether browsers refuse to connect to this port (the Fetch standard's "bad port"), since services that mistake a
/// browser's request for their own protocol listen there.
pub fn port_blocked(port: u16) -> bool {
    BAD_PORTS.binary_search(&port).is_ok()
}

const BAD_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
    102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427,
    465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990,
    993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
    6668, 6669, 6679, 6697, 10080,
];

fn forbidden_v4(address: Ipv4Addr) -> Option<AddressClass> {
    match address.octets() {
        [0, ..] => Some(AddressClass::Unspecified),
        [127, ..] => Some(AddressClass::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(AddressClass::Private),
        [169, 254, ..] => Some(AddressClass::LinkLocal),
        [100, 64..=127, ..] => Some(AddressClass::CarrierGrade),
        [198, 18..=19, ..] => Some(AddressClass::Benchmarking),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(AddressClass::Documentation),
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Some(AddressClass::Reserved),
        [224..=239, ..] => Some(AddressClass::Multicast),
        _ => None,
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<AddressClass> {
    if address.is_unspecified() {
        return Some(AddressClass::Unspecified);
    }
    if address.is_loopback() {
        return Some(AddressClass::Loopback);
    }
    let [.., a, b, c, d] = address.octets();
    let last = Ipv4Addr::new(a, b, c, d);
    match address.segments() {
        // Mapped, and NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => forbidden_v4(last),
        // NAT64 for local use: where in it the IPv4 address stands is the network's secret.
        [0x64, 0xff9b, 1, ..] => Some(AddressClass::Private),
        // 6to4.
        [0x2002, high, low, ..] => forbidden_v4(v4(high, low)),
        // Teredo: its server, and the client's address with all bits flipped.
        [0x2001, 0, high, low, .., x, y] => {
            forbidden_v4(v4(high, low)).or_else(|| forbidden_v4(v4(!x, !y)))
        }
        [0x2001, 2, 0, ..] => Some(AddressClass::Benchmarking),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(AddressClass::Documentation),
        // Set aside for protocols: ORCHID and others that are no addresses of hosts.
        [0x2001, 0..=0x1ff, ..] => Some(AddressClass::Reserved),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(AddressClass::Private),
        [0xfe80..=0xfebf, ..] => Some(AddressClass::LinkLocal),
        [0xff00..=0xffff, ..] => Some(AddressClass::Multicast),
        // Only an eighth of all addresses is in use.
        [0x2000..=0x3fff, ..] => None,
        _ => Some(AddressClass::Reserved),
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn every_range_is_refused_up_to_its_edges_and_its_neighbours_are_not() {
        use AddressClass as C;
        for (text, expected) in [
            ("0.0.0.0", Some(C::Unspecified)),
            ("0.255.255.255", Some(C::Unspecified)),
            ("1.0.0.0", None),
            ("9.255.255.255", None),
            ("10.0.0.0", Some(C::Private)),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.0", Some(C::CarrierGrade)),
            ("100.127.255.255", Some(C::CarrierGrade)),
            ("100.128.0.0", None),
            ("127.0.0.1", Some(C::Loopback)),
            ("127.255.255.255", Some(C::Loopback)),
            ("169.254.169.254", Some(C::LinkLocal)),
            ("169.253.0.1", None),
            ("172.15.255.255", None),
            ("172.16.0.0", Some(C::Private)),
            ("172.31.255.255", Some(C::Private)),
            ("172.32.0.0", None),
            ("192.0.0.8", Some(C::Reserved)),
            ("192.0.2.1", Some(C::Documentation)),
            ("192.0.3.1", None),
            ("192.88.99.1", Some(C::Reserved)),
            ("192.168.1.1", Some(C::Private)),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("198.18.0.0", Some(C::Benchmarking)),
            ("198.19.255.255", Some(C::Benchmarking)),
            ("198.51.100.7", Some(C::Documentation)),
            ("203.0.113.7", Some(C::Documentation)),
            ("223.255.255.255", None),
            ("224.0.0.1", Some(C::Multicast)),
            ("239.255.255.255", Some(C::Multicast)),
            ("240.0.0.1", Some(C::Reserved)),
            ("255.255.255.255", Some(C::Reserved)),
            ("::", Some(C::Unspecified)),
            ("::1", Some(C::Loopback)),
            ("::2", Some(C::Reserved)),
            ("::7f00:1", Some(C::Reserved)),
            ("100::1", Some(C::Reserved)),
            ("2001:2::1", Some(C::Benchmarking)),
            ("2001:20::1", Some(C::Reserved)),
            ("2001:1ff::1", Some(C::Reserved)),
            ("2001:200::1", None),
            ("2001:db8::1", Some(C::Documentation)),
            ("3fff::1", Some(C::Documentation)),
            ("3fff:1000::1", None),
            ("2a00:1450::1", None),
            ("4000::1", Some(C::Reserved)),
            ("5f00::1", Some(C::Reserved)),
            ("fc00::1", Some(C::Private)),
            ("fdff::1", Some(C::Private)),
            ("fe80::1", Some(C::LinkLocal)),
            ("febf::1", Some(C::LinkLocal)),
            ("fec0::1", Some(C::Private)),
            ("ff02::1", Some(C::Multicast)),
        ] {
            assert_eq!(forbidden(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn an_inner_address_in_any_disguise_is_found() {
        for (text, expected) in [
            ("::ffff:127.0.0.1", Some(AddressClass::Loopback)),
            ("::ffff:10.1.2.3", Some(AddressClass::Private)),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::169.254.169.254", Some(AddressClass::LinkLocal)),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some(AddressClass::Private)),
            ("2002:7f00:1::1", Some(AddressClass::Loopback)),
            ("2002:c0a8:101::1", Some(AddressClass::Private)),
            ("2002:808:808::1", None),
            // Teredo: server 65.54.227.120, client 192.168.0.1 and 192.0.2.45 flipped.
            (
                "2001:0:4136:e378:8000:63bf:3f57:fffe",
                Some(AddressClass::Private),
            ),
            (
                "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                Some(AddressClass::Documentation),
            ),
            (
                "2001:0:7f00:1:8000:63bf:f7f7:f7f7",
                Some(AddressClass::Loopback),
            ),
            ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", None),
        ] {
            assert_eq!(forbidden(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn ports_that_browsers_block_are_known_and_usual_ones_are_free() {
        assert!(
            BAD_PORTS.windows(2).all(|pair| pair[0] < pair[1]),
            "sorted for the search"
        );
        for port in [0, 22, 25, 53, 6667, 10080] {
            assert!(port_blocked(port), "{port}");
        }
        for port in [80, 443, 8080, 8443, 9000, 65535] {
            assert!(!port_blocked(port), "{port}");
        }
    }
}
