//! One handshake and the records under its keys.
//!
//! ```text
//!  initiator                                        responder
//!  start ── message 1: e, ek ─────────────────────▶ start ▸ AwaitSignature
//!  AwaitMessage2 ◀── message 2: e, ct, s, hello, sig ───── signed ▸ AwaitMessage3
//!   ▸ AwaitSignature
//!  signed ── message 3: s, hello, sig ────────────▶ handle ▸ Claimed      (policy: banned? budget?)
//!   ▸ Channel                                        verify ▸ Admission   (chain: is it the registered key?)
//!                                                    admit  ▸ Channel
//! ```
//!
//! It is SIGMA-I in Noise's symmetric state, with X25519 and ML-KEM-768 for secrecy and Ed25519 for authentication.
//! Every state owns what its step needs and consumes itself to become the next, so steps cannot be skipped or repeated.
//! Waiting for the signer and for the chain are states: the caller holds them as long as it likes.
//!
//! **What an error says about the peer.** Until [`Claimed::verify`](responder::Claimed::verify) and
//! [`AwaitMessage2::handle`](initiator::AwaitMessage2::handle) have returned `Ok`, nobody has proved anything, so no
//! handshake error may count against a *name*: anybody on the path can provoke it. It may count against the address that
//! the bytes came from, and it ends the pipe.

mod error;
pub mod initiator;
mod records;
pub mod responder;
mod statement;
#[doc(hidden)]
pub mod symmetric;

pub use crate::wire::handshake::{ChainHead, Reject, UserAgent};
pub use error::{HandshakeError, RecordError};
pub use records::{MAX_FRAMES, MAX_RECORD, RECORD, RECORD_OVERHEAD, RECORDS_PER_KEY, Traffic};
pub use statement::SignRequest;

use crate::{
    Instant, Limits, Name, RegistryId, Timestamp,
    crypto::{self, Secret},
    time::Duration,
    wire::handshake::Hello,
};
use alloc::sync::Arc;
use bytes::BytesMut;
use core::sync::atomic::{AtomicBool, Ordering};
use records::{Opener, Sealer};
use symmetric::SymmetricState;

/// Which side of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sent message 1.
    Initiator,
    /// Answered it.
    Responder,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its registered name; `None` for a guest, which can only initiate.
    pub name: Option<Name>,
    /// Its Ed25519 networking key. Ignored for a guest, whose throw-away key comes from each handshake's seed.
    pub key: [u8; 32],
}

/// What a node tells about itself besides who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloInfo {
    /// Feature bits; a channel uses what both sides set.
    pub features: u32,
    /// Privacy bits; a channel uses what both sides set.
    pub privacy: u32,
    /// The software. Only an initiator says it in the handshake: anybody can obtain a responder's hello.
    pub user_agent: UserAgent,
    /// The newest known block. Only an initiator says it in the handshake.
    pub head: Option<ChainHead>,
}

/// What the handshakes of one node have in common.
#[derive(Clone, Debug)]
pub struct Local {
    /// Who we are.
    pub identity: Identity,
    /// What we tell.
    pub hello: HelloInfo,
    /// The registries whose names we can check.
    pub registries: Arc<[RegistryId]>,
    /// Greatest distance of the peer's clock from ours, inclusive, either way.
    pub clock_window: Duration,
    /// Whether our signer has shown that it holds our key.
    pub signer: SignerTrust,
}

/// Whether a signer has made a signature that verifies under our key. One that holds another key is found at its first
/// signature; after a good one its signatures go out unverified, as peers verify them anyway.
/// Clones share what was learned.
#[derive(Clone, Debug, Default)]
pub struct SignerTrust(Arc<AtomicBool>);

impl SignerTrust {
    fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Nothing needs to be shown: our key was computed from the signer's secret.
    pub fn know(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Local {
    fn hello(&self, role: Role, target: Option<Name>, nonce: [u8; 8], wall: Timestamp) -> Hello {
        let told = match role {
            Role::Initiator => self.hello.clone(),
            Role::Responder => HelloInfo {
                user_agent: UserAgent::default(),
                head: None,
                ..self.hello
            },
        };
        Hello {
            version_max: crate::wire::handshake::VERSION_MAX,
            timestamp: wall,
            name: self.identity.name.clone(),
            target,
            features: told.features,
            privacy: told.privacy,
            nonce,
            user_agent: told.user_agent,
            head: told.head,
        }
    }
}

/// The other side of a handshake, as it described itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name; `None` for a guest.
    pub name: Option<Name>,
    /// The Ed25519 key that it signed with.
    pub key: [u8; 32],
    /// What it told about itself.
    pub hello: HelloInfo,
    /// The nonce of this connection, drawn by the peer.
    pub nonce: [u8; 8],
    /// The peer's clock minus ours when its hello arrived, in milliseconds, transit included.
    pub skew_ms: i64,
}

/// The keys of an authenticated pipe.
///
/// Whole records go in and come out; numbers are implicit, so a record that was dropped, repeated, reordered or altered
/// does not open, and then the pipe is of no more use.
pub struct Channel {
    role: Role,
    peer: Peer,
    features: u32,
    privacy: u32,
    transcript: [u8; 32],
    exporter: Secret,
    sealer: Sealer,
    opener: Opener,
}

impl Channel {
    fn new(role: Role, peer: Peer, local: &Local, symmetric: SymmetricState) -> Self {
        let transcript = symmetric.hash();
        let exporter = symmetric.exporter();
        let (to_responder, to_initiator) = symmetric.split();
        let (send, receive) = match role {
            Role::Initiator => (to_responder, to_initiator),
            Role::Responder => (to_initiator, to_responder),
        };
        Self {
            role,
            features: local.hello.features & peer.hello.features,
            privacy: local.hello.privacy & peer.hello.privacy,
            peer,
            transcript,
            exporter,
            sealer: Sealer::new(&send),
            opener: Opener::new(&receive),
        }
    }

    /// Which side of the handshake we were.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Feature bits that both sides set.
    pub fn features(&self) -> u32 {
        self.features
    }

    /// Privacy bits that both sides set.
    pub fn privacy(&self) -> u32 {
        self.privacy
    }

    /// The handshake's final hash: the same on both sides, different for every channel.
    pub fn transcript(&self) -> &[u8; 32] {
        &self.transcript
    }

    /// A secret that only the two ends of this channel know, another one for each label.
    pub fn export(&self, label: &str) -> Secret {
        crypto::hmac(&self.exporter, &[label.as_bytes()])
    }

    /// Seals `record`, which holds [`RECORD`] and the frames, in place, and appends the tag. Nothing is copied when the
    /// buffer has [`RECORD_OVERHEAD`] - 1 bytes to spare.
    ///
    /// # Errors
    /// [`Code::RecordTooLarge`](crate::Code::RecordTooLarge) above [`MAX_FRAMES`],
    /// [`Code::InvalidArgument`](crate::Code::InvalidArgument) when the first byte is not [`RECORD`],
    /// [`Code::RekeyOverdue`](crate::Code::RekeyOverdue) after [`RECORDS_PER_KEY`] records without
    /// [`ratchet_send`](Self::ratchet_send). The record is untouched then.
    pub fn seal(&mut self, record: &mut BytesMut) -> Result<(), RecordError> {
        self.sealer.seal(record)
    }

    /// Opens a record in place and returns its frames, without copying them.
    ///
    /// # Errors
    /// [`Code::RecordForged`](crate::Code::RecordForged) for anything that is not the peer's next record,
    /// [`Code::RecordTooLarge`](crate::Code::RecordTooLarge) above [`MAX_RECORD`]: both say nothing about the peer, since
    /// anybody on the path can provoke them. [`Code::RekeyOverdue`](crate::Code::RekeyOverdue) is the peer's doing.
    /// The counter advances on success only.
    pub fn open(&mut self, record: BytesMut) -> Result<BytesMut, RecordError> {
        self.opener.open(record)
    }

    /// Whether a REKEY frame should be sent: by volume, by records, or by time since the first call under this key.
    /// Never for a key that sealed nothing.
    pub fn rekey_due(&mut self, now: Instant, limits: &Limits) -> bool {
        self.sealer.rekey_due(now, limits)
    }

    /// Replaces the sending key, right after a record that ended with REKEY was sealed. What was sealed before can no
    /// longer be opened with what this process remembers.
    pub fn ratchet_send(&mut self) {
        self.sealer.ratchet();
    }

    /// Replaces the receiving key, right after a record that ended with REKEY was opened.
    pub fn ratchet_receive(&mut self) {
        self.opener.ratchet();
    }

    /// Records and bytes sealed so far.
    pub fn sent(&self) -> Traffic {
        self.sealer.traffic()
    }

    /// Records and bytes opened so far.
    pub fn received(&self) -> Traffic {
        self.opener.traffic()
    }
}

/// States print their type and nothing of what they hold, most of which is secret.
macro_rules! opaque_debug {
    ($($state:ty),*) => {$(
        impl core::fmt::Debug for $state {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($state), " { .. }"))
            }
        }
    )*};
}

opaque_debug!(
    initiator::AwaitMessage2,
    initiator::AwaitSignature,
    responder::AwaitSignature,
    responder::AwaitMessage3,
    responder::Claimed,
    responder::Admission
);

impl core::fmt::Debug for Channel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Channel")
            .field("role", &self.role)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// One secret of a handshake's seed, by purpose.
fn derive(seed: &Secret, purpose: &str) -> Secret {
    crypto::hmac(seed, &[b"nectar/1 seed ", purpose.as_bytes()])
}

/// The connection nonce of a handshake's seed. It is sent, so it must tell nothing about the seed's other uses.
fn connection_nonce(seed: &Secret) -> [u8; 8] {
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&derive(seed, "nonce")[..8]);
    nonce
}
