//! One whole handshake from fixed seeds, byte for byte: natively, in the tab, and written a second time by a stranger.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::BytesMut;
use common::{
    Actor, NOW, REGISTRY, admit,
    stranger::{self, AS_INITIATOR, AS_RESPONDER, Speech, aead_seal, from_seed},
};
use node_core::channel::{ChainHead, Channel, RECORD};
use std::fmt::Write as _;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GOLDEN: &str = include_str!("golden/handshake.txt");
const INITIATOR_SEED: u8 = 0x11;
const RESPONDER_SEED: u8 = 0x22;
const FRAMES: &[u8] = &[
    0x40, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00,
];
const REKEY: &[u8] = &[0x03, 0x00, 0x00];

#[test]
fn fixed_seeds_give_the_golden_transcript() {
    let (alice, bob) = actors();
    let (dialling, message1) = alice.dial(&bob, INITIATOR_SEED);
    let (message2, answered) = bob.answer(&message1, RESPONDER_SEED).unwrap();
    let (message3, mut ours) = alice.conclude(dialling, &message2).unwrap();
    let mut theirs = admit(answered, &message3).unwrap();

    let mut text = String::from(HEADER);
    let mut line =
        |key: &str, value: &[u8]| writeln!(text, "{key} = {}", hex::encode(value)).unwrap();
    line("initiator seed", &[INITIATOR_SEED; 32]);
    line("initiator secret", &alice.secret);
    line("initiator key", &alice.key());
    line("initiator name", &alice.name().to_bytes());
    line("responder seed", &[RESPONDER_SEED; 32]);
    line("responder secret", &bob.secret);
    line("responder key", &bob.key());
    line("responder name", &bob.name().to_bytes());
    line("registry", &REGISTRY.contract);
    line("timestamp", &NOW.0.to_be_bytes());
    line("message 1", &message1);
    line("message 2", &message2);
    line("message 3", &message3);
    line("transcript", ours.transcript());
    line("export session", &*ours.export("session"));
    line("frames", FRAMES);
    line("record initiator 0", &pass(&mut ours, &mut theirs, FRAMES));
    line("record responder 0", &pass(&mut theirs, &mut ours, FRAMES));
    line(
        "record initiator 1 rekey",
        &pass(&mut ours, &mut theirs, REKEY),
    );
    ours.ratchet_send();
    theirs.ratchet_receive();
    line("record initiator 2", &pass(&mut ours, &mut theirs, FRAMES));
    assert!(text == GOLDEN, "the transcript is now\n{text}");
}

#[test]
fn a_stranger_reproduces_the_golden_transcript_from_the_description() {
    let golden = |key: &str| {
        let line = GOLDEN
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
            .unwrap();
        hex::decode(line).unwrap()
    };
    let bytes32 = |key: &str| <[u8; 32]>::try_from(golden(key)).unwrap();
    let (seed1, seed2) = (bytes32("initiator seed"), bytes32("responder seed"));
    let timestamp = u64::from_be_bytes(golden("timestamp").try_into().unwrap());
    let hello = |seed| {
        stranger::Hello::new(timestamp).with(6, stranger::bytes(&from_seed(seed, "nonce")[..8]))
    };

    let (mut dialling, message1) = stranger::Initiator::dial(
        1,
        from_seed(seed1, "x25519"),
        from_seed(seed1, "mlkem d"),
        from_seed(seed1, "mlkem z"),
    );
    assert_eq!(message1, golden("message 1"));

    let hello2 = hello(seed2).with(2, stranger::bytes(&golden("responder name")));
    let speech = Speech::honest(bytes32("responder secret"), AS_RESPONDER, hello2.block());
    let (answered, message2) = stranger::Responder::answer(
        &message1,
        from_seed(seed2, "x25519"),
        from_seed(seed2, "mlkem m"),
        &speech,
    );
    assert_eq!(message2, golden("message 2"));
    assert_eq!(
        dialling.hear(&message2).unwrap().0,
        bytes32("responder key")
    );

    let head = [
        stranger::head(4, 2),
        stranger::uint(19_000_000),
        stranger::bytes(&[0xbb; 32]),
    ]
    .concat();
    let hello3 = hello(seed1)
        .with(2, stranger::bytes(&golden("initiator name")))
        .with(3, stranger::bytes(&golden("responder name")))
        .with(7, stranger::text("nectar/test"))
        .with(8, head);
    let speech = Speech::honest(bytes32("initiator secret"), AS_INITIATOR, hello3.block());
    let (message3, noise) = dialling.say(&speech);
    assert_eq!(message3, golden("message 3"));
    let (s, heard, _, mirrored) = answered.hear(&message3);
    assert_eq!((s, heard), (bytes32("initiator key"), hello3.block()));
    assert_eq!(noise.finish("session"), mirrored.finish("session"));

    let (to_responder, to_initiator, exported) = noise.finish("session");
    assert_eq!(noise.h, bytes32("transcript"));
    assert_eq!(exported, bytes32("export session"));
    let record = |key, n, frames: &[u8]| [vec![0x10], aead_seal(key, n, &[0x10], frames)].concat();
    let frames = golden("frames");
    assert_eq!(
        record(&to_responder, 0, &frames),
        golden("record initiator 0")
    );
    assert_eq!(
        record(&to_initiator, 0, &frames),
        golden("record responder 0")
    );
    assert_eq!(
        record(&to_responder, 1, REKEY),
        golden("record initiator 1 rekey")
    );
    let next = aead_seal(&to_responder, u64::MAX, &[], &[0; 32])[..32]
        .try_into()
        .unwrap();
    assert_eq!(record(&next, 2, &frames), golden("record initiator 2"));
}

fn actors() -> (Actor, Actor) {
    let (mut alice, bob) = (Actor::named("alice", 0xa1), Actor::named("bob", 0xb0));
    alice.local.hello.head = Some(ChainHead {
        number: 19_000_000,
        hash: [0xbb; 32],
    });
    (alice, bob)
}

fn pass(from: &mut Channel, to: &mut Channel, frames: &[u8]) -> Vec<u8> {
    let mut record = BytesMut::from(&[&[RECORD], frames].concat()[..]);
    from.seal(&mut record).unwrap();
    assert_eq!(&to.open(record.clone()).unwrap()[..], frames);
    record.to_vec()
}

const HEADER: &str = "\
# One handshake and its first records. Everything is hexadecimal; names and times are encoded as on the wire.
# Secrets of a side are HMAC-SHA256(seed, \"nectar/1 seed \" || purpose), purpose being x25519, mlkem d, mlkem z
# (initiator), mlkem m (responder), nonce (both).
";
