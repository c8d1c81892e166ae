//! Sessions that go on over another channel, wherever the first was cut: nothing is lost, nothing comes twice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod resumption_pair;

use bytes::Bytes;
use node_core::{
    Limits,
    session::{CIRCUIT_MTU, Event},
    time::Duration,
    wire::frame::Response,
};
use resumption_pair::Pair;
use std::{
    collections::HashMap,
    task::{Context, Poll, Waker},
};

const LENGTHS: [usize; 6] = [0, 5, 40_000, 32 << 10, 900, 120_000];
const STREAM: usize = 150_000;

fn payload(token: u64) -> Bytes {
    let length = LENGTHS[token as usize % LENGTHS.len()];
    Bytes::from(vec![token as u8; length])
}

fn stream_byte(at: usize) -> u8 {
    ((at * 31) >> 4) as u8
}

/// Both sides ask, tell and stream, and count what they hear.
struct Life {
    pair: Pair,
    stream: u64,
    written: usize,
    read: Vec<u8>,
    accepted: bool,
    /// How often each operation of one side was heard at the other, and how often it ended.
    heard: [HashMap<u64, usize>; 2],
    ended: [HashMap<u64, usize>; 2],
    messages: [Vec<u8>; 2],
}

impl Life {
    fn new() -> Self {
        let mut pair = Pair::new(&Limits::default());
        for token in 0..6 {
            for from in [0, 1] {
                pair.ask(from, token, payload(token));
                pair.tell(from, 100 + token, Bytes::from(vec![token as u8; 50]));
            }
        }
        let stream = pair.ends[0].open_stream("file.1".into(), Bytes::new());
        pair.events = [Vec::new(), Vec::new()];
        Self {
            pair,
            stream,
            written: 0,
            read: Vec::new(),
            accepted: false,
            heard: Default::default(),
            ended: Default::default(),
            messages: Default::default(),
        }
    }

    /// What both applications do about what has happened.
    fn work(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for end in [0, 1] {
            for event in std::mem::take(&mut self.pair.events[end]) {
                let session = &mut self.pair.ends[end];
                match event {
                    Event::Request { id, request, .. } => {
                        *self.heard[end].entry(id).or_default() += 1;
                        assert!(session.respond(id, Response::Success(Some(request.payload))));
                    }
                    Event::Message { id, payload, .. } => {
                        *self.heard[end].entry(id).or_default() += 1;
                        self.messages[end].push(payload[0]);
                        session.delivered(id);
                    }
                    Event::Stream(opened) => {
                        assert!(!self.accepted, "opened once");
                        assert_eq!(opened.id, self.stream);
                        self.accepted = true;
                        session.accept_stream(opened.id);
                    }
                    Event::Answered { token, response } => {
                        assert_eq!(response, Response::Success(Some(payload(token))));
                        *self.ended[end].entry(token).or_default() += 1;
                    }
                    Event::Delivered { token } => *self.ended[end].entry(token).or_default() += 1,
                    Event::RoundTrip(_) | Event::Attached { .. } => {}
                    other => panic!("{end} heard {other:?}"),
                }
            }
        }
        while self.written < STREAM {
            let end = (self.written + 7_000).min(STREAM);
            let mut piece: Bytes = (self.written..end).map(stream_byte).collect();
            match self.pair.ends[0].write(self.stream, &mut piece, &mut cx) {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => break,
            }
            self.written = end;
            if end == STREAM {
                self.pair.ends[0].finish(self.stream);
            }
        }
        if self.accepted {
            while let Poll::Ready(Ok(Some(bytes))) = self.pair.ends[1].read(self.stream, &mut cx) {
                self.read.extend_from_slice(&bytes);
            }
        }
    }

    /// Carries records in turn, at most so many each way; whether something was carried.
    fn carry(&mut self, mut there: usize, mut back: usize) -> bool {
        let mut any = false;
        loop {
            self.work();
            let first = there > 0 && self.pair.carry(0);
            self.work();
            let second = back > 0 && self.pair.carry(1);
            there -= usize::from(first);
            back -= usize::from(second);
            if !first && !second {
                return any;
            }
            any = true;
        }
    }

    fn finish(mut self, what: &str) {
        loop {
            let carried = self.carry(usize::MAX, usize::MAX);
            let before = self.ended[0].len() + self.ended[1].len() + self.read.len();
            self.pair.pass(Duration::from_millis(25));
            let after = self.carry(usize::MAX, usize::MAX);
            let now = self.ended[0].len() + self.ended[1].len() + self.read.len();
            if !carried && !after && before == now {
                break;
            }
        }
        for end in [0, 1] {
            assert_eq!(
                self.heard[end].len(),
                12,
                "{what}: all of {end}'s were heard"
            );
            assert_eq!(self.ended[end].len(), 12, "{what}: all of {end}'s ended");
            assert!(self.heard[end].values().all(|times| *times == 1), "{what}");
            assert!(self.ended[end].values().all(|times| *times == 1), "{what}");
            assert_eq!(self.messages[end], [0, 1, 2, 3, 4, 5], "{what}: in order");
        }
        assert_eq!(self.read.len(), STREAM, "{what}");
        assert!(
            self.read
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == stream_byte(at))
        );
        assert!(
            self.pair.ends[0].held_bytes() < 64 << 10,
            "what was acknowledged is let go of"
        );
    }
}

#[test]
fn wherever_the_pipe_is_cut_nothing_is_lost_and_nothing_comes_twice() {
    for there in [0, 1, 2, 3, 4, 6, 9, 13] {
        for back in [0, 1, 2, 4, 7] {
            for (lost_there, lost_back) in [(0, 0), (1, 0), (9, 9)] {
                let mut life = Life::new();
                life.carry(there, back);
                for _ in 0..lost_there {
                    life.pair.drop_record(0);
                }
                for _ in 0..lost_back {
                    life.pair.drop_record(1);
                }
                let what = format!(
                    "{there} records there, {back} back, {lost_there} and {lost_back} lost"
                );
                lose_pipe(&mut life.pair);
                life.pair.resume((there + back) % 2);
                life.finish(&what);
            }
        }
    }
}

/// Both sides notice that the pipe is gone. Requests that never left go over the next session: here over the same one, with
/// new numbers.
fn lose_pipe(pair: &mut Pair) {
    for end in [0, 1] {
        let Pair {
            ends, events, now, ..
        } = pair;
        let unsent = ends[end].park(node_core::Code::PipeLost, *now, &mut events[end]);
        for operation in unsent.unwrap() {
            again(pair, end, operation);
        }
    }
}

fn again(pair: &mut Pair, end: usize, operation: node_core::session::Operation<u64>) {
    use node_core::session::Operation;
    let now = pair.now;
    let session = &mut pair.ends[end];
    let done = match operation {
        Operation::Request {
            token,
            request,
            deadline,
        } => session.request(token, request, deadline, now),
        Operation::Message {
            token,
            protocol,
            payload,
            deadline,
        } => session.message(token, protocol, payload, deadline),
        other => panic!("{other:?}"),
    };
    done.unwrap();
}

#[test]
fn a_session_that_is_cut_again_and_again_loses_nothing() {
    for seed in 0..8_usize {
        let mut life = Life::new();
        for round in 0..25 {
            life.carry((seed + round) % 4, (seed * 3 + round) % 5);
            for _ in 0..round % 3 {
                life.pair.drop_record(round % 2);
            }
            lose_pipe(&mut life.pair);
            life.pair.resume((seed + round) % 2);
        }
        life.finish(&format!("seed {seed}"));
    }
}

#[test]
fn a_session_moves_to_another_channel_while_the_old_one_still_carries_records() {
    for late in [0, 1, 3] {
        let mut life = Life::new();
        life.carry(3, 3);
        // The offer is on its way while the old channel goes on, in both directions.
        let (ours, theirs) = life.pair.channels(0);
        let attach = life.pair.ends[0].offer(&ours).unwrap();
        life.carry(late, late);
        assert!(matches!(
            life.pair.present(1, theirs, &attach),
            node_core::session::Resumed::Done
        ));
        assert!(matches!(
            life.pair.answer(1, ours, attach.attempt),
            node_core::session::Resumed::Done
        ));
        life.finish(&format!("{late} records after the offer"));
    }
}

#[test]
fn every_session_frame_fits_a_circuit_when_it_is_sent_again() {
    let mut pair = Pair::new(&Limits::default());
    let stream = pair.ends[0].open_stream("file.1".into(), Bytes::new());
    pair.run();
    pair.ends[1].accept_stream(stream);
    pair.run();
    let mut cx = Context::from_waker(Waker::noop());
    let mut data = Bytes::from(vec![1; 200_000]);
    assert!(pair.ends[0].write(stream, &mut data, &mut cx).is_ready());
    while pair.drop_record(0) {}
    pair.park(0);
    pair.park(1);
    let (ours, theirs) = pair.channels(0);
    let attach = pair.ends[0].offer(&ours).unwrap();
    let now = pair.now;
    let [first, second] = &mut pair.ends;
    second.presented(theirs, &attach, CIRCUIT_MTU, now, &mut Vec::new());
    let mut ours = ours;
    let record = second.poll_transmit(now, false, &mut Vec::new()).unwrap();
    let (answer, _) = resumption_pair::opened(&mut ours, record);
    first.answered(
        ours,
        &answer,
        attach.attempt,
        CIRCUIT_MTU,
        now,
        &mut Vec::new(),
    );
    let mut sent = 0;
    while let Some(record) = first.poll_transmit(now, false, &mut Vec::new()) {
        assert!(record.len() <= CIRCUIT_MTU, "{} bytes", record.len());
        sent += record.len();
        second.handle_record(record, now, &mut Vec::new()).unwrap();
    }
    assert!(sent > 200_000, "{sent}");
}

#[test]
fn a_parked_session_holds_what_it_says_and_is_let_go_of_when_its_time_is_over() {
    let mut pair = Pair::new(&Limits::default());
    pair.tell(0, 1, Bytes::from(vec![1; 30_000]));
    pair.drop_record(0);
    let held = pair.ends[0].held_bytes();
    assert!((30_000..32_000).contains(&held), "{held}");
    pair.park(0);
    assert_eq!(
        pair.ends[0].deadline(),
        Some(pair.now + Duration::from_secs(30)),
        "the message's own"
    );
    pair.pass(Duration::from_secs(30));
    assert_eq!(
        pair.ends[0].deadline(),
        Some(resumption_pair::T0 + Limits::default().session_kept)
    );
    pair.pass(Duration::from_secs(30));
    assert!(pair.ends[0].is_ended());
}
