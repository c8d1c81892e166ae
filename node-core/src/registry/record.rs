//! A name's record, checked.

use crate::{
    crypto::{self, BadKey},
    name::{Label, Name, NameError, Quoted},
    time::Instant,
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Most routers that a record lists.
pub const ROUTERS_MAX: usize = 8;
/// Longest DNS name in a record, in bytes.
pub const DNS_MAX: usize = 64;

/// What stands under a name: who may change it, which key proves it and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Account that holds the name.
    pub owner: [u8; 20],
    /// Account that may update the record beside the owner; zeros for none.
    pub manager: [u8; 20],
    /// Ed25519 key that signs the node's handshakes; never one of small order.
    pub key: [u8; 32],
    /// Where the node listens; `None` for an indirect node.
    pub routing: Option<Routing>,
    /// Routers of an indirect node, at most [`ROUTERS_MAX`], in order of preference; names of the same registry.
    pub routers: Vec<Label>,
    /// Grows by one at every change.
    pub version: u32,
    /// Grows by one at every transfer: another epoch is another owner.
    pub epoch: u32,
}

impl Record {
    /// A record that no account answers for: pinned in a configuration, or not registered yet.
    pub const fn unowned(key: [u8; 32], routing: Option<Routing>, routers: Vec<Label>) -> Self {
        Self {
            owner: [0; 20],
            manager: [0; 20],
            key,
            routing,
            routers,
            version: 1,
            epoch: 1,
        }
    }

    /// Whether the node has an address of its own.
    pub const fn is_direct(&self) -> bool {
        self.routing.is_some()
    }

    /// Checks everything that a hosts file, a chain or an endpoint could get wrong.
    pub fn check(&self) -> Result<(), RecordError> {
        if self.key == [0; 32] {
            return Err(RecordError::NoKey);
        }
        // Almost any message has a signature that verifies under a key of small order.
        crypto::check_key(&self.key).map_err(|error| match error {
            BadKey::Weak => RecordError::WeakKey,
            BadKey::NotAPoint => RecordError::NotAKey,
        })?;
        if self.routers.len() > ROUTERS_MAX {
            return Err(RecordError::TooManyRouters(self.routers.len()));
        }
        if let Some(routing) = &self.routing {
            if !self.routers.is_empty() {
                return Err(RecordError::DirectWithRouters);
            }
            if routing.port == 0 {
                return Err(RecordError::NoPort);
            }
            if !routing.ws && !routing.wss {
                return Err(RecordError::NoScheme);
            }
            if let Host::Dns(name) = &routing.host {
                check_dns(name)?;
            }
        }
        Ok(())
    }
}

/// Where a direct node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Routing {
    /// Address or DNS name.
    pub host: Host,
    /// TCP port, never 0.
    pub port: u16,
    /// Plain WebSocket is served.
    pub ws: bool,
    /// WebSocket over TLS is served.
    pub wss: bool,
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.ws, self.wss) {
            (true, true) => "ws+wss",
            (false, true) => "wss",
            _ => "ws",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// A host as a record names it. It is hostile input: see [`address`](super::address) before dialling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// A lower-case DNS name, at most [`DNS_MAX`] bytes.
    Dns(Box<str>),
}

impl Host {
    /// Reads an address or checks a DNS name.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => Ok(Self::V4(address)),
            Ok(IpAddr::V6(address)) => Ok(Self::V6(address)),
            Err(_) => {
                check_dns(text)?;
                Ok(Self::Dns(text.into()))
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
            Self::Dns(name) => f.write_str(name),
        }
    }
}

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Empty, or longer than [`DNS_MAX`].
    #[error("a DNS name has 1 to 64 bytes")]
    Length,
    /// Something other than `a-z 0-9 - .`.
    #[error("{} is not allowed in a DNS name: use a-z, 0-9, hyphens and dots", Quoted(*.0))]
    BadCharacter(char),
    /// A part between dots is empty, longer than 63 bytes, or begins or ends with a hyphen.
    #[error(
        "the parts of a DNS name are neither empty nor longer than 63 bytes, nor bounded by hyphens"
    )]
    BadPart,
    /// All digits at the end: an address in disguise, which resolvers read in surprising ways (`0x7f.1`, `127.1`).
    #[error("a DNS name does not end in a number")]
    Numeric,
}

fn check_dns(name: &str) -> Result<(), HostError> {
    if name.is_empty() || name.len() > DNS_MAX {
        return Err(HostError::Length);
    }
    if let Some(found) = name
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.'))
    {
        return Err(HostError::BadCharacter(found));
    }
    let mut last = "";
    for part in name.split('.') {
        if part.is_empty() || part.len() > 63 || part.starts_with('-') || part.ends_with('-') {
            return Err(HostError::BadPart);
        }
        last = part;
    }
    // The URL standard's "ends in a number" rule: a decimal or hexadecimal last part makes the host an IPv4 address.
    let hexadecimal = last
        .strip_prefix("0x")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Numeric);
    }
    Ok(())
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is zero: the name was transferred and its new owner has not set a record.
    #[error("no networking key is set; a transferred name waits for its new owner to set a record")]
    NoKey,
    /// A key of small order.
    #[error("the networking key is of small order and proves nothing")]
    WeakKey,
    /// Not the encoding of a point on the curve.
    #[error("the networking key is not an Ed25519 key")]
    NotAKey,
    /// A host kind that this version does not know, or a host of the wrong length for its kind.
    #[error("host kind {kind} with {length} bytes")]
    HostKind {
        /// The kind as registered.
        kind: u8,
        /// Length of the host.
        length: usize,
    },
    /// Not a host.
    #[error("{0}")]
    Host(#[from] HostError),
    /// A direct node on port 0.
    #[error("a direct node needs a port")]
    NoPort,
    /// A direct node without ws and wss.
    #[error("a direct node needs ws, wss or both")]
    NoScheme,
    /// A direct node that lists routers.
    #[error("a direct node lists no routers")]
    DirectWithRouters,
    /// More routers than [`ROUTERS_MAX`].
    #[error("{0} routers; at most 8 are allowed")]
    TooManyRouters(usize),
    /// A router that is not a label.
    #[error("a router's name is invalid: {0}")]
    Router(#[from] NameError),
}

/// A record, and everything about how it came to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name.
    pub name: Name,
    /// Its record.
    pub record: Arc<Record>,
    /// How it is known.
    pub how: Provenance,
    /// The block at which the chain said so; `None` for pinned records.
    pub block: Option<Block>,
    /// When the read that brought it began: the record is at least as new as this.
    pub at: Instant,
}

/// A block, unambiguously.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Height.
    pub number: u64,
    /// Hash, without which a height means different things to different endpoints.
    pub hash: [u8; 32],
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} 0x", self.number)?;
        self.hash
            .iter()
            .take(4)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How a record is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// It stands in our own configuration.
    Pinned,
    /// One RPC endpoint said so.
    OneRpc,
    /// Several RPC endpoints said so at the same block.
    Quorum {
        /// How many said the same.
        agreeing: u8,
        /// How many are configured.
        of: u8,
    },
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned by configuration"),
            Self::OneRpc => f.write_str("on the word of one RPC endpoint"),
            Self::Quorum { agreeing, of } => write!(f, "{agreeing} of {of} RPC endpoints agree"),
        }
    }
}
