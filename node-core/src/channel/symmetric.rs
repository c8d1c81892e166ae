//! Noise's symmetric state (revision 34, section 5.2) over ChaChaPoly and SHA-256.
//!
//! Not an interface for applications; public for the vectors and interoperation tests of this crate.

use crate::crypto::{self, Provider, Secret, Suite, TAG};
use alloc::vec::Vec;
use zeroize::Zeroizing;

/// Something was altered: decryption failed, and the handshake is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Altered;

/// Chaining key, transcript hash and the handshake's cipher.
pub struct SymmetricState {
    ck: Secret,
    h: [u8; 32],
    cipher: Option<<Suite as Provider>::Cipher>,
    nonce: u64,
}

impl SymmetricState {
    /// `InitializeSymmetric`.
    pub fn new(protocol: &[u8]) -> Self {
        let mut h = [0; 32];
        match h.get_mut(..protocol.len()) {
            Some(start) => start.copy_from_slice(protocol),
            None => h = crypto::hash(&[protocol]),
        }
        Self {
            ck: Zeroizing::new(h),
            h,
            cipher: None,
            nonce: 0,
        }
    }

    /// `MixHash`.
    pub fn mix_hash(&mut self, data: &[u8]) {
        self.h = crypto::hash(&[&self.h, data]);
    }

    /// `MixKey`.
    pub fn mix_key(&mut self, input: &[u8]) {
        let (ck, key) = hkdf(&self.ck, input);
        self.ck = ck;
        self.cipher = Some(Suite::cipher(&key));
        self.nonce = 0;
    }

    /// `EncryptAndHash`; appends the ciphertext to `out`.
    pub fn encrypt_and_hash(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plaintext);
        let (_, text) = out.split_at_mut(start);
        if let Some(cipher) = &self.cipher {
            let tag = Suite::seal(cipher, self.nonce, &self.h, text);
            self.nonce += 1;
            out.extend_from_slice(&tag);
        }
        let (_, ciphertext) = out.split_at(start);
        self.mix_hash(ciphertext);
    }

    /// `DecryptAndHash`.
    ///
    /// # Errors
    /// [`Altered`]; the state is as before then.
    pub fn decrypt_and_hash(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, Altered> {
        let mut plaintext = ciphertext.to_vec();
        if let Some(cipher) = &self.cipher {
            let (text, tag) = plaintext.split_last_chunk_mut::<TAG>().ok_or(Altered)?;
            if !Suite::open(cipher, self.nonce, &self.h, text, tag) {
                return Err(Altered);
            }
            self.nonce += 1;
            plaintext.truncate(ciphertext.len() - TAG);
        }
        self.mix_hash(ciphertext);
        Ok(plaintext)
    }

    /// The transcript hash.
    pub fn hash(&self) -> [u8; 32] {
        self.h
    }

    /// The secret that a channel's exported secrets come from. It is taken out of the chaining key one way, so that the
    /// chaining key, and with it the first traffic keys, need not be kept.
    pub fn exporter(&self) -> Secret {
        crypto::hmac(&self.ck, &[b"nectar/1 exp\0", &self.h])
    }

    /// `Split`: the keys from initiator to responder and back.
    pub fn split(self) -> (Secret, Secret) {
        hkdf(&self.ck, &[])
    }
}

/// Noise's `HKDF` with two outputs.
fn hkdf(ck: &Secret, input: &[u8]) -> (Secret, Secret) {
    let key = crypto::hmac(ck, &[input]);
    let first = crypto::hmac(&key, &[&[1]]);
    let second = crypto::hmac(&key, &[&*first, &[2]]);
    (first, second)
}
