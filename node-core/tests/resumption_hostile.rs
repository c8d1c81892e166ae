//! ATTACH against whoever wants a session that is not his, or to make one lose or repeat something.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod resumption_pair;

use bytes::{Bytes, BytesMut};
use node_core::{
    Code, Limits,
    channel::RECORD,
    session::{Event, Resumed, Session},
    time::Duration,
    wire::frame::{Attach, AttachStatus, Frame, Response},
};
use resumption_pair::{MTU, Pair, T0, actors, config, opened};

/// A pair with a request that was answered, one under way, and the pipe cut before its answer came back.
fn cut() -> Pair {
    let mut pair = Pair::new(&Limits::default());
    pair.ask(0, 1, Bytes::from_static(b"first"));
    pair.run();
    answer_all(&mut pair);
    pair.run();
    pair.pass(Duration::from_millis(30));
    pair.run();
    pair.ask(0, 2, Bytes::from_static(b"second"));
    assert!(pair.carry(0));
    answer_all(&mut pair);
    assert!(pair.drop_record(1));
    pair.park(0);
    pair.park(1);
    pair
}

fn answer_all(pair: &mut Pair) {
    for event in std::mem::take(&mut pair.events[1]) {
        if let Event::Request { id, request, .. } = event {
            assert!(pair.ends[1].respond(id, Response::Success(Some(request.payload))));
        }
    }
}

/// After whatever happened, the honest pair goes on and its request is answered, once.
fn goes_on(mut pair: Pair) {
    pair.events = [Vec::new(), Vec::new()];
    pair.resume(0);
    pair.run();
    let answered = pair.events[0]
        .iter()
        .filter(|event| matches!(event, Event::Answered { token: 2, .. }));
    assert_eq!(answered.count(), 1);
    let asked = pair.events[1]
        .iter()
        .filter(|event| matches!(event, Event::Request { .. }));
    assert_eq!(asked.count(), 0, "it was asked before");
}

#[test]
fn an_attach_that_was_heard_on_another_channel_proves_nothing_on_this_one() {
    let mut pair = cut();
    let (ours, _) = pair.channels(0);
    let recorded = pair.ends[0].offer(&ours).unwrap();
    let (_, theirs) = pair.channels(0);
    assert!(matches!(
        pair.present(1, theirs, &recorded),
        Resumed::Refused(Code::AttachRefused)
    ));
    assert!(pair.ends[1].is_parked(), "nothing has changed");
    goes_on(pair);
}

#[test]
fn an_attach_sent_back_to_its_maker_proves_nothing() {
    let mut pair = cut();
    // Bob speaks as responder what alice spoke as initiator on the very same channel.
    let (ours, _) = pair.channels(0);
    let attach = pair.ends[0].offer(&ours).unwrap();
    let attempt = attach.attempt;
    let now = pair.now;
    let heard = pair.ends[0].answered(ours, &attach, attempt, MTU, now, &mut Vec::new());
    assert!(matches!(heard, Resumed::Refused(Code::AttachRefused)));
    assert!(pair.ends[0].is_parked());
    goes_on(pair);
}

#[test]
fn whoever_has_the_key_but_not_the_sessions_secret_cannot_take_it() {
    let mut pair = cut();
    // Another process with alice's key: it has a session of its own, and has learned the number of this one.
    let mut thief = Pair::new(&Limits::default());
    thief.park(0);
    let (ours, theirs) = pair.channels(0);
    let mut attach = thief.ends[0].offer(&ours).unwrap();
    attach.sid = *pair.ends[0].id();
    assert!(matches!(
        pair.present(1, theirs, &attach),
        Resumed::Refused(Code::AttachRefused)
    ));
    for proof in [[0; 32], [0xff; 32]] {
        let (ours, theirs) = pair.channels(0);
        let honest = pair.ends[0].offer(&ours).unwrap();
        let attach = Attach { proof, ..honest };
        assert!(matches!(
            pair.present(1, theirs, &attach),
            Resumed::Refused(Code::AttachRefused)
        ));
    }
    assert!(pair.ends[1].is_parked());
    goes_on(pair);
}

#[test]
fn no_field_of_an_attach_can_be_changed_without_its_proof() {
    type Change = fn(&mut Attach);
    let changes: [(&str, Change); 6] = [
        ("sid", |attach| attach.sid[15] ^= 1),
        ("attempt", |attach| attach.attempt += 1),
        ("recv_off", |attach| attach.recv_off = 0),
        ("send_off", |attach| attach.send_off = 0),
        ("instance", |attach| attach.instance[0] ^= 1),
        ("status", |attach| attach.status = AttachStatus::Stale),
    ];
    let mut pair = cut();
    for (what, change) in changes {
        let (ours, theirs) = pair.channels(0);
        let mut attach = pair.ends[0].offer(&ours).unwrap();
        let before = attach.clone();
        change(&mut attach);
        assert_ne!(attach, before, "{what} was changed");
        assert!(
            matches!(
                pair.present(1, theirs, &attach),
                Resumed::Refused(Code::AttachRefused)
            ),
            "{what}"
        );
    }
    goes_on(pair);
}

/// A peer that has the session's secret, and says about offsets what it likes.
fn claims(lie: impl FnOnce(&mut Attach)) {
    let mut pair = cut();
    let (ours, theirs) = pair.channels(0);
    let mut attach = pair.ends[0].offer(&ours).unwrap();
    assert_eq!(
        attach.proof,
        pair.proof(&ours, &attach),
        "as the document says"
    );
    let honest = attach.clone();
    lie(&mut attach);
    assert_ne!(attach, honest);
    attach.proof = pair.proof(&ours, &attach);
    assert!(matches!(
        pair.present(1, theirs, &attach),
        Resumed::Refused(Code::AttachRefused)
    ));
    assert!(pair.ends[1].is_parked());
    goes_on(pair);
}

/// Session bytes that the second end has sent in [`cut`].
fn sent() -> u64 {
    let mut pair = cut();
    pair.resume(0);
    pair.run();
    pair.offsets(0).received
}

#[test]
fn a_peer_that_claims_to_have_received_more_than_was_sent_is_refused() {
    claims(|attach| attach.recv_off = sent() + 1);
    claims(|attach| attach.recv_off = u64::MAX);
}

#[test]
fn a_peer_that_claims_to_have_received_less_than_it_acknowledged_is_refused() {
    let acknowledged = cut().offsets(1).acknowledged;
    assert!(acknowledged > 0);
    claims(|attach| attach.recv_off = acknowledged - 1);
    claims(|attach| attach.recv_off = 0);
}

#[test]
fn a_peer_that_claims_to_have_received_half_a_frame_is_refused() {
    claims(|attach| attach.recv_off += 1);
}

#[test]
fn a_peer_that_could_not_go_on_without_a_gap_is_refused() {
    let received = cut().offsets(1).received;
    claims(|attach| attach.send_off = received + 1);
}

#[test]
fn an_attempt_that_is_not_newer_than_the_last_is_stale() {
    let mut pair = cut();
    let (slow_ours, slow_theirs) = pair.channels(0);
    let slow = pair.ends[0].offer(&slow_ours).unwrap();
    pair.resume(0);
    // The one that was held back on the way comes last.
    let Resumed::Stale(mut channel, answer) = pair.present(1, slow_theirs, &slow) else {
        panic!("stale");
    };
    assert_eq!(answer.status, AttachStatus::Stale);
    assert!(!pair.ends[1].is_parked(), "the newer channel stays");
    // Its answer moves nothing either.
    let mut record = BytesMut::from(&[RECORD][..]);
    record.extend_from_slice(&Frame::Attach(answer).encode());
    channel.seal(&mut record).unwrap();
    let mut slow_ours = slow_ours;
    let (answer, _) = opened(&mut slow_ours, record);
    let now = pair.now;
    let heard = pair.ends[0].answered(slow_ours, &answer, slow.attempt, MTU, now, &mut Vec::new());
    assert!(matches!(heard, Resumed::Refused(Code::Duplicate)));
    pair.run();
    assert!(
        pair.events[0]
            .iter()
            .any(|event| matches!(event, Event::Answered { token: 2, .. }))
    );
}

#[test]
fn when_both_sides_attach_at_once_both_keep_the_channel_of_the_sessions_initiator() {
    let mut pair = cut();
    let (first_ours, first_theirs) = pair.channels(0);
    let (second_ours, second_theirs) = pair.channels(1);
    let first = pair.ends[0].offer(&first_ours).unwrap();
    let second = pair.ends[1].offer(&second_ours).unwrap();
    assert_eq!(first.attempt, second.attempt);
    assert!(matches!(
        pair.present(0, second_theirs, &second),
        Resumed::Stale(..)
    ));
    assert!(matches!(
        pair.present(1, first_theirs, &first),
        Resumed::Done
    ));
    assert!(matches!(
        pair.answer(1, first_ours, first.attempt),
        Resumed::Done
    ));
    pair.run();
    assert!(
        pair.events[0]
            .iter()
            .any(|event| matches!(event, Event::Answered { token: 2, .. }))
    );
}

#[test]
fn of_two_channels_that_attach_at_once_the_newer_is_used_and_nothing_comes_twice() {
    let mut pair = cut();
    pair.events = [Vec::new(), Vec::new()];
    let (first_ours, first_theirs) = pair.channels(0);
    let (second_ours, second_theirs) = pair.channels(0);
    let first = pair.ends[0].offer(&first_ours).unwrap();
    let second = pair.ends[0].offer(&second_ours).unwrap();
    assert!(matches!(
        pair.present(1, first_theirs, &first),
        Resumed::Done
    ));
    // Answered, and the answer to the request with it, before the second attempt arrives.
    assert!(matches!(
        pair.answer(1, first_ours, first.attempt),
        Resumed::Done
    ));
    assert!(matches!(
        pair.present(1, second_theirs, &second),
        Resumed::Done
    ));
    assert!(matches!(
        pair.answer(1, second_ours, second.attempt),
        Resumed::Done
    ));
    pair.run();
    let answers = pair.events[0]
        .iter()
        .filter(|event| matches!(event, Event::Answered { .. }));
    assert_eq!(answers.count(), 1);
}

#[test]
fn an_answer_to_an_attempt_that_was_never_made_is_refused() {
    let mut pair = cut();
    let (ours, theirs) = pair.channels(0);
    let attach = pair.ends[0].offer(&ours).unwrap();
    assert!(matches!(pair.present(1, theirs, &attach), Resumed::Done));
    assert!(matches!(
        pair.answer(1, ours, attach.attempt + 1),
        Resumed::Refused(Code::AttachRefused)
    ));
    assert!(pair.ends[0].is_parked());
}

#[test]
fn acknowledging_over_the_new_channel_what_has_not_come_over_it_again_is_a_violation() {
    let (mut pair, sent) = (cut(), sent());
    let (mut ours, theirs) = pair.channels(0);
    let attach = pair.ends[0].offer(&ours).unwrap();
    assert!(matches!(pair.present(1, theirs, &attach), Resumed::Done));
    let mut record = BytesMut::from(&[RECORD][..]);
    record.extend_from_slice(&Frame::Ack(sent).encode());
    ours.seal(&mut record).unwrap();
    let now = pair.now;
    let said = pair.ends[1].handle_record(record, now, &mut Vec::new());
    assert_eq!(said.unwrap_err().code, Code::FrameUnexpected);
}

#[test]
fn a_second_attach_on_a_channel_is_refused() {
    let mut pair = cut();
    let (mut ours, theirs) = pair.channels(0);
    let attach = pair.ends[0].offer(&ours).unwrap();
    assert!(matches!(pair.present(1, theirs, &attach), Resumed::Done));
    let mut record = BytesMut::from(&[RECORD][..]);
    record.extend_from_slice(&Frame::Attach(Box::new(attach)).encode());
    ours.seal(&mut record).unwrap();
    let now = pair.now;
    let said = pair.ends[1].handle_record(record, now, &mut Vec::new());
    assert_eq!(said.unwrap_err().code, Code::AttachRefused);
}

#[test]
fn a_session_that_is_over_or_says_its_last_words_is_not_taken_up_again() {
    let mut pair = cut();
    pair.pass(Limits::default().session_kept);
    let (ours, theirs) = pair.channels(0);
    let mut other = cut();
    let attach = other.ends[0].offer(&ours).unwrap();
    assert!(matches!(
        pair.present(1, theirs, &attach),
        Resumed::Refused(_)
    ));
    let mut pair = Pair::new(&Limits::default());
    pair.ends[1].close(Code::Closed, None);
    let (ours, theirs) = pair.channels(0);
    let attach = pair.ends[0].offer(&ours).unwrap();
    assert!(matches!(
        pair.present(1, theirs, &attach),
        Resumed::Refused(Code::Closed)
    ));
    let now = pair.now;
    assert!(
        pair.ends[1]
            .park(Code::PipeLost, now, &mut Vec::new())
            .is_none()
    );
}

#[test]
fn a_session_that_was_never_attached_is_not_kept() {
    let [alice, bob] = actors();
    let (_, dialled, _) = common::connect(&alice, &bob, 3);
    let mut session = Session::<u64>::begin(dialled, config(&Limits::default(), 1), T0);
    assert!(session.park(Code::PipeLost, T0, &mut Vec::new()).is_none());
}

#[test]
fn past_the_window_what_was_sent_has_an_unknown_outcome_and_what_was_not_comes_back() {
    let mut pair = cut();
    pair.events = [Vec::new(), Vec::new()];
    pair.pass(Limits::default().session_kept - Duration::from_secs(1));
    // Its own deadline of 30 s passed before: that is all its asker is told.
    assert!(matches!(
        pair.events[0][..],
        [Event::Failed {
            token: 2,
            code: Code::Timeout,
            cause: None,
        }]
    ));
    let mut pair = Pair::new(&Limits::default());
    let request = node_core::session::Request::new("echo.1", Bytes::from_static(b"late"));
    let deadline = pair.now + Duration::from_secs(300);
    let now = pair.now;
    pair.ends[0]
        .request(7, request.clone(), deadline, now)
        .unwrap();
    assert!(pair.drop_record(0));
    pair.ends[0].request(8, request, deadline, now).unwrap();
    let stream = pair.ends[0].open_stream("s".into(), Bytes::new());
    let unsent = pair.ends[0].park(Code::PipeLost, now, &mut Vec::new());
    let unsent: Vec<u64> = unsent.unwrap().iter().map(|o| *o.token()).collect();
    assert_eq!(unsent, [8], "what never left may go over any session");
    let mut events = Vec::new();
    let end = now + Limits::default().session_kept;
    pair.ends[0].handle_timeout(end, &mut events);
    assert!(matches!(
        events[..],
        [Event::Ended {
            code: Code::PipeLost,
            by_peer: false,
            ..
        }]
    ));
    events.clear();
    pair.ends[0].dissolve(Code::PipeLost, &mut events);
    assert!(matches!(
        events[..],
        [Event::Failed {
            token: 7,
            code: Code::OutcomeUnknown,
            ..
        }]
    ));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let read = pair.ends[0].read(stream, &mut cx);
    assert_eq!(
        read,
        std::task::Poll::Ready(Err(node_core::session::StreamError::Lost(Code::PipeLost)))
    );
}

#[test]
fn a_session_that_is_written_to_a_log_does_not_tell_the_secret_that_it_goes_on_by() {
    let [alice, bob] = actors();
    let (_, channel, _) = common::connect(&alice, &bob, 1);
    let secret = format!("{:?}", *channel.export("session"));
    let session = Session::<u64>::begin(channel, config(&Limits::default(), 1), T0);
    let written = format!("{session:?} {session:#?}");
    assert!(written.contains("bob"), "{written}");
    let secret = secret.trim_matches(['[', ']']);
    assert!(
        !written
            .replace([' ', '\n'], "")
            .contains(&secret.replace(' ', ""))
    );
}
