//! Whoever is refused for a spent budget is told by which code, and when to come back wherever that can be said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use ed25519_dalek::Signer as _;
use nectar_sim::{EPOCH_MS, NodeId, Outcome, Simulation, direct, indirect, key_of, name};
use node_core::{
    Code, Instant, Now, Timestamp,
    channel::{HandshakeError, HelloInfo, Identity, Local, Reject, SignerTrust, initiator},
    code::{Fault, Retry},
    node::{Access, Event, Failure, Node, NodeConfig, Output, PeerState},
    registry::Record,
    time::Duration,
    wire::frame::Response,
};
use std::{collections::BTreeMap, sync::Arc, task::Waker};

/// An error, what it is told by, with which time, and how it comes about.
type Row = (Code, &'static str, &'static str, fn());

/// Every error about a budget. `PROTOCOL.md` has the same table.
const TOLD: [Row; 12] = [
    (
        Code::ReadBudget,
        "REJECT",
        "until another read is allowed",
        reads,
    ),
    (Code::CircuitLimit, "CCLOSE", "5 s", circuits),
    (Code::CircuitRate, "CCLOSE", "1 s", openings),
    (Code::TargetBusy, "CCLOSE", "5 s", unanswered),
    (
        Code::HostingRefused,
        "CCLOSE",
        "none: until the operator decides otherwise",
        hosting,
    ),
    (
        Code::CallingRefused,
        "CCLOSE",
        "none: until the operator decides otherwise",
        calling,
    ),
    (
        Code::QueueFull,
        "RESPONSE; STOP and RESET",
        "none: until something of the peer's own that is under way ends",
        under_way,
    ),
    (Code::ChannelBudget, "REJECT, CCLOSE", "5 s", channels),
    (Code::HalfOpenBudget, "REJECT, CCLOSE", "1 s", half_open),
    (
        Code::SourceBudget,
        "REJECT, CCLOSE",
        "1 s; for a handshake beyond the rate, until the next is allowed",
        sources,
    ),
    (
        Code::Overloaded,
        "503 (section 4)",
        "5 s, as `Retry-After`",
        || {
            // Over HTTP, before there is a node: node-native's tests see it.
        },
    ),
    (
        Code::RequestRate,
        "RESPONSE; STOP and RESET",
        "in the text of RESPONSE",
        requests,
    ),
];

#[test]
fn every_spent_budget_is_told_with_a_time_or_for_a_reason_without() {
    let told: Vec<Code> = TOLD.iter().map(|(code, ..)| *code).collect();
    let all = Code::ALL.iter().copied();
    let limits: Vec<Code> = all.filter(|code| code.fault() == Fault::Limit).collect();
    assert_eq!(told, limits);
    for (code, .., comes_about) in TOLD {
        assert_eq!(code.retry(), Retry::Later, "{code:?}");
        comes_about();
    }
}

#[test]
fn the_document_says_how_each_is_told() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, table) = document
        .split_once("\n| budget's error | told by | time to wait |\n")
        .unwrap();
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let rows: Vec<&str> = rows.collect();
    let expected = TOLD.map(|(code, by, time, _)| format!("| `{}` | {by} | {time} |", code.name()));
    assert_eq!(rows, expected);
}

// Before the handshake and at its end.

const NOW: Now = Now {
    mono: Instant::from_micros(1_000_000),
    wall: Timestamp(EPOCH_MS),
};

fn records() -> [(&'static str, Record); 2] {
    [("alice", direct("alice", 1)), ("bob", direct("bob", 2))]
}

/// Bob, with other limits than usual.
fn bob(change: impl FnOnce(&mut NodeConfig)) -> Node<u64> {
    let mut config = Simulation::config("bob", &records());
    change(&mut config);
    Node::new(config, [1; 32]).unwrap()
}

/// Calls bob over a socket from a group, up to message 3: what he says instead of going on, and when he has it counted.
fn call(bob: &Node<u64>, label: &str, group: u64) -> Option<Reject> {
    let before: BTreeMap<Code, u64> = bob.refused().into_iter().collect();
    let reject = match handshake(bob, label, group, || {}) {
        Ok(reject) => reject,
        Err(error) => error.reject(),
    };
    let counted = bob.refused().into_iter();
    let counted: Vec<_> = counted
        .filter(|(code, count)| before[code] < *count)
        .collect();
    let code = reject.and_then(|reject| reject.code);
    let expected = code.map(|code| (code, before[&code] + 1));
    assert_eq!(counted, Vec::from_iter(expected));
    reject
}

fn handshake(
    bob: &Node<u64>,
    label: &str,
    group: u64,
    before_message_3: impl FnOnce(),
) -> Result<Option<Reject>, HandshakeError> {
    let key = key_of(label);
    let local = Local {
        identity: Identity {
            name: Some(name(label)),
            key: key.verifying_key().to_bytes(),
        },
        hello: HelloInfo::default(),
        registries: [nectar_sim::REGISTRY].into(),
        clock_window: Duration::from_secs(120),
        signer: SignerTrust::default(),
    };
    let theirs = key_of("bob").verifying_key().to_bytes();
    let (state, first) = initiator::start(Arc::new(local), name("bob"), theirs, [7; 32]);
    let pipe = bob.accept(group, NOW)?;
    let says = |message: Vec<u8>| {
        let mut out = Vec::new();
        bob.handle_message(&pipe, message.into(), NOW, &mut out);
        for output in core::mem::take(&mut out) {
            if let Output::Sign { pipe, request } = output {
                let signature = key_of("bob").sign(&request.message()).to_bytes();
                bob.signed(&pipe, Some(signature), NOW, &mut out);
            }
        }
        bob.poll_transmit(&pipe, Waker::noop(), NOW, &mut out)
    };
    let second = says(first).unwrap();
    if let Some(reject) = Reject::parse(&second) {
        return Ok(Some(reject));
    }
    let state = state.handle(&second, NOW.wall).unwrap();
    let signature = key.sign(&state.request().unwrap().message()).to_bytes();
    before_message_3();
    let (third, _) = state.signed(Some(signature)).unwrap();
    Ok(says(third).map(|said| Reject::parse(&said).unwrap()))
}

fn rejected(reject: Option<Reject>, code: Code, retry: Duration) {
    let reject = reject.unwrap_or_else(|| panic!("bob goes on instead of {code:?}"));
    assert_eq!((reject.code, reject.retry), (Some(code), retry));
}

fn reads() {
    let bob = bob(|config| {
        config.registries[0].rpcs = vec!["http://127.0.0.1:1".into()];
        config.resolver.waiting = 0;
    });
    assert_eq!(call(&bob, "alice", 7), None, "her record is known");
    rejected(
        call(&bob, "carol", 7),
        Code::ReadBudget,
        Duration::from_secs(1),
    );
}

fn half_open() {
    let bob = bob(|config| config.limits.half_open = 0);
    rejected(
        call(&bob, "alice", 7),
        Code::HalfOpenBudget,
        Duration::from_secs(1),
    );
    over_a_circuit(
        |_, bob| bob.limits.half_open = 0,
        Code::HalfOpenBudget,
        Some(Duration::from_secs(1)),
    );
}

fn channels() {
    let bob = bob(|config| config.limits.inbound_channels = 1);
    let five = Duration::from_secs(5);
    // Of two handshakes under way, the one that ends first takes the only place.
    let late = handshake(&bob, "alice", 7, || {
        assert_eq!(call(&bob, "alice", 8), None)
    });
    rejected(late.unwrap(), Code::ChannelBudget, five);
    rejected(call(&bob, "alice", 7), Code::ChannelBudget, five);
    over_a_circuit(
        |_, bob| bob.limits.inbound_channels = 0,
        Code::ChannelBudget,
        Some(five),
    );
}

fn sources() {
    let second = Duration::from_secs(1);
    let bob = bob(|config| {
        config.limits.channels_per_group = 1;
        config.limits.handshake_rate = 1;
    });
    assert_eq!(call(&bob, "alice", 7), None);
    rejected(call(&bob, "alice", 7), Code::SourceBudget, second);
    // Beyond the rate, a handshake is told how long the bucket takes.
    let bob = self::bob(|config| config.limits.handshake_rate = 1);
    assert_eq!(call(&bob, "alice", 7), None);
    assert_eq!(call(&bob, "alice", 7), None);
    rejected(call(&bob, "alice", 7), Code::SourceBudget, second);
    over_a_circuit(
        |_, bob| bob.limits.channels_per_caller = 0,
        Code::SourceBudget,
        Some(second),
    );
}

// Through a router.

/// Alice, who calls bob through rho.
fn three(change: impl FnOnce(&mut NodeConfig, &mut NodeConfig)) -> (Simulation, NodeId, NodeId) {
    let records = [
        ("alice", indirect("alice", &["rho"])),
        ("bob", indirect("bob", &["rho"])),
        ("rho", direct("rho", 1)),
    ];
    let config = |label| Simulation::config(label, &records);
    let (mut rho, mut bob) = (config("rho"), config("bob"));
    (rho.router.host, rho.router.call) = (Access::Anyone, Access::Anyone);
    change(&mut rho, &mut bob);
    let mut world = Simulation::new(1);
    let rho = world.add_named("rho", rho);
    let bob = world.add_named("bob", bob);
    let alice = world.add_named("alice", config("alice"));
    let up = world.run_until(Duration::from_secs(10), |world| {
        [alice, bob].map(|node| world.machines[node].node.is_reachable()) == [true; 2]
    });
    assert!(up);
    (world, alice, rho)
}

fn ask(world: &mut Simulation, alice: NodeId) -> Failure {
    let token = world.request(alice, &name("bob"), b"?");
    match world.outcome(alice, token) {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn over_a_circuit(
    change: impl FnOnce(&mut NodeConfig, &mut NodeConfig),
    code: Code,
    retry: Option<Duration>,
) {
    let (mut world, alice, _) = three(change);
    let failure = ask(&mut world, alice);
    assert_eq!((failure.cause, failure.retry), (Some(code), retry));
    let counted = |machine: &nectar_sim::Machine| {
        let mut counts = machine.node.refused().into_iter();
        counts.any(|(refused, count)| refused == code && count == 1)
    };
    assert!(world.machines.iter().any(counted), "{code:?} is counted");
}

fn circuits() {
    let five = Some(Duration::from_secs(5));
    over_a_circuit(|rho, _| rho.limits.circuits = 0, Code::CircuitLimit, five);
    let none_for_a_pair = |rho: &mut NodeConfig, _: &mut NodeConfig| {
        rho.limits.circuits_per_pair = 0;
    };
    over_a_circuit(none_for_a_pair, Code::CircuitLimit, five);
}

fn openings() {
    let (mut world, alice, rho) = three(|rho, _| rho.limits.circuits_per_pair = 0);
    let failure = (0..100)
        .map(|_| ask(&mut world, alice))
        .find(|failure| failure.cause != Some(Code::CircuitLimit))
        .unwrap();
    assert_eq!(failure.cause, Some(Code::CircuitRate));
    assert_eq!(failure.retry, Some(Duration::from_secs(1)));
    let mut counts = world.machines[rho].node.refused().into_iter();
    assert!(counts.any(|count| count == (Code::CircuitRate, 1)));
}

fn unanswered() {
    let five = Some(Duration::from_secs(5));
    let none_unanswered = |rho: &mut NodeConfig, _: &mut NodeConfig| {
        rho.limits.circuits_unanswered = 0;
    };
    over_a_circuit(none_unanswered, Code::TargetBusy, five);
}

fn hosting() {
    let nobody = |rho: &mut NodeConfig, _: &mut NodeConfig| {
        rho.router.host = Access::Only(Default::default());
    };
    over_a_circuit(nobody, Code::HostingRefused, None);
}

fn calling() {
    let nobody = |rho: &mut NodeConfig, _: &mut NodeConfig| {
        rho.router.call = Access::Only(Default::default());
    };
    over_a_circuit(nobody, Code::CallingRefused, None);
}

// Within a session.

/// Alice and bob, and what he answers to her second request at once.
fn answer(change: impl FnOnce(&mut NodeConfig)) -> Response {
    let mut world = Simulation::new(2);
    let mut config = Simulation::config("bob", &records());
    change(&mut config);
    let bob = world.add_named("bob", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records()));
    world.machines[bob].hold_requests = true;
    let [_first, second] = [(); 2].map(|()| world.request(alice, &name("bob"), b"?"));
    match world.outcome(alice, second) {
        Outcome::Answered(response) => {
            let Response::Error { code, .. } = &response else {
                panic!("{response:?}")
            };
            let code = Code::from_u16(*code).unwrap();
            let mut counts = world.machines[bob].node.refused().into_iter();
            assert!(counts.any(|count| count == (code, 1)), "{code:?}");
            response
        }
        other => panic!("{other:?}"),
    }
}

fn under_way() {
    let refused = answer(|config| config.limits.requests = 1);
    assert_eq!(refused, Response::refuse(Code::QueueFull));
}

fn requests() {
    let Response::Error { code, message } = answer(|config| config.limits.stranger_requests = 1)
    else {
        panic!("an error")
    };
    assert_eq!(code, Code::RequestRate.as_u16());
    let (_, time) = message.split_once("try again in ").unwrap();
    let millis: u64 = time.strip_suffix(" ms").unwrap().parse().unwrap();
    assert!((9_000..=10_001).contains(&millis), "{message}");
}

// What the refused does with it.

#[test]
fn who_is_turned_away_before_a_handshake_comes_back_when_told_to() {
    let mut world = Simulation::new(3);
    let mut config = Simulation::config("bob", &records());
    config.limits.inbound_channels = 0;
    world.add_named("bob", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records()));
    world.act(alice, |node, now, out| {
        node.keep(&name("bob"), true, None, now, out)
    });
    world.run_for(Duration::from_secs(60));
    let mut waits = Vec::new();
    for event in &world.machines[alice].events {
        if let Event::Peer {
            state: PeerState::Offline { reason, retry },
            ..
        } = event
        {
            assert_eq!(*reason, Code::ChannelBudget);
            waits.push(retry.unwrap());
        }
    }
    assert!(waits.len() >= 3, "{waits:?}");
    // Its own backoff, which begins below half a second, may be longer and is never shorter.
    assert!(
        waits.iter().all(|wait| *wait >= Duration::from_secs(5)),
        "{waits:?}"
    );
    assert!(waits[0] == Duration::from_secs(5), "{waits:?}");
}
