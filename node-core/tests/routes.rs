//! Which way a node takes to a peer that can be reached in several.
#![allow(clippy::unwrap_used, reason = "tests")]

use nectar_sim::{NodeId, Outcome, Simulation, direct, indirect, name};
use node_core::{
    Code,
    node::{Access, Event, NodeConfig, Route, RouterPolicy},
    time::Duration,
};

fn config(label: &str) -> NodeConfig {
    let records = [
        ("rho", direct("rho", 1)),
        ("sigma", direct("sigma", 2)),
        ("alice", indirect("alice", &["rho", "sigma"])),
        ("bob", indirect("bob", &["rho", "sigma"])),
        ("carol", indirect("carol", &["sigma", "rho"])),
    ];
    let mut config = Simulation::config(label, &records);
    if ["rho", "sigma"].contains(&label) {
        config.router = RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false,
        };
    }
    config
}

/// Two routers and, behind both of them, alice, bob and carol.
fn town(seed: u64) -> (Simulation, [NodeId; 5]) {
    let mut world = Simulation::new(seed);
    let nodes = ["rho", "sigma", "alice", "bob", "carol"]
        .map(|label| world.add_named(label, config(label)));
    (world, nodes)
}

fn talk(world: &mut Simulation, from: NodeId, to: &str) {
    let token = world.request(from, &name(to), b"hello");
    assert!(matches!(world.outcome(from, token), Outcome::Answered(_)));
}

/// The routes that `node` has tried, in order.
fn tried(world: &Simulation, node: NodeId, to: &str) -> Vec<Route> {
    let events = world.machines[node].events.iter();
    events
        .filter_map(|event| match event {
            Event::Attempt {
                name: who, route, ..
            } if *who == name(to) => Some(route.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn of_two_routers_the_nearer_one_carries_the_call() {
    for seed in 0..8 {
        let (mut world, [rho, _, alice, ..]) = town(seed);
        world.remote.insert(rho, Duration::from_millis(40));
        world.run_for(Duration::from_secs(1));
        talk(&mut world, alice, "bob");
        assert_eq!(
            tried(&world, alice, "bob"),
            [Route::Via(name("sigma"))],
            "seed {seed}"
        );
    }
}

#[test]
fn a_route_that_stayed_silent_is_taken_last_the_next_time() {
    for seed in 0..8 {
        let (mut world, [rho, sigma, alice, bob, _]) = town(seed);
        // The nearer router would be the first choice.
        world.remote.insert(sigma, Duration::from_millis(40));
        world.run_for(Duration::from_secs(1));
        // It takes calls for bob and passes nothing on, and the other one takes its time.
        world.stalled.extend([(rho, bob), (sigma, bob)]);
        let token = world.request(alice, &name("bob"), b"hello");
        world.act(alice, |node, now, out| {
            node.keep(&name("bob"), true, None, now, out);
        });
        world.run_for(Duration::from_millis(2500));
        world.stalled.remove(&(sigma, bob));
        assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));

        // Bob is gone, long after that, both routers know it, and alice looks for him again.
        world.run_for(Duration::from_secs(6));
        world.machines[alice].events.clear();
        for router in [rho, sigma] {
            world.cut(router, bob, Code::PipeLost);
        }
        world.kill(bob);
        world.run_for(Duration::from_secs(5));
        let [far, near] = ["sigma", "rho"].map(|router| Route::Via(name(router)));
        assert_eq!(tried(&world, alice, "bob")[..2], [far, near], "seed {seed}");
    }
}

#[test]
fn a_session_that_waits_does_not_take_a_name_back_from_the_process_that_has_it_now() {
    let (mut world, [_, sigma, alice, bob, _]) = town(3);
    // One router is enough to disagree about.
    world.kill(sigma);
    world.run_for(Duration::from_secs(1));
    talk(&mut world, alice, "bob");
    let second = world.add_named("alice", config("alice"));
    world.run_for(Duration::from_secs(1));
    talk(&mut world, second, "bob");
    world.machines[second].events.clear();
    world.run_for(Duration::from_secs(90));
    let taken = world.machines[second]
        .events
        .iter()
        .any(|event| matches!(event, Event::Identity(Code::Superseded)));
    assert!(!taken, "nobody asked the first process for anything");
    talk(&mut world, bob, "alice");
}
