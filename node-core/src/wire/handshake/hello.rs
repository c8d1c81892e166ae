//! What each side says about itself.

use crate::{
    Name, Timestamp,
    wire::cbor::{self, Reader},
};
use alloc::{boxed::Box, vec::Vec};

/// Length of a hello, or of one block of a longer one.
pub const HELLO_BLOCK: usize = 256;
/// Blocks in the longest hello that is accepted.
pub const HELLO_BLOCKS_MAX: usize = 4;
/// Longest user agent, in bytes.
pub const USER_AGENT_MAX: usize = 48;

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
        let mut input = Reader::new(cbor);
        let hello = Self::from_cbor(&mut input)?;
        input.is_empty().then_some(hello)
    }

    fn to_cbor(&self, head: Option<ChainHead>, user_agent: &str) -> Vec<u8> {
        let optional = [
            self.name.is_some(),
            self.target.is_some(),
            !user_agent.is_empty(),
            head.is_some(),
        ];
        let mut out = Vec::with_capacity(HELLO_BLOCK);
        let present = optional.iter().filter(|present| **present).count();
        cbor::write_map(&mut out, 5 + present as u64);
        for (key, number) in [(0, self.version_max.into()), (1, self.timestamp.0)] {
            cbor::write_number(&mut out, key);
            cbor::write_number(&mut out, number);
        }
        for (key, name) in [(2, &self.name), (3, &self.target)] {
            if let Some(name) = name {
                cbor::write_number(&mut out, key);
                cbor::write_bytes(&mut out, &name.to_bytes());
            }
        }
        for (key, number) in [(4, self.features), (5, self.privacy)] {
            cbor::write_number(&mut out, key);
            cbor::write_number(&mut out, number.into());
        }
        cbor::write_number(&mut out, 6);
        cbor::write_bytes(&mut out, &self.nonce);
        if !user_agent.is_empty() {
            cbor::write_number(&mut out, 7);
            cbor::write_text(&mut out, user_agent);
        }
        if let Some(head) = head {
            cbor::write_number(&mut out, 8);
            cbor::write_list(&mut out, 2);
            cbor::write_number(&mut out, head.number);
            cbor::write_bytes(&mut out, &head.hash);
        }
        out
    }

    fn from_cbor(input: &mut Reader<'_>) -> Option<Self> {
        let mut seen = 0u16;
        let (mut version_max, mut timestamp, mut nonce) = (None, None, None);
        let (mut name, mut target, mut head) = (None, None, None);
        let (mut features, mut privacy, mut user_agent) = (0, 0, UserAgent::default());
        for _ in 0..input.map()? {
            let key: u64 = input.number()?;
            if let known @ 0..=8 = key {
                let bit = 1 << known;
                if seen & bit != 0 {
                    return None;
                }
                seen |= bit;
            }
            match key {
                0 => version_max = Some(input.number()?),
                1 => timestamp = Some(Timestamp(input.number()?)),
                2 => name = Some(Name::decode(input.bytes()?).ok()?),
                3 => target = Some(Name::decode(input.bytes()?).ok()?),
                4 => features = input.number()?,
                5 => privacy = input.number()?,
                6 => nonce = Some(input.bytes()?.try_into().ok()?),
                7 => {
                    let text = input.text()?;
                    user_agent = UserAgent::new(text);
                    if user_agent.as_str() != text {
                        return None;
                    }
                }
                8 => {
                    let (2, number) = (input.list()?, input.number()?) else {
                        return None;
                    };
                    head = Some(ChainHead {
                        number,
                        hash: input.bytes()?.try_into().ok()?,
                    });
                }
                _ => input.skip()?,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{Label, RegistryId};

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
}
