//! Nodes that are wired to each other: what one says the other hears at once, and no time passes. For measurements, which
//! shall count the nodes and next to nothing else.

use crate::names::name;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use node_core::{
    Code, Now, Timestamp,
    channel::Identity,
    node::{Node, NodeConfig, Output, Pipe},
    registry::Host,
    session::Request,
    time::{Duration, Instant},
    wire::frame::Response,
};
use std::{collections::HashMap, task::Waker};

/// An address group of callers; nobody is judged by it here.
const GROUP: u64 = 1;

/// How long whoever asks is ready to wait, in a world without time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Wired nodes. All are called by their labels, answer requests with what they were asked, and listen, if they do, where
/// [`direct`](crate::direct) says.
#[derive(Default)]
pub struct Wired {
    members: Vec<Member>,
    /// The other end of each pipe: whose, and which.
    wires: HashMap<(usize, u64), (usize, Pipe<u64>)>,
    ended: u64,
}

struct Member {
    node: Node<u64>,
    key: SigningKey,
    host: Option<u8>,
    /// Its pipes, in the order in which they came.
    pipes: Vec<Pipe<u64>>,
}

impl Wired {
    /// Adds the node called `label`, whose key is [`key_of`](crate::key_of) it, at 10.0.0.`host` if it listens; `adapt` has the
    /// last word on its configuration.
    ///
    /// # Panics
    /// When the configuration makes no sense.
    pub fn add(
        &mut self,
        label: &str,
        key: SigningKey,
        host: Option<u8>,
        adapt: impl FnOnce(NodeConfig) -> NodeConfig,
    ) -> usize {
        let mut config = NodeConfig::new(Identity {
            name: Some(name(label)),
            key: key.verifying_key().to_bytes(),
        });
        config.signer.know();
        // What is not to be called needs no routers either.
        config.direct = true;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(self.members.len() as u64).to_be_bytes());
        let node = Node::new(adapt(config), seed).expect("the configuration makes sense");
        let mut out = Vec::new();
        node.start(self.now(), &mut out);
        self.members.push(Member {
            node,
            key,
            host,
            pipes: Vec::new(),
        });
        let member = self.members.len() - 1;
        self.carry_out(member, out);
        member
    }

    /// Makes sure that there is a session from `from` to the node called `to`.
    ///
    /// # Panics
    /// When there is none in the end.
    pub fn connect(&mut self, from: usize, to: &str) {
        let ended = self.ended;
        let (to, now) = (name(to), self.now());
        self.act(from, |node, out| node.connect(0, &to, PATIENCE, now, out));
        self.run();
        assert_eq!(self.ended, ended + 1, "a session was begun");
    }

    /// Asks the node called `to` something, at once but for [`run`](Self::run).
    pub fn ask(&mut self, from: usize, to: &str, payload: Bytes) {
        let (to, now) = (name(to), self.now());
        let request = Request::new("echo.1", payload);
        self.act(from, |node, out| {
            node.request(0, &to, request, Some(PATIENCE), now, out);
        });
    }

    /// Tells everybody what everybody has to say, until nobody has more to say.
    pub fn run(&mut self) {
        loop {
            let mut quiet = true;
            for member in 0..self.members.len() {
                for at in 0.. {
                    let Some(pipe) = self.members[member].pipes.get(at).cloned() else {
                        break;
                    };
                    while let Some(message) = self.next_message(member, &pipe) {
                        quiet = false;
                        self.hear(member, &pipe, message);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// The process of a node ends without a word.
    pub fn kill(&mut self, member: usize) {
        for pipe in core::mem::take(&mut self.members[member].pipes) {
            self.cut(member, &pipe);
        }
    }

    /// Operations that have ended well.
    pub fn ended(&self) -> u64 {
        self.ended
    }

    fn now(&self) -> Now {
        Now {
            mono: Instant::from_micros(1_000_000),
            wall: Timestamp(1_750_000_000_000),
        }
    }

    fn act(&mut self, member: usize, act: impl FnOnce(&Node<u64>, &mut Vec<Output<u64>>)) {
        let mut out = Vec::new();
        act(&self.members[member].node, &mut out);
        self.carry_out(member, out);
    }

    fn next_message(&mut self, member: usize, pipe: &Pipe<u64>) -> Option<Bytes> {
        let (now, mut out) = (self.now(), Vec::new());
        let node = &self.members[member].node;
        let message = node.poll_transmit(pipe, Waker::noop(), now, &mut out);
        self.carry_out(member, out);
        message
    }

    fn hear(&mut self, from: usize, pipe: &Pipe<u64>, message: Bytes) {
        if let Some((to, pipe)) = self.wires.get(&(from, pipe.id())).cloned() {
            let now = self.now();
            self.act(to, |node, out| {
                node.handle_message(&pipe, message, now, out)
            });
        }
    }

    fn cut(&mut self, member: usize, pipe: &Pipe<u64>) {
        let Some((other, end)) = self.wires.remove(&(member, pipe.id())) else {
            return;
        };
        self.wires.remove(&(other, end.id()));
        self.members[other]
            .pipes
            .retain(|pipe| pipe.id() != end.id());
        let now = self.now();
        self.act(other, |node, out| {
            node.closed(&end, Code::PipeLost, now, out)
        });
    }

    fn carry_out(&mut self, member: usize, outputs: Vec<Output<u64>>) {
        let now = self.now();
        for output in outputs {
            match output {
                Output::Dial { pipe, address } => {
                    let listens = |other: &Member| {
                        other.host.map(|host| Host::V4([10, 0, 0, host].into()))
                            == Some(address.host.clone())
                    };
                    let other = self.members.iter().position(listens);
                    let other = other.expect("who is dialled listens");
                    let accepted = self.members[other].node.accept(GROUP, now);
                    let accepted = accepted.expect("there is room for everybody");
                    self.members[member].pipes.push(pipe.clone());
                    self.members[other].pipes.push(accepted.clone());
                    self.wires
                        .insert((member, pipe.id()), (other, accepted.clone()));
                    self.wires
                        .insert((other, accepted.id()), (member, pipe.clone()));
                    self.act(member, |node, _| node.opened(&pipe, None));
                }
                Output::Close { pipe, .. } => {
                    // What is left to say is heard before.
                    while let Some(message) = self.next_message(member, &pipe) {
                        self.hear(member, &pipe, message);
                    }
                    self.members[member]
                        .pipes
                        .retain(|other| other.id() != pipe.id());
                    self.cut(member, &pipe);
                }
                Output::Sign { pipe, request } => {
                    let signature = self.members[member].key.sign(&request.message()).to_bytes();
                    self.act(member, |node, out| {
                        node.signed(&pipe, Some(signature), now, out)
                    });
                }
                Output::Request(incoming) => {
                    let answer = incoming.request.payload.clone();
                    incoming.respond(Response::Success(Some(answer)));
                }
                Output::Answered { .. } | Output::Delivered { .. } | Output::Connected { .. } => {
                    self.ended += 1;
                }
                Output::Failed { failure, .. } => panic!("an operation failed: {failure:?}"),
                Output::Fetch { .. } => panic!("a chain was asked, and there is none"),
                Output::Opened { .. }
                | Output::Resolved { .. }
                | Output::Cancelled { .. }
                | Output::Message(_)
                | Output::Stream(_)
                | Output::Event(_) => {}
            }
        }
    }
}
