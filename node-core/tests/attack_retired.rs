//! What somebody gains by saying that it begins nothing more, and staying.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{
    host::{Bob, Caller},
    sessions::Duel,
};
use nectar_sim::{EPOCH_MS, Registry, direct, key_of};
use node_core::{channel::RECORD, time::Duration, wire::frame::Frame};

/// Reads all that Bob says, acknowledges it, and answers when asked whether anybody is there.
fn stays(bob: &mut Bob, caller: &mut Caller) {
    let mut answers = Vec::new();
    while let Some(record) = bob.says(&caller.pipe) {
        if record.first() != Some(&RECORD) {
            continue;
        }
        for frame in caller.read(record) {
            if let Frame::Ping(token) = frame {
                answers.extend_from_slice(&Frame::Pong(token).encode());
            }
        }
    }
    answers.extend_from_slice(&Frame::Ack(caller.heard).encode());
    bob.tell(caller, &answers);
}

/// Mallory retires its only session, keeps a stream on it open, and loses its key or its name. How many sessions there are, and
/// requests that reach the application, an hour later.
fn after_an_hour(retires: bool, sold: bool) -> (usize, usize) {
    let mut registry = Registry::new(EPOCH_MS / 1000);
    registry.register("mallory", direct("mallory", 2));
    registry.chain.mine(EPOCH_MS / 1000);
    let mut bob = Bob::among(&[("bob", direct("bob", 1))], |config| {
        config.registries[0].rpcs = vec!["http://a.test".into()];
    });
    bob.chain = Some(registry.chain);
    bob.kept = Some(Vec::new());
    let mut mallory = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
    let mut said = Duel::stream(6).encode().to_vec();
    if retires {
        said.extend_from_slice(&Frame::GoAway(Duration::ZERO).encode());
    }
    bob.tell(&mut mallory, &said);
    for _ in 0..30 {
        bob.wait(Duration::from_secs(1));
        stays(&mut bob, &mut mallory);
    }
    assert_eq!(bob.node.counts().sessions, 1);
    let chain = bob.chain.as_mut().unwrap();
    if sold {
        chain.transfer("mallory", [9; 20]);
    } else {
        let key = key_of("new").verifying_key().to_bytes();
        chain.update("mallory", |entry| entry.networkingKey = key.into());
    }
    for _ in 0..3600 {
        bob.wait(Duration::from_secs(1));
        stays(&mut bob, &mut mallory);
    }
    let before = bob.kept.as_ref().unwrap().len();
    bob.tell(&mut mallory, &Duel::request(4, b"still me").encode());
    let after = bob.kept.as_ref().unwrap().len();
    (bob.node.counts().sessions, after - before)
}

#[test]
fn a_key_that_was_rotated_or_a_name_that_was_sold_has_no_session_although_its_holder_retired_it_before()
 {
    for retires in [false, true] {
        for sold in [false, true] {
            let left = after_an_hour(retires, sold);
            assert_eq!(left, (0, 0), "retires: {retires}, sold: {sold}");
        }
    }
}
