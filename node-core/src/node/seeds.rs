//! Randomness as the core knows it: a chain of seeds from the one that the driver gave.

use crate::crypto;
use zeroize::Zeroizing;

/// Draws seeds. What was drawn cannot be computed from what is left: each draw replaces the key.
pub(super) struct Seeds {
    key: Zeroizing<[u8; 32]>,
}

impl Seeds {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            key: Zeroizing::new(seed),
        }
    }

    pub(super) fn next(&mut self) -> [u8; 32] {
        let seed = *crypto::hmac(&self.key, &[b"nectar/1 seed"]);
        self.key = crypto::hmac(&self.key, &[b"nectar/1 next"]);
        seed
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.next();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Mixes fresh entropy in: a machine that was cloned goes its own way from here.
    pub(super) fn mix(&mut self, entropy: &[u8; 32]) {
        self.key = crypto::hmac(&self.key, &[b"nectar/1 mix", entropy]);
    }
}
