//! What connects the core to the outside: sockets, one timer, RPC endpoints, the signer, handlers and waiting callers.
//!
//! There is no central task. Whichever task hands the core something carries out what the core wants done next.

use super::{
    NodeError, Token,
    bans::Bans,
    news::News,
    service::Services,
    signer::{Signer, Signing},
    socket::{self, Link},
};
use crate::{
    bans::group,
    dial::{Dialer, Dialled},
    http::Accepted,
    metrics::{Counter, Metrics},
    resolve::Clock,
    rpc,
};
use futures_util::FutureExt;
use node_core::{
    Code, Name,
    node::{Address, Event, Node, Output, Pipe},
    registry::{FetchFailure, FetchId, Routing},
};
use std::{
    collections::HashMap,
    future::poll_fn,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::{AbortHandle, JoinSet},
};
use tokio_tungstenite::tungstenite::protocol::Role;

/// A planned restart asks peers to come back over this time for each of them, twice what a handshake costs one core.
const RETURN_PER_SESSION: Duration = Duration::from_millis(2);

/// The longest that a planned restart asks anybody to stay away.
const RETURN_MAX: Duration = Duration::from_secs(30);

/// Everything that tasks and handles of one node share.
pub(super) struct Shared {
    pub(super) node: Node<Token>,
    pub(super) clock: Clock,
    pub(super) services: Arc<Services>,
    pub(super) news: News,
    pub(super) next_token: AtomicU64,
    pub(super) closing: AtomicBool,
    pub(super) counted: Counted,
    /// Where bans are kept; without, they end with the node.
    pub(super) bans: Option<Bans>,
    signer: Box<dyn Signer>,
    dialer: Dialer,
    http: reqwest::Client,
    /// Places for questions under way, by endpoint.
    fetches: HashMap<Arc<str>, Arc<Semaphore>>,
    links: Mutex<Links>,
    /// Told whenever a socket is gone.
    left: Notify,
    /// `None` once the node has ended.
    tasks: Mutex<Option<JoinSet<()>>>,
}

/// Questions to one endpoint that are under way at once. 16: a connection each, and 160 answers a second where one takes a tenth
/// of that. Worst case: at an endpoint that takes seconds, look-ups of ours and of strangers wait for each other, and fail there
/// when a read may take no longer.
pub const FETCHES: usize = 16;

/// What a node reaches the outside with.
pub(super) struct Outside {
    pub(super) signer: Box<dyn Signer>,
    pub(super) dialer: Dialer,
    pub(super) http: reqwest::Client,
    /// Where bans are kept; without, they end with the node.
    pub(super) bans: Option<Bans>,
}

/// What is counted as it happens.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) turned_away: Arc<Counter>,
    pub(super) misbehaved: Arc<Counter>,
}

impl Counted {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            turned_away: metrics.counter(
                "nectar_turned_away_total",
                "WebSockets closed when they came in, for a budget or a ban.",
            ),
            misbehaved: metrics.counter(
                "nectar_misbehaved_total",
                "Times that a peer was seen to break the protocol.",
            ),
        }
    }
}

/// Sockets, open or being dialled, by the number of their pipe.
type Links = HashMap<u64, (Pipe<Token>, Arc<Link>)>;

impl Shared {
    pub(super) fn new(
        node: Node<Token>,
        services: Arc<Services>,
        outside: Outside,
        events: usize,
        counted: Counted,
    ) -> Arc<Self> {
        let Outside {
            signer,
            dialer,
            http,
            bans,
        } = outside;
        let endpoints = node.config().registries.iter();
        let endpoints = endpoints.flat_map(|registry| &registry.rpcs);
        let places = endpoints.map(|rpc| (Arc::from(&**rpc), Arc::new(Semaphore::new(FETCHES))));
        Arc::new(Self {
            fetches: places.collect(),
            node,
            clock: Clock::new(),
            services,
            news: News::new(events),
            next_token: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            counted,
            bans,
            signer,
            dialer,
            http,
            links: Mutex::default(),
            left: Notify::new(),
            tasks: Mutex::new(Some(JoinSet::new())),
        })
    }

    /// Begins: the timer runs, and an indirect node connects to its routers.
    pub(super) fn start(self: &Arc<Self>) {
        let shared = self.clone();
        self.spawn(async move { keep_time(&shared).await });
        if self.bans.is_some() {
            let shared = self.clone();
            self.spawn(async move {
                if let Some(bans) = &shared.bans {
                    bans.keep(&shared).await;
                }
            });
        }
        let mut out = Vec::new();
        self.node.start(self.clock.now(), &mut out);
        self.carry_out(&mut out);
    }

    /// A WebSocket came in.
    pub(super) fn accept(self: &Arc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            first,
            peer,
            foreign,
            slot,
        } = accepted;
        let (shared, socket) = (self.clone(), Box::new(socket));
        let (group, now) = (group(peer.ip()), self.clock.now());
        let pipe = if foreign {
            self.node.accept_unasked(group, now)
        } else {
            self.node.accept(group, now)
        };
        match pipe {
            Ok(pipe) => {
                self.reseed();
                let link = self.enter(&pipe);
                self.spawn(async move {
                    if let Some(first) = first {
                        let mut out = Vec::new();
                        shared
                            .node
                            .handle_message(&pipe, first, shared.clock.now(), &mut out);
                        shared.carry_out(&mut out);
                    }
                    socket::drive(&shared, socket, Role::Server, &pipe, &link).await;
                    shared.leave(&pipe);
                    drop(slot);
                });
            }
            Err(refusal) => {
                tracing::debug!(%peer, %refusal, "turned away");
                self.counted.turned_away.increment();
                self.spawn(async move {
                    socket::turn_away(&shared, socket, &refusal).await;
                    drop(slot);
                });
            }
        }
    }

    /// Does what the core wants done, and what follows from that. Leaves `out` empty.
    pub(super) fn carry_out(self: &Arc<Self>, out: &mut Vec<Output<Token>>) {
        let mut more = Vec::new();
        while !out.is_empty() {
            for output in out.drain(..) {
                self.carry_out_one(output, &mut more);
            }
            std::mem::swap(out, &mut more);
        }
    }

    fn carry_out_one(self: &Arc<Self>, output: Output<Token>, more: &mut Vec<Output<Token>>) {
        match output {
            Output::Dial { pipe, address } => self.dial(pipe, address),
            Output::Close { pipe, code } => {
                if let Some((_, link)) = self.links().get(&pipe.id()) {
                    link.close(code);
                }
            }
            Output::Fetch { id, url, body } => self.fetch(id, url, body),
            Output::Sign { pipe, request } => match self.signer.sign(&request) {
                Signing::Done(signature) => {
                    self.node
                        .signed(&pipe, Some(signature), self.clock.now(), more);
                }
                Signing::Refused => self.node.signed(&pipe, None, self.clock.now(), more),
                Signing::Pending(signing) => {
                    let shared = self.clone();
                    self.spawn(async move {
                        // A signer that panics has not signed, and the handshake must not wait for it.
                        let signature = AssertUnwindSafe(signing).catch_unwind().await;
                        let signature = signature.unwrap_or(None);
                        let mut out = Vec::new();
                        shared
                            .node
                            .signed(&pipe, signature, shared.clock.now(), &mut out);
                        shared.carry_out(&mut out);
                    });
                }
            },
            Output::Answered { token, response } => token.answered(response),
            Output::Delivered { token } | Output::Connected { token } => token.done(),
            Output::Opened { token, stream } => token.opened(stream),
            Output::Resolved { token, result } => token.resolved(result),
            Output::Failed { token, failure } => token.failed(failure),
            Output::Request(incoming) => self.services.request(self, incoming),
            Output::Cancelled { session, id } => self.services.cancelled((session, id)),
            Output::Message(message) => self.services.message(self, message),
            Output::Stream(stream) => self.services.stream(self, stream),
            Output::Event(event) => {
                tracing::debug!(?event);
                match &event {
                    Event::Misbehaved { .. } => self.counted.misbehaved.increment(),
                    Event::Banned(_) | Event::Lifted(_) => {
                        if let Some(bans) = &self.bans {
                            bans.changed();
                        }
                    }
                    _ => {}
                }
                self.news.tell(event);
            }
        }
    }

    /// The socket of a pipe is gone, or its peer broke the rules of WebSockets.
    pub(super) fn closed(self: &Arc<Self>, pipe: &Pipe<Token>, code: Code) {
        let mut out = Vec::new();
        self.node.closed(pipe, code, self.clock.now(), &mut out);
        self.carry_out(&mut out);
    }

    /// Gives up one of our own operations.
    pub(super) fn cancel(self: &Arc<Self>, name: &Name, id: u64) {
        let mut out = Vec::new();
        self.node.cancel(
            name,
            |token: &Token| token.id == id,
            self.clock.now(),
            &mut out,
        );
        self.carry_out(&mut out);
    }

    /// Runs a task that ends with the node at the latest.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // When the node has ended, so has the task: what it owns may come back here, and no lock is held.
        drop(self.try_spawn(task));
    }

    /// [`spawn`](Self::spawn), with the means to end the task; the task itself when the node has ended.
    pub(super) fn try_spawn<F>(&self, task: F) -> Result<AbortHandle, F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = lock(&self.tasks);
        let Some(tasks) = tasks.as_mut() else {
            return Err(task);
        };
        // Those that have ended leave their places to new ones.
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task ended abnormally");
            }
        }
        Ok(tasks.spawn(task))
    }

    /// Says goodbye to everybody, and returns when all have been told or `patience` has run out.
    pub(super) async fn shut_down(self: &Arc<Self>, patience: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        let sessions = u32::try_from(self.node.counts().sessions).unwrap_or(u32::MAX);
        let delay = RETURN_PER_SESSION.saturating_mul(sessions).min(RETURN_MAX);
        self.node.shut_down(Code::GoingAway, delay);
        let told = async {
            loop {
                let left = self.left.notified();
                if self.links().is_empty() {
                    return;
                }
                left.await;
            }
        };
        if tokio::time::timeout(patience, told).await.is_err() {
            tracing::debug!(
                sockets = self.links().len(),
                "closed without a goodbye from all peers"
            );
        }
        let tasks = lock(&self.tasks).take();
        self.abort();
        if let Some(mut tasks) = tasks {
            // So that the port is free and nothing runs any more when the caller goes on.
            tasks.shutdown().await;
        }
    }

    /// Ends everything at once: sockets, tasks, whatever waits.
    pub(super) fn abort(self: &Arc<Self>) {
        self.closing.store(true, Ordering::SeqCst);
        // Aborted by being dropped, and outside the lock, because what they own may come back here.
        let tasks = lock(&self.tasks).take();
        drop(tasks);
        let pipes: Vec<_> = self.links().drain().map(|(_, (pipe, _))| pipe).collect();
        let (now, mut out) = (self.clock.now(), Vec::new());
        for pipe in pipes {
            self.node.closed(&pipe, Code::NodeClosed, now, &mut out);
        }
        self.node.abandon(now, &mut out);
        for output in out {
            match output {
                Output::Answered { token, response } => token.answered(response),
                Output::Delivered { token } | Output::Connected { token } => token.done(),
                Output::Failed { token, failure } => token.failed(failure),
                Output::Resolved { token, result } => token.resolved(result),
                // Nothing new begins. What is dropped here is answered or reset by its own destructor.
                Output::Opened { token, .. } => token.failed(NodeError::new(Code::NodeClosed)),
                Output::Dial { .. }
                | Output::Close { .. }
                | Output::Fetch { .. }
                | Output::Sign { .. }
                | Output::Request(_)
                | Output::Cancelled { .. }
                | Output::Message(_)
                | Output::Stream(_)
                | Output::Event(_) => {}
            }
        }
        self.services.clear();
    }

    fn dial(self: &Arc<Self>, pipe: Pipe<Token>, address: Address) {
        self.reseed();
        let link = self.enter(&pipe);
        let shared = self.clone();
        self.spawn(async move {
            let routing = Routing {
                host: address.host,
                port: address.port,
                ws: !address.secure,
                wss: address.secure,
            };
            let first = || shared.node.first_message(&pipe);
            // Boxed: what connecting needs must not stay as long as the socket does.
            let dialled = tokio::select! {
                biased;
                _ = link.closed() => None,
                dialled = Box::pin(shared.dialer.connect(&routing, first)) => Some(dialled),
            };
            match dialled {
                Some(Ok(Dialled { socket, unsent })) => {
                    shared.node.opened(&pipe, unsent);
                    socket::drive(&shared, Box::new(socket), Role::Client, &pipe, &link).await;
                }
                Some(Err(error)) => {
                    tracing::debug!(%routing, %error, "dial");
                    shared.closed(&pipe, error.code());
                }
                None => {}
            }
            shared.leave(&pipe);
        });
    }

    fn fetch(self: &Arc<Self>, id: FetchId, url: Arc<str>, body: String) {
        let limits = &self.node.config().resolver;
        let (most, timeout) = (limits.answer_bytes, limits.fetch_timeout);
        let shared = self.clone();
        let places = self.fetches.get(&url).cloned();
        self.spawn(async move {
            let fetch = async {
                // Whoever is slow has others wait for itself alone.
                let _place = match &places {
                    Some(places) => places.acquire().await.ok(),
                    None => None,
                };
                rpc::post(&shared.http, &url, body, most, timeout).await
            };
            // To wait for a place takes from the same time.
            let answer = tokio::time::timeout(timeout, fetch)
                .await
                .unwrap_or(Err(FetchFailure::Timeout));
            let answer: Result<&[u8], FetchFailure> = match &answer {
                Ok(bytes) => Ok(bytes),
                Err(failure) => Err(*failure),
            };
            let mut out = Vec::new();
            shared
                .node
                .answered(id, answer, shared.clock.now(), &mut out);
            shared.carry_out(&mut out);
        });
    }

    /// Entropy of the moment of every new connection: a copied virtual machine must not repeat its keys.
    fn reseed(&self) {
        let mut entropy = [0; 32];
        if getrandom::fill(&mut entropy).is_ok() {
            self.node.reseed(&entropy);
        }
    }

    fn enter(&self, pipe: &Pipe<Token>) -> Arc<Link> {
        let link = Arc::new(Link::default());
        self.links().insert(pipe.id(), (pipe.clone(), link.clone()));
        link
    }

    fn leave(&self, pipe: &Pipe<Token>) {
        self.links().remove(&pipe.id());
        self.left.notify_waiters();
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        lock(&self.links)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node.fmt(f)
    }
}

/// A lock whose holder panicked still guards consistent data: every change is one insertion or removal.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls the core whenever its next deadline has come.
async fn keep_time(shared: &Arc<Shared>) {
    let mut out = Vec::new();
    let mut sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
    loop {
        poll_fn(|cx| {
            // Before looking, so that a deadline which appears in between is not missed.
            shared.node.watch_deadline(cx.waker());
            let Some(deadline) = shared.node.deadline() else {
                return Poll::Pending;
            };
            let now = shared.clock.now().mono;
            if deadline <= now {
                return Poll::Ready(());
            }
            sleep
                .as_mut()
                .reset(tokio::time::Instant::now() + deadline.since(now));
            sleep.as_mut().poll(cx)
        })
        .await;
        shared.node.handle_timeout(shared.clock.now(), &mut out);
        shared.carry_out(&mut out);
        // A core that is always late must not keep the thread.
        tokio::task::yield_now().await;
    }
}
