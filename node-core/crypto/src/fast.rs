//! Assembly for X25519, ChaCha20-Poly1305 and Ed25519 (AWS-LC), vector instructions for ML-KEM (libcrux, which takes its randomness as
//! an argument, as [`Provider`] asks; AWS-LC's interface draws its own).

use super::{KEM_CIPHERTEXT, KEM_KEY, Provider, Secret, TAG, noise_nonce};
use alloc::boxed::Box;
use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
    signature::Ed25519KeyPair,
};
use libcrux_ml_kem::mlkem768::{self, MlKem768Ciphertext, MlKem768PrivateKey, MlKem768PublicKey};
use zeroize::{Zeroize as _, Zeroizing};

/// What native nodes use: the same results as [`RustCrypto`](super::RustCrypto), for less time.
#[derive(Clone, Copy, Debug)]
pub struct Fast;

/// The secret half of an ML-KEM-768 key pair, overwritten when dropped.
pub struct KemSecret(Box<MlKem768PrivateKey>);

impl Drop for KemSecret {
    fn drop(&mut self) {
        let length = MlKem768PrivateKey::len();
        self.0[..length].zeroize();
    }
}

impl Provider for Fast {
    type AgreementKey = PrivateKey;
    type KemSecret = KemSecret;
    type SigningKey = Ed25519KeyPair;
    type Cipher = LessSafeKey;

    fn x25519_key(secret: &Secret) -> (Self::AgreementKey, [u8; 32]) {
        let key = PrivateKey::from_private_key(&X25519, &**secret)
            .expect("an X25519 secret has 32 bytes");
        let public = key
            .compute_public_key()
            .expect("every X25519 secret has a public key");
        let mut bytes = [0; 32];
        bytes.copy_from_slice(public.as_ref());
        (key, bytes)
    }

    fn x25519(key: &Self::AgreementKey, peer: &[u8; 32]) -> Option<Secret> {
        let peer = UnparsedPublicKey::new(&X25519, peer);
        // The only error is a result of zeros.
        agreement::agree(key, peer, (), |shared| {
            let mut bytes = Zeroizing::new([0; 32]);
            bytes.copy_from_slice(shared);
            Ok(bytes)
        })
        .ok()
    }

    fn kem_generate(d: &Secret, z: &Secret) -> (Self::KemSecret, Box<[u8; KEM_KEY]>) {
        let mut seed = [0; 64];
        seed[..32].copy_from_slice(&**d);
        seed[32..].copy_from_slice(&**z);
        let (secret, public) = mlkem768::generate_key_pair(seed).into_parts();
        seed.zeroize();
        (KemSecret(Box::new(secret)), Box::new(public.into()))
    }

    fn kem_encapsulate(
        key: &[u8; KEM_KEY],
        m: &Secret,
    ) -> Option<(Box<[u8; KEM_CIPHERTEXT]>, Secret)> {
        let key = MlKem768PublicKey::from(key);
        if !mlkem768::validate_public_key(&key) {
            return None;
        }
        let (ciphertext, shared) = mlkem768::encapsulate(&key, **m);
        Some((Box::new(ciphertext.into()), Zeroizing::new(shared)))
    }

    fn kem_decapsulate(secret: &Self::KemSecret, ciphertext: &[u8; KEM_CIPHERTEXT]) -> Secret {
        let ciphertext = MlKem768Ciphertext::from(ciphertext);
        Zeroizing::new(mlkem768::decapsulate(&secret.0, &ciphertext))
    }

    fn signing_key(secret: &Secret) -> Self::SigningKey {
        Ed25519KeyPair::from_seed_unchecked(&**secret).expect("an Ed25519 secret has 32 bytes")
    }

    fn sign(key: &Self::SigningKey, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(key.sign(message).as_ref());
        signature
    }

    fn cipher(key: &Secret) -> Self::Cipher {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &**key);
        LessSafeKey::new(key.expect("a key of this cipher has 32 bytes"))
    }

    fn seal(cipher: &Self::Cipher, nonce: u64, data: &[u8], text: &mut [u8]) -> [u8; TAG] {
        let nonce = Nonce::assume_unique_for_key(noise_nonce(nonce));
        let mut tag = [0; TAG];
        let sealed = cipher
            .seal_in_place_separate_tag(nonce, Aad::from(data), text)
            .expect("the cipher takes up to 256 GiB, and no message is longer than 64 KiB");
        tag.copy_from_slice(sealed.as_ref());
        tag
    }

    fn open(
        cipher: &Self::Cipher,
        nonce: u64,
        data: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(noise_nonce(nonce));
        cipher
            .open_in_place_separate_tag(nonce, Aad::from(data), tag, text)
            .is_ok()
    }
}
