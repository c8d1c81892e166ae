//! What nodes do together, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{Outcome, Simulation, Town, direct, indirect, name, scenarios};
use node_core::{
    node::{Access, RouterPolicy},
    time::Duration,
};

nectar_sim::scenarios!(Town::new(1));
nectar_sim::harmed_scenarios!(Town::new(1));

#[test]
fn a_socket_that_takes_nothing_does_not_grow_its_router_while_another_circuit_runs_at_full_speed() {
    let records = [
        ("rho", direct("rho", 1)),
        ("alice", indirect("alice", &["rho"])),
        ("bob", indirect("bob", &["rho"])),
        ("carol", indirect("carol", &["rho"])),
        ("dave", indirect("dave", &["rho"])),
    ];
    let mut world = Simulation::new(10);
    let [rho, alice, bob, carol, dave] = ["rho", "alice", "bob", "carol", "dave"].map(|label| {
        let mut config = Simulation::config(label, &records);
        config.router = RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false,
        };
        world.add_named(label, config)
    });
    let mut streams = Vec::new();
    for (from, to, reader) in [(alice, "bob", bob), (carol, "dave", dave)] {
        let token = world.open_stream(from, &name(to));
        let Outcome::Opened(stream) = world.outcome(from, token) else {
            panic!("open")
        };
        let limit = Duration::from_secs(5);
        assert!(world.run_until(limit, |w| !w.machines[reader].streams.is_empty()));
        let incoming = world.machines[reader].streams.pop().unwrap();
        streams.push((stream, incoming.accept().unwrap()));
    }
    // Bob's socket takes nothing more, and alice sends as much as she can.
    world.stalled.insert((rho, bob));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let piece = Bytes::from(vec![7; 64 << 10]);
    let (mut to_bob, mut to_dave, mut got) = (0usize, 0usize, 0usize);
    let mut peak = 0;
    let began = world.now();
    let done = world.run_until(Duration::from_secs(50), |w| {
        while streams[0]
            .0
            .poll_write(&mut piece.clone(), &mut cx)
            .is_ready()
        {
            to_bob += piece.len();
        }
        while to_dave < 8 << 20
            && streams[1]
                .0
                .poll_write(&mut piece.clone(), &mut cx)
                .is_ready()
        {
            to_dave += piece.len();
        }
        while let std::task::Poll::Ready(Ok(Some(bytes))) = streams[1].1.poll_read(&mut cx) {
            got += bytes.len();
        }
        peak = peak.max(w.machines[rho].node.counts().circuit_bytes);
        got == 8 << 20
    });
    assert!(done, "{got} bytes of the other circuit arrived");
    let window = node_core::Limits::default().circuit_window;
    assert!(
        peak <= 2 * window + (64 << 10),
        "the router held {peak} bytes"
    );
    assert!(peak >= window / 2, "bob's circuit was really stuck: {peak}");
    assert!(
        to_bob < 3 << 20,
        "alice was told to wait after {to_bob} bytes"
    );
    let took = world.now().since(began);
    assert!(
        took < Duration::from_secs(5),
        "the other circuit took {took:?}"
    );
}

#[test]
fn two_nodes_that_dial_each_other_at_once_keep_one_session_whatever_the_seed() {
    for seed in 100..104 {
        scenarios::two_nodes_that_dial_each_other_at_once_keep_one_session(&mut Town::new(seed));
    }
}
