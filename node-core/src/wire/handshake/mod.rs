//! The handshake's bytes.
//!
//! ```text
//! 1       01 ‖ version u8 ‖ e 32 ‖ ek 1184                                        1,218 bytes
//! 2       02 ‖ e 32 ‖ ENC(ct) 1104 ‖ ENC(s) 48 ‖ ENC(hello) 272 ‖ ENC(sig) 80     1,537 bytes
//! 3       03 ‖ ENC(s) 48 ‖ ENC(hello) 272 ‖ ENC(sig) 80                             401 bytes
//! REJECT  04 ‖ code u16 ‖ min u8 ‖ max u8 ‖ retry_ms u32                              9 bytes
//! ```
//!
//! A hello is `length u16 ‖ CBOR ‖ zeros` in blocks of 256 bytes. This version always sends one block, so that lengths
//! say nothing about names; it accepts up to [`HELLO_BLOCKS_MAX`], so that later versions can say more.

mod hello;

pub use hello::{ChainHead, HELLO_BLOCK, HELLO_BLOCKS_MAX, Hello, USER_AGENT_MAX, UserAgent};

use crate::{
    Code,
    crypto::{KEM_CIPHERTEXT, KEM_KEY, TAG},
    time::Duration,
};
use alloc::vec::Vec;

/// First byte of message 1.
pub const MESSAGE_1: u8 = 0x01;
/// First byte of message 2.
pub const MESSAGE_2: u8 = 0x02;
/// First byte of message 3.
pub const MESSAGE_3: u8 = 0x03;
/// First byte of a refusal.
pub const REJECT: u8 = 0x04;

/// Lowest protocol version that this node speaks.
pub const VERSION_MIN: u8 = 1;
/// Highest protocol version that this node speaks.
pub const VERSION_MAX: u8 = 1;

/// Length of message 1.
pub const MESSAGE_1_LEN: usize = 2 + 32 + KEM_KEY;
/// Longest message 1 that what carries it beside a WebSocket has room for: a circuit's opening, a WebSocket's own. 2 KiB, so
/// that later versions can say more.
pub const FIRST_MAX: usize = 2 << 10;
/// Length of message 2 with a hello of one block.
pub const MESSAGE_2_LEN: usize = 1 + 32 + KEM_CIPHERTEXT + TAG + TAIL;
/// Length of message 3 with a hello of one block.
pub const MESSAGE_3_LEN: usize = 1 + TAIL;
/// Length of a REJECT.
pub const REJECT_LEN: usize = 9;

/// ENC(s) ‖ ENC(hello) ‖ ENC(sig), which end messages 2 and 3.
const TAIL: usize = (32 + TAG) + (HELLO_BLOCK + TAG) + (64 + TAG);

/// Message 1, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Message1<'a> {
    /// The protocol version that the rest is in.
    pub version: u8,
    /// The initiator's ephemeral X25519 key.
    pub e: &'a [u8; 32],
    /// The initiator's ephemeral ML-KEM-768 encapsulation key.
    pub ek: &'a [u8; KEM_KEY],
}

impl<'a> Message1<'a> {
    /// Reads a message 1. The version is looked at before the length, which another version may have changed.
    ///
    /// # Errors
    /// [`Code::Malformed`], or [`Code::VersionUnknown`] for a version outside [`VERSION_MIN`] to [`VERSION_MAX`].
    pub fn parse(message: &'a [u8]) -> Result<Self, Code> {
        let [MESSAGE_1, version, rest @ ..] = message else {
            return Err(Code::Malformed);
        };
        if !(VERSION_MIN..=VERSION_MAX).contains(version) {
            return Err(Code::VersionUnknown);
        }
        let (e, ek) = rest.split_first_chunk().ok_or(Code::Malformed)?;
        Ok(Self {
            version: *version,
            e,
            ek: ek.try_into().map_err(|_| Code::Malformed)?,
        })
    }

    /// The bytes that [`parse`](Self::parse) reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MESSAGE_1_LEN);
        out.extend_from_slice(&[MESSAGE_1, self.version]);
        out.extend_from_slice(self.e);
        out.extend_from_slice(self.ek);
        out
    }
}

/// Message 2, read in place; everything but `e` is encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Message2<'a> {
    /// The responder's ephemeral X25519 key.
    pub e: &'a [u8; 32],
    /// ENC(ct).
    pub ct: &'a [u8; KEM_CIPHERTEXT + TAG],
    /// Who answers.
    pub tail: Tail<'a>,
}

impl<'a> Message2<'a> {
    /// Reads a message 2; `None` when it is not one.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let [MESSAGE_2, rest @ ..] = message else {
            return None;
        };
        let (e, rest) = rest.split_first_chunk()?;
        let (ct, rest) = rest.split_first_chunk()?;
        Some(Self {
            e,
            ct,
            tail: Tail::parse(rest)?,
        })
    }
}

/// What messages 2 and 3 end with: key, hello and signature, each encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Tail<'a> {
    /// ENC(s).
    pub s: &'a [u8; 32 + TAG],
    /// ENC(hello): one to [`HELLO_BLOCKS_MAX`] blocks and a tag.
    pub hello: &'a [u8],
    /// ENC(sig).
    pub sig: &'a [u8; 64 + TAG],
}

impl<'a> Tail<'a> {
    /// Reads a message 3; `None` when it is not one.
    pub fn parse_message_3(message: &'a [u8]) -> Option<Self> {
        let [MESSAGE_3, rest @ ..] = message else {
            return None;
        };
        Self::parse(rest)
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (s, rest) = bytes.split_first_chunk()?;
        let (hello, sig) = rest.split_last_chunk()?;
        let blocks = hello.len().checked_sub(TAG)?;
        let fits = blocks.is_multiple_of(HELLO_BLOCK)
            && (1..=HELLO_BLOCKS_MAX).contains(&(blocks / HELLO_BLOCK));
        fits.then_some(Self { s, hello, sig })
    }
}

/// A refusal, in clear and signed by nobody: it may move the initiator to its next route and nothing else. It bans nobody,
/// is remembered nowhere and ends no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why; `None` for a number that this version does not know.
    pub code: Option<Code>,
    /// Lowest protocol version that the refusing node speaks.
    pub version_min: u8,
    /// Highest protocol version that the refusing node speaks.
    pub version_max: u8,
    /// When another attempt may succeed; zero when it does not say.
    pub retry: Duration,
}

impl Reject {
    /// A refusal for `code`; `retry` is rounded down to milliseconds and ends at 49 days.
    pub fn new(code: Code, retry: Option<Duration>) -> Self {
        Self {
            code: Some(code),
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            retry: retry.unwrap_or_default(),
        }
    }

    /// Reads a REJECT; `None` when the message is something else.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let &[REJECT, c0, c1, version_min, version_max, r0, r1, r2, r3] = message else {
            return None;
        };
        Some(Self {
            code: Code::from_u16(u16::from_be_bytes([c0, c1])),
            version_min,
            version_max,
            retry: Duration::from_millis(u32::from_be_bytes([r0, r1, r2, r3]).into()),
        })
    }

    /// The bytes that [`parse`](Self::parse) reads. An unknown code is written as [`Code::Closed`].
    pub fn to_bytes(&self) -> [u8; REJECT_LEN] {
        let [c0, c1] = self.code.unwrap_or(Code::Closed).as_u16().to_be_bytes();
        let [r0, r1, r2, r3] = u32::try_from(self.retry.as_millis())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        [
            REJECT,
            c0,
            c1,
            self.version_min,
            self.version_max,
            r0,
            r1,
            r2,
            r3,
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn message_1_shows_its_version_first() {
        let (e, ek) = ([0xe0; 32], [0xe1; KEM_KEY]);
        let message = Message1 {
            version: 1,
            e: &e,
            ek: &ek,
        }
        .to_bytes();
        assert_eq!(message.len(), MESSAGE_1_LEN);
        assert_eq!(
            (message[0], message[1], message[2], message[34]),
            (0x01, 0x01, 0xe0, 0xe1)
        );
        let parsed = Message1::parse(&message).unwrap();
        assert_eq!((parsed.version, parsed.e, parsed.ek), (1, &e, &ek));
        assert_eq!(
            Message1::parse(&[0x01, 0x02]).unwrap_err(),
            Code::VersionUnknown
        );
        assert_eq!(Message1::parse(&[0x01, 0x01]).unwrap_err(), Code::Malformed);
        assert_eq!(Message1::parse(&[0x02, 0x01]).unwrap_err(), Code::Malformed);
    }

    #[test]
    fn the_lengths_are_those_of_the_protocol() {
        assert_eq!(
            [MESSAGE_1_LEN, MESSAGE_2_LEN, MESSAGE_3_LEN],
            [1218, 1537, 401]
        );
        for blocks in 0..=5 {
            let extra = blocks * HELLO_BLOCK;
            let message2 = [
                &[MESSAGE_2][..],
                &[0; MESSAGE_2_LEN - 1 - HELLO_BLOCK],
                &[0; 5 * HELLO_BLOCK][..extra],
            ]
            .concat();
            assert_eq!(
                Message2::parse(&message2).is_some(),
                (1..=4).contains(&blocks),
                "{blocks}"
            );
            let message3 = [
                &[MESSAGE_3][..],
                &[0; MESSAGE_3_LEN - 1 - HELLO_BLOCK],
                &[0; 5 * HELLO_BLOCK][..extra],
            ]
            .concat();
            assert_eq!(
                Tail::parse_message_3(&message3).is_some(),
                (1..=4).contains(&blocks),
                "{blocks}"
            );
        }
    }

    #[test]
    fn a_reject_is_a_code_the_versions_and_a_delay() {
        let reject = Reject::new(Code::KeyUnconfirmed, Some(Duration::from_millis(10_500)));
        let bytes = reject.to_bytes();
        assert_eq!(hex::encode(bytes), "04006b010100002904");
        assert_eq!(Reject::parse(&bytes), Some(reject));
        assert_eq!(Reject::parse(&bytes[..8]), None);
        assert_eq!(Reject::parse(&[bytes.as_slice(), &[0]].concat()), None);
        let later = Reject::parse(&[0x04, 0xff, 0xff, 2, 3, 0xff, 0xff, 0xff, 0xff]).unwrap();
        assert_eq!(
            (later.code, later.version_min, later.version_max),
            (None, 2, 3)
        );
        assert_eq!(later.retry, Duration::from_millis(u32::MAX.into()));
        let forever = Reject::new(Code::Banned, Some(Duration::MAX)).to_bytes();
        assert_eq!(forever[5..], [0xff; 4]);
    }
}
