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

use crate::{
    Code, Name, Timestamp,
    crypto::{KEM_CIPHERTEXT, KEM_KEY, TAG},
    time::Duration,
};
use alloc::{boxed::Box, vec::Vec};
use minicbor::{Decoder, Encoder};

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
/// Length of message 2 with a hello of one block.
pub const MESSAGE_2_LEN: usize = 1 + 32 + KEM_CIPHERTEXT + TAG + TAIL;
/// Length of message 3 with a hello of one block.
pub const MESSAGE_3_LEN: usize = 1 + TAIL;
/// Length of a REJECT.
pub const REJECT_LEN: usize = 9;

/// Length of a hello, or of one block of a longer one.
pub const HELLO_BLOCK: usize = 256;
/// Blocks in the longest hello that is accepted.
pub const HELLO_BLOCKS_MAX: usize = 4;
/// Longest user agent, in bytes.
pub const USER_AGENT_MAX: usize = 48;

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

/// A block that a chain had when the hello was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// What software a node runs, in its own words: printable ASCII, at most [`USER_AGENT_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserAgent(Box<str>);

impl UserAgent {
    /// Keeps the printable ASCII characters of `text`, as many as fit.
    pub fn new(text: &str) -> Self {
        let kept: String = text
            .chars()
            .filter(|c| matches!(c, ' '..='~'))
            .take(USER_AGENT_MAX)
            .collect();
        Self(kept.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for UserAgent {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// What each side says about itself in messages 2 and 3: a CBOR map with these keys.
///
/// | key | value | |
/// |---|---|---|
/// | 0 | u8 | highest protocol version |
/// | 1 | u64 | timestamp, milliseconds since 1970 |
/// | 2 | bytes | own name; absent for a guest |
/// | 3 | bytes | target name; in message 3 only, and always |
/// | 4 | u32 | feature bits; 0 when absent |
/// | 5 | u32 | privacy bits; 0 when absent |
/// | 6 | bytes, 8 | connection nonce |
/// | 7 | text | user agent; in message 3 only, optional |
/// | 8 | \[u64, bytes 32\] | chain head, number and hash; in message 3 only, optional |
///
/// Other unsigned keys are skipped, a repeated key is refused. With two of the longest names the optional fields do not
/// fit into one block; then the user agent is shortened first, and the chain head left out next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Highest protocol version that the sender speaks.
    pub version_max: u8,
    /// The sender's clock.
    pub timestamp: Timestamp,
    /// Who the sender says it is; `None` for a guest.
    pub name: Option<Name>,
    /// Whom the sender wants to talk to.
    pub target: Option<Name>,
    /// Feature bits.
    pub features: u32,
    /// Privacy bits.
    pub privacy: u32,
    /// Random per connection.
    pub nonce: [u8; 8],
    /// The sender's software.
    pub user_agent: UserAgent,
    /// The newest block that the sender knows on its own name's chain.
    pub head: Option<ChainHead>,
}

impl Hello {
    /// The hello in one block.
    pub fn encode(&self) -> [u8; HELLO_BLOCK] {
        const ROOM: usize = HELLO_BLOCK - 2;
        let mut cbor = self.to_cbor(self.head, self.user_agent.as_str());
        if cbor.len() > ROOM {
            let excess = cbor.len() - ROOM;
            let kept = self.user_agent.as_str().len().saturating_sub(excess);
            // Sanitised on the way in, so every byte is a character.
            cbor = self.to_cbor(
                self.head,
                self.user_agent.as_str().get(..kept).unwrap_or_default(),
            );
        }
        if cbor.len() > ROOM {
            let spare = ROOM.saturating_sub(self.to_cbor(None, "").len() + 3);
            let kept = self.user_agent.as_str().len().min(spare);
            cbor = self.to_cbor(
                None,
                self.user_agent.as_str().get(..kept).unwrap_or_default(),
            );
        }
        let mut block = [0; HELLO_BLOCK];
        // Two of the longest names with every required field are 224 bytes.
        let length = u16::try_from(cbor.len()).expect("below one block");
        block[..2].copy_from_slice(&length.to_be_bytes());
        block[2..2 + cbor.len()].copy_from_slice(&cbor);
        block
    }

    /// Reads a decrypted hello of any number of blocks; `None` when it is malformed.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let (length, rest) = block.split_first_chunk()?;
        let (cbor, padding) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        let mut decoder = Decoder::new(cbor);
        let hello = Self::from_cbor(&mut decoder)?;
        (decoder.position() == cbor.len()).then_some(hello)
    }

    fn to_cbor(&self, head: Option<ChainHead>, user_agent: &str) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(HELLO_BLOCK));
        self.write(&mut encoder, head, user_agent)
            .expect("writing to a vector does not fail");
        encoder.into_writer()
    }

    fn write(
        &self,
        out: &mut Encoder<Vec<u8>>,
        head: Option<ChainHead>,
        user_agent: &str,
    ) -> Result<(), minicbor::encode::Error<core::convert::Infallible>> {
        let optional = [
            self.name.is_some(),
            self.target.is_some(),
            !user_agent.is_empty(),
            head.is_some(),
        ];
        out.map(5 + optional.iter().filter(|present| **present).count() as u64)?;
        out.u8(0)?.u8(self.version_max)?;
        out.u8(1)?.u64(self.timestamp.0)?;
        if let Some(name) = &self.name {
            out.u8(2)?.bytes(&name.to_bytes())?;
        }
        if let Some(target) = &self.target {
            out.u8(3)?.bytes(&target.to_bytes())?;
        }
        out.u8(4)?.u32(self.features)?;
        out.u8(5)?.u32(self.privacy)?;
        out.u8(6)?.bytes(&self.nonce)?;
        if !user_agent.is_empty() {
            out.u8(7)?.str(user_agent)?;
        }
        if let Some(head) = head {
            out.u8(8)?.array(2)?.u64(head.number)?.bytes(&head.hash)?;
        }
        Ok(())
    }

    fn from_cbor(input: &mut Decoder<'_>) -> Option<Self> {
        let mut seen = 0u16;
        let (mut version_max, mut timestamp, mut nonce) = (None, None, None);
        let (mut name, mut target, mut head) = (None, None, None);
        let (mut features, mut privacy, mut user_agent) = (0, 0, UserAgent::default());
        for _ in 0..input.map().ok()?? {
            let key = input.u64().ok()?;
            if let known @ 0..=8 = key {
                let bit = 1 << known;
                if seen & bit != 0 {
                    return None;
                }
                seen |= bit;
            }
            match key {
                0 => version_max = Some(input.u8().ok()?),
                1 => timestamp = Some(Timestamp(input.u64().ok()?)),
                2 => name = Some(Name::decode(input.bytes().ok()?).ok()?),
                3 => target = Some(Name::decode(input.bytes().ok()?).ok()?),
                4 => features = input.u32().ok()?,
                5 => privacy = input.u32().ok()?,
                6 => nonce = Some(input.bytes().ok()?.try_into().ok()?),
                7 => {
                    let text = input.str().ok()?;
                    user_agent = UserAgent::new(text);
                    if user_agent.as_str() != text {
                        return None;
                    }
                }
                8 => {
                    let (Some(2), number) = (input.array().ok()?, input.u64().ok()?) else {
                        return None;
                    };
                    head = Some(ChainHead {
                        number,
                        hash: input.bytes().ok()?.try_into().ok()?,
                    });
                }
                _ => input.skip().ok()?,
            }
        }
        Some(Self {
            version_max: version_max?,
            timestamp: timestamp?,
            name,
            target,
            features,
            privacy,
            nonce: nonce?,
            user_agent,
            head,
        })
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
    use crate::{Label, RegistryId};

    fn hello() -> Hello {
        let name = |label| Name {
            registry: RegistryId {
                chain_id: 31337,
                contract: [0xc0; 20],
            },
            label: Label::new(label).unwrap(),
        };
        Hello {
            version_max: 1,
            timestamp: Timestamp(0x0197_7420_dc00),
            name: Some(name("alice")),
            target: Some(name("bob")),
            features: 7,
            privacy: 0x0100,
            nonce: [0x99; 8],
            user_agent: "n/1".into(),
            head: Some(ChainHead {
                number: 300,
                hash: [0xbb; 32],
            }),
        }
    }

    #[test]
    fn a_hello_is_a_length_a_map_with_integer_keys_and_zeros() {
        let expected = [
            "008f",                 // 143 bytes of CBOR
            "a9",                   // a map of nine
            "0001",                 // highest version
            "011b000001977420dc00", // timestamp
            "025821",               /* own name: */
            "0000000000007a69",     // chain 31337
            "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0",
            "616c696365",       // contract, "alice"
            "03581f",           /* target: */
            "0000000000007a69", // chain 31337
            "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0",
            "626f62",               // contract, "bob"
            "0407",                 // features
            "05190100",             // privacy
            "06489999999999999999", // nonce
            "07636e2f31",           // user agent "n/1"
            "088219012c",           /* head: 300, */
            "5820",
            "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        ]
        .concat();
        let block = hello().encode();
        let used = expected.len() / 2;
        assert_eq!(hex::encode(&block[..used]), expected);
        assert_eq!(block[used..], [0; HELLO_BLOCK][used..]);
        assert_eq!(Hello::decode(&block), Some(hello()));
    }

    #[test]
    fn a_guests_hello_and_a_responders_leave_fields_out() {
        let bare = Hello {
            name: None,
            target: None,
            user_agent: UserAgent::default(),
            head: None,
            ..hello()
        };
        let block = bare.encode();
        assert_eq!(
            hex::encode(&block[..32]),
            "001da50001011b000001977420dc0004070519010006489999999999999999 00".replace(' ', "")
        );
        assert_eq!(Hello::decode(&block), Some(bare));
    }

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

    #[test]
    fn a_user_agent_keeps_what_is_printable_and_fits() {
        assert_eq!(
            UserAgent::new("nectar/0.1 (Linux)\n\u{e9}\0").as_str(),
            "nectar/0.1 (Linux)"
        );
        assert_eq!(
            UserAgent::new(&"x".repeat(99)).as_str().len(),
            USER_AGENT_MAX
        );
    }
}
