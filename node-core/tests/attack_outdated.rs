//! What somebody gains from what was true when something began, and is not any more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{
    host::{Bob, Caller},
    sessions::Duel,
};
use nectar_sim::{direct, indirect, key_of, name};
use node_core::{
    Timestamp,
    node::{Ban, Subject},
    registry::Record,
    session::Request,
    time::Duration,
    wire::frame::Frame,
};

/// Whether something was asked.
fn leaks(told: &[Frame]) -> bool {
    told.iter()
        .any(|frame| matches!(frame, Frame::Request { .. }))
}

#[test]
fn a_contact_that_is_pinned_to_an_epoch_has_no_session_of_another_owner() {
    let mut bob = Bob::among(
        &[
            ("bob", direct("bob", 1)),
            (
                "mallory",
                Record {
                    epoch: 2,
                    ..direct("mallory", 2)
                },
            ),
        ],
        |_| (),
    );
    bob.kept = Some(Vec::new());
    // The buyer is here before the person's contacts are read.
    let mut mallory = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
    bob.keeps(&mut mallory);
    let mut out = Vec::new();
    bob.node
        .keep(&name("mallory"), true, Some(1), bob.now, &mut out);
    let request = Request::new("echo.1", Bytes::from_static(b"for the seller"));
    bob.node
        .request(1, &name("mallory"), request, None, bob.now, &mut out);
    bob.note(out);
    let told = bob.frames(&mut mallory);
    assert!(!leaks(&told), "{told:?}");
}

/// How many of so many requests at once reach the application.
fn floods(bob: &mut Bob, mallory: &mut Caller, first: u64, count: u64) -> usize {
    let mut reached = 0;
    for id in 0..count {
        bob.tell(mallory, &Duel::request((first + id) * 4, b"?").encode());
        reached += bob.kept.as_mut().unwrap().drain(..).count();
        if id % 16 == 0 {
            bob.keeps(mallory);
        }
    }
    bob.keeps(mallory);
    reached
}

#[test]
fn who_is_no_router_of_ours_any_more_is_a_stranger_again() {
    let mut bob = Bob::on_chain(&[
        ("bob", indirect("bob", &["mallory"])),
        ("mallory", direct("mallory", 2)),
        ("carol", direct("carol", 3)),
    ]);
    bob.kept = Some(Vec::new());
    let mut out = Vec::new();
    bob.node.start(bob.now, &mut out);
    bob.note(out);
    let mut mallory = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
    bob.keeps(&mut mallory);
    assert_eq!(floods(&mut bob, &mut mallory, 1, 250), 250, "our router");
    let chain = bob.chain.as_mut().unwrap();
    chain.update("bob", |entry| entry.routers = vec!["carol".into()]);
    for _ in 0..130 {
        bob.wait(Duration::from_secs(1));
        bob.keeps(&mut mallory);
    }
    let routers = bob.node.peers(bob.now.mono);
    assert!(
        routers
            .iter()
            .all(|peer| peer.router == (peer.name == name("carol")))
    );
    assert_eq!(floods(&mut bob, &mut mallory, 300, 250), 100, "a stranger");
}

/// Bob dials mallory with a request that may leave early; `meanwhile` happens before the socket is open. What mallory hears.
fn early(meanwhile: impl FnOnce(&mut Bob)) -> Vec<Frame> {
    let mut bob = Bob::on_chain(&[("mallory", direct("mallory", 2))]);
    let mut out = Vec::new();
    let mut request = Request::new("echo.1", Bytes::from_static(b"secret"));
    request.early = true;
    bob.node
        .request(1, &name("mallory"), request, None, bob.now, &mut out);
    bob.note(out);
    let pipe = bob.dials.pop().unwrap();
    meanwhile(&mut bob);
    match bob.answer_as(pipe, "mallory", &key_of("mallory")) {
        Some(mut mallory) => bob.frames(&mut mallory),
        None => Vec::new(),
    }
}

#[test]
fn what_may_leave_early_leaves() {
    assert!(leaks(&early(|_| ())));
}

#[test]
fn what_may_leave_early_does_not_leave_under_a_key_that_is_known_to_be_rotated() {
    let told = early(|bob| {
        let key = key_of("new").verifying_key().to_bytes();
        let chain = bob.chain.as_mut().unwrap();
        chain.update("mallory", |entry| entry.networkingKey = key.into());
        bob.wait(Duration::from_secs(1));
        let mut out = Vec::new();
        bob.node
            .resolve(9, &name("mallory"), true, bob.now, &mut out);
        bob.note(out);
        assert_eq!(
            bob.node
                .cached(&name("mallory"), bob.now.mono)
                .unwrap()
                .record
                .key,
            key
        );
    });
    assert!(!leaks(&told), "{told:?}");
}

#[test]
fn what_may_leave_early_does_not_leave_for_who_was_banned() {
    let told = early(|bob| {
        let ban = Ban {
            subject: Subject::Name(name("mallory")),
            until: Timestamp(bob.now.wall.0 + 3_600_000),
            code: None,
        };
        let mut out = Vec::new();
        bob.node.ban(ban, bob.now, &mut out);
        bob.note(out);
    });
    assert!(!leaks(&told), "{told:?}");
}

#[test]
fn what_was_meant_for_the_seller_of_a_name_does_not_go_to_its_buyer() {
    let mut bob = Bob::on_chain(&[("mallory", direct("mallory", 2))]);
    let mut seller = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
    let mut out = Vec::new();
    for token in 0..4 {
        // The seller grants no more credit than everybody has at first: the last ones wait.
        let letter = Bytes::from(vec![b'?'; 30_000]);
        let request = Request::new("echo.1", letter);
        let hour = Some(Duration::from_secs(3600));
        bob.node
            .request(token, &name("mallory"), request, hour, bob.now, &mut out);
    }
    bob.note(out);
    bob.keeps(&mut seller);
    let new = key_of("new");
    let key = new.verifying_key().to_bytes();
    let chain = bob.chain.as_mut().unwrap();
    chain.transfer("mallory", [9; 20]);
    let record: Record = direct("mallory", 2);
    chain.update("mallory", |entry| {
        let (version, epoch) = (entry.version, entry.epoch);
        *entry = (&record).into();
        entry.networkingKey = key.into();
        (entry.version, entry.epoch) = (version, epoch);
    });
    bob.process = 5;
    let mut heard = Vec::new();
    let mut buyer: Option<Caller> = None;
    let mut selling = true;
    for _ in 0..60 {
        bob.wait(Duration::from_secs(1));
        selling = selling && bob.keeps(&mut seller);
        for pipe in std::mem::take(&mut bob.dials) {
            buyer = bob.answer_as(pipe, "mallory", &new).or(buyer);
        }
        if let Some(buyer) = &mut buyer {
            heard.extend(bob.frames(buyer));
        }
    }
    assert!(!selling, "the seller's session is over");
    assert!(!leaks(&heard), "{heard:?}");
}

#[test]
fn whose_record_is_known_is_not_refused_because_strangers_use_up_the_reads() {
    let mut bob = Bob::on_chain(&[("mallory", direct("mallory", 2))]);
    let mut mallory = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
    let bye = Frame::Close(node_core::Code::GoingAway, None).encode();
    bob.tell(&mut mallory, &bye);
    bob.wait(Duration::from_secs(61));
    for network in 0..20 {
        let label = format!("nobody{network}");
        assert!(
            bob.call(&label, &key_of("nobody"), 100 + network, 0)
                .is_err()
        );
    }
    let again = bob.mallory().map(|_| ());
    assert_eq!(again, Ok(()), "its record is known");
}
