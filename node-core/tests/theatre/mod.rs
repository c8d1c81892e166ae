//! Nodes between routers that have valid keys and lie: whatever a router does with circuits, and sees of them, is written here.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a module of tests"
)]

use bytes::{Bytes, BytesMut};
use ed25519_dalek::{Signer, SigningKey};
use nectar_sim::{EPOCH_MS, Simulation, direct, indirect, key_of, name};
use node_core::{
    Code, Instant, Name, Now, Timestamp,
    channel::{HelloInfo, Identity, Local, SignerTrust, responder},
    node::{Event as NodeEvent, Node, NodeConfig, Output, PeerState, Pipe, Route},
    registry::Host,
    session::{Event, Far, Request, Session, SessionConfig, Signal},
    time::Duration,
    wire::frame::{Frame, Response, next},
};
use std::{collections::HashMap, sync::Arc, task::Waker};

/// Which router.
pub type RouterId = usize;

/// One lie, told to whoever comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// None: the router does its work.
    Honest,
    /// Says that somebody else is calling.
    WrongFrom,
    /// Hides who is calling although it was not asked to.
    Nameless,
    /// Brings the circuit to somebody else.
    WrongTarget,
    /// Swallows the nth message of every circuit.
    Drop(usize),
    /// Brings the nth message twice.
    Repeat(usize),
    /// Changes one bit of the nth message.
    Flip(usize),
    /// Exchanges the nth message with the one after it.
    Swap(usize),
    /// Adds a message of its own before the nth.
    Inject(usize),
    /// Sends the nth message back where it came from.
    Reflect(usize),
    /// Gives everything after the nth message to another circuit.
    Cross(usize),
    /// Forwards nothing, and does everything else as it should.
    Forget,
}

/// How far the router's channel with one node is.
enum Stage {
    Message1,
    Message3(Box<responder::AwaitMessage3>),
    Attach(Box<node_core::channel::Channel>),
    Up(Box<Session<u64>>),
    Gone,
}

/// A node's socket to a router, and the router's end of it.
struct Line {
    pipe: Option<Pipe<u64>>,
    stage: Stage,
}

/// A router.
struct Router {
    local: Arc<Local>,
    key: SigningKey,
    lie: Lie,
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
    routers: Vec<Router>,
    pub now: Instant,
    /// Every byte that a router sees in clear.
    pub captured: Vec<u8>,
    /// By the router, and the circuit at its target.
    counts: HashMap<(RouterId, usize, u32), usize>,
    kept: HashMap<(RouterId, usize, u32), Bytes>,
    pub told: bool,
}

const ROUTERS: [&str; 2] = ["rho", "sigma"];

impl Theatre {
    /// Alice, bob and carol behind one router.
    pub fn new(lie: Lie) -> Self {
        Self::with(&[lie])
    }

    /// The same behind as many routers as there are lies.
    pub fn with(lies: &[Lie]) -> Self {
        let labels = &ROUTERS[..lies.len()];
        let records = [
            ("rho", direct("rho", 1)),
            ("sigma", direct("sigma", 2)),
            ("alice", indirect("alice", labels)),
            ("bob", indirect("bob", labels)),
            ("carol", indirect("carol", labels)),
        ];
        let routers = labels.iter().zip(lies).map(|(label, lie)| {
            let key = key_of(label);
            let local = Local {
                identity: Identity {
                    name: Some(name(label)),
                    key: key.verifying_key().to_bytes(),
                },
                hello: HelloInfo::default(),
                registries: [nectar_sim::REGISTRY].into(),
                clock_window: Duration::from_secs(120),
                signer: SignerTrust::default(),
            };
            Router {
                local: Arc::new(local),
                key,
                lie: *lie,
            }
        });
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
            lines: (0..lies.len())
                .map(|_| Line {
                    pipe: None,
                    stage: Stage::Gone,
                })
                .collect(),
            heard: Vec::new(),
            answers: Vec::new(),
            failures: Vec::new(),
            events: Vec::new(),
        });
        let mut stage = Self {
            clients: clients.into(),
            routers: routers.collect(),
            now: Instant::from_micros(1_000_000),
            captured: Vec::new(),
            counts: HashMap::new(),
            kept: HashMap::new(),
            told: false,
        };
        for at in 0..stage.clients.len() {
            stage.act(at, |node, now, out| node.start(now, out));
        }
        stage.run(Duration::from_secs(2));
        stage
    }

    pub fn wall(&self) -> Timestamp {
        Timestamp(EPOCH_MS + self.now.as_micros() / 1000)
    }

    fn act(&mut self, at: usize, work: impl FnOnce(&Node<u64>, Now, &mut Vec<Output<u64>>)) {
        let mut out = Vec::new();
        let now = Now {
            mono: self.now,
            wall: self.wall(),
        };
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
                    client.lines[usize::from(host.octets()[3]) - 1] = Line {
                        pipe: Some(pipe.clone()),
                        stage: Stage::Message1,
                    };
                    node.opened(&pipe, None);
                }
                Output::Close { pipe, .. } => {
                    let known = |line: &Line| line.pipe.as_ref().map(Pipe::id) == Some(pipe.id());
                    if let Some(line) = client.lines.iter_mut().find(|line| known(line)) {
                        line.pipe = None;
                        line.stage = Stage::Gone;
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
                    for router in 0..self.routers.len() {
                        self.exchange(at, router);
                    }
                }
            }
        }
    }

    fn exchange(&mut self, at: usize, router: RouterId) {
        while let Some(pipe) = self.clients[at].lines[router].pipe.clone() {
            let mut message = None;
            self.act(at, |node, now, out| {
                message = node.poll_transmit(&pipe, Waker::noop(), now, out)
            });
            let Some(message) = message else { break };
            self.router_hears(at, router, message);
        }
        let mut events = Vec::new();
        let now = self.now;
        while let Stage::Up(session) = &mut self.clients[at].lines[router].stage
            && let Some(record) = session.poll_transmit(now, false, &mut events)
        {
            self.deliver(at, router, record.freeze());
        }
        for event in events {
            self.router_acts(at, router, event);
        }
    }

    fn deliver(&mut self, at: usize, router: RouterId, message: Bytes) {
        if let Some(pipe) = self.clients[at].lines[router].pipe.clone() {
            self.act(at, |node, now, out| {
                node.handle_message(&pipe, message, now, out)
            });
        }
    }

    fn router_hears(&mut self, at: usize, router: RouterId, message: Bytes) {
        let (wall, now) = (self.wall(), self.now);
        let stage = std::mem::replace(&mut self.clients[at].lines[router].stage, Stage::Gone);
        let Router { local, key, .. } = &self.routers[router];
        self.clients[at].lines[router].stage = match stage {
            Stage::Message1 => {
                let state =
                    responder::start(local.clone(), &message, [at as u8; 32], wall).unwrap();
                let signature = key.sign(&state.request().message()).to_bytes();
                let (answer, state) = state.signed(signature).unwrap();
                self.clients[at].lines[router].stage = Stage::Message3(Box::new(state));
                self.deliver(at, router, answer.into());
                return;
            }
            Stage::Message3(state) => {
                let channel = state
                    .handle(&message, wall)
                    .unwrap()
                    .verify()
                    .unwrap()
                    .admit();
                Stage::Attach(Box::new(channel))
            }
            Stage::Attach(mut channel) => {
                let mut frames = channel.open(BytesMut::from(&message[..])).unwrap().freeze();
                let Some((_, _, Some(Frame::Attach(attach)))) = next(&mut frames).unwrap() else {
                    panic!("ATTACH")
                };
                let config = SessionConfig {
                    limits: Arc::default(),
                    mtu: 65_536,
                    instance: [7; 16],
                    agent: "router".into(),
                    secret: [5; 32].into(),
                };
                let mut events = Vec::new();
                let session = Session::accept(*channel, config, &attach, now, &mut events).unwrap();
                Stage::Up(Box::new(session))
            }
            Stage::Up(mut session) => {
                let mut events = Vec::new();
                session
                    .handle_record(BytesMut::from(&message[..]), now, &mut events)
                    .unwrap();
                self.clients[at].lines[router].stage = Stage::Up(session);
                for event in events {
                    self.router_acts(at, router, event);
                }
                return;
            }
            Stage::Gone => Stage::Gone,
        };
    }

    fn client(&self, name: &Name) -> usize {
        self.clients
            .iter()
            .position(|client| client.name == *name)
            .unwrap()
    }

    /// Works on a router's session with a node, if there is one.
    fn session<R>(
        &mut self,
        (router, at): (RouterId, usize),
        work: impl FnOnce(&mut Session<u64>) -> R,
    ) -> Option<R> {
        match &mut self.clients[at].lines[router].stage {
            Stage::Up(session) => Some(work(session)),
            _ => None,
        }
    }

    fn router_acts(&mut self, at: usize, router: RouterId, event: Event<u64>) {
        match event {
            Event::CircuitOpen {
                cid,
                window,
                to,
                first,
                ..
            } => {
                self.captured.extend_from_slice(&first);
                let target = match self.routers[router].lie {
                    Lie::WrongTarget => self.client(&name("carol")),
                    _ => self.client(&to),
                };
                let from = match self.routers[router].lie {
                    Lie::WrongFrom => Some(name("carol")),
                    Lie::Nameless => None,
                    _ => Some(self.clients[at].name.clone()),
                };
                let now = self.now;
                let far = Far::Hop {
                    session: at as u64,
                    cid,
                };
                // Its client may just be coming back.
                let Some(Some(there)) = self.session((router, target), |s| {
                    s.bring_circuit(from, window, first, far, now)
                }) else {
                    self.session((router, at), |s| {
                        s.close_circuit(cid, Code::TargetOffline, None)
                    });
                    return;
                };
                self.session((router, at), |s| {
                    assert!(s.bind_circuit(
                        cid,
                        Far::Hop {
                            session: target as u64,
                            cid: there,
                        },
                    ));
                });
            }
            Event::Circuit {
                far: Far::Hop { session, cid },
                signal,
            } => {
                self.forward(router, at, session as usize, cid, signal);
            }
            _ => {}
        }
    }

    fn forward(&mut self, router: RouterId, from: usize, to: usize, cid: u32, signal: Signal) {
        let Signal::Data(data) = signal else {
            self.session((router, to), |s| s.circuit_signal(cid, signal));
            return;
        };
        self.captured.extend_from_slice(&data);
        let count = self.counts.entry((router, to, cid)).or_default();
        *count += 1;
        let nth = *count;
        let mut send = vec![(to, cid, data.clone())];
        let lie = self.routers[router].lie;
        match lie {
            Lie::Drop(n) if n == nth => send.clear(),
            Lie::Forget => send.clear(),
            Lie::Repeat(n) if n == nth => send.push((to, cid, data)),
            Lie::Flip(n) if n == nth => {
                let mut altered = data.to_vec();
                let middle = altered.len() / 2;
                altered[middle] ^= 4;
                send = vec![(to, cid, altered.into())];
            }
            Lie::Swap(n) if n == nth => {
                self.kept.insert((router, to, cid), data);
                send.clear();
            }
            Lie::Swap(n) if n + 1 == nth => send.extend(
                self.kept
                    .remove(&(router, to, cid))
                    .map(|kept| (to, cid, kept)),
            ),
            Lie::Inject(n) if n == nth => send.insert(0, (to, cid, Bytes::from(vec![0x10; 64]))),
            Lie::Reflect(n) if n == nth => {
                let back = self.session((router, to), |s| match s.circuit_far(cid) {
                    Some(Far::Hop { cid, .. }) => Some(cid),
                    _ => None,
                });
                send = vec![(from, back.flatten().unwrap(), data)];
            }
            Lie::Cross(n) if nth > n => {
                let other = cid ^ 2;
                send = vec![(to, other, data)];
            }
            _ => {}
        }
        self.told |= send.len() != 1 || lie != Lie::Honest;
        for (to, cid, data) in send {
            self.session((router, to), |s| s.circuit_signal(cid, Signal::Data(data)));
        }
    }

    /// A router lies from now on.
    pub fn lies(&mut self, router: RouterId, lie: Lie) {
        self.routers[router].lie = lie;
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
