//! How fast others may knock and ask, and how many peers a node stays connected to.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use nectar_sim::{
    EPOCH_MS, NodeId, OPEN_ROUTER, Outcome, Simulation, direct, indirect, key_of, name,
};
use node_core::{
    Code, Instant, Now, Timestamp,
    channel::{HelloInfo, Identity, Local, Reject, SignerTrust, initiator},
    node::{Access, Node, NodeConfig, Output},
    session::StreamError,
    time::Duration,
    wire::frame::Response,
};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Alice, who calls, and bob.
fn two(seed: u64, change: impl FnOnce(&mut NodeConfig)) -> (Simulation, [NodeId; 2]) {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(seed);
    let mut config = Simulation::config("bob", &records);
    change(&mut config);
    let bob = world.add_named("bob", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    (world, [alice, bob])
}

/// How many of `count` requests at once are answered, and how many refused for their rate.
fn ask(world: &mut Simulation, from: NodeId, count: usize) -> (usize, usize) {
    let tokens: Vec<_> = (0..count)
        .map(|_| world.request(from, &name("bob"), b"?"))
        .collect();
    let (mut answered, mut refused) = (0, 0);
    for token in tokens {
        match world.outcome(from, token) {
            Outcome::Answered(Response::Success(_)) => answered += 1,
            Outcome::Answered(Response::Error { code, message }) => {
                assert_eq!(code, Code::RequestRate.as_u16());
                assert!(message.contains("try again in "), "{message}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (answered, refused)
}

#[test]
fn a_stranger_that_asks_too_fast_is_told_so_and_not_cut_off() {
    let (mut world, [alice, bob]) = two(1, |_| {});
    assert_eq!(ask(&mut world, alice, 150), (100, 50));
    assert_eq!(world.machines[bob].requests.len(), 100);
    world.run_for(Duration::from_secs(5));
    assert_eq!(ask(&mut world, alice, 100), (50, 50), "ten a second");
    world.run_for(Duration::from_secs(60));
    assert_eq!(
        ask(&mut world, alice, 150),
        (100, 50),
        "nothing is saved up"
    );
    let begun = world.machines[alice].events.iter().filter(|event| {
        matches!(
            event,
            node_core::node::Event::Attempt { result: Ok(()), .. }
        )
    });
    assert_eq!(begun.count(), 1, "one session throughout");
}

#[test]
fn messages_beyond_the_rate_fail_with_it() {
    let (mut world, [alice, bob]) = two(2, |_| {});
    let tokens: Vec<_> = (0..120)
        .map(|_| world.message(alice, &name("bob"), b"hello"))
        .collect();
    let outcomes: Vec<_> = tokens
        .into_iter()
        .map(|token| world.outcome(alice, token))
        .collect();
    let delivered = outcomes.iter().filter(|o| matches!(o, Outcome::Delivered));
    assert_eq!(delivered.count(), 100);
    let refused = outcomes
        .iter()
        .filter(|o| matches!(o, Outcome::Failed(failure) if failure.code == Code::RequestRate));
    assert_eq!(refused.count(), 20);
    assert_eq!(world.machines[bob].messages.len(), 100);
}

#[test]
fn those_whom_a_node_chose_may_ask_as_fast_as_they_like() {
    let (mut world, [alice, _]) = two(3, |config| {
        config.allow = Access::Only([name("alice")].into());
    });
    assert_eq!(ask(&mut world, alice, 250), (250, 0));

    let (mut world, [alice, bob]) = two(3, |_| {});
    let keep = |world: &mut Simulation, keep| {
        world.act(bob, |node, now, out| {
            node.keep(&name("alice"), keep, None, now, out)
        });
    };
    keep(&mut world, true);
    assert_eq!(ask(&mut world, alice, 250), (250, 0));
    keep(&mut world, false);
    assert_eq!(ask(&mut world, alice, 250), (100, 150), "a stranger again");
}

#[test]
fn a_stranger_does_not_get_a_new_budget_by_coming_back() {
    let (mut world, [alice, _]) = two(4, |_| {});
    assert_eq!(ask(&mut world, alice, 100), (100, 0));
    world.kill(alice);
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let again = world.add_named("alice", Simulation::config("alice", &records));
    let (answered, refused) = ask(&mut world, again, 100);
    assert!(answered < 10 && refused > 90, "{answered} answered");
}

#[test]
fn streams_beyond_the_rate_are_stopped_and_reset_with_it() {
    let (mut world, [alice, bob]) = two(5, |config| config.limits.stranger_requests = 5);
    let tokens: Vec<_> = (0..8)
        .map(|_| world.open_stream(alice, &name("bob")))
        .collect();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.machines[bob].streams.len(), 5);
    let mut refused = 0;
    for token in tokens {
        let Outcome::Opened(stream) = world.outcome(alice, token) else {
            panic!("it was opened here");
        };
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(read) = stream.poll_read(&mut cx) {
            assert_eq!(read, Err(StreamError::Reset(Code::RequestRate.as_u16())));
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
    assert_eq!(ask(&mut world, alice, 3), (0, 3), "of the same budget");
}

#[test]
fn guests_behind_one_router_have_budgets_of_their_own_and_one_together() {
    let records = [
        ("rho", direct("rho", 1)),
        ("bob", indirect("bob", &["rho"])),
    ];
    let mut world = Simulation::new(6);
    let mut config = Simulation::config("rho", &records);
    config.router = OPEN_ROUTER;
    world.add_named("rho", config);
    let mut config = Simulation::config("bob", &records);
    config.guests = true;
    (
        config.limits.stranger_requests,
        config.limits.channels_per_group,
    ) = (4, 3);
    let bob = world.add_named("bob", config);
    world.run_for(Duration::from_secs(2));
    let guest = |world: &mut Simulation| {
        let mut config = Simulation::config("guest", &records);
        (config.identity.name, config.identity.key) = (None, [0; 32]);
        world.add(config, key_of("guest"), None)
    };
    // They come one after the other, and each is gone before the next.
    let answered = [(); 6].map(|()| {
        let guest = guest(&mut world);
        let (answered, _) = ask(&mut world, guest, 6);
        world.kill(guest);
        answered
    });
    assert_eq!(answered[..3], [4; 3]);
    // What has come back meanwhile.
    let late: usize = answered[3..].iter().sum();
    assert!(late <= 2, "{answered:?}");
    assert_eq!(world.machines[bob].requests.len(), 12 + late);
    world.run_for(Duration::from_secs(10));
    let next = guest(&mut world);
    assert_eq!(ask(&mut world, next, 6).0, 4);
}

/// Bob, and what he makes of message 1s.
struct Door {
    bob: Node<u64>,
    caller: Arc<Local>,
    now: Now,
    calls: u8,
}

impl Door {
    fn new() -> Self {
        let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
        let caller = Local {
            identity: Identity {
                name: Some(name("alice")),
                key: key_of("alice").verifying_key().to_bytes(),
            },
            hello: HelloInfo::default(),
            registries: [nectar_sim::REGISTRY].into(),
            clock_window: Duration::from_secs(120),
            signer: SignerTrust::default(),
        };
        Self {
            bob: Node::new(Simulation::config("bob", &records), [1; 32]).unwrap(),
            caller: Arc::new(caller),
            now: Now {
                mono: Instant::from_micros(1_000_000),
                wall: Timestamp(EPOCH_MS),
            },
            calls: 0,
        }
    }

    /// Sends a message 1 from a group: the refusal, or nothing if bob goes on with the handshake.
    fn knock(&mut self, group: u64) -> Option<Reject> {
        self.calls = self.calls.wrapping_add(1);
        let bob = key_of("bob").verifying_key().to_bytes();
        let seed = [self.calls; 32];
        let (_, message) = initiator::start(self.caller.clone(), name("bob"), bob, seed);
        let mut out = Vec::new();
        let pipe = self.bob.accept(group, self.now).unwrap();
        self.bob
            .handle_message(&pipe, message.into(), self.now, &mut out);
        let signs = out.iter().any(|o| matches!(o, Output::Sign { .. }));
        let said = self
            .bob
            .poll_transmit(&pipe, Waker::noop(), self.now, &mut out);
        self.bob.closed(&pipe, Code::PipeLost, self.now, &mut out);
        let reject = said.and_then(|said| Reject::parse(&said));
        assert_ne!(signs, reject.is_some());
        reject
    }
}

#[test]
fn a_flood_of_handshakes_from_one_group_does_not_stop_another() {
    let mut door = Door::new();
    let passed = (0..150).filter(|_| door.knock(7).is_none()).count();
    assert_eq!(passed, 100, "a burst, and nothing is computed for the rest");
    let reject = door.knock(7).unwrap();
    assert_eq!(reject.code, Some(Code::SourceBudget));
    assert!(reject.retry > Duration::ZERO && reject.retry <= Duration::from_millis(20));
    assert_eq!(door.knock(8), None);
    door.now.mono = door.now.mono + Duration::from_secs(1);
    let passed = (0..80).filter(|_| door.knock(7).is_none()).count();
    assert_eq!(passed, 50, "fifty a second");
    // Whoever goes on is not even let through the door.
    let banned = (0..100).any(|_| {
        door.bob.accept(7, door.now).is_err() || {
            door.knock(7);
            false
        }
    });
    assert!(banned);
    assert_eq!(door.knock(8), None);
}

/// Alice, who is no router unless told, and ten others at addresses of their own.
fn alice_and_ten(seed: u64) -> (Simulation, NodeId, Vec<String>) {
    let labels: Vec<String> = (0..10).map(|n| format!("peer{n}")).collect();
    let mut records = vec![("alice", direct("alice", 100))];
    for (host, label) in labels.iter().enumerate() {
        records.push((label, direct(label, host as u8 + 1)));
    }
    let mut world = Simulation::new(seed);
    for label in &labels {
        world.add_named(label, Simulation::config(label, &records));
    }
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    (world, alice, labels)
}

fn connected(world: &Simulation, node: NodeId) -> Vec<String> {
    let peers = world.machines[node].node.peers(world.now());
    let online = peers
        .into_iter()
        .filter(|peer| matches!(peer.state, node_core::node::PeerState::Online { .. }));
    online
        .map(|peer| peer.name.label.as_str().to_owned())
        .collect()
}

#[test]
fn a_node_leaves_the_peers_that_it_needed_least_recently() {
    let (mut world, alice, labels) = alice_and_ten(5);
    world.act(alice, |node, now, out| {
        node.keep(&name("peer1"), true, None, now, out)
    });
    for label in &labels {
        let token = world.request(alice, &name(label), b"?");
        assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
        world.run_for(Duration::from_secs(1));
        if label == "peer5" {
            let token = world.request(alice, &name("peer0"), b"again");
            world.outcome(alice, token);
        }
    }
    let expected = [
        "peer0", "peer1", "peer4", "peer5", "peer6", "peer7", "peer8", "peer9",
    ];
    assert_eq!(connected(&world, alice), expected);
    let token = world.request(alice, &name("peer2"), b"?");
    assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
}

#[test]
fn a_peer_with_something_under_way_is_not_left() {
    let (mut world, alice, labels) = alice_and_ten(6);
    let peer0 = 0;
    world.machines[peer0].hold_requests = true;
    let held = world.request(alice, &name("peer0"), b"think");
    world.run_for(Duration::from_secs(1));
    for label in &labels[1..] {
        let token = world.request(alice, &name(label), b"?");
        assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
    }
    world.run_for(Duration::from_secs(1));
    let now = connected(&world, alice);
    assert!(now.contains(&"peer0".into()) && now.len() == 8, "{now:?}");
    for incoming in std::mem::take(&mut world.machines[peer0].held_requests) {
        incoming.respond(Response::Success(None));
    }
    assert!(matches!(world.outcome(alice, held), Outcome::Answered(_)));
}
