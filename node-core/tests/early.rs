//! Requests that leave with the end of the handshake, in virtual time.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{
    NodeId, Outcome, Simulation, Token, Town, World, direct, indirect, name,
    world::{Place, Plan},
};
use node_core::{
    Code,
    node::{Access, NodeConfig, RouterPolicy},
    session::Request,
    time::Duration,
};

const LATENCY: Duration = Duration::from_millis(50);

fn early(world: &mut Simulation, from: NodeId, to: &str) -> Token {
    let token = world.token();
    let request = Request::new("echo.1", Bytes::from_static(b"early")).early();
    world.act(from, |node, now, out| {
        node.request(token, &name(to), request, None, now, out)
    });
    token
}

/// How long the answer takes.
fn answered(world: &mut Simulation, node: NodeId, token: Token) -> Duration {
    let begun = world.now();
    let outcome = world.outcome(node, token);
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    world.now().since(begun)
}

fn pair(change: impl FnOnce(&mut NodeConfig)) -> (Simulation, [NodeId; 2]) {
    let mut world = Simulation::new(1);
    world.latency = LATENCY;
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    let mut config = Simulation::config("bob", &records);
    change(&mut config);
    let bob = world.add_named("bob", config);
    (world, [alice, bob])
}

#[test]
fn an_early_request_is_answered_one_round_trip_sooner() {
    let (mut world, [alice, _]) = pair(|_| {});
    let token = world.request(alice, &name("bob"), b"later");
    let later = answered(&mut world, alice, token);
    let (mut world, [alice, _]) = pair(|_| {});
    let token = early(&mut world, alice, "bob");
    let sooner = answered(&mut world, alice, token);
    // The socket is opened; message 1 and 2; message 3 with the request, and the answer with what lets us in.
    assert_eq!(sooner, LATENCY * 6);
    assert_eq!(later, sooner + LATENCY * 2);
    // Afterwards there is a session like any other.
    let token = world.request(alice, &name("bob"), b"again");
    assert_eq!(answered(&mut world, alice, token), LATENCY * 2);
    let token = early(&mut world, alice, "bob");
    assert_eq!(answered(&mut world, alice, token), LATENCY * 2);
}

#[test]
fn an_early_request_through_a_router_takes_two_round_trips_of_that_way() {
    let mut world = Simulation::new(2);
    world.latency = LATENCY;
    let records = [
        ("rho", direct("rho", 1)),
        ("alice", indirect("alice", &["rho"])),
        ("bob", indirect("bob", &["rho"])),
    ];
    let [_, alice, _] = ["rho", "alice", "bob"].map(|label| {
        let mut config = Simulation::config(label, &records);
        config.router = RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false,
        };
        world.add_named(label, config)
    });
    world.run_for(Duration::from_secs(2));
    let token = early(&mut world, alice, "bob");
    assert_eq!(answered(&mut world, alice, token), LATENCY * 8);
}

#[test]
fn an_early_request_that_meets_a_refusal_says_that_its_outcome_is_unknown_and_why_it_was_refused() {
    let (mut world, [alice, bob]) = pair(|config| config.allow = Access::Nobody);
    let token = early(&mut world, alice, "bob");
    let Outcome::Failed(failure) = world.outcome(alice, token) else {
        unreachable!("nobody answers");
    };
    assert_eq!(failure.code, Code::OutcomeUnknown);
    assert_eq!(failure.cause, Some(Code::NotAllowed));
    assert!(world.machines[bob].requests.is_empty(), "nobody was asked");
}

#[test]
fn an_early_request_whose_socket_breaks_before_the_answer_is_handled_once_at_most_and_never_called_answered()
 {
    for after in 0..40 {
        let (mut world, [alice, bob]) = pair(|_| {});
        let token = early(&mut world, alice, "bob");
        world.run_for(LATENCY * 4 + Duration::from_millis(5) * after);
        world.cut(alice, bob, Code::PipeLost);
        let outcome = world.outcome(alice, token);
        let handled = world.machines[bob].requests.len();
        let fine = match &outcome {
            Outcome::Answered(_) => handled == 1,
            Outcome::Failed(failure) => failure.code == Code::OutcomeUnknown && handled <= 1,
            _ => false,
        };
        assert!(fine, "cut after {after}: {outcome:?}, handled {handled}");
    }
}

#[test]
fn an_early_request_can_be_cancelled_before_the_peer_has_let_us_in() {
    let (mut world, [alice, _]) = pair(|_| {});
    let token = early(&mut world, alice, "bob");
    world.run_for(LATENCY * 9 / 2);
    world.act(alice, |node, now, out| {
        node.cancel(&name("bob"), |other| *other == token, now, out)
    });
    let Outcome::Failed(failure) = world.outcome(alice, token) else {
        unreachable!("it was given up");
    };
    assert_eq!(failure.code, Code::Cancelled);
    // The session is there, and nothing is left over on it.
    let token = world.request(alice, &name("bob"), b"next");
    answered(&mut world, alice, token);
}

#[test]
fn whoever_says_all_that_it_may_before_it_is_let_in_is_heard_once_its_record_is_read() {
    for (requests, bytes) in [(2, 32_670), (15, 4_200), (50, 1_000)] {
        let mut town = Town::new(7);
        town.register(&["alice", "bob"], Place::Direct);
        let [alice, bob] = ["alice", "bob"].map(|label| town.start(Plan::named(label).on_chain()));
        let world = &mut town.simulation;
        let tokens: Vec<_> = (0..requests)
            .map(|_| {
                let token = world.token();
                let request = Request::new("echo.1", vec![0; bytes]).early();
                world.act(alice, |node, now, out| {
                    node.request(token, &name("bob"), request, None, now, out)
                });
                token
            })
            .collect();
        for token in tokens {
            let outcome = world.outcome(alice, token);
            assert!(
                matches!(outcome, Outcome::Answered(_)),
                "{requests} of {bytes} bytes: {outcome:?}"
            );
        }
        assert_eq!(world.machines[bob].requests.len(), requests);
    }
}
