//! What a node starts with.

use super::{IncomingMessage, IncomingRequest, IncomingStream, service::Services, signer::Signer};
use crate::{
    bans::BanFile,
    config::{self, Listen},
    http::Site,
};
use node_core::{
    Limits, Name,
    channel::Identity,
    node::{Access, NodeConfig as CoreConfig, RouterPolicy},
    registry::{Record, RegistryConfig},
    wire::frame::Response,
};
use rustls::ClientConfig;
use std::{net::SocketAddr, sync::Arc};

/// Everything that [`Node::start`](super::Node::start) needs to know.
///
/// ```no_run
/// # use node_native::node::NodeConfig;
/// # fn example(key: ed25519_dalek::SigningKey, me: node_core::Name, record: node_core::registry::Record) {
/// let config = NodeConfig::named(me.clone(), key)
///     .pin(me, record)
///     .listen(([0, 0, 0, 0], 9444).into());
/// # }
/// ```
pub struct NodeConfig {
    pub(super) core: CoreConfig,
    pub(super) signer: Box<dyn Signer>,
    pub(super) listen: Option<Listen>,
    pub(super) site: Site,
    pub(super) allow_private: bool,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) events: usize,
    pub(super) bans: Option<BanFile>,
    pub(super) services: Arc<Services>,
}

impl NodeConfig {
    /// The node of a registered name, with the key that stands in its record.
    pub fn named(name: Name, signer: impl Signer) -> Self {
        Self::new(Some(name), signer.prepared())
    }

    /// A guest: it can call whoever serves guests, and cannot be called. Each of its connections has a key of its own.
    pub fn guest() -> Self {
        Self::new(None, Box::new(Nobody))
    }

    fn new(name: Option<Name>, signer: Box<dyn Signer>) -> Self {
        let key = signer.public_key();
        Self {
            core: CoreConfig::new(Identity { name, key }),
            signer,
            listen: None,
            site: Site::default(),
            allow_private: false,
            tls: None,
            events: 1024,
            bans: None,
            services: Arc::default(),
        }
    }

    /// What an operator wrote in `nectar.toml`, under the name that stands there. The page and what else is served over
    /// HTTP is [`site`](Self::site).
    pub fn from_file(config: &config::Config, signer: impl Signer) -> Self {
        Self::configured(config, config.node.name.clone(), signer.prepared())
    }

    /// What an operator wrote in `nectar.toml`, as a guest.
    pub fn guest_from_file(config: &config::Config) -> Self {
        Self::configured(config, None, Box::new(Nobody))
    }

    fn configured(config: &config::Config, name: Option<Name>, signer: Box<dyn Signer>) -> Self {
        let mut new = Self::new(name, signer);
        new.core = config.node_config(new.core.identity);
        new.allow_private = config.node.allow_private;
        new.listen.clone_from(&config.listen);
        new.bans = new
            .core
            .identity
            .name
            .as_ref()
            .map(|_| BanFile::new(&config.node.ban_file, &config.registries));
        new
    }

    /// It calls others, and is not to be called: no routers of its own are connected.
    #[must_use]
    pub fn calls_only(mut self) -> Self {
        self.listen = None;
        self.bans = None;
        // What listens needs no routers; that nothing does is nobody else's business.
        self.core.direct = true;
        self
    }

    /// A registry whose names are understood. May be repeated.
    #[must_use]
    pub fn registry(mut self, registry: RegistryConfig) -> Self {
        self.core.registries.push(registry);
        self
    }

    /// A record that is believed without a chain. May be repeated.
    #[must_use]
    pub fn pin(mut self, name: Name, record: Record) -> Self {
        self.core.pinned.push((name, record));
        self
    }

    /// Listens here for WebSockets, without TLS: the node is direct. Port 0 takes a free one.
    #[must_use]
    pub fn listen(self, address: SocketAddr) -> Self {
        self.listen_with(Listen::at(address))
    }

    /// Listens as configured: the node is direct.
    #[must_use]
    pub fn listen_with(mut self, listen: Listen) -> Self {
        self.core.direct = true;
        self.listen = Some(listen);
        self
    }

    /// What else the port serves: the page, metrics, a faucet.
    #[must_use]
    pub fn site(mut self, site: Site) -> Self {
        self.site = site;
        self
    }

    /// What it does for others as a router; nothing unless set.
    #[must_use]
    pub fn router(mut self, policy: RouterPolicy) -> Self {
        self.core.router = policy;
        self
    }

    /// Which named peers may talk to it; all unless set.
    #[must_use]
    pub fn allow(mut self, access: Access) -> Self {
        self.core.allow = access;
        self
    }

    /// Whether guests may talk to it; not unless set.
    #[must_use]
    pub fn allow_guests(mut self, allow: bool) -> Self {
        self.core.guests = allow;
        self
    }

    /// Whether addresses of private networks and of this machine may be dialled; not unless set, because records come
    /// from strangers.
    #[must_use]
    pub fn allow_private(mut self, allow: bool) -> Self {
        self.allow_private = allow;
        self
    }

    /// Whom to believe when a node is dialled over TLS, instead of this system's certificate authorities.
    #[must_use]
    pub fn tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Bounds.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.core.limits = limits;
        self
    }

    /// Keeps bans in a file, so that they survive a restart and an operator can change them; with the node only unless set.
    #[must_use]
    pub fn bans(mut self, file: BanFile) -> Self {
        self.bans = Some(file);
        self
    }

    /// Everything that the core can be told, for what has no method here. Identity and whether it listens are not
    /// taken from it.
    #[must_use]
    pub fn with_core(mut self, change: impl FnOnce(&mut CoreConfig)) -> Self {
        let (identity, direct) = (self.core.identity.clone(), self.core.direct);
        change(&mut self.core);
        self.core.identity = identity;
        self.core.direct = direct;
        self
    }

    /// [`Node::serve`](super::Node::serve), in place before the first peer comes.
    #[must_use]
    pub fn serve<F, R>(self, protocol: &str, handler: F) -> Self
    where
        F: Fn(IncomingRequest) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.services.serve(protocol, handler);
        self
    }

    /// [`Node::on_message`](super::Node::on_message), in place before the first peer comes.
    #[must_use]
    pub fn on_message<F, R>(self, protocol: &str, handler: F) -> Self
    where
        F: Fn(IncomingMessage) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.services.on_message(protocol, handler);
        self
    }

    /// [`Node::serve_stream`](super::Node::serve_stream), in place before the first peer comes.
    #[must_use]
    pub fn serve_stream<F, R>(self, protocol: &str, handler: F) -> Self
    where
        F: Fn(IncomingStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.services.serve_stream(protocol, handler);
        self
    }
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("core", &self.core)
            .field("listen", &self.listen)
            .field("allow_private", &self.allow_private)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// The signer of a guest, which is never asked.
struct Nobody;

impl Signer for Nobody {
    fn public_key(&self) -> [u8; 32] {
        [0; 32]
    }

    fn sign(&self, _: &node_core::channel::SignRequest) -> super::Signing {
        super::Signing::Refused
    }
}
