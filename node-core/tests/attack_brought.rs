//! What somebody gains by what it says, or leaves undone, over a circuit that one of our routers brings.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{
    host::{Bob, Caller, local, local_as},
    sessions::Duel,
};
use nectar_sim::{direct, indirect, key_of, name};
use node_core::{
    Code,
    channel::Identity,
    node::Output,
    registry::Record,
    time::Duration,
    wire::frame::{Frame, Response},
};
use std::sync::Arc;

/// Bob, whose router is carol, and carol.
fn begin(records: &[(&str, Record)]) -> (Bob, Caller) {
    let ours = [
        ("bob", indirect("bob", &["carol"])),
        ("carol", direct("carol", 3)),
    ];
    let records = [&ours, records].concat();
    let mut bob = Bob::among(&records, |config| config.guests = true);
    bob.kept = Some(Vec::new());
    let mut out = Vec::new();
    bob.node.start(bob.now, &mut out);
    bob.note(out);
    let mut carol = bob.carol().ok().unwrap();
    bob.keeps(&mut carol);
    bob.dials.clear();
    (bob, carol)
}

/// An answer that says when it is free.
struct Answer(
    Vec<u8>,
    #[expect(dead_code, reason = "it is counted")] Arc<()>,
);

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A guest asks something, whose long answer he lets wait, and then asks for a circuit over his circuit, with the end of his
/// session in the same record or without.
fn comes_and_goes(bob: &mut Bob, router: &mut Caller, cid: u32, retires: bool, kept: &Arc<()>) {
    let guest = local_as(Identity {
        name: None,
        key: [0; 32],
    });
    let mut guest = bob.bring(router, cid, guest, None);
    bob.tell_through(router, &mut guest, &[Duel::request(4, b"?")]);
    let Some(Output::Request(asked)) = bob.kept.as_mut().unwrap().pop() else {
        panic!("the guest is served");
    };
    let answer = Answer(vec![0; 1 << 20], kept.clone());
    assert!(asked.respond(Response::Success(Some(Bytes::from_owner(answer)))));
    let mut last = vec![Frame::Open {
        cid: 0,
        window: 1 << 16,
        hide: false,
        to: name("carol"),
        first: Bytes::from_static(b"?"),
    }];
    if retires {
        last.push(Frame::GoAway(Duration::ZERO));
    }
    bob.tell_through(router, &mut guest, &last);
    bob.keeps(router);
}

#[test]
fn guests_who_break_a_rule_and_retire_their_session_in_the_same_record_leave_nothing() {
    for retires in [false, true] {
        let (mut bob, mut carol) = begin(&[]);
        let kept = Arc::new(());
        for n in 0..100 {
            comes_and_goes(&mut bob, &mut carol, 2 * n, retires, &kept);
            bob.wait(Duration::from_secs(1));
        }
        for _ in 0..600 {
            bob.wait(Duration::from_secs(1));
            bob.keeps(&mut carol);
        }
        assert_eq!(bob.bans(), [], "it counts against nobody");
        assert_eq!(bob.node.counts().sessions, 1, "only the router's is left");
        assert_eq!(Arc::strong_count(&kept), 1, "answers that are held");
        // How often the node wants to be woken while nothing happens.
        let (until, mut woken) = (bob.now.mono + Duration::from_secs(10), 0);
        while let Some(at) = bob.node.deadline().filter(|at| *at < until) {
            bob.wait(at.since(bob.now.mono));
            woken += 1;
        }
        assert!(woken < 10, "woken {woken} times");
    }
}

/// Bob has called somebody before.
fn called(bob: &mut Bob, label: &str) -> Caller {
    let (mut out, patience) = (Vec::new(), Duration::from_secs(9));
    bob.node
        .connect(1, &name(label), patience, bob.now, &mut out);
    bob.note(out);
    let pipe = bob.dials.pop().unwrap();
    let mut caller = bob.answer_as(pipe, label, &key_of(label)).unwrap();
    bob.keeps(&mut caller);
    bob.keeps(&mut caller);
    caller
}

fn asks_for_mallory(frames: &[Frame]) -> bool {
    let to = |frame: &Frame| matches!(frame, Frame::Open { to, .. } if *to == name("mallory"));
    frames.iter().any(to)
}

/// Mallory comes through carol, leaves something under way, and his circuit ends. Bob is connected to both routers that he lists,
/// of which the one that is asked last `leaves` before its turn, or does not. How often bob dials.
fn dialled(leaves: bool) -> usize {
    let (mut bob, mut carol) = begin(&[
        ("evil", direct("evil", 4)),
        ("ivil", direct("ivil", 5)),
        ("mallory", indirect("mallory", &["evil", "ivil"])),
    ]);
    let mut routers = ["evil", "ivil"].map(|label| called(&mut bob, label));
    let key = key_of("mallory");
    let mut mallory = bob.bring(&mut carol, 0, local("mallory", &key), Some(&key));
    bob.tell_through(&mut carol, &mut mallory, &[Duel::stream(6)]);
    let closed = Frame::CircuitClose {
        cid: 0,
        code: Code::PipeLost.as_u16(),
        retry_ms: 0,
    };
    bob.tell(&mut carol, &closed.encode());
    assert_eq!(bob.node.counts().parked, 1);
    let mut asked = 0;
    for _ in 0..200 {
        bob.wait(Duration::from_millis(20));
        for at in [0, 1] {
            if asked == 0 && asks_for_mallory(&bob.frames(&mut routers[at])) {
                asked += 1;
                if leaves {
                    let bye = Frame::Close(Code::Closed, None).encode();
                    bob.tell(&mut routers[1 - at], &bye);
                }
            }
        }
    }
    assert_eq!(asked, 1, "a router to which bob is connected is asked");
    bob.dials.len()
}

#[test]
fn who_came_through_a_router_has_none_of_his_routers_dialled_although_one_has_just_gone() {
    for leaves in [false, true] {
        assert_eq!(dialled(leaves), 0, "one leaves: {leaves}");
    }
}
