//! Two sessions and what one of them, or bad luck, can do to the other: numbers, memory, and what is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::Bytes;
use common::sessions::{Duel, Pair, bytes};
use node_core::{
    Code, Limits,
    session::{Event, Far, Request},
    time::Duration,
    wire::frame::{Frame, Response},
};
use std::task::{Context, Poll, Waker};

#[test]
fn a_stream_opened_right_after_a_request_breaks_no_rule() {
    let mut pair = Pair::new();
    pair.request(0, 1, bytes(10), Duration::from_secs(30));
    pair.ends[0].open_stream("file.1".into(), Bytes::new());
    pair.run();
    assert_eq!(pair.asked(1).len(), 1);
    assert_eq!(pair.offered(1), 1);
}

#[test]
fn a_stream_overtakes_messages_that_wait_for_the_peers_inbox() {
    let mut pair = Pair::new();
    for token in 0..100 {
        pair.message(0, token, bytes(30_000)).unwrap();
    }
    pair.run();
    pair.ends[0].open_stream("file.1".into(), Bytes::new());
    pair.run();
    assert_eq!(pair.offered(1), 1);
}

#[test]
fn what_is_given_up_before_it_was_sent_is_never_sent_and_breaks_no_rule() {
    let mut pair = Pair::new();
    for token in 0..100 {
        pair.message(0, token, bytes(30_000)).unwrap();
    }
    pair.run();
    let arrived = pair.told(1).len();
    assert!((10..100).contains(&arrived), "{arrived}");
    for _ in 0..40 {
        pair.pass(Duration::from_secs(1));
    }
    let failed = pair.events[0]
        .iter()
        .filter(|e| {
            matches!(
                e,
                Event::Failed {
                    code: Code::Timeout,
                    ..
                }
            )
        })
        .count();
    assert_eq!(failed, 100, "nobody took any of them");
    // The application takes what it has, and there is room again.
    for id in pair.told(1) {
        pair.ends[1].delivered(id);
    }
    pair.message(0, 1000, bytes(5)).unwrap();
    pair.run();
    assert_eq!(pair.told(1).len(), arrived + 1, "only the new one");
}

#[test]
fn a_long_answer_that_comes_too_late_leaves_nothing_behind() {
    let mut pair = Pair::new();
    pair.request(0, 1, bytes(10), Duration::from_secs(1));
    pair.run();
    let id = pair.asked(1)[0];
    pair.pass(Duration::from_secs(2));
    pair.ends[1].respond(id, Response::Success(Some(bytes(1 << 20))));
    pair.run();
    pair.pass(Duration::from_secs(1));
    assert!(pair.ends[1].is_idle(), "the answer waits for ever");
}

#[test]
fn a_long_answer_whose_requester_gives_up_half_way_leaves_nothing_behind() {
    let mut pair = Pair::new();
    pair.request(0, 1, bytes(10), Duration::from_secs(1));
    pair.run();
    let id = pair.asked(1)[0];
    pair.ends[1].respond(id, Response::Success(Some(bytes(8 << 20))));
    // The announcement arrives, the memory is promised, then time is up.
    pair.carry(1);
    pair.pass(Duration::from_secs(2));
    pair.pass(Duration::from_secs(1));
    assert!(pair.ends[1].is_idle(), "the answer waits for ever");
    assert!(pair.ends[0].is_idle());
}

#[test]
fn refused_streams_leave_room_for_others() {
    let mut pair = Pair::new();
    for round in 0..200 {
        let id = pair.ends[0].open_stream("file.1".into(), Bytes::new());
        pair.run();
        let opened = pair.events[1]
            .iter()
            .any(|e| matches!(e, Event::Stream(s) if s.id == id));
        assert!(opened, "stream {round} was refused for want of room");
        pair.ends[1].release_stream(id);
        pair.run();
        pair.ends[0].release_stream(id);
        pair.run();
    }
    pair.pass(Duration::from_secs(1));
    assert!(pair.ends[0].is_idle(), "the opener remembers ended streams");
    assert!(
        pair.ends[1].is_idle(),
        "the acceptor remembers ended streams"
    );
}

#[test]
fn a_reader_that_stops_hears_no_more_and_both_forget_the_stream() {
    let mut pair = Pair::new();
    let id = pair.ends[0].open_stream("file.1".into(), Bytes::new());
    pair.run();
    pair.ends[1].accept_stream(id);
    pair.run();
    let mut cx = Context::from_waker(Waker::noop());
    let mut data = bytes(200_000);
    assert!(pair.ends[0].write(id, &mut data, &mut cx).is_ready());
    pair.run();
    pair.ends[1].stop(id, 9);
    pair.run();
    let error = pair.ends[0].write(id, &mut bytes(10), &mut cx);
    assert!(matches!(error, Poll::Ready(Err(_))), "{error:?}");
    for end in [0, 1] {
        pair.ends[end].release_stream(id);
    }
    pair.run();
    pair.pass(Duration::from_secs(1));
    assert!(pair.ends[0].is_idle() && pair.ends[1].is_idle());
}

#[test]
fn what_waits_for_a_peer_that_takes_nothing_is_bounded_long_messages_included() {
    let mut pair = Pair::new();
    let long = bytes(8 << 20);
    let taken = (0..100)
        .take_while(|token| pair.message(0, *token, long.clone()).is_ok())
        .count();
    let most = Limits::default().outbox_bytes / long.len();
    assert!(taken <= most, "{taken} messages of 8 MiB were queued");
    let refused = pair.message(0, 1000, long).unwrap_err();
    assert_eq!(refused.1, Code::QueueFull);
}

#[test]
fn long_messages_that_the_application_has_not_taken_hold_back_the_next() {
    let mut pair = Pair::new();
    for token in 0..8 {
        pair.message(0, token, bytes(4 << 20)).unwrap();
        pair.run();
    }
    assert_eq!(pair.told(1).len(), 4, "16 MiB wait for the application");
    let first = pair.told(1)[0];
    pair.ends[1].delivered(first);
    pair.run();
    assert_eq!(pair.told(1).len(), 5, "taking one makes room for one");
}

#[test]
fn answers_that_the_peer_does_not_take_do_not_pile_up() {
    let mut pair = Pair::new();
    let mut refused = 0;
    // The requester never reads: whatever it is answered waits here.
    for token in 0..20_000 {
        let (request, until) = (
            Request::new("echo.1", Bytes::new()),
            pair.now + Duration::from_secs(30),
        );
        let Ok(_) = pair.ends[0].request(token, request, until, pair.now) else {
            break;
        };
        pair.carry(0);
        let events = std::mem::take(&mut pair.events[1]);
        for event in events {
            if let Event::Request { id, .. } = event {
                pair.ends[1].respond(id, Response::Success(Some(bytes(30_000))));
            }
        }
        let waits = pair.ends[1].waiting_bytes();
        assert!(
            waits <= Limits::default().outbox_bytes + (8 << 20),
            "{waits} bytes of answers wait after {token} requests"
        );
        refused += 1;
    }
    assert!(refused > 100);
}

#[test]
fn more_requests_at_once_than_a_peer_may_have_are_refused_and_those_after_them_served() {
    let mut pair = Pair::new();
    let most = Limits::default().requests as u64;
    for token in 0..most + 10 {
        pair.request(0, token, Bytes::new(), Duration::from_secs(30));
    }
    pair.run();
    assert_eq!(pair.asked(1).len() as u64, most);
    let refused = pair.events[0].iter().filter(|event| {
        matches!(event, Event::Answered { response: Response::Error { code, .. }, .. }
            if *code == Code::QueueFull.as_u16())
    });
    assert_eq!(refused.count(), 10);
    for id in pair.asked(1) {
        pair.ends[1].respond(id, Response::Success(None));
    }
    pair.run();
    pair.events[1].clear();
    pair.request(0, 9999, Bytes::new(), Duration::from_secs(30));
    pair.run();
    assert_eq!(pair.asked(1).len(), 1);
}

#[test]
fn a_peer_that_talks_but_never_reads_is_noticed() {
    let mut duel = Duel::new();
    for tick in 0..600 {
        if duel.say(&[Frame::Ping(tick)]).is_err() || duel.ended().is_some() {
            assert!(tick >= 30, "not before it had time to read");
            return;
        }
        duel.pass(Duration::from_secs(1));
    }
    panic!("a peer that never reads is kept for ever");
}

#[test]
fn a_peer_that_reads_but_never_acknowledges_is_noticed() {
    let mut duel = Duel::new();
    for tick in 0..600 {
        if duel.say(&[Frame::Ping(tick)]).is_err() || duel.ended().is_some() {
            assert!(tick >= 30, "not before it had time to acknowledge");
            return;
        }
        duel.hear();
        duel.pass(Duration::from_secs(1));
    }
    panic!("a peer that never acknowledges is kept for ever");
}

#[test]
fn a_peer_that_acknowledges_is_kept() {
    let mut duel = Duel::new();
    for tick in 0..600 {
        duel.say(&[Frame::Ping(tick), Frame::Ack(duel.heard)])
            .unwrap();
        duel.hear();
        duel.pass(Duration::from_secs(1));
    }
    assert_eq!(duel.ended(), None);
}

#[test]
fn streams_refused_by_the_thousand_end_the_channel() {
    let mut duel = Duel::new();
    let opened = (1..10_000).take_while(|n| {
        let frame = Frame::Stream {
            id: n * 4 + 2,
            window: 1,
            protocol: "p".into(),
            metadata: Bytes::new(),
        };
        duel.say(&[frame]).is_ok()
    });
    assert!(opened.count() < 1_000);
}

#[test]
fn circuits_refused_by_the_thousand_end_the_channel_of_who_does_not_read() {
    let mut duel = Duel::new();
    let opened = (0..100_000u32).take_while(|n| {
        let frame = Frame::Open {
            cid: n * 4 + 2,
            window: 1,
            hide: false,
            to: common::name("carol"),
            first: Bytes::from_static(&[0; 1218]),
        };
        let said = duel.say(&[frame]).is_ok();
        duel.session.close_circuit(n * 2, Code::TargetOffline, None);
        said
    });
    assert!(opened.count() < 10_000);
}

/// As many circuits as a router's end of the pair may bring to the other end, each closed at once by whoever asked for it.
fn bring_all(pair: &mut Pair) -> u32 {
    let mut brought = 0;
    while pair.ends[0].circuit_brought_in_rate(pair.now) {
        let (first, far) = (bytes(1218), Far::Hop { session: 9, cid: 1 });
        let cid = pair.ends[0].bring_circuit(None, 1, first, far, pair.now);
        pair.ends[0].close_circuit(cid.unwrap(), Code::PipeLost, None);
        brought += 1;
    }
    brought
}

#[test]
fn a_crowd_of_callers_does_not_make_a_router_break_the_rate_of_their_target() {
    let mut pair = Pair::new();
    pair.run();
    let mut brought = 0;
    for tick in 0..3_000 {
        brought += bring_all(&mut pair);
        pair.now = pair.now + Duration::from_millis(10);
        // For five seconds in between nothing goes through.
        if !(1_000..1_500).contains(&tick) {
            pair.run();
        }
    }
    assert!((2_000..3_000).contains(&brought), "{brought} in 30 s");
}

#[test]
fn a_target_that_takes_nothing_has_few_openings_kept_for_it() {
    let mut pair = Pair::new();
    pair.run();
    let mut brought = 0;
    for _ in 0..100 {
        brought += bring_all(&mut pair);
        pair.now = pair.now + Duration::from_millis(100);
    }
    assert!((50..=64).contains(&brought), "{brought}");
}

#[test]
fn what_lay_in_the_sockets_of_a_target_that_froze_breaks_no_rate_when_it_reads_on() {
    let mut pair = Pair::new();
    let (mut brought, mut sockets) = (0, Vec::new());
    for _ in 0..100 {
        brought += bring_all(&mut pair);
        pair.now = pair.now + Duration::from_millis(100);
        let (now, [router, _]) = (pair.now, &mut pair.ends);
        sockets.extend(core::iter::from_fn(|| {
            router.poll_transmit(now, false, &mut pair.events[0])
        }));
    }
    assert!((50..=100).contains(&brought), "{brought}");
    for record in sockets {
        let heard = pair.ends[1].handle_record(record, pair.now, &mut pair.events[1]);
        heard.unwrap();
    }
    // It has seen them all, and others come.
    pair.run();
    assert!(bring_all(&mut pair) >= 50);
}

#[test]
fn a_circuit_that_is_closed_in_the_record_that_opens_it_is_tied_to_nobody() {
    let mut duel = Duel::new();
    duel.hear();
    let open = Frame::Open {
        cid: 2,
        window: 1,
        hide: false,
        to: common::name("carol"),
        first: bytes(1218),
    };
    let close = Frame::CircuitClose {
        cid: 2,
        code: Code::Cancelled.as_u16(),
        retry_ms: 0,
    };
    duel.say(&[open, close]).unwrap();
    assert!(!duel.session.bind_circuit(2, Far::Pipe(7)));
    assert_eq!(duel.hear(), []);
}

#[test]
fn acknowledgements_for_a_peer_that_does_not_read_are_not_collected() {
    let mut duel = Duel::new();
    duel.hear();
    for n in 1..=1_000u64 {
        duel.say(&[Frame::Stream {
            id: 4 * n + 2,
            window: 1,
            protocol: "p".into(),
            metadata: Bytes::new(),
        }])
        .ok();
        if n > 60 {
            break;
        }
    }
    for _ in 0..100 {
        duel.say(&[Frame::Data {
            id: 6,
            data: Bytes::from_static(b"x"),
        }])
        .unwrap();
        duel.pass(Duration::from_millis(25));
    }
    let acks = duel
        .hear()
        .into_iter()
        .filter(|f| matches!(f, Frame::Ack(_)))
        .count();
    assert_eq!(acks, 1, "one says it all");
}

#[test]
fn a_closing_session_takes_nothing_more_from_its_peer_and_ends_even_if_that_never_reads() {
    let mut duel = Duel::new();
    duel.hear();
    duel.session.close(Code::KeyMismatch, None);
    duel.say(&[Frame::Message {
        id: 4,
        total: 1,
        protocol: "p".into(),
        data: Bytes::from_static(b"x"),
    }])
    .unwrap();
    assert!(
        !duel
            .events
            .iter()
            .any(|e| matches!(e, Event::Message { .. })),
        "a message was taken from a peer that is being shown out"
    );
    for tick in 0..30 {
        duel.say(&[Frame::Ping(tick)]).ok();
        duel.pass(Duration::from_secs(1));
    }
    assert_eq!(duel.ended(), Some(Code::KeyMismatch));
}

#[test]
fn empty_request_cancelled_again_and_again_is_told_once() {
    let mut duel = Duel::new();
    let request = Frame::Request {
        id: 4,
        deadline_ms: 1000,
        total: 0,
        protocol: "p".into(),
        metadata: None,
        data: Bytes::new(),
    };
    duel.say(&[request]).unwrap();
    for _ in 0..10 {
        duel.say(&[Frame::Cancel(4)]).unwrap();
    }
    let told = duel
        .events
        .iter()
        .filter(|e| matches!(e, Event::Cancelled { .. }));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_circuit_message_too_long_to_be_passed_on_ends_the_channel() {
    let mut duel = Duel::new();
    duel.say(&[Frame::Open {
        cid: 0,
        window: 1 << 20,
        hide: false,
        to: common::name("carol"),
        first: Bytes::from_static(&[0; 1218]),
    }])
    .unwrap();
    assert!(duel.session.bind_circuit(0, Far::Pipe(1)));
    let longest = Bytes::from(vec![0; node_core::session::CIRCUIT_MTU]);
    duel.say(&[Frame::CircuitData {
        cid: 0,
        data: longest,
    }])
    .unwrap();
    let longer = Bytes::from(vec![0; node_core::session::CIRCUIT_MTU + 1]);
    let said = duel.say(&[Frame::CircuitData {
        cid: 0,
        data: longer,
    }]);
    assert_eq!(said, Err(Code::FrameMalformed));
}

#[test]
fn an_opening_too_long_to_be_passed_on_ends_the_channel() {
    let mut duel = Duel::new();
    let said = duel.say(&[Frame::Open {
        cid: 0,
        window: 1 << 20,
        hide: false,
        to: common::name("carol"),
        first: Bytes::from_static(&[0; 60_000]),
    }]);
    assert_eq!(said, Err(Code::TooLarge));
}

#[test]
fn a_stream_on_a_session_that_is_over_fails_at_once() {
    let mut duel = Duel::new();
    duel.say(&[Frame::Close(Code::Closed, None)]).unwrap();
    duel.session.dissolve(Code::Closed, &mut Vec::new());
    let id = duel.session.open_stream("file.1".into(), Bytes::new());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(
        duel.session.read(id, &mut cx),
        Poll::Ready(Err(_))
    ));
}
