//! What an honest pair of sessions must survive: operations in every order, given up at every moment.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::Bytes;
use common::{Actor, connect, name};
use node_core::{
    Code, Instant, Limits,
    session::{CIRCUIT_MTU, Event, Far, Request, Session, SessionConfig, Signal},
    time::Duration,
    wire::frame::{Frame, Response},
};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

const T0: Instant = Instant::from_micros(1_000_000);
const LATER: Duration = Duration::from_secs(9);

struct Pair {
    sides: [Session<u64>; 2],
    events: [Vec<Event<u64>>; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let (_, ours, theirs) = connect(&Actor::named("alice", 1), &Actor::named("bob", 2), 7);
        let config = SessionConfig {
            limits: Arc::new(limits),
            mtu: 65_536,
            instance: [1; 16],
            agent: "test".into(),
        };
        let sides = [
            Session::begin(ours, config.clone(), T0),
            Session::begin(theirs, config, T0),
        ];
        let mut pair = Self {
            sides,
            events: [Vec::new(), Vec::new()],
            now: T0,
        };
        pair.exchange();
        pair.events = [Vec::new(), Vec::new()];
        pair
    }

    /// Carries records both ways until there are none; no record may be refused.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for from in [0, 1] {
                while let Some(record) =
                    self.sides[from].poll_transmit(self.now, false, &mut self.events[from])
                {
                    quiet = false;
                    let to = 1 - from;
                    self.sides[to]
                        .handle_record(record, self.now, &mut self.events[to])
                        .unwrap();
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn ask(&mut self, token: u64, payload: usize) -> u64 {
        let request = Request {
            protocol: "p".into(),
            metadata: None,
            payload: vec![7; payload].into(),
        };
        self.sides[0]
            .request(token, request, self.now + LATER, self.now)
            .unwrap()
    }

    fn requests(&self) -> Vec<u64> {
        let seen = self.events[1].iter().filter_map(|event| match event {
            Event::Request { id, .. } => Some(*id),
            _ => None,
        });
        seen.collect()
    }
}

#[test]
fn requests_and_streams_begun_together_arrive_both() {
    let mut pair = Pair::new();
    for token in 0..5 {
        pair.ask(token, 10);
        pair.sides[0].open_stream("s".into(), Bytes::new());
    }
    pair.exchange();
    assert_eq!(pair.requests().len(), 5);
    assert_eq!(
        pair.events[1]
            .iter()
            .filter(|e| matches!(e, Event::Stream(_)))
            .count(),
        5
    );
}

#[test]
fn a_request_given_up_before_it_left_leaves_no_trace_and_breaks_nothing() {
    let mut pair = Pair::new();
    let first = pair.ask(1, 10);
    pair.ask(2, 10);
    let mut events = Vec::new();
    pair.sides[0].cancel(first, &mut events);
    assert!(matches!(
        events[..],
        [Event::Failed {
            token: 1,
            code: Code::Cancelled
        }]
    ));
    pair.ask(3, 10);
    pair.exchange();
    assert_eq!(pair.requests().len(), 2);
    // Given up after it left, it is cancelled at the other side.
    let id = pair.ask(4, 10);
    pair.exchange();
    pair.sides[0].cancel(id, &mut events);
    pair.exchange();
    assert!(
        pair.events[1]
            .iter()
            .any(|event| matches!(event, Event::Cancelled { id: seen } if *seen == id))
    );
}

#[test]
fn a_request_that_times_out_before_it_left_breaks_nothing() {
    let mut pair = Pair::new();
    pair.ask(1, 10);
    pair.now = pair.now + LATER;
    let now = pair.now;
    pair.sides[0].handle_timeout(now, &mut Vec::new());
    pair.ask(2, 10);
    pair.exchange();
    assert_eq!(pair.requests().len(), 1);
}

#[test]
fn bytes_never_overtake_the_opening_of_their_stream() {
    for metadata in [0, 1000, 16 << 10] {
        let mut pair = Pair::new();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..8 {
            let id = pair.sides[0].open_stream("s".into(), vec![1; metadata].into());
            let mut data = Bytes::from(vec![2; 8 << 10]);
            assert!(pair.sides[0].write(id, &mut data, &mut cx).is_ready());
        }
        pair.exchange();
        assert_eq!(
            pair.events[1]
                .iter()
                .filter(|e| matches!(e, Event::Stream(_)))
                .count(),
            8
        );
    }
}

#[test]
fn streams_that_both_sides_let_go_of_are_forgotten() {
    let mut pair = Pair::new();
    let mut cx = Context::from_waker(Waker::noop());
    for round in 0..200 {
        let id = pair.sides[0].open_stream("s".into(), Bytes::new());
        let mut data = Bytes::from(vec![2; 100]);
        assert!(pair.sides[0].write(id, &mut data, &mut cx).is_ready());
        pair.exchange();
        pair.sides[1].accept_stream(id);
        pair.exchange();
        // In every order: one side drops it early, the other late, finished or not.
        let (first, second) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        if round % 3 == 0 {
            pair.sides[first].finish(id);
            pair.sides[first].detach_stream(id);
        } else {
            pair.sides[first].release_stream(id);
        }
        if round % 4 < 2 {
            pair.exchange();
        }
        pair.sides[second].release_stream(id);
        pair.exchange();
        // Acknowledgements take their time.
        pair.now = pair.now + Duration::from_secs(1);
        for side in [0, 1] {
            let now = pair.now;
            pair.sides[side].handle_timeout(now, &mut Vec::new());
        }
        pair.exchange();
        assert!(
            pair.sides[0].is_idle() && pair.sides[1].is_idle(),
            "round {round}"
        );
    }
}

#[test]
fn a_long_answer_that_nobody_waits_for_is_let_go() {
    let mut pair = Pair::new();
    for token in 0..50 {
        let id = pair.ask(token, 10);
        pair.exchange();
        // The answer's head is on its way when the asking side gives up.
        pair.sides[0].cancel(id, &mut Vec::new());
        assert!(pair.sides[1].respond(id, Response::Success(Some(vec![0; 1 << 20].into()))));
        pair.exchange();
    }
    pair.now = pair.now + Duration::from_secs(1);
    let now = pair.now;
    for side in [0, 1] {
        pair.sides[side].handle_timeout(now, &mut Vec::new());
    }
    pair.exchange();
    assert!(
        pair.sides[1].is_idle(),
        "nothing is kept of 50 MiB of answers"
    );
}

#[test]
fn answers_that_nobody_reads_are_bounded_by_the_outbox() {
    let mut pair = Pair::with(Limits {
        outbox_bytes: 4 << 20,
        ..Limits::default()
    });
    let ids: Vec<u64> = (0..100).map(|token| pair.ask(token, 10)).collect();
    pair.exchange();
    // No record of the answering side is taken any more.
    for id in &ids {
        assert!(pair.sides[1].respond(*id, Response::Success(Some(vec![0; 1 << 20].into()))));
    }
    pair.exchange();
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
                assert_eq!(*code, Code::QueueFull.as_u16());
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
        pair.ask(token, 10);
    }
    pair.exchange();
    assert_eq!(pair.requests().len(), 10);
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
    let first = pair.requests()[0];
    pair.sides[1].respond(first, Response::Success(None));
    pair.ask(99, 10);
    pair.exchange();
    assert_eq!(pair.requests().len(), 11, "a place became free");
}

#[test]
fn who_asked_for_a_circuit_cannot_answer_for_it() {
    let mut pair = Pair::new();
    let cid = pair.sides[0]
        .open_circuit(name("carol"), false, Bytes::from_static(b"m"), 1, T0)
        .unwrap();
    pair.exchange();
    pair.sides[1].bind_circuit(cid, Far::Hop { session: 9, cid: 5 });
    let opened = Frame::Opened {
        cid,
        window: 1 << 40,
    }
    .encode();
    let refused = pair.sides[1]
        .handle_frames(opened.into(), T0, &mut Vec::new())
        .unwrap_err();
    assert_eq!(refused.code, Code::FrameUnexpected);
}

#[test]
fn circuit_data_that_would_fit_no_record_on_its_way_on_is_refused() {
    let mut pair = Pair::new();
    let cid = pair.sides[1]
        .bring_circuit(
            None,
            1 << 20,
            Bytes::from_static(b"m"),
            Far::Hop { session: 1, cid: 0 },
            T0,
        )
        .unwrap();
    pair.exchange();
    pair.sides[0].bind_circuit(cid, Far::Pipe(1));
    pair.exchange();
    pair.sides[0].circuit_signal(cid, Signal::Data(vec![0; CIRCUIT_MTU].into()));
    pair.exchange();
    let longer = Frame::CircuitData {
        cid,
        data: vec![0; CIRCUIT_MTU + 1].into(),
    }
    .encode();
    let refused = pair.sides[1]
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
    let ids = [0, 1].map(|side| pair.sides[side].open_stream("s".into(), Bytes::new()));
    pair.exchange();
    for side in [0, 1] {
        pair.sides[side].accept_stream(ids[1 - side]);
    }
    let mut got = [0usize; 2];
    for _ in 0..200 {
        for side in [0, 1] {
            let mut data = Bytes::from(vec![1; 64 << 10]);
            let _ = pair.sides[side].write(ids[side], &mut data, &mut cx);
        }
        // No time passes: acknowledgements that wait for a timer would stop both sides.
        pair.exchange();
        for side in [0, 1] {
            while let Poll::Ready(Ok(Some(bytes))) = pair.sides[side].read(ids[1 - side], &mut cx) {
                got[side] += bytes.len();
            }
        }
    }
    assert!(got.iter().all(|bytes| *bytes > 8 << 20), "{got:?}");
}
