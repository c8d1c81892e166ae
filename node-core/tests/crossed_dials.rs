//! Two nodes that dial each other at once, near and far, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{NodeId, Outcome, Simulation, Token, direct, indirect, name};
use node_core::{
    Code,
    node::{Access, RouterPolicy},
    registry::Record,
    session::Request,
    time::Duration,
    wire::frame::Response,
};

const MS: Duration = Duration::from_millis(1);
const LABELS: [&str; 2] = ["alice", "bob"];

fn begin(seed: u64, records: &[(&str, Record)], latency: Duration) -> (Simulation, [NodeId; 2]) {
    let mut world = Simulation::new(seed);
    world.latency = latency;
    for (label, _) in &records[2..] {
        let mut config = Simulation::config(label, records);
        config.router = RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false,
        };
        world.add_named(label, config);
    }
    let nodes = LABELS.map(|label| world.add_named(label, Simulation::config(label, records)));
    (world, nodes)
}

/// Asks something that has an hour for its answer.
fn ask(world: &mut Simulation, from: NodeId, to: &str, payload: &'static [u8]) -> Token {
    let token = world.token();
    let request = Request::new("echo.1", Bytes::from_static(payload));
    let hour = Some(Duration::from_secs(3600));
    world.act(from, |node, now, out| {
        node.request(token, &name(to), request, hour, now, out)
    });
    token
}

fn answer_all(world: &mut Simulation, node: NodeId) {
    world.machines[node].hold_requests = false;
    for incoming in std::mem::take(&mut world.machines[node].held_requests) {
        let payload = incoming.request.payload.clone();
        incoming.respond(Response::Success(Some(payload)));
    }
}

/// Both ask at once, and are answered after `wait`: every request exactly once, and in the end one session is left.
fn crossed(records: &[(&str, Record)], seed: u64, latency: Duration, wait: Duration) {
    let (mut world, nodes) = begin(seed, records, latency);
    if records.len() > 2 {
        let reachable = world.run_until(Duration::from_secs(60), |world| {
            nodes
                .iter()
                .all(|node| world.machines[*node].node.is_reachable())
        });
        assert!(reachable, "seed {seed}");
    }
    let others = world.machines[nodes[0]].node.counts().sessions;
    let mut tokens = Vec::new();
    for node in nodes {
        world.machines[node].hold_requests = true;
    }
    for (node, to) in [(0, "bob"), (1, "alice")] {
        tokens.push((node, ask(&mut world, nodes[node], to, b"at once")));
        world.run_for(latency * u32::try_from(seed % 8).unwrap() / 2);
    }
    // What is begun while they find out goes the same ways.
    for _ in 0..10 {
        world.run_for(latency);
        for (node, to) in [(0, "bob"), (1, "alice")] {
            tokens.push((node, ask(&mut world, nodes[node], to, b"meanwhile")));
        }
    }
    world.run_for(wait);
    for node in nodes {
        answer_all(&mut world, node);
    }
    for (node, token) in tokens {
        let outcome = world.outcome(nodes[node], token);
        assert!(
            matches!(outcome, Outcome::Answered(Response::Success(_))),
            "{outcome:?}, seed {seed}, {latency:?} a hop"
        );
    }
    for node in nodes {
        let asked = &world.machines[node].requests;
        assert_eq!(asked.len(), 11, "each is handled once, seed {seed}");
    }
    let settled = world.run_until(Duration::from_secs(60), |world| {
        nodes
            .iter()
            .all(|node| world.machines[*node].node.counts().sessions == others + 1)
    });
    assert!(
        settled,
        "one session is left, seed {seed}, {latency:?} a hop"
    );
}

#[test]
fn nodes_that_dial_each_other_keep_one_session_and_lose_nothing_however_long_it_takes() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    for seed in 0..24 {
        for latency in [MS, MS * 40, MS * 300] {
            crossed(&records, seed, latency, Duration::from_secs(90));
        }
    }
}

#[test]
fn nodes_behind_the_same_three_routers_do_so_too() {
    let routers = ["rho", "sigma", "tau"];
    let records = [
        ("alice", indirect("alice", &routers)),
        ("bob", indirect("bob", &routers)),
        ("rho", direct("rho", 3)),
        ("sigma", direct("sigma", 4)),
        ("tau", direct("tau", 5)),
    ];
    for seed in 0..12 {
        for latency in [MS, MS * 40, MS * 300] {
            crossed(&records, seed, latency, Duration::from_secs(90));
        }
    }
}

#[test]
fn a_node_and_its_peers_router_that_dial_each_other_keep_one_session_although_one_carries_a_circuit()
 {
    // Of some names the router's hash is the lower one: it decides.
    for label in ["rho", "sigma", "tau", "phi", "chi", "psi"] {
        let records = [
            ("alice", direct("alice", 1)),
            ("bob", indirect("bob", &[label])),
            (label, direct(label, 3)),
        ];
        for step in 0..8 {
            let (mut world, [alice, bob]) = begin(step, &records, MS * 40);
            let router = 0;
            world.run_for(Duration::from_secs(2));
            let called = ask(&mut world, router, "alice", b"from the router");
            world.run_for(u32::try_from(step).unwrap() * MS * 10);
            let token = ask(&mut world, alice, "bob", b"over the router");
            for (node, token) in [(alice, token), (router, called)] {
                let outcome = world.outcome(node, token);
                assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
            }
            world.run_for(Duration::from_secs(60));
            let sessions =
                [alice, bob, router].map(|node| world.machines[node].node.counts().sessions);
            assert_eq!(sessions, [2, 2, 2], "{label}, step {step}");
        }
    }
}

#[test]
fn a_router_that_calls_over_another_one_is_no_obstacle_to_whoever_dials_it_for_a_circuit() {
    let records = [
        ("alice", indirect("alice", &["rho"])),
        ("bob", indirect("bob", &["sigma"])),
        ("rho", direct("rho", 3)),
        ("sigma", direct("sigma", 4)),
    ];
    for step in 0..24 {
        let (mut world, [alice, _]) = begin(step, &records, MS * 40);
        let sigma = 1;
        world.run_for(Duration::from_secs(2));
        let called = ask(&mut world, sigma, "alice", b"over rho");
        world.run_for(u32::try_from(step).unwrap() * MS * 20);
        let token = ask(&mut world, alice, "bob", b"over sigma");
        for (node, token) in [(alice, token), (sigma, called)] {
            let outcome = world.outcome(node, token);
            assert!(
                matches!(outcome, Outcome::Answered(_)),
                "{outcome:?}, step {step}"
            );
        }
    }
}

#[test]
fn what_is_asked_while_the_other_side_looks_for_the_same_session_waits_for_it() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    for step in 0..96 {
        let (mut world, [alice, bob]) = begin(step, &records, MS * 40);
        let token = ask(&mut world, alice, "bob", b"before");
        let outcome = world.outcome(alice, token);
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        world.run_for(Duration::from_secs(5));
        // Alice dials again at once, and may ask for the session over what is then cut as well.
        world.cut(alice, bob, Code::PipeLost);
        world.run_for(u32::try_from(step).unwrap() * MS * 5);
        world.cut(alice, bob, Code::PipeLost);
        let token = ask(&mut world, bob, "alice", b"meanwhile");
        let outcome = world.outcome(bob, token);
        assert!(
            matches!(outcome, Outcome::Answered(_)),
            "{outcome:?}, step {step}"
        );
    }
}

#[test]
fn what_is_begun_on_a_session_that_was_given_up_while_it_moved_to_another_router_is_answered() {
    let routers = ["rho", "sigma"];
    let records = [
        ("alice", indirect("alice", &routers)),
        ("bob", indirect("bob", &routers)),
        ("rho", direct("rho", 3)),
        ("sigma", direct("sigma", 4)),
    ];
    for step in 0..10 {
        let latency = MS * 100 + MS * 10 * step;
        let (mut world, [alice, bob]) = begin(0, &records, latency);
        world.run_for(Duration::from_secs(20));
        ask(&mut world, alice, "bob", b"at once");
        ask(&mut world, bob, "alice", b"at once");
        world.run_for(latency * 9);
        // Alice hears nothing over rho any more: neither that Bob gives up the session over it, while she looks for another way.
        world.stalled.insert((0, alice));
        world.run_for(Duration::from_secs(30));
        let asked: Vec<_> = (0..70)
            .map(|_| {
                world.run_for(MS * 150);
                ask(&mut world, alice, "bob", b"late")
            })
            .collect();
        for token in asked {
            let outcome = world.outcome(alice, token);
            let answered = matches!(outcome, Outcome::Answered(Response::Success(_)));
            assert!(answered, "{outcome:?}, {latency:?} a hop");
        }
    }
}
