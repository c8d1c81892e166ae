//! What somebody gains by saying that it begins nothing more, and staying.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{
    host::{Bob, Caller},
    sessions::Duel,
};
use nectar_sim::{direct, key_of, name};
use node_core::{Code, Limits, node::DRAINING, time::Duration, wire::frame::Frame};

/// Mallory retires its only session, keeps a stream on it open, and loses its key or its name. How many sessions there are, and
/// requests that reach the application, an hour later.
fn after_an_hour(retires: bool, sold: bool) -> (usize, usize) {
    let mut bob = Bob::on_chain(&[("mallory", direct("mallory", 2))]);
    bob.kept = Some(Vec::new());
    let mut mallory = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
    let mut said = Duel::stream(6).encode().to_vec();
    if retires {
        said.extend_from_slice(&Frame::GoAway(Duration::ZERO).encode());
    }
    bob.tell(&mut mallory, &said);
    for _ in 0..30 {
        bob.wait(Duration::from_secs(1));
        bob.keeps(&mut mallory);
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
        bob.keeps(&mut mallory);
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

#[test]
fn who_is_kept_and_retires_every_session_does_not_make_us_hold_ever_more_of_them() {
    let mut bob = Bob::new();
    let mut out = Vec::new();
    bob.node
        .keep(&name("mallory"), true, None, bob.now, &mut out);
    bob.note(out);
    // A request that is never over, for which memory is promised, and the end of the session.
    let long = Frame::Request {
        id: 5,
        deadline_ms: u32::MAX,
        total: 16 << 20,
        protocol: "echo.1".into(),
        metadata: None,
        data: Bytes::new(),
    };
    let mut said = long.encode().to_vec();
    said.extend_from_slice(&Frame::GoAway(Duration::ZERO).encode());
    let (mut callers, mut most) = (Vec::new(), 0);
    for _ in 0..3600 {
        for pipe in std::mem::take(&mut bob.dials) {
            let mut caller = bob.answer_as(pipe, "mallory", &key_of("mallory")).unwrap();
            bob.tell(&mut caller, &said);
            callers.push(caller);
        }
        bob.wait(Duration::from_secs(1));
        callers.retain_mut(|caller| bob.keeps(caller));
        most = most.max(bob.node.counts().sessions);
    }
    // Those, and the one that is in use or just being begun.
    assert!((DRAINING..=DRAINING + 2).contains(&most), "{most} sessions");
}

/// How many sessions stay of a hundred whom bob dials, ten minutes later. `dial` is why, and `hold` what each then does to stay.
fn stay_of_those_who_were_dialled(
    dial: impl Fn(&mut Bob, u64, &str),
    hold: impl Fn(&mut Bob, &mut Caller),
) -> usize {
    let labels: Vec<String> = (0..100).map(|index| format!("peer{index}")).collect();
    let direct = |label| (label, direct("peer", 9));
    let mut records: Vec<_> = labels.iter().map(String::as_str).map(direct).collect();
    records.push(direct("bob"));
    for (label, record) in &mut records {
        record.key = key_of(label).verifying_key().to_bytes();
    }
    let mut bob = Bob::among(&records, |_| ());
    let mut callers = Vec::new();
    for (token, label) in (0..).zip(&labels) {
        dial(&mut bob, token, label);
        let pipe = bob.dials.pop().unwrap();
        let mut caller = bob.answer_as(pipe, label, &key_of(label)).unwrap();
        hold(&mut bob, &mut caller);
        bob.keeps(&mut caller);
        callers.push(caller);
    }
    for _ in 0..600 {
        bob.wait(Duration::from_secs(1));
        callers.retain_mut(|caller| bob.keeps(caller));
    }
    bob.node.counts().sessions
}

#[test]
fn whom_we_have_dialled_does_not_stay_for_ever_by_keeping_a_stream_open() {
    let dial = |bob: &mut Bob, token, label: &str| {
        let (mut out, patience) = (Vec::new(), Duration::from_secs(30));
        bob.node
            .connect(token, &name(label), patience, bob.now, &mut out);
        bob.note(out);
    };
    let hold = |bob: &mut Bob, caller: &mut Caller| bob.tell(caller, &Duel::stream(7).encode());
    let stay = stay_of_those_who_were_dialled(dial, hold);
    assert_eq!(stay, Limits::default().outbound_peers + DRAINING);
}

#[test]
fn whom_we_have_dialled_does_not_stay_for_ever_by_not_ending_a_stream_that_we_have_let_go_of() {
    let dial = |bob: &mut Bob, token, label: &str| {
        let mut out = Vec::new();
        bob.node.open_stream(
            token,
            &name(label),
            "file.1",
            Bytes::new(),
            bob.now,
            &mut out,
        );
        // What was opened is dropped.
        bob.note(out);
    };
    let hold = |bob: &mut Bob, caller: &mut Caller| {
        let opened = |frame: &Frame| matches!(frame, Frame::Stream { .. });
        assert!(bob.frames(caller).iter().any(opened));
    };
    let stay = stay_of_those_who_were_dialled(dial, hold);
    assert!(
        stay <= Limits::default().outbound_peers + DRAINING,
        "{stay}"
    );
}

#[test]
fn a_process_that_retired_its_session_is_superseded_like_any_other() {
    for retires in [false, true] {
        let mut bob = Bob::new();
        bob.kept = Some(Vec::new());
        let mut thief = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
        let mut said = Duel::stream(6).encode().to_vec();
        if retires {
            said.extend_from_slice(&Frame::GoAway(Duration::ZERO).encode());
        }
        bob.tell(&mut thief, &said);
        bob.wait(Duration::from_secs(1));
        bob.keeps(&mut thief);
        bob.process = 77;
        let mut owner = bob.mallory().unwrap_or_else(|code| panic!("{code:?}"));
        for _ in 0..60 {
            bob.wait(Duration::from_secs(1));
            bob.keeps(&mut thief);
            bob.keeps(&mut owner);
        }
        let before = bob.kept.as_ref().unwrap().len();
        bob.tell(&mut thief, &Duel::request(4, b"still me").encode());
        let after = bob.kept.as_ref().unwrap().len();
        let left = (bob.node.counts().sessions, after - before);
        assert_eq!(left, (1, 0), "retires: {retires}");
    }
}

/// Another process of mallory's takes the place of the first, and goes; only then does our CLOSE leave for the first. How often
/// bob, who keeps mallory, dials in the next minutes.
fn dials_after(late: bool) -> usize {
    let mut bob = Bob::new();
    let mut out = Vec::new();
    bob.node
        .keep(&name("mallory"), true, None, bob.now, &mut out);
    bob.note(out);
    let mut first = bob.mallory().ok().unwrap();
    bob.keeps(&mut first);
    bob.wait(Duration::from_secs(6));
    bob.keeps(&mut first);
    bob.process = 10;
    let mut second = bob.mallory().ok().unwrap();
    bob.keeps(&mut second);
    if !late {
        assert!(!bob.keeps(&mut first));
    }
    bob.tell(&mut second, &Frame::Close(Code::GoingAway, None).encode());
    bob.dials.clear();
    if late {
        assert!(!bob.keeps(&mut first));
    }
    for _ in 0..300 {
        bob.wait(Duration::from_secs(1));
    }
    bob.dials.len()
}

#[test]
fn a_process_that_takes_anothers_place_and_goes_is_dialled_again_whenever_the_first_is_told() {
    for late in [false, true] {
        assert!(dials_after(late) > 0, "late: {late}");
    }
}
