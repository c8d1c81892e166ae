//! What the opening of a WebSocket says: where, in which version, and message 1 of the handshake.
//!
//! Message 1 rides among the offered subprotocols, because these are all that a page can choose. What the server answers tells
//! whether it has taken it.

use super::handshake::FIRST_MAX;
use alloc::{string::String, vec::Vec};

/// Path of a node's WebSocket endpoint.
pub const PATH: &str = "/nectar";

/// The WebSocket subprotocol that a dialler offers in any case. As an answer: message 1 comes over the WebSocket.
pub const SUBPROTOCOL: &str = "nectar.1";

/// The subprotocol of a dialler that offers message 1 as well. As an answer: it has come, and message 2 follows.
pub const SUBPROTOCOL_FIRST: &str = "nectar.1.first";

/// What stands before message 1, in hexadecimal, among the offers.
const FIRST: &str = "nectar.1.first.";

/// What a dialler offers whose message 1 is `first`, in the order of its preference.
pub fn offers(first: &[u8]) -> [String; 3] {
    let mut carried = String::from(FIRST);
    carried.push_str(&hex::encode(first));
    [SUBPROTOCOL_FIRST.into(), SUBPROTOCOL.into(), carried]
}

/// Message 1 among what a dialler offers, if it is there and not longer than one may be.
pub fn first_among<'a>(offers: impl IntoIterator<Item = &'a str>) -> Option<Vec<u8>> {
    let (mut told, mut first) = (false, None);
    for offer in offers {
        told |= offer == SUBPROTOCOL_FIRST;
        first = first.or_else(|| offer.strip_prefix(FIRST));
    }
    let first = first.filter(|first| told && first.len() <= FIRST_MAX * 2)?;
    hex::decode(first).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_1_comes_out_of_the_offers_as_it_went_in() {
        let first: Vec<u8> = (0..1218_u32).map(|at| (at % 251) as u8).collect();
        let offered = offers(&first);
        assert_eq!(offered[..2], ["nectar.1.first", "nectar.1"]);
        assert!(
            offered[2]
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'),
            "a token of RFC 9110"
        );
        assert_eq!(first_among(offered.iter().map(String::as_str)), Some(first));
    }

    #[test]
    fn offers_that_carry_nothing_readable_leave_message_1_to_the_socket() {
        let long = alloc::format!("nectar.1.first.{}", "a".repeat(FIRST_MAX * 2 + 2));
        for offered in [
            &["nectar.1"][..],
            &["nectar.1", "nectar.1.first"],
            &["nectar.1", "nectar.1.first.0101"],
            &["nectar.1.first", "nectar.1.first.010"],
            &["nectar.1.first", "nectar.1.first.0x01"],
            &["nectar.1.first", &long],
        ] {
            assert_eq!(first_among(offered.iter().copied()), None, "{offered:?}");
        }
    }
}
