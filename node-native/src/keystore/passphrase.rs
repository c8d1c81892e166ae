//! Where a passphrase comes from: the environment, a guarded file, or the person at the terminal.

use super::{KeyError, Kind, file};
use std::{env::VarError, fmt, io::IsTerminal, path::Path};
use zeroize::Zeroizing;

/// Fewest characters of a new passphrase. Argon2id makes guesses dear, not free choices good.
const MIN_CHARACTERS: usize = 8;

/// A passphrase, wiped when dropped and never printed.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Checks a passphrase that is about to protect a new key.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.chars().count() < MIN_CHARACTERS {
            return Err(KeyError::BadPassphrase(
                "a passphrase needs at least 8 characters",
            ));
        }
        Ok(Self::existing(text))
    }

    fn existing(text: &str) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Asked for a passphrase only once a file turns out to be sealed.
#[derive(Debug)]
pub enum Source {
    /// A variable, else the guarded file that `<variable>_FILE` names, else the terminal.
    Environment {
        /// The variable's name.
        variable: &'static str,
    },
    /// Known already.
    Given(Passphrase),
}

impl Source {
    /// `NECTAR_PASSPHRASE`: for the networking key.
    pub const fn networking() -> Self {
        Self::Environment {
            variable: "NECTAR_PASSPHRASE",
        }
    }

    /// `NECTAR_WALLET_PASSPHRASE`: for the wallet.
    pub const fn wallet() -> Self {
        Self::Environment {
            variable: "NECTAR_WALLET_PASSPHRASE",
        }
    }

    /// The passphrase that opens the key file at `path`.
    pub(super) fn open<T>(
        &self,
        path: &Path,
        use_it: impl FnOnce(&Passphrase) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        match self {
            Self::Given(passphrase) => use_it(passphrase),
            Self::Environment { variable } => {
                if let Some(passphrase) = from_environment(variable)? {
                    return use_it(&passphrase);
                }
                if !std::io::stdin().is_terminal() {
                    return Err(KeyError::NoPassphrase {
                        path: path.into(),
                        variable,
                    });
                }
                use_it(&ask(&format!("Passphrase of {}: ", path.display()))?)
            }
        }
    }

    /// A passphrase for a new key file at `path`; a person types it twice.
    pub fn choose(&self, path: &Path) -> Result<Passphrase, KeyError> {
        let Self::Environment { variable } = self else {
            return Err(KeyError::BadPassphrase(
                "a passphrase that is given needs no choice",
            ));
        };
        if let Some(passphrase) = from_environment(variable)? {
            return Passphrase::new(&passphrase.0);
        }
        if !std::io::stdin().is_terminal() {
            return Err(KeyError::BadPassphrase(
                "there is no terminal to ask for a passphrase: set NECTAR_PASSPHRASE or NECTAR_PASSPHRASE_FILE \
                 (NECTAR_WALLET_PASSPHRASE… for wallets), or choose `--unencrypted`",
            ));
        }
        let first = ask(&format!("New passphrase for {}: ", path.display()))?;
        let second = ask("The same again: ")?;
        if first.0 != second.0 {
            return Err(KeyError::BadPassphrase(
                "the two passphrases differ; nothing was written",
            ));
        }
        Passphrase::new(&first.0)
    }
}

fn from_environment(variable: &'static str) -> Result<Option<Passphrase>, KeyError> {
    match std::env::var(variable) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            return Ok(Some(Passphrase::existing(&text)));
        }
        Err(VarError::NotUnicode(_)) => return Err(KeyError::NotText(variable)),
        Err(VarError::NotPresent) => {}
    }
    let Some(path) = std::env::var_os(format!("{variable}_FILE")) else {
        return Ok(None);
    };
    let text = file::read(Path::new(&path), Kind::Passphrase).map_err(|error| match error {
        KeyError::Missing { path, .. } => KeyError::NoPassphraseFile { path, variable },
        other => other,
    })?;
    Ok(Some(Passphrase::existing(
        text.trim_end_matches(['\r', '\n']),
    )))
}

fn ask(prompt: &str) -> Result<Passphrase, KeyError> {
    let text = rpassword::prompt_password(prompt).map_err(|source| KeyError::Io {
        action: "read a passphrase from",
        path: "the terminal".into(),
        source,
    })?;
    let text = Zeroizing::new(text);
    Ok(Passphrase::existing(&text))
}
