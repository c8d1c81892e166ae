//! Key files: the node's networking key and the wallet that pays for transactions.
//!
//! A key file is JSON, one key each, written once and never silently replaced:
//!
//! ```json
//! {
//!   "nectar_key": 1,
//!   "kind": "networking",
//!   "public": "5c1f…",
//!   "seal": { "kdf": "argon2id", "memory_kib": 65536, "passes": 3, "lanes": 1,
//!             "salt": "…", "cipher": "xchacha20poly1305", "nonce": "…" },
//!   "secret": "…"
//! }
//! ```
//!
//! `public` is the Ed25519 public key, or the wallet's address. With a `seal`, `secret` is the 32-byte key sealed with
//! XChaCha20-Poly1305 under Argon2id(passphrase, salt); the version, the kind, `public` and the parameters are its
//! associated data, so that nobody can put another public key or weaker parameters in front of a sealed secret.
//! Without one (`"seal": null`), `secret` is the bare key and the file's mode is all that guards it. Either way a file
//! that others may read or write is refused.

mod file;
mod format;
mod passphrase;

use alloy::{
    primitives::{Address, B256},
    signers::local::PrivateKeySigner,
};
use ed25519_dalek::SigningKey;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub use format::Kind;
pub use passphrase::{Passphrase, Source as PassphraseSource};

/// How a new key file is protected.
#[derive(Debug)]
pub enum Protection {
    /// Sealed with a passphrase.
    Sealed(Passphrase),
    /// By the file's mode alone.
    FileMode,
}

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nothing is there.
    #[error("there is no key file {}: create one with `nectar keygen{} --out {}`", .path.display(), .kind.flag(), .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What kind of key was wanted.
        kind: Kind,
    },
    /// Something is already there.
    #[error("{} exists and is not overwritten: choose another path, or move the old key away", .0.display())]
    Exists(PathBuf),
    /// Others than the owner have access.
    #[error("{} can be accessed by others (mode {mode:03o}): run `chmod 600 {}`", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a key file, or not one of this version.
    #[error("{} is not a usable key file: {problem}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A wallet where a networking key was wanted, or the other way round.
    #[error("{} holds a {found} key, but a {wanted} key is needed", .path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: Kind,
        /// What was needed.
        wanted: Kind,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open {}, or the file was altered", .0.display())]
    WrongPassphrase(PathBuf),
    /// Nobody can be asked for the passphrase.
    #[error(
        "{} is sealed and there is no terminal to ask for its passphrase: set {variable} or {variable}_FILE",
        .path.display()
    )]
    NoPassphrase {
        /// The file.
        path: PathBuf,
        /// The environment variable that may carry it.
        variable: &'static str,
    },
    /// The file is missing that should hold it.
    #[error("there is no file {path:?}, which {variable}_FILE names for the passphrase")]
    NoPassphraseFile {
        /// Where it was looked for.
        path: PathBuf,
        /// The environment variable, without its ending.
        variable: &'static str,
    },
    /// A variable whose bytes are no text: it was set, so nothing else is tried.
    #[error("{0} is not UTF-8: set it in that encoding, as the passphrase was chosen")]
    NotText(&'static str),
    /// A new passphrase that protects nothing, or was mistyped.
    #[error("{0}")]
    BadPassphrase(&'static str),
    /// `NECTAR_WALLET_KEY` does not hold a key.
    #[error("{0} does not hold a private key: it must be 32 bytes in hex")]
    BadVariable(&'static str),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Entropy(getrandom::Error),
}

/// Makes a new networking key and writes it to `path`, which must not exist.
pub fn create_networking(path: &Path, protection: &Protection) -> Result<SigningKey, KeyError> {
    let secret = entropy::<32>()?;
    let key = SigningKey::from_bytes(&secret);
    let public = hex::encode(key.verifying_key().as_bytes());
    file::create(
        path,
        &format::write(Kind::Networking, &public, &secret, protection)?,
    )?;
    Ok(key)
}

/// Reads a networking key; asks `passphrase` only when the file is sealed.
pub fn load_networking(path: &Path, passphrase: &PassphraseSource) -> Result<SigningKey, KeyError> {
    let stored = open(path, Kind::Networking, passphrase)?;
    let key = SigningKey::from_bytes(&stored.secret);
    if hex::encode(key.verifying_key().as_bytes()) != stored.public {
        return Err(KeyError::Malformed {
            path: path.into(),
            problem: "its public key does not belong to its secret".into(),
        });
    }
    Ok(key)
}

/// Makes a new wallet and writes it to `path`, which must not exist.
pub fn create_wallet(path: &Path, protection: &Protection) -> Result<PrivateKeySigner, KeyError> {
    // A draw outside the curve's order happens once in 2^128; draw again rather than reason about it.
    let (secret, wallet) = loop {
        let secret = entropy::<32>()?;
        if let Ok(wallet) = PrivateKeySigner::from_bytes(&B256::from(*secret)) {
            break (secret, wallet);
        }
    };
    let public = wallet.address().to_string();
    file::create(
        path,
        &format::write(Kind::Wallet, &public, &secret, protection)?,
    )?;
    Ok(wallet)
}

/// Reads a wallet: one of our key files, or a file that holds nothing but the private key in hex.
pub fn load_wallet(
    path: &Path,
    passphrase: &PassphraseSource,
) -> Result<PrivateKeySigner, KeyError> {
    let text = file::read(path, Kind::Wallet)?;
    if let Some(wallet) = wallet_from_hex(&text) {
        return Ok(wallet);
    }
    let stored = format::read(&text, path, Kind::Wallet, passphrase)?;
    let malformed = |problem: &str| KeyError::Malformed {
        path: path.into(),
        problem: problem.into(),
    };
    let wallet = PrivateKeySigner::from_bytes(&B256::from(*stored.secret))
        .map_err(|_| malformed("its secret is not a secp256k1 key"))?;
    if stored.public.parse::<Address>().ok() != Some(wallet.address()) {
        return Err(malformed("its address does not belong to its secret"));
    }
    Ok(wallet)
}

/// The wallet of this process: `file` if given, else `NECTAR_WALLET_KEY_FILE`, else `NECTAR_WALLET_KEY`.
///
/// There is no flag that takes the key itself: command lines are visible to every process of the machine.
pub fn wallet(file: Option<&Path>) -> Result<Option<PrivateKeySigner>, KeyError> {
    let from_environment =
        std::env::var_os("NECTAR_WALLET_KEY_FILE").filter(|path| !path.is_empty());
    if let Some(path) = file
        .map(Path::to_path_buf)
        .or(from_environment.map(PathBuf::from))
    {
        return load_wallet(&path, &PassphraseSource::wallet()).map(Some);
    }
    let Some(text) = std::env::var_os("NECTAR_WALLET_KEY").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text = Zeroizing::new(text.into_encoded_bytes());
    let text =
        std::str::from_utf8(&text).map_err(|_| KeyError::BadVariable("NECTAR_WALLET_KEY"))?;
    wallet_from_hex(text)
        .map(Some)
        .ok_or(KeyError::BadVariable("NECTAR_WALLET_KEY"))
}

fn open(
    path: &Path,
    kind: Kind,
    passphrase: &PassphraseSource,
) -> Result<format::Stored, KeyError> {
    format::read(&file::read(path, kind)?, path, kind, passphrase)
}

fn wallet_from_hex(text: &str) -> Option<PrivateKeySigner> {
    let text = text.trim();
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut *secret).ok()?;
    PrivateKeySigner::from_bytes(&B256::from(*secret)).ok()
}

fn entropy<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeyError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(KeyError::Entropy)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
