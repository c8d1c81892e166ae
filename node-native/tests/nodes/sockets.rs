//! The world of real sockets: nodes of this crate on loopback addresses, and endpoints that show a chain.

use crate::{
    endpoint::Endpoint,
    proxy::Proxy,
    support::{direct_at, free_address, log, strict},
};
use bytes::Bytes;
use nectar_sim::{
    Outcome, Registry, World,
    chain::View,
    world::{
        Accepted, Ask, ByteStream, CHAT, ECHO, FILE, Harm, Inbox, NodeId, PATIENCE, Place, Plan,
        Token, Wire,
    },
};
use node_core::{
    Name,
    node::{Counts, PeerInfo},
    registry::{Host, Record},
    session::StreamError,
};
use node_native::node::{self, IncomingStream, Node, NodeConfig, Request, Response};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    ops::Range,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{runtime::Runtime, task::JoinHandle};

/// Time between two looks at what a scenario waits for.
const TICK: Duration = Duration::from_millis(1);

/// Nodes of this machine, in real time.
pub(crate) struct Sockets {
    nodes: Vec<Running>,
    registry: Arc<Mutex<Registry>>,
    endpoints: Vec<Endpoint>,
    next: Token,
    /// Where nodes listen whose registered address is a proxy's; `None` where there are no proxies.
    behind: Option<HashMap<SocketAddr, SocketAddr>>,
    /// Dropped last, with all that runs in it.
    runtime: Runtime,
}

struct Running {
    /// `None` once it was killed.
    node: Option<Node>,
    /// What stands before its address, while it takes anybody.
    proxy: Option<Proxy>,
    heard: Arc<Mutex<Heard>>,
    outcomes: Arc<Mutex<HashMap<Token, Outcome<Live>>>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    inbox: Inbox,
    streams: Vec<IncomingStream>,
}

impl Sockets {
    pub(crate) fn new() -> Self {
        log();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let registry = Arc::new(Mutex::new(Registry::new(unix_time())));
        let endpoint = runtime.block_on(Endpoint::start(registry.clone()));
        Self {
            nodes: Vec::new(),
            registry,
            endpoints: vec![endpoint],
            next: 0,
            behind: None,
            runtime,
        }
    }

    /// The same, with somebody on the way to every address who delays, splits and merges what passes.
    pub(crate) fn through_proxies() -> Self {
        Self {
            behind: Some(HashMap::new()),
            ..Self::new()
        }
    }

    /// The first endpoint that shows the chain.
    pub(crate) fn rpc(&self) -> &str {
        self.endpoints[0].url()
    }

    /// How often that was asked so far.
    pub(crate) fn asked(&self) -> usize {
        self.endpoints[0].asked()
    }

    fn node(&self, node: NodeId) -> &Node {
        self.nodes[node].node.as_ref().expect("it was not killed")
    }

    /// Lets go of the address that a proxy has.
    fn end_proxy(&mut self, node: NodeId) {
        if let Some(proxy) = self.nodes[node].proxy.take() {
            self.runtime.block_on(proxy.end());
        }
    }

    /// The registered address of a planned node, and where it listens.
    fn addresses(&mut self, plan: &Plan) -> Option<[SocketAddr; 2]> {
        let (host, port) = lock(&self.registry).address(plan)?;
        let Host::V4(host) = host else {
            panic!("an IPv4 address")
        };
        let known = SocketAddr::new(IpAddr::V4(host), port);
        let behind = self.behind.as_mut();
        let listens = behind.map(|behind| *behind.entry(known).or_insert_with(free_address));
        Some([known, listens.unwrap_or(known)])
    }

    /// What a planned node is told, and what its application does.
    fn config(
        &self,
        mut plan: Plan,
        listens: Option<SocketAddr>,
        heard: &Arc<Mutex<Heard>>,
    ) -> NodeConfig {
        let registry = lock(&self.registry);
        let stuck = plan.stuck;
        let rpcs = self.endpoints.iter().map(|endpoint| endpoint.url().into());
        let core = registry.config(&mut plan, rpcs.collect());
        let mut config = match core.identity.name.clone() {
            Some(name) => NodeConfig::named(name, plan.signing_key()),
            None => NodeConfig::guest(),
        }
        .allow_private(true)
        .with_core(|known| *known = core);
        if let Some(address) = listens {
            config = config.listen(address);
        }
        let asked = heard.clone();
        let config = config.serve(ECHO, move |request| {
            let payload = request.payload.clone();
            lock(&asked).inbox.requests.push((
                request.from,
                Request {
                    protocol: request.protocol,
                    metadata: request.metadata,
                    payload: request.payload,
                    early: false,
                },
            ));
            async move {
                if stuck {
                    std::future::pending::<()>().await;
                }
                Response::Success(Some(payload))
            }
        });
        let told = heard.clone();
        let config = config.on_message(CHAT, move |message| {
            let told = told.clone();
            if !stuck {
                let protocol = message.protocol.to_string();
                let message = (message.from, protocol, message.payload);
                lock(&told).inbox.messages.push(message);
            }
            async move {
                if stuck {
                    std::future::pending::<()>().await;
                }
            }
        });
        let opened = heard.clone();
        config.serve_stream(FILE, move |stream| {
            lock(&opened).streams.push(stream);
            async {}
        })
    }
}

impl Wire for Sockets {
    fn harm_some(&mut self, node: NodeId, which: Range<usize>, harm: Harm) {
        let proxy = self.nodes[node].proxy.as_ref();
        proxy.expect("somebody is on the way").harm(which, harm);
    }

    fn dialled(&self, node: NodeId) -> usize {
        let proxy = self.nodes[node].proxy.as_ref();
        proxy.expect("somebody is on the way").opened()
    }
}

impl World for Sockets {
    type Stream = Live;

    fn lenience() -> u32 {
        // Other tests run on the same processors.
        if strict() { 1 } else { 5 }
    }

    fn register(&mut self, labels: &[&str], place: Place<'_>) {
        let mut registry = lock(&self.registry);
        for label in labels {
            let record = match place {
                Place::Direct => direct_at(label, free_address()),
                Place::Behind(routers) => nectar_sim::indirect(label, routers),
            };
            registry.register(label, record);
        }
        registry.chain.mine(unix_time());
    }

    fn change(&mut self, label: &str, change: impl FnOnce(&mut Record)) -> u64 {
        let mut registry = lock(&self.registry);
        registry.change(label, change);
        registry.chain.mine(unix_time())
    }

    fn undo(&mut self, height: u64) {
        let mut registry = lock(&self.registry);
        let before = registry.chain.height();
        registry.undo(height, unix_time());
        // Endpoints follow the other way because it is longer.
        while registry.chain.height() <= before {
            registry.chain.mine(unix_time());
        }
    }

    fn show(&mut self, endpoint: usize, view: View, delay: Duration) {
        if endpoint == self.endpoints.len() {
            let started = Endpoint::start(self.registry.clone());
            self.endpoints.push(self.runtime.block_on(started));
        }
        self.endpoints[endpoint].show(view, delay);
    }

    fn reads(&self, endpoint: usize) -> usize {
        self.endpoints[endpoint].asked()
    }

    fn start(&mut self, plan: Plan) -> NodeId {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let addresses = self.addresses(&plan);
        let config = self.config(plan, addresses.map(|[_, listens]| listens), &heard);
        let news = heard.clone();
        let node = self.runtime.block_on(async {
            let node = Node::start(config).await.unwrap();
            let mut events = node.events();
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    lock(&news).inbox.events.push(event);
                }
            });
            node
        });
        let proxy = addresses.filter(|[known, listens]| known != listens);
        let proxy = proxy.map(|[known, listens]| {
            let proxy = Proxy::start(known, listens, self.nodes.len() as u64);
            self.runtime.block_on(proxy)
        });
        self.nodes.push(Running {
            node: Some(node),
            proxy,
            heard,
            outcomes: Arc::default(),
            tasks: Vec::new(),
        });
        self.nodes.len() - 1
    }

    fn close(&mut self, node: NodeId) {
        self.runtime.block_on(self.node(node).close());
        self.end_proxy(node);
    }

    fn kill(&mut self, node: NodeId) {
        let running = &mut self.nodes[node];
        let address = running.node.take().and_then(|node| node.local_addr());
        for task in running.tasks.drain(..) {
            task.abort();
            let _ = self.runtime.block_on(task);
        }
        self.end_proxy(node);
        // Its port is free as soon as its tasks are gone.
        let free = |_: &mut Self| address.is_none_or(|at| std::net::TcpListener::bind(at).is_ok());
        assert!(self.wait(PATIENCE, free), "the port is never free");
    }

    fn is_reachable(&self, node: NodeId) -> bool {
        self.node(node).is_reachable()
    }

    fn peers(&self, node: NodeId) -> Vec<PeerInfo> {
        self.node(node).peers()
    }

    fn counts(&self, node: NodeId) -> Counts {
        self.node(node).counts()
    }

    fn ask(&mut self, from: NodeId, to: &Name, what: Ask) -> Token {
        self.next += 1;
        let token = self.next;
        let (node, to) = (self.node(from).clone(), to.clone());
        let outcomes = self.nodes[from].outcomes.clone();
        let mut asking = Box::pin(async move {
            let outcome = ask(&node, &to, what).await;
            lock(&outcomes).insert(token, outcome);
        });
        // What is asked first is queued first, whichever task runs first.
        let _runtime = self.runtime.enter();
        if now(asking.as_mut()).is_pending() {
            self.nodes[from].tasks.push(tokio::spawn(asking));
        }
        token
    }

    fn ended(&mut self, node: NodeId, token: Token) -> Option<Outcome<Live>> {
        lock(&self.nodes[node].outcomes).remove(&token)
    }

    fn inbox(&self, node: NodeId) -> Inbox {
        lock(&self.nodes[node].heard).inbox.clone()
    }

    fn accept(&mut self, node: NodeId) -> Option<Accepted<Live>> {
        let streams = &mut lock(&self.nodes[node].heard).streams;
        let incoming = (!streams.is_empty()).then(|| streams.remove(0))?;
        Some(Accepted {
            from: incoming.from().cloned(),
            metadata: incoming.metadata().clone(),
            stream: Live(incoming.accept()),
        })
    }

    fn wait(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let begun = Instant::now();
        loop {
            let late = begun.elapsed() >= limit;
            if done(self) || late {
                return !late || done(self);
            }
            std::thread::sleep(TICK);
        }
    }
}

/// A stream of a real node.
pub(crate) struct Live(node::Stream);

impl ByteStream for Live {
    fn write(&mut self, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        // What is pending has queued nothing.
        let writing = self.0.write_chunk(data.clone());
        let written = now(pin!(writing));
        if let Poll::Ready(Ok(())) = written {
            data.clear();
        }
        written
    }

    fn read(&mut self) -> Poll<Result<Option<Bytes>, StreamError>> {
        now(pin!(self.0.read_chunk()))
    }

    fn finish(&mut self) {
        self.0.finish();
    }
}

/// What the future has come to by now.
fn now<R>(future: Pin<&mut impl Future<Output = R>>) -> Poll<R> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What comes of an operation.
async fn ask(node: &Node, to: &Name, what: Ask) -> Outcome<Live> {
    let done = match what {
        Ask::Request(request, None) => node.request(to, request).await.map(Outcome::Answered),
        Ask::Request(request, Some(within)) => {
            let asked = node.request_within(to, request, within).await;
            asked.map(Outcome::Answered)
        }
        Ask::Message(payload) => {
            let sent = node.message(to, CHAT, payload).await;
            sent.map(|()| Outcome::Delivered)
        }
        Ask::Stream(metadata) => {
            let opened = node.open_stream(to, FILE, metadata).await;
            opened.map(|stream| Outcome::Opened(Live(stream)))
        }
        Ask::Ping => node.ping(to).await.map(Outcome::RoundTrip),
        Ask::Resolve => Ok(Outcome::Resolved(node.resolve(to, false).await)),
    };
    done.unwrap_or_else(Outcome::Failed)
}

pub(crate) fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
