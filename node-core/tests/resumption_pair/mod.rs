//! Two sessions whose pipe can be cut between any two records, and who can be given another.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a module that several test binaries share, each using its part"
)]

pub mod ours;

use crate::common::{Actor, connect};
use bytes::{Bytes, BytesMut};
use node_core::{
    Code, Instant, Limits,
    channel::Channel,
    session::{Event, Request, Resumed, Session, SessionConfig},
    time::Duration,
    wire::frame::{Attach, Frame, next},
};
use std::sync::Arc;

pub const T0: Instant = Instant::from_micros(1_000_000);
pub const MTU: usize = 65_536;

pub struct Pair {
    /// The first one began the session.
    pub ends: [Session<u64>; 2],
    pub events: [Vec<Event<u64>>; 2],
    pub now: Instant,
    /// What both ends share since their first channel.
    pub secret: [u8; 32],
    seed: u8,
}

/// What an end says about the session: how far it has received, and how far its peer has acknowledged.
pub struct Offsets {
    pub received: u64,
    pub acknowledged: u64,
}

pub fn actors() -> [Actor; 2] {
    [Actor::named("alice", 1), Actor::named("bob", 2)]
}

pub fn config(limits: &Limits, instance: u8) -> SessionConfig {
    SessionConfig {
        limits: Arc::new(limits.clone()),
        mtu: MTU,
        instance: [instance; 16],
        agent: "test".into(),
        secret: [5; 32].into(),
    }
}

impl Pair {
    pub fn new(limits: &Limits) -> Self {
        let [alice, bob] = actors();
        let (_, dialled, accepted) = connect(&alice, &bob, 7);
        let secret = *dialled.export("session");
        let mut pair = Self {
            secret,
            ends: [
                Session::begin(dialled, config(limits, 1), T0),
                Session::begin(accepted, config(limits, 2), T0),
            ],
            events: [Vec::new(), Vec::new()],
            now: T0,
            seed: 20,
        };
        pair.run();
        pair
    }

    /// Carries one record; false when there is none.
    pub fn carry(&mut self, from: usize) -> bool {
        let record = self.ends[from].poll_transmit(self.now, false, &mut self.events[from]);
        let Some(record) = record else { return false };
        let to = 1 - from;
        self.ends[to]
            .handle_record(record, self.now, &mut self.events[to])
            .unwrap_or_else(|violation| panic!("{from} broke a rule: {violation}"));
        true
    }

    /// Carries records until there are none.
    pub fn run(&mut self) {
        while self.carry(0) | self.carry(1) {}
    }

    /// Takes a record from an end, and loses it.
    pub fn drop_record(&mut self, from: usize) -> bool {
        let record = self.ends[from].poll_transmit(self.now, false, &mut self.events[from]);
        record.is_some()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for end in [0, 1] {
            self.ends[end].handle_timeout(self.now, &mut self.events[end]);
        }
    }

    /// One side notices that the pipe is gone.
    pub fn park(&mut self, end: usize) {
        let unsent = self.ends[end].park(Code::PipeLost, self.now, &mut self.events[end]);
        assert!(unsent.expect("can be parked").is_empty());
    }

    /// Both channels of a new handshake that `from` begins: its own first.
    pub fn channels(&mut self, from: usize) -> (Channel, Channel) {
        self.seed += 2;
        let actors = actors();
        let (_, ours, theirs) = connect(&actors[from], &actors[1 - from], self.seed);
        (ours, theirs)
    }

    pub fn offsets(&mut self, end: usize) -> Offsets {
        let (ours, _) = self.channels(end);
        let attach = self.ends[end].offer(&ours).unwrap();
        Offsets {
            received: attach.recv_off,
            acknowledged: attach.send_off,
        }
    }

    /// The proof that the protocol's text asks of the initiator of `channel`.
    pub fn proof(&self, channel: &Channel, attach: &Attach) -> [u8; 32] {
        let mut fields = vec![attach.status as u8];
        fields.extend(attach.sid);
        fields.extend(attach.attempt.to_be_bytes());
        fields.extend(attach.recv_off.to_be_bytes());
        fields.extend(attach.send_off.to_be_bytes());
        fields.extend(attach.instance);
        let parts: [&[u8]; 4] = [b"nectar/1 attach", &[0], channel.transcript(), &fields];
        *node_core::crypto::hmac(&self.secret, &parts)
    }

    /// The other end hears an ATTACH that asks to go on.
    pub fn present(&mut self, to: usize, channel: Channel, attach: &Attach) -> Resumed {
        self.ends[to].presented(channel, attach, MTU, self.now, &mut self.events[to])
    }

    /// The answer that `from` gives on the other side of `channel` is heard.
    pub fn answer(&mut self, from: usize, mut channel: Channel, attempt: u32) -> Resumed {
        let record = self.ends[from]
            .poll_transmit(self.now, false, &mut self.events[from])
            .expect("an answer");
        let (attach, rest) = opened(&mut channel, record);
        let (to, now) = (1 - from, self.now);
        let events = &mut self.events[to];
        let resumed = self.ends[to].answered(channel, &attach, attempt, MTU, now, events);
        if matches!(resumed, Resumed::Done) {
            self.ends[to].handle_frames(rest, now, events).unwrap();
        }
        resumed
    }

    /// A new channel that `from` begins, over which the session goes on.
    pub fn resume(&mut self, from: usize) {
        let (ours, theirs) = self.channels(from);
        let attach = self.ends[from].offer(&ours).unwrap();
        assert!(matches!(
            self.present(1 - from, theirs, &attach),
            Resumed::Done
        ));
        assert!(matches!(
            self.answer(1 - from, ours, attach.attempt),
            Resumed::Done
        ));
    }

    pub fn ask(&mut self, from: usize, token: u64, payload: Bytes) -> u64 {
        let request = Request::new("echo.1", payload);
        let deadline = self.now + Duration::from_secs(30);
        self.ends[from]
            .request(token, request, deadline, self.now)
            .unwrap()
    }

    pub fn tell(&mut self, from: usize, token: u64, payload: Bytes) -> u64 {
        let deadline = self.now + Duration::from_secs(30);
        self.ends[from]
            .message(token, "chat.1".into(), payload, deadline)
            .unwrap()
    }
}

/// The ATTACH that a record begins with, and what follows it.
pub fn opened(channel: &mut Channel, record: BytesMut) -> (Box<Attach>, Bytes) {
    let mut frames = channel.open(record).unwrap().freeze();
    match next(&mut frames).unwrap() {
        Some((_, _, Some(Frame::Attach(attach)))) => (attach, frames),
        other => panic!("{other:?}"),
    }
}
