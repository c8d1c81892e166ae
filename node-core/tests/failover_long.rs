//! Interruptions that last: sleep, another address, hours without a chain. In virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{
    NodeId, Outcome, Simulation, Token, Town, World, direct, indirect, name,
    world::{Place, Plan},
};
use node_core::{
    Code,
    node::{Access, Event, NodeConfig, RouterPolicy},
    session::Request,
    time::Duration,
    wire::frame::Response,
};

const MINUTE: Duration = Duration::from_secs(60);

/// alice and bob behind the routers rho and sigma.
fn routed(seed: u64) -> (Simulation, [NodeId; 4]) {
    let records = [
        ("rho", direct("rho", 1)),
        ("sigma", direct("sigma", 2)),
        ("alice", indirect("alice", &["rho", "sigma"])),
        ("bob", indirect("bob", &["rho", "sigma"])),
    ];
    let mut world = Simulation::new(seed);
    let nodes = ["rho", "sigma", "alice", "bob"].map(|label| {
        let mut config = Simulation::config(label, &records);
        if ["rho", "sigma"].contains(&label) {
            config.router = RouterPolicy {
                host: Access::Anyone,
                call: Access::Anyone,
                guests: false,
            };
        }
        world.add_named(label, config)
    });
    world.run_for(Duration::from_secs(1));
    (world, nodes)
}

fn ask(world: &mut Simulation, from: NodeId, to: &str, timeout: Duration) -> Token {
    let token = world.token();
    let request = Request::new("echo.1", Bytes::from_static(b"anybody there?"));
    world.act(from, |node, now, out| {
        node.request(token, &name(to), request, Some(timeout), now, out)
    });
    token
}

#[test]
fn a_node_that_has_slept_for_ten_minutes_talks_again_within_seconds_and_reports_nothing_false() {
    for seed in 0..8 {
        let (mut world, [_, _, alice, bob]) = routed(seed);
        let before = ask(&mut world, alice, "bob", MINUTE);
        assert!(matches!(world.outcome(alice, before), Outcome::Answered(_)));
        world.machines[bob].hold_requests = true;
        let under_way = ask(&mut world, alice, "bob", MINUTE * 60);
        world.run_for(Duration::from_secs(1));
        world.put_to_sleep(alice);
        world.run_for(MINUTE * 10);
        world.machines[bob].hold_requests = false;
        world.machines[bob].held_requests.clear();
        world.wake(alice);
        let began = world.now();
        let after = ask(&mut world, alice, "bob", MINUTE);
        let outcome = world.outcome(alice, after);
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        let took = world.now().since(began);
        assert!(took <= Duration::from_secs(10), "seed {seed}: {took:?}");
        // Its session was past the window of the other side.
        match world.outcome(alice, under_way) {
            Outcome::Failed(failure) => assert_eq!(failure.code, Code::OutcomeUnknown),
            other => panic!("{other:?}"),
        }
        // The other way round it is reachable as well.
        let back = ask(&mut world, bob, "alice", MINUTE);
        assert!(matches!(world.outcome(bob, back), Outcome::Answered(_)));
    }
}

#[test]
fn a_node_that_moves_to_another_address_goes_on_with_its_sessions() {
    let mut worst = Duration::ZERO;
    for seed in 10..18 {
        let (mut world, [_, _, alice, bob]) = routed(seed);
        let before = ask(&mut world, alice, "bob", MINUTE);
        assert!(matches!(world.outcome(alice, before), Outcome::Answered(_)));
        world.machines[bob].hold_requests = true;
        let under_way = ask(&mut world, alice, "bob", MINUTE * 5);
        world.run_for(Duration::from_secs(1));
        // Nobody is told that its sockets lead nowhere now.
        world.move_away(alice);
        let began = world.now();
        let after = ask(&mut world, alice, "bob", MINUTE);
        let heard = world.run_until(MINUTE, |world| world.machines[bob].held_requests.len() == 2);
        assert!(heard, "seed {seed}");
        worst = worst.max(world.now().since(began));
        for held in std::mem::take(&mut world.machines[bob].held_requests) {
            held.respond(Response::Success(None));
        }
        for token in [under_way, after] {
            let outcome = world.outcome(alice, token);
            assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        }
        let asked = world.machines[bob].requests.len();
        assert_eq!(asked, 3, "each is handled once");
    }
    println!("slowest request over eight changes of address, 10 ms per hop: {worst:?}");
    assert!(worst <= Duration::from_secs(3), "{worst:?}");
}

#[test]
fn sessions_live_on_for_an_hour_without_any_endpoint_and_come_back_to_new_blocks() {
    let mut town = Town::new(30);
    town.register(&["rho"], Place::Direct);
    town.register(&["alice", "bob"], Place::Behind(&["rho"]));
    town.register(&["carol"], Place::Direct);
    town.start(Plan::router("rho").on_chain());
    let [alice, bob, _] =
        ["alice", "bob", "carol"].map(|label| town.start(Plan::named(label).on_chain()));
    let world = &mut town.simulation;
    world.run_for(Duration::from_secs(2));
    let before = ask(world, alice, "bob", MINUTE);
    assert!(matches!(world.outcome(alice, before), Outcome::Answered(_)));
    let endpoints = town.endpoints.take();
    for minute in 0..60 {
        town.simulation.run_for(MINUTE);
        for (from, to) in [(alice, "bob"), (bob, "alice")] {
            let token = ask(&mut town.simulation, from, to, MINUTE);
            let outcome = town.simulation.outcome(from, token);
            assert!(
                matches!(outcome, Outcome::Answered(_)),
                "minute {minute}: {outcome:?}"
            );
        }
    }
    let stranger = ask(&mut town.simulation, alice, "carol", MINUTE);
    match town.simulation.outcome(alice, stranger) {
        Outcome::Failed(failure) => assert_eq!(failure.cause, Some(Code::RpcUnreachable)),
        other => panic!("{other:?}"),
    }
    town.endpoints.replace(endpoints);
    town.simulation.run_for(MINUTE);
    let again = ask(&mut town.simulation, alice, "carol", MINUTE);
    assert!(matches!(
        town.simulation.outcome(alice, again),
        Outcome::Answered(_)
    ));
}

#[test]
fn without_any_endpoint_a_session_that_loses_its_socket_goes_on_and_nobody_begins_a_new_one() {
    let mut town = Town::new(31);
    town.register(&["alice", "bob"], Place::Direct);
    let [alice, bob] = ["alice", "bob"].map(|label| town.start(Plan::named(label).on_chain()));
    let before = ask(&mut town.simulation, alice, "bob", MINUTE);
    assert!(matches!(
        town.simulation.outcome(alice, before),
        Outcome::Answered(_)
    ));
    let endpoints = town.endpoints.take();
    // What was read is no longer believed by itself.
    town.simulation.run_for(MINUTE * 10);
    for _ in 0..3 {
        town.simulation.machines[bob].hold_requests = true;
        let under_way = ask(&mut town.simulation, alice, "bob", MINUTE);
        town.simulation.run_for(Duration::from_secs(1));
        town.simulation.cut(alice, bob, Code::PipeLost);
        town.simulation.run_for(Duration::from_secs(10));
        town.simulation.machines[bob].hold_requests = false;
        for held in std::mem::take(&mut town.simulation.machines[bob].held_requests) {
            held.respond(Response::Success(None));
        }
        let outcome = town.simulation.outcome(alice, under_way);
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    }
    // Whoever has alice's key but not her session is not let in before the chain vouches for the key.
    town.simulation.kill(alice);
    let knows_bob = |config: &mut NodeConfig| {
        config.pinned.push((name("bob"), direct("bob", 2)));
    };
    let again = town.start(Plan::named("alice").on_chain().with(knows_bob));
    let refused = ask(&mut town.simulation, again, "bob", MINUTE);
    match town.simulation.outcome(again, refused) {
        Outcome::Failed(failure) => assert_eq!(failure.cause, Some(Code::ChainUnavailable)),
        other => panic!("{other:?}"),
    }
    let heard = town.simulation.machines[bob].requests.len();
    assert_eq!(heard, 4);
    town.endpoints.replace(endpoints);
    town.simulation.run_for(MINUTE);
    let after = ask(&mut town.simulation, again, "bob", MINUTE);
    assert!(matches!(
        town.simulation.outcome(again, after),
        Outcome::Answered(_)
    ));
}

/// When `node` reached `peer` over another pipe.
fn reached(world: &Simulation, node: NodeId, peer: &str) -> usize {
    let is_it = |event: &&Event| matches!(event, Event::Attempt { name: to, result: Ok(()), .. } if *to == name(peer));
    world.machines[node].events.iter().filter(is_it).count()
}

#[test]
fn a_channel_is_renewed_once_between_ten_and_fourteen_hours_and_what_is_under_way_goes_on() {
    for seed in 40..44 {
        let mut town = Town::new(seed);
        town.register(&["alice", "bob"], Place::Direct);
        let [alice, bob] = ["alice", "bob"].map(|label| town.start(Plan::named(label)));
        let world = &mut town.simulation;
        let before = ask(world, alice, "bob", MINUTE);
        assert!(matches!(world.outcome(alice, before), Outcome::Answered(_)));
        assert_eq!(reached(world, alice, "bob"), 1);
        world.machines[bob].hold_requests = true;
        let under_way = ask(world, alice, "bob", MINUTE * 60 * 24);
        world.run_for(MINUTE * 60 * 10 - MINUTE);
        assert_eq!(reached(world, alice, "bob"), 1, "seed {seed}: too early");
        world.run_for(MINUTE * 60 * 4 + MINUTE);
        assert_eq!(reached(world, alice, "bob"), 2, "seed {seed}: not once");
        assert_eq!(reached(world, bob, "alice"), 0, "it was for alice to do");
        world.machines[bob].hold_requests = false;
        for held in std::mem::take(&mut world.machines[bob].held_requests) {
            held.respond(Response::Success(None));
        }
        let outcome = world.outcome(alice, under_way);
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        assert_eq!(
            world.machines[bob].requests.len(),
            2,
            "each is handled once"
        );
    }
}

#[test]
fn who_renews_the_channels_to_its_router_and_its_peers_fails_no_request() {
    let mut town = Town::new(44);
    let renewed =
        |plan: Plan| plan.with(|config| config.limits.renew_after = Duration::from_secs(3600));
    town.register(&["rho"], Place::Direct);
    town.register(&["alice", "bob"], Place::Behind(&["rho"]));
    town.start(renewed(Plan::router("rho")));
    let [alice, bob] = ["alice", "bob"].map(|label| town.start(renewed(Plan::named(label))));
    let world = &mut town.simulation;
    world.run_for(Duration::from_secs(2));
    for minute in 0..240 {
        for (from, to) in [(alice, "bob"), (bob, "alice")] {
            let token = ask(world, from, to, MINUTE);
            let outcome = world.outcome(from, token);
            assert!(
                matches!(outcome, Outcome::Answered(_)),
                "minute {minute}: {outcome:?}"
            );
        }
        world.run_for(MINUTE);
    }
    for node in [alice, bob] {
        let renewals = reached(world, node, "rho") - 1;
        assert!((3..=4).contains(&renewals), "{renewals} in four hours");
        let asked = world.machines[node].requests.len();
        assert_eq!(asked, 240, "each is handled once");
    }
}
