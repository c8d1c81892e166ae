//! Two honest sessions, and a pipe between them that anything may happen to.

use crate::{
    input::Input,
    resumption_pair::{Pair, opened},
};
use bytes::Bytes;
use node_core::{
    Code, Limits,
    session::{Event, Operation, Request, Resumed},
    time::Duration,
    wire::frame::Response,
};
use std::{
    collections::BTreeMap,
    task::{Context, Poll, Waker},
};

/// Choices of one run.
const STEPS: usize = 300;
/// Handshakes of one run.
const CHANNELS: u8 = 24;

/// Small, so that their edges are reached; keys ratchet often.
fn limits() -> Limits {
    Limits {
        message_bytes: 256 << 10,
        inbox_bytes: 64 << 10,
        retained_bytes: 64 << 10,
        // More than a run says, so that nothing is refused.
        outbox_bytes: 128 << 20,
        stream_window: 32 << 10,
        stream_initial: 4 << 10,
        rekey_bytes: 40_000,
        rekey_after: Duration::from_secs(20),
        renew_after: Duration::from_secs(50),
        session_kept: Duration::from_secs(100_000),
        ..Limits::default()
    }
}

/// Wherever the pipe is cut, and whatever is altered in it: neither says that the other broke a rule, each request is heard
/// and answered exactly once, each message delivered exactly once, and each stream brings its bytes in order and whole.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut life = Life {
        pair: Pair::new(&limits()),
        up: true,
        channels: 0,
        said: BTreeMap::new(),
        unsent: Vec::new(),
        to_answer: [Vec::new(), Vec::new()],
        streams: Vec::new(),
        next: 0,
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        life.step(&mut input);
        life.listen();
    }
    life.settle();
}

/// Something that was asked or told.
struct Said {
    from: usize,
    is_request: bool,
    size: usize,
    answer: usize,
    heard: bool,
    ended: bool,
}

struct Stream {
    from: usize,
    id: u64,
    opened: bool,
    written: usize,
    read: usize,
    finished: bool,
    ended: bool,
}

fn byte(about: u64, at: usize) -> u8 {
    (at as u64 * 31 + about * 7 + (at as u64 >> 8)) as u8
}

fn payload(token: u64, size: usize) -> Bytes {
    let head = token.to_be_bytes();
    head.into_iter()
        .chain((8..size).map(|at| byte(token, at)))
        .collect()
}

struct Life {
    pair: Pair,
    /// Whether what one says reaches the other.
    up: bool,
    channels: u8,
    said: BTreeMap<u64, Said>,
    /// What never left, and waits until there is a pipe.
    unsent: Vec<Operation<u64>>,
    /// What each application has heard and not yet answered: number, token, whether it is a request.
    to_answer: [Vec<(u64, u64, bool)>; 2],
    streams: Vec<Stream>,
    next: u64,
}

impl Life {
    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let side = usize::from(what >> 7);
        let mut cx = Context::from_waker(Waker::noop());
        match what % 16 {
            0..=2 => {
                let (size, answer) = (8 + usize::from(input.u16()) * 3, usize::from(input.u16()));
                self.say(side, what % 16 != 2, size, answer);
            }
            3 if self.up && self.streams.len() < 8 => {
                let id = self.pair.ends[side].open_stream("p".into(), Bytes::new());
                self.streams.push(Stream {
                    from: side,
                    id,
                    opened: false,
                    written: 0,
                    read: 0,
                    finished: false,
                    ended: false,
                });
            }
            4 => {
                let size = usize::from(input.u16());
                for stream in self
                    .streams
                    .iter_mut()
                    .filter(|s| s.from == side && !s.finished)
                {
                    let from = stream.written;
                    let mut piece: Bytes =
                        (from..from + size).map(|at| byte(stream.id, at)).collect();
                    match self.pair.ends[side].write(stream.id, &mut piece, &mut cx) {
                        Poll::Ready(Ok(())) => stream.written += size,
                        Poll::Ready(Err(error)) => panic!("stream {} failed: {error}", stream.id),
                        Poll::Pending => {}
                    }
                }
            }
            5 => {
                if let Some(stream) = self
                    .streams
                    .iter_mut()
                    .find(|s| s.from == side && !s.finished)
                {
                    stream.finished = true;
                    self.pair.ends[side].finish(stream.id);
                }
            }
            6..=8 => {
                for _ in 0..=(what >> 4 & 7) {
                    self.carry(side);
                }
            }
            // What is on its way is lost with the pipe.
            9 => {
                for _ in 0..(what >> 4 & 7) {
                    self.pair.drop_record(side);
                }
                self.cut(side, what & 64 == 0);
            }
            10 => self.resume(side, what >> 4 & 7),
            11 => {
                let time = Duration::from_millis(u64::from(input.u16()));
                self.pair.pass(time);
                for end in [0, 1] {
                    if self.pair.ends[end].is_lost() {
                        self.cut(end, false);
                    }
                }
            }
            12 | 13 => self.answer(side, usize::from(what >> 4 & 7)),
            14 => self.read(side),
            _ => self.alter(side, input),
        }
    }

    fn say(&mut self, from: usize, is_request: bool, size: usize, answer: usize) {
        let token = self.next;
        let (payload, deadline) = (
            payload(token, size),
            self.pair.now + Duration::from_secs(1_000_000),
        );
        let operation = if is_request {
            let request = Request::new("echo.1", payload);
            Operation::Request {
                token,
                request,
                deadline,
            }
        } else {
            let protocol = "chat.1".into();
            Operation::Message {
                token,
                protocol,
                payload,
                deadline,
            }
        };
        if self.up {
            self.send(from, operation);
        } else {
            self.unsent.push(operation);
        }
        self.next += 1;
        let said = Said {
            from,
            is_request,
            size,
            answer,
            heard: false,
            ended: false,
        };
        self.said.insert(token, said);
    }

    fn send(&mut self, from: usize, operation: Operation<u64>) {
        let (end, now) = (&mut self.pair.ends[from], self.pair.now);
        let sent = match operation {
            Operation::Request {
                token,
                request,
                deadline,
            } => end.request(token, request, deadline, now),
            Operation::Message {
                token,
                protocol,
                payload,
                deadline,
            } => end.message(token, protocol, payload, deadline),
            other => panic!("nobody asked for {other:?}"),
        };
        sent.expect("it is taken");
    }

    /// One record goes from one to the other, or nowhere.
    fn carry(&mut self, from: usize) -> bool {
        if self.up {
            self.pair.carry(from)
        } else {
            self.pair.drop_record(from)
        }
    }

    /// One side, or both, notice that the pipe is gone.
    fn cut(&mut self, side: usize, both: bool) {
        self.up = false;
        for end in [side, 1 - side] {
            if (end == side || both) && !self.pair.ends[end].is_parked() {
                let (now, events) = (self.pair.now, &mut self.pair.events[end]);
                let unsent = self.pair.ends[end].park(Code::PipeLost, now, events);
                let unsent = unsent.expect("it can be parked");
                // They may go another way at once: nobody can have heard them.
                self.listen();
                for operation in &unsent {
                    let said = &self.said[operation.token()];
                    assert!(
                        !said.heard,
                        "{} was heard and is said never to have left",
                        operation.token()
                    );
                    assert_eq!(said.from, end);
                }
                self.unsent.extend(unsent);
            }
        }
    }

    /// A new channel, over which `from` asks to go on. What it says, or what is answered, may get lost.
    fn resume(&mut self, from: usize, how: u8) {
        if self.channels >= CHANNELS {
            return;
        }
        if self.up && how >= 4 {
            return self.go_over(from, how);
        }
        if self.up || !self.pair.ends[from].is_parked() {
            return;
        }
        self.channels += 1;
        let (ours, theirs) = self.pair.channels(from);
        let attach = self.pair.ends[from]
            .offer(&ours)
            .expect("not that many attempts");
        if how == 1 {
            return;
        }
        if how == 2 {
            // Both ask at once.
            let (other_ours, other_theirs) = self.pair.channels(1 - from);
            let other = self.pair.ends[1 - from]
                .offer(&other_ours)
                .expect("not that many attempts");
            let first = self.pair.present(1 - from, theirs, &attach);
            let second = self.pair.present(from, other_theirs, &other);
            let went = [&first, &second].map(|resumed| matches!(resumed, Resumed::Done));
            assert_ne!(went, [true, true], "both attempts went on");
            match went {
                [true, _] => self.answered(1 - from, ours, attach.attempt),
                [_, true] => self.answered(from, other_ours, other.attempt),
                _ => {}
            }
            return;
        }
        let presented = self.pair.present(1 - from, theirs, &attach);
        match presented {
            // The answer is lost.
            Resumed::Done if how == 3 => {}
            Resumed::Done => self.answered(1 - from, ours, attach.attempt),
            // Attempts were lost before: the next one is newer.
            Resumed::Stale(mut channel, answer) => {
                let mut record = bytes::BytesMut::from(&[node_core::channel::RECORD][..]);
                record.extend_from_slice(&node_core::wire::frame::Frame::Attach(answer).encode());
                channel.seal(&mut record).expect("it fits");
                let mut ours = ours;
                let (attach_back, _) = opened(&mut ours, record);
                let (now, events) = (self.pair.now, &mut self.pair.events[from]);
                let told = self.pair.ends[from].answered(
                    ours,
                    &attach_back,
                    attach.attempt,
                    65_536,
                    now,
                    events,
                );
                assert!(
                    matches!(told, Resumed::Refused(Code::Duplicate)),
                    "{told:?}"
                );
            }
            Resumed::Refused(code) => panic!("an honest peer is refused: {code}"),
        }
    }

    /// A new channel while the old one still lives: what comes over that meanwhile counts, or is lost with it.
    fn go_over(&mut self, from: usize, how: u8) {
        self.channels += 1;
        let (ours, theirs) = self.pair.channels(from);
        let attach = self.pair.ends[from]
            .offer(&ours)
            .expect("not that many attempts");
        for _ in 0..how & 3 {
            self.pair.carry(1 - from);
            self.pair.carry(from);
        }
        self.listen();
        let presented = self.pair.present(1 - from, theirs, &attach);
        assert!(matches!(presented, Resumed::Done), "{presented:?}");
        self.pair.drop_record(from);
        self.answered(1 - from, ours, attach.attempt);
    }

    /// The answer of `from` is heard on the other side of its new channel.
    fn answered(&mut self, from: usize, channel: node_core::channel::Channel, attempt: u32) {
        let resumed = self.pair.answer(from, channel, attempt);
        assert!(matches!(resumed, Resumed::Done), "{resumed:?}");
        self.up = true;
        self.listen();
        for operation in std::mem::take(&mut self.unsent) {
            let from = self.said[operation.token()].from;
            self.send(from, operation);
        }
    }

    /// A record is altered on its way: nothing of it is heard, and the pipe is given up.
    fn alter(&mut self, from: usize, input: &mut Input<'_>) {
        let (at, with) = (usize::from(input.u16()), input.u8().max(1));
        if !self.up {
            return;
        }
        let Pair {
            ends, events, now, ..
        } = &mut self.pair;
        let Some(mut record) = ends[from].poll_transmit(*now, false, &mut events[from]) else {
            return;
        };
        let at = at % record.len();
        record[at] ^= with;
        let (to, told) = (1 - from, events[1 - from].len());
        let received = ends[to].handle_record(record, *now, &mut events[to]);
        assert!(received.is_err(), "an altered record was heard");
        assert_eq!(
            events[to].len(),
            told,
            "of an altered record something was heard"
        );
        self.cut(to, true);
    }

    /// Takes what both sides were told.
    fn listen(&mut self) {
        for side in [0, 1] {
            for event in std::mem::take(&mut self.pair.events[side]) {
                match event {
                    Event::Request { id, request, .. } => {
                        self.hear(side, id, &request.payload, true)
                    }
                    Event::Message { id, payload, .. } => self.hear(side, id, &payload, false),
                    Event::Answered { token, response } => {
                        let said = self.end(side, token);
                        assert!(said.is_request && said.heard);
                        let Response::Success(Some(data)) = response else {
                            panic!("{token} was answered with {response:?}")
                        };
                        assert_eq!(data, payload(token, 8 + said.answer));
                    }
                    Event::Delivered { token } => {
                        let said = self.end(side, token);
                        assert!(!said.is_request && said.heard);
                    }
                    Event::Failed { token, code, .. } => panic!("{token} failed: {code}"),
                    Event::Stream(opened) => {
                        let found = self
                            .streams
                            .iter_mut()
                            .find(|s| (s.from, s.id) == (1 - side, opened.id));
                        let stream = found.expect("a stream that was opened");
                        assert!(!std::mem::replace(&mut stream.opened, true), "opened twice");
                        self.pair.ends[side].accept_stream(opened.id);
                    }
                    Event::Ended { code, .. } => panic!("the session ended: {code}"),
                    Event::Attached { .. }
                    | Event::RoundTrip(_)
                    | Event::PipeWanted
                    | Event::Grown
                    | Event::Lost(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn hear(&mut self, side: usize, id: u64, heard: &Bytes, is_request: bool) {
        let token = u64::from_be_bytes(heard[..8].try_into().expect("eight bytes"));
        let said = self.said.get_mut(&token).expect("somebody said it");
        assert_eq!((said.from, said.is_request), (1 - side, is_request));
        assert!(
            !std::mem::replace(&mut said.heard, true),
            "{token} was heard twice"
        );
        assert_eq!(*heard, payload(token, said.size));
        self.to_answer[side].push((id, token, is_request));
    }

    fn end(&mut self, side: usize, token: u64) -> &Said {
        let said = self.said.get_mut(&token).expect("somebody said it");
        assert_eq!(said.from, side);
        assert!(
            !std::mem::replace(&mut said.ended, true),
            "{token} ended twice"
        );
        said
    }

    fn answer(&mut self, side: usize, most: usize) {
        let count = self.to_answer[side].len().min(1 + most);
        for (id, token, is_request) in self.to_answer[side].drain(..count) {
            let end = &mut self.pair.ends[side];
            if is_request {
                let data = payload(token, 8 + self.said[&token].answer);
                assert!(end.respond(id, Response::Success(Some(data))));
            } else {
                end.delivered(id);
            }
        }
    }

    fn read(&mut self, side: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        for stream in self
            .streams
            .iter_mut()
            .filter(|s| s.from != side && s.opened && !s.ended)
        {
            loop {
                match self.pair.ends[side].read(stream.id, &mut cx) {
                    Poll::Ready(Ok(Some(bytes))) => {
                        for found in bytes {
                            assert_eq!(found, byte(stream.id, stream.read), "in order");
                            stream.read += 1;
                        }
                    }
                    Poll::Ready(Ok(None)) => {
                        stream.ended = true;
                        break;
                    }
                    Poll::Ready(Err(error)) => panic!("stream {} failed: {error}", stream.id),
                    Poll::Pending => break,
                }
            }
            assert!(stream.read <= stream.written);
        }
    }

    /// The pipe holds from now on; everything comes to its end.
    fn settle(&mut self) {
        self.channels = 0;
        for turn in 0.. {
            assert!(turn < 2_000, "it does not come to its end");
            if !self.up {
                for end in [0, 1] {
                    self.cut(end, false);
                }
                self.resume(0, 0);
                if !self.up {
                    // Attempts of the other side had gone further.
                    self.resume(1, 0);
                }
                self.listen();
                assert!(self.channels < CHANNELS, "it cannot be taken up again");
            }
            while self.pair.carry(0) | self.pair.carry(1) {
                self.listen();
            }
            let idle = self.to_answer.iter().all(Vec::is_empty);
            for side in [0, 1] {
                self.answer(side, usize::MAX - 1);
                self.read(side);
            }
            if idle
                && self.said.values().all(|said| said.ended)
                && self.streams.iter().all(Stream::is_whole)
            {
                break;
            }
            self.pair.pass(Duration::from_millis(50));
            self.listen();
        }
        for (token, said) in &self.said {
            assert!(said.heard && said.ended, "{token}");
        }
    }
}

impl Stream {
    fn is_whole(&self) -> bool {
        self.opened && self.read == self.written && self.ended == self.finished
    }
}
