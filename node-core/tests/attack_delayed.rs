//! What was genuine when it was said, and is let through late; and what anybody may say in its place.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{
    host::{Bob, local},
    sessions::attach,
};
use ed25519_dalek::Signer;
use nectar_sim::{direct, key_of, name};
use node_core::{
    Code,
    channel::{RECORD, Reject, initiator, responder},
    node::Output,
    session::Request,
    time::Duration,
    wire::frame::{Attach, Frame},
};

/// Mallory's process dials, and somebody on the way holds back its message 3 and its ATTACH. It is started anew, and the new
/// process is let in. Then what the old one has said is let through.
#[test]
fn what_an_old_process_has_said_and_comes_late_does_not_supersede_the_new_one() {
    let mut bob = Bob::new();
    let key = key_of("mallory");
    let pipe = bob.node.accept(7, bob.now).unwrap();
    let bobs = key_of("bob").verifying_key().to_bytes();
    let (state, first) = initiator::start(local("mallory", &key), name("bob"), bobs, [77; 32]);
    bob.hear(&pipe, first);
    let second = bob.says(&pipe).unwrap();
    let state = state.handle(&second, bob.now.wall).unwrap();
    let signature = state
        .request()
        .map(|request| key.sign(&request.message()).to_bytes());
    let (third, mut channel) = state.signed(signature).unwrap();
    let old = Attach {
        instance: [8; 16],
        ..attach(&channel)
    };
    let mut record = BytesMut::from(&[RECORD][..]);
    record.extend_from_slice(&Frame::Attach(Box::new(old)).encode());
    channel.seal(&mut record).unwrap();
    bob.wait(Duration::from_secs(20));
    bob.process = 9;
    let mut new = bob.mallory().unwrap();
    assert!(bob.keeps(&mut new));
    bob.wait(Duration::from_secs(5));
    assert!(bob.keeps(&mut new));
    bob.hear(&pipe, third);
    bob.hear(&pipe, record);
    bob.wait(Duration::from_millis(10));
    let told = bob.frames(&mut new);
    let closed = told.iter().find(|frame| matches!(frame, Frame::Close(..)));
    assert_eq!(closed, None);
}

/// Bob dials mallory with requests that may leave early, of which the third finds no room. Somebody on the way refuses them in
/// clear. Whether that one has failed.
fn fails_after(code: Code) -> bool {
    let known = [("bob", direct("bob", 1)), ("mallory", direct("mallory", 2))];
    let mut bob = Bob::among(&known, |_| ());
    let mut out = Vec::new();
    for token in 1..=3 {
        let request = Request::new("echo.1", Bytes::from(vec![7; 30_000])).early();
        bob.node
            .request(token, &name("mallory"), request, None, bob.now, &mut out);
    }
    bob.note(out);
    let pipe = bob.dials.pop().unwrap();
    bob.node.opened(&pipe, None);
    let first = bob.says(&pipe).unwrap();
    let key = key_of("mallory");
    let state = responder::start(local("mallory", &key), &first, [5; 32], bob.now.wall).unwrap();
    let signature = key.sign(&state.request().message()).to_bytes();
    let (second, _) = state.signed(signature).unwrap();
    bob.hear(&pipe, second);
    while bob.says(&pipe).is_some() {}
    let reject = Reject {
        code: Some(code),
        retry: Duration::ZERO,
        ..Reject::parse(&[4, 0, 0, 1, 1, 0, 0, 0, 0]).unwrap()
    };
    let mut out = Vec::new();
    let reject = reject.to_bytes().to_vec();
    bob.node
        .handle_message(&pipe, reject.into(), bob.now, &mut out);
    out.iter()
        .any(|output| matches!(output, Output::Failed { token: 3, .. }))
}

#[test]
fn a_refusal_in_clear_does_not_fail_what_has_not_left() {
    for code in [Code::Closed, Code::EpochChanged, Code::Superseded] {
        assert!(!fails_after(code), "{code:?}");
    }
}
