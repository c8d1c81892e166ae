//! Sessions that are closed because nobody uses them, while somebody is about to, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use nectar_sim::{NodeId, Outcome, Simulation, direct, indirect, name};
use node_core::{
    Code,
    node::{Access, RouterPolicy},
    time::Duration,
};

const MS: Duration = Duration::from_millis(1);

fn answered(world: &mut Simulation, from: NodeId, to: &str, payload: &[u8]) {
    let token = world.request(from, &name(to), payload);
    let outcome = world.outcome(from, token);
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
}

/// Alice stays connected to one peer that she has dialled.
fn world() -> (Simulation, [NodeId; 3]) {
    let records =
        ["alice", "bob", "carol"].map(|label| (label, direct(label, label.as_bytes()[0])));
    let mut world = Simulation::new(1);
    world.latency = MS * 40;
    let nodes = ["alice", "bob", "carol"].map(|label| {
        let mut config = Simulation::config(label, &records);
        config.limits.outbound_peers = 1;
        world.add_named(label, config)
    });
    (world, nodes)
}

#[test]
fn a_request_that_crosses_the_end_of_an_idle_session_is_answered() {
    for step in 0..40 {
        let (mut world, [alice, bob, _]) = world();
        answered(&mut world, alice, "bob", b"first");
        world.run_for(Duration::from_secs(1));
        // Alice dials carol, and has one peer too many: bob.
        let second = world.request(alice, &name("carol"), b"second");
        world.run_for(step * MS * 10);
        answered(&mut world, bob, "alice", b"late");
        let outcome = world.outcome(alice, second);
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        assert_eq!(world.machines[alice].requests.len(), 1, "asked once");
    }
}

#[test]
fn an_idle_session_ends_on_both_sides_when_another_peer_needs_its_place() {
    let (mut world, [alice, bob, carol]) = world();
    answered(&mut world, alice, "bob", b"first");
    answered(&mut world, alice, "carol", b"second");
    world.run_for(Duration::from_secs(2));
    let sessions = [alice, bob, carol].map(|node| world.machines[node].node.counts().sessions);
    assert_eq!(sessions, [1, 0, 1]);
}

#[test]
fn a_peer_that_keeps_a_session_has_another_when_the_one_it_had_is_not_needed_by_the_other_side() {
    let (mut world, [alice, bob, carol]) = world();
    answered(&mut world, alice, "bob", b"first");
    world.act(bob, |node, now, out| {
        node.keep(&name("alice"), true, None, now, out);
    });
    world.run_for(Duration::from_secs(1));
    answered(&mut world, alice, "carol", b"second");
    for _ in 0..40 {
        world.run_for(Duration::from_secs(1));
        answered(&mut world, bob, "alice", b"kept");
    }
    let sessions = [alice, bob, carol].map(|node| world.machines[node].node.counts().sessions);
    assert_eq!(sessions, [2, 1, 1]);
}

#[test]
fn a_session_that_is_let_go_waits_like_any_other_when_its_pipe_is_lost_before_the_peer_heard_of_that()
 {
    for step in 0..20 {
        let (mut world, [alice, bob, _]) = world();
        answered(&mut world, alice, "bob", b"first");
        world.run_for(Duration::from_secs(1));
        world.silence(alice, bob);
        answered(&mut world, alice, "carol", b"second");
        let late = world.request(bob, &name("alice"), b"late");
        world.run_for(step * MS * 100);
        world.cut(alice, bob, Code::PipeLost);
        let outcome = world.outcome(bob, late);
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        assert_eq!(world.machines[alice].requests.len(), 1, "asked once");
    }
}

#[test]
fn a_message_that_is_overtaken_by_the_word_that_nothing_more_is_begun_is_delivered() {
    // Either name may be the one that says so at once.
    for bob in ["bob", "ben", "bill", "bart"] {
        let mut records = vec![
            ("rho", direct("rho", 1)),
            ("alice", indirect("alice", &["rho"])),
        ];
        records.extend(
            [(bob, 2), ("carol", 3), ("dan", 4)].map(|(label, host)| (label, direct(label, host))),
        );
        let mut world = Simulation::new(1);
        let nodes = ["rho", "alice", bob, "carol", "dan"].map(|label| {
            let mut config = Simulation::config(label, &records);
            if label == "rho" {
                config.router = RouterPolicy {
                    host: Access::Anyone,
                    call: Access::Anyone,
                    guests: false,
                };
            } else if label == bob {
                config.limits.outbound_peers = 1;
            }
            world.add_named(label, config)
        });
        let [rho, alice, caller, carol, _] = nodes;
        world.run_for(Duration::from_secs(1));
        // Two circuits to Alice: none may have a long record of hers for itself.
        answered(&mut world, carol, "alice", b"first");
        answered(&mut world, caller, "alice", b"second");
        world.run_for(Duration::from_secs(1));
        world.stalled.insert((alice, rho));
        let message = world.message(alice, &name(bob), &[7; 32_000]);
        answered(&mut world, caller, "dan", b"third");
        world.run_for(MS * 500);
        world.stalled.clear();
        let outcome = world.outcome(alice, message);
        assert!(matches!(outcome, Outcome::Delivered), "{bob}: {outcome:?}");
    }
}
