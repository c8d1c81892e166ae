//! What each side says of itself: key, hello, signature.

use super::{HandshakeError, HelloInfo, Local, Peer, Role, SymmetricState, symmetric::Altered};
use crate::{
    Code, Timestamp,
    crypto::{self, BadSignature},
    wire::handshake::{Hello, Tail, VERSION_MAX},
};
use alloc::vec::Vec;

/// Noise's name of this handshake.
const PROTOCOL: &[u8] = b"Nectar_SIGMAhfs_25519+MLKEM768_Ed25519_ChaChaPoly_SHA256";

/// The state both sides begin with. The version is mixed in, so that altering it in message 1 fails the handshake.
pub(super) fn begin(version: u8) -> SymmetricState {
    let mut symmetric = SymmetricState::new(PROTOCOL);
    let mut prologue = *b"nectar-link\0";
    prologue[11] = version;
    symmetric.mix_hash(&prologue);
    symmetric
}

/// A signature that a handshake waits for.
///
/// The signer builds [`message`](Self::message) itself from role and hashes, so that nothing else can ever be signed with
/// the networking key through this door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignRequest {
    /// The side of the handshake that signs.
    pub role: Role,
    /// The transcript up to and including the signer's hello.
    pub h: [u8; 32],
    /// SHA-256 of the signer's key and hello.
    pub binding: [u8; 32],
}

impl SignRequest {
    /// Bytes of the signed message.
    pub const LEN: usize = 64 + 28 + 1 + 32 + 32;

    /// The signed bytes: `20 × 64 ‖ context ‖ 00 ‖ h ‖ binding`.
    ///
    /// The spaces and the context keep a signature made for another purpose, or in another protocol, from passing here
    /// (as in TLS 1.3); the role in the context stops a reflected signature; `h` a replayed or relayed one, since it holds
    /// both ephemeral keys; `binding` one that is moved to another key or hello.
    pub fn message(&self) -> [u8; Self::LEN] {
        let context: &[u8; 28] = match self.role {
            Role::Initiator => b"nectar/1 handshake initiator",
            Role::Responder => b"nectar/1 handshake responder",
        };
        let mut message = [0x20; Self::LEN];
        message[64..92].copy_from_slice(context);
        message[92] = 0;
        message[93..125].copy_from_slice(&self.h);
        message[125..].copy_from_slice(&self.binding);
        message
    }
}

/// Appends `ENC(s) ‖ ENC(hello)` to a message and says what is to be signed.
pub(super) fn state(
    symmetric: &mut SymmetricState,
    role: Role,
    key: &[u8; 32],
    hello: &Hello,
    message: &mut Vec<u8>,
) -> SignRequest {
    let hello = hello.encode();
    symmetric.encrypt_and_hash(key, message);
    symmetric.encrypt_and_hash(&hello, message);
    SignRequest {
        role,
        h: symmetric.hash(),
        binding: crypto::hash(&[key, &hello]),
    }
}

/// Appends `ENC(sig)`. Whatever made the signature is outside of this crate, and a wrong one would make the peer count a
/// forgery against us: until the signer has shown once that it holds our key, what it made is verified.
pub(super) fn attest(
    symmetric: &mut SymmetricState,
    request: &SignRequest,
    local: &Local,
    signature: &[u8; 64],
    message: &mut Vec<u8>,
) -> Result<(), HandshakeError> {
    if !local.signer.is_known() {
        crypto::verify(&local.identity.key, &request.message(), signature)
            .map_err(|_| Code::SignerFailed)?;
        local.signer.know();
    }
    symmetric.encrypt_and_hash(signature, message);
    Ok(())
}

/// The peer's statement, decrypted but not yet believed.
pub(super) struct Statement {
    pub(super) key: [u8; 32],
    pub(super) hello: Hello,
    request: SignRequest,
    signature: [u8; 64],
}

impl Statement {
    /// Decrypts and parses the end of message 2 or 3, spoken by `role`.
    pub(super) fn open(
        symmetric: &mut SymmetricState,
        role: Role,
        tail: &Tail<'_>,
    ) -> Result<Self, HandshakeError> {
        let key = array(&symmetric.decrypt_and_hash(tail.s)?)?;
        let hello = symmetric.decrypt_and_hash(tail.hello)?;
        let request = SignRequest {
            role,
            h: symmetric.hash(),
            binding: crypto::hash(&[&key, &hello]),
        };
        let signature = array(&symmetric.decrypt_and_hash(tail.sig)?)?;
        let hello = Hello::decode(&hello).ok_or(Code::Malformed)?;
        Ok(Self {
            key,
            hello,
            request,
            signature,
        })
    }

    /// Neither side may speak more than is in use, and both maxima are now known.
    pub(super) fn check_version(&self, in_use: u8) -> Result<(), HandshakeError> {
        Ok(check_version(in_use, VERSION_MAX, self.hello.version_max)?)
    }

    /// The clocks may differ by the window, either way.
    pub(super) fn check_clock(&self, local: &Local, wall: Timestamp) -> Result<(), HandshakeError> {
        if self.hello.timestamp.distance(wall) <= local.clock_window {
            return Ok(());
        }
        Err(HandshakeError {
            skew_ms: Some(self.skew_ms(wall)),
            ..HandshakeError::new(Code::ClockSkew)
        })
    }

    /// The signature is valid under the key that was sent, and the key is one that can prove something.
    pub(super) fn verify(&self) -> Result<(), HandshakeError> {
        crypto::verify(&self.key, &self.request.message(), &self.signature).map_err(|error| {
            match error {
                BadSignature::WeakKey => Code::WeakKey.into(),
                BadSignature::Invalid => Code::BadSignature.into(),
            }
        })
    }

    /// The peer as it described itself at `wall`.
    pub(super) fn peer(&self, wall: Timestamp) -> Peer {
        Peer {
            name: self.hello.name.clone(),
            key: self.key,
            hello: HelloInfo {
                features: self.hello.features,
                privacy: self.hello.privacy,
                user_agent: self.hello.user_agent.clone(),
                head: self.hello.head,
            },
            nonce: self.hello.nonce,
            skew_ms: self.skew_ms(wall),
        }
    }

    fn skew_ms(&self, wall: Timestamp) -> i64 {
        let clamp = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let theirs = self.hello.timestamp;
        if theirs < wall {
            -clamp(wall.0 - theirs.0)
        } else {
            clamp(theirs.0 - wall.0)
        }
    }
}

impl From<Altered> for HandshakeError {
    fn from(_: Altered) -> Self {
        Code::DecryptFailed.into()
    }
}

/// A peer that speaks less than the version in use makes no sense; two that both speak more were pushed down.
fn check_version(in_use: u8, ours_max: u8, theirs_max: u8) -> Result<(), Code> {
    if theirs_max < in_use {
        Err(Code::Malformed)
    } else if ours_max.min(theirs_max) > in_use {
        Err(Code::Downgrade)
    } else {
        Ok(())
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], HandshakeError> {
    bytes.try_into().map_err(|_| Code::Malformed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_below_what_both_sides_speak_is_a_downgrade() {
        assert_eq!(check_version(1, 1, 1), Ok(()));
        assert_eq!(
            check_version(1, 1, 9),
            Ok(()),
            "the peer is newer than we are"
        );
        assert_eq!(check_version(1, 2, 1), Ok(()), "we are newer than the peer");
        assert_eq!(check_version(1, 2, 2), Err(Code::Downgrade));
        assert_eq!(check_version(2, 3, 4), Err(Code::Downgrade));
        assert_eq!(check_version(2, 3, 1), Err(Code::Malformed));
        assert_eq!(check_version(1, 1, 0), Err(Code::Malformed));
    }

    #[test]
    fn the_signed_bytes_are_spaces_context_zero_and_two_hashes() {
        let request = SignRequest {
            role: Role::Initiator,
            h: [0xaa; 32],
            binding: [0xbb; 32],
        };
        let message = request.message();
        assert_eq!(message[..64], [0x20; 64]);
        assert_eq!(&message[64..93], b"nectar/1 handshake initiator\0");
        assert_eq!(message[93..125], [0xaa; 32]);
        assert_eq!(message[125..], [0xbb; 32]);
        let other = SignRequest {
            role: Role::Responder,
            ..request
        }
        .message();
        assert_eq!(&other[64..93], b"nectar/1 handshake responder\0");
    }
}
