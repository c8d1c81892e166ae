//! A session, and a peer with valid keys that says what it likes.

use crate::{
    common::{
        name,
        sessions::{Duel, T0},
    },
    input::Input,
    memory::held,
};
use bytes::Bytes;
use node_core::{
    Code, Limits,
    session::{Event, Far, Request},
    time::Duration,
    wire::frame::{Frame, INBOX_INITIAL, INLINE, Response, ResponseKind, next},
};
use std::task::{Context, Waker};

/// Choices of one run.
const STEPS: usize = 150;
/// Most bytes of one flood: more than any limit below, and no more than a moment's work.
const FLOOD: usize = 200 << 10;

/// Bookkeeping: tables, queues and half-full buffers, beside the bytes that the limits name.
const OVERHEAD: u64 = 640 << 10;

/// Small, so that a peer gets to all of them.
fn limits() -> Limits {
    Limits {
        message_bytes: 96 << 10,
        inbox_bytes: INBOX_INITIAL,
        retained_bytes: 64 << 10,
        outbox_bytes: 128 << 10,
        stream_window: 32 << 10,
        stream_initial: 4 << 10,
        streams: 8,
        requests: 16,
        circuits: 8,
        circuit_window: 32 << 10,
        circuit_opens: 10,
        ..Limits::default()
    }
}

/// What the limits say that a session takes at most, the application included, which holds what it was given.
fn worst(limits: &Limits) -> u64 {
    let long = 2 * limits.message_bytes as u64;
    let queued = (limits.retained_bytes + limits.outbox_bytes) as u64;
    let streams = limits.streams as u64 * (limits.stream_window + limits.stream_initial);
    let circuits = limits.circuits as u64 * limits.circuit_window;
    long + queued + limits.inbox_bytes + streams + circuits
}

/// Whatever a peer says, the session answers, waits or ends; all that it says can be read; it comes to rest; what it says
/// that it holds, and what it really holds, stay within its limits; each thing is told to the application once.
pub(crate) fn run(data: &[u8]) {
    let before = held();
    let limits = limits();
    let worst = worst(&limits);
    let mut input = Input::new(data);
    let mut play = Play {
        duel: Duel::with(limits),
        held: Vec::new(),
        streams: Vec::new(),
        circuits: Vec::new(),
        own: Vec::new(),
        asked: 0,
        ended: Vec::new(),
        item: 4,
        stream: 6,
        circuit: 0,
    };
    for _ in 0..STEPS {
        if input.is_empty() || play.step(&mut input).is_err() {
            break;
        }
        play.listen();
        let claimed = play.duel.session.held_bytes() as u64;
        assert!(
            claimed <= worst,
            "it says that it holds {claimed} of {worst} bytes"
        );
        let held = u64::try_from(held() - before).unwrap_or(0);
        assert!(held <= worst + OVERHEAD, "it holds {held} of {worst} bytes");
    }
    play.over();
}

struct Play {
    duel: Duel,
    /// Requests and messages that the application has been given and not yet answered.
    held: Vec<Event<u64>>,
    /// Streams that the peer opened.
    streams: Vec<u64>,
    /// Circuits that the peer opened.
    circuits: Vec<u32>,
    /// Streams of ours.
    own: Vec<u64>,
    /// Our own requests and messages, by token.
    asked: u64,
    ended: Vec<u64>,
    /// The peer's next numbers.
    item: u64,
    stream: u64,
    circuit: u32,
}

impl Play {
    fn step(&mut self, input: &mut Input<'_>) -> Result<(), Code> {
        let what = input.u8();
        let duel = &mut self.duel;
        let mut cx = Context::from_waker(Waker::noop());
        match what % 16 {
            // Any bytes in a record that opens.
            0 => {
                let length = usize::from(input.u16() & 0xfff);
                return self.say(input.take(length));
            }
            1..=4 => return self.flood(input),
            5 => {
                let ms = u64::from(input.u16());
                self.pass(Duration::from_millis(ms));
            }
            6 => {
                duel.hear();
                let heard = duel.heard;
                if what & 16 != 0 {
                    return duel.say(&[Frame::Ack(heard)]);
                }
            }
            7 => {
                let length = usize::from(input.u16());
                self.answer(length, what >> 4);
            }
            8 => {
                for at in 0..self.streams.len() {
                    let id = self.streams[at];
                    if what & 16 != 0 {
                        duel.session.accept_stream(id);
                    }
                    if what & 32 != 0 {
                        while let std::task::Poll::Ready(Ok(Some(_))) =
                            duel.session.read(id, &mut cx)
                        {}
                    }
                    if what & 64 != 0 {
                        duel.session.release_stream(id);
                    }
                }
                if what & 64 != 0 {
                    self.streams.clear();
                }
            }
            9 => {
                let size = usize::from(input.u16()) * 2;
                let (token, now) = (self.asked, duel.now);
                let deadline = now + Duration::from_secs(1 + u64::from(what >> 4));
                let payload = Bytes::from(vec![1; size]);
                let begun = if what & 128 == 0 {
                    duel.session
                        .request(token, Request::new("p", payload), deadline, now)
                } else {
                    duel.session.message(token, "p".into(), payload, deadline)
                };
                if begun.is_ok() {
                    self.asked += 1;
                }
            }
            10 => {
                if self.own.len() < 4 {
                    self.own
                        .push(duel.session.open_stream("p".into(), Bytes::new()));
                }
                for id in &self.own {
                    let mut piece = Bytes::from(vec![2; usize::from(what >> 4) * 512]);
                    let _ = duel.session.write(*id, &mut piece, &mut cx);
                    if what & 128 != 0 {
                        duel.session.finish(*id);
                    }
                }
            }
            11 => {
                for cid in self.circuits.drain(..) {
                    let far = match what >> 4 & 1 {
                        0 => Far::Pipe(cid.into()),
                        _ => Far::Hop { session: 9, cid },
                    };
                    let _ = duel.session.bind_circuit(cid, far);
                    if what & 32 != 0 {
                        duel.session.close_circuit(cid, Code::QueueFull, None);
                    }
                }
                if what & 64 != 0 && duel.session.circuits() < 8 {
                    let first = Bytes::from(vec![1; 100]);
                    duel.session
                        .open_circuit(name("carol"), false, first, 1, duel.now);
                }
            }
            12 => {
                duel.session.cancel_where(
                    |token| token % 2 == u64::from(what >> 4 & 1),
                    &mut duel.events,
                );
            }
            13 => {
                // One byte is changed on the way: nothing of the record is heard.
                let mut record = duel.seal(&Frame::Ping(1).encode());
                let at = usize::from(input.u16()) % record.len();
                record[at] ^= input.u8().max(1);
                let told = duel.events.len();
                let (now, events) = (duel.now, &mut duel.events);
                let result = duel.session.handle_record(record, now, events);
                assert!(duel.session.is_ended() || result.is_err());
                assert_eq!(duel.events.len(), told);
                return Err(Code::RecordForged);
            }
            14 if what >> 4 == 15 => duel.session.close(Code::Closed, None),
            _ => {
                let shared = what & 16 != 0;
                let record = duel
                    .session
                    .poll_transmit(duel.now, shared, &mut duel.events);
                if let Some(record) = record {
                    let length = record.len();
                    let mut frames = duel.peer.open(record).map_err(|error| error.code)?.freeze();
                    let first = frames.len();
                    let parsed = next(&mut frames).expect("it reads what it writes");
                    // A frame that is longer by itself goes alone, but for what ends a record.
                    let alone = parsed.is_some_and(|(_, taken, _)| first - taken <= 9);
                    assert!(length <= if shared && !alone { 16 << 10 } else { 65_536 });
                }
            }
        }
        Ok(())
    }

    /// Many frames of one kind.
    fn flood(&mut self, input: &mut Input<'_>) -> Result<(), Code> {
        let [kind, count] = input.array();
        let size = usize::from(input.u16());
        let (mut record, mut said) = (Vec::new(), 0);
        for _ in 0..count {
            let frame = self.frame(kind, size, u64::from(input.u8())).encode();
            if record.len() + frame.len() > 65_000 {
                self.say(&std::mem::take(&mut record))?;
            }
            said += frame.len();
            record.extend(frame);
            if kind & 32 != 0 && record.len() < 60_000 {
                // Each in a long record of its own, of which nothing else is worth keeping.
                let rest = 60_000 - record.len() as u16;
                record.push(0x21);
                record.extend(rest.to_be_bytes());
                record.resize(record.len() + usize::from(rest), 0);
                self.say(&std::mem::take(&mut record))?;
            }
            if said > FLOOD {
                break;
            }
        }
        if record.is_empty() {
            Ok(())
        } else {
            self.say(&record)
        }
    }

    fn say(&mut self, frames: &[u8]) -> Result<(), Code> {
        let duel = &mut self.duel;
        let record = duel.seal(frames);
        let (now, events) = (duel.now, &mut duel.events);
        let heard = duel.session.handle_record(record, now, events);
        self.listen();
        heard.map_err(|violation| violation.code)
    }

    /// A frame that may well be in order.
    fn frame(&mut self, kind: u8, size: usize, pick: u64) -> Frame {
        let inline = size.min(INLINE);
        let data = Bytes::from(vec![3; inline]);
        let total = size as u32 * if kind & 128 == 0 { 1 } else { 2 };
        let (total, inlined) = match total as usize {
            short @ ..=INLINE => (short as u32, Bytes::from(vec![3; short])),
            _ => (total, Bytes::new()),
        };
        let theirs = |from: u64, next: u64| from + pick * 4 % (next - from).max(4);
        match kind & 31 {
            0..=2 => {
                self.item += 4;
                Frame::Request {
                    id: self.item - 4,
                    deadline_ms: pick as u32 * 100,
                    total,
                    protocol: "p".into(),
                    metadata: (kind & 64 != 0).then(|| data.slice(..inline.min(16_000))),
                    data: inlined,
                }
            }
            3 | 4 => {
                self.item += 4;
                Frame::Message {
                    id: self.item - 4,
                    total,
                    protocol: "p".into(),
                    data: inlined,
                }
            }
            5 => Frame::More {
                id: theirs(4, self.item),
                data,
            },
            6 => Frame::Cancel(theirs(4, self.item)),
            7 | 8 => {
                self.stream += 4;
                Frame::Stream {
                    id: self.stream - 4,
                    window: size as u64,
                    protocol: "p".into(),
                    metadata: data.slice(..inline.min(16_000)),
                }
            }
            9 => Frame::Data {
                id: theirs(6, self.stream),
                data,
            },
            10 => Frame::Fin(theirs(6, self.stream)),
            11 => Frame::Reset(theirs(6, self.stream), size as u16),
            12 => Frame::Stop(theirs(6, self.stream), size as u16),
            13 => Frame::Credit {
                id: theirs(6, self.stream),
                limit: size as u64,
            },
            14 => Frame::Credit {
                id: 0,
                limit: (size as u64) << 8,
            },
            15 => Frame::Ping(pick),
            16 => Frame::Open {
                cid: {
                    self.circuit += 2;
                    self.circuit - 2
                },
                window: size as u64,
                hide: pick & 1 == 0,
                to: name("carol"),
                first: data.slice(..inline.min(2048)),
            },
            17 => Frame::CircuitData {
                cid: (pick as u32 * 2).min(self.circuit),
                data,
            },
            18 => Frame::CircuitCredit {
                cid: pick as u32,
                limit: size as u64,
            },
            19 => Frame::CircuitClose {
                cid: pick as u32,
                code: 300,
                retry_ms: 0,
            },
            // Our own items and streams: 5, 9 …, 7, 11 ….
            20 => Frame::Response {
                id: 5 + 4 * pick,
                kind: [
                    ResponseKind::Data,
                    ResponseKind::Empty,
                    ResponseKind::Protocol,
                    ResponseKind::Error,
                ][usize::from(kind >> 6)],
                code: 300,
                total,
                data: inlined,
            },
            21 => Frame::Delivered(5 + 4 * pick),
            22 => Frame::Credit {
                id: 5 + 2 * pick,
                limit: size as u64,
            },
            _ => Frame::More {
                id: 5 + 4 * pick,
                data,
            },
        }
    }

    /// Takes what was told since the last time.
    fn listen(&mut self) {
        for event in std::mem::take(&mut self.duel.events) {
            match event {
                Event::Request { .. } | Event::Message { .. } => self.held.push(event),
                Event::Stream(opened) => {
                    assert!(!self.streams.contains(&opened.id));
                    self.streams.push(opened.id);
                }
                Event::CircuitOpen { cid, .. } => self.circuits.push(cid),
                Event::Answered { token, .. }
                | Event::Delivered { token }
                | Event::Failed { token, .. } => {
                    assert!(token < self.asked);
                    assert!(!self.ended.contains(&token), "{token} ended twice");
                    self.ended.push(token);
                }
                _ => {}
            }
        }
    }

    /// The application answers what it has held for longest, or all of it.
    fn answer(&mut self, length: usize, how: u8) {
        let count = if how & 1 == 0 { 1 } else { self.held.len() };
        for event in self.held.drain(..count.min(self.held.len())) {
            let session = &mut self.duel.session;
            match event {
                Event::Request { id, .. } => {
                    let data = Bytes::from(vec![4; length]);
                    session.respond(
                        id,
                        if how & 2 == 0 {
                            Response::Success(Some(data))
                        } else {
                            Response::refuse(Code::QueueFull)
                        },
                    );
                    assert!(
                        !session.respond(id, Response::Success(None)),
                        "answered twice"
                    );
                }
                Event::Message { id, .. } => session.delivered(id),
                _ => {}
            }
        }
    }

    /// Time passes in steps; what is due is done, and is then no longer due.
    fn pass(&mut self, time: Duration) {
        let duel = &mut self.duel;
        let end = duel.now + time;
        for turn in 0.. {
            assert!(turn < 10_000, "it does not come to rest");
            let Some(at) = duel.session.deadline().filter(|at| *at <= end) else {
                break;
            };
            duel.now = duel.now.max(at);
            duel.session.handle_timeout(duel.now, &mut duel.events);
        }
        duel.now = end;
        assert!(duel.now >= T0);
    }

    /// At the end everything that we asked has ended, once.
    fn over(mut self) {
        self.listen();
        let mut events = std::mem::take(&mut self.duel.events);
        let unsent = self.duel.session.dissolve(Code::PipeLost, &mut events);
        self.duel.events = events;
        self.listen();
        for operation in unsent {
            self.ended.push(*operation.token());
        }
        self.ended.sort_unstable();
        assert!(
            self.ended.iter().copied().eq(0..self.asked),
            "{:?} of {} ended",
            self.ended,
            self.asked
        );
    }
}
