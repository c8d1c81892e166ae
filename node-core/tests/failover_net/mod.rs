//! Two nodes behind two routers, and one with an address of its own: what becomes of what is under way between them when
//! something happens to the network.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a module that several test binaries share, each using its part"
)]

use bytes::Bytes;
use nectar_sim::{Dice, NodeId, Outcome, Simulation, Token, direct, indirect, name};
use node_core::{
    Instant, Name,
    node::{Access, Event, NodeConfig, PeerState, Route, RouterPolicy, Stream},
    session::Request,
    time::Duration,
    wire::frame::Response,
};
use std::{cell::RefCell, collections::HashMap, rc::Rc};

pub const MS: Duration = Duration::from_millis(1);

/// rho and sigma are routers; alice and bob list both, dan is direct.
pub struct Net {
    pub world: Simulation,
    pub rho: NodeId,
    pub sigma: NodeId,
    pub alice: NodeId,
    pub bob: NodeId,
    pub dan: NodeId,
    /// How often each payload was handled, by node.
    pub handled: Rc<RefCell<HashMap<Bytes, usize>>>,
}

pub fn config(label: &str) -> NodeConfig {
    let records = [
        ("rho", direct("rho", 1)),
        ("sigma", direct("sigma", 2)),
        ("dan", direct("dan", 3)),
        ("alice", indirect("alice", &["rho", "sigma"])),
        ("bob", indirect("bob", &["rho", "sigma"])),
    ];
    let mut config = Simulation::config(label, &records);
    // A hundred requests a second, so that a short interruption shows.
    config.limits.stranger_requests = u32::MAX;
    if ["rho", "sigma"].contains(&label) {
        config.router = RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: true,
        };
    }
    config
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    /// The same, with the nodes nearer to each other or further away: 5 to 15 ms per hop, and up to 5 ms more by chance.
    pub fn somewhere(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut world = Simulation::new(seed);
        world.latency = 5 * MS + Duration::from_micros(dice.roll(10_001));
        world.jitter = Duration::from_micros(dice.roll(5_001));
        Self::inhabit(world, |_| {})
    }

    pub fn with(seed: u64, change: impl Fn(&mut NodeConfig)) -> Self {
        Self::inhabit(Simulation::new(seed), change)
    }

    fn inhabit(mut world: Simulation, change: impl Fn(&mut NodeConfig)) -> Self {
        let [rho, sigma, alice, bob, dan] = ["rho", "sigma", "alice", "bob", "dan"].map(|label| {
            let mut config = config(label);
            change(&mut config);
            world.add_named(label, config)
        });
        let handled = Rc::new(RefCell::new(HashMap::new()));
        let mut net = Self {
            world,
            rho,
            sigma,
            alice,
            bob,
            dan,
            handled,
        };
        for node in [alice, bob, dan] {
            net.count(node);
        }
        net.world.run_for(Duration::from_secs(1));
        net
    }

    pub fn count(&mut self, node: NodeId) {
        let handled = self.handled.clone();
        self.world.machines[node].handler = Box::new(move |request, _| {
            *handled
                .borrow_mut()
                .entry(request.payload.clone())
                .or_default() += 1;
            Some(Response::Success(Some(request.payload.clone())))
        });
    }

    pub fn ask(&mut self, from: NodeId, to: &str, payload: &[u8], timeout: Duration) -> Token {
        let token = self.world.token();
        let request = Request::new("echo.1", Bytes::copy_from_slice(payload));
        self.world.act(from, |node, now, out| {
            node.request(token, &name(to), request, Some(timeout), now, out)
        });
        token
    }

    pub fn talk(&mut self, from: NodeId, to: &str) {
        let token = self.ask(from, to, to.as_bytes(), Duration::from_secs(30));
        assert!(matches!(
            self.world.outcome(from, token),
            Outcome::Answered(_)
        ));
    }

    /// The router that carries the session of alice with bob.
    pub fn router_in_use(&self) -> NodeId {
        let now = self.world.now();
        let peers = self.world.machines[self.alice].node.peers(now);
        let route = peers.into_iter().find(|peer| peer.name == name("bob"));
        match route.map(|peer| peer.state) {
            Some(PeerState::Online {
                route: Route::Via(router),
                ..
            }) if router == name("rho") => self.rho,
            Some(PeerState::Online {
                route: Route::Via(_),
                ..
            }) => self.sigma,
            other => panic!("{other:?}"),
        }
    }

    pub fn interrupted(&self, node: NodeId, peer: &str) -> bool {
        self.world.machines[node].events.iter().any(|event| {
            matches!(event, Event::Peer { name: who, state: PeerState::Interrupted { .. }, .. } if *who == name(peer))
        })
    }

    /// Whose sessions wait at dan.
    pub fn waiting_at_dan(&self) -> Vec<Name> {
        let node = &self.world.machines[self.dan].node;
        let peers = node.peers(self.world.now()).into_iter();
        peers
            .filter(|peer| matches!(peer.state, PeerState::Interrupted { .. }))
            .map(|peer| peer.name)
            .collect()
    }

    /// Requests at a steady pace, with something done to the network in between: how long the slowest took.
    pub fn pace(&mut self, to: &str, disturb: impl FnOnce(&mut Self), time: Duration) -> Duration {
        let mut disturb = Some(disturb);
        let mut asked: Vec<(Token, Instant)> = Vec::new();
        let mut slowest = Duration::ZERO;
        let begin = self.world.now();
        let mut number = 0_u32;
        loop {
            let now = self.world.now();
            if now.since(begin) < time {
                number += 1;
                let payload = [b"pace".as_slice(), &number.to_be_bytes()].concat();
                let token = self.ask(self.alice, to, &payload, Duration::from_secs(120));
                asked.push((token, now));
            } else if asked.is_empty() {
                break;
            }
            if number == 20
                && let Some(disturb) = disturb.take()
            {
                disturb(self);
            }
            let next = self.world.now() + 10 * MS;
            while self.world.now() < next {
                self.world.run_for(MS);
                let now = self.world.now();
                let machine = &mut self.world.machines[self.alice];
                asked.retain(|(token, began)| match machine.outcomes.remove(token) {
                    None => true,
                    Some(Outcome::Answered(_)) => {
                        slowest = slowest.max(now.since(*began));
                        false
                    }
                    Some(other) => panic!("{other:?}"),
                });
            }
            assert!(self.world.now().since(begin) < Duration::from_secs(300));
        }
        let handled = self.handled.borrow();
        let paced = handled
            .iter()
            .filter(|(payload, _)| payload.starts_with(b"pace"));
        assert_eq!(paced.clone().count(), number as usize);
        assert!(paced.clone().all(|(_, times)| *times == 1), "handled once");
        slowest
    }

    /// Opens a stream; both ends of it.
    pub fn open(&mut self, from: NodeId, to: NodeId, label: &str) -> [Stream<Token>; 2] {
        let token = self.world.open_stream(from, &name(label));
        let Outcome::Opened(ours) = self.world.outcome(from, token) else {
            panic!("opened")
        };
        let came = |world: &mut Simulation| !world.machines[to].streams.is_empty();
        assert!(self.world.run_until(Duration::from_secs(5), came));
        let theirs = self.world.machines[to].streams.pop().unwrap();
        [ours, theirs.accept().unwrap()]
    }
}
