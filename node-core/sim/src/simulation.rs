//! Whole nodes over a virtual network, in virtual time.
//!
//! Everything that a driver does for a real node happens here in one queue of events: sockets with latency, RPC
//! endpoints, signatures, one timer per node. The same seed gives the same run, bit for bit.

use crate::{
    dice::Dice,
    machine::Machine,
    names::{REGISTRY, key_of, name},
    network::{OnSocket, Socket},
    order::Queue,
    world::{NodeId, Outcome, Token},
};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use node_core::{
    Instant, Name, Now, Timestamp,
    channel::Identity,
    node::{Access, Node, NodeConfig, Output, RouterPolicy, Stream},
    registry::{FetchFailure, Host, Record},
    session::Request,
    time::Duration,
};
use std::{
    collections::{HashMap, HashSet},
    task::{Context, Poll, Waker},
};

/// Answers RPC bodies: URL and body to an answer, or a failure; with the delay after which it arrives.
pub type Rpc = Box<dyn FnMut(&str, &str, Now) -> (Duration, Result<Vec<u8>, FetchFailure>)>;

/// Nodes, the network between them and the clock.
pub struct Simulation {
    /// The nodes.
    pub machines: Vec<Machine>,
    /// One way through the network.
    pub latency: Duration,
    /// Nodes that are further away than others: what one way to or from them takes beyond `latency`.
    pub remote: HashMap<NodeId, Duration>,
    /// The RPC endpoints.
    pub rpc: Rpc,
    /// Every message on every socket, from whom to whom, while recording is on.
    pub wire: Option<Vec<(NodeId, NodeId, Bytes)>>,
    /// What one way takes at most beyond that, each time anew.
    pub jitter: Duration,
    /// Whether what happens at one time happens in any order, but for what is in one pipe.
    pub shuffled: bool,
    /// A digest of everything that nodes have heard from outside, and when; kept while there is one.
    pub trace: Option<[u8; 32]>,
    pub(crate) now: Instant,
    pub(crate) queue: Queue,
    pub(crate) dice: Dice,
    pub(crate) sockets: Vec<Socket>,
    /// Sockets that may have something to send.
    pub(crate) live: HashSet<usize>,
    /// How often something has happened since time went on.
    rounds: u32,
    next: u64,
    seed: u64,
    /// Sockets that take nothing more: from whom to whom.
    pub stalled: HashSet<(NodeId, NodeId)>,
    /// Between whom nothing arrives, in no socket and in one direction, and nobody is told: from whom to whom. A socket
    /// that has lost something is not repaired by that.
    pub severed: HashSet<(NodeId, NodeId)>,
    /// Called for sockets at their creation, to tamper with what they carry: dialler, acceptor, direction.
    pub on_socket: Option<OnSocket>,
}

/// A router that hosts anybody and lets anybody call through it, guests too.
pub const OPEN_ROUTER: RouterPolicy = RouterPolicy {
    host: Access::Anyone,
    call: Access::Anyone,
    guests: true,
};

/// The wall clock when a simulation begins, in milliseconds since the Unix epoch.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

impl Simulation {
    /// Nobody is there yet.
    pub fn new(seed: u64) -> Self {
        Self {
            machines: Vec::new(),
            latency: Duration::from_millis(10),
            remote: HashMap::new(),
            rpc: Box::new(|_, _, _| (Duration::from_millis(5), Err(FetchFailure::Unreachable))),
            wire: None,
            jitter: Duration::ZERO,
            shuffled: false,
            trace: None,
            now: Instant::from_micros(1_000_000),
            queue: Queue::default(),
            dice: Dice::new(seed),
            sockets: Vec::new(),
            live: HashSet::new(),
            rounds: 0,
            next: 1,
            seed,
            stalled: HashSet::new(),
            severed: HashSet::new(),
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

    /// What chance depends on besides the dice.
    pub(crate) const fn salt(&self) -> u64 {
        self.seed
    }

    /// The simulation's clock.
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
        let address = address.or(listens);
        self.machines.push(Machine::new(node.clone(), key, address));
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
            early: false,
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

    /// Measures a round trip, after connecting if need be; `token` is [`token`](Self::token)'s.
    pub fn ping(&mut self, from: NodeId, to: &Name, token: Token) {
        self.machines[from].pings.push((token, to.clone()));
        self.act(from, |node, now, out| {
            node.connect(token, to, Duration::from_secs(30), now, out)
        });
    }

    /// Runs until `done` or until `limit` has passed; whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.flush();
            if done(self) {
                return true;
            }
            if !self.advance(end) {
                return done(self);
            }
        }
    }

    /// Goes on to whatever happens next, and lets it; false if that is after `end`: then it is `end`.
    pub(crate) fn advance(&mut self, end: Instant) -> bool {
        let Some(at) = self.next_time().filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.rounds = if at > self.now { 0 } else { self.rounds + 1 };
        assert!(self.rounds < 100_000, "nobody comes to rest at {at:?}");
        self.now = self.now.max(at);
        self.step();
        true
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
}
