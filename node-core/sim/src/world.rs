//! Whole nodes over a virtual network, in virtual time.
//!
//! Everything that a driver does for a real node happens here in one queue of events: sockets with latency, RPC
//! endpoints, signatures, one timer per node. The same seed gives the same run, bit for bit.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use node_core::{
    Code, Instant, Label, Name, Now, RegistryId, Timestamp,
    channel::Identity,
    node::{
        Address, Event, Failure, IncomingMessage, IncomingStream, Node, NodeConfig, Output, Pipe,
        Stream,
    },
    registry::{FetchFailure, Host, Record, ResolveError, Resolved, Routing},
    session::Request,
    time::Duration,
    wire::frame::Response,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    task::{Context, Poll, Waker},
};

/// The token of every operation in a world: a number, unique in it.
pub type Token = u64;

/// A node of the world, by its place.
pub type NodeId = usize;

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome {
    /// A request was answered.
    Answered(Response),
    /// A message was delivered.
    Delivered,
    /// There is a session.
    Connected,
    /// A stream is open.
    Opened(Stream<Token>),
    /// A look-up ended.
    Resolved(Result<Resolved, ResolveError>),
    /// It came to nothing.
    Failed(Failure),
}

/// How a node answers requests.
pub type Handler = Box<dyn FnMut(&Request, Option<&Name>) -> Option<Response>>;

/// What a socket does to the messages of one direction; `None` swallows one.
pub type Tamper = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

/// Chooses who tampers with a new socket: dialler, acceptor, and whether for the dialler's direction.
pub type OnSocket = Box<dyn FnMut(NodeId, NodeId, bool) -> Option<Tamper>>;

/// One node and everything that has happened to it.
pub struct Machine {
    /// The node.
    pub node: Node<Token>,
    /// Its key.
    pub key: SigningKey,
    /// Outcomes by token, until they are taken.
    pub outcomes: HashMap<Token, Outcome>,
    /// Requests that came in, for tests to look at.
    pub requests: Vec<(Option<Name>, Request)>,
    /// Messages that came in and were confirmed: from, protocol, payload.
    pub messages: Vec<(Option<Name>, String, Bytes)>,
    /// Messages that are kept unconfirmed while [`hold_messages`](Self::hold_messages) is set.
    pub held: Vec<IncomingMessage<Token>>,
    /// Whether messages are kept unconfirmed.
    pub hold_messages: bool,
    /// Streams that peers opened.
    pub streams: Vec<IncomingStream<Token>>,
    /// News.
    pub events: Vec<Event>,
    /// Answers requests; an echo unless replaced.
    pub handler: Handler,
    /// Our clock minus the world's, in milliseconds.
    pub skew_ms: i64,
    /// Whether the signer works.
    pub signs: bool,
    /// Whether the process is gone: it neither hears nor says anything.
    pub dead: bool,
    address: Option<(Host, u16)>,
}

struct Socket {
    owner: NodeId,
    pipe: Pipe<Token>,
    /// The other end's socket, once it is open.
    peer: Option<usize>,
    open: bool,
    tamper: Option<Tamper>,
}

enum Happening {
    /// A dialled socket arrives at its address.
    Arrive {
        dialler: usize,
        address: Address,
    },
    Opened {
        socket: usize,
    },
    Closed {
        socket: usize,
        code: Code,
    },
    Message {
        socket: usize,
        message: Bytes,
    },
    Answer {
        node: NodeId,
        id: node_core::registry::FetchId,
        answer: Result<Vec<u8>, FetchFailure>,
    },
}

/// Answers RPC bodies: URL and body to an answer, or a failure; with the delay after which it arrives.
pub type Rpc = Box<dyn FnMut(&str, &str, Now) -> (Duration, Result<Vec<u8>, FetchFailure>)>;

/// Nodes, the network between them and the clock.
pub struct World {
    /// The nodes.
    pub machines: Vec<Machine>,
    /// One way through the network.
    pub latency: Duration,
    /// The RPC endpoints.
    pub rpc: Rpc,
    /// Every message on every socket, from whom to whom, while recording is on.
    pub wire: Option<Vec<(NodeId, NodeId, Bytes)>>,
    now: Instant,
    queue: BTreeMap<(Instant, u64), Happening>,
    sockets: Vec<Socket>,
    /// Sockets that may have something to send.
    live: HashSet<usize>,
    next: u64,
    seed: u64,
    /// Sockets that take nothing more: from whom to whom.
    pub stalled: HashSet<(NodeId, NodeId)>,
    /// Called for sockets at their creation, to tamper with what they carry: dialler, acceptor, direction.
    pub on_socket: Option<OnSocket>,
}

/// The wall clock at the world's beginning.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// The registry whose names the world's nodes have, unless a test says otherwise.
pub const REGISTRY: RegistryId = RegistryId {
    chain_id: 31_337,
    contract: [0xc0; 20],
};

/// A name in [`REGISTRY`].
///
/// # Panics
/// When the label is invalid.
pub fn name(label: &str) -> Name {
    let label = Label::new(label).unwrap_or_else(|error| panic!("{label}: {error}"));
    Name {
        registry: REGISTRY,
        label,
    }
}

/// The networking key of the node called `label` in worlds.
pub fn key_of(label: &str) -> SigningKey {
    let mut seed = [0x5e; 32];
    for (at, byte) in label.bytes().enumerate() {
        seed[at % 32] ^= byte;
    }
    SigningKey::from_bytes(&seed)
}

/// A direct node's record at 10.0.0.`host`.
pub fn direct(label: &str, host: u8) -> Record {
    Record {
        routing: Some(Routing {
            host: Host::V4([10, 0, 0, host].into()),
            port: 9000,
            ws: true,
            wss: false,
        }),
        ..indirect(label, &[])
    }
}

/// An indirect node's record with its routers.
///
/// # Panics
/// When a router's label is invalid.
pub fn indirect(label: &str, routers: &[&str]) -> Record {
    Record {
        owner: [1; 20],
        manager: [0; 20],
        key: key_of(label).verifying_key().to_bytes(),
        routing: None,
        routers: routers.iter().map(|router| name(router).label).collect(),
        version: 1,
        epoch: 1,
    }
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            machines: Vec::new(),
            latency: Duration::from_millis(10),
            rpc: Box::new(|_, _, _| (Duration::from_millis(5), Err(FetchFailure::Unreachable))),
            wire: None,
            now: Instant::from_micros(1_000_000),
            queue: BTreeMap::new(),
            sockets: Vec::new(),
            live: HashSet::new(),
            next: 1,
            seed,
            stalled: HashSet::new(),
            on_socket: None,
        }
    }

    /// Both clocks as `node` reads them.
    pub fn now_of(&self, node: NodeId) -> Now {
        let wall = EPOCH_MS + self.now.as_micros() / 1000;
        Now {
            mono: self.now,
            wall: Timestamp(wall.saturating_add_signed(self.machines[node].skew_ms)),
        }
    }

    /// The world's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A configuration for the node called `label`; records that it believes without a chain are `pinned`.
    pub fn config(label: &str, pinned: &[(&str, Record)]) -> NodeConfig {
        let key = key_of(label).verifying_key().to_bytes();
        let mut config = NodeConfig::new(Identity {
            name: Some(name(label)),
            key,
        });
        config.registries = vec![node_core::registry::RegistryConfig {
            id: REGISTRY,
            tld: "nectar".into(),
            rpcs: Vec::new(),
            quorum: None,
        }];
        config.pinned = pinned
            .iter()
            .map(|(label, record)| (name(label), record.clone()))
            .collect();
        config.direct = config
            .pinned
            .iter()
            .any(|(n, record)| *n == name(label) && record.is_direct());
        config
    }

    /// Adds a node and starts it. A direct node listens at the address of its own pinned record, or at `address`.
    ///
    /// # Panics
    /// When the configuration is invalid.
    pub fn add(
        &mut self,
        config: NodeConfig,
        key: SigningKey,
        address: Option<(Host, u16)>,
    ) -> NodeId {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&(self.machines.len() as u64).to_be_bytes());
        let own = config
            .identity
            .name
            .as_ref()
            .and_then(|me| config.pinned.iter().find(|(name, _)| name == me));
        let listens = own
            .and_then(|(_, record)| record.routing.as_ref())
            .map(|r| (r.host.clone(), r.port));
        let node = Node::new(config, seed).expect("a valid configuration");
        self.machines.push(Machine {
            node: node.clone(),
            key,
            outcomes: HashMap::new(),
            requests: Vec::new(),
            messages: Vec::new(),
            held: Vec::new(),
            hold_messages: false,
            streams: Vec::new(),
            events: Vec::new(),
            handler: Box::new(|request, _| Some(Response::Success(Some(request.payload.clone())))),
            skew_ms: 0,
            signs: true,
            dead: false,
            address: address.or(listens),
        });
        let id = self.machines.len() - 1;
        let mut out = Vec::new();
        node.start(self.now_of(id), &mut out);
        self.outputs(id, out);
        id
    }

    /// [`add`](Self::add) with the usual key.
    pub fn add_named(&mut self, label: &str, config: NodeConfig) -> NodeId {
        self.add(config, key_of(label), None)
    }

    /// A new token.
    pub fn token(&mut self) -> Token {
        self.next += 1;
        self.next
    }

    /// Lets `node` do something and carries out what follows.
    pub fn act<R>(
        &mut self,
        node: NodeId,
        work: impl FnOnce(&Node<Token>, Now, &mut Vec<Output<Token>>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let handle = self.machines[node].node.clone();
        let result = work(&handle, self.now_of(node), &mut out);
        self.outputs(node, out);
        result
    }

    /// Sends a request and returns its token.
    pub fn request(&mut self, from: NodeId, to: &Name, payload: &[u8]) -> Token {
        let token = self.token();
        let request = Request {
            protocol: "echo.1".into(),
            metadata: None,
            payload: Bytes::copy_from_slice(payload),
        };
        self.act(from, |node, now, out| {
            node.request(token, to, request, None, now, out)
        });
        token
    }

    /// Sends a message and returns its token.
    pub fn message(&mut self, from: NodeId, to: &Name, payload: &[u8]) -> Token {
        let token = self.token();
        let payload = Bytes::copy_from_slice(payload);
        self.act(from, |node, now, out| {
            node.message(token, to, "chat.1", payload, now, out)
        });
        token
    }

    /// Opens a stream and returns its token.
    pub fn open_stream(&mut self, from: NodeId, to: &Name) -> Token {
        let token = self.token();
        self.act(from, |node, now, out| {
            node.open_stream(token, to, "file.1", Bytes::new(), now, out)
        });
        token
    }

    /// Runs until `done` or until `limit` has passed; whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.flush();
            if done(self) {
                return true;
            }
            let Some(at) = self.next_time().filter(|at| *at <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(at);
            self.step();
        }
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until the operation has ended and returns how; panics after 100 s.
    ///
    /// # Panics
    /// When it has not ended by then.
    pub fn outcome(&mut self, node: NodeId, token: Token) -> Outcome {
        let ended = self.run_until(Duration::from_secs(100), |w| {
            w.machines[node].outcomes.contains_key(&token)
        });
        assert!(ended, "operation {token} of node {node} never ended");
        self.machines[node]
            .outcomes
            .remove(&token)
            .expect("just seen")
    }

    /// Writes everything to a stream while the world runs, ends it, and reads nothing.
    ///
    /// # Panics
    /// When the stream fails or takes longer than 1,000 s.
    pub fn pour(&mut self, stream: &Stream<Token>, mut data: Bytes, chunk: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        while !data.is_empty() {
            let mut piece = data.split_to(chunk.min(data.len()));
            let written = self.run_until(Duration::from_secs(1000), |_| {
                matches!(stream.poll_write(&mut piece, &mut cx), Poll::Ready(Ok(())))
            });
            assert!(written, "the stream takes bytes");
        }
        stream.finish();
    }

    /// Reads a stream to its end while the world runs.
    ///
    /// # Panics
    /// When it fails or takes longer than 1,000 s.
    pub fn drain(&mut self, stream: &Stream<Token>) -> Vec<u8> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut data = Vec::new();
        let ended = self.run_until(Duration::from_secs(1000), |_| {
            loop {
                match stream.poll_read(&mut cx) {
                    Poll::Ready(Ok(Some(bytes))) => data.extend_from_slice(&bytes),
                    Poll::Ready(Ok(None)) => return true,
                    Poll::Ready(Err(error)) => panic!("the stream failed: {error}"),
                    Poll::Pending => return false,
                }
            }
        });
        assert!(ended, "the stream ends");
        data
    }

    /// Somebody on the way cuts the sockets between two nodes, with a code of his choice.
    pub fn cut(&mut self, a: NodeId, b: NodeId, code: Code) {
        for socket in 0..self.sockets.len() {
            let Socket {
                owner, peer, open, ..
            } = &self.sockets[socket];
            let other = peer.map(|peer| self.sockets[peer].owner);
            if *open && [(a, Some(b)), (b, Some(a))].contains(&(*owner, other)) {
                self.sockets[socket].open = false;
                self.live.remove(&socket);
                let latency = self.latency;
                self.later(latency, Happening::Closed { socket, code });
            }
        }
    }

    /// Lets `waker` watch all open sockets of a node.
    pub fn watch(&mut self, node: NodeId, waker: &Waker) {
        for socket in 0..self.sockets.len() {
            let Socket {
                owner, pipe, open, ..
            } = &self.sockets[socket];
            if *open && *owner == node {
                let pipe = pipe.clone();
                self.act(node, |node, now, out| {
                    assert!(node.poll_transmit(&pipe, waker, now, out).is_none());
                });
            }
        }
    }

    /// Lets go of the node's handles of sockets that have closed.
    pub fn forget_closed(&mut self) {
        assert!(self.queue.is_empty() || !self.sockets.iter().any(|socket| socket.open));
        self.sockets.clear();
        self.live.clear();
        self.queue.clear();
    }

    /// Kills a node: its sockets close, and nobody answers at its address.
    pub fn kill(&mut self, node: NodeId) {
        self.machines[node].dead = true;
        for socket in 0..self.sockets.len() {
            if self.sockets[socket].owner == node && self.sockets[socket].open {
                self.close(socket, Code::PipeLost);
            }
        }
    }

    /// Freezes a node: its sockets stay open, but nothing comes out of them any more.
    pub fn freeze(&mut self, node: NodeId) {
        self.machines[node].dead = true;
    }

    fn next_time(&self) -> Option<Instant> {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timers = self
            .machines
            .iter()
            .filter(|m| !m.dead)
            .filter_map(|m| m.node.deadline());
        timers.chain(queued).min()
    }

    fn step(&mut self) {
        for id in 0..self.machines.len() {
            if !self.machines[id].dead
                && self.machines[id]
                    .node
                    .deadline()
                    .is_some_and(|at| at <= self.now)
            {
                self.act(id, |node, now, out| node.handle_timeout(now, out));
            }
        }
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let happening = entry.remove();
            self.happen(happening);
        }
    }

    fn later(&mut self, delay: Duration, happening: Happening) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { dialler, address } => self.arrive(dialler, &address),
            Happening::Opened { socket } => {
                let Socket { owner, pipe, .. } = &self.sockets[socket];
                let (owner, pipe) = (*owner, pipe.clone());
                self.sockets[socket].open = true;
                self.live.insert(socket);
                self.act(owner, |node, now, out| node.opened(&pipe, now, out));
            }
            Happening::Closed { socket, code } => {
                let Socket { owner, pipe, .. } = &self.sockets[socket];
                let (owner, pipe) = (*owner, pipe.clone());
                self.sockets[socket].open = false;
                self.live.remove(&socket);
                if !self.machines[owner].dead {
                    self.act(owner, |node, now, out| node.closed(&pipe, code, now, out));
                }
            }
            Happening::Message { socket, message } => {
                let Socket {
                    owner, pipe, open, ..
                } = &self.sockets[socket];
                let (owner, pipe) = (*owner, pipe.clone());
                if *open && !self.machines[owner].dead {
                    self.act(owner, |node, now, out| {
                        node.handle_message(&pipe, message, now, out)
                    });
                }
            }
            Happening::Answer { node, id, answer } => {
                let answer = match &answer {
                    Ok(bytes) => Ok(bytes.as_slice()),
                    Err(failure) => Err(*failure),
                };
                self.act(node, |node, now, out| node.answered(id, answer, now, out));
            }
        }
    }

    fn arrive(&mut self, dialler: usize, address: &Address) {
        let listener = self.machines.iter().position(|machine| {
            !machine.dead && machine.address.as_ref() == Some(&(address.host.clone(), address.port))
        });
        let Some(listener) = listener else {
            let latency = self.latency;
            return self.later(
                latency,
                Happening::Closed {
                    socket: dialler,
                    code: Code::DialFailed,
                },
            );
        };
        let group = self.sockets[dialler].owner as u64;
        match self.act(listener, |node, now, _| node.accept(group, now)) {
            Ok(pipe) => {
                let from = self.sockets[dialler].owner;
                let mut tamper = self.on_socket.as_mut();
                let (there, back) = match &mut tamper {
                    Some(tamper) => (tamper(from, listener, true), tamper(from, listener, false)),
                    None => (None, None),
                };
                let accepted = self.sockets.len();
                self.sockets.push(Socket {
                    owner: listener,
                    pipe,
                    peer: Some(dialler),
                    open: true,
                    tamper: back,
                });
                self.sockets[dialler].peer = Some(accepted);
                self.sockets[dialler].tamper = there;
                self.live.insert(accepted);
                let latency = self.latency;
                self.later(latency, Happening::Opened { socket: dialler });
            }
            Err(code) => {
                let latency = self.latency;
                self.later(
                    latency,
                    Happening::Closed {
                        socket: dialler,
                        code,
                    },
                );
            }
        }
    }

    /// Takes what every socket has to send.
    fn flush(&mut self) {
        loop {
            let mut sent = false;
            let mut live: Vec<usize> = self.live.iter().copied().collect();
            live.sort_unstable();
            for socket in live {
                while self.sockets[socket].open && !self.machines[self.sockets[socket].owner].dead {
                    let Socket {
                        owner, pipe, peer, ..
                    } = &self.sockets[socket];
                    let (owner, pipe, peer) = (*owner, pipe.clone(), *peer);
                    let to = peer.map(|peer| self.sockets[peer].owner);
                    if to.is_some_and(|to| self.stalled.contains(&(owner, to))) {
                        break;
                    }
                    let handle = self.machines[owner].node.clone();
                    let now = self.now_of(owner);
                    let mut out = Vec::new();
                    let message = handle.poll_transmit(&pipe, Waker::noop(), now, &mut out);
                    // A socket that is to be closed still sends what it was given with that.
                    let more = message.is_some();
                    if let (Some(message), Some(peer)) = (message, peer) {
                        self.send(socket, owner, peer, message);
                    }
                    self.outputs(owner, out);
                    if !more {
                        break;
                    }
                    sent = true;
                }
            }
            if !sent {
                return;
            }
        }
    }

    /// Puts a message on its way, unless somebody tampers with it.
    fn send(&mut self, socket: usize, owner: NodeId, peer: usize, message: Bytes) {
        let mut bytes = message.to_vec();
        if let Some(tamper) = &mut self.sockets[socket].tamper
            && !tamper(&mut bytes)
        {
            return;
        }
        let to = self.sockets[peer].owner;
        if let Some(wire) = &mut self.wire {
            wire.push((owner, to, message));
        }
        let latency = self.latency;
        self.later(
            latency,
            Happening::Message {
                socket: peer,
                message: bytes.into(),
            },
        );
    }

    fn close(&mut self, socket: usize, code: Code) {
        self.sockets[socket].open = false;
        self.live.remove(&socket);
        if let Some(peer) = self.sockets[socket].peer {
            let latency = self.latency;
            self.later(latency, Happening::Closed { socket: peer, code });
        }
    }

    fn outputs(&mut self, id: NodeId, outputs: Vec<Output<Token>>) {
        for output in outputs {
            self.output(id, output);
        }
    }

    fn output(&mut self, id: NodeId, output: Output<Token>) {
        match output {
            Output::Dial { pipe, address } => {
                self.sockets.push(Socket {
                    owner: id,
                    pipe,
                    peer: None,
                    open: false,
                    tamper: None,
                });
                let (dialler, latency) = (self.sockets.len() - 1, self.latency);
                self.later(latency, Happening::Arrive { dialler, address });
            }
            Output::Close { pipe, code } => {
                let found = self
                    .sockets
                    .iter()
                    .position(|s| s.owner == id && s.pipe.id() == pipe.id());
                if let Some(socket) = found {
                    // What is left to say goes out before the socket closes.
                    self.flush_last(socket);
                    self.close(socket, code);
                }
            }
            Output::Fetch {
                id: fetch,
                url,
                body,
            } => {
                let now = self.now_of(id);
                let (delay, answer) = (self.rpc)(&url, &body, now);
                self.later(
                    delay,
                    Happening::Answer {
                        node: id,
                        id: fetch,
                        answer,
                    },
                );
            }
            Output::Sign { pipe, request } => {
                let machine = &self.machines[id];
                let signature = machine
                    .signs
                    .then(|| machine.key.sign(&request.message()).to_bytes());
                self.act(id, |node, now, out| node.signed(&pipe, signature, now, out));
            }
            Output::Answered { token, response } => {
                self.ended(id, token, Outcome::Answered(response))
            }
            Output::Delivered { token } => self.ended(id, token, Outcome::Delivered),
            Output::Connected { token } => self.ended(id, token, Outcome::Connected),
            Output::Opened { token, stream } => self.ended(id, token, Outcome::Opened(stream)),
            Output::Resolved { token, result } => self.ended(id, token, Outcome::Resolved(result)),
            Output::Failed { token, failure } => self.ended(id, token, Outcome::Failed(failure)),
            Output::Request(incoming) => {
                let machine = &mut self.machines[id];
                let from = incoming.from().cloned();
                machine
                    .requests
                    .push((from.clone(), incoming.request.clone()));
                if let Some(response) = (machine.handler)(&incoming.request, from.as_ref()) {
                    incoming.respond(response);
                }
            }
            Output::Cancelled { .. } => {}
            Output::Message(message) => {
                let machine = &mut self.machines[id];
                if machine.hold_messages {
                    machine.held.push(message);
                } else {
                    let from = message.from().cloned();
                    machine.messages.push((
                        from,
                        message.protocol.to_string(),
                        message.payload.clone(),
                    ));
                }
            }
            Output::Stream(stream) => self.machines[id].streams.push(stream),
            Output::Event(event) => self.machines[id].events.push(event),
        }
    }

    fn flush_last(&mut self, socket: usize) {
        let Socket {
            owner,
            pipe,
            peer,
            open,
            ..
        } = &self.sockets[socket];
        let (owner, pipe, peer, open) = (*owner, pipe.clone(), *peer, *open);
        let handle = self.machines[owner].node.clone();
        let now = self.now_of(owner);
        let mut rest = Vec::new();
        while open && let Some(message) = handle.poll_transmit(&pipe, Waker::noop(), now, &mut rest)
        {
            if let Some(peer) = peer {
                let latency = self.latency;
                self.later(
                    latency,
                    Happening::Message {
                        socket: peer,
                        message,
                    },
                );
            }
        }
        self.outputs(owner, rest);
    }

    fn ended(&mut self, id: NodeId, token: Token, outcome: Outcome) {
        let earlier = self.machines[id].outcomes.insert(token, outcome);
        assert!(earlier.is_none(), "operation {token} ended twice");
    }
}
