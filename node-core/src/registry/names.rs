//! From what people write to names and back.

use super::config::RegistryConfig;
use crate::{
    code::Code,
    name::{Label, Name, NameError},
};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameParseError {
    /// The label breaks a rule.
    #[error("{0}")]
    Label(#[from] NameError),
    /// No ending at all.
    #[error("a name is written with its ending, such as alice.{0}")]
    NoTld(Box<str>),
    /// No registry is configured for the ending.
    #[error("no registry is configured for names that end in .{0}")]
    TldUnknown(Box<str>),
}

impl NameParseError {
    /// The code that applications see.
    pub const fn code(&self) -> Code {
        match self {
            Self::Label(_) | Self::NoTld(_) => Code::NameInvalid,
            Self::TldUnknown(_) => Code::TldUnknown,
        }
    }
}

pub(super) fn parse<'a>(
    text: &str,
    registries: impl Iterator<Item = &'a RegistryConfig> + Clone,
) -> Result<Name, NameParseError> {
    // Labels hold no dots, endings may.
    let Some((label, tld)) = text.split_once('.') else {
        let example = registries
            .clone()
            .next()
            .map_or("nectar", |registry| &registry.tld);
        return Err(NameParseError::NoTld(example.into()));
    };
    let label = Label::new(label)?;
    let registry = registries
        .clone()
        .find(|registry| &*registry.tld == tld)
        .ok_or_else(|| NameParseError::TldUnknown(super::error::foreign(tld).into_boxed_str()))?;
    Ok(Name {
        registry: registry.id,
        label,
    })
}

pub(super) fn display<'a>(
    name: &Name,
    mut registries: impl Iterator<Item = &'a RegistryConfig>,
) -> String {
    match registries.find(|registry| registry.id == name.registry) {
        Some(registry) => format!("{}.{}", name.label, registry.tld),
        None => name.to_string(),
    }
}
