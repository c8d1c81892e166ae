//! The accepting side: one port for WebSockets, the page, and what operators look at.
//!
//! ```text
//!  /nectar                    WebSocket upgrade, subprotocol nectar.1  ──▶ the node
//!  /                          the page, from memory
//!  /.well-known/nectar.json   registries, RPCs, routers, the page's hash
//!  /healthz                   200 while the node runs
//!  /metrics /status           from this machine only, and not from a web page
//!  /faucet                    test money on development chains, where configured
//! ```
//!
//! A connection is counted from accept to its end, also after it became a WebSocket: whoever takes an [`Accepted`]
//! keeps its [`Slot`] as long as the socket. One beyond the budgets is answered 503, whatever it asks, or closed without a
//! word where too many are being answered so: to read a request, under TLS after a handshake, is what budgets are to save. So
//! is one whose address begins too many TLS handshakes, or asks too much: each connection counts, and each request after its
//! first.

mod pace;
mod page;
mod site;
mod slots;
mod upgrade;

use crate::{
    config::Listen,
    metrics::{Counter, Gauge},
    resolve::Clock,
    stream::{Socket, Stream},
    tls::{ServerTls, TlsError},
};
use bytes::Bytes;
use hyper::{
    Request,
    body::Incoming,
    header::{self, HeaderValue},
    http::StatusCode,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pace::Pace;
use slots::Slots;
use std::{
    cell::Cell,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

pub use page::{Page, PageError};
pub use site::{FaucetFn, PublicPage, PublicRegistry, PublicRouter, Site, StatusFn, WellKnown};
pub use slots::Slot;

/// Longest life of a connection that never becomes a WebSocket: enough for the page over a slow line.
const PAGE_LIFETIME: Duration = Duration::from_secs(600);
/// Requests that one connection makes. 100: a page has some tens of files. Whoever has more to ask comes again, and is counted.
/// Worst case: so many answers of a few hundred bytes, or files of the page, one after the other.
const REQUESTS: usize = 100;
/// Time that a connection has to take something of its answers. 30 s; worst case: whoever takes a byte each time keeps its place
/// for [`PAGE_LIFETIME`].
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections beyond the budgets that are told when to come back, at once; more are closed without a word.
pub const EXCUSES: usize = 16;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How often certificate files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Time after which the log says again that accepting fails.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something else has the port.
    #[error(
        "{0} is in use by another program: stop that program, or set listen.port (--port) to a free one"
    )]
    InUse(SocketAddr),
    /// Ports below 1024 need rights that we lack.
    #[error(
        "{0} may not be used by this user: choose a port from 1024, or grant the right to bind it"
    )]
    Denied(SocketAddr),
    /// The machine has no such address.
    #[error("{0} is no address of this machine: set listen.address to one, or to 0.0.0.0 for all")]
    NoSuchAddress(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A WebSocket that somebody opened to us.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, its upgrade done.
    pub socket: Socket,
    /// Message 1 of the handshake, if it rode in the upgrade.
    pub first: Option<Bytes>,
    /// Who is at the other end of the TCP connection.
    pub peer: SocketAddr,
    /// Whether a page opened it that this node did not serve.
    pub foreign: bool,
    /// Its place among the connections, free again when this is dropped.
    pub slot: Slot,
}

/// A bound port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    context: Arc<Context>,
    slots: Arc<Slots>,
    pace: Pace,
    excuses: Arc<Semaphore>,
}

/// What every connection needs.
struct Context {
    site: site::Prepared,
    listen: Listen,
    requests: Pace,
    clock: Clock,
    accepted: Arc<Counter>,
    refused: Arc<Counter>,
    open: Arc<Gauge>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Whether an address has not asked too much.
    fn may_ask(&self, peer: SocketAddr) -> bool {
        self.requests.take(peer.ip(), self.clock.now().mono)
    }
}

impl Server {
    /// Binds the port and reads the certificate.
    pub async fn bind(listen: Listen, site: Site) -> Result<Self, BindError> {
        let tls = listen
            .tls
            .as_ref()
            .map(ServerTls::load)
            .transpose()?
            .map(Arc::new);
        let listener = bind(listen.address).await?;
        let address = listener.local_addr().map_err(|source| BindError::Io {
            address: listen.address,
            source,
        })?;
        let metrics = site.metrics.clone();
        let context = Arc::new(Context {
            site: site::Prepared::new(site, &listen),
            accepted: metrics.counter("nectar_http_accepted_total", "TCP connections accepted."),
            refused: metrics.counter(
                "nectar_http_refused_total",
                "TCP connections beyond a budget or a rate, answered 503 or closed at once.",
            ),
            open: metrics.gauge(
                "nectar_http_connections",
                "Connections open, WebSockets included.",
            ),
            requests: Pace::new(listen.requests_per_address, pace::REQUESTS),
            clock: Clock::new(),
            listen,
        });
        let slots = Slots::new(
            context.listen.connections,
            context.listen.connections_per_address,
        );
        let pace = Pace::new(context.listen.tls_handshakes_per_address, pace::HANDSHAKES);
        Ok(Self {
            listener,
            address,
            tls,
            context,
            slots,
            pace,
            excuses: Arc::new(Semaphore::new(EXCUSES)),
        })
    }

    /// The address in use, with the port that the system chose if 0 was configured.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections are under TLS.
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Accepts until `shutdown` resolves, and hands every WebSocket to `accept`, which must not block.
    ///
    /// Requests under way when it returns are finished in the background, within their own time limits.
    pub async fn serve(
        self,
        accept: impl Fn(Accepted) + Send + Sync + 'static,
        shutdown: impl Future<Output = ()>,
    ) {
        let accept: Arc<dyn Fn(Accepted) + Send + Sync> = Arc::new(accept);
        let mut reload = tokio::time::interval(RELOAD_INTERVAL);
        tokio::pin!(shutdown);
        let mut said: Option<Instant> = None;
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = reload.tick() => self.reload(),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        self.start(stream, peer, accept.clone());
                        // Those who have a connection are not kept waiting by those who come: it is seen first what they
                        // have sent.
                        tokio::task::yield_now().await;
                    }
                    Err(error) if is_of_the_peer(&error) => {
                        tracing::debug!(%error, "accepting failed");
                    }
                    Err(error) => {
                        // As long as descriptors are out, it fails again and again.
                        if said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
                            said = Some(Instant::now());
                            tracing::warn!(%error, "accepting failed");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn reload(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            Some(Ok(true)) => tracing::info!("the certificate was read again"),
            Some(Err(error)) => tracing::warn!(%error, "the changed certificate is not used"),
            Some(Ok(false)) | None => {}
        }
    }

    fn start(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        accept: Arc<dyn Fn(Accepted) + Send + Sync>,
    ) {
        // One listener serves both families: IPv4 peers come as mapped addresses.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let context = self.context.clone();
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        if acceptor.is_some() && !self.pace.take(peer.ip(), context.clock.now().mono) {
            context.refused.increment();
            tracing::debug!(%peer, "refused: too many TLS handshakes");
            return;
        }
        if !context.may_ask(peer) {
            context.refused.increment();
            tracing::debug!(%peer, "refused: too many requests");
            return;
        }
        let Some(slot) = self.slots.take(peer.ip(), context.open.clone()) else {
            context.refused.increment();
            tracing::debug!(%peer, "refused: too many connections");
            if let Ok(place) = self.excuses.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    if let Some(stream) = begin(stream, peer, acceptor, &context).await {
                        excuse(stream, peer, &context).await;
                    }
                    drop(place);
                });
            }
            return;
        };
        context.accepted.increment();
        tokio::spawn(async move {
            if let Some(stream) = begin(stream, peer, acceptor, &context).await {
                serve_connection(stream, peer, slot, context, accept).await;
            }
        });
    }
}

/// The TLS handshake, where there is one.
async fn begin(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    context: &Context,
) -> Option<Stream> {
    // Delays of up to 40 ms per round trip otherwise.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    let Some(acceptor) = acceptor else {
        return Some(Stream::plain(stream));
    };
    match tokio::time::timeout(context.listen.header_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Stream::tls(stream.into())),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS"),
        Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
    }
    None
}

/// Reads one request and says when to come back.
async fn excuse(stream: Stream, peer: SocketAddr, context: &Context) {
    let service = service_fn(async |_: Request<Incoming>| {
        Ok::<_, std::convert::Infallible>(context.site.busy())
    });
    let connection = http(&context.listen)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(context.listen.header_timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "HTTP"),
        Err(_) => tracing::debug!(%peer, "no request in time"),
    }
}

fn http(listen: &Listen) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(listen.header_timeout)
        .max_headers(HEADERS)
        .max_buf_size(listen.header_bytes)
        .half_close(false);
    builder
}

async fn serve_connection(
    mut stream: Stream,
    peer: SocketAddr,
    slot: Slot,
    context: Arc<Context>,
    accept: Arc<dyn Fn(Accepted) + Send + Sync>,
) {
    let seat = Arc::new(upgrade::Seat::new(peer));
    stream.set_patience(Some(PATIENCE));
    let (all, asked) = ((context.clone(), seat.clone()), Cell::new(0));
    let service = service_fn(move |request| {
        let (context, seat) = all.clone();
        asked.set(asked.get() + 1);
        let (first, last) = (asked.get() == 1, asked.get() >= REQUESTS);
        async move {
            // Requests may wait in the buffer by the hundred: others have their turn after each.
            tokio::task::yield_now().await;
            let enough = !first && !context.may_ask(peer);
            let mut response = match enough {
                true => context.site.busy(),
                false => context.site.answer(request, &context.listen, &seat).await,
            };
            if (enough || last) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http(&context.listen)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    match tokio::time::timeout(PAGE_LIFETIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "HTTP"),
        Err(_) => tracing::debug!(%peer, "cut after ten minutes without becoming a WebSocket"),
    }
    // The task that served the request hands the socket over: one fewer for every connection.
    if let Some((socket, foreign, first)) = seat.socket().await {
        accept(Accepted {
            socket,
            first,
            peer,
            foreign,
            slot,
        });
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = match TcpListener::bind(address).await {
        // A machine without IPv6 can still serve "all addresses".
        Err(error)
            if address.ip().is_unspecified()
                && address.is_ipv6()
                && !matches!(
                    error.kind(),
                    ErrorKind::AddrInUse | ErrorKind::PermissionDenied
                ) =>
        {
            TcpListener::bind(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                address.port(),
            ))
            .await
        }
        bound => bound,
    };
    bound.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => BindError::InUse(address),
        ErrorKind::PermissionDenied => BindError::Denied(address),
        ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
        _ => BindError::Io { address, source },
    })
}

/// Errors of `accept` that concern one connection, after which the next may be accepted at once.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
    )
}
