//! What callers do to a router, and a router to its target, by circuits: taken back at once, or over many sessions.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{
    host::{Bob, Caller, local},
    sessions::Duel,
};
use nectar_sim::{direct, indirect, key_of, name};
use node_core::{
    Code,
    channel::{RECORD, initiator},
    node::{Access, RouterPolicy},
    time::Duration,
    wire::frame::{Frame, next},
};

/// A first message for bob, with which somebody begins a handshake over a circuit.
fn first() -> Bytes {
    let bob = key_of("bob").verifying_key().to_bytes();
    let caller = local("mallory", &key_of("mallory"));
    initiator::start(caller, name("bob"), bob, [9; 32]).1.into()
}

fn closed(cid: u32) -> Frame {
    Frame::CircuitClose {
        cid,
        code: Code::Cancelled.as_u16(),
        retry_ms: 0,
    }
}

fn opened(cid: u32) -> Frame {
    Frame::Open {
        cid,
        window: 1 << 16,
        hide: false,
        to: name("carol"),
        first: first(),
    }
}

/// Every circuit that a node brings to whoever it is.
fn brought(bob: &mut Bob, to: &mut Caller) -> usize {
    let mut count = 0;
    while let Some(record) = bob.says(&to.pipe) {
        assert_eq!(record[0], RECORD);
        let mut frames = to.channel.open(record.into()).unwrap().freeze();
        while let Some((_, _, frame)) = next(&mut frames).unwrap() {
            count += usize::from(matches!(frame, Some(Frame::Incoming { .. })));
        }
    }
    count
}

#[test]
fn a_circuit_that_its_caller_takes_back_at_once_is_not_brought_to_its_target_and_costs_it_nothing()
{
    let records = [
        ("bob", direct("bob", 1)),
        ("mallory", direct("mallory", 2)),
        ("carol", indirect("carol", &["bob"])),
    ];
    let mut bob = Bob::among(&records, |config| {
        config.router = RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false,
        };
    });
    let (mut mallory, mut carol) = (bob.mallory().ok().unwrap(), bob.carol().ok().unwrap());
    for n in 0..20 {
        let frames = [opened(2 * n).encode(), closed(2 * n).encode()];
        bob.tell(&mut mallory, &frames.concat());
        bob.wait(Duration::from_millis(100));
    }
    assert_eq!(brought(&mut bob, &mut carol), 0);
    assert_eq!(bob.node.counts().circuits, 0);
    // One that is meant comes in.
    bob.tell(&mut mallory, &opened(40).encode());
    assert_eq!(brought(&mut bob, &mut carol), 1);
}

#[test]
fn a_circuit_that_its_router_takes_back_at_once_leaves_no_handshake_behind() {
    let records = [
        ("bob", indirect("bob", &["carol"])),
        ("mallory", direct("mallory", 2)),
        ("carol", direct("carol", 3)),
    ];
    let mut bob = Bob::among(&records, |_| ());
    let mut out = Vec::new();
    bob.node.start(bob.now, &mut out);
    let mut carol = bob.carol().ok().unwrap();
    let incoming = |cid| Frame::Incoming {
        cid,
        window: 1 << 16,
        from: Some(name("mallory")),
        first: first(),
    };
    for n in 0..20 {
        let frames = [incoming(2 * n).encode(), closed(2 * n).encode()];
        bob.tell(&mut carol, &frames.concat());
        bob.wait(Duration::from_millis(100));
        assert_eq!(
            (bob.node.counts().half_open, bob.node.counts().circuits),
            (0, 0)
        );
    }
    bob.tell(&mut carol, &incoming(40).encode());
    assert_eq!(
        (bob.node.counts().half_open, bob.node.counts().circuits),
        (1, 1)
    );
}

/// A circuit to carol that its caller takes back at once: what he is told.
fn takes_back(bob: &mut Bob, caller: &mut Caller, cid: u32) -> Vec<Frame> {
    let open = Frame::Open {
        cid,
        window: 1 << 20,
        hide: false,
        to: name("carol"),
        first: Bytes::from_static(&[0; 1218]),
    };
    bob.tell(caller, &open.encode());
    let told = bob.frames(caller);
    bob.tell(caller, &closed(cid).encode());
    told
}

/// How often alice, who asks for carol once a second, is told that she is busy, while mallory opens circuits to her over so many
/// sessions as fast as each may.
fn busy(sessions: usize) -> usize {
    let records = [
        ("bob", direct("bob", 1)),
        ("carol", indirect("carol", &["bob"])),
        ("alice", direct("alice", 4)),
        ("mallory", direct("mallory", 2)),
    ];
    let mut bob = Bob::among(&records, |config| {
        config.router.host = Access::Anyone;
        config.router.call = Access::Anyone;
    });
    let mut carol = bob.call("carol", &key_of("carol"), 1, 0).unwrap();
    let mut alice = bob.call("alice", &key_of("alice"), 2, 0).unwrap();
    // Whoever lets carol in does not answer the first.
    assert!(bob.node.ping(&name("carol"), bob.now));
    bob.keeps(&mut carol);
    bob.keeps(&mut alice);
    let mut mallory: Vec<Caller> = Vec::new();
    for _ in 0..sessions {
        mallory.push(bob.mallory().unwrap());
        for session in &mut mallory {
            bob.keeps(session);
        }
    }
    let mut refused = 0;
    for tick in 0..600 {
        for session in &mut mallory {
            takes_back(&mut bob, session, tick * 2);
        }
        bob.keeps(&mut carol);
        if tick % 10 == 5 {
            let told = takes_back(&mut bob, &mut alice, tick / 10 * 2);
            let busy = told.iter().any(|frame| {
                matches!(frame, Frame::CircuitClose { code, .. } if *code == Code::TargetBusy.as_u16())
            });
            // What may come at once is used up by then.
            refused += usize::from(tick >= 200 && busy);
            bob.keeps(&mut carol);
        }
        bob.wait(Duration::from_millis(100));
        for session in &mut mallory {
            bob.keeps(session);
        }
        bob.keeps(&mut alice);
    }
    refused
}

#[test]
fn one_name_keeps_no_target_busy_however_many_sessions_it_has() {
    for sessions in [1, 30] {
        assert_eq!(busy(sessions), 0, "{sessions} sessions");
    }
}

/// Mallory, one of bob's two routers, retires each of its sessions and keeps it by a stream that does not end; over each it brings
/// callers who say nothing more. Alice comes through the other one.
#[test]
fn one_router_does_not_take_all_places_from_those_who_come_through_another() {
    let mut bob = Bob::on_chain(&[
        ("bob", indirect("bob", &["mallory", "carol"])),
        ("mallory", direct("mallory", 2)),
        ("carol", direct("carol", 3)),
        ("alice", indirect("alice", &["carol"])),
    ]);
    bob.kept = Some(Vec::new());
    let mut out = Vec::new();
    bob.node.start(bob.now, &mut out);
    bob.note(out);
    let (mut carol, mut mallory) = (None, Vec::new());
    for _ in 0..180 {
        for pipe in std::mem::take(&mut bob.dials) {
            // Only the one who is meant can answer.
            if carol.is_none() {
                carol = bob.answer_as(pipe.clone(), "carol", &key_of("carol"));
                if carol.is_some() {
                    continue;
                }
            }
            if let Some(mut router) = bob.answer_as(pipe, "mallory", &key_of("mallory")) {
                let mut said = Duel::stream(7).encode().to_vec();
                said.extend_from_slice(&Frame::GoAway(Duration::ZERO).encode());
                bob.tell(&mut router, &said);
                mallory.push(router);
            }
        }
        bob.wait(Duration::from_secs(1));
        for router in mallory.iter_mut().chain(&mut carol) {
            bob.keeps(router);
        }
    }
    let bring = |bob: &mut Bob, router: &mut Caller, index: u32, from| {
        let incoming = Frame::Incoming {
            cid: 1 + index * 2,
            window: 1 << 20,
            from,
            first: first(),
        };
        bob.tell(router, &incoming.encode());
    };
    assert!(mallory.len() >= 8, "{}", mallory.len());
    for router in &mut mallory {
        for index in 0..32 {
            let from = match index {
                0..16 => None,
                16..24 => Some(name("eve")),
                _ => Some(name("frank")),
            };
            bring(&mut bob, router, index, from);
        }
    }
    let carol = carol.as_mut().unwrap();
    bring(&mut bob, carol, 0, Some(name("alice")));
    let told = bob.frames(carol);
    let refused = told
        .iter()
        .any(|frame| matches!(frame, Frame::CircuitClose { .. }));
    assert!(!refused, "{} half open", bob.node.counts().half_open);
}

/// Ivan, whose name has the lower hash, has two sessions with Bob. What he says over the older one takes more than five seconds, so
/// that Bob takes the newer one; he has heard Bob over the older one meanwhile, and gives up the newer one.
#[test]
fn who_was_not_told_that_its_session_drains_opens_circuits_on_it() {
    let records = [
        ("bob", direct("bob", 1)),
        ("carol", indirect("carol", &["bob"])),
        ("ivan", direct("ivan", 4)),
    ];
    assert!(name("ivan").hash() < name("bob").hash());
    let mut bob = Bob::among(&records, |config| {
        config.router.host = Access::Anyone;
        config.router.call = Access::Anyone;
    });
    let mut carol = bob.call("carol", &key_of("carol"), 1, 0).unwrap();
    assert!(bob.keeps(&mut carol));
    let mut older = bob.call("ivan", &key_of("ivan"), 2, 0).unwrap();
    assert!(bob.keeps(&mut older));
    bob.kept = Some(Vec::new());
    bob.tell(&mut older, &Duel::stream(6).encode());
    bob.wait(Duration::from_secs(6));
    assert!(bob.keeps(&mut older));
    assert!(bob.keeps(&mut carol));
    let mut newer = bob.call("ivan", &key_of("ivan"), 2, 0).unwrap();
    for _ in 0..52 {
        bob.wait(Duration::from_millis(100));
        assert!(bob.keeps(&mut newer));
    }
    bob.tell(&mut newer, &Frame::GoAway(Duration::ZERO).encode());
    assert!(bob.keeps(&mut older));
    assert!(bob.keeps(&mut newer));
    for n in 1..20 {
        bob.wait(Duration::from_secs(2));
        assert!(bob.keeps(&mut carol));
        bob.keeps(&mut newer);
        let told = takes_back(&mut bob, &mut older, n * 2);
        let refused = told
            .iter()
            .any(|frame| matches!(frame, Frame::CircuitClose { cid, .. } if *cid == n * 2));
        assert!(!refused, "{told:?}");
        assert!(bob.keeps(&mut older));
    }
}

/// How many nameless callers Bob lets in at once through a router.
fn nameless(router: &str) -> usize {
    let records = [
        ("bob", indirect("bob", &[router])),
        (router, direct(router, 3)),
    ];
    let mut bob = Bob::among(&records, |_| ());
    let mut out = Vec::new();
    bob.node.start(bob.now, &mut out);
    bob.note(out);
    let mut router = bob.call(router, &key_of(router), 7, 0).unwrap();
    let refused = (0..24).filter(|index| {
        let incoming = Frame::Incoming {
            cid: index * 2,
            window: 1 << 16,
            from: None,
            first: first(),
        };
        bob.tell(&mut router, &incoming.encode());
        let told = bob.frames(&mut router);
        told.iter()
            .any(|frame| matches!(frame, Frame::CircuitClose { .. }))
    });
    24 - refused.count()
}

#[test]
fn nameless_callers_have_the_same_share_whatever_their_routers_name_is() {
    for router in ["carol", "dave", "erin", "frank", "grace", "heidi"] {
        assert_eq!(nameless(router), 16, "{router}");
    }
}
