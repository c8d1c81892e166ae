//! `nectar.toml`, and what flags and `NECTAR_*` variables put over it.
//!
//! Three layers, the later over the earlier: the file, the environment (`NECTAR_LISTEN_PORT` is `listen.port`), flags.
//! Every error names the place that said it (file and line, variable, flag) and what to do. Unknown keys are errors;
//! unknown variables are warnings, because an environment belongs to more programs than this one.

mod check;
mod error;
mod file;
mod layers;
mod limits;
mod listen;
mod names;
mod units;

use node_core::{
    Label, Limits, Name,
    channel::Identity,
    node::{Access, NodeConfig, RouterPolicy},
    registry::{NameParseError, Record, RegistryConfig},
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use check::{check_rpc, parse_address};
pub use error::ConfigError;
pub(crate) use layers::EXAMPLE;
pub use layers::{Override, Sources};
pub(crate) use units::parse_time;

/// Everything an operator decides, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// Where it listens; `None` for an indirect node.
    pub listen: Option<Listen>,
    /// Registries whose names it knows, at least one if it has a name.
    pub registries: Vec<RegistryConfig>,
    /// A hosts file for names: these need no chain.
    pub pinned: Vec<(Name, Record)>,
    /// What it does for others when it is direct; nothing without `[listen]`.
    pub router: RouterPolicy,
    /// Bounds of the core.
    pub limits: Limits,
    /// Gives test money away; refused on chains other than development ones.
    pub faucet: Option<Faucet>,
    /// What it offers to those who open its page.
    pub offer: Offer,
    /// What is odd, but no error.
    pub warnings: Vec<String>,
}

/// Who a node is.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name; `None` for a guest.
    pub name: Option<Name>,
    /// Its networking key.
    pub key_file: PathBuf,
    /// Who is banned: beside the key unless set.
    pub ban_file: PathBuf,
    /// Shown to peers, at most 64 bytes.
    pub user_agent: String,
    /// Which named peers may talk to it.
    pub allow: Access,
    /// Whether guests may.
    pub guests: bool,
    /// Whether addresses of private networks, of this machine and of its neighbours may be dialled. Off: the chain is hostile
    /// input.
    pub allow_private: bool,
}

/// The accepting side.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Certificate chain and key; `None` for plain `ws` and `http`.
    pub tls: Option<TlsFiles>,
    /// Directory of the page.
    pub page: Option<PathBuf>,
    /// Under which host and port others reach it, if that is not `address`.
    pub public: Option<(String, u16)>,
    /// Pages of which other origins may open WebSockets.
    pub origins: Allow<String>,
    /// Where the page may connect to beside its own origin and the RPCs.
    pub page_connect: Allow<String>,
    /// Connections in all.
    pub connections: usize,
    /// Connections from one IPv4 address or one IPv6 /64.
    pub connections_per_address: usize,
    /// TLS handshakes per second from one of those; twice as many at once. 50; worst case times about 1 ms of computing.
    pub tls_handshakes_per_address: u32,
    /// Connections and requests per second from one of those; five times as many at once. 100; worst case times about 0.1 ms of
    /// computing.
    pub requests_per_address: u32,
    /// Time for the head of a request, and for the TLS handshake before it.
    pub header_timeout: Duration,
    /// Largest head of a request, in bytes.
    pub header_bytes: usize,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Everybody, or those on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow<T> {
    /// No restriction.
    Anyone,
    /// These, and nobody if it is empty.
    Only(Vec<T>),
}

impl<T: PartialEq> Allow<T> {
    /// Whether `who` is allowed.
    pub fn allows(&self, who: &T) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(list) => list.contains(who),
        }
    }
}

/// Gives test money to whoever asks, on development chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faucet {
    /// The registry whose chain it pays on.
    pub tld: String,
    /// The wallet that pays.
    pub wallet_file: PathBuf,
    /// Wei per request.
    pub amount: u128,
}

/// What a page is told to propose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Routers to choose from. Only those that are enlisted onchain can be chosen.
    pub routers: Vec<Name>,
    /// Somebody to talk to who answers: a node that serves `echo.1`.
    pub echo: Option<Name>,
}

impl Config {
    /// Default name of the file, in the working directory.
    pub const FILE: &str = "nectar.toml";

    /// Reads and checks all layers.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        check::check(layers::merge(sources)?)
    }

    /// What the core is told: everything here that concerns it.
    pub fn node_config(&self, identity: Identity) -> NodeConfig {
        NodeConfig {
            direct: self.listen.is_some(),
            registries: self.registries.clone(),
            pinned: self.pinned.clone(),
            allow: self.node.allow.clone(),
            guests: self.node.guests,
            router: self.router.clone(),
            user_agent: self.node.user_agent.clone(),
            limits: self.limits.clone(),
            ..NodeConfig::new(identity)
        }
    }

    /// The name that `text` means, such as `alice.nectar`.
    pub fn parse_name(&self, text: &str) -> Result<Name, NameParseError> {
        parse_name(text, &self.registries)
    }

    /// How people write `name`; with its registry spelled out if that is not configured.
    pub fn display_name(&self, name: &Name) -> String {
        match self
            .registries
            .iter()
            .find(|registry| registry.id == name.registry)
        {
            Some(registry) => format!("{}.{}", name.label, registry.tld),
            None => name.to_string(),
        }
    }

    /// The registry that issued names ending in `tld`.
    pub fn registry(&self, tld: &str) -> Option<&RegistryConfig> {
        self.registries
            .iter()
            .find(|registry| &*registry.tld == tld)
    }

    /// Endings of all registries, for messages.
    pub fn tlds(&self) -> BTreeSet<&str> {
        self.registries
            .iter()
            .map(|registry| &*registry.tld)
            .collect()
    }
}

/// The name that `text` means among `registries`.
pub fn parse_name(text: &str, registries: &[RegistryConfig]) -> Result<Name, NameParseError> {
    // Labels hold no dots, endings may.
    let Some((label, tld)) = text.split_once('.') else {
        return Err(NameParseError::NoTld(
            registries
                .first()
                .map_or("nectar", |registry| &registry.tld)
                .into(),
        ));
    };
    // The ending first: a stranger's name need not keep our rules.
    let registry = registries
        .iter()
        .find(|registry| &*registry.tld == tld)
        .ok_or_else(|| {
            NameParseError::TldUnknown(tld.chars().filter(|c| !c.is_control()).take(64).collect())
        })?;
    Ok(Name {
        registry: registry.id,
        label: Label::new(label)?,
    })
}

/// A path as its file meant it: relative to the file's directory.
fn relative_to(base: Option<&Path>, path: PathBuf) -> PathBuf {
    match base {
        Some(base) if path.is_relative() => base.join(path),
        _ => path,
    }
}

#[cfg(test)]
mod tests;
