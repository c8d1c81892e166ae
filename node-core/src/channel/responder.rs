//! The side that is dialled.

use super::{
    Channel, HandshakeError, Local, Peer, Role, SignRequest, connection_nonce, derive,
    statement::{self, Statement},
    symmetric::SymmetricState,
};
use crate::{
    Code, Timestamp,
    crypto::{Provider, Suite},
    wire::handshake::{MESSAGE_2, MESSAGE_2_LEN, Message1, Tail},
};
use alloc::{sync::Arc, vec::Vec};
use zeroize::Zeroizing;

/// Answers a message 1. This costs two X25519 operations and an encapsulation, so the source's budget is charged first.
///
/// `seed` must be random and used once; everything that this handshake draws comes from it.
///
/// # Errors
/// [`Code::InvalidArgument`] when we are a guest ourselves, [`Code::Malformed`], [`Code::VersionUnknown`],
/// [`Code::WeakKey`] for an ephemeral key of small order.
pub fn start(
    local: Arc<Local>,
    message: &[u8],
    seed: [u8; 32],
    wall: Timestamp,
) -> Result<AwaitSignature, HandshakeError> {
    let seed = Zeroizing::new(seed);
    if local.identity.name.is_none() {
        return Err(Code::InvalidArgument.into());
    }
    let offer = Message1::parse(message)?;
    let mut symmetric = statement::begin(offer.version);
    symmetric.mix_hash(offer.e);
    symmetric.mix_hash(offer.ek);

    let (key, e) = Suite::x25519_key(&derive(&seed, "x25519"));
    let shared = Suite::x25519(&key, offer.e).ok_or(Code::WeakKey)?;
    let (ct, encapsulated) =
        Suite::kem_encapsulate(offer.ek, &derive(&seed, "mlkem m")).ok_or(Code::Malformed)?;
    let mut message = Vec::with_capacity(MESSAGE_2_LEN);
    message.push(MESSAGE_2);
    message.extend_from_slice(&e);
    symmetric.mix_hash(&e);
    symmetric.mix_key(&*shared);
    symmetric.encrypt_and_hash(&*ct, &mut message);
    symmetric.mix_key(&*encapsulated);

    let hello = local.hello(Role::Responder, None, connection_nonce(&seed), wall);
    let request = statement::state(
        &mut symmetric,
        Role::Responder,
        &local.identity.key,
        &hello,
        &mut message,
    );
    Ok(AwaitSignature {
        local,
        version: offer.version,
        symmetric,
        message,
        request,
    })
}

/// Message 2 lacks our signature.
pub struct AwaitSignature {
    local: Arc<Local>,
    version: u8,
    symmetric: SymmetricState,
    message: Vec<u8>,
    request: SignRequest,
}

impl AwaitSignature {
    /// What is to be signed with the node's networking key.
    pub fn request(&self) -> &SignRequest {
        &self.request
    }

    /// Completes message 2.
    ///
    /// # Errors
    /// [`Code::SignerFailed`] when a signer that has not yet made a good signature makes one that does not verify under
    /// our own key.
    pub fn signed(self, signature: [u8; 64]) -> Result<(Vec<u8>, AwaitMessage3), HandshakeError> {
        let Self {
            local,
            version,
            mut symmetric,
            mut message,
            request,
        } = self;
        statement::attest(&mut symmetric, &request, &local, &signature, &mut message)?;
        Ok((
            message,
            AwaitMessage3 {
                local,
                version,
                symmetric,
            },
        ))
    }
}

/// Message 2 is on its way. Nothing is known about the initiator.
pub struct AwaitMessage3 {
    local: Arc<Local>,
    version: u8,
    symmetric: SymmetricState,
}

impl AwaitMessage3 {
    /// Decrypts what the initiator says and makes every check that costs nothing.
    ///
    /// # Errors
    /// In the order of the checks: [`Code::Malformed`] for a message of the wrong form, [`Code::DecryptFailed`],
    /// [`Code::Malformed`] for a hello that does not parse, [`Code::Downgrade`], [`Code::ClockSkew`],
    /// [`Code::RegistryUnknown`], [`Code::WrongTarget`], [`Code::Myself`].
    pub fn handle(self, message: &[u8], wall: Timestamp) -> Result<Claimed, HandshakeError> {
        let Self {
            local,
            version,
            mut symmetric,
        } = self;
        let tail = Tail::parse_message_3(message).ok_or(Code::Malformed)?;
        let claim = Statement::open(&mut symmetric, Role::Initiator, &tail)?;
        claim.check_version(version)?;
        claim.check_clock(&local, wall)?;
        let name = claim.hello.name.as_ref();
        if name.is_some_and(|name| !local.registries.contains(&name.registry)) {
            return Err(Code::RegistryUnknown.into());
        }
        // Without this comparison, a message 3 meant for somebody else would authenticate its sender here.
        match &claim.hello.target {
            None => return Err(Code::Malformed.into()),
            Some(target) if Some(target) != local.identity.name.as_ref() => {
                return Err(Code::WrongTarget.into());
            }
            Some(_) => {}
        }
        if name.is_some() && name == local.identity.name.as_ref() {
            return Err(Code::Myself.into());
        }
        Ok(Claimed {
            peer: claim.peer(wall),
            local,
            symmetric,
            claim,
        })
    }
}

/// The initiator has said who it is and proved nothing yet: the moment to refuse for a ban or a spent budget, before any
/// work is done for it.
pub struct Claimed {
    local: Arc<Local>,
    peer: Peer,
    symmetric: SymmetricState,
    claim: Statement,
}

impl Claimed {
    /// Who it says it is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Verifies the signature under the key that was sent.
    ///
    /// # Errors
    /// [`Code::WeakKey`] and [`Code::BadSignature`].
    pub fn verify(self) -> Result<Admission, HandshakeError> {
        self.claim.verify()?;
        Ok(Admission {
            local: self.local,
            peer: self.peer,
            symmetric: self.symmetric,
        })
    }
}

/// The initiator holds the key that it sent. Whether that key stands for its name is for the chain to say.
pub struct Admission {
    local: Arc<Local>,
    peer: Peer,
    symmetric: SymmetricState,
}

impl Admission {
    /// Who it says it is; the key is proved, the name is not.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The key to compare with the registered one.
    pub fn key(&self) -> &[u8; 32] {
        &self.peer.key
    }

    /// The key is the name's, or the guest is welcome.
    pub fn admit(self) -> Channel {
        Channel::new(Role::Responder, self.peer, &self.local, self.symmetric)
    }
}
