//! Whatever arrives, every state answers with an error and none panics.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::BytesMut;
use common::{
    Actor, admit, call, call_of, calling, connect,
    stranger::{AS_INITIATOR, Speech, pad},
};
use node_core::{
    channel::{RECORD, Reject},
    wire::handshake::Hello,
};
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_no_message_1(mut bytes in message(1218), framed in any::<bool>()) {
        if framed {
            bytes.splice(..bytes.len().min(2), [1, 1]);
        }
        // Random coordinates are valid ephemeral keys, so a message 2 may come; never more.
        if let Ok((_, answered)) = Actor::named("bob", 2).answer(&bytes, 4) {
            prop_assert_eq!(bytes.len(), 1218);
            prop_assert!(admit(answered, &bytes).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_message_2(mut bytes in message(1537), framed in any::<bool>()) {
        if let (true, Some(first)) = (framed, bytes.first_mut()) {
            *first = 2;
        }
        let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
        prop_assert!(alice.conclude(alice.dial(&bob, 3).0, &bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_message_3(mut bytes in message(401), framed in any::<bool>()) {
        if let (true, Some(first)) = (framed, bytes.first_mut()) {
            *first = 3;
        }
        let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
        let (_, message1) = alice.dial(&bob, 3);
        let (_, answered) = bob.answer(&message1, 4).unwrap();
        prop_assert!(admit(answered, &bytes).is_err());
    }

    #[test]
    fn arbitrary_hellos_under_a_valid_signature_are_refused(cbor in vec(any::<u8>(), 0..254)) {
        let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
        let speech = Speech::honest(alice.secret, AS_INITIATOR, pad(&cbor, 256));
        prop_assert!(call(&bob, &speech).is_err());
    }

    #[test]
    fn a_hello_with_one_byte_changed_is_accepted_only_as_what_was_signed(index in 0usize..256, mask in 1u8..) {
        let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
        let mut block = call_of(&alice, &bob).block();
        block[index] ^= mask;
        if let Ok(channel) = call(&bob, &Speech { hello: block.clone(), ..calling(&alice, &bob) }) {
            prop_assert_eq!(channel.peer().key, alice.key());
            prop_assert_eq!(&Hello::decode(&block).unwrap().name, &channel.peer().name);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_record(bytes in vec(any::<u8>(), 0..200), framed in any::<bool>()) {
        let (_, mut alice, _) = connect(&Actor::named("alice", 1), &Actor::named("bob", 2), 7);
        let bytes = if framed { [vec![RECORD], bytes].concat() } else { bytes };
        prop_assert!(alice.open(BytesMut::from(&bytes[..])).is_err());
        prop_assert_eq!(alice.received().records, 0);
    }
}

proptest! {
    #[test]
    fn whatever_decodes_as_a_hello_encodes_to_what_decodes_the_same(cbor in vec(any::<u8>(), 0..254)) {
        if let Some(hello) = Hello::decode(&pad(&cbor, 256)) {
            prop_assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        }
    }

    #[test]
    fn a_refusal_is_nine_bytes_and_nothing_else(bytes in vec(any::<u8>(), 0..12)) {
        if let Some(reject) = Reject::parse(&bytes) {
            prop_assert_eq!((bytes.len(), bytes[0]), (9, 4));
            if reject.code.is_some() {
                prop_assert_eq!(&reject.to_bytes()[..], &bytes[..]);
            }
        }
    }
}

/// Any bytes, of the right length half of the time.
fn message(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), length), vec(any::<u8>(), 0..2 * length)]
}
