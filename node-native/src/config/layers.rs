//! Putting the environment and flags over the file, while remembering who said what.

use super::{
    Config, ConfigError,
    error::nearest,
    file::{File, line_of, lines},
    limits::LimitsSection,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};
use toml::Value;

/// Settings that a variable or a flag may put over the file, beside those of `[limits]`. Registries and pinned records
/// are lists of tables and stay in the file.
const SETTINGS: &[&str] = &[
    "node.name",
    "node.key_file",
    "node.ban_file",
    "node.user_agent",
    "node.allow",
    "node.guests",
    "node.allow_private",
    "listen.address",
    "listen.port",
    "listen.tls_cert",
    "listen.tls_key",
    "listen.page",
    "listen.public_host",
    "listen.public_port",
    "listen.origins",
    "listen.page_connect",
    "listen.connections",
    "listen.connections_per_address",
    "listen.tls_handshakes_per_address",
    "listen.requests_per_address",
    "listen.header_timeout",
    "listen.header_bytes",
    "router.host",
    "router.call",
    "router.guests",
    "offer.routers",
    "offer.echo",
    "faucet.tld",
    "faucet.wallet_file",
    "faucet.amount",
];

/// Variables that are ours without being settings: secrets, and what is needed before there is a configuration.
const OTHER_VARIABLES: &[&str] = &[
    "NECTAR_CONFIG",
    "NECTAR_LOG",
    "NECTAR_LOG_FORMAT",
    "NECTAR_PASSPHRASE",
    "NECTAR_PASSPHRASE_FILE",
    "NECTAR_WALLET_KEY",
    "NECTAR_WALLET_KEY_FILE",
    "NECTAR_WALLET_PASSPHRASE",
    "NECTAR_WALLET_PASSPHRASE_FILE",
];

/// Where every setting is explained, in words that also help whoever has the program only.
pub(crate) const EXAMPLE: &str = "node-native/nectar.example.toml of the sources";

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; an error if it does not exist. Without it, `nectar.toml` is read if it exists.
    pub file: Option<PathBuf>,
    /// Environment variables; only those that begin with `NECTAR_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags, in order.
    pub flags: Vec<Override>,
}

impl Sources {
    /// The process's own environment, and no flags.
    pub fn from_environment() -> Self {
        Self {
            file: std::env::var_os("NECTAR_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            environment: std::env::vars_os().collect(),
            flags: Vec::new(),
        }
    }
}

/// One setting that is put over the file.
#[derive(Clone, Debug)]
pub struct Override {
    /// What to call it in errors, such as `--port`.
    pub place: String,
    /// Which setting, such as `listen.port`.
    pub path: String,
    /// Its value: TOML, or a bare string.
    pub value: String,
}

/// All layers in one, unchecked, with the place of every setting.
pub(super) struct Merged {
    pub(super) file: File,
    pub(super) places: Places,
    pub(super) warnings: Vec<String>,
}

/// Who said what.
pub(super) struct Places {
    /// What to call the file, and where relative paths in it start.
    name: String,
    directory: PathBuf,
    lines: BTreeMap<String, usize>,
    overrides: BTreeMap<String, String>,
}

impl Places {
    /// Where the setting at `path` was made, or where it is missing.
    pub(super) fn of(&self, path: &str) -> String {
        if let Some(place) = self.overrides.get(path) {
            return place.clone();
        }
        // A setting that is absent is missing from its section.
        let mut at = path;
        loop {
            if let Some(line) = self.lines.get(at) {
                return format!("{}:{line}", self.name);
            }
            match at.rsplit_once(['.', '[']) {
                Some((parent, _)) => at = parent,
                None => return self.name.clone(),
            }
        }
    }

    /// The directory that a relative path in the setting at `path` starts from.
    pub(super) fn base(&self, path: &str) -> Option<&Path> {
        (!self.overrides.contains_key(path)).then_some(self.directory.as_path())
    }
}

pub(super) fn merge(sources: &Sources) -> Result<Merged, ConfigError> {
    let (name, directory, text) = read(sources.file.as_deref())?;
    // Once with spans, for errors that know their line, and once as a table that can be written over.
    toml::from_str::<File>(&text).map_err(|error| in_file(&name, &text, &error))?;
    let mut table: toml::Table =
        toml::from_str(&text).map_err(|error| in_file(&name, &text, &error))?;
    let mut places = Places {
        name,
        directory,
        lines: lines(&text),
        overrides: BTreeMap::new(),
    };
    let mut warnings = Vec::new();
    let environment = from_environment(&sources.environment, &mut warnings)?;
    for over in environment.iter().chain(&sources.flags) {
        apply(&mut table, over)?;
        places
            .overrides
            .insert(over.path.clone(), over.place.clone());
    }
    let file = table.try_into().map_err(|error: toml::de::Error| {
        ConfigError::new(
            &places.name,
            in_words(&error),
            format!("correct it; {EXAMPLE} shows every setting"),
        )
    })?;
    Ok(Merged {
        file,
        places,
        warnings,
    })
}

fn read(path: Option<&Path>) -> Result<(String, PathBuf, String), ConfigError> {
    let explicit = path.is_some();
    let path = path.unwrap_or(Path::new(Config::FILE));
    let name = path.display().to_string();
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, directory, text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => {
            Ok((name, directory, String::new()))
        }
        Err(error) => Err(ConfigError::new(
            name,
            format!("cannot be read: {error}"),
            format!("check --config (or NECTAR_CONFIG), or start from {EXAMPLE}"),
        )),
    }
}

fn in_file(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let place = match error.span() {
        Some(span) => format!("{name}:{}", line_of(text, span.start)),
        None => name.to_owned(),
    };
    let problem = in_words(error);
    ConfigError::new(place, &problem, remedy(&problem))
}

/// What serde says, with the form of the value instead of the type that holds it.
fn in_words(error: &toml::de::Error) -> String {
    let problem = error.message().lines().collect::<Vec<_>>().join(", ");
    let Some((found, expected)) = problem.rsplit_once("expected ") else {
        return problem;
    };
    let form = match expected {
        // Nothing but ports is as small.
        "u16" => "a port, which is a number from 0 to 65535",
        "u64" | "usize" => "a whole number that is not negative",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text between quotation marks",
        "a sequence" => "a list in brackets",
        _ => return problem,
    };
    format!("{found}expected {form}")
}

/// Serde quotes what it found and what it expected in backticks.
fn remedy(problem: &str) -> String {
    let mut quoted = problem.split('`').skip(1).step_by(2);
    if problem.starts_with("unknown field")
        && let Some(found) = quoted.next()
    {
        let known: Vec<_> = quoted.collect();
        return match nearest(found, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("remove it; known here are {}", known.join(", ")),
        };
    }
    if problem.starts_with("missing field")
        && let Some(missing) = quoted.next()
    {
        return format!("add `{missing} = …` to this section");
    }
    if problem.starts_with("duplicate key") {
        return "keep one of the two".into();
    }
    if problem.starts_with("invalid ") {
        return "write it in that form".into();
    }
    format!("correct it; {EXAMPLE} shows every setting")
}

pub(super) fn known() -> impl Iterator<Item = String> {
    let limits = LimitsSection::NAMES
        .iter()
        .map(|name| format!("limits.{name}"));
    SETTINGS.iter().map(|path| (*path).to_owned()).chain(limits)
}

fn variable(path: &str) -> String {
    format!("NECTAR_{}", path.replace('.', "_").to_uppercase())
}

fn from_environment(
    environment: &[(OsString, OsString)],
    warnings: &mut Vec<String>,
) -> Result<Vec<Override>, ConfigError> {
    let settings: BTreeMap<String, String> = known().map(|path| (variable(&path), path)).collect();
    let mut overrides = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with("NECTAR_")) else {
            continue;
        };
        if let Some(path) = settings.get(name) {
            let value = value
                .to_str()
                .ok_or_else(|| ConfigError::new(name, "not valid UTF-8", "set it to text"))?;
            overrides.push(Override {
                place: name.into(),
                path: path.clone(),
                value: value.into(),
            });
        } else if !OTHER_VARIABLES.contains(&name) {
            let known = settings
                .keys()
                .map(String::as_str)
                .chain(OTHER_VARIABLES.iter().copied());
            let hint = nearest(name, known)
                .map(|meant| format!("; did you mean {meant}?"))
                .unwrap_or_default();
            warnings.push(format!("{name} is not a setting and is ignored{hint}"));
        }
    }
    Ok(overrides)
}

fn apply(table: &mut toml::Table, over: &Override) -> Result<(), ConfigError> {
    let paths: Vec<String> = known().collect();
    let Some((section, key)) = over
        .path
        .split_once('.')
        .filter(|_| paths.contains(&over.path))
    else {
        let hint = match nearest(&over.path, paths.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "settings are written section.key, as in listen.port".into(),
        };
        return Err(ConfigError::new(
            &over.place,
            format!("there is no setting {}", over.path),
            hint,
        ));
    };
    let value = typed(section, key, &over.value).map_err(|problem| {
        ConfigError::new(
            &over.place,
            format!("{:?}: {problem}", over.value),
            remedy(&problem),
        )
    })?;
    let section = table
        .entry(section)
        .or_insert_with(|| Value::Table(toml::Table::new()));
    if let Some(section) = section.as_table_mut() {
        section.insert(key.into(), value);
    }
    Ok(())
}

/// The value as TOML (`8080`, `true`, `["a.nectar"]`) if the setting takes it so, else as a bare string.
fn typed(section: &str, key: &str, text: &str) -> Result<Value, String> {
    let accepts = |value: &Value| -> Result<(), String> {
        // A faucet is complete or absent, so its settings cannot be tried one by one.
        if section == "faucet" {
            return if value.is_str() {
                Ok(())
            } else {
                Err("a string is expected".into())
            };
        }
        let inner = toml::Table::from_iter([(key.to_owned(), value.clone())]);
        let outer = toml::Table::from_iter([(section.to_owned(), Value::Table(inner))]);
        outer
            .try_into::<File>()
            .map(drop)
            .map_err(|error| in_words(&error))
    };
    let bare = Value::String(text.to_owned());
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut doc| doc.remove("value"));
    match parsed {
        Some(value) => accepts(&value)
            .map(|()| value)
            .or_else(|problem| accepts(&bare).map(|()| bare).map_err(|_| problem)),
        None => accepts(&bare).map(|()| bare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_a_variable_can_set_exists_in_the_file() {
        for path in known().filter(|path| !path.starts_with("faucet.")) {
            let (section, key) = path.split_once('.').expect("sections");
            let samples = ["7", "\"30s\"", "true", "\"::1\"", "\"any\"", "[\"a.b\"]"];
            let problems: Vec<_> = samples
                .iter()
                .filter_map(|text| typed(section, key, text).err())
                .collect();
            assert!(problems.len() < samples.len(), "{path}: {problems:?}");
        }
    }
}
