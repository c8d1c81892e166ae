//! What a handshake between honest nodes gives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::BytesMut;
use common::{Actor, connect};
use node_core::channel::{RECORD, Role};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn both_ends_agree_on_names_bits_transcript_and_exports() {
    let (mut alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    alice.local.hello.features = 0b1101;
    let (_, ours, theirs) = connect(&alice, &bob, 7);
    assert_eq!(
        (ours.role(), theirs.role()),
        (Role::Initiator, Role::Responder)
    );
    assert_eq!(ours.peer().name, Some(bob.name()));
    assert_eq!(ours.peer().key, bob.key());
    assert_eq!(theirs.peer().name, Some(alice.name()));
    assert_eq!(theirs.peer().key, alice.key());
    assert_eq!((ours.features(), theirs.features()), (0b0101, 0b0101));
    assert_eq!((ours.privacy(), theirs.privacy()), (1, 1));
    assert_eq!(ours.transcript(), theirs.transcript());
    assert_eq!(ours.export("session"), theirs.export("session"));
    assert_ne!(ours.export("session"), ours.export("other"));
}

#[test]
fn records_go_both_ways_at_once_and_in_place() {
    let (_, mut alice, mut bob) = connect(&Actor::named("alice", 1), &Actor::named("bob", 2), 7);
    for round in 0..3u8 {
        let mut record = BytesMut::from(&[RECORD, 0x01, 0, 1, round][..]);
        alice.seal(&mut record).unwrap();
        let place = record.as_ptr();
        let frames = bob.open(record).unwrap();
        assert_eq!(&frames[..], [0x01, 0, 1, round]);
        assert_eq!(frames.as_ptr(), place.wrapping_add(1), "nothing was copied");
        let mut record = BytesMut::from(&[RECORD, round][..]);
        bob.seal(&mut record).unwrap();
        assert_eq!(&alice.open(record).unwrap()[..], [round]);
    }
}

#[test]
fn messages_have_the_lengths_of_the_protocol_whoever_speaks() {
    let bob = Actor::named("bob", 2);
    let longest = Actor::named(&"x".repeat(63), 3);
    for from in [Actor::named("alice", 1), Actor::guest(), longest.clone()] {
        for to in [&bob, &longest] {
            if from.local.identity == to.local.identity {
                continue;
            }
            let (messages, ..) = connect(&from, to, 9);
            assert_eq!(messages.map(|message| message.len()), [1218, 1537, 401]);
        }
    }
}
