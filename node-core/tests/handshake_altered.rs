//! Handshakes whose messages are altered, cut or replayed on the way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{
    Actor, admit, answer_of, call, calling, code, connect,
    stranger::{self, AS_RESPONDER, Speech},
};
use node_core::Code;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn every_flipped_byte_of_message_1_ends_without_a_channel() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let (_, message1) = alice.dial(&bob, 3);
    let mut answered = 0;
    for (index, mask) in flips(message1.len()) {
        match (index, bob.answer(&flipped(&message1, index, mask), 4)) {
            (0, result) => assert_eq!(code(result), Code::Malformed),
            (1, result) => assert_eq!(code(result), Code::VersionUnknown),
            // An encapsulation key with a coefficient above the modulus.
            (34.., Err(error)) => assert_eq!(error.code, Code::Malformed),
            (_, result) => {
                let (message2, _) = result.unwrap();
                let (dialling, _) = alice.dial(&bob, 3);
                assert_eq!(
                    code(alice.conclude(dialling, &message2)),
                    Code::DecryptFailed,
                    "byte {index}"
                );
                answered += 1;
            }
        }
    }
    assert!(answered > 1000, "{answered}");
}

#[test]
fn every_flipped_byte_of_message_2_is_refused_by_the_initiator() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let (_, message1) = alice.dial(&bob, 3);
    let (message2, _) = bob.answer(&message1, 4).unwrap();
    for (index, mask) in flips(message2.len()) {
        let (dialling, _) = alice.dial(&bob, 3);
        let expected = if index == 0 {
            Code::Malformed
        } else {
            Code::DecryptFailed
        };
        let result = alice.conclude(dialling, &flipped(&message2, index, mask));
        assert_eq!(code(result), expected, "byte {index}");
    }
}

#[test]
fn every_flipped_byte_of_message_3_is_refused_by_the_responder() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let ([message1, _, message3], ..) = connect(&alice, &bob, 3);
    for (index, mask) in flips(message3.len()) {
        let (_, answered) = bob.answer(&message1, 4).unwrap();
        let expected = if index == 0 {
            Code::Malformed
        } else {
            Code::DecryptFailed
        };
        assert_eq!(
            code(admit(answered, &flipped(&message3, index, mask))),
            expected,
            "byte {index}"
        );
    }
}

#[test]
fn messages_of_any_other_length_are_malformed() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let ([message1, message2, message3], ..) = connect(&alice, &bob, 3);
    for length in (0..message1.len()).chain([message1.len() + 1, 65_536]) {
        assert_eq!(
            code(bob.answer(&cut(&message1, length), 4)),
            Code::Malformed,
            "{length}"
        );
    }
    for length in
        (0..message2.len())
            .step_by(61)
            .chain([message2.len() - 1, message2.len() + 1, 65_536])
    {
        let (dialling, _) = alice.dial(&bob, 3);
        assert_eq!(
            code(alice.conclude(dialling, &cut(&message2, length))),
            Code::Malformed,
            "{length}"
        );
    }
    for length in
        (0..message3.len())
            .step_by(13)
            .chain([message3.len() - 1, message3.len() + 1, 65_536])
    {
        let (_, answered) = bob.answer(&message1, 4).unwrap();
        assert_eq!(
            code(admit(answered, &cut(&message3, length))),
            Code::Malformed,
            "{length}"
        );
    }
}

// Replayed.

#[test]
fn a_replayed_message_1_yields_a_message_2_that_nobody_can_finish() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let ([message1, message2, message3], ..) = connect(&alice, &bob, 3);
    let (again, answered) = bob.answer(&message1, 77).unwrap();
    assert_ne!(again, message2);
    assert_eq!(code(admit(answered, &message3)), Code::DecryptFailed);
}

#[test]
fn a_replayed_message_2_does_not_answer_another_handshake() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let ([_, message2, _], ..) = connect(&alice, &bob, 3);
    let (dialling, _) = alice.dial(&bob, 99);
    assert_eq!(
        code(alice.conclude(dialling, &message2)),
        Code::DecryptFailed
    );
}

#[test]
fn a_replayed_message_3_opens_nothing_in_another_handshake() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let ([_, _, message3], ..) = connect(&alice, &bob, 3);
    let (_, other) = alice.dial(&bob, 99);
    let (_, answered) = bob.answer(&other, 98).unwrap();
    assert_eq!(code(admit(answered, &message3)), Code::DecryptFailed);
}

#[test]
fn a_signature_from_another_handshake_does_not_verify() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    // Mallory answers alice, and takes her signature to bob.
    let mallory = Actor::named("mallory", 6);
    let (dialling, message1) = alice.dial(&mallory, 3);
    let speech = Speech::honest(mallory.secret, AS_RESPONDER, answer_of(&mallory).block());
    let (answered, message2) = stranger::Responder::answer(&message1, [4; 32], [5; 32], &speech);
    let (message3, _) = alice.conclude(dialling, &message2).unwrap();
    let (s, _, signature, _) = answered.hear(&message3);
    assert_eq!(s, alice.key());
    let stolen = Speech {
        s,
        secret: None,
        signature,
        ..calling(&alice, &bob)
    };
    assert_eq!(code(call(&bob, &stolen)), Code::BadSignature);
}

#[test]
fn a_message_3_for_somebody_else_is_a_wrong_target() {
    let (alice, bob, carol) = (
        Actor::named("alice", 1),
        Actor::named("bob", 2),
        Actor::named("carol", 3),
    );
    assert_eq!(
        code(call(&bob, &calling(&alice, &carol))),
        Code::WrongTarget
    );
}

fn flips(length: usize) -> impl Iterator<Item = (usize, u8)> {
    (0..length).map(|index| (index, if index % 2 == 0 { 0x01 } else { 0x80 }))
}

fn flipped(message: &[u8], index: usize, mask: u8) -> Vec<u8> {
    let mut message = message.to_vec();
    message[index] ^= mask;
    message
}

fn cut(message: &[u8], length: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message.resize(length, 0);
    message
}
