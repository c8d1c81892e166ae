//! A world in virtual time: a simulation, a registry, and endpoints that show its chain.

use crate::{
    chain::View,
    names::{direct, indirect},
    registry::Registry,
    simulation::{EPOCH_MS, Simulation},
    world::{
        Accepted, Ask, CHAT, FILE, Harm, Inbox, NodeId, Outcome, Place, Plan, Token, Wire, World,
    },
};
use bytes::Bytes;
use node_core::{
    Code, Instant, Name,
    node::{Counts, PeerInfo, Stream},
    registry::{FetchFailure, Record},
    time::Duration,
};
use std::{cell::RefCell, ops::Range, rc::Rc};

/// An RPC endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is.
    pub url: Box<str>,
    /// How it shows the chain.
    pub view: View,
    /// How long it takes to answer.
    pub delay: Duration,
    /// How often it was asked.
    pub asked: usize,
}

impl Endpoint {
    /// An honest and prompt one.
    fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            view: View::Honest,
            delay: Duration::from_millis(5),
            asked: 0,
        }
    }
}

/// A simulation whose nodes resolve names on a chain. A block comes every two seconds of virtual time.
pub struct Town {
    /// The nodes, and the network between them.
    pub simulation: Simulation,
    /// Who is registered.
    pub registry: Rc<RefCell<Registry>>,
    /// Who answers reads of the chain.
    pub endpoints: Rc<RefCell<Vec<Endpoint>>>,
    /// Every body that an endpoint was asked.
    pub reads: Rc<RefCell<Vec<String>>>,
}

impl Town {
    /// A town without names, and one honest endpoint.
    pub fn new(seed: u64) -> Self {
        Self::with_endpoints(seed, &["http://rpc.test"])
    }

    /// A town without names, and honest endpoints at these URLs. Nothing answers at others.
    pub fn with_endpoints(seed: u64, urls: &[&str]) -> Self {
        let registry = Rc::new(RefCell::new(Registry::new(EPOCH_MS / 1000)));
        let endpoints = urls.iter().map(|url| Endpoint::new(url));
        let endpoints = Rc::new(RefCell::new(endpoints.collect::<Vec<_>>()));
        let reads = Rc::new(RefCell::new(Vec::new()));
        let mut simulation = Simulation::new(seed);
        let (on, seen, read) = (registry.clone(), endpoints.clone(), reads.clone());
        simulation.rpc = Box::new(move |url, body, now| {
            let mut endpoints = seen.borrow_mut();
            let Some(endpoint) = endpoints.iter_mut().find(|known| *known.url == *url) else {
                return (Duration::from_millis(5), Err(FetchFailure::Unreachable));
            };
            endpoint.asked += 1;
            read.borrow_mut().push(body.into());
            let chain = &mut on.borrow_mut().chain;
            // Blocks come with the world's clock, whatever the asking node's own clock says.
            let time = seconds(now.mono);
            while (chain.height() * 2 + EPOCH_MS / 1000) < time {
                let next = EPOCH_MS / 1000 + chain.height() * 2 + 2;
                chain.mine(next.min(time));
            }
            (endpoint.delay, Ok(chain.answer_as(&endpoint.view, body)))
        });
        Self {
            simulation,
            registry,
            endpoints,
            reads,
        }
    }

    /// Changes the chain; the change is in a block of its own, whose height is returned.
    pub fn mine(&mut self, change: impl FnOnce(&mut Registry)) -> u64 {
        let mut registry = self.registry.borrow_mut();
        change(&mut registry);
        registry.chain.mine(seconds(self.simulation.now()))
    }
}

/// The time of a block that is made now, in seconds since the Unix epoch.
pub(crate) fn seconds(now: Instant) -> u64 {
    EPOCH_MS / 1000 + now.as_micros() / 1_000_000
}

impl World for Town {
    type Stream = Stream<Token>;

    fn lenience() -> u32 {
        1
    }

    fn register(&mut self, labels: &[&str], place: Place<'_>) {
        self.mine(|registry| {
            for label in labels {
                // The network is 10.0.0.0/24.
                let host = registry.records().len() as u8 + 1;
                let record = match place {
                    Place::Direct => direct(label, host),
                    Place::Behind(routers) => indirect(label, routers),
                };
                registry.register(label, record);
            }
        });
    }

    fn change(&mut self, label: &str, change: impl FnOnce(&mut Record)) -> u64 {
        self.mine(|registry| registry.change(label, change))
    }

    fn undo(&mut self, height: u64) {
        let now = seconds(self.simulation.now());
        self.registry.borrow_mut().undo(height, now);
    }

    fn show(&mut self, endpoint: usize, view: View, delay: Duration) {
        let mut endpoints = self.endpoints.borrow_mut();
        if endpoint == endpoints.len() {
            endpoints.push(Endpoint::new(&format!("http://rpc-{endpoint}.test")));
        }
        let shown = &mut endpoints[endpoint];
        (shown.view, shown.delay) = (view, delay);
    }

    fn reads(&self, endpoint: usize) -> usize {
        self.endpoints.borrow()[endpoint].asked
    }

    fn start(&mut self, mut plan: Plan) -> NodeId {
        let registry = self.registry.borrow();
        let urls = |endpoints: &[Endpoint]| endpoints.iter().map(|at| at.url.clone()).collect();
        let rpcs = urls(&self.endpoints.borrow());
        let (key, address) = (plan.signing_key(), registry.address(&plan));
        let config = registry.config(&mut plan, rpcs);
        drop(registry);
        let node = self.simulation.add(config, key, address);
        let machine = &mut self.simulation.machines[node];
        (machine.hold_messages, machine.hold_requests) = (plan.stuck, plan.stuck);
        node
    }

    fn close(&mut self, node: NodeId) {
        let machine = &mut self.simulation.machines[node];
        // As a driver does: nobody is let in, what is queued leaves, then everybody who waits is told.
        machine.address = None;
        machine.node.shut_down(Code::GoingAway, Duration::ZERO);
        self.simulation.run_for(self.simulation.latency);
        self.simulation
            .act(node, |node, now, out| node.abandon(now, out));
    }

    fn kill(&mut self, node: NodeId) {
        self.simulation.kill(node);
    }

    fn is_reachable(&self, node: NodeId) -> bool {
        self.simulation.machines[node].node.is_reachable()
    }

    fn peers(&self, node: NodeId) -> Vec<PeerInfo> {
        let now = self.simulation.now();
        self.simulation.machines[node].node.peers(now)
    }

    fn counts(&self, node: NodeId) -> Counts {
        self.simulation.machines[node].node.counts()
    }

    fn ask(&mut self, from: NodeId, to: &Name, what: Ask) -> Token {
        let token = self.simulation.token();
        self.simulation
            .act(from, |node, now, out| match what.clone() {
                Ask::Request(request, within) => node.request(token, to, request, within, now, out),
                Ask::Message(payload) => node.message(token, to, CHAT, payload, now, out),
                Ask::Stream(metadata) => node.open_stream(token, to, FILE, metadata, now, out),
                Ask::Resolve => node.resolve(token, to, false, now, out),
                Ask::Ping => {}
            });
        if let Ask::Ping = what {
            self.simulation.ping(from, to, token);
        }
        token
    }

    fn ended(&mut self, node: NodeId, token: Token) -> Option<Outcome> {
        self.simulation.machines[node].outcomes.remove(&token)
    }

    fn inbox(&self, node: NodeId) -> Inbox {
        let machine = &self.simulation.machines[node];
        Inbox {
            requests: machine.requests.clone(),
            messages: machine.messages.clone(),
            events: machine.events.clone(),
        }
    }

    fn accept(&mut self, node: NodeId) -> Option<Accepted<Self::Stream>> {
        let streams = &mut self.simulation.machines[node].streams;
        let incoming = (!streams.is_empty()).then(|| streams.remove(0))?;
        Some(Accepted {
            from: incoming.from().cloned(),
            metadata: Bytes::clone(&incoming.metadata),
            stream: incoming.accept()?,
        })
    }

    fn wait(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.simulation.now() + limit;
        loop {
            self.simulation.flush();
            if done(self) {
                return true;
            }
            if !self.simulation.advance(end) {
                return done(self);
            }
        }
    }
}

impl Wire for Town {
    fn harm_some(&mut self, node: NodeId, which: Range<usize>, harm: Harm) {
        let accepted = self.simulation.accepted(node).skip(which.start);
        for socket in accepted.take(which.len()).collect::<Vec<_>>() {
            self.simulation.harm(socket, harm);
        }
    }

    fn dialled(&self, node: NodeId) -> usize {
        self.simulation.accepted(node).count()
    }
}
