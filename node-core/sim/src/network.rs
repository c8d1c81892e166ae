//! The virtual network: sockets, what is on its way in them, and what people on the way can do to them.

use crate::{
    simulation::Simulation,
    world::{NodeId, Token},
};
use bytes::Bytes;
use node_core::{
    Code, Instant,
    node::{Address, Pipe},
    registry::{FetchFailure, FetchId},
    time::Duration,
};
use std::task::Waker;

/// What a socket does to the messages of one direction; one for which it is false is swallowed.
pub type Tamper = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

/// Chooses who tampers with a new socket: dialler, acceptor, and whether for the dialler's direction.
pub type OnSocket = Box<dyn FnMut(NodeId, NodeId, bool) -> Option<Tamper>>;

/// One end of a socket.
pub(crate) struct Socket {
    pub(crate) owner: NodeId,
    pub(crate) pipe: Pipe<Token>,
    /// The other end's socket, once it is open.
    pub(crate) peer: Option<usize>,
    pub(crate) open: bool,
    pub(crate) tamper: Option<Tamper>,
}

/// What is on its way.
pub(crate) enum Happening {
    /// A dialled socket arrives at its address.
    Arrive {
        dialler: usize,
        address: Address,
    },
    Opened {
        socket: usize,
    },
    Closed {
        socket: usize,
        code: Code,
    },
    Message {
        socket: usize,
        message: Bytes,
    },
    Answer {
        node: NodeId,
        id: FetchId,
        answer: Result<Vec<u8>, FetchFailure>,
    },
}

impl Simulation {
    /// Somebody on the way cuts the sockets between two nodes, with a code of his choice.
    pub fn cut(&mut self, a: NodeId, b: NodeId, code: Code) {
        for socket in 0..self.sockets.len() {
            let Socket {
                owner, peer, open, ..
            } = &self.sockets[socket];
            let other = peer.map(|peer| self.sockets[peer].owner);
            if *open && [(a, Some(b)), (b, Some(a))].contains(&(*owner, other)) {
                self.sockets[socket].open = false;
                self.live.remove(&socket);
                let latency = self.latency;
                self.later(latency, Happening::Closed { socket, code });
            }
        }
    }

    /// Lets `waker` watch all open sockets of a node.
    pub fn watch(&mut self, node: NodeId, waker: &Waker) {
        for socket in 0..self.sockets.len() {
            let Socket {
                owner, pipe, open, ..
            } = &self.sockets[socket];
            if *open && *owner == node {
                let pipe = pipe.clone();
                self.act(node, |node, now, out| {
                    assert!(node.poll_transmit(&pipe, waker, now, out).is_none());
                });
            }
        }
    }

    /// Lets go of the node's handles of sockets that have closed.
    pub fn forget_closed(&mut self) {
        assert!(self.queue.is_empty() || !self.sockets.iter().any(|socket| socket.open));
        self.sockets.clear();
        self.live.clear();
        self.queue.clear();
    }

    /// Kills a node: its sockets close, and nobody answers at its address.
    pub fn kill(&mut self, node: NodeId) {
        self.machines[node].dead = true;
        for socket in 0..self.sockets.len() {
            if self.sockets[socket].owner == node && self.sockets[socket].open {
                self.close(socket, Code::PipeLost);
            }
        }
    }

    /// Freezes a node: its sockets stay open, but nothing comes out of them any more.
    pub fn freeze(&mut self, node: NodeId) {
        self.machines[node].dead = true;
    }

    pub(crate) fn next_time(&self) -> Option<Instant> {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timers = self
            .machines
            .iter()
            .filter(|m| !m.dead)
            .filter_map(|m| m.node.deadline());
        timers.chain(queued).min()
    }

    pub(crate) fn step(&mut self) {
        for id in 0..self.machines.len() {
            if !self.machines[id].dead
                && self.machines[id]
                    .node
                    .deadline()
                    .is_some_and(|at| at <= self.now)
            {
                self.act(id, |node, now, out| node.handle_timeout(now, out));
            }
        }
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let happening = entry.remove();
            self.happen(happening);
        }
    }

    pub(crate) fn later(&mut self, delay: Duration, happening: Happening) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { dialler, address } => self.arrive(dialler, &address),
            Happening::Opened { socket } => {
                let Socket { owner, pipe, .. } = &self.sockets[socket];
                let (owner, pipe) = (*owner, pipe.clone());
                self.sockets[socket].open = true;
                self.live.insert(socket);
                self.act(owner, |node, now, out| node.opened(&pipe, now, out));
            }
            Happening::Closed { socket, code } => {
                let Socket { owner, pipe, .. } = &self.sockets[socket];
                let (owner, pipe) = (*owner, pipe.clone());
                self.sockets[socket].open = false;
                self.live.remove(&socket);
                if !self.machines[owner].dead {
                    self.act(owner, |node, now, out| node.closed(&pipe, code, now, out));
                }
            }
            Happening::Message { socket, message } => {
                let Socket {
                    owner, pipe, open, ..
                } = &self.sockets[socket];
                let (owner, pipe) = (*owner, pipe.clone());
                if *open && !self.machines[owner].dead {
                    self.act(owner, |node, now, out| {
                        node.handle_message(&pipe, message, now, out)
                    });
                }
            }
            Happening::Answer { node, id, answer } => {
                let answer = match &answer {
                    Ok(bytes) => Ok(bytes.as_slice()),
                    Err(failure) => Err(*failure),
                };
                self.act(node, |node, now, out| node.answered(id, answer, now, out));
            }
        }
    }

    fn arrive(&mut self, dialler: usize, address: &Address) {
        let listener = self.machines.iter().position(|machine| {
            !machine.dead && machine.address.as_ref() == Some(&(address.host.clone(), address.port))
        });
        let Some(listener) = listener else {
            let latency = self.latency;
            return self.later(
                latency,
                Happening::Closed {
                    socket: dialler,
                    code: Code::DialFailed,
                },
            );
        };
        let group = self.sockets[dialler].owner as u64;
        match self.act(listener, |node, now, _| node.accept(group, now)) {
            Ok(pipe) => {
                let from = self.sockets[dialler].owner;
                let mut tamper = self.on_socket.as_mut();
                let (there, back) = match &mut tamper {
                    Some(tamper) => (tamper(from, listener, true), tamper(from, listener, false)),
                    None => (None, None),
                };
                let accepted = self.sockets.len();
                self.sockets.push(Socket {
                    owner: listener,
                    pipe,
                    peer: Some(dialler),
                    open: true,
                    tamper: back,
                });
                self.sockets[dialler].peer = Some(accepted);
                self.sockets[dialler].tamper = there;
                self.live.insert(accepted);
                let latency = self.way(dialler);
                self.later(latency, Happening::Opened { socket: dialler });
            }
            Err(code) => {
                let latency = self.latency;
                self.later(
                    latency,
                    Happening::Closed {
                        socket: dialler,
                        code,
                    },
                );
            }
        }
    }

    /// Takes what every socket has to send.
    pub(crate) fn flush(&mut self) {
        loop {
            let mut sent = false;
            let mut live: Vec<usize> = self.live.iter().copied().collect();
            live.sort_unstable();
            for socket in live {
                while self.sockets[socket].open && !self.machines[self.sockets[socket].owner].dead {
                    let Socket {
                        owner, pipe, peer, ..
                    } = &self.sockets[socket];
                    let (owner, pipe, peer) = (*owner, pipe.clone(), *peer);
                    let to = peer.map(|peer| self.sockets[peer].owner);
                    if to.is_some_and(|to| self.stalled.contains(&(owner, to))) {
                        break;
                    }
                    let handle = self.machines[owner].node.clone();
                    let now = self.now_of(owner);
                    let mut out = Vec::new();
                    let message = handle.poll_transmit(&pipe, Waker::noop(), now, &mut out);
                    // A socket that is to be closed still sends what it was given with that.
                    let more = message.is_some();
                    if let (Some(message), Some(peer)) = (message, peer) {
                        self.send(socket, owner, peer, message);
                    }
                    self.outputs(owner, out);
                    if !more {
                        break;
                    }
                    sent = true;
                }
            }
            if !sent {
                return;
            }
        }
    }

    /// Puts a message on its way, unless somebody tampers with it.
    fn send(&mut self, socket: usize, owner: NodeId, peer: usize, message: Bytes) {
        let mut bytes = message.to_vec();
        if let Some(tamper) = &mut self.sockets[socket].tamper
            && !tamper(&mut bytes)
        {
            return;
        }
        let to = self.sockets[peer].owner;
        if let Some(wire) = &mut self.wire {
            wire.push((owner, to, message));
        }
        let latency = self.way(peer);
        self.later(
            latency,
            Happening::Message {
                socket: peer,
                message: bytes.into(),
            },
        );
    }

    /// How long anything takes to a socket from its other end.
    fn way(&self, socket: usize) -> Duration {
        let Socket { owner, peer, .. } = &self.sockets[socket];
        let ends = [Some(*owner), peer.map(|peer| self.sockets[peer].owner)];
        let remote = ends.iter().flatten().filter_map(|end| self.remote.get(end));
        self.latency + remote.sum::<Duration>()
    }

    pub(crate) fn close(&mut self, socket: usize, code: Code) {
        self.sockets[socket].open = false;
        self.live.remove(&socket);
        if let Some(peer) = self.sockets[socket].peer {
            let latency = self.way(peer);
            self.later(latency, Happening::Closed { socket: peer, code });
        }
    }

    pub(crate) fn flush_last(&mut self, socket: usize) {
        let Socket {
            owner,
            pipe,
            peer,
            open,
            ..
        } = &self.sockets[socket];
        let (owner, pipe, peer, open) = (*owner, pipe.clone(), *peer, *open);
        let handle = self.machines[owner].node.clone();
        let now = self.now_of(owner);
        let mut rest = Vec::new();
        while open && let Some(message) = handle.poll_transmit(&pipe, Waker::noop(), now, &mut rest)
        {
            if let Some(peer) = peer {
                let latency = self.way(peer);
                self.later(
                    latency,
                    Happening::Message {
                        socket: peer,
                        message,
                    },
                );
            }
        }
        self.outputs(owner, rest);
    }
}
