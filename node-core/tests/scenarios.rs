//! What nodes do together, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::world::{NodeId, Outcome, World, direct, indirect, name};
use node_core::{
    Code,
    node::{Access, Event, PeerState, Route, RouterPolicy},
    time::Duration,
    wire::frame::Response,
};

fn echo(world: &mut World, from: NodeId, to: &str, payload: &[u8]) -> Response {
    let token = world.request(from, &name(to), payload);
    match world.outcome(from, token) {
        Outcome::Answered(response) => response,
        other => panic!("expected an answer, got {other:?}"),
    }
}

fn ok(payload: &[u8]) -> Response {
    Response::Success(Some(Bytes::copy_from_slice(payload)))
}

/// alice and bob are direct nodes.
fn two_direct(seed: u64) -> (World, NodeId, NodeId) {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = World::new(seed);
    let alice = world.add_named("alice", World::config("alice", &records));
    let bob = world.add_named("bob", World::config("bob", &records));
    (world, alice, bob)
}

/// alice and bob are indirect and list the routers rho and sigma; carol is a third indirect node.
fn routed(seed: u64) -> (World, [NodeId; 5]) {
    let records = [
        ("rho", direct("rho", 1)),
        ("sigma", direct("sigma", 2)),
        ("alice", indirect("alice", &["rho", "sigma"])),
        ("bob", indirect("bob", &["rho", "sigma"])),
        ("carol", indirect("carol", &["sigma"])),
    ];
    let mut world = World::new(seed);
    let ids = ["rho", "sigma", "alice", "bob", "carol"].map(|label| {
        let mut config = World::config(label, &records);
        if config.direct {
            config.router = RouterPolicy {
                host: Access::Anyone,
                call: Access::Anyone,
                guests: true,
            };
        }
        world.add_named(label, config)
    });
    (world, ids)
}

#[test]
fn a_request_between_two_direct_nodes_is_answered() {
    let (mut world, alice, bob) = two_direct(1);
    assert_eq!(echo(&mut world, alice, "bob", b"hello"), ok(b"hello"));
    assert_eq!(echo(&mut world, bob, "alice", b"back"), ok(b"back"));
    assert_eq!(world.machines[bob].requests[0].0, Some(name("alice")));
    assert_eq!(
        world.machines[alice].node.counts().sessions,
        1,
        "one session serves both directions"
    );
}

#[test]
fn a_request_between_two_indirect_nodes_travels_through_a_router() {
    let (mut world, [.., alice, bob, _carol]) = routed(2);
    assert_eq!(echo(&mut world, alice, "bob", b"hello"), ok(b"hello"));
    assert_eq!(world.machines[bob].requests[0].0, Some(name("alice")));
    let route = world.machines[alice]
        .events
        .iter()
        .find_map(|event| match event {
            Event::Peer {
                name: peer,
                state: PeerState::Online { route, .. },
                ..
            } if *peer == name("bob") => Some(route.clone()),
            _ => None,
        });
    assert!(matches!(route, Some(Route::Via(_))), "{route:?}");
}

#[test]
fn long_requests_and_answers_arrive_whole() {
    for routed_pair in [false, true] {
        let (mut world, alice) = if routed_pair {
            let (world, [.., alice, _, _]) = routed(3);
            (world, alice)
        } else {
            let (world, alice, _) = two_direct(3);
            (world, alice)
        };
        let longest = if routed_pair { 1 << 20 } else { 16 << 20 };
        for length in [0, 1, 32 << 10, (32 << 10) + 1, longest] {
            let payload: Vec<u8> = (0..length).map(|at: u32| ((at * 31) >> 3) as u8).collect();
            assert!(
                echo(&mut world, alice, "bob", &payload) == ok(&payload),
                "{length} bytes, routed: {routed_pair}"
            );
        }
    }
}

#[test]
fn a_payload_above_the_limit_is_refused_before_it_leaves() {
    let (mut world, alice, _) = two_direct(4);
    let token = world.request(alice, &name("bob"), &vec![0; (16 << 20) + 1]);
    let Outcome::Failed(failure) = world.outcome(alice, token) else {
        panic!("refused")
    };
    assert_eq!(failure.code, Code::TooLarge);
}

#[test]
fn messages_arrive_in_order_and_are_confirmed() {
    let (mut world, [.., alice, bob, _]) = routed(5);
    let tokens: Vec<_> = (0..100u32)
        .map(|n| world.message(alice, &name("bob"), &n.to_be_bytes()))
        .collect();
    for token in tokens {
        assert!(matches!(world.outcome(alice, token), Outcome::Delivered));
    }
    let numbers: Vec<_> = world.machines[bob]
        .messages
        .iter()
        .map(|m| m.2.to_vec())
        .collect();
    assert_eq!(
        numbers,
        (0..100u32)
            .map(|n| n.to_be_bytes().to_vec())
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_stream_carries_megabytes_each_way_and_ends() {
    for seed in [6, 7] {
        let (mut world, [.., alice, bob, _]) = routed(seed);
        let token = world.open_stream(alice, &name("bob"));
        let Outcome::Opened(out) = world.outcome(alice, token) else {
            panic!("open")
        };
        let data: Vec<u8> = (0..5u32 << 20).map(|at| (at ^ (at >> 7)) as u8).collect();
        assert!(world.run_until(Duration::from_secs(5), |w| {
            !w.machines[bob].streams.is_empty()
        }));
        let incoming = world.machines[bob].streams.pop().unwrap().accept().unwrap();
        // The writer blocks on the reader's window, so both have to take turns.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let (mut left, mut got) = (Bytes::from(data.clone()), Vec::new());
        let mut piece = Bytes::new();
        let mut finished = false;
        let done = world.run_until(Duration::from_secs(100), |_| {
            loop {
                if piece.is_empty() && !left.is_empty() {
                    piece = left.split_to(left.len().min(64 << 10));
                }
                if piece.is_empty() {
                    if !finished {
                        out.finish();
                        finished = true;
                    }
                    break;
                }
                if out.poll_write(&mut piece, &mut cx).is_pending() {
                    break;
                }
            }
            loop {
                match incoming.poll_read(&mut cx) {
                    std::task::Poll::Ready(Ok(Some(bytes))) => got.extend_from_slice(&bytes),
                    std::task::Poll::Ready(Ok(None)) => return true,
                    std::task::Poll::Ready(Err(error)) => panic!("{error}"),
                    std::task::Poll::Pending => return false,
                }
            }
        });
        assert!(done, "{} of {} bytes", got.len(), data.len());
        assert!(got == data);
        incoming.finish();
        assert_eq!(world.drain(&out), b"");
    }
}

#[test]
fn an_indirect_node_with_three_routers_of_which_two_are_dead_is_online_and_reachable() {
    let records = [
        ("rho", direct("rho", 1)),
        ("sigma", direct("sigma", 2)),
        ("tau", direct("tau", 3)),
        ("alice", indirect("alice", &["rho", "sigma", "tau"])),
        ("bob", direct("bob", 4)),
    ];
    let mut world = World::new(8);
    let mut config = World::config("tau", &records);
    config.router = RouterPolicy {
        host: Access::Anyone,
        call: Access::Anyone,
        guests: false,
    };
    world.add_named("tau", config);
    let alice = world.add_named("alice", World::config("alice", &records));
    let bob = world.add_named("bob", World::config("bob", &records));
    assert!(world.run_until(Duration::from_secs(5), |w| {
        w.machines[alice].events.contains(&Event::Reachable(true))
    }));
    assert_eq!(echo(&mut world, bob, "alice", b"there?"), ok(b"there?"));
}

#[test]
fn a_peer_that_nobody_answers_for_is_offline_with_the_reason() {
    let records = [
        ("alice", direct("alice", 1)),
        ("bob", direct("bob", 2)),
        ("carol", indirect("carol", &["bob"])),
    ];
    let mut world = World::new(9);
    let alice = world.add_named("alice", World::config("alice", &records));
    for (to, cause) in [("bob", Code::DialFailed), ("carol", Code::DialFailed)] {
        let token = world.request(alice, &name(to), b"?");
        let Outcome::Failed(failure) = world.outcome(alice, token) else {
            panic!("nobody is there")
        };
        assert_eq!(
            (failure.code, failure.cause),
            (Code::Offline, Some(cause)),
            "{to}"
        );
    }
}

#[test]
fn two_nodes_that_dial_each_other_at_once_keep_one_session() {
    for seed in 0..20 {
        let (mut world, alice, bob) = two_direct(100 + seed);
        let a = world.request(alice, &name("bob"), b"a");
        let b = world.request(bob, &name("alice"), b"b");
        assert!(matches!(world.outcome(alice, a), Outcome::Answered(_)));
        assert!(matches!(world.outcome(bob, b), Outcome::Answered(_)));
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.machines[alice].node.counts().sessions, 1);
        assert_eq!(world.machines[bob].node.counts().sessions, 1);
        assert_eq!(echo(&mut world, alice, "bob", b"again"), ok(b"again"));
    }
}

#[test]
fn a_slow_reader_does_not_grow_its_router_while_another_circuit_runs_at_full_speed() {
    let records = [
        ("rho", direct("rho", 1)),
        ("alice", indirect("alice", &["rho"])),
        ("bob", indirect("bob", &["rho"])),
        ("carol", indirect("carol", &["rho"])),
        ("dave", indirect("dave", &["rho"])),
    ];
    let mut world = World::new(10);
    let [rho, alice, bob, carol, dave] = ["rho", "alice", "bob", "carol", "dave"].map(|label| {
        let mut config = World::config(label, &records);
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
