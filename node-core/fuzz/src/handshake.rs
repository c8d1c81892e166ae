//! The handshake as a state machine.

use crate::{
    common::{
        Actor, admit, call,
        stranger::{AS_INITIATOR, AS_RESPONDER, Speech, pad},
    },
    input::{Input, edit},
};
use node_core::wire::handshake::{HELLO_BLOCK, HELLO_BLOCKS_MAX, Hello};

/// Nobody gets a channel over altered messages, and who says what he likes under a key of his own gets one as no more than
/// that key's holder, and only if he meant us.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() {
        0..128 => altered(&mut input),
        128..192 => called(&mut input),
        _ => answered(&mut input),
    }
}

/// Honest messages, with edits in one of them, or another handshake's message in its place.
fn altered(input: &mut Input<'_>) {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let which = input.u8();
    let seed = input.u8();
    let sent = |message: &[u8], number: u8| {
        let mut message = message.to_vec();
        if which % 4 == number {
            edit(&mut message, input.rest());
        }
        message
    };
    let (dialling, message1) = alice.dial(&bob, seed);
    let sent1 = sent(&message1, 1);
    let Ok((message2, answered)) = bob.answer(&sent1, seed ^ 1) else {
        return assert_ne!(sent1, message1);
    };
    let mut sent2 = sent(&message2, 2);
    if which == 0xff {
        // The answer to somebody else.
        let (_, other) = alice.dial(&bob, seed ^ 2);
        sent2 = bob
            .answer(&other, seed ^ 1)
            .map(|(message2, _)| message2)
            .unwrap_or_default();
    }
    let concluded = alice.conclude(dialling, &sent2);
    assert_eq!(
        concluded.is_ok(),
        (&sent1, &sent2) == (&message1, &message2)
    );
    let Ok((message3, ours)) = concluded else {
        return;
    };
    let sent3 = sent(&message3, 3);
    let admitted = admit(answered, &sent3);
    assert_eq!(admitted.is_ok(), sent3 == message3);
    if let Ok(theirs) = admitted {
        assert_eq!(ours.transcript(), theirs.transcript());
        assert_eq!(ours.export("x"), theirs.export("x"));
        assert_eq!(
            (ours.peer().key, theirs.peer().key),
            (bob.key(), alice.key())
        );
    }
}

/// Somebody calls with a hello of his own.
fn called(input: &mut Input<'_>) {
    let (mallory, bob) = (Actor::named("mallory", 5), Actor::named("bob", 2));
    let (speech, hello) = speech(&mallory, AS_INITIATOR, input);
    if let Ok(channel) = call(&bob, &speech) {
        let hello = hello.expect("whose hello reads nowhere is not let in");
        assert_eq!(speech.s, mallory.key());
        assert_eq!(speech.context, AS_INITIATOR);
        assert_eq!(
            (channel.peer().key, &channel.peer().name),
            (mallory.key(), &hello.name)
        );
        assert_eq!(hello.target, Some(bob.name()));
        assert_ne!(hello.name, Some(bob.name()));
        within(&hello);
    }
}

/// Somebody answers with a hello of his own, as whom we dialled or not.
fn answered(input: &mut Input<'_>) {
    let (mallory, alice) = (Actor::named("mallory", 5), Actor::named("alice", 1));
    let (speech, hello) = speech(&mallory, AS_RESPONDER, input);
    if let Ok(channel) = crate::common::answer(&alice, &mallory, &speech) {
        let hello = hello.expect("whose hello reads nowhere is not let in");
        assert_eq!(speech.s, mallory.key());
        assert_eq!(speech.context, AS_RESPONDER);
        assert_eq!(
            (channel.peer().key, &channel.peer().name),
            (mallory.key(), &hello.name)
        );
        assert_eq!(hello.name, Some(mallory.name()));
        within(&hello);
    }
}

fn within(hello: &Hello) {
    let apart = hello.timestamp.0.abs_diff(crate::common::NOW.0);
    assert!(apart <= crate::common::WINDOW.as_millis() as u64, "{apart}");
    assert!(hello.version_max >= 1);
}

/// A signed speech about the rest of the input: an honest hello with edits, or any bytes in whole blocks.
fn speech(who: &Actor, context: &'static str, input: &mut Input<'_>) -> (Speech, Option<Hello>) {
    let how = input.u8();
    let bob = Actor::named("bob", 2);
    let honest = match context {
        AS_INITIATOR => crate::common::call_of(who, &bob),
        _ => crate::common::answer_of(who),
    };
    let hello = if how & 1 == 0 {
        let mut cbor = honest.cbor();
        edit(&mut cbor, input.rest());
        pad(&cbor[..cbor.len().min(HELLO_BLOCK - 2)], HELLO_BLOCK)
    } else {
        let length = HELLO_BLOCK * (1 + usize::from(how >> 1) % HELLO_BLOCKS_MAX);
        let cbor = input.rest();
        pad(&cbor[..cbor.len().min(length - 2)], length)
    };
    let mut speech = Speech::honest(who.secret, context, hello.clone());
    match how >> 4 {
        // Signed for the other role, by another key, or not at all.
        1 => {
            speech.context = match context {
                AS_INITIATOR => AS_RESPONDER,
                _ => AS_INITIATOR,
            }
        }
        2 => speech.s = Actor::named("carol", 6).key(),
        3 => speech.secret = None,
        _ => {}
    }
    (speech, Hello::decode(&hello))
}
