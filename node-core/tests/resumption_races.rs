//! A session goes on over another pipe while what came over the one before is still being read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod resumption_pair;

use bytes::{Bytes, BytesMut};
use node_core::{
    Code,
    node::{Event as NodeEvent, Output},
    session::{Request, Resumed},
    time::Duration,
};
use resumption_pair::{
    MTU, opened,
    ours::{Dans, Other, Ours, sealed},
};
use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

/// Dan has said something that is lost with its pipe. He agrees to go on over the one that we dial, whose router holds that back,
/// and then goes on over one of his own; both arrive at once. `raced`: his own is read, by another thread, between two steps of
/// what the other one has us do. What our node did.
fn both_at_once(raced: bool, mut ours: Ours, mut dans: Dans) -> Vec<Output<u64>> {
    let lost = dans.pipe.clone();
    ours.lose(&lost);
    let (first, channel, attach) = ours.picked_up();
    let now = ours.now;
    let (session, events) = (&mut dans.session, &mut dans.events);
    assert!(session.park(Code::PipeLost, now, events).is_some());
    let resumed = session.presented(channel, &attach, MTU, now, events);
    assert!(matches!(resumed, Resumed::Done));
    let over_first = session.poll_transmit(now, false, events).unwrap();
    assert!(session.park(Code::PipeLost, now, events).is_some());
    let second = ours.node.accept(1, ours.now()).unwrap();
    let (dialling, message1) = ours.dan.dial(&ours.actor, 77);
    ours.hear(&second, message1);
    let message2 = ours.say(&second).expect("message 2");
    let (message3, mut channel) = ours.dan.conclude(dialling, &message2).unwrap();
    ours.hear(&second, message3);
    let offer = session.offer(&channel).unwrap();
    let attempt = offer.attempt;
    let over_second = sealed(&mut channel, offer);
    let answer = Arc::new(Mutex::new(None));
    let (node, pipe, when, slot) = (
        ours.node.clone(),
        second.clone(),
        ours.now(),
        answer.clone(),
    );
    let reads_second = move || {
        let mut out = Vec::new();
        node.handle_message(&pipe, over_second, when, &mut out);
        let said = node.poll_transmit(&pipe, Waker::noop(), when, &mut out);
        *slot.lock().unwrap() = Some((said.expect("an answer"), out));
    };
    let other = Arc::<Other>::default();
    let waker = Waker::from(other.clone());
    let mut out = Vec::new();
    let said = ours.node.poll_transmit(&first, &waker, when, &mut out);
    assert!(said.is_none());
    if raced {
        other.is_to(reads_second);
        let over_first = over_first.freeze();
        ours.node.handle_message(&first, over_first, when, &mut out);
        assert!(other.is_done(), "woken in between");
    } else {
        let over_first = over_first.freeze();
        ours.node.handle_message(&first, over_first, when, &mut out);
        reads_second();
    }
    let (said, more) = answer.lock().unwrap().take().unwrap();
    out.extend(more);
    // Dan says again what we lack.
    let (attach, rest) = opened(&mut channel, BytesMut::from(&said[..]));
    let resumed = session.answered(channel, &attach, attempt, MTU, now, events);
    assert!(matches!(resumed, Resumed::Done), "{resumed:?}");
    session.handle_frames(rest, now, events).unwrap();
    while let Some(record) = session.poll_transmit(now, false, events) {
        let record = record.freeze();
        ours.node.handle_message(&second, record, when, &mut out);
    }
    out
}

fn connected() -> (Ours, Dans) {
    let mut ours = Ours::new("bob");
    ours.ask(1);
    let mut dans = ours.reached();
    ours.answers(&mut dans);
    (ours, dans)
}

#[test]
fn a_request_that_comes_over_two_pipes_at_once_comes_once_and_breaks_nothing() {
    for raced in [false, true] {
        let (ours, mut dans) = connected();
        let deadline = ours.now + Duration::from_secs(30);
        let request = Request::new("echo.1", b"once".as_slice());
        dans.session
            .request(9, request, deadline, ours.now)
            .unwrap();
        let (session, events) = (&mut dans.session, &mut dans.events);
        assert!(session.poll_transmit(ours.now, false, events).is_some());
        let out = both_at_once(raced, ours, dans);
        let requests = out
            .iter()
            .filter(|output| matches!(output, Output::Request(_)));
        assert_eq!(requests.count(), 1, "raced: {raced}");
        let broke = out.iter().find_map(|output| match output {
            Output::Event(event @ (NodeEvent::Misbehaved { .. } | NodeEvent::Banned(_))) => {
                Some(format!("{event:?}"))
            }
            _ => None,
        });
        assert_eq!(broke, None, "raced: {raced}");
    }
}

#[test]
fn bytes_of_a_stream_that_come_over_two_pipes_at_once_are_read_once() {
    for raced in [false, true] {
        let (mut ours, mut dans) = connected();
        let id = dans.session.open_stream("file.1".into(), Bytes::new());
        let mut out = Vec::new();
        let (session, events) = (&mut dans.session, &mut dans.events);
        while let Some(record) = session.poll_transmit(ours.now, false, events) {
            let (record, now) = (record.freeze(), ours.now());
            ours.node.handle_message(&dans.pipe, record, now, &mut out);
        }
        let stream = out.into_iter().find_map(|output| match output {
            Output::Stream(incoming) => incoming.accept(),
            _ => None,
        });
        let stream = stream.unwrap();
        ours.carry(&mut dans);
        let mut data = Bytes::from_static(b"once.");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(dans.session.write(id, &mut data, &mut cx).is_ready());
        both_at_once(raced, ours, dans);
        let mut read = Vec::new();
        while let Poll::Ready(Ok(Some(bytes))) = stream.poll_read(&mut cx) {
            read.extend_from_slice(&bytes);
        }
        assert_eq!(read, b"once.", "raced: {raced}");
    }
}
