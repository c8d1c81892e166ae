//! The primitives, each behind a name that says what it is for.
//!
//! X25519, ML-KEM-768 and ChaCha20-Poly1305 are reached through [`Provider`], so that a native build may put a faster
//! implementation in their place: [`RustCrypto`] is everywhere, [`Fast`] comes with the feature `fast`, and [`Suite`] is the
//! one that this build uses, chosen at compile time. Both are functions of their arguments alone and give the same bytes.
//! So is signing with Ed25519, which has one right result. Verification is not part of it: two nodes that disagree about
//! which signatures are valid could be split apart, so that is always [`verify`].
//!
//! A crate of its own, so that a build for size can still compile it for speed.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "fast")]
mod fast;
mod pure;

#[cfg(feature = "fast")]
pub use fast::Fast;
pub use pure::RustCrypto;

use alloc::boxed::Box;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of an ML-KEM-768 encapsulation key.
pub const KEM_KEY: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext.
pub const KEM_CIPHERTEXT: usize = 1088;
/// Bytes of a ChaCha20-Poly1305 tag.
pub const TAG: usize = 16;

/// 32 secret bytes that are overwritten when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// The implementation of the primitives that this build uses.
#[cfg(feature = "fast")]
pub type Suite = Fast;
/// The implementation of the primitives that this build uses.
#[cfg(not(feature = "fast"))]
pub type Suite = RustCrypto;

/// Key agreement, key encapsulation and authenticated encryption.
///
/// Everything is a function of its arguments, so that fixed seeds give a fixed transcript.
pub trait Provider: 'static {
    /// An X25519 secret, ready for use.
    type AgreementKey: Send + Sync + 'static;
    /// The secret half of a key encapsulation.
    type KemSecret: Send + Sync + 'static;
    /// An Ed25519 secret, ready for use.
    type SigningKey: Send + Sync + 'static;
    /// A ChaCha20-Poly1305 key, ready for use.
    type Cipher: Send + Sync + 'static;

    /// Prepares an X25519 secret (RFC 7748) and computes its public key, once: that takes a third of the time of
    /// [`x25519`](Self::x25519).
    fn x25519_key(secret: &Secret) -> (Self::AgreementKey, [u8; 32]);

    /// The shared secret; `None` when it is all zero, which means that the peer sent a point of small order and so would
    /// fix the result without taking part in it.
    fn x25519(key: &Self::AgreementKey, peer: &[u8; 32]) -> Option<Secret>;

    /// An ML-KEM-768 key pair from FIPS 203's seeds `d` and `z`.
    fn kem_generate(d: &Secret, z: &Secret) -> (Self::KemSecret, Box<[u8; KEM_KEY]>);

    /// Encapsulates the randomness `m`; `None` when the key fails FIPS 203's modulus check.
    fn kem_encapsulate(
        key: &[u8; KEM_KEY],
        m: &Secret,
    ) -> Option<(Box<[u8; KEM_CIPHERTEXT]>, Secret)>;

    /// The encapsulated secret. A ciphertext that was altered gives an unrelated one (implicit rejection).
    fn kem_decapsulate(secret: &Self::KemSecret, ciphertext: &[u8; KEM_CIPHERTEXT]) -> Secret;

    /// Prepares an Ed25519 secret.
    fn signing_key(secret: &Secret) -> Self::SigningKey;

    /// Signs, as [`sign`] does.
    fn sign(key: &Self::SigningKey, message: &[u8]) -> [u8; 64];

    /// Prepares a key.
    fn cipher(key: &Secret) -> Self::Cipher;

    /// Encrypts `text` in place. `nonce` must never repeat under one key.
    fn seal(cipher: &Self::Cipher, nonce: u64, data: &[u8], text: &mut [u8]) -> [u8; TAG];

    /// Decrypts `text` in place; `false`, and the text is of no use, when anything was altered.
    #[must_use]
    fn open(
        cipher: &Self::Cipher,
        nonce: u64,
        data: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG],
    ) -> bool;
}

/// SHA-256 of the concatenated parts.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// HMAC-SHA256 of the concatenated parts.
pub fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    Zeroizing::new(keyed(key, parts).finalize().into_bytes().into())
}

/// Whether `tag` is the HMAC-SHA256 of the concatenated parts, compared in constant time.
#[must_use]
pub fn hmac_verify(key: &[u8; 32], parts: &[&[u8]], tag: &[u8; 32]) -> bool {
    keyed(key, parts).verify_slice(tag).is_ok()
}

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSignature {
    /// The key is of small order: one signature would fit many messages.
    WeakKey,
    /// The key is no point of the curve, or the signature does not verify under it.
    Invalid,
}

/// Verifies an Ed25519 signature by the strict rules: no small-order key or nonce point, canonical scalar, no cofactor.
/// With looser rules one signature could be valid for one node and not for another, or under a key that anybody can use.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| BadSignature::Invalid)?;
    if key.is_weak() {
        return Err(BadSignature::WeakKey);
    }
    key.verify_strict(message, &Signature::from_bytes(signature))
        .map_err(|_| BadSignature::Invalid)
}

/// Why a public key is none that we would trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// It is of small order: it proves nothing, whoever registered it.
    Weak,
    /// It is no point of the curve.
    NotAPoint,
}

/// Whether an Ed25519 key can prove anything.
///
/// # Errors
/// [`BadKey`].
pub fn check_key(key: &[u8; 32]) -> Result<(), BadKey> {
    match VerifyingKey::from_bytes(key) {
        Ok(key) if key.is_weak() => Err(BadKey::Weak),
        Ok(_) => Ok(()),
        Err(_) => Err(BadKey::NotAPoint),
    }
}

/// The public half of an Ed25519 secret.
pub fn public_key(secret: &Secret) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

/// Signs with a secret that this process holds.
pub fn sign(secret: &Secret, message: &[u8]) -> [u8; 64] {
    SigningKey::from_bytes(secret).sign(message).to_bytes()
}

fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC fills a short key up with zeros to the hash's block, which is the length that the constructor takes.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new((&*block).into());
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// Noise's nonce for ChaChaPoly: 32 zero bits, then the counter in little-endian.
fn noise_nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
