//! Sessions of whole nodes whose sockets and routers die under them, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{NodeId, Outcome, Simulation, Token, direct, indirect, name};
use node_core::{
    Code, Instant, Name,
    node::{Access, Event, NodeConfig, PeerState, RouterPolicy},
    session::Request,
    time::Duration,
    wire::frame::Response,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    task::{Context, Poll, Waker},
};

const MS: Duration = Duration::from_millis(1);

/// rho and sigma are routers; alice and bob list both, dan is direct.
struct Net {
    world: Simulation,
    rho: NodeId,
    sigma: NodeId,
    alice: NodeId,
    bob: NodeId,
    dan: NodeId,
    /// How often each payload was handled, by node.
    handled: Rc<RefCell<HashMap<Bytes, usize>>>,
}

fn config(label: &str) -> NodeConfig {
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
    fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    fn with(seed: u64, change: impl Fn(&mut NodeConfig)) -> Self {
        let mut world = Simulation::new(seed);
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

    fn count(&mut self, node: NodeId) {
        let handled = self.handled.clone();
        self.world.machines[node].handler = Box::new(move |request, _| {
            *handled
                .borrow_mut()
                .entry(request.payload.clone())
                .or_default() += 1;
            Some(Response::Success(Some(request.payload.clone())))
        });
    }

    fn ask(&mut self, from: NodeId, to: &str, payload: &[u8], timeout: Duration) -> Token {
        let token = self.world.token();
        let request = Request::new("echo.1", Bytes::copy_from_slice(payload));
        self.world.act(from, |node, now, out| {
            node.request(token, &name(to), request, Some(timeout), now, out)
        });
        token
    }

    fn talk(&mut self, from: NodeId, to: &str) {
        let token = self.ask(from, to, to.as_bytes(), Duration::from_secs(30));
        assert!(matches!(
            self.world.outcome(from, token),
            Outcome::Answered(_)
        ));
    }

    /// The router that carries the session of alice with bob.
    fn router_in_use(&self) -> NodeId {
        let now = self.world.now();
        let peers = self.world.machines[self.alice].node.peers(now);
        let route = peers.into_iter().find(|peer| peer.name == name("bob"));
        match route.map(|peer| peer.state) {
            Some(PeerState::Online {
                route: node_core::node::Route::Via(router),
                ..
            }) if router == name("rho") => self.rho,
            Some(PeerState::Online {
                route: node_core::node::Route::Via(_),
                ..
            }) => self.sigma,
            other => panic!("{other:?}"),
        }
    }

    fn interrupted(&self, node: NodeId, peer: &str) -> bool {
        self.world.machines[node].events.iter().any(|event| {
            matches!(event, Event::Peer { name: who, state: PeerState::Interrupted { .. }, .. } if *who == name(peer))
        })
    }

    /// Whose sessions wait at dan.
    fn waiting_at_dan(&self) -> Vec<Name> {
        let node = &self.world.machines[self.dan].node;
        let peers = node.peers(self.world.now()).into_iter();
        peers
            .filter(|peer| matches!(peer.state, PeerState::Interrupted { .. }))
            .map(|peer| peer.name)
            .collect()
    }

    /// Requests at a steady pace, with something done to the network in between: how long the slowest took.
    fn pace(&mut self, to: &str, disturb: impl FnOnce(&mut Self), time: Duration) -> Duration {
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
}

/// The slowest request to bob over several networks, in each of which something is done to the router in use.
fn slowest(
    seeds: std::ops::Range<u64>,
    disturb: impl Fn(&mut Net, NodeId, u64),
    time: Duration,
) -> Duration {
    let over = |seed| {
        let mut net = Net::new(seed);
        net.talk(net.alice, "bob");
        let disturb = |net: &mut Net| {
            let router = net.router_in_use();
            disturb(net, router, seed);
        };
        let slowest = net.pace("bob", disturb, time);
        assert!(slowest > 50 * MS, "its end was noticed, seed {seed}");
        slowest
    };
    seeds.map(over).max().unwrap()
}

#[test]
fn when_the_router_in_use_is_killed_every_request_is_answered_once_within_300_ms() {
    let worst = slowest(
        0..10,
        |net, router, _| net.world.kill(router),
        Duration::from_secs(3),
    );
    println!("slowest request over ten kills, 10 ms per hop: {worst:?}");
    assert!(worst <= 300 * MS, "{worst:?}");
}

#[test]
fn when_the_router_in_use_freezes_every_request_is_answered_once_within_2_s() {
    let two = Duration::from_secs(2);
    let worst = slowest(0..10, |net, router, _| net.world.freeze(router), two);
    println!("slowest request over ten routers that freeze: {worst:?}");
    assert!(worst <= two, "{worst:?}");
}

#[test]
fn a_socket_that_is_cut_between_two_nodes_costs_no_request_whoever_dialled() {
    for (seed, code) in [
        (2, Code::PipeLost),
        (3, Code::Superseded),
        (4, Code::RecordForged),
    ] {
        let mut net = Net::new(seed);
        net.talk(net.alice, "dan");
        let slowest = net.pace(
            "dan",
            |net| net.world.cut(net.alice, net.dan, code),
            Duration::from_secs(1),
        );
        assert!(slowest <= 300 * MS, "{slowest:?}");
        assert_eq!(net.world.machines[net.dan].node.counts().parked, 0);
    }
}

#[test]
fn a_request_is_answered_once_although_its_answer_was_lost_with_the_socket() {
    let mut net = Net::new(5);
    net.talk(net.alice, "dan");
    net.world.silence(net.alice, net.dan);
    // The request is swallowed, or its answer.
    let first = net.ask(net.alice, "dan", b"swallowed", Duration::from_secs(20));
    net.world.run_for(5 * MS);
    net.world.cut(net.alice, net.dan, Code::PipeLost);
    assert!(matches!(
        net.world.outcome(net.alice, first),
        Outcome::Answered(_)
    ));
    let second = net.ask(
        net.alice,
        "dan",
        b"answer swallowed",
        Duration::from_secs(20),
    );
    net.world.run_for(5 * MS);
    net.world.silence(net.alice, net.dan);
    net.world.run_for(Duration::from_secs(1));
    assert_eq!(net.handled.borrow()[&b"answer swallowed"[..]], 1);
    assert!(!net.world.machines[net.alice].outcomes.contains_key(&second));
    net.world.cut(net.alice, net.dan, Code::PipeLost);
    assert!(matches!(
        net.world.outcome(net.alice, second),
        Outcome::Answered(_)
    ));
    assert!(net.handled.borrow().values().all(|times| *times == 1));
}

#[test]
fn a_stream_continues_in_the_middle_over_another_router() {
    let mut net = Net::new(6);
    net.talk(net.alice, "bob");
    let token = net.world.open_stream(net.alice, &name("bob"));
    let Outcome::Opened(ours) = net.world.outcome(net.alice, token) else {
        panic!("opened")
    };
    let data: Bytes = (0..3_000_000_u32).map(|at| ((at * 7) >> 5) as u8).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let (mut left, mut read) = (data.clone(), Vec::new());
    let mut theirs = None;
    let mut killed = 0;
    let done = net.world.run_until(Duration::from_secs(60), |_| false);
    assert!(!done);
    for _ in 0..4_000 {
        while !left.is_empty() {
            let mut piece = left.slice(..left.len().min(20_000));
            let length = piece.len();
            match ours.poll_write(&mut piece, &mut cx) {
                Poll::Ready(written) => written.unwrap(),
                Poll::Pending => break,
            }
            left = left.slice(length..);
            if left.is_empty() {
                ours.finish();
            }
        }
        net.world.run_for(5 * MS);
        if theirs.is_none() {
            let incoming = net.world.machines[net.bob].streams.pop();
            theirs = incoming.and_then(|incoming| incoming.accept());
        }
        let mut ended = false;
        if let Some(stream) = &theirs {
            loop {
                match stream.poll_read(&mut cx) {
                    Poll::Ready(Ok(Some(bytes))) => read.extend_from_slice(&bytes),
                    Poll::Ready(Ok(None)) => {
                        ended = true;
                        break;
                    }
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => break,
                }
            }
        }
        if killed == 0 && read.len() > 1_000_000 {
            let router = net.router_in_use();
            net.world.kill(router);
            killed = read.len();
        }
        if ended {
            break;
        }
    }
    assert!(killed > 0 && killed < data.len());
    assert!(read == data, "{} of {} bytes", read.len(), data.len());
}

#[test]
fn requests_in_flight_to_a_process_that_is_gone_are_never_reported_as_answered() {
    let mut net = Net::new(7);
    net.talk(net.alice, "dan");
    let token = net.ask(net.alice, "dan", b"lost", Duration::from_secs(90));
    net.world.run_for(5 * MS);
    net.world.kill(net.dan);
    let dan = net.world.add_named("dan", config("dan"));
    net.count(dan);
    // The new process does not know the session: the outcome is unknown, and new requests go to the new process.
    let Outcome::Failed(failure) = net.world.outcome(net.alice, token) else {
        panic!("nobody answered")
    };
    assert_eq!(failure.code, Code::OutcomeUnknown);
    net.talk(net.alice, "dan");
    assert_eq!(net.world.machines[net.alice].node.counts().parked, 0);
}

#[test]
fn a_session_that_begins_anew_after_a_refused_one_has_the_whole_handshakes_time() {
    let mut net = Net::new(41);
    net.talk(net.alice, "dan");
    // A round trip takes 1.4 s: asking for the old session and attaching a new one takes longer than an offer may.
    net.world.latency = Duration::from_millis(700);
    net.world.kill(net.dan);
    let dan = net.world.add_named("dan", config("dan"));
    net.count(dan);
    net.world.machines[net.alice].events.clear();
    net.world.run_for(Duration::from_secs(1));
    net.talk(net.alice, "dan");
    let attempts = net.world.machines[net.alice].events.iter();
    let attempts: Vec<_> = attempts
        .filter_map(|event| match event {
            Event::Attempt {
                name: to, result, ..
            } if *to == name("dan") => Some(*result),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [Ok(())]);
}

#[test]
fn past_the_window_a_sent_request_has_an_unknown_outcome_and_an_unsent_one_says_offline() {
    let mut net = Net::new(8);
    net.talk(net.alice, "dan");
    let sent = net.ask(net.alice, "dan", b"sent", Duration::from_secs(300));
    net.world.run_for(5 * MS);
    net.world.kill(net.dan);
    net.world.run_for(Duration::from_secs(1));
    let began = net.world.now();
    let unsent = net.ask(net.alice, "dan", b"unsent", Duration::from_secs(300));
    let Outcome::Failed(failure) = net.world.outcome(net.alice, unsent) else {
        panic!("dan is dead")
    };
    assert_eq!(failure.code, Code::Offline, "{failure}");
    assert!(net.world.now().since(began) < Duration::from_secs(10));
    let Outcome::Failed(failure) = net.world.outcome(net.alice, sent) else {
        panic!("dan is dead")
    };
    assert_eq!(failure.code, Code::OutcomeUnknown);
    let waited = net.world.now().since(began);
    assert!(
        waited > Duration::from_secs(57) && waited < Duration::from_secs(61),
        "{waited:?}"
    );
    net.world.run_for(Duration::from_secs(1));
    assert_eq!(net.world.machines[net.alice].node.counts().parked, 0);
    assert!(net.handled.borrow().get(&b"unsent"[..]).is_none());
}

#[test]
fn a_deadline_runs_while_a_session_waits() {
    let mut net = Net::new(9);
    net.talk(net.alice, "dan");
    let token = net.ask(net.alice, "dan", b"short", Duration::from_secs(5));
    net.world.run_for(5 * MS);
    net.world.kill(net.dan);
    let began = net.world.now();
    let Outcome::Failed(failure) = net.world.outcome(net.alice, token) else {
        panic!("dan is dead")
    };
    assert_eq!(failure.code, Code::Timeout);
    assert!(net.world.now().since(began) <= Duration::from_secs(5));
}

#[test]
fn both_sides_coming_back_at_once_end_with_one_session_and_lose_nothing() {
    for seed in 10..20 {
        let mut net = Net::new(seed);
        for (from, to) in [(net.alice, "bob"), (net.bob, "alice")] {
            net.world.act(from, |node, now, out| {
                node.keep(&name(to), true, None, now, out)
            });
        }
        net.talk(net.alice, "bob");
        net.world.run_for(Duration::from_secs(6));
        let slowest = net.pace(
            "bob",
            |net| {
                let router = net.router_in_use();
                let back = net.ask(net.bob, "alice", b"back", Duration::from_secs(60));
                net.world.run_for(3 * MS);
                net.world.kill(router);
                net.world.run_for(Duration::from_secs(2));
                assert!(matches!(
                    net.world.machines[net.bob].outcomes.remove(&back),
                    Some(Outcome::Answered(_))
                ));
            },
            Duration::from_secs(4),
        );
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        net.world.run_for(Duration::from_secs(40));
        // One with each living router, one with each other; those with the dead router wait or are over.
        for node in [net.alice, net.bob] {
            assert_eq!(net.world.machines[node].node.counts().sessions, 2);
        }
        assert_eq!(net.handled.borrow()[&b"back"[..]], 1);
    }
}

#[test]
fn a_second_process_of_a_name_does_not_get_what_waits_for_the_first() {
    let mut net = Net::new(21);
    net.talk(net.alice, "dan");
    // dan asks alice; the answer waits at alice when the socket dies.
    net.world.machines[net.alice].hold_requests = true;
    net.ask(net.dan, "alice", b"secret answer", Duration::from_secs(50));
    net.world.run_for(Duration::from_secs(1));
    net.world.machines[net.alice].hold_requests = false;
    net.world.freeze(net.dan);
    net.world.cut(net.alice, net.dan, Code::PipeLost);
    let second = net.world.add_named("dan", config("dan"));
    net.count(second);
    net.talk(second, "alice");
    net.world.run_for(Duration::from_secs(5));
    let held = net.world.machines[net.alice].held_requests.pop().unwrap();
    assert!(
        !held.respond(Response::Success(Some("secret answer".into()))),
        "there is nobody any more who may hear it"
    );
    net.world.run_for(Duration::from_secs(5));
    assert!(net.world.machines[second].outcomes.is_empty());
    assert_eq!(
        net.world.machines[net.alice].node.counts().parked,
        0,
        "the first one's is over"
    );
}

#[test]
fn sessions_that_wait_are_bounded_in_number_and_bytes() {
    let mut net = Net::with(22, |config| {
        config.limits.parked_sessions = 1;
        config.limits.session_kept = Duration::from_secs(1000);
    });
    net.talk(net.bob, "dan");
    net.talk(net.alice, "dan");
    for node in [net.alice, net.bob] {
        net.world.machines[node].dead = true;
        net.world.cut(node, net.dan, Code::PipeLost);
        net.world.run_for(Duration::from_secs(1));
    }
    let counts = net.world.machines[net.dan].node.counts();
    assert_eq!(counts.parked, 1);
    let left = net.waiting_at_dan();
    assert_eq!(left, [name("bob")], "the one that waited longest ended");

    let mut net = Net::with(23, |config| {
        config.limits.parked_bytes = 100_000;
        config.limits.session_kept = Duration::from_secs(1000);
    });
    for (node, to, length) in [(net.alice, "alice", 80_000), (net.bob, "bob", 30_000)] {
        net.talk(node, "dan");
        let payload = vec![1; length];
        let stream = net.world.open_stream(net.dan, &name(to));
        let Outcome::Opened(stream) = net.world.outcome(net.dan, stream) else {
            panic!("opened")
        };
        let mut data = Bytes::from(payload);
        let mut cx = Context::from_waker(Waker::noop());
        net.world.machines[node].dead = true;
        assert!(stream.poll_write(&mut data, &mut cx).is_ready());
        net.world.run_for(MS);
        net.world.cut(node, net.dan, Code::PipeLost);
        net.world.run_for(Duration::from_secs(1));
        std::mem::forget(stream);
    }
    let counts = net.world.machines[net.dan].node.counts();
    assert_eq!(counts.parked, 1);
    let left = net.waiting_at_dan();
    assert_eq!(left, [name("bob")], "the larger one ended");
}

#[test]
fn a_session_that_is_closed_over_a_circuit_is_over_and_does_not_wait() {
    let mut net = Net::new(24);
    net.talk(net.alice, "bob");
    net.world.run_for(Duration::from_secs(1));
    net.world
        .act(net.alice, |node, _, _| node.shut_down(Code::GoingAway, MS));
    net.world.run_for(Duration::from_secs(5));
    assert!(!net.interrupted(net.bob, "alice"));
    assert_eq!(net.world.machines[net.bob].node.counts().parked, 0);
}

#[test]
fn a_router_that_restarts_as_planned_costs_no_request() {
    let restarts = |net: &mut Net, router, _| {
        net.world.act(router, |node, _, _| {
            node.shut_down(Code::GoingAway, Duration::from_secs(5))
        });
    };
    let worst = slowest(30..36, restarts, Duration::from_secs(3));
    println!("slowest request over six planned restarts, 10 ms per hop: {worst:?}");
    assert!(worst <= 300 * MS, "{worst:?}");
}

#[test]
fn one_way_loss_is_noticed_and_costs_no_request() {
    // What goes one way between the router and alice is swallowed; the other way it still arrives.
    let severed = |net: &mut Net, router, seed| {
        let ways = [(router, net.alice), (net.alice, router)];
        net.world.stalled.insert(ways[seed as usize % 2]);
    };
    let two = Duration::from_secs(2);
    let worst = slowest(40..50, severed, two);
    println!("slowest request over a router that is heard no more, or hears no more: {worst:?}");
    assert!(worst <= two, "{worst:?}");
}

#[test]
fn a_peer_that_died_without_a_word_is_noticed_within_20_s_although_nothing_is_asked_of_it() {
    for (dies, lives) in [("alice", "dan"), ("dan", "alice")] {
        let mut net = Net::new(60);
        net.talk(net.alice, "dan");
        let (dies, stays) = match dies {
            "alice" => (net.alice, net.dan),
            _ => (net.dan, net.alice),
        };
        net.world.run_for(Duration::from_secs(7));
        net.world.freeze(dies);
        net.world.run_for(Duration::from_secs(20));
        let parked = net.world.machines[stays].node.counts().parked;
        assert!(parked > 0, "{lives} knows");
    }
}
