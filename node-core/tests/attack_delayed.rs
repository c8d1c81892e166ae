//! What was genuine when it was said, and is let through late; and what anybody may say in its place.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{
    host::{Bob, Caller, local},
    sessions::{Duel, attach},
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

/// What a process of mallory's says last in its handshake, and what it is to Bob then.
struct Words {
    caller: Caller,
    third: Bytes,
    record: Bytes,
}

impl Words {
    /// The process has sent its first message.
    fn of(bob: &mut Bob, instance: u8) -> Self {
        let key = key_of("mallory");
        let pipe = bob.node.accept(7, bob.now).unwrap();
        let bobs = key_of("bob").verifying_key().to_bytes();
        let seed = [70 + instance; 32];
        let (state, first) = initiator::start(local("mallory", &key), name("bob"), bobs, seed);
        bob.hear(&pipe, first);
        let second = bob.says(&pipe).unwrap();
        let state = state.handle(&second, bob.now.wall).unwrap();
        let signature = state
            .request()
            .map(|request| key.sign(&request.message()).to_bytes());
        let (third, mut channel) = state.signed(signature).unwrap();
        let fresh = Attach {
            instance: [instance; 16],
            ..attach(&channel)
        };
        let mut record = BytesMut::from(&[RECORD][..]);
        record.extend_from_slice(&Frame::Attach(Box::new(fresh)).encode());
        channel.seal(&mut record).unwrap();
        Self {
            caller: Caller {
                pipe,
                channel,
                heard: 0,
            },
            third: third.into(),
            record: record.freeze(),
        }
    }

    fn come(self, bob: &mut Bob) -> Caller {
        bob.hear(&self.caller.pipe, self.third);
        bob.hear(&self.caller.pipe, self.record);
        bob.wait(Duration::from_millis(10));
        self.caller
    }
}

fn is_closed(bob: &mut Bob, caller: &mut Caller) -> bool {
    let told = bob.frames(caller);
    told.iter().any(|frame| matches!(frame, Frame::Close(..)))
}

/// Mallory's process dials, and somebody on the way holds back its last words. It is started anew, and the new process is let in;
/// `retires`: then it gives its session up, with something on it under way. Then the last words of the old one come.
fn is_superseded(retires: bool) -> bool {
    let mut bob = Bob::new();
    let old = Words::of(&mut bob, 8);
    bob.wait(Duration::from_secs(20));
    bob.process = 9;
    let mut new = bob.mallory().unwrap();
    assert!(bob.keeps(&mut new));
    if retires {
        let mut said = Duel::stream(6).encode().to_vec();
        said.extend_from_slice(&Frame::GoAway(Duration::ZERO).encode());
        bob.tell(&mut new, &said);
    }
    bob.wait(Duration::from_secs(5));
    assert!(bob.keeps(&mut new));
    old.come(&mut bob);
    is_closed(&mut bob, &mut new)
}

#[test]
fn what_an_old_process_has_said_and_comes_late_does_not_supersede_the_new_one() {
    for retires in [false, true] {
        assert!(!is_superseded(retires), "retires: {retires}");
    }
}

#[test]
fn a_process_that_began_its_handshake_before_the_old_one_was_there_is_the_newer_one_all_the_same() {
    let mut bob = Bob::new();
    let old = Words::of(&mut bob, 8);
    bob.wait(Duration::from_secs(3));
    let new = Words::of(&mut bob, 9);
    old.come(&mut bob);
    let mut new = new.come(&mut bob);
    assert!(!is_closed(&mut bob, &mut new));
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
