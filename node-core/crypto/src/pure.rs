//! Portable code, the same natively and in the tab.

use super::{KEM_CIPHERTEXT, KEM_KEY, Provider, Secret, TAG, noise_nonce};
use alloc::boxed::Box;
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _, Tag,
    aead::{AeadInOut as _, inout::InOutBuf},
};
use ed25519_dalek::Signer as _;
use ml_kem::{Decapsulate as _, KeyExport as _, ml_kem_768};
use zeroize::Zeroizing;

/// The pure Rust implementation: the same code natively and in the tab.
#[derive(Clone, Copy, Debug)]
pub struct RustCrypto;

impl Provider for RustCrypto {
    type AgreementKey = x25519_dalek::StaticSecret;
    type KemSecret = ml_kem_768::DecapsulationKey;
    type SigningKey = ed25519_dalek::SigningKey;
    type Cipher = ChaCha20Poly1305;

    fn x25519_key(secret: &Secret) -> (Self::AgreementKey, [u8; 32]) {
        let key = x25519_dalek::StaticSecret::from(**secret);
        let public = x25519_dalek::PublicKey::from(&key).to_bytes();
        (key, public)
    }

    fn x25519(key: &Self::AgreementKey, peer: &[u8; 32]) -> Option<Secret> {
        let shared = key.diffie_hellman(&x25519_dalek::PublicKey::from(*peer));
        shared
            .was_contributory()
            .then(|| Zeroizing::new(shared.to_bytes()))
    }

    fn kem_generate(d: &Secret, z: &Secret) -> (Self::KemSecret, Box<[u8; KEM_KEY]>) {
        let mut seed = Zeroizing::new([0; 64]);
        seed[..32].copy_from_slice(&**d);
        seed[32..].copy_from_slice(&**z);
        let secret = ml_kem_768::DecapsulationKey::from_seed((*seed).into());
        let public = secret.encapsulation_key().to_bytes().into();
        (secret, Box::new(public))
    }

    fn kem_encapsulate(
        key: &[u8; KEM_KEY],
        m: &Secret,
    ) -> Option<(Box<[u8; KEM_CIPHERTEXT]>, Secret)> {
        let key = ml_kem_768::EncapsulationKey::new(&(*key).into()).ok()?;
        let (ciphertext, shared) = key.encapsulate_deterministic(&(**m).into());
        Some((Box::new(ciphertext.into()), Zeroizing::new(shared.into())))
    }

    fn kem_decapsulate(secret: &Self::KemSecret, ciphertext: &[u8; KEM_CIPHERTEXT]) -> Secret {
        Zeroizing::new(secret.decapsulate(&(*ciphertext).into()).into())
    }

    fn signing_key(secret: &Secret) -> Self::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(secret)
    }

    fn sign(key: &Self::SigningKey, message: &[u8]) -> [u8; 64] {
        key.sign(message).to_bytes()
    }

    fn cipher(key: &Secret) -> Self::Cipher {
        ChaCha20Poly1305::new((&**key).into())
    }

    fn seal(cipher: &Self::Cipher, nonce: u64, data: &[u8], text: &mut [u8]) -> [u8; TAG] {
        cipher
            .encrypt_inout_detached(&noise_nonce(nonce).into(), data, InOutBuf::from(text))
            .expect("the cipher takes up to 256 GiB, and no message is longer than 64 KiB")
            .into()
    }

    fn open(
        cipher: &Self::Cipher,
        nonce: u64,
        data: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG],
    ) -> bool {
        cipher
            .decrypt_inout_detached(
                &noise_nonce(nonce).into(),
                data,
                InOutBuf::from(text),
                &Tag::from(*tag),
            )
            .is_ok()
    }
}
