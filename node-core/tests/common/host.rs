//! A node that everybody talks to over sockets which nobody else sees, and whoever talks to it by saying what it likes.

use super::sessions::attach;
use bytes::{BufMut, Bytes, BytesMut};
use ed25519_dalek::{Signer, SigningKey};
use nectar_sim::{Chain, EPOCH_MS, Registry, Simulation, direct, key_of, name};
use node_core::{
    Code, Instant, Now, Timestamp,
    channel::{
        Channel, HelloInfo, Identity, Local, RECORD, Reject, SignerTrust, initiator, responder,
    },
    node::{Ban, Event, Node, NodeConfig, Output, Pipe},
    registry::Record,
    time::Duration,
    wire::frame::{Attach, Frame, is_session, next},
};
use std::{sync::Arc, task::Waker};

/// Bob, to whom everybody talks.
pub struct Bob {
    pub node: Node<u64>,
    pub now: Now,
    calls: u8,
    pub events: Vec<Event>,
    /// What he reads, if he reads anything.
    pub chain: Option<Chain>,
    /// What he was asked and has not answered, if he keeps that.
    pub kept: Option<Vec<Output<u64>>>,
    /// Whom he dials.
    pub dials: Vec<Pipe<u64>>,
    /// Which process of theirs those are who come from now on.
    pub process: u8,
}

/// Somebody who got in, and says what it likes.
pub struct Caller {
    pub pipe: Pipe<u64>,
    pub channel: Channel,
    /// Bytes of session frames that have come.
    pub heard: u64,
}

/// Somebody whom a router brings to bob.
pub struct Brought {
    /// Its circuit.
    pub cid: u32,
    pub channel: Channel,
}

impl Caller {
    pub fn read(&mut self, record: Bytes) -> Vec<Frame> {
        let mut rest = self.channel.open(record.into()).unwrap().freeze();
        let mut frames = Vec::new();
        while let Some((_, _, frame)) = next(&mut rest).unwrap() {
            frames.extend(frame);
        }
        for encoded in frames.iter().map(Frame::encode) {
            if is_session(encoded[0]) {
                self.heard += encoded.len() as u64;
            }
        }
        frames
    }
}

impl Bob {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let records = [
            ("bob", direct("bob", 1)),
            ("mallory", direct("mallory", 2)),
            ("carol", direct("carol", 3)),
        ];
        Self::among(&records, change)
    }

    /// Bob among whoever is registered.
    pub fn among(records: &[(&str, Record)], change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = Simulation::config("bob", records);
        change(&mut config);
        Self {
            node: Node::new(config, [1; 32]).unwrap(),
            now: Now {
                mono: Instant::from_micros(1_000_000),
                wall: Timestamp(EPOCH_MS),
            },
            calls: 0,
            events: Vec::new(),
            chain: None,
            kept: None,
            dials: Vec::new(),
            process: 9,
        }
    }

    /// Bob, who reads a chain on which these are registered.
    pub fn on_chain(records: &[(&str, Record)]) -> Self {
        let mut registry = Registry::new(EPOCH_MS / 1000);
        for (label, record) in records {
            registry.register(label, record.clone());
        }
        registry.chain.mine(EPOCH_MS / 1000);
        let mut bob = Self::among(&[], |config| {
            config.registries[0].rpcs = vec!["http://a.test".into()];
        });
        bob.chain = Some(registry.chain);
        bob
    }

    pub fn wait(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall = Timestamp(self.now.wall.0 + time.as_millis() as u64);
        if let Some(chain) = &mut self.chain {
            chain.mine(self.now.wall.0 / 1000);
        }
        let mut out = Vec::new();
        self.node.handle_timeout(self.now, &mut out);
        self.note(out);
    }

    /// Does what bob's driver would, as far as anybody here needs it.
    pub fn note(&mut self, outputs: Vec<Output<u64>>) {
        for output in outputs {
            match output {
                Output::Sign { pipe, request } => {
                    let signature = key_of("bob").sign(&request.message()).to_bytes();
                    let mut out = Vec::new();
                    self.node.signed(&pipe, Some(signature), self.now, &mut out);
                    self.note(out);
                }
                Output::Fetch { id, body, .. } => {
                    if let Some(chain) = &self.chain {
                        let answer = chain.answer(&body);
                        let mut out = Vec::new();
                        self.node.answered(id, Ok(&answer), self.now, &mut out);
                        self.note(out);
                    }
                }
                Output::Event(event) => self.events.push(event),
                Output::Dial { pipe, .. } => self.dials.push(pipe),
                Output::Request(_) | Output::Stream(_) => {
                    if let Some(kept) = &mut self.kept {
                        kept.push(output);
                    }
                }
                _ => {}
            }
        }
    }

    pub fn hear(&mut self, pipe: &Pipe<u64>, message: impl Into<Bytes>) {
        let mut out = Vec::new();
        self.node
            .handle_message(pipe, message.into(), self.now, &mut out);
        self.note(out);
    }

    pub fn says(&mut self, pipe: &Pipe<u64>) -> Option<Bytes> {
        let mut out = Vec::new();
        let said = self
            .node
            .poll_transmit(pipe, Waker::noop(), self.now, &mut out);
        self.note(out);
        said
    }

    /// Calls bob under a name, with a key: the code with which he refuses, and when to come back.
    pub fn call(
        &mut self,
        label: &str,
        key: &SigningKey,
        group: u64,
        skew_ms: i64,
    ) -> Result<Caller, (Option<Code>, Duration)> {
        let pipe = self
            .node
            .accept(group, self.now)
            .map_err(|error| (Some(error.code), error.retry.unwrap_or_default()))?;
        self.enter(pipe, local(label, key), Some(key), skew_ms)
    }

    /// Comes in over a pipe, without a key as a guest.
    pub fn enter(
        &mut self,
        pipe: Pipe<u64>,
        local: Arc<Local>,
        key: Option<&SigningKey>,
        skew_ms: i64,
    ) -> Result<Caller, (Option<Code>, Duration)> {
        self.calls = self.calls.wrapping_add(1);
        let wall = Timestamp(self.now.wall.0.saturating_add_signed(skew_ms));
        let refusal = |said: Option<Bytes>| {
            let reject = said.and_then(|said| Reject::parse(&said));
            reject.map_or((None, Duration::ZERO), |reject| (reject.code, reject.retry))
        };
        let bob = key_of("bob").verifying_key().to_bytes();
        let (state, first) = initiator::start(local, name("bob"), bob, [self.calls; 32]);
        self.hear(&pipe, first);
        let second = self.says(&pipe);
        let state = match state.handle(&second.clone().unwrap_or_default(), wall) {
            Ok(state) => state,
            Err(_) => return Err(refusal(second)),
        };
        let signature = state
            .request()
            .map(|request| key.unwrap().sign(&request.message()).to_bytes());
        let (third, channel) = state.signed(signature).unwrap();
        self.hear(&pipe, third);
        let mut caller = self.attach(pipe, channel);
        let said = self.says(&caller.pipe);
        match said {
            Some(record) if record.first() == Some(&RECORD) => {
                caller.read(record);
                Ok(caller)
            }
            _ => Err(refusal(said)),
        }
    }

    pub fn tell(&mut self, caller: &mut Caller, frames: &[u8]) {
        let mut record = BytesMut::with_capacity(frames.len() + 64);
        record.put_u8(RECORD);
        record.put_slice(frames);
        caller.channel.seal(&mut record).unwrap();
        self.hear(&caller.pipe, record);
    }

    /// Answers where bob dials, under a name, with a key; nothing if bob goes away before he has said who he is.
    pub fn answer_as(&mut self, pipe: Pipe<u64>, label: &str, key: &SigningKey) -> Option<Caller> {
        self.calls = self.calls.wrapping_add(1);
        self.node.opened(&pipe, None);
        let first = self.says(&pipe)?;
        let state = responder::start(local(label, key), &first, [self.calls; 32], self.now.wall);
        let state = state.unwrap();
        let signature = key.sign(&state.request().message()).to_bytes();
        let (second, state) = state.signed(signature).unwrap();
        self.hear(&pipe, second);
        let third = self.says(&pipe)?;
        let claimed = state.handle(&third, self.now.wall).ok()?;
        let channel = claimed.verify().ok()?.admit();
        Some(self.attach(pipe, channel))
    }

    /// Somebody has a channel with bob, and begins a session on it.
    fn attach(&mut self, pipe: Pipe<u64>, channel: Channel) -> Caller {
        let attach = Attach {
            instance: [self.process; 16],
            ..attach(&channel)
        };
        let mut caller = Caller {
            pipe,
            channel,
            heard: 0,
        };
        self.tell(&mut caller, &Frame::Attach(Box::new(attach)).encode());
        caller
    }

    /// A router brings somebody over circuit `cid`, without a key a guest, who begins a session.
    pub fn bring(
        &mut self,
        router: &mut Caller,
        cid: u32,
        local: Arc<Local>,
        key: Option<&SigningKey>,
    ) -> Brought {
        let bob = key_of("bob").verifying_key().to_bytes();
        let from = local.identity.name.clone();
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&cid.to_be_bytes());
        let (state, first) = initiator::start(local, name("bob"), bob, seed);
        let incoming = Frame::Incoming {
            cid,
            window: 1 << 20,
            from,
            first: first.into(),
        };
        self.tell(router, &incoming.encode());
        let second = self
            .frames(router)
            .into_iter()
            .find_map(|frame| match frame {
                Frame::CircuitData { cid: over, data } if over == cid => Some(data),
                _ => None,
            });
        let state = state.handle(&second.unwrap(), self.now.wall).unwrap();
        let signature = state
            .request()
            .map(|request| key.unwrap().sign(&request.message()).to_bytes());
        let (third, channel) = state.signed(signature).unwrap();
        let data = third.into();
        self.tell(router, &Frame::CircuitData { cid, data }.encode());
        let hello = Frame::Attach(Box::new(attach(&channel)));
        let mut brought = Brought { cid, channel };
        self.tell_through(router, &mut brought, &[hello]);
        brought
    }

    /// Whom a router has brought says this in one record.
    pub fn tell_through(&mut self, router: &mut Caller, brought: &mut Brought, frames: &[Frame]) {
        let mut record = BytesMut::from(&[RECORD][..]);
        for frame in frames {
            record.put_slice(&frame.encode());
        }
        brought.channel.seal(&mut record).unwrap();
        let (cid, data) = (brought.cid, record.freeze());
        self.tell(router, &Frame::CircuitData { cid, data }.encode());
    }

    /// All that bob says to somebody by now.
    pub fn frames(&mut self, caller: &mut Caller) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(record) = self.says(&caller.pipe) {
            if record.first() == Some(&RECORD) {
                frames.extend(caller.read(record));
            }
        }
        frames
    }

    /// Somebody acknowledges all that bob says, and answers when asked whether anybody is there. False once bob has closed.
    pub fn keeps(&mut self, caller: &mut Caller) -> bool {
        let frames = self.frames(caller);
        let closed = |frame: &Frame| matches!(frame, Frame::Close(..));
        if frames.iter().any(closed) {
            return false;
        }
        let mut answers = Frame::Ack(caller.heard).encode().to_vec();
        for frame in frames {
            if let Frame::Ping(token) = frame {
                answers.extend_from_slice(&Frame::Pong(token).encode());
            }
        }
        self.tell(caller, &answers);
        true
    }

    pub fn mallory(&mut self) -> Result<Caller, (Option<Code>, Duration)> {
        self.call("mallory", &key_of("mallory"), 7, 0)
    }

    pub fn carol(&mut self) -> Result<Caller, (Option<Code>, Duration)> {
        self.call("carol", &key_of("carol"), 7, 0)
    }

    pub fn bans(&self) -> Vec<Ban> {
        self.node.bans(self.now)
    }
}

/// Who a caller says it is.
pub fn local(label: &str, key: &SigningKey) -> Arc<Local> {
    local_as(Identity {
        name: Some(name(label)),
        key: key.verifying_key().to_bytes(),
    })
}

pub fn local_as(identity: Identity) -> Arc<Local> {
    Arc::new(Local {
        identity,
        hello: HelloInfo::default(),
        registries: [nectar_sim::REGISTRY].into(),
        clock_window: Duration::from_secs(1 << 20),
        signer: SignerTrust::default(),
    })
}
