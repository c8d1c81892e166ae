//! What a node is told at its start.

use crate::{
    Limits, Name,
    channel::{Identity, SignerTrust},
    registry::{Record, RecordError, RegistryConfig, ResolverLimits},
};
use alloc::{string::String, sync::Arc, vec::Vec};

/// Whom something is granted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Any named peer.
    #[default]
    Anyone,
    /// These names only.
    Only(Arc<[Name]>),
    /// Nobody.
    Nobody,
}

impl Access {
    /// Whether `name` is among them.
    pub fn allows(&self, name: &Name) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(names) => names.contains(name),
            Self::Nobody => false,
        }
    }
}

/// What a node does for others as a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterPolicy {
    /// Which of the names that list this node are hosted.
    pub host: Access,
    /// Which named peers may call those that are hosted.
    pub call: Access,
    /// Whether guests may.
    pub guests: bool,
}

impl Default for RouterPolicy {
    /// No router.
    fn default() -> Self {
        Self {
            host: Access::Nobody,
            call: Access::Nobody,
            guests: false,
        }
    }
}

/// Everything a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Who it is.
    pub identity: Identity,
    /// Whether the signer is known to hold its key, or has to show it.
    pub signer: SignerTrust,
    /// Whether its record has an address at which it listens.
    pub direct: bool,
    /// Which registries it knows, and how to read them.
    pub registries: Vec<RegistryConfig>,
    /// Records that are believed without a chain.
    pub pinned: Vec<(Name, Record)>,
    /// Which named peers may talk to it.
    pub allow: Access,
    /// Whether guests may talk to it.
    pub guests: bool,
    /// What it does for others.
    pub router: RouterPolicy,
    /// Whether only `wss` addresses can be dialled: a page that was served over https.
    pub secure_only: bool,
    /// Whether a router is asked not to tell targets who calls; the target learns it from the handshake in any case.
    pub hide_caller: bool,
    /// What it calls itself; what is not printable ASCII, and what goes beyond 64 characters, is left out.
    pub user_agent: String,
    /// Bounds.
    pub limits: Limits,
    /// Bounds of chain reads.
    pub resolver: ResolverLimits,
}

impl NodeConfig {
    /// A node of this identity with defaults: indirect, no router, open to named peers.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            signer: SignerTrust::default(),
            direct: false,
            registries: Vec::new(),
            pinned: Vec::new(),
            allow: Access::Anyone,
            guests: false,
            router: RouterPolicy::default(),
            secure_only: false,
            hide_caller: false,
            user_agent: String::from(concat!("nectar/", env!("CARGO_PKG_VERSION"))),
            limits: Limits::default(),
            resolver: ResolverLimits::default(),
        }
    }
}

/// Why a node does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A pinned record makes no sense.
    #[error("the pinned record of {0}: {1}")]
    Pinned(Name, RecordError),
}
