//! The sections of `nectar.toml` as they are written; what they mean is checked one step later.

use super::units::{Size, Time};
use serde::Deserialize;
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) node: NodeSection,
    pub(super) listen: Option<ListenSection>,
    pub(super) registry: Vec<RegistrySection>,
    pub(super) pin: Vec<PinSection>,
    pub(super) router: RouterSection,
    pub(super) limits: super::limits::LimitsSection,
    pub(super) faucet: Option<FaucetSection>,
    pub(super) offer: OfferSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NodeSection {
    pub(super) name: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) ban_file: Option<PathBuf>,
    pub(super) user_agent: Option<String>,
    pub(super) allow: Option<AnyOr>,
    pub(super) guests: bool,
    pub(super) allow_private: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenSection {
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) page: Option<PathBuf>,
    pub(super) public_host: Option<String>,
    pub(super) public_port: Option<u16>,
    pub(super) origins: Option<AnyOr>,
    pub(super) page_connect: Option<AnyOr>,
    pub(super) connections: Option<usize>,
    pub(super) connections_per_address: Option<usize>,
    pub(super) tls_handshakes_per_address: Option<u32>,
    pub(super) requests_per_address: Option<u32>,
    pub(super) header_timeout: Option<Time>,
    pub(super) header_bytes: Option<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistrySection {
    pub(super) tld: String,
    pub(super) chain_id: u64,
    pub(super) contract: String,
    #[serde(default)]
    pub(super) rpcs: Vec<String>,
    pub(super) quorum: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PinSection {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) schemes: Option<Vec<String>>,
    #[serde(default)]
    pub(super) routers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RouterSection {
    pub(super) host: Option<AnyOr>,
    pub(super) call: Option<AnyOr>,
    pub(super) guests: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OfferSection {
    pub(super) routers: Option<Vec<String>>,
    pub(super) echo: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaucetSection {
    pub(super) tld: String,
    pub(super) wallet_file: PathBuf,
    pub(super) amount: Option<String>,
}

/// A word such as `"anyone"` or `"any"`, or a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a word such as \"any\" or \"anyone\", or a list of strings"
)]
pub(super) enum AnyOr {
    Word(String),
    List(Vec<String>),
}

/// On which line of a file each setting stands, by path: `listen.port`, `registry[0].contract`.
pub(super) fn lines(text: &str) -> BTreeMap<String, usize> {
    use toml::de::{DeTable, DeValue};
    fn walk(
        table: &DeTable<'_>,
        prefix: &str,
        line: &impl Fn(usize) -> usize,
        out: &mut BTreeMap<String, usize>,
    ) {
        for (key, value) in table {
            let path = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            out.insert(path.clone(), line(key.span().start));
            match value.get_ref() {
                DeValue::Table(inner) => walk(inner, &path, line, out),
                DeValue::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let path = format!("{path}[{index}]");
                        out.insert(path.clone(), line(item.span().start));
                        if let DeValue::Table(inner) = item.get_ref() {
                            walk(inner, &path, line, out);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    let mut out = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        walk(
            table.get_ref(),
            "",
            &|offset| line_of(text, offset),
            &mut out,
        );
    }
    out
}

/// The line, from 1, of a byte offset.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}
