//! How a node ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use nectar_sim::{Outcome, Simulation, direct, indirect, name};
use node_core::{
    Code,
    node::{Access, Event, PeerState, RouterPolicy},
    time::Duration,
};

#[test]
fn a_closed_node_hands_every_token_back_and_begins_nothing() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(1);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    // Nobody is at bob's address yet: both wait.
    let waiting = [
        world.request(alice, &name("bob"), b"?"),
        world.message(alice, &name("bob"), b"!"),
    ];
    world.machines[alice]
        .node
        .shut_down(Code::GoingAway, Duration::ZERO);
    world.act(alice, |node, now, out| node.abandon(now, out));
    let late = world.request(alice, &name("bob"), b"late");
    let lookup = world.token();
    world.act(alice, |node, now, out| {
        node.resolve(lookup, &name("bob"), true, now, out)
    });
    for token in waiting.into_iter().chain([late]) {
        match world.outcome(alice, token) {
            Outcome::Failed(failure) => assert_eq!(failure.code, Code::NodeClosed),
            other => panic!("expected a failure, got {other:?}"),
        }
    }
    match world.outcome(alice, lookup) {
        Outcome::Resolved(Err(error)) => assert_eq!(error.code, Code::NodeClosed),
        other => panic!("expected a failure, got {other:?}"),
    }
    world.run_for(Duration::from_secs(1));
    world.add_named("bob", Simulation::config("bob", &records));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.machines[alice].node.counts().sessions, 0);
}

#[test]
fn a_node_that_shuts_down_does_not_come_back_to_its_routers() {
    let records = [
        ("rho", direct("rho", 1)),
        ("alice", indirect("alice", &["rho"])),
    ];
    let mut world = Simulation::new(2);
    let mut config = Simulation::config("rho", &records);
    config.router = RouterPolicy {
        host: Access::Anyone,
        call: Access::Anyone,
        guests: false,
    };
    let rho = world.add_named("rho", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    assert!(world.run_until(Duration::from_secs(5), |w| {
        w.machines[alice].events.contains(&Event::Reachable(true))
    }));
    world.machines[alice]
        .node
        .shut_down(Code::GoingAway, Duration::ZERO);
    world.run_for(Duration::from_secs(120));
    for node in [rho, alice] {
        assert_eq!(world.machines[node].node.counts().sessions, 0);
    }
}

#[test]
fn peers_of_a_node_that_restarts_come_back_at_times_of_their_own() {
    let delay = Duration::from_secs(4);
    let labels: Vec<_> = (0..20).map(|n| format!("peer-{n}")).collect();
    let mut records = vec![("rho", direct("rho", 1))];
    records.extend(
        labels
            .iter()
            .map(|label| (&**label, indirect(label, &["rho"]))),
    );
    let mut world = Simulation::new(3);
    let mut config = Simulation::config("rho", &records);
    config.router.host = Access::Anyone;
    let rho = world.add_named("rho", config);
    for label in &labels {
        world.add_named(label, Simulation::config(label, &records));
    }
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.machines[rho].node.counts().sessions, 20);
    world.machines[rho].node.shut_down(Code::GoingAway, delay);
    world.run_for(Duration::from_millis(100));
    let mut told: Vec<_> = world.machines[rho + 1..]
        .iter()
        .filter_map(|peer| match peer.events.last() {
            Some(Event::Peer {
                state: PeerState::Offline { retry, .. },
                ..
            }) => *retry,
            _ => None,
        })
        .collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 20, "each has another time: {told:?}");
    assert!(
        told.iter()
            .all(|after| *after * 2 >= delay && *after <= delay)
    );
}
