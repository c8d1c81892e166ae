//! What callers do to a router, and a router to its target, by circuits that they take back at once.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::host::{Bob, Caller, local};
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
