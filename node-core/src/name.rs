//! Names: a label, in the registry that issued it.

use crate::crypto;
use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// Shortest label, in bytes.
pub const LABEL_MIN: usize = 3;
/// Longest label, in bytes.
pub const LABEL_MAX: usize = 63;

/// A registry contract: the chain it lives on and its address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryId {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Address of the contract.
    pub contract: [u8; 20],
}

impl fmt::Debug for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:0x", self.chain_id)?;
        self.contract
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The part of a name that is registered: `a-z 0-9 -`, 3 to 63 characters, no leading, trailing or doubled hyphen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

impl Label {
    /// Checks the rules, which are those of the contract.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() < LABEL_MIN {
            return Err(NameError::TooShort);
        }
        if text.len() > LABEL_MAX {
            return Err(NameError::TooLong);
        }
        if let Some(found) = text
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
        {
            return Err(NameError::BadCharacter(found));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::HyphenAtEdge);
        }
        if text.as_bytes().windows(2).any(|pair| pair == b"--") {
            return Err(NameError::DoubledHyphen);
        }
        Ok(Self(text.into()))
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which rule a label breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Fewer than [`LABEL_MIN`] characters.
    #[error("a name needs at least 3 characters")]
    TooShort,
    /// More than [`LABEL_MAX`] characters.
    #[error("a name has at most 63 characters")]
    TooLong,
    /// Something other than `a-z`, `0-9` and `-`.
    #[error("{} is not allowed: a name consists of a-z, 0-9 and hyphens", Quoted(*.0))]
    BadCharacter(char),
    /// A hyphen at the beginning or the end.
    #[error("a name neither begins nor ends with a hyphen")]
    HyphenAtEdge,
    /// Two hyphens in a row.
    #[error("a name has no two hyphens in a row")]
    DoubledHyphen,
    /// Bytes that are not a name at all.
    #[error("malformed name")]
    Malformed,
}

/// Shows a character in quotation marks; by its number if it would not be seen, or would move what stands beside it.
///
/// `char`'s own `Debug` knows more such characters, by tables that a tab would have to download.
pub(crate) struct Quoted(pub(crate) char);

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            '\0'..'\u{20}'
            | '\u{7f}'..='\u{a0}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'.. => write!(f, "U+{:04X}", u32::from(self.0)),
            seen => write!(f, "'{seen}'"),
        }
    }
}

/// A node's identity: a label and the registry that issued it.
///
/// The top-level domain under which a person writes it is configuration, not part of the identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Who issued the label.
    pub registry: RegistryId,
    /// The label.
    pub label: Label,
}

impl Name {
    /// Longest encoding, in bytes.
    pub const MAX_ENCODED: usize = 28 + LABEL_MAX;

    /// Appends `chain_id u64 ‖ contract 20 ‖ label`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.registry.chain_id.to_be_bytes());
        out.extend_from_slice(&self.registry.contract);
        out.extend_from_slice(self.label.as_str().as_bytes());
    }

    /// The encoding as a new vector.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28 + self.label.as_str().len());
        self.encode(&mut out);
        out
    }

    /// Reads what [`encode`](Self::encode) wrote; the whole slice is the name.
    pub fn decode(bytes: &[u8]) -> Result<Self, NameError> {
        let (chain_id, rest) = bytes.split_first_chunk::<8>().ok_or(NameError::Malformed)?;
        let (contract, label) = rest.split_first_chunk::<20>().ok_or(NameError::Malformed)?;
        let label = core::str::from_utf8(label).map_err(|_| NameError::Malformed)?;
        Ok(Self {
            registry: RegistryId {
                chain_id: u64::from_be_bytes(*chain_id),
                contract: *contract,
            },
            label: Label::new(label)?,
        })
    }

    /// SHA-256 of the encoding: orders two names when both ends must pick the same one.
    pub fn hash(&self) -> [u8; 32] {
        crypto::hash(&[&self.to_bytes()])
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.label, self.registry)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn labels_outside_the_rules_are_refused_with_the_rule() {
        let long = String::from_utf8(alloc::vec![b'a'; 64]).expect("ascii");
        for (text, expected) in [
            ("ab", NameError::TooShort),
            ("", NameError::TooShort),
            (long.as_str(), NameError::TooLong),
            ("Alice", NameError::BadCharacter('A')),
            ("al_ice", NameError::BadCharacter('_')),
            ("аlice", NameError::BadCharacter('а')),
            ("-alice", NameError::HyphenAtEdge),
            ("alice-", NameError::HyphenAtEdge),
            ("al--ice", NameError::DoubledHyphen),
            ("al ice", NameError::BadCharacter(' ')),
        ] {
            assert_eq!(Label::new(text), Err(expected), "{text:?}");
        }
        for text in ["abc", "a-b", "0xa", &long[..63]] {
            assert_eq!(Label::new(text).expect("valid").as_str(), text);
        }
    }

    #[test]
    fn a_name_is_chain_contract_and_label_on_the_wire() {
        let name = Name {
            registry: RegistryId {
                chain_id: 31337,
                contract: [0xc0; 20],
            },
            label: Label::new("alice").expect("valid"),
        };
        let bytes = name.to_bytes();
        assert_eq!(&bytes[..8], &[0, 0, 0, 0, 0, 0, 0x7a, 0x69]);
        assert_eq!(&bytes[8..28], &[0xc0; 20]);
        assert_eq!(&bytes[28..], b"alice");
        assert_eq!(Name::decode(&bytes), Ok(name));
        assert_eq!(Name::decode(&bytes[..27]), Err(NameError::Malformed));
        assert_eq!(Name::decode(&bytes[..30]), Err(NameError::TooShort));
    }

    #[test]
    fn characters_that_nobody_sees_are_shown_by_their_number() {
        use alloc::string::ToString as _;
        for (character, expected) in [
            ('A', "'A'"),
            ('а', "'а'"),
            (' ', "' '"),
            ('\n', "U+000A"),
            ('\u{1b}', "U+001B"),
            ('\u{9b}', "U+009B"),
            ('\u{202e}', "U+202E"),
            ('\u{feff}', "U+FEFF"),
            ('\u{e0041}', "U+E0041"),
        ] {
            assert_eq!(Quoted(character).to_string(), expected);
        }
    }
}
