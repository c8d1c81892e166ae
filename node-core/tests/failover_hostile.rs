//! One node, and peers who speak to it record by record: who gets a session that waits, or lives, and who does not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod resumption_pair;

use bytes::{Bytes, BytesMut};
use common::{Actor, NOW};
use node_core::{
    Code, Instant, Limits, Now,
    channel::{Channel, RECORD},
    node::{Node, NodeConfig, Output, Pipe},
    registry::RegistryConfig,
    session::{Event, Resumed, Session},
    time::Duration,
    wire::frame::{Attach, AttachStatus, Frame, Response, next},
};
use resumption_pair::{MTU, config, opened};
use std::task::Waker;

/// bob's node, which knows alice, carol and itself.
struct Bob {
    node: Node<u64>,
    actor: Actor,
    now: Instant,
    seed: u8,
    closed: Vec<(u64, Code)>,
    requests: Vec<node_core::node::Incoming<u64>>,
}

impl Bob {
    fn new() -> Self {
        let actor = Actor::named("bob", 2);
        let mut node = NodeConfig::new(actor.local.identity.clone());
        node.registries = vec![RegistryConfig {
            id: common::REGISTRY,
            tld: "nectar".into(),
            rpcs: Vec::new(),
            quorum: None,
        }];
        for (label, secret) in [("alice", 1), ("bob", 2), ("carol", 3)] {
            let known = Actor::named(label, secret);
            let mut record = nectar_sim::indirect(label, &[]);
            record.key = known.key();
            node.pinned.push((known.name(), record));
        }
        Self {
            node: Node::new(node, [9; 32]).unwrap(),
            actor,
            now: Instant::from_micros(1_000_000),
            seed: 0,
            closed: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: self.now,
            wall: NOW,
        }
    }

    fn act(&mut self, work: impl FnOnce(&Node<u64>, Now, &mut Vec<Output<u64>>)) {
        let mut out = Vec::new();
        work(&self.node, self.now(), &mut out);
        while !out.is_empty() {
            match out.remove(0) {
                Output::Sign { pipe, request } => {
                    let signature = Some(self.actor.sign(&request));
                    self.node.signed(&pipe, signature, self.now(), &mut out);
                }
                Output::Close { pipe, code } => self.closed.push((pipe.id(), code)),
                Output::Request(request) => self.requests.push(request),
                _ => {}
            }
        }
    }

    fn hear(&mut self, pipe: &Pipe<u64>, message: impl Into<Bytes>) {
        let message = message.into();
        self.act(|node, now, out| node.handle_message(pipe, message, now, out));
    }

    fn say(&mut self, pipe: &Pipe<u64>) -> Option<Bytes> {
        let mut said = None;
        self.act(|node, now, out| said = node.poll_transmit(pipe, Waker::noop(), now, out));
        said
    }

    /// A whole handshake that `peer` begins.
    fn meet(&mut self, peer: &Actor) -> (Pipe<u64>, Channel) {
        self.seed = self.seed.wrapping_add(1);
        let pipe = self.node.accept(u64::from(self.seed), self.now()).unwrap();
        let (dialling, message1) = peer.dial(&self.actor, self.seed);
        self.hear(&pipe, message1);
        let message2 = self.say(&pipe).expect("message 2");
        let (message3, channel) = peer.conclude(dialling, &message2).unwrap();
        self.hear(&pipe, message3);
        (pipe, channel)
    }

    fn tell(&mut self, pipe: &Pipe<u64>, channel: &mut Channel, frame: &Frame) {
        let mut record = BytesMut::from(&[RECORD][..]);
        record.extend_from_slice(&frame.encode());
        channel.seal(&mut record).unwrap();
        self.hear(pipe, record.freeze());
    }

    /// The first frame of what the node says next.
    fn answer(&mut self, pipe: &Pipe<u64>, channel: &mut Channel) -> Option<Frame> {
        let record = BytesMut::from(&self.say(pipe)?[..]);
        let mut frames = channel.open(record).unwrap().freeze();
        next(&mut frames).unwrap()?.2
    }

    fn carry(&mut self, pipe: &Pipe<u64>, peer: &mut Session<u64>, events: &mut Vec<Event<u64>>) {
        loop {
            let mut quiet = true;
            while let Some(record) = peer.poll_transmit(self.now, false, events) {
                quiet = false;
                self.hear(pipe, record.freeze());
            }
            while let Some(record) = self.say(pipe) {
                quiet = false;
                peer.handle_record(BytesMut::from(&record[..]), self.now, events)
                    .unwrap();
            }
            if quiet {
                return;
            }
        }
    }

    /// alice's session, attached, with a request that bob has and has not answered.
    fn with_alice(&mut self) -> (Pipe<u64>, Session<u64>, Vec<Event<u64>>) {
        let (pipe, channel) = self.meet(&Actor::named("alice", 1));
        let mut session = Session::begin(channel, config(&Limits::default(), 7), self.now);
        let mut events = Vec::new();
        self.carry(&pipe, &mut session, &mut events);
        let request = node_core::session::Request::new("echo.1", b"?".as_slice());
        let deadline = self.now + Duration::from_secs(500);
        session.request(5, request, deadline, self.now).unwrap();
        self.carry(&pipe, &mut session, &mut events);
        assert_eq!(self.requests.len(), 1);
        (pipe, session, events)
    }

    fn lose(&mut self, pipe: &Pipe<u64>) {
        self.act(|node, now, out| node.closed(pipe, Code::PipeLost, now, out));
        assert_eq!(self.node.counts().parked, 1);
    }

    /// alice comes back and gets her answer.
    fn alice_goes_on(mut self, mut session: Session<u64>) {
        let now = self.now;
        if !session.is_parked() {
            session.park(Code::PipeLost, now, &mut Vec::new()).unwrap();
        }
        let (pipe, mut channel) = self.meet(&Actor::named("alice", 1));
        let attach = session.offer(&channel).unwrap();
        let attempt = attach.attempt;
        self.tell(&pipe, &mut channel, &Frame::Attach(Box::new(attach)));
        let record = BytesMut::from(&self.say(&pipe).expect("an answer")[..]);
        let (answer, rest) = opened(&mut channel, record);
        let mut events = Vec::new();
        assert!(matches!(
            session.answered(channel, &answer, attempt, MTU, now, &mut events),
            Resumed::Done
        ));
        session.handle_frames(rest, now, &mut events).unwrap();
        let request = self.requests.pop().unwrap();
        assert!(request.respond(Response::Success(None)));
        self.carry(&pipe, &mut session, &mut events);
        let answered = |event: &Event<u64>| matches!(event, Event::Answered { token: 5, .. });
        assert_eq!(events.iter().filter(|event| answered(event)).count(), 1);
        assert!(self.requests.is_empty(), "asked once");
    }
}

fn resume(sid: [u8; 16]) -> Attach {
    Attach {
        status: AttachStatus::Resume,
        sid,
        attempt: 1,
        recv_off: 0,
        send_off: 0,
        instance: [7; 16],
        proof: [3; 32],
        agent: "".into(),
    }
}

#[test]
fn to_another_name_a_session_is_unknown_whether_it_waits_or_lives() {
    for lives in [true, false] {
        let mut bob = Bob::new();
        let (pipe, session, _) = bob.with_alice();
        if !lives {
            bob.lose(&pipe);
        }
        let (theirs, mut channel) = bob.meet(&Actor::named("carol", 3));
        let attach = Frame::Attach(Box::new(resume(*session.id())));
        bob.tell(&theirs, &mut channel, &attach);
        let Some(Frame::Attach(answer)) = bob.answer(&theirs, &mut channel) else {
            panic!("an answer")
        };
        assert_eq!(answer.status, AttachStatus::Unknown);
        assert_eq!(
            (answer.recv_off, answer.send_off),
            (0, 0),
            "it says nothing of the session"
        );
        // Asking twice is not asking.
        bob.tell(&theirs, &mut channel, &attach);
        assert!(bob.closed.contains(&(theirs.id(), Code::AttachRefused)));
        bob.alice_goes_on(session);
    }
}

#[test]
fn a_thousand_attempts_without_the_secret_change_nothing_and_leave_nothing() {
    let mut bob = Bob::new();
    let (pipe, session, _) = bob.with_alice();
    bob.lose(&pipe);
    // alice's key was stolen, and the thief comes again and again.
    for attempt in 0..1000 {
        let (theirs, mut channel) = bob.meet(&Actor::named("alice", 1));
        let attach = Attach {
            attempt: attempt * 1_000_000,
            proof: [attempt as u8; 32],
            ..resume(*session.id())
        };
        bob.tell(&theirs, &mut channel, &Frame::Attach(Box::new(attach)));
        assert_eq!(bob.closed.pop(), Some((theirs.id(), Code::AttachRefused)));
    }
    let counts = bob.node.counts();
    assert_eq!((counts.sessions, counts.parked), (0, 1));
    assert_eq!((counts.half_open, counts.inbound), (0, 0));
    bob.alice_goes_on(session);
}

#[test]
fn a_record_of_an_earlier_channel_opens_nothing_on_a_new_one() {
    let mut bob = Bob::new();
    let (pipe, mut session, _) = bob.with_alice();
    bob.lose(&pipe);
    let now = bob.now;
    session.park(Code::PipeLost, now, &mut Vec::new()).unwrap();
    // Somebody on the way records an ATTACH, cuts, and plays it on the next channel.
    let (first, mut channel) = bob.meet(&Actor::named("alice", 1));
    let attach = session.offer(&channel).unwrap();
    let mut record = BytesMut::from(&[RECORD][..]);
    record.extend_from_slice(&Frame::Attach(Box::new(attach)).encode());
    channel.seal(&mut record).unwrap();
    bob.act(|node, now, out| node.closed(&first, Code::PipeLost, now, out));
    let (second, _) = bob.meet(&Actor::named("alice", 1));
    bob.hear(&second, record.freeze());
    assert!(bob.closed.contains(&(second.id(), Code::RecordForged)));
    assert_eq!(bob.node.counts().parked, 1);
    bob.alice_goes_on(session);
}

#[test]
fn what_still_comes_over_a_pipe_that_the_session_has_left_is_ignored() {
    let mut bob = Bob::new();
    let (old, mut session, mut events) = bob.with_alice();
    // A request is sealed for the old channel, and held back on the way.
    let request = node_core::session::Request::new("echo.1", b"late".as_slice());
    let deadline = bob.now + Duration::from_secs(500);
    session.request(6, request, deadline, bob.now).unwrap();
    let late = session.poll_transmit(bob.now, false, &mut events).unwrap();
    let (new, mut channel) = bob.meet(&Actor::named("alice", 1));
    let attach = session.offer(&channel).unwrap();
    let attempt = attach.attempt;
    bob.tell(&new, &mut channel, &Frame::Attach(Box::new(attach)));
    assert!(
        bob.closed.contains(&(old.id(), Code::Duplicate)),
        "the older pipe is closed"
    );
    bob.hear(&old, late.freeze());
    assert_eq!(bob.requests.len(), 1, "not over the pipe that was left");
    bob.act(|node, now, out| node.closed(&old, Code::PipeLost, now, out));
    let counts = bob.node.counts();
    assert_eq!(
        (counts.sessions, counts.parked),
        (1, 0),
        "its end ends nothing"
    );
    let record = BytesMut::from(&bob.say(&new).expect("an answer")[..]);
    let (answer, rest) = opened(&mut channel, record);
    let now = bob.now;
    session.answered(channel, &answer, attempt, MTU, now, &mut events);
    session.handle_frames(rest, now, &mut events).unwrap();
    bob.carry(&new, &mut session, &mut events);
    assert_eq!(bob.requests.len(), 2, "but over the new one, once");
}

#[test]
fn an_older_process_that_comes_back_for_its_session_is_told_that_another_has_its_place() {
    let mut bob = Bob::new();
    let (pipe, session, _) = bob.with_alice();
    bob.lose(&pipe);
    let (second, channel) = bob.meet(&Actor::named("alice", 1));
    let mut newer = Session::begin(channel, config(&Limits::default(), 8), bob.now);
    bob.carry(&second, &mut newer, &mut Vec::new());
    assert_eq!(
        bob.node.counts().parked,
        0,
        "fresh of another process replaces what waits"
    );
    let (third, mut channel) = bob.meet(&Actor::named("alice", 1));
    let attach = Frame::Attach(Box::new(resume(*session.id())));
    bob.tell(&third, &mut channel, &attach);
    let said = bob.answer(&third, &mut channel);
    assert!(
        matches!(said, Some(Frame::Close(Code::Superseded, None))),
        "{said:?}"
    );
    assert_eq!(bob.node.counts().sessions, 1, "the newer one stays");
}

#[test]
fn after_unknown_a_new_session_begins_on_the_same_channel() {
    let mut bob = Bob::new();
    let (pipe, mut channel) = bob.meet(&Actor::named("alice", 1));
    bob.tell(
        &pipe,
        &mut channel,
        &Frame::Attach(Box::new(resume([1; 16]))),
    );
    assert!(matches!(
        bob.answer(&pipe, &mut channel),
        Some(Frame::Attach(answer)) if answer.status == AttachStatus::Unknown
    ));
    let mut session = Session::begin(channel, config(&Limits::default(), 7), bob.now);
    bob.carry(&pipe, &mut session, &mut Vec::new());
    assert!(session.is_attached());
    assert_eq!(bob.node.counts().sessions, 1);
}

#[test]
fn a_guest_leaves_nothing_that_waits() {
    let mut bob = Bob::new();
    let mut guests = NodeConfig::new(bob.actor.local.identity.clone());
    guests.guests = true;
    guests.registries = bob.node.config().registries.clone();
    guests.pinned = bob.node.config().pinned.clone();
    bob.node = Node::new(guests, [9; 32]).unwrap();
    let (pipe, channel) = bob.meet(&Actor::guest());
    let mut session = Session::begin(channel, config(&Limits::default(), 7), bob.now);
    bob.carry(&pipe, &mut session, &mut Vec::new());
    assert_eq!(bob.node.counts().sessions, 1);
    bob.act(|node, now, out| node.closed(&pipe, Code::PipeLost, now, out));
    let counts = bob.node.counts();
    assert_eq!((counts.sessions, counts.parked), (0, 0));
}
