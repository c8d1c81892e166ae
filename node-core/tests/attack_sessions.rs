//! Two sessions and what one of them, or bad luck, can do to the other: numbers, memory, and what is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Actor, connect};
use node_core::{
    Code, Instant, Limits,
    channel::RECORD,
    session::{Event, Request, Session, SessionConfig},
    time::Duration,
    wire::frame::{Attach, Frame, Response, next},
};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

const T0: Instant = Instant::from_micros(1_000_000);

/// Two sessions on one channel; the first one dialled.
struct Pair {
    ends: [Session<u64>; 2],
    events: [Vec<Event<u64>>; 2],
    now: Instant,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let (_, dialled, accepted) = connect(&Actor::named("alice", 1), &Actor::named("bob", 2), 7);
        let limits = Arc::new(limits);
        let config = |instance| SessionConfig {
            limits: limits.clone(),
            mtu: 65_536,
            instance: [instance; 16],
            agent: "test".into(),
        };
        let mut sid = [0; 16];
        sid.copy_from_slice(&dialled.export("session id")[..16]);
        let attach = Attach {
            status: node_core::wire::frame::AttachStatus::Fresh,
            sid,
            attempt: 0,
            recv_off: 0,
            send_off: 0,
            instance: [1; 16],
            proof: [0; 32],
            agent: "".into(),
        };
        let mut events = [Vec::new(), Vec::new()];
        let mut first = Session::begin(dialled, config(1), T0);
        // Its ATTACH has been read by whoever accepted: here that is the test.
        let mut record = first.poll_transmit(T0, false, &mut events[0]).unwrap();
        let mut channel = accepted;
        record = channel.open(record).unwrap();
        assert!(record.len() > 64);
        let second = Session::accept(channel, config(2), &attach, T0, &mut events[1]).unwrap();
        let mut pair = Self {
            ends: [first, second],
            events,
            now: T0,
        };
        pair.run();
        pair
    }

    /// Carries records until neither has any more.
    fn run(&mut self) {
        loop {
            let before = (self.carry(0), self.carry(1));
            if before == (0, 0) {
                return;
            }
        }
    }

    /// Carries what one end has to say; how many records that was.
    fn carry(&mut self, from: usize) -> usize {
        let mut carried = 0;
        while let Some(record) =
            self.ends[from].poll_transmit(self.now, false, &mut self.events[from])
        {
            carried += 1;
            let to = 1 - from;
            self.ends[to]
                .handle_record(record, self.now, &mut self.events[to])
                .unwrap_or_else(|violation| panic!("{from} broke a rule: {violation}"));
        }
        carried
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for end in [0, 1] {
            self.ends[end].handle_timeout(self.now, &mut self.events[end]);
        }
        self.run();
    }

    fn request(&mut self, from: usize, token: u64, payload: Bytes, deadline: Duration) -> u64 {
        let request = Request {
            protocol: "echo.1".into(),
            metadata: None,
            payload,
        };
        self.ends[from]
            .request(token, request, self.now + deadline, self.now)
            .unwrap()
    }

    fn message(&mut self, from: usize, token: u64, payload: Bytes) -> Result<u64, (u64, Code)> {
        let deadline = self.now + Duration::from_secs(30);
        self.ends[from].message(token, "chat.1".into(), payload, deadline)
    }

    /// Numbers of the requests that `end` was asked.
    fn asked(&mut self, end: usize) -> Vec<u64> {
        let ids = self.events[end].iter().filter_map(|event| match event {
            Event::Request { id, .. } => Some(*id),
            _ => None,
        });
        ids.collect()
    }
}

fn bytes(length: usize) -> Bytes {
    Bytes::from(vec![7; length])
}

#[test]
fn a_stream_opened_right_after_a_request_breaks_no_rule() {
    let mut pair = Pair::new(Limits::default());
    pair.request(0, 1, bytes(10), Duration::from_secs(30));
    pair.ends[0].open_stream("file.1".into(), Bytes::new());
    pair.run();
    assert_eq!(pair.asked(1).len(), 1);
    assert!(pair.events[1].iter().any(|e| matches!(e, Event::Stream(_))));
}

#[test]
fn a_stream_overtakes_messages_that_wait_for_the_peers_inbox() {
    let mut pair = Pair::new(Limits::default());
    for token in 0..100 {
        pair.message(0, token, bytes(30_000)).unwrap();
    }
    pair.run();
    pair.ends[0].open_stream("file.1".into(), Bytes::new());
    pair.run();
    assert!(pair.events[1].iter().any(|e| matches!(e, Event::Stream(_))));
}

#[test]
fn what_is_given_up_before_it_was_sent_is_never_sent_and_breaks_no_rule() {
    let mut pair = Pair::new(Limits::default());
    for token in 0..100 {
        pair.message(0, token, bytes(30_000)).unwrap();
    }
    pair.run();
    let messages = |pair: &Pair| {
        let taken = pair.events[1]
            .iter()
            .filter(|e| matches!(e, Event::Message { .. }));
        taken.count()
    };
    let arrived = messages(&pair);
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
    let ids: Vec<u64> = pair.events[1]
        .iter()
        .filter_map(|event| match event {
            Event::Message { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    for id in ids {
        pair.ends[1].delivered(id);
    }
    pair.message(0, 1000, bytes(5)).unwrap();
    pair.run();
    assert_eq!(messages(&pair), arrived + 1, "only the new one");
}

#[test]
fn a_long_answer_that_comes_too_late_leaves_nothing_behind() {
    let mut pair = Pair::new(Limits::default());
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
    let mut pair = Pair::new(Limits::default());
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
    let mut pair = Pair::new(Limits::default());
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
    let mut pair = Pair::new(Limits::default());
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
    let mut pair = Pair::new(Limits::default());
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
    let mut pair = Pair::new(Limits::default());
    for token in 0..8 {
        pair.message(0, token, bytes(4 << 20)).unwrap();
        pair.run();
    }
    let waiting = |pair: &Pair| -> Vec<u64> {
        let ids = pair.events[1].iter().filter_map(|event| match event {
            Event::Message { id, .. } => Some(*id),
            _ => None,
        });
        ids.collect()
    };
    assert_eq!(waiting(&pair).len(), 4, "16 MiB wait for the application");
    let first = waiting(&pair)[0];
    pair.ends[1].delivered(first);
    pair.run();
    assert_eq!(waiting(&pair).len(), 5, "taking one makes room for one");
}

#[test]
fn answers_that_the_peer_does_not_take_do_not_pile_up() {
    let mut pair = Pair::new(Limits::default());
    let mut refused = 0;
    // The requester never reads: whatever it is answered waits here.
    for token in 0..20_000 {
        let Ok(_) = pair.ends[0].request(
            token,
            Request {
                protocol: "echo.1".into(),
                metadata: None,
                payload: Bytes::new(),
            },
            pair.now + Duration::from_secs(30),
            pair.now,
        ) else {
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
    let mut pair = Pair::new(Limits::default());
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

/// A session under test, and a peer that says what it likes and reads when it likes.
struct Attack {
    session: Session<u64>,
    peer: node_core::channel::Channel,
    events: Vec<Event<u64>>,
    now: Instant,
}

impl Attack {
    fn new() -> Self {
        let (_, peer, ours) = connect(&Actor::named("mallory", 1), &Actor::named("bob", 2), 7);
        let mut sid = [0; 16];
        sid.copy_from_slice(&peer.export("session id")[..16]);
        let attach = Attach {
            status: node_core::wire::frame::AttachStatus::Fresh,
            sid,
            attempt: 0,
            recv_off: 0,
            send_off: 0,
            instance: [9; 16],
            proof: [0; 32],
            agent: "".into(),
        };
        let config = SessionConfig {
            limits: Arc::new(Limits::default()),
            mtu: 65_536,
            instance: [1; 16],
            agent: "test".into(),
        };
        let mut events = Vec::new();
        let session = Session::accept(ours, config, &attach, T0, &mut events).unwrap();
        Self {
            session,
            peer,
            events,
            now: T0,
        }
    }

    fn say(&mut self, frames: &[Frame]) -> Result<(), Code> {
        let mut record = BytesMut::from(&[RECORD][..]);
        for frame in frames {
            record.extend_from_slice(&frame.encode());
        }
        self.peer.seal(&mut record).unwrap();
        self.session
            .handle_record(record, self.now, &mut self.events)
            .map_err(|violation| violation.code)
    }

    fn ended(&self) -> Option<Code> {
        self.events.iter().find_map(|event| match event {
            Event::Ended { code, .. } | Event::Lost(code) => Some(*code),
            _ => None,
        })
    }

    fn hear(&mut self) -> Vec<Frame> {
        let mut heard = Vec::new();
        while let Some(record) = self
            .session
            .poll_transmit(self.now, false, &mut self.events)
        {
            let mut frames = self.peer.open(record).unwrap().freeze();
            while let Some((_, _, frame)) = next(&mut frames).unwrap() {
                heard.extend(frame);
            }
        }
        heard
    }

    /// Time passes in steps; what is due is done.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.session.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now, &mut self.events);
        }
        self.now = end;
    }
}

#[test]
fn a_peer_that_talks_but_never_reads_is_noticed() {
    let mut attack = Attack::new();
    for tick in 0..600 {
        if attack.say(&[Frame::Ping(tick)]).is_err() || attack.ended().is_some() {
            assert!(tick >= 30, "not before it had time to read");
            return;
        }
        attack.pass(Duration::from_secs(1));
    }
    panic!("a peer that never reads is kept for ever");
}

#[test]
fn a_peer_that_reads_but_never_acknowledges_is_noticed() {
    let mut attack = Attack::new();
    for tick in 0..600 {
        if attack.say(&[Frame::Ping(tick)]).is_err() || attack.ended().is_some() {
            assert!(tick >= 30, "not before it had time to acknowledge");
            return;
        }
        attack.hear();
        attack.pass(Duration::from_secs(1));
    }
    panic!("a peer that never acknowledges is kept for ever");
}

#[test]
fn a_peer_that_acknowledges_is_kept() {
    let mut attack = Attack::new();
    let mut sent = 0;
    for tick in 0..600 {
        attack.say(&[Frame::Ping(tick), Frame::Ack(sent)]).unwrap();
        for frame in attack.hear() {
            let bytes = frame.encode();
            if node_core::wire::frame::is_session(bytes[0]) {
                sent += bytes.len() as u64;
            }
        }
        attack.pass(Duration::from_secs(1));
    }
    assert_eq!(attack.ended(), None);
}

#[test]
fn streams_refused_by_the_thousand_end_the_channel() {
    let mut attack = Attack::new();
    let opened = (1..10_000).take_while(|n| {
        let frame = Frame::Stream {
            id: n * 4 + 2,
            window: 1,
            protocol: "p".into(),
            metadata: Bytes::new(),
        };
        attack.say(&[frame]).is_ok()
    });
    assert!(opened.count() < 1_000);
}

#[test]
fn circuits_refused_by_the_thousand_end_the_channel_of_who_does_not_read() {
    let mut attack = Attack::new();
    let opened = (0..100_000u32).take_while(|n| {
        let frame = Frame::Open {
            cid: n * 4 + 2,
            window: 1,
            hide: false,
            to: common::name("carol"),
            first: Bytes::from_static(&[0; 1218]),
        };
        let said = attack.say(&[frame]).is_ok();
        attack
            .session
            .close_circuit(n * 2, Code::TargetOffline, None);
        said
    });
    assert!(opened.count() < 10_000);
}

#[test]
fn acknowledgements_for_a_peer_that_does_not_read_are_not_collected() {
    let mut attack = Attack::new();
    attack.hear();
    for n in 1..=1_000u64 {
        attack
            .say(&[Frame::Stream {
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
        attack
            .say(&[Frame::Data {
                id: 6,
                data: Bytes::from_static(b"x"),
            }])
            .unwrap();
        attack.pass(Duration::from_millis(25));
    }
    let acks = attack
        .hear()
        .into_iter()
        .filter(|f| matches!(f, Frame::Ack(_)))
        .count();
    assert_eq!(acks, 1, "one says it all");
}

#[test]
fn a_closing_session_takes_nothing_more_from_its_peer_and_ends_even_if_that_never_reads() {
    let mut attack = Attack::new();
    attack.hear();
    attack.session.close(Code::KeyMismatch, None);
    attack
        .say(&[Frame::Message {
            id: 4,
            total: 1,
            protocol: "p".into(),
            data: Bytes::from_static(b"x"),
        }])
        .unwrap();
    assert!(
        !attack
            .events
            .iter()
            .any(|e| matches!(e, Event::Message { .. })),
        "a message was taken from a peer that is being shown out"
    );
    for tick in 0..30 {
        attack.say(&[Frame::Ping(tick)]).ok();
        attack.pass(Duration::from_secs(1));
    }
    assert_eq!(attack.ended(), Some(Code::KeyMismatch));
}

#[test]
fn empty_request_cancelled_again_and_again_is_told_once() {
    let mut attack = Attack::new();
    let request = Frame::Request {
        id: 4,
        deadline_ms: 1000,
        total: 0,
        protocol: "p".into(),
        metadata: None,
        data: Bytes::new(),
    };
    attack.say(&[request]).unwrap();
    for _ in 0..10 {
        attack.say(&[Frame::Cancel(4)]).unwrap();
    }
    let told = attack
        .events
        .iter()
        .filter(|e| matches!(e, Event::Cancelled { .. }));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_circuit_message_too_long_to_be_passed_on_ends_the_channel() {
    let mut attack = Attack::new();
    attack
        .say(&[Frame::Open {
            cid: 0,
            window: 1 << 20,
            hide: false,
            to: common::name("carol"),
            first: Bytes::from_static(&[0; 1218]),
        }])
        .unwrap();
    attack
        .session
        .bind_circuit(0, node_core::session::Far::Pipe(1));
    let longest = Bytes::from(vec![0; node_core::session::CIRCUIT_MTU]);
    attack
        .say(&[Frame::CircuitData {
            cid: 0,
            data: longest,
        }])
        .unwrap();
    let longer = Bytes::from(vec![0; node_core::session::CIRCUIT_MTU + 1]);
    let said = attack.say(&[Frame::CircuitData {
        cid: 0,
        data: longer,
    }]);
    assert_eq!(said, Err(Code::FrameMalformed));
}

#[test]
fn an_opening_too_long_to_be_passed_on_ends_the_channel() {
    let mut attack = Attack::new();
    let said = attack.say(&[Frame::Open {
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
    let mut attack = Attack::new();
    attack.say(&[Frame::Close(Code::Closed, None)]).unwrap();
    attack.session.dissolve(Code::Closed, &mut Vec::new());
    let id = attack.session.open_stream("file.1".into(), Bytes::new());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(
        attack.session.read(id, &mut cx),
        Poll::Ready(Err(_))
    ));
}
