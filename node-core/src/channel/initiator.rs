//! The side that dials.

use super::{
    Channel, HandshakeError, Identity, Local, Peer, Role, SignRequest, connection_nonce, derive,
    statement::{self, Statement},
    symmetric::SymmetricState,
};
use crate::{
    Code, Name, Timestamp,
    crypto::{self, KEM_CIPHERTEXT, Provider, Secret, Suite},
    wire::handshake::{MESSAGE_3, MESSAGE_3_LEN, Message1, Message2, VERSION_MAX},
};
use alloc::{sync::Arc, vec::Vec};
use zeroize::Zeroizing;

/// Begins a handshake with `target`, whose record holds `target_key`. Returns message 1.
///
/// `seed` must be random and used once; everything that this handshake draws comes from it.
pub fn start(
    local: Arc<Local>,
    target: Name,
    target_key: [u8; 32],
    seed: [u8; 32],
) -> (AwaitMessage2, Vec<u8>) {
    let seed = Zeroizing::new(seed);
    let (key, e) = Suite::x25519_key(&derive(&seed, "x25519"));
    let (kem, ek) = Suite::kem_generate(&derive(&seed, "mlkem d"), &derive(&seed, "mlkem z"));
    let message = Message1 {
        version: VERSION_MAX,
        e: &e,
        ek: &ek,
    };

    let mut symmetric = statement::begin(message.version);
    symmetric.mix_hash(message.e);
    symmetric.mix_hash(message.ek);
    let message = message.to_bytes();
    (
        AwaitMessage2 {
            local,
            target,
            target_key,
            seed,
            key,
            kem,
            symmetric,
        },
        message,
    )
}

/// Message 1 is on its way.
pub struct AwaitMessage2 {
    local: Arc<Local>,
    target: Name,
    target_key: [u8; 32],
    seed: Secret,
    key: <Suite as Provider>::AgreementKey,
    kem: <Suite as Provider>::KemSecret,
    symmetric: SymmetricState,
}

impl AwaitMessage2 {
    /// Whom we are dialling.
    pub fn target(&self) -> &Name {
        &self.target
    }

    /// Checks who answers, before it learns anything about us.
    ///
    /// # Errors
    /// In the order of the checks: [`Code::Malformed`], [`Code::WeakKey`] for an ephemeral key of small order,
    /// [`Code::DecryptFailed`], [`Code::Myself`], [`Code::WrongName`], [`Code::KeyMismatch`], [`Code::WeakKey`],
    /// [`Code::BadSignature`], [`Code::Downgrade`], [`Code::ClockSkew`].
    pub fn handle(self, message: &[u8], wall: Timestamp) -> Result<AwaitSignature, HandshakeError> {
        let Self {
            local,
            target,
            target_key,
            seed,
            key,
            kem,
            mut symmetric,
        } = self;
        let message = Message2::parse(message).ok_or(Code::Malformed)?;
        symmetric.mix_hash(message.e);
        symmetric.mix_key(&*Suite::x25519(&key, message.e).ok_or(Code::WeakKey)?);
        let ct = symmetric.decrypt_and_hash(message.ct)?;
        let ct: &[u8; KEM_CIPHERTEXT] = ct.as_slice().try_into().map_err(|_| Code::Malformed)?;
        symmetric.mix_key(&*Suite::kem_decapsulate(&kem, ct));
        let answer = Statement::open(&mut symmetric, Role::Responder, &message.tail)?;

        let name = answer.hello.name.as_ref();
        if name.is_some() && name == local.identity.name.as_ref() {
            return Err(Code::Myself.into());
        }
        // Without this comparison, somebody with a name of its own could pass itself off as the target.
        if name != Some(&target) {
            return Err(Code::WrongName.into());
        }
        if answer.key != target_key {
            return Err(Code::KeyMismatch.into());
        }
        answer.verify()?;
        answer.check_version(VERSION_MAX)?;
        answer.check_clock(&local, wall)?;

        let signer = match &local.identity {
            Identity { name: Some(_), key } => Signer::Named(*key),
            Identity { name: None, .. } => Signer::Guest(derive(&seed, "guest")),
        };
        let hello = local.hello(Role::Initiator, Some(target), connection_nonce(&seed), wall);
        let mut message = Vec::with_capacity(MESSAGE_3_LEN);
        message.push(MESSAGE_3);
        let key = signer.key();
        let request = statement::state(&mut symmetric, Role::Initiator, &key, &hello, &mut message);
        Ok(AwaitSignature {
            peer: answer.peer(wall),
            local,
            symmetric,
            message,
            request,
            signer,
        })
    }
}

/// The responder is who we dialled; our own signature is missing.
pub struct AwaitSignature {
    local: Arc<Local>,
    peer: Peer,
    symmetric: SymmetricState,
    message: Vec<u8>,
    request: SignRequest,
    signer: Signer,
}

impl AwaitSignature {
    /// Who answered: authenticated, by the key that our record of it holds.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What is to be signed with the node's networking key; `None` for a guest, which signs by itself.
    pub fn request(&self) -> Option<&SignRequest> {
        matches!(self.signer, Signer::Named(_)).then_some(&self.request)
    }

    /// Completes message 3; records may follow it at once.
    ///
    /// # Errors
    /// [`Code::SignerFailed`] when the signature is missing, or when a signer that has not yet made a good signature makes
    /// one that does not verify under our own key.
    pub fn signed(self, signature: Option<[u8; 64]>) -> Result<(Vec<u8>, Channel), HandshakeError> {
        let Self {
            local,
            peer,
            mut symmetric,
            mut message,
            request,
            signer,
        } = self;
        match &signer {
            Signer::Named(_) => {
                let signature = signature.ok_or(Code::SignerFailed)?;
                statement::attest(&mut symmetric, &request, &local, &signature, &mut message)?;
            }
            Signer::Guest(secret) => {
                let signature = crypto::sign(secret, &request.message());
                symmetric.encrypt_and_hash(&signature, &mut message);
            }
        }
        Ok((
            message,
            Channel::new(Role::Initiator, peer, &local, symmetric),
        ))
    }
}

/// Who makes our signature.
enum Signer {
    /// Somebody outside, with this public key.
    Named([u8; 32]),
    /// We do, with a secret that nobody will see again.
    Guest(Secret),
}

impl Signer {
    fn key(&self) -> [u8; 32] {
        match self {
            Self::Named(key) => *key,
            Self::Guest(secret) => crypto::public_key(secret),
        }
    }
}
