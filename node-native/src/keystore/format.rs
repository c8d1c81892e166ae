//! The bytes of a key file.

use super::{KeyError, PassphraseSource, Protection, entropy};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInOut};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};
use zeroize::{Zeroize, Zeroizing};

const FORMAT: u32 = 1;
/// 64 MiB, 3 passes: RFC 9106's second recommendation, with one lane because one thread computes it.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// What a file may ask of us before we believe it: 1 GiB of memory, 64 passes, 16 lanes.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 16;

/// What a file guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The Ed25519 key that a node proves its name with.
    Networking,
    /// The secp256k1 key that owns names and pays for transactions.
    Wallet,
    /// Not a key: a file with a passphrase, guarded in the same way.
    #[serde(skip)]
    Passphrase,
}

impl Kind {
    pub(super) const fn flag(self) -> &'static str {
        match self {
            Self::Wallet => " --wallet",
            Self::Networking | Self::Passphrase => "",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Networking => "networking",
            Self::Wallet => "wallet",
            Self::Passphrase => "passphrase",
        })
    }
}

/// What a file held, opened.
pub(super) struct Stored {
    pub(super) public: String,
    pub(super) secret: Zeroizing<[u8; 32]>,
}

/// The text of a new file.
pub(super) fn write(
    kind: Kind,
    public: &str,
    secret: &[u8; 32],
    protection: &Protection,
) -> Result<Zeroizing<String>, KeyError> {
    let mut file = KeyFile {
        nectar_key: FORMAT,
        kind,
        public: public.into(),
        seal: None,
        secret: String::new(),
    };
    file.secret = match protection {
        Protection::FileMode => hex::encode(secret),
        Protection::Sealed(passphrase) => {
            let seal = file.seal.insert(Seal {
                kdf: Kdf::Argon2id,
                memory_kib: MEMORY_KIB,
                passes: PASSES,
                lanes: LANES,
                salt: hex::encode(*entropy::<16>()?),
                cipher: Cipher::Xchacha20poly1305,
                nonce: hex::encode(*entropy::<24>()?),
            });
            let key = seal
                .key(passphrase.as_bytes())
                .map_err(KeyError::BadPassphrase)?;
            let nonce = seal.nonce().map_err(KeyError::BadPassphrase)?;
            let mut sealed = Vec::with_capacity(48);
            sealed.extend_from_slice(secret);
            let associated = file.associated_data();
            XChaCha20Poly1305::new(&key)
                .encrypt_in_place(&nonce, &associated, &mut sealed)
                .map_err(|_| KeyError::BadPassphrase("the key could not be sealed"))?;
            hex::encode(sealed)
        }
    };
    let text = serde_json::to_string_pretty(&file).map_err(|error| KeyError::Malformed {
        path: Default::default(),
        problem: error.to_string(),
    })?;
    Ok(Zeroizing::new(text + "\n"))
}

/// Reads a file's text and opens its seal.
pub(super) fn read(
    text: &str,
    path: &Path,
    wanted: Kind,
    passphrase: &PassphraseSource,
) -> Result<Stored, KeyError> {
    let malformed = |problem: String| KeyError::Malformed {
        path: path.into(),
        problem,
    };
    // The error's text is built from its place alone: serde's own may quote the secret.
    let file: KeyFile = serde_json::from_str(text).map_err(|error| {
        malformed(format!(
            "it is not a key file of format {FORMAT} (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    if file.nectar_key != FORMAT {
        return Err(malformed(format!(
            "its format {} is unknown, this version reads {FORMAT}",
            file.nectar_key
        )));
    }
    if file.kind != wanted {
        return Err(KeyError::WrongKind {
            path: path.into(),
            found: file.kind,
            wanted,
        });
    }
    let mut secret = Zeroizing::new(
        hex::decode(&file.secret).map_err(|_| malformed("its secret is not hex".into()))?,
    );
    if let Some(seal) = &file.seal {
        let nonce = seal.nonce().map_err(|problem| malformed(problem.into()))?;
        passphrase.open(path, |passphrase| {
            let key = seal
                .key(passphrase.as_bytes())
                .map_err(|problem| malformed(problem.into()))?;
            XChaCha20Poly1305::new(&key)
                .decrypt_in_place(&nonce, &file.associated_data(), &mut *secret)
                .map_err(|_| KeyError::WrongPassphrase(path.into()))
        })?;
    }
    let secret = secret
        .as_slice()
        .try_into()
        .map_err(|_| malformed("its secret is not 32 bytes long".into()))?;
    Ok(Stored {
        public: file.public.clone(),
        secret: Zeroizing::new(secret),
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    nectar_key: u32,
    kind: Kind,
    public: String,
    seal: Option<Seal>,
    secret: String,
}

impl KeyFile {
    fn associated_data(&self) -> Vec<u8> {
        let seal = self.seal.as_ref().map(Seal::describe).unwrap_or_default();
        format!(
            "nectar key file {}\n{}\n{}\n{seal}",
            self.nectar_key, self.kind, self.public
        )
        .into_bytes()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    kdf: Kdf,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    cipher: Cipher,
    nonce: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kdf {
    Argon2id,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cipher {
    Xchacha20poly1305,
}

impl Seal {
    fn describe(&self) -> String {
        format!(
            "argon2id {} {} {} {} xchacha20poly1305",
            self.memory_kib, self.passes, self.lanes, self.salt
        )
    }

    fn nonce(&self) -> Result<XNonce, &'static str> {
        let mut nonce = [0; 24];
        hex::decode_to_slice(&self.nonce, &mut nonce)
            .map_err(|_| "its nonce is not 24 bytes in hex")?;
        Ok(nonce.into())
    }

    fn key(&self, passphrase: &[u8]) -> Result<Zeroizing<Key>, &'static str> {
        if self.memory_kib > MAX_MEMORY_KIB || self.passes > MAX_PASSES || self.lanes > MAX_LANES {
            return Err("its seal asks for more memory or time than any key of ours");
        }
        let salt = hex::decode(&self.salt).map_err(|_| "its salt is not hex")?;
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| "its Argon2 parameters are out of range")?;
        let mut key = Zeroizing::new(Key::default());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, &mut key)
            .map_err(|_| "its salt has an impossible length")?;
        Ok(key)
    }
}
