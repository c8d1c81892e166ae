//! Sessions whose pipe is lost before both sides have heard of them, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{NodeId, Outcome, Simulation, direct, name};
use node_core::{Code, node::PeerState, time::Duration};

const LATENCY: Duration = Duration::from_millis(10);

/// What becomes of the sockets.
const LOSSES: [fn(&mut Simulation, NodeId, NodeId); 4] = [
    |world, a, b| world.cut(a, b, Code::PipeLost),
    |world, a, b| world.cut_for(a, b),
    |world, a, b| world.cut_for(b, a),
    |world, a, b| world.silence(a, b),
];

/// Alice calls Bob, and her ATTACH is on its way to him.
fn calling(seed: u64) -> (Simulation, [NodeId; 2]) {
    let mut world = Simulation::new(seed);
    world.latency = LATENCY;
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let nodes =
        ["alice", "bob"].map(|label| world.add_named(label, Simulation::config(label, &records)));
    let call = world.token();
    world.act(nodes[0], |node, now, out| {
        node.connect(call, &name("bob"), Duration::from_secs(30), now, out)
    });
    world.run_for(LATENCY * 9 / 2);
    (world, nodes)
}

/// It arrives. Hers from Bob is on its way.
fn called(world: &mut Simulation, [alice, bob]: [NodeId; 2]) {
    let is_online = |world: &Simulation, node: NodeId| {
        let peers = world.machines[node].node.peers(world.now());
        let mut states = peers.into_iter().map(|peer| peer.state);
        states.any(|state| matches!(state, PeerState::Online { .. }))
    };
    assert!(!is_online(world, bob));
    assert!(world.run_until(LATENCY, |world| is_online(world, bob)));
    assert!(!is_online(world, alice));
}

#[test]
fn what_is_begun_before_the_caller_has_heard_of_the_session_is_not_lost_with_its_pipe() {
    for after in 0..25 {
        for (at, lose) in LOSSES.iter().enumerate() {
            let which = format!("loss {at} after {after} ms");
            let (mut world, [alice, bob]) = calling(after);
            called(&mut world, [alice, bob]);
            let stream = world.open_stream(bob, &name("alice"));
            let request = world.request(bob, &name("alice"), b"request");
            world.run_for(Duration::from_millis(after));
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
            let outcome = world.outcome(bob, request);
            assert!(
                matches!(outcome, Outcome::Answered(_)),
                "{which}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_session_that_the_caller_never_heard_of_is_replaced_by_one_and_not_by_many() {
    let (mut world, [alice, bob]) = calling(1);
    world.silence_way(bob, alice);
    called(&mut world, [alice, bob]);
    let stream = world.open_stream(bob, &name("alice"));
    let opened = world.run_until(Duration::from_secs(12), |world| {
        let counts = world.machines[bob].node.counts();
        assert!(counts.sessions <= 2, "{counts:?}");
        world.machines[bob].outcomes.contains_key(&stream)
    });
    assert!(opened);
}

#[test]
fn sessions_of_crossed_calls_that_lose_their_pipes_at_once_all_go_on() {
    let mut most = 0;
    for (stalled_at, cut_after) in (0..20).flat_map(|at| (0..30).map(move |after| (at, after))) {
        let which = format!("stalled at {stalled_at}, cut after {cut_after}");
        let mut world = Simulation::new(u64::from(stalled_at * 30 + cut_after));
        world.latency = LATENCY;
        world.jitter = LATENCY * 3;
        world.shuffled = true;
        let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
        let [alice, bob] = ["alice", "bob"]
            .map(|label| world.add_named(label, Simulation::config(label, &records)));
        let mut requests = vec![
            (alice, world.request(alice, &name("bob"), b"there")),
            (bob, world.request(bob, &name("alice"), b"back")),
        ];
        world.run_for(LATENCY / 2 * stalled_at);
        world.stalled.insert((alice, bob));
        world.run_for(Duration::from_secs(4));
        requests.push((alice, world.request(alice, &name("bob"), b"late")));
        world.stalled.clear();
        world.run_for(LATENCY * cut_after);
        let counts = [alice, bob].map(|node| world.machines[node].node.counts().sessions);
        most = most.max(counts[0]).max(counts[1]);
        world.cut(alice, bob, Code::PipeLost);
        for (node, request) in requests {
            // One that never left may be given up.
            let fine = match world.outcome(node, request) {
                Outcome::Answered(_) => true,
                Outcome::Failed(failure) => failure.code == Code::Offline,
                _ => false,
            };
            assert!(fine, "{which}: a request is lost");
        }
    }
    assert!(most > 2, "only {most} sessions at once");
}
