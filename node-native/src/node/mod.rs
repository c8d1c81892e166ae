//! A node for applications.
//!
//! ```no_run
//! use node_native::node::{Node, NodeConfig, Request, Response};
//!
//! # async fn example(me: node_core::Name, key: ed25519_dalek::SigningKey) -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::start(NodeConfig::named(me, key).serve("echo.1", |request| async move {
//!     Response::Success(Some(request.payload))
//! }))
//! .await?;
//!
//! let bob = node.parse_name("bob.nectar")?;
//! let answer = node.request(&bob, Request::new("echo.1", "hello")).await?;
//! println!("{answer:?}");
//! node.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is addressed by name. Where a peer is, whether routers carry the bytes, and what happens when one of them
//! fails is the node's business; an application sees [`Offline`](Code::Offline) or [`Timeout`](Code::Timeout), with the
//! reason beneath.

mod bans;
mod config;
mod driver;
mod news;
mod report;
mod service;
mod signer;
mod socket;
mod stream;
mod token;

use crate::{
    bans::BansError,
    dial::Dialer,
    http::{BindError, Server},
    rpc::{self, ClientError},
    tls::TlsError,
};
use bans::Bans;
use bytes::Bytes;
use driver::{Counted, Outside, Shared};
use futures_util::FutureExt;
use news::Listener;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use token::{Operation, Token, Waiter};
use tokio::task::AbortHandle;

pub use config::NodeConfig;
pub use driver::FETCHES;
pub use node_core::{
    Code, Name,
    node::{
        Access, Ban, ConfigError, Counts, Event, Failure as NodeError, PeerInfo, PeerState, Route,
        RouterPolicy, Subject,
    },
    registry::{EndpointHealth, NameParseError, ResolveError, Resolved},
    session::{Request, StreamError},
    wire::frame::Response,
};
pub use service::{IncomingMessage, IncomingRequest, IncomingStream};
pub use signer::{Signer, Signing};
pub use stream::{Stream, StreamReader, StreamWriter};

/// Time for saying goodbye in [`Node::close`].
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Certificate authorities cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Bans cannot be read or written.
    #[error(transparent)]
    Bans(#[from] BansError),
    /// No way to RPC endpoints.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Entropy(getrandom::Error),
}

/// A running node. Clones are handles to the same node, and the last one that is dropped ends it at once;
/// [`close`](Self::close) ends it with a word to its peers.
///
/// A handler that owns a handle keeps the node running until `close`.
#[derive(Clone, Debug)]
pub struct Node {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    /// Where it listens, and the task that does.
    server: Option<(SocketAddr, Option<AbortHandle>)>,
    /// News since the beginning, for whoever asks first.
    first: Mutex<Option<Listener>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abort();
    }
}

impl Node {
    /// Binds the port if it has one, and begins: an indirect node connects to its routers. Needs a tokio runtime.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let NodeConfig {
            core,
            signer,
            listen,
            mut site,
            allow_private,
            tls,
            events,
            bans,
            services,
        } = config;
        let dialer = match tls {
            Some(tls) => Dialer::with_tls(tls, allow_private),
            None => Dialer::new(allow_private)?,
        };
        if signer.has_computed_key() {
            core.signer.know();
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(StartError::Entropy)?;
        let core = node_core::node::Node::new(core, seed)?;
        let outside = Outside {
            signer,
            dialer,
            http: rpc::http_client()?,
            bans: bans.map(Bans::new),
        };
        let counted = Counted::new(&site.metrics);
        let shared = Shared::new(core, services, outside, events, counted);
        // Before anybody comes.
        if let Some(bans) = &shared.bans {
            bans.heed(&shared)?;
        }
        let mut listening = None;
        if let Some(listen) = listen {
            report::observe(&mut site, &Arc::downgrade(&shared));
            let server = Server::bind(listen, site).await?;
            let address = server.local_addr();
            // Connections outlive the server; they must not keep the node.
            let accepting = Arc::downgrade(&shared);
            let task = shared.try_spawn(server.serve(
                move |accepted| {
                    if let Some(shared) = accepting.upgrade() {
                        shared.accept(accepted);
                    }
                },
                std::future::pending(),
            ));
            listening = Some((address, task.ok()));
        }
        let first = shared.news.listen();
        shared.start();
        Ok(Self {
            handle: Arc::new(Handle {
                shared,
                server: listening,
                first: Mutex::new(Some(first)),
            }),
        })
    }

    // Who and how.

    /// Its name; `None` for a guest.
    pub fn name(&self) -> Option<&Name> {
        self.core().config().identity.name.as_ref()
    }

    /// Where it listens; `None` for an indirect node.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.handle.server.as_ref().map(|(address, _)| *address)
    }

    /// Reads a name as people write it: `alice.nectar`.
    pub fn parse_name(&self, text: &str) -> Result<Name, NameParseError> {
        self.core().parse_name(text)
    }

    /// Writes a name as people read it.
    pub fn display_name(&self, name: &Name) -> String {
        self.core().display_name(name)
    }

    /// Writes a name or a network as people read it.
    pub fn display_subject(&self, subject: &Subject) -> String {
        crate::bans::shown(subject, &self.core().config().registries)
    }

    /// The RPC endpoints, and how each fared.
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        self.core().endpoints()
    }

    /// Whether others can reach it: it is direct, or one of its routers is connected.
    pub fn is_reachable(&self) -> bool {
        self.core().is_reachable()
    }

    /// All peers that are connected or wanted.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.core().peers(self.shared().clock.now().mono)
    }

    /// Counts for status pages.
    pub fn counts(&self) -> Counts {
        self.core().counts()
    }

    /// What `nectar status` and `/status` show.
    pub fn status(&self) -> serde_json::Value {
        report::status(self.shared())
    }

    /// News: for whoever asks first since the node began, for others from now on.
    pub fn events(&self) -> Events {
        let first = driver::lock(&self.handle.first).take();
        first.map_or_else(|| self.events_from_now(), Events)
    }

    /// Bans that have not ended.
    pub fn bans(&self) -> Vec<Ban> {
        self.core().bans(self.shared().clock.now())
    }

    /// Bans somebody, or gives a ban another end. A name's sessions end.
    pub fn ban(&self, ban: Ban) {
        let mut out = Vec::new();
        self.core().ban(ban, self.shared().clock.now(), &mut out);
        self.shared().carry_out(&mut out);
    }

    /// Lifts a ban before its end. False if there was none.
    pub fn lift(&self, subject: &Subject) -> bool {
        let mut out = Vec::new();
        let now = self.shared().clock.now();
        let lifted = self.core().lift(subject, now, &mut out);
        self.shared().carry_out(&mut out);
        lifted
    }

    // Asking others.

    /// Asks a peer and waits for its answer, for as long as [`Limits::request_deadline`](node_core::Limits) says.
    /// Dropping the future cancels the request; its handler is told.
    ///
    /// Fails with [`Code::Offline`] or [`Code::Timeout`] and the reason beneath; with [`Code::OutcomeUnknown`] when
    /// the peer may have handled it.
    pub async fn request(&self, to: &Name, request: Request) -> Result<Response, NodeError> {
        self.ask(to, request, None).await
    }

    /// [`request`](Self::request) with a deadline of its own.
    pub async fn request_within(
        &self,
        to: &Name,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, NodeError> {
        self.ask(to, request, Some(timeout)).await
    }

    /// Sends a peer a message and waits until its application has taken it.
    pub async fn message(
        &self,
        to: &Name,
        protocol: &str,
        payload: impl Into<Bytes>,
    ) -> Result<(), NodeError> {
        let payload = payload.into();
        Operation::begin(self.shared(), Some(to), Waiter::Done, |token, now, out| {
            self.core().message(token, to, protocol, payload, now, out);
        })
        .await?
    }

    /// Opens a stream to a peer. `metadata`, at most 16 KiB, comes with it.
    pub async fn open_stream(
        &self,
        to: &Name,
        protocol: &str,
        metadata: impl Into<Bytes>,
    ) -> Result<Stream, NodeError> {
        let metadata = metadata.into();
        let opened = Operation::begin(
            self.shared(),
            Some(to),
            Waiter::Stream,
            |token, now, out| {
                self.core()
                    .open_stream(token, to, protocol, metadata, now, out);
            },
        );
        Ok(Stream::new(Some(opened.await??)))
    }

    /// Makes sure that there is a session with a peer.
    pub async fn connect(&self, to: &Name) -> Result<(), NodeError> {
        self.connect_within(to, self.core().config().limits.request_deadline)
            .await
    }

    /// [`connect`](Self::connect) with a deadline of its own.
    pub async fn connect_within(&self, to: &Name, timeout: Duration) -> Result<(), NodeError> {
        Operation::begin(self.shared(), Some(to), Waiter::Done, |token, now, out| {
            self.core().connect(token, to, timeout, now, out);
        })
        .await?
    }

    /// Measures one round trip to a peer, after connecting if need be.
    pub async fn ping(&self, to: &Name) -> Result<Duration, NodeError> {
        self.connect(to).await?;
        let mut events = self.events_from_now();
        if !self.core().ping(to, self.shared().clock.now()) {
            return Err(NodeError::offline(Code::PipeLost));
        }
        let answered = async {
            while let Some(event) = events.next().await {
                match event {
                    Event::Latency { name, round_trip } if name == *to => return Ok(round_trip),
                    Event::Peer {
                        name,
                        state: PeerState::Offline { reason, .. },
                        ..
                    } if name == *to => return Err(NodeError::offline(reason)),
                    _ => {}
                }
            }
            Err(NodeError::new(Code::NodeClosed))
        };
        let deadline = self.core().config().limits.request_deadline;
        tokio::time::timeout(deadline, answered)
            .await
            .unwrap_or(Err(NodeError::new(Code::Timeout)))
    }

    /// Looks a name up. `fresh` asks the chain whatever the cache says.
    pub async fn resolve(&self, name: &Name, fresh: bool) -> Result<Resolved, ResolveError> {
        let closed = |error: NodeError| ResolveError {
            code: error.code,
            retry: None,
            detail: None,
        };
        Operation::begin(self.shared(), None, Waiter::Record, |token, now, out| {
            self.core().resolve(token, name, fresh, now, out);
        })
        .await
        .map_err(closed)?
    }

    /// Keeps a session with a peer up, through failures, until told otherwise.
    pub fn keep(&self, to: &Name, keep: bool) {
        let mut out = Vec::new();
        self.core()
            .keep(to, keep, None, self.shared().clock.now(), &mut out);
        self.shared().carry_out(&mut out);
    }

    // Serving others.

    /// Answers requests of `protocol` from now on. A handler is called on the connection's task and should `await`
    /// rather than compute for long; one whose requester gives up is dropped. A panic answers with
    /// [`Code::HandlerFailed`], and a protocol that nobody serves with [`Code::NoHandler`].
    pub fn serve<F, R>(&self, protocol: &str, handler: F)
    where
        F: Fn(IncomingRequest) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.shared().services.serve(protocol, handler);
    }

    /// Takes messages of `protocol` from now on. A message counts as delivered once the handler's future is done; until
    /// then it occupies the sender's inbox here, which is how a slow application slows senders down. Handlers begin in
    /// the order in which a peer's messages came; those that wait for something run side by side.
    pub fn on_message<F, R>(&self, protocol: &str, handler: F)
    where
        F: Fn(IncomingMessage) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.shared().services.on_message(protocol, handler);
    }

    /// Takes streams of `protocol` from now on.
    pub fn serve_stream<F, R>(&self, protocol: &str, handler: F)
    where
        F: Fn(IncomingStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.shared().services.serve_stream(protocol, handler);
    }

    // The end.

    /// Tells all peers, lets what is queued leave, then ends. Whatever still waits fails with [`Code::NodeClosed`].
    pub async fn close(&self) {
        if let Some((_, Some(server))) = &self.handle.server {
            server.abort();
        }
        self.shared().shut_down(PATIENCE).await;
    }

    async fn ask(
        &self,
        to: &Name,
        request: Request,
        timeout: Option<Duration>,
    ) -> Result<Response, NodeError> {
        Operation::begin(
            self.shared(),
            Some(to),
            Waiter::Response,
            |token, now, out| {
                self.core().request(token, to, request, timeout, now, out);
            },
        )
        .await?
    }

    fn events_from_now(&self) -> Events {
        Events(self.shared().news.listen())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn core(&self) -> &node_core::node::Node<Token> {
        &self.handle.shared.node
    }
}

/// News about peers and about the node itself.
#[derive(Debug)]
pub struct Events(Listener);

impl Events {
    /// The next one; `None` once the node has ended. Who is more than 1,024 events behind misses the oldest.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await
    }

    /// The next one, if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.next().now_or_never().flatten()
    }
}
