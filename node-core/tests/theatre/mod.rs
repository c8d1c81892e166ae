//! Nodes between routers that have valid keys and lie, in virtual time.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a module of tests"
)]

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use nectar_sim::{EPOCH_MS, Lie, LineId, LyingRouter, Simulation, direct, indirect, key_of, name};
use node_core::{
    Code, Instant, Name, Now, Timestamp,
    node::{Event as NodeEvent, Node, NodeConfig, Output, PeerState, Pipe, Route},
    registry::Host,
    session::Request,
    time::Duration,
    wire::frame::Response,
};
use std::task::Waker;

/// Which router.
pub type RouterId = usize;

/// A node's socket to a router.
struct Line {
    id: LineId,
    router: RouterId,
    pipe: Pipe<u64>,
}

/// A node that is connected to all routers.
pub struct Client {
    name: Name,
    key: SigningKey,
    pub node: Node<u64>,
    lines: Vec<Line>,
    pub heard: Vec<(Option<Name>, Bytes)>,
    pub answers: Vec<Response>,
    pub failures: Vec<Code>,
    pub events: Vec<NodeEvent>,
}

pub struct Theatre {
    pub clients: Vec<Client>,
    routers: Vec<LyingRouter>,
    pub now: Instant,
    /// Lines so far.
    lines: LineId,
}

const ROUTERS: [&str; 2] = ["rho", "sigma"];

impl Theatre {
    /// Alice, bob and carol behind one router.
    pub fn new(lie: Lie) -> Self {
        Self::with(&[lie])
    }

    /// The same behind as many routers as there are lies.
    pub fn with(lies: &[Lie]) -> Self {
        Self::of(lies, lies.len())
    }

    /// Alice is behind the first router alone: whom she calls she calls there first.
    pub fn called_over_the_first(lies: &[Lie]) -> Self {
        Self::of(lies, 1)
    }

    fn of(lies: &[Lie], of_alice: usize) -> Self {
        let labels = &ROUTERS[..lies.len()];
        let records = [
            ("rho", direct("rho", 1)),
            ("sigma", direct("sigma", 2)),
            ("alice", indirect("alice", &labels[..of_alice])),
            ("bob", indirect("bob", labels)),
            ("carol", indirect("carol", labels)),
        ];
        let routers = labels.iter().zip(lies);
        let routers = routers.map(|(label, lie)| LyingRouter::new(label, *lie));
        let clients = ["alice", "bob", "carol"].map(|label| Client {
            name: name(label),
            key: key_of(label),
            node: Node::new(
                NodeConfig {
                    direct: false,
                    ..Simulation::config(label, &records)
                },
                [label.as_bytes()[0]; 32],
            )
            .unwrap(),
            lines: Vec::new(),
            heard: Vec::new(),
            answers: Vec::new(),
            failures: Vec::new(),
            events: Vec::new(),
        });
        let mut stage = Self {
            clients: clients.into(),
            routers: routers.collect(),
            now: Instant::from_micros(1_000_000),
            lines: 0,
        };
        for at in 0..stage.clients.len() {
            stage.act(at, |node, now, out| node.start(now, out));
        }
        stage.run(Duration::from_secs(2));
        stage
    }

    pub fn time(&self) -> Now {
        Now {
            mono: self.now,
            wall: Timestamp(EPOCH_MS + self.now.as_micros() / 1000),
        }
    }

    fn act(&mut self, at: usize, work: impl FnOnce(&Node<u64>, Now, &mut Vec<Output<u64>>)) {
        let mut out = Vec::new();
        let now = self.time();
        let node = self.clients[at].node.clone();
        work(&node, now, &mut out);
        self.outputs(at, &node, now, out);
    }

    fn outputs(&mut self, at: usize, node: &Node<u64>, now: Now, outputs: Vec<Output<u64>>) {
        let mut more = Vec::new();
        for output in outputs {
            let client = &mut self.clients[at];
            match output {
                Output::Dial { pipe, address } => {
                    let Host::V4(host) = &address.host else {
                        panic!("an IPv4 address")
                    };
                    let router = usize::from(host.octets()[3]) - 1;
                    self.lines += 1;
                    client.lines.push(Line {
                        id: self.lines,
                        router,
                        pipe: pipe.clone(),
                    });
                    self.routers[router].handle_opened(self.lines);
                    node.opened(&pipe, None);
                }
                Output::Close { pipe, .. } => {
                    let known = |line: &Line| line.pipe.id() == pipe.id();
                    if let Some(found) = client.lines.iter().position(known) {
                        let Line { id, router, .. } = client.lines.remove(found);
                        self.routers[router].handle_ended(id, self.now);
                    }
                }
                Output::Sign { pipe, request } => {
                    let signature = client.key.sign(&request.message()).to_bytes();
                    node.signed(&pipe, Some(signature), now, &mut more);
                }
                Output::Request(incoming) => {
                    client
                        .heard
                        .push((incoming.from().cloned(), incoming.request.payload.clone()));
                    let echo = incoming.request.payload.clone();
                    incoming.respond(Response::Success(Some(echo)));
                }
                Output::Answered { response, .. } => client.answers.push(response),
                Output::Failed { failure, .. } => client.failures.push(failure.reason()),
                Output::Event(event) => client.events.push(event),
                other => drop(other),
            }
        }
        if !more.is_empty() {
            self.outputs(at, node, now, more);
        }
    }

    /// Runs nodes and routers for a while of virtual time, ten milliseconds at a step.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            for at in 0..self.clients.len() {
                self.act(at, |node, now, out| node.handle_timeout(now, out));
            }
            for _ in 0..20 {
                for at in 0..self.clients.len() {
                    self.node_speaks(at);
                }
                for router in 0..self.routers.len() {
                    self.router_speaks(router);
                }
            }
        }
    }

    fn node_speaks(&mut self, at: usize) {
        let pipes = self.clients[at].lines.iter();
        let pipes: Vec<_> = pipes.map(|line| line.pipe.clone()).collect();
        for pipe in pipes {
            loop {
                let mut message = None;
                self.act(at, |node, now, out| {
                    message = node.poll_transmit(&pipe, Waker::noop(), now, out)
                });
                let now = self.time();
                let mut lines = self.clients[at].lines.iter();
                let line = lines.find(|line| line.pipe.id() == pipe.id());
                let (Some(message), Some(line)) = (message, line) else {
                    break;
                };
                self.routers[line.router].handle_message(line.id, &message, now);
            }
        }
    }

    fn router_speaks(&mut self, router: RouterId) {
        while let Some((id, message)) = self.routers[router].poll_transmit(self.now) {
            let mut lines = self.clients.iter().enumerate().flat_map(|(at, client)| {
                let lines = client.lines.iter();
                lines.map(move |line| (at, line))
            });
            if let Some((at, line)) = lines.find(|(_, line)| line.id == id) {
                let pipe = line.pipe.clone();
                self.act(at, |node, now, out| {
                    node.handle_message(&pipe, message, now, out)
                });
            }
        }
    }

    /// Every byte of circuits that routers see in clear.
    pub fn captured(&self) -> Vec<u8> {
        let captured = self.routers.iter().map(LyingRouter::captured);
        captured.collect::<Vec<_>>().concat()
    }

    /// Whether a router's lie made a difference.
    pub fn told(&self) -> bool {
        self.routers.iter().any(LyingRouter::told)
    }

    /// A router lies from now on.
    pub fn lies(&mut self, router: RouterId, lie: Lie) {
        self.routers[router].lies(lie);
    }

    /// The router that carries a node's session with a peer.
    pub fn router_in_use(&self, at: usize, peer: &str) -> RouterId {
        let peers = self.clients[at].node.peers(self.now);
        let found = peers.into_iter().find(|known| known.name == name(peer));
        match found.map(|peer| peer.state) {
            Some(PeerState::Online {
                route: Route::Via(router),
                ..
            }) => ROUTERS
                .iter()
                .position(|label| name(label) == router)
                .unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Whether a node has a session with a router.
    pub fn knows(&self, at: usize, router: RouterId) -> bool {
        let peers = self.clients[at].node.peers(self.now);
        peers.into_iter().any(|peer| {
            peer.name == name(ROUTERS[router]) && matches!(peer.state, PeerState::Online { .. })
        })
    }

    pub fn ask(&mut self, from: usize, to: &str, payload: &[u8]) {
        let request = Request {
            protocol: "echo.1".into(),
            metadata: None,
            payload: Bytes::copy_from_slice(payload),
            early: false,
        };
        let to = name(to);
        self.act(from, |node, now, out| {
            node.request(0, &to, request, Some(Duration::from_secs(20)), now, out)
        });
    }
}
