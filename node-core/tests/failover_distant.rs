//! Sessions between nodes that are far from each other, with more than one route left when a router dies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{NodeId, Outcome, Simulation, direct, indirect, name};
use node_core::{
    Code,
    node::{Access, Event, PeerState, Route, RouterPolicy},
    session::Request,
    time::Duration,
    wire::frame::Response,
};

const ROUTERS: [&str; 3] = ["rho", "sigma", "tau"];

/// Alice and bob list three routers. The first three nodes are the routers.
fn net(seed: u64) -> (Simulation, NodeId, NodeId) {
    let records = [
        ("rho", direct("rho", 1)),
        ("sigma", direct("sigma", 2)),
        ("tau", direct("tau", 3)),
        ("alice", indirect("alice", &ROUTERS)),
        ("bob", indirect("bob", &ROUTERS)),
    ];
    let mut world = Simulation::new(seed);
    for label in ROUTERS {
        let mut config = Simulation::config(label, &records);
        config.router = RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false,
        };
        world.add_named(label, config);
    }
    let [alice, bob] =
        ["alice", "bob"].map(|label| world.add_named(label, Simulation::config(label, &records)));
    world.machines[bob].handler =
        Box::new(|request, _| Some(Response::Success(Some(request.payload.clone()))));
    (world, alice, bob)
}

fn ask(world: &mut Simulation, from: NodeId) {
    let token = world.token();
    let request = Request::new("echo.1", Bytes::from_static(b"far"));
    world.act(from, |node, now, out| {
        let timeout = Some(Duration::from_secs(60));
        node.request(token, &name("bob"), request, timeout, now, out)
    });
    let outcome = world.outcome(from, token);
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
}

/// How often a node lost its session with a peer since its events were cleared.
fn interruptions(world: &Simulation, node: NodeId, peer: &str) -> usize {
    let events = world.machines[node].events.iter();
    let interrupted = events.filter(|event| {
        matches!(event, Event::Peer { name: who, state: PeerState::Interrupted { .. }, .. }
            if *who == name(peer))
    });
    interrupted.count()
}

#[test]
fn a_session_between_distant_nodes_is_interrupted_once_however_many_routes_are_left() {
    for latency in [100, 300] {
        for seed in 0..5 {
            let (mut world, alice, bob) = net(seed);
            world.run_for(Duration::from_secs(1));
            ask(&mut world, alice);
            world.latency = Duration::from_millis(latency);
            world.run_for(Duration::from_secs(6));
            let peers = world.machines[alice].node.peers(world.now());
            let bobs = peers.into_iter().find(|peer| peer.name == name("bob"));
            let state = bobs.map(|peer| peer.state);
            let Some(PeerState::Online {
                route: Route::Via(router),
                ..
            }) = &state
            else {
                panic!("{state:?}")
            };
            let used = ROUTERS.iter().position(|label| name(label) == *router);
            for node in [alice, bob] {
                world.machines[node].events.clear();
            }
            world.kill(used.unwrap());
            world.run_for(Duration::from_secs(20));
            ask(&mut world, alice);
            for (node, peer) in [(alice, "bob"), (bob, "alice")] {
                let times = interruptions(&world, node, peer);
                assert_eq!(times, 1, "{latency} ms per hop, seed {seed}, {peer}");
            }
        }
    }
}

#[test]
fn a_session_goes_on_over_a_route_whose_answers_take_longer_than_two_seconds() {
    let (mut world, alice, bob) = net(7);
    world.latency = Duration::from_millis(600);
    world.run_for(Duration::from_secs(5));
    ask(&mut world, alice);
    for router in 0..ROUTERS.len() {
        world.cut(alice, router, Code::PipeLost);
    }
    world.run_for(Duration::from_secs(20));
    let peers = world.machines[alice].node.peers(world.now());
    let bobs = peers.into_iter().find(|peer| peer.name == name("bob"));
    let state = bobs.map(|peer| peer.state);
    assert!(matches!(state, Some(PeerState::Online { .. })), "{state:?}");
    let resumed = [alice, bob].map(|node| world.machines[node].node.counts().parked);
    assert_eq!(resumed, [0, 0]);
    for (node, peer) in [(alice, "bob"), (bob, "alice")] {
        assert_eq!(interruptions(&world, node, peer), 1, "{peer}");
    }
}
