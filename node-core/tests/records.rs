//! Records on a path that alters, drops, repeats and reorders them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::BytesMut;
use common::{Actor, connect};
use node_core::{
    Code, Instant, Limits,
    channel::{Channel, MAX_FRAMES, MAX_RECORD, RECORD, RECORD_OVERHEAD},
};
use std::time::Duration;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn every_flipped_bit_is_a_forgery_and_the_true_record_still_opens() {
    let (mut alice, mut bob) = pair();
    let record = sealed(&mut alice, b"frames");
    for index in 0..record.len() {
        for bit in 0..8 {
            let mut forged = record.clone();
            forged[index] ^= 1 << bit;
            let error = bob.open(forged).unwrap_err();
            assert_eq!(error.code, Code::RecordForged);
            assert!(!error.is_proven(), "anybody on the path could have done it");
        }
    }
    assert_eq!(bob.received().records, 0, "no forgery advanced the counter");
    assert_eq!(&bob.open(record).unwrap()[..], b"frames");
}

#[test]
fn truncated_extended_and_empty_records_are_forgeries() {
    let (mut alice, mut bob) = pair();
    let record = sealed(&mut alice, b"frames");
    for length in 0..record.len() {
        assert_eq!(
            code(&mut bob, &record[..length]),
            Some(Code::RecordForged),
            "{length}"
        );
    }
    assert_eq!(
        code(&mut bob, &[&record[..], &[0]].concat()),
        Some(Code::RecordForged)
    );
    assert_eq!(code(&mut bob, &record), None);
    let empty = sealed(&mut alice, b"");
    assert_eq!(empty.len(), RECORD_OVERHEAD);
    assert_eq!(code(&mut bob, &empty), None);
}

#[test]
fn replayed_reordered_reflected_and_skipped_records_are_forgeries() {
    let (mut alice, mut bob) = pair();
    let [first, second, third] = [b"1", b"2", b"3"].map(|frames| sealed(&mut alice, frames));
    assert_eq!(
        code(&mut bob, &second),
        Some(Code::RecordForged),
        "reordered"
    );
    assert_eq!(code(&mut bob, &first), None);
    assert_eq!(code(&mut bob, &first), Some(Code::RecordForged), "replayed");
    assert_eq!(
        code(&mut bob, &third),
        Some(Code::RecordForged),
        "one was dropped"
    );
    assert_eq!(
        code(&mut alice, &second),
        Some(Code::RecordForged),
        "reflected"
    );
    assert_eq!(code(&mut bob, &second), None);
}

#[test]
fn a_record_of_another_channel_between_the_same_two_is_a_forgery() {
    let (mut alice, _) = pair();
    let (_, _, mut bob) = connect(&Actor::named("alice", 1), &Actor::named("bob", 2), 200);
    assert_eq!(
        code(&mut bob, &sealed(&mut alice, b"frames")),
        Some(Code::RecordForged)
    );
}

#[test]
fn the_longest_record_passes_and_one_byte_more_does_not() {
    let (mut alice, mut bob) = pair();
    let record = sealed(&mut alice, &vec![7; MAX_FRAMES]);
    assert_eq!(record.len(), MAX_RECORD);
    assert_eq!(code(&mut bob, &record), None);
    let mut long = BytesMut::from(&vec![RECORD; MAX_FRAMES + 2][..]);
    assert_eq!(
        alice.seal(&mut long).unwrap_err().code,
        Code::RecordTooLarge
    );
    assert_eq!(long, vec![RECORD; MAX_FRAMES + 2], "untouched");
    let error = bob
        .open(BytesMut::from(&vec![RECORD; MAX_RECORD + 1][..]))
        .unwrap_err();
    assert_eq!(
        (error.code, error.is_proven()),
        (Code::RecordTooLarge, false)
    );
    assert_eq!(alice.sent().records, 1);
}

#[test]
fn only_a_record_is_sealed_as_one() {
    let (mut alice, _) = pair();
    for bytes in [&[][..], &[0x04, 1, 2][..]] {
        assert_eq!(
            alice.seal(&mut BytesMut::from(bytes)).unwrap_err().code,
            Code::InvalidArgument
        );
    }
}

#[test]
fn a_ratchet_changes_one_direction_and_the_count_goes_on() {
    let (mut alice, mut bob) = pair();
    assert_eq!(code(&mut bob, &sealed(&mut alice, b"before")), None);
    alice.ratchet_send();
    let after = sealed(&mut alice, b"after");
    assert_eq!(
        code(&mut bob, &after),
        Some(Code::RecordForged),
        "the old key"
    );
    bob.ratchet_receive();
    assert_eq!(code(&mut bob, &after), None);
    assert_eq!(
        code(&mut alice, &sealed(&mut bob, b"back")),
        None,
        "the other direction keeps its key"
    );
    assert_eq!((alice.sent().records, bob.received().records), (2, 2));
    assert_eq!(alice.sent(), bob.received());
}

#[test]
fn keys_are_due_by_volume_and_by_time_but_never_unused() {
    let (mut alice, _) = pair();
    let limits = Limits {
        rekey_bytes: 3000,
        ..Limits::default()
    };
    let start = Instant::from_micros(5);
    let later = start + limits.rekey_after;
    assert!(!alice.rekey_due(start, &limits));
    assert!(!alice.rekey_due(later, &limits), "nothing was sealed");
    sealed(&mut alice, &[0; 1000]);
    assert!(alice.rekey_due(later, &limits), "by time");
    assert!(!alice.rekey_due(later - Duration::from_micros(1), &limits));
    sealed(&mut alice, &[0; 2000]);
    assert!(alice.rekey_due(start, &limits), "by volume");
    alice.ratchet_send();
    sealed(&mut alice, &[0; 10]);
    assert!(
        !alice.rekey_due(later, &limits),
        "the new key's time has just begun"
    );
    assert!(alice.rekey_due(later + limits.rekey_after, &limits));
}

fn pair() -> (Channel, Channel) {
    let (_, alice, bob) = connect(&Actor::named("alice", 1), &Actor::named("bob", 2), 7);
    (alice, bob)
}

fn sealed(channel: &mut Channel, frames: &[u8]) -> BytesMut {
    let mut record = BytesMut::from(&[&[RECORD], frames].concat()[..]);
    channel.seal(&mut record).unwrap();
    record
}

fn code(channel: &mut Channel, record: &[u8]) -> Option<Code> {
    channel
        .open(BytesMut::from(record))
        .err()
        .map(|error| error.code)
}
