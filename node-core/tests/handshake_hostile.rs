//! Handshakes with nodes and networks that do not play along: each ends with the right error, and never with a channel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{
    Actor, NOW, WINDOW, admit, answer, answer_of, answering, call, call_of, calling, code, connect,
    encoded_name,
    stranger::{self, AS_INITIATOR, AS_RESPONDER, Speech, bytes, uint},
};
use node_core::{
    Code, Timestamp,
    channel::{HandshakeError, initiator, responder},
};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The identity point: its order is one.
const WEAK: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 1;
    key
};

// Who they are.

#[test]
fn somebody_elses_name_is_a_wrong_name_before_anything_is_said() {
    let (alice, bob, carol) = (
        Actor::named("alice", 1),
        Actor::named("bob", 2),
        Actor::named("carol", 3),
    );
    assert_eq!(
        code(answer(&alice, &bob, &answering(&carol))),
        Code::WrongName
    );
    // Carol with her own key under bob's name, and bob's key under carol's name.
    let impostor = Speech::honest(carol.secret, AS_RESPONDER, answer_of(&bob).block());
    assert_eq!(code(answer(&alice, &bob, &impostor)), Code::KeyMismatch);
    let mistaken = Speech::honest(bob.secret, AS_RESPONDER, answer_of(&carol).block());
    assert_eq!(code(answer(&alice, &bob, &mistaken)), Code::WrongName);
    let nameless = Speech::honest(bob.secret, AS_RESPONDER, answer_of(&bob).without(2).block());
    assert_eq!(code(answer(&alice, &bob, &nameless)), Code::WrongName);
    let elsewhere = node_core::Name {
        registry: node_core::RegistryId {
            chain_id: 1,
            ..common::REGISTRY
        },
        label: bob.name().label,
    };
    let hello = answer_of(&bob)
        .with(2, bytes(&elsewhere.to_bytes()))
        .block();
    let elsewhere = Speech::honest(bob.secret, AS_RESPONDER, hello);
    assert_eq!(
        code(answer(&alice, &bob, &elsewhere)),
        Code::WrongName,
        "the same label of another registry"
    );
}

#[test]
fn a_key_that_is_not_the_registered_one_is_a_mismatch() {
    let (alice, mut bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let answering = answering(&bob);
    bob.local.identity.key = [0x55; 32];
    assert_eq!(code(answer(&alice, &bob, &answering)), Code::KeyMismatch);
}

#[test]
fn the_key_that_was_claimed_is_the_key_that_the_chain_is_asked_about() {
    let (alice, bob, mallory) = (
        Actor::named("alice", 1),
        Actor::named("bob", 2),
        Actor::named("mallory", 6),
    );
    // Mallory signs correctly with a key of her own, under alice's name.
    let (mut dialling, message1) = stranger::Initiator::dial(1, [1; 32], [2; 32], [3; 32]);
    let (message2, answered) = bob.answer(&message1, 9).unwrap();
    dialling.hear(&message2).unwrap();
    let speech = Speech::honest(mallory.secret, AS_INITIATOR, call_of(&alice, &bob).block());
    let claimed = answered.handle(&dialling.say(&speech).0, NOW).unwrap();
    assert_eq!(claimed.peer().name, Some(alice.name()));
    let admission = claimed.verify().unwrap();
    assert_eq!(admission.key(), &mallory.key());
    assert_ne!(admission.key(), &alice.key());
}

#[test]
fn weak_keys_are_refused_on_both_sides_even_when_registered() {
    let (alice, mut bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    // R = the identity and S = 0 verifies under a weak key for anybody who does not look.
    let mut signature = [0; 64];
    signature[0] = 1;
    let weak = Speech {
        s: WEAK,
        secret: None,
        signature,
        ..calling(&alice, &bob)
    };
    assert_eq!(code(call(&bob, &weak)), Code::WeakKey);
    let weak = Speech {
        s: WEAK,
        secret: None,
        signature,
        ..answering(&bob)
    };
    bob.local.identity.key = WEAK;
    assert_eq!(code(answer(&alice, &bob, &weak)), Code::WeakKey);
}

#[test]
fn ephemeral_keys_of_small_order_and_malformed_encapsulation_keys_are_refused() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let ([mut message1, mut message2, _], ..) = connect(&alice, &bob, 3);
    message2[1..33].fill(0);
    let (dialling, _) = alice.dial(&bob, 3);
    assert_eq!(code(alice.conclude(dialling, &message2)), Code::WeakKey);
    let mut unreduced = message1.clone();
    unreduced[34..].fill(0xff);
    assert_eq!(code(bob.answer(&unreduced, 4)), Code::Malformed);
    message1[2..34].fill(0);
    assert_eq!(code(bob.answer(&message1, 4)), Code::WeakKey);
}

#[test]
fn a_key_that_is_no_point_verifies_nothing() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let mut s = [0; 32];
    s[0] = 2;
    let speech = Speech {
        s,
        secret: None,
        ..calling(&alice, &bob)
    };
    assert_eq!(code(call(&bob, &speech)), Code::BadSignature);
}

#[test]
fn signatures_of_the_wrong_key_role_or_hello_do_not_verify() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    for (secret, context) in [(bob.secret, AS_INITIATOR), (alice.secret, AS_RESPONDER)] {
        let speech = Speech {
            secret: Some(secret),
            context,
            ..calling(&alice, &bob)
        };
        assert_eq!(code(call(&bob, &speech)), Code::BadSignature);
    }
    for (secret, context) in [(alice.secret, AS_RESPONDER), (bob.secret, AS_INITIATOR)] {
        let speech = Speech {
            secret: Some(secret),
            context,
            ..answering(&bob)
        };
        assert_eq!(code(answer(&alice, &bob, &speech)), Code::BadSignature);
    }
    for signature in [[0; 64], [0xff; 64]] {
        let speech = Speech {
            secret: None,
            signature,
            ..calling(&alice, &bob)
        };
        assert_eq!(code(call(&bob, &speech)), Code::BadSignature);
    }
}

#[test]
fn a_node_that_reaches_itself_says_so_on_both_sides() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let (dialling, message1) = bob.dial(&bob, 3);
    let (message2, _) = bob.answer(&message1, 4).unwrap();
    assert_eq!(code(bob.conclude(dialling, &message2)), Code::Myself);
    // Behind an address that was thought to be somebody else's.
    let (dialling, message1) = bob.dial(&alice, 3);
    let (message2, _) = bob.answer(&message1, 4).unwrap();
    assert_eq!(code(bob.conclude(dialling, &message2)), Code::Myself);
    assert_eq!(code(call(&bob, &calling(&bob, &bob))), Code::Myself);
}

#[test]
fn a_name_of_an_unknown_registry_is_refused_without_a_look_at_it() {
    let (mut alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let mut foreign = alice.name();
    foreign.registry.contract = [0xdd; 20];
    alice.local.identity.name = Some(foreign);
    assert_eq!(
        code(call(&bob, &calling(&alice, &bob))),
        Code::RegistryUnknown
    );
}

// Clocks and versions.

#[test]
fn clocks_may_differ_by_the_window_and_not_by_a_millisecond_more() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let window = WINDOW.as_millis() as i64;
    for skew in [
        -window,
        window,
        -window - 1,
        window + 1,
        -(NOW.0 as i64),
        i64::MAX,
    ] {
        let timestamp = uint((NOW.0 as i64).saturating_add(skew) as u64);
        let hello = call_of(&alice, &bob).with(1, timestamp.clone()).block();
        let called = call(&bob, &Speech::honest(alice.secret, AS_INITIATOR, hello));
        let hello = answer_of(&bob).with(1, timestamp).block();
        let answered = answer(
            &alice,
            &bob,
            &Speech::honest(bob.secret, AS_RESPONDER, hello),
        );
        for result in [called, answered] {
            match result {
                Ok(channel) => {
                    assert!(skew.abs() <= window, "{skew}");
                    assert_eq!(channel.peer().skew_ms, skew);
                }
                Err(error) => {
                    assert!(skew.abs() > window, "{skew}: {error:?}");
                    assert_eq!(error.code, Code::ClockSkew);
                    let expected = if skew == i64::MAX {
                        i64::MAX - NOW.0 as i64
                    } else {
                        skew
                    };
                    assert_eq!(error.skew_ms, Some(expected), "it says by how much");
                }
            }
        }
    }
    let hello = call_of(&alice, &bob).with(1, uint(u64::MAX)).block();
    let error = call(&bob, &Speech::honest(alice.secret, AS_INITIATOR, hello)).unwrap_err();
    assert_eq!(
        (error.code, error.skew_ms),
        (Code::ClockSkew, Some(i64::MAX))
    );
}

#[test]
fn the_clock_window_is_the_nodes_own() {
    let (alice, mut bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    bob.local.clock_window = std::time::Duration::from_millis(5);
    let (dialling, message1) = alice.dial(&bob, 3);
    let (message2, answered) = bob.answer(&message1, 4).unwrap();
    let (message3, _) = alice.conclude(dialling, &message2).unwrap();
    assert_eq!(
        code(answered.handle(&message3, Timestamp(NOW.0 + 6))),
        Code::ClockSkew
    );
}

#[test]
fn a_version_that_we_do_not_speak_is_refused_with_the_ones_that_we_do() {
    let bob = Actor::named("bob", 2);
    for version in [0, 2, 0xff] {
        for length in [2, 1218, 9000] {
            let mut message = vec![0; length];
            (message[0], message[1]) = (1, version);
            let error = bob.answer(&message, 4).unwrap_err();
            assert_eq!(error.code, Code::VersionUnknown);
            let reject = error.reject().unwrap();
            assert_eq!((reject.version_min, reject.version_max), (1, 1));
        }
    }
}

#[test]
fn a_version_rewritten_on_the_way_fails_the_handshake() {
    let bob = Actor::named("bob", 2);
    let (mut dialling, mut message1) = stranger::Initiator::dial(2, [1; 32], [2; 32], [3; 32]);
    message1[1] = 1;
    let (message2, _) = bob.answer(&message1, 9).unwrap();
    assert_eq!(dialling.hear(&message2), None);
}

#[test]
fn a_newer_peer_is_welcome_and_one_that_cannot_speak_what_it_speaks_is_not() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    for (maximum, expected) in [
        (0, Some(Code::Malformed)),
        (1, None),
        (9, None),
        (255, None),
    ] {
        let hello = call_of(&alice, &bob).with(0, uint(maximum)).block();
        let called = call(&bob, &Speech::honest(alice.secret, AS_INITIATOR, hello));
        let hello = answer_of(&bob).with(0, uint(maximum)).block();
        let answered = answer(
            &alice,
            &bob,
            &Speech::honest(bob.secret, AS_RESPONDER, hello),
        );
        assert_eq!(
            [called, answered].map(|result| result.err().map(|error| error.code)),
            [expected; 2]
        );
    }
}

// Order, signers, guests, refusals.

#[test]
fn the_responder_checks_in_the_order_of_the_protocol() {
    let (mut alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let registered = alice.name();
    let mut foreign = registered.clone();
    foreign.registry.chain_id = 1;
    alice.local.identity.name = Some(foreign);
    let mut hello = call_of(&alice, &bob)
        .with(0, uint(0))
        .with(1, uint(0))
        .with(3, bytes(&encoded_name("carol")));
    // Everything is wrong with it; one thing after the other is put right.
    for (expected, key, repaired) in [
        (Code::Malformed, 0, uint(1)),
        (Code::ClockSkew, 1, uint(NOW.0)),
        (Code::RegistryUnknown, 2, bytes(&registered.to_bytes())),
        (Code::WrongTarget, 3, bytes(&bob.name().to_bytes())),
        (Code::BadSignature, 4, uint(0)),
    ] {
        let broken = Speech {
            secret: None,
            ..Speech::honest(alice.secret, AS_INITIATOR, hello.block())
        };
        assert_eq!(code(call(&bob, &broken)), expected);
        hello = hello.with(key, repaired);
    }
}

#[test]
fn a_signer_that_holds_another_key_is_found_out_before_its_signature_leaves() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let (dialling, message1) = alice.dial(&bob, 3);
    let state = responder::start(bob.local(), &message1, [4; 32], NOW).unwrap();
    assert_eq!(code(state.signed([0; 64])), Code::SignerFailed);
    let state = responder::start(bob.local(), &message1, [4; 32], NOW).unwrap();
    let stale = alice.sign(state.request());
    assert_eq!(code(state.signed(stale)), Code::SignerFailed, "another key");

    let (message2, _) = bob.answer(&message1, 4).unwrap();
    let state = dialling.handle(&message2, NOW).unwrap();
    assert_eq!(code(state.signed(None)), Code::SignerFailed);
    let (dialling, _) = alice.dial(&bob, 3);
    let state = dialling.handle(&message2, NOW).unwrap();
    assert_eq!(code(state.signed(Some([7; 64]))), Code::SignerFailed);
}

#[test]
fn what_a_signer_breaks_after_a_good_signature_the_peer_refuses() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let (dialling, message1) = alice.dial(&bob, 3);
    bob.answer(&message1, 4).unwrap();
    let state = responder::start(bob.local(), &message1, [5; 32], NOW).unwrap();
    let (message2, _) = state.signed([7; 64]).unwrap();
    let refused = dialling.handle(&message2, NOW).map(drop).unwrap_err();
    assert_eq!(refused.code, Code::BadSignature);
}

#[test]
fn a_guest_signs_for_itself_with_a_key_that_no_other_handshake_uses() {
    let (guest, bob) = (Actor::guest(), Actor::named("bob", 2));
    let keys = [3, 30].map(|seed| {
        let (dialling, message1) = guest.dial(&bob, seed);
        let (message2, answered) = bob.answer(&message1, 4).unwrap();
        let state: initiator::AwaitSignature = dialling.handle(&message2, NOW).unwrap();
        assert_eq!(state.request(), None);
        let (message3, _) = state.signed(None).unwrap();
        let channel = admit(answered, &message3).unwrap();
        assert_eq!(channel.peer().name, None);
        channel.peer().key
    });
    assert_ne!(keys[0], keys[1]);
    assert!(!keys.contains(&[0; 32]));
}

#[test]
fn a_guest_proves_its_throw_away_key_like_everybody_else() {
    let bob = Actor::named("bob", 2);
    let hello = call_of(&Actor::guest(), &bob).block();
    let honest = Speech::honest([0x77; 32], AS_INITIATOR, hello);
    assert_eq!(call(&bob, &honest).unwrap().peer().name, None);
    assert_eq!(
        code(call(
            &bob,
            &Speech {
                secret: Some([0x78; 32]),
                ..honest
            }
        )),
        Code::BadSignature
    );
}

#[test]
fn a_guest_cannot_be_dialled() {
    let (_, message1) = Actor::named("alice", 1).dial(&Actor::named("bob", 2), 3);
    let error = responder::start(Actor::guest().local(), &message1, [4; 32], NOW).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
}

#[test]
fn refusals_tell_honest_callers_why_and_forgers_nothing() {
    let told = |code: Code| HandshakeError::new(code).reject().map(|reject| reject.code);
    for code in [
        Code::VersionUnknown,
        Code::ClockSkew,
        Code::RegistryUnknown,
        Code::WrongTarget,
        Code::KeyMismatch,
    ] {
        assert_eq!(told(code), Some(Some(code)));
    }
    for code in [
        Code::Malformed,
        Code::DecryptFailed,
        Code::BadSignature,
        Code::WeakKey,
        Code::Downgrade,
        Code::Myself,
    ] {
        assert_eq!(told(code), None);
    }
}
