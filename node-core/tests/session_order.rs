//! What an honest pair of sessions must survive: operations in every order, given up at every moment.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::Bytes;
use common::{
    name,
    sessions::{Duel, Pair, T0, bytes},
};
use node_core::{
    Code, Limits,
    session::{CIRCUIT_MTU, Event, Far, Signal},
    time::Duration,
    wire::frame::{Frame, INLINE, Response},
};
use std::task::{Context, Poll, Waker};

const LATER: Duration = Duration::from_secs(9);

#[test]
fn requests_and_streams_begun_together_arrive_both() {
    let mut pair = Pair::new();
    for token in 0..5 {
        pair.request(0, token, bytes(10), LATER);
        pair.ends[0].open_stream("s".into(), Bytes::new());
    }
    pair.run();
    assert_eq!(pair.asked(1).len(), 5);
    assert_eq!(pair.offered(1), 5);
}

#[test]
fn a_session_that_is_closed_before_its_peer_has_attached_finds_nothing_wrong_with_what_the_peer_says_first()
 {
    let mut pair = Pair::half_attached(Limits::default());
    // More than may be sent at once, so that there is something to wait for.
    let stream = pair.ends[0].open_stream("s".into(), Bytes::new());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(
        pair.ends[0]
            .write(stream, &mut bytes(100_000), &mut cx)
            .is_ready()
    );
    pair.ends[0].close(Code::GoingAway, None);
    // ATTACH, and credit right after it.
    assert!(pair.carry(1) > 0);
    assert!(pair.events[0].is_empty(), "{:?}", pair.events[0]);
    pair.run();
    assert_eq!(pair.offered(1), 1, "what was queued still leaves");
    pair.pass(Duration::from_secs(10));
    assert!(pair.ends.iter().all(|end| end.is_ended()));
}

#[test]
fn a_request_given_up_before_it_left_leaves_no_trace_and_breaks_nothing() {
    let mut pair = Pair::new();
    let first = pair.request(0, 1, bytes(10), LATER);
    pair.request(0, 2, bytes(10), LATER);
    let mut events = Vec::new();
    pair.ends[0].cancel(first, &mut events);
    assert!(matches!(
        events[..],
        [Event::Failed {
            token: 1,
            code: Code::Cancelled,
            cause: None,
        }]
    ));
    pair.request(0, 3, bytes(10), LATER);
    pair.run();
    assert_eq!(pair.asked(1).len(), 2);
    // Given up after it left, it is cancelled at the other side.
    let id = pair.request(0, 4, bytes(10), LATER);
    pair.run();
    pair.ends[0].cancel(id, &mut events);
    pair.run();
    assert!(
        pair.events[1]
            .iter()
            .any(|event| matches!(event, Event::Cancelled { id: seen } if *seen == id))
    );
}

#[test]
fn a_request_that_times_out_before_it_left_breaks_nothing() {
    let mut pair = Pair::new();
    pair.request(0, 1, bytes(10), LATER);
    pair.now = pair.now + LATER;
    let now = pair.now;
    pair.ends[0].handle_timeout(now, &mut Vec::new());
    pair.request(0, 2, bytes(10), LATER);
    pair.run();
    assert_eq!(pair.asked(1).len(), 1);
}

#[test]
fn bytes_never_overtake_the_opening_of_their_stream() {
    for metadata in [0, 1000, 16 << 10] {
        let mut pair = Pair::new();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..8 {
            let id = pair.ends[0].open_stream("s".into(), vec![1; metadata].into());
            let mut data = Bytes::from(vec![2; 8 << 10]);
            assert!(pair.ends[0].write(id, &mut data, &mut cx).is_ready());
        }
        pair.run();
        assert_eq!(pair.offered(1), 8);
    }
}

#[test]
fn small_writes_to_a_stream_leave_as_one_frame_and_in_order_with_large_ones() {
    let mut duel = Duel::new();
    duel.hear();
    let id = duel.session.open_stream("s".into(), Bytes::new());
    duel.hear();
    let mut cx = Context::from_waker(Waker::noop());
    let mut written = Vec::new();
    let sizes = [[32; 64].as_slice(), &[5_000, 1], &[4_095; 2], &[0, 7]].concat();
    for (n, size) in sizes.into_iter().enumerate() {
        let data = vec![n as u8; size];
        written.extend_from_slice(&data);
        let taken = duel.session.write(id, &mut data.into(), &mut cx);
        assert_eq!(taken, Poll::Ready(Ok(())));
    }
    duel.session.finish(id);
    let (mut frames, mut heard) = (Vec::new(), Vec::new());
    for frame in duel.hear() {
        match frame {
            Frame::Data { data, .. } => {
                frames.push(data.len());
                heard.extend_from_slice(&data);
            }
            Frame::Fin(_) => frames.push(0),
            _ => {}
        }
    }
    assert!(heard == written);
    // What is small is collected to 4 KiB at least; what is larger is not copied.
    assert_eq!(frames, [2_048, 5_000, 4_096, 4_102, 0]);
}

#[test]
fn streams_that_both_sides_let_go_of_are_forgotten() {
    let mut pair = Pair::new();
    let mut cx = Context::from_waker(Waker::noop());
    for round in 0..200 {
        let id = pair.ends[0].open_stream("s".into(), Bytes::new());
        let mut data = Bytes::from(vec![2; 100]);
        assert!(pair.ends[0].write(id, &mut data, &mut cx).is_ready());
        pair.run();
        pair.ends[1].accept_stream(id);
        pair.run();
        // In every order: one side drops it early, the other late, finished or not.
        let (first, second) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        if round % 3 == 0 {
            pair.ends[first].finish(id);
            pair.ends[first].detach_stream(id);
        } else {
            pair.ends[first].release_stream(id);
        }
        if round % 4 < 2 {
            pair.run();
        }
        pair.ends[second].release_stream(id);
        pair.run();
        // Acknowledgements take their time.
        pair.pass(Duration::from_secs(1));
        assert!(
            pair.ends[0].is_idle() && pair.ends[1].is_idle(),
            "round {round}"
        );
    }
}

#[test]
fn credit_for_many_streams_that_were_dropped_at_once_breaks_no_rule() {
    let mut pair = Pair::new();
    for _ in 0..10 {
        let open = |_| pair.ends[0].open_stream("s".into(), Bytes::new());
        let streams: Vec<u64> = (0..64).map(open).collect();
        pair.carry(0);
        for id in &streams {
            pair.ends[0].release_stream(*id);
            pair.ends[1].accept_stream(*id);
        }
        pair.run();
        for id in streams {
            pair.ends[1].release_stream(id);
        }
        pair.run();
    }
    assert_eq!(pair.offered(1), 640);
}

#[test]
fn long_requests_that_are_given_up_together_break_no_rule_by_the_credit_that_crosses() {
    let mut pair = Pair::new();
    // The first takes all the memory that is promised to long ones; the others are granted theirs once it is given up.
    pair.request(0, 0, bytes(16 << 20), LATER);
    for token in 1..500 {
        pair.request(0, token, bytes(INLINE + 1), LATER);
    }
    pair.carry(0);
    pair.carry(1);
    pair.ends[0].cancel_where(|_| true, &mut pair.events[0]);
    pair.run();
    let given_up = |event: &&Event<u64>| matches!(event, Event::Failed { .. });
    assert_eq!(pair.events[0].iter().filter(given_up).count(), 500);
}

#[test]
fn a_long_answer_that_nobody_waits_for_is_let_go() {
    let mut pair = Pair::new();
    for token in 0..50 {
        let id = pair.request(0, token, bytes(10), LATER);
        pair.run();
        // The answer's head is on its way when the asking side gives up.
        pair.ends[0].cancel(id, &mut Vec::new());
        assert!(pair.ends[1].respond(id, Response::Success(Some(vec![0; 1 << 20].into()))));
        pair.run();
    }
    pair.pass(Duration::from_secs(1));
    assert!(
        pair.ends[1].is_idle(),
        "nothing is kept of 50 MiB of answers"
    );
}

#[test]
fn answers_that_nobody_reads_are_bounded_by_the_outbox() {
    let mut pair = Pair::with(Limits {
        outbox_bytes: 4 << 20,
        ..Limits::default()
    });
    let ids: Vec<u64> = (0..100)
        .map(|token| pair.request(0, token, bytes(10), LATER))
        .collect();
    pair.run();
    // No record of the answering side is taken any more.
    for id in &ids {
        assert!(pair.ends[1].respond(*id, Response::Success(Some(vec![0; 1 << 20].into()))));
    }
    pair.run();
    let (mut whole, mut refused) = (0, 0);
    for event in &pair.events[0] {
        match event {
            Event::Answered {
                response: Response::Success(_),
                ..
            } => whole += 1,
            Event::Answered {
                response: Response::Error { code, .. },
                ..
            } => {
                assert_eq!(*code, Code::OutcomeUnknown.as_u16(), "it was handled");
                refused += 1;
            }
            _ => {}
        }
    }
    assert!(
        whole >= 3 && whole + refused == 100,
        "{whole} whole, {refused} refused"
    );
}

#[test]
fn more_requests_than_may_be_handled_at_once_are_told_so() {
    let mut pair = Pair::with(Limits {
        requests: 10,
        ..Limits::default()
    });
    for token in 0..15 {
        pair.request(0, token, bytes(10), LATER);
    }
    pair.run();
    assert_eq!(pair.asked(1).len(), 10);
    let refused = pair.events[0].iter().filter(|event| {
        matches!(
            event,
            Event::Answered {
                response: Response::Error { code: 407, .. },
                ..
            }
        )
    });
    assert_eq!(refused.count(), 5);
    let first = pair.asked(1)[0];
    pair.ends[1].respond(first, Response::Success(None));
    pair.request(0, 99, bytes(10), LATER);
    pair.run();
    assert_eq!(pair.asked(1).len(), 11, "a place became free");
}

#[test]
fn who_asked_for_a_circuit_cannot_answer_for_it() {
    let mut pair = Pair::new();
    let cid = pair.ends[0]
        .open_circuit(name("carol"), false, Bytes::from_static(b"m"), 1, T0)
        .unwrap();
    pair.run();
    assert!(pair.ends[1].bind_circuit(cid, Far::Hop { session: 9, cid: 5 }));
    let opened = Frame::Opened {
        cid,
        window: 1 << 40,
    }
    .encode();
    let refused = pair.ends[1]
        .handle_frames(opened.into(), T0, &mut Vec::new())
        .unwrap_err();
    assert_eq!(refused.code, Code::FrameUnexpected);
}

#[test]
fn circuit_data_that_would_fit_no_record_on_its_way_on_is_refused() {
    let mut pair = Pair::new();
    let cid = pair.ends[1]
        .bring_circuit(
            None,
            1 << 20,
            Bytes::from_static(b"m"),
            Far::Hop { session: 1, cid: 0 },
            T0,
        )
        .unwrap();
    pair.run();
    assert!(pair.ends[0].bind_circuit(cid, Far::Pipe(1)));
    pair.run();
    pair.ends[0].circuit_signal(cid, Signal::Data(vec![0; CIRCUIT_MTU].into()));
    pair.run();
    let longer = Frame::CircuitData {
        cid,
        data: vec![0; CIRCUIT_MTU + 1].into(),
    }
    .encode();
    let refused = pair.ends[1]
        .handle_frames(longer.into(), T0, &mut Vec::new())
        .unwrap_err();
    assert_eq!(refused.code, Code::FrameMalformed);
}

#[test]
fn bulk_in_both_directions_is_acknowledged_in_time() {
    let mut pair = Pair::with(Limits {
        retained_bytes: 256 << 10,
        ..Limits::default()
    });
    let mut cx = Context::from_waker(Waker::noop());
    let ids = [0, 1].map(|side| pair.ends[side].open_stream("s".into(), Bytes::new()));
    pair.run();
    for side in [0, 1] {
        pair.ends[side].accept_stream(ids[1 - side]);
    }
    let mut got = [0usize; 2];
    for _ in 0..200 {
        for side in [0, 1] {
            let mut data = Bytes::from(vec![1; 64 << 10]);
            let _ = pair.ends[side].write(ids[side], &mut data, &mut cx);
        }
        // No time passes: acknowledgements that wait for a timer would stop both sides.
        pair.run();
        for side in [0, 1] {
            while let Poll::Ready(Ok(Some(bytes))) = pair.ends[side].read(ids[1 - side], &mut cx) {
                got[side] += bytes.len();
            }
        }
    }
    assert!(got.iter().all(|bytes| *bytes > 8 << 20), "{got:?}");
}

#[test]
fn what_was_said_before_the_peer_attached_is_waited_for_once_it_has_even_if_nothing_else_is_said() {
    let mut pair = Pair::half_attached(Limits::default());
    pair.ends[0].speak_early();
    pair.request(0, 1, bytes(10), LATER);
    let (now, mut said) = (pair.now, Vec::new());
    // The record with the request stays on its way.
    let record = pair.ends[0].poll_transmit(now, false, &mut said);
    assert!(record.is_some());
    pair.carry(1);
    while pair.ends[0].poll_transmit(now, false, &mut said).is_some() {}
    let due = pair.ends[0].deadline().unwrap();
    assert!(due.since(now) < Duration::from_secs(9), "{due:?}");
    pair.now = due;
    pair.ends[0].handle_timeout(due, &mut said);
    assert!(pair.ends[0].is_suspected());
}
