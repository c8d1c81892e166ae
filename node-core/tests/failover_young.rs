//! Sessions whose pipe is lost before both sides have heard of them, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{NodeId, Outcome, Simulation, direct, name};
use node_core::{Code, node::PeerState, time::Duration};

const MS: Duration = Duration::from_millis(1);
const LATENCY: Duration = Duration::from_millis(10);

/// What becomes of the sockets.
const LOSSES: [fn(&mut Simulation, NodeId, NodeId); 4] = [
    |world, a, b| world.cut(a, b, Code::PipeLost),
    |world, a, b| world.cut_for(a, b),
    |world, a, b| world.cut_for(b, a),
    |world, a, b| world.silence(a, b),
];

#[test]
fn what_is_begun_before_the_caller_has_heard_of_the_session_is_not_lost_with_its_pipe() {
    for seed in 0..2 * LATENCY.as_millis() as u64 + 5 {
        for (at, lose) in LOSSES.iter().enumerate() {
            let which = format!("loss {at} after {seed} ms");
            let mut world = Simulation::new(seed);
            world.latency = LATENCY;
            let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
            let [alice, bob] = ["alice", "bob"]
                .map(|label| world.add_named(label, Simulation::config(label, &records)));
            let call = world.token();
            world.act(alice, |node, now, out| {
                node.connect(call, &name("bob"), Duration::from_secs(30), now, out)
            });
            let attached = |world: &mut Simulation| {
                let peers = world.machines[bob].node.peers(world.now());
                let states = peers.into_iter().map(|peer| peer.state);
                states
                    .into_iter()
                    .any(|state| matches!(state, PeerState::Online { .. }))
            };
            assert!(world.run_until(Duration::from_secs(1), attached));
            // Alice's ATTACH has come, and Bob's is on its way.
            assert!(!world.machines[alice].outcomes.contains_key(&call));
            let stream = world.open_stream(bob, &name("alice"));
            let request = world.request(bob, &name("alice"), b"request");
            world.run_for(MS * seed as u32);
            lose(&mut world, alice, bob);
            let Outcome::Opened(ours) = world.outcome(bob, stream) else {
                panic!("{which}: no stream");
            };
            world.pour(&ours, Bytes::from_static(b"stream"), 6);
            let came = world.run_until(Duration::from_secs(60), |world| {
                !world.machines[alice].streams.is_empty()
            });
            assert!(came, "{which}: the stream never came");
            let theirs = world.machines[alice].streams.remove(0).accept().unwrap();
            assert_eq!(world.drain(&theirs), b"stream", "{which}");
            assert!(
                matches!(world.outcome(bob, request), Outcome::Answered(_)),
                "{which}: the request is answered"
            );
        }
    }
}
