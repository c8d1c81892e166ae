//! Names, hosts and addresses.

use node_core::{
    Label, Name,
    registry::{Host, address::forbidden},
};
use std::net::{IpAddr, Ipv6Addr};

/// What is read shows as it was written; labels keep to the contract's rules; no spelling of an address hides it.
pub(crate) fn run(data: &[u8]) {
    if let Ok(name) = Name::decode(data) {
        assert_eq!(name.to_bytes(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let label = Label::new(text);
    assert_eq!(label.is_ok(), is_label(text), "{text:?}");
    if let Ok(label) = label {
        assert_eq!(label.as_str(), text);
    }
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()), Ok(host.clone()));
        match host {
            Host::Dns(name) => {
                assert_eq!(&*name, text);
                assert!(
                    name.bytes().all(|b| b.is_ascii_lowercase()
                        || b.is_ascii_digit()
                        || b"-.".contains(&b))
                );
                // The URL standard reads a host whose last part is a number as an IPv4 address.
                let last = name.rsplit('.').next().unwrap_or_default();
                let (digits, radix) = match last.strip_prefix("0x") {
                    Some(digits) => (digits, 16),
                    None => (last, 10),
                };
                assert!(!digits.chars().all(|digit| digit.is_digit(radix)), "{name}");
            }
            Host::V4(address) => {
                let refused = forbidden(IpAddr::V4(address));
                let [a, b, c, d] = address.octets().map(u16::from);
                let (high, low) = (a << 8 | b, c << 8 | d);
                for disguise in [
                    address.to_ipv6_mapped(),
                    address.to_ipv6_compatible(),
                    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                    Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                ] {
                    assert!(
                        refused.is_none() || forbidden(IpAddr::V6(disguise)).is_some(),
                        "{disguise}"
                    );
                }
            }
            Host::V6(_) => {}
        }
    }
}

/// The contract's rules, read from its text.
fn is_label(text: &str) -> bool {
    let sign = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| sign(byte) || *byte == b'-')
        && bytes.first().is_some_and(sign)
        && bytes.last().is_some_and(sign)
        && !text.contains("--")
}
