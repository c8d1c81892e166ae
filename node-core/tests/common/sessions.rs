//! Sessions on channels that are really encrypted: two honest ones, or one and a peer that says what it likes.

use super::{Actor, connect};
use bytes::{Bytes, BytesMut};
use node_core::{
    Code, Instant, Limits,
    channel::{Channel, RECORD},
    session::{Event, Request, Session, SessionConfig},
    time::Duration,
    wire::frame::{Attach, AttachStatus, Frame, is_session, next},
};
use std::sync::Arc;

/// When sessions begin.
pub const T0: Instant = Instant::from_micros(1_000_000);

pub fn config(limits: Limits, instance: u8) -> SessionConfig {
    SessionConfig {
        limits: Arc::new(limits),
        mtu: 65_536,
        instance: [instance; 16],
        agent: "test".into(),
        secret: [5; 32].into(),
    }
}

/// What a peer says first on a channel that is new to both.
pub fn attach(channel: &Channel) -> Attach {
    let mut sid = [0; 16];
    sid.copy_from_slice(&channel.export("session id")[..16]);
    Attach {
        status: AttachStatus::Fresh,
        sid,
        attempt: 0,
        recv_off: 0,
        send_off: 0,
        instance: [9; 16],
        proof: [0; 32],
        agent: "".into(),
    }
}

pub fn bytes(length: usize) -> Bytes {
    Bytes::from(vec![7; length])
}

/// Two sessions on one channel; the first one dialled.
pub struct Pair {
    pub ends: [Session<u64>; 2],
    pub events: [Vec<Event<u64>>; 2],
    pub now: Instant,
}

impl Pair {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let mut pair = Self::half_attached(limits);
        pair.run();
        pair.events = [Vec::new(), Vec::new()];
        pair
    }

    /// The first one has said its ATTACH, and has not heard the other's.
    pub fn half_attached(limits: Limits) -> Self {
        let (_, dialled, mut accepted) =
            connect(&Actor::named("alice", 1), &Actor::named("bob", 2), 7);
        let mut events = [Vec::new(), Vec::new()];
        let mut first = Session::begin(dialled, config(limits.clone(), 1), T0);
        // Its ATTACH is read by whoever accepts: here that is us.
        let record = first.poll_transmit(T0, false, &mut events[0]).unwrap();
        let mut frames = accepted.open(record).unwrap().freeze();
        let Some((_, _, Some(Frame::Attach(attach)))) = next(&mut frames).unwrap() else {
            panic!("a session begins with ATTACH")
        };
        let second = Session::accept(accepted, config(limits, 2), &attach, T0, &mut events[1]);
        Self {
            ends: [first, second.unwrap()],
            events,
            now: T0,
        }
    }

    /// Carries records until neither has any more. None may be refused.
    pub fn run(&mut self) {
        while (self.carry(0), self.carry(1)) != (0, 0) {}
    }

    /// Carries what one end has to say; how many records that was.
    pub fn carry(&mut self, from: usize) -> usize {
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

    /// Time passes at once; what is due is done, and carried.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for end in [0, 1] {
            self.ends[end].handle_timeout(self.now, &mut self.events[end]);
        }
        self.run();
    }

    pub fn request(&mut self, from: usize, token: u64, payload: Bytes, deadline: Duration) -> u64 {
        let request = Request::new("echo.1", payload);
        self.ends[from]
            .request(token, request, self.now + deadline, self.now)
            .unwrap()
    }

    pub fn message(&mut self, from: usize, token: u64, payload: Bytes) -> Result<u64, (u64, Code)> {
        let deadline = self.now + Duration::from_secs(30);
        self.ends[from].message(token, "chat.1".into(), payload, deadline)
    }

    /// Numbers of the requests that `end` was asked.
    pub fn asked(&self, end: usize) -> Vec<u64> {
        let ids = self.events[end].iter().filter_map(|event| match event {
            Event::Request { id, .. } => Some(*id),
            _ => None,
        });
        ids.collect()
    }

    /// Numbers of the messages that `end` was sent.
    pub fn told(&self, end: usize) -> Vec<u64> {
        let ids = self.events[end].iter().filter_map(|event| match event {
            Event::Message { id, .. } => Some(*id),
            _ => None,
        });
        ids.collect()
    }

    /// How many streams `end` was offered.
    pub fn offered(&self, end: usize) -> usize {
        let streams = self.events[end].iter();
        streams.filter(|e| matches!(e, Event::Stream(_))).count()
    }
}

/// A session under test, and a peer with valid keys that says what it likes and reads when it likes.
///
/// The peer dialled: its items are 4, 8, 12 …, its streams 6, 10, 14 …, its circuits 0, 2, 4 ….
pub struct Duel {
    pub session: Session<u64>,
    pub peer: Channel,
    pub events: Vec<Event<u64>>,
    pub now: Instant,
    /// Bytes of numbered frames that the peer has heard: what it may acknowledge.
    pub heard: u64,
}

impl Duel {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let (_, peer, ours) = connect(&Actor::named("mallory", 1), &Actor::named("bob", 2), 7);
        let (mut events, attach) = (Vec::new(), attach(&peer));
        let session = Session::accept(ours, config(limits, 1), &attach, T0, &mut events).unwrap();
        let mut duel = Self {
            session,
            peer,
            events,
            now: T0,
            heard: 0,
        };
        duel.hear();
        duel
    }

    pub fn seal(&mut self, frames: &[u8]) -> BytesMut {
        let mut record = BytesMut::from(&[RECORD][..]);
        record.extend_from_slice(frames);
        self.peer.seal(&mut record).unwrap();
        record
    }

    pub fn say(&mut self, frames: &[Frame]) -> Result<(), Code> {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let record = self.seal(&bytes);
        self.session
            .handle_record(record, self.now, &mut self.events)
            .map_err(|violation| violation.code)
    }

    /// Everything that the session sends now.
    pub fn hear(&mut self) -> Vec<Frame> {
        let mut heard = Vec::new();
        while let Some(record) = self
            .session
            .poll_transmit(self.now, false, &mut self.events)
        {
            let mut frames = self.peer.open(record).unwrap().freeze();
            while let Some((_, _, frame)) = next(&mut frames).unwrap() {
                let Some(frame) = frame else { continue };
                let encoded = frame.encode();
                if is_session(encoded[0]) {
                    self.heard += encoded.len() as u64;
                }
                heard.push(frame);
            }
        }
        heard
    }

    /// Time passes in steps; what is due is done.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.session.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now, &mut self.events);
        }
        self.now = end;
    }

    /// Why the session ended, or lost its pipe.
    pub fn ended(&self) -> Option<Code> {
        self.events.iter().find_map(|event| match event {
            Event::Ended { code, .. } | Event::Lost(code) => Some(*code),
            _ => None,
        })
    }

    pub fn request(id: u64, payload: &[u8]) -> Frame {
        Frame::Request {
            id,
            deadline_ms: 1000,
            total: payload.len() as u32,
            protocol: "echo.1".into(),
            metadata: None,
            data: Bytes::copy_from_slice(payload),
        }
    }

    /// The opening of a stream that promises nothing in the other direction.
    pub fn stream(id: u64) -> Frame {
        Frame::Stream {
            id,
            window: 0,
            protocol: "p".into(),
            metadata: Bytes::new(),
        }
    }
}
