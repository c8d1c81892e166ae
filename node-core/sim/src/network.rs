//! The virtual network: sockets, what is on its way in them, and what people on the way can do to them.

use crate::{
    simulation::Simulation,
    world::{NodeId, Token},
};
use bytes::Bytes;
use node_core::{
    Code, Instant, Now,
    node::{Address, Node, Output, Pipe},
    registry::{FetchFailure, FetchId},
    time::Duration,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};

/// What a socket does to the messages of one direction; one for which it is false is swallowed.
pub type Tamper = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

/// Chooses who tampers with a new socket: dialler, acceptor, and whether for the dialler's direction.
pub type OnSocket = Box<dyn FnMut(NodeId, NodeId, bool) -> Option<Tamper>>;

/// How soon a dial is tried again that has met nobody, because the way is severed.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether a socket has been woken since it was last asked for something to send.
pub(crate) struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// One end of a socket.
pub(crate) struct Socket {
    pub(crate) owner: NodeId,
    pub(crate) pipe: Pipe<Token>,
    /// The other end's socket, once it is open.
    pub(crate) peer: Option<usize>,
    pub(crate) open: bool,
    /// Its owner has given it up.
    pub(crate) given_up: bool,
    /// What goes into it never comes out, not even its end.
    pub(crate) silent: bool,
    /// Nothing more goes into it.
    pub(crate) stalled: bool,
    pub(crate) tamper: Option<Tamper>,
    /// When the last that is on its way here arrives.
    pub(crate) last: Instant,
    /// As of a driver: who sleeps is not asked.
    pub(crate) woken: Arc<Woken>,
}

impl Socket {
    pub(crate) fn new(owner: NodeId, pipe: Pipe<Token>, peer: Option<usize>) -> Self {
        Self {
            owner,
            pipe,
            // The dialling end opens once it has heard of the other.
            open: peer.is_some(),
            peer,
            given_up: false,
            silent: false,
            stalled: false,
            tamper: None,
            last: Instant::default(),
            woken: Arc::new(Woken(AtomicBool::new(true))),
        }
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken.0.load(Relaxed)
    }
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
    /// Lets `waker` watch all open sockets of a node, which nobody asks for something to send from then on.
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

    pub(crate) fn happen(&mut self, happening: Happening) {
        let owner = match &happening {
            Happening::Arrive { address, .. } => self.listener(address),
            Happening::Opened { socket }
            | Happening::Closed { socket, .. }
            | Happening::Message { socket, .. } => Some(self.sockets[*socket].owner),
            Happening::Answer { node, .. } => Some(*node),
        };
        if let Some(missed) = owner.and_then(|owner| self.machines[owner].missed.as_mut()) {
            return missed.push(happening);
        }
        match happening {
            Happening::Arrive { dialler, address } => self.arrive(dialler, address, owner),
            Happening::Opened { socket } => {
                if self.sockets[socket].given_up {
                    return self.close(socket, Code::PipeLost);
                }
                self.note(&[b"opened", &(socket as u64).to_be_bytes()]);
                self.sockets[socket].open = true;
                self.live.insert(socket);
                self.tell(socket, |node, pipe, _, _| node.opened(pipe, None));
            }
            Happening::Closed { socket, code } => {
                let which = (socket as u64).to_be_bytes();
                self.note(&[b"closed", &which, &code.as_u16().to_be_bytes()]);
                self.sockets[socket].open = false;
                self.live.remove(&socket);
                self.tell(socket, |node, pipe, now, out| {
                    node.closed(pipe, code, now, out)
                });
            }
            Happening::Message { socket, message } => {
                if self.sockets[socket].open {
                    self.note(&[b"message", &(socket as u64).to_be_bytes(), &message]);
                    self.tell(socket, |node, pipe, now, out| {
                        node.handle_message(pipe, message, now, out)
                    });
                }
            }
            Happening::Answer { node, id, answer } => {
                let answer = match &answer {
                    Ok(bytes) => Ok(bytes.as_slice()),
                    Err(failure) => Err(*failure),
                };
                let which = (node as u64).to_be_bytes();
                self.note(&[b"answer", &which, answer.unwrap_or_default()]);
                if !self.machines[node].dead {
                    self.act(node, |node, now, out| node.answered(id, answer, now, out));
                }
            }
        }
    }

    /// Tells a socket's owner, if it lives.
    fn tell(
        &mut self,
        socket: usize,
        what: impl FnOnce(&Node<Token>, &Pipe<Token>, Now, &mut Vec<Output<Token>>),
    ) {
        let Socket { owner, pipe, .. } = &self.sockets[socket];
        let (owner, pipe) = (*owner, pipe.clone());
        if !self.machines[owner].dead {
            self.act(owner, |node, now, out| what(node, &pipe, now, out));
        }
    }

    /// Who answers at an address.
    fn listener(&self, address: &Address) -> Option<NodeId> {
        self.machines.iter().position(|machine| {
            !machine.dead && machine.address.as_ref() == Some(&(address.host.clone(), address.port))
        })
    }

    fn arrive(&mut self, dialler: usize, address: Address, listener: Option<NodeId>) {
        let Socket {
            owner, given_up, ..
        } = self.sockets[dialler];
        if given_up {
            return;
        }
        if listener.is_some_and(|listener| self.severed.contains(&(owner, listener))) {
            // As TCP does, it is tried again.
            return self.later(AGAIN, Happening::Arrive { dialler, address });
        }
        let refuse = |code| Happening::Closed {
            socket: dialler,
            code,
        };
        let Some(listener) = listener else {
            return self.carry(dialler, refuse(Code::DialFailed));
        };
        let pipe = match self.act(listener, |node, now, _| node.accept(owner as u64, now)) {
            Ok(pipe) => pipe,
            Err(error) => {
                self.carry(dialler, Happening::Opened { socket: dialler });
                if let Some(reject) = error.reject() {
                    let message = Bytes::copy_from_slice(&reject.to_bytes());
                    let socket = dialler;
                    self.carry(dialler, Happening::Message { socket, message });
                }
                return self.carry(dialler, refuse(error.code));
            }
        };
        let accepted = self.sockets.len();
        let mut socket = Socket::new(listener, pipe, Some(dialler));
        if let Some(tamper) = &mut self.on_socket {
            self.sockets[dialler].tamper = tamper(owner, listener, true);
            socket.tamper = tamper(owner, listener, false);
        }
        self.sockets.push(socket);
        self.sockets[dialler].peer = Some(accepted);
        self.live.insert(accepted);
        if !self.is_silent(accepted) {
            self.carry(dialler, Happening::Opened { socket: dialler });
        }
    }

    /// Takes what every socket has to send that was woken.
    pub(crate) fn flush(&mut self) {
        for passes in 0.. {
            assert!(passes < 100_000, "sockets wake themselves for ever");
            let mut asked = false;
            for socket in self.senders() {
                while self.sockets[socket].open && self.machines[self.sockets[socket].owner].runs()
                {
                    let Socket {
                        owner,
                        pipe,
                        peer,
                        woken,
                        stalled,
                        ..
                    } = &self.sockets[socket];
                    let (owner, pipe, peer) = (*owner, pipe.clone(), *peer);
                    let woken = woken.clone();
                    let to = peer.map(|peer| self.sockets[peer].owner);
                    if *stalled || to.is_some_and(|to| self.stalled.contains(&(owner, to))) {
                        break;
                    }
                    let handle = self.machines[owner].node.clone();
                    let now = self.now_of(owner);
                    let mut out = Vec::new();
                    asked = true;
                    woken.0.store(false, Relaxed);
                    let message = handle.poll_transmit(&pipe, &woken.into(), now, &mut out);
                    // A socket that is to be closed still sends what it was given with that.
                    let more = message.is_some();
                    if let Some(message) = message {
                        self.send(socket, message);
                    }
                    self.outputs(owner, out);
                    if !more {
                        break;
                    }
                }
            }
            // Those who were asked may have woken others.
            if !asked {
                return;
            }
        }
    }

    /// Puts a message on its way, unless somebody tampers with it.
    fn send(&mut self, socket: usize, message: Bytes) {
        let mut bytes = message.to_vec();
        let tamper = self.sockets[socket].tamper.as_mut();
        let passes = tamper.is_none_or(|tamper| tamper(&mut bytes));
        let swallowed = !passes || self.is_silent(socket);
        let Some(peer) = self.sockets[socket].peer.filter(|_| !swallowed) else {
            return;
        };
        if let Some(wire) = &mut self.wire {
            let (from, to) = (self.sockets[socket].owner, self.sockets[peer].owner);
            wire.push((from, to, message));
        }
        let message = bytes.into();
        self.carry(
            peer,
            Happening::Message {
                socket: peer,
                message,
            },
        );
    }

    /// Whether what is sent now is swallowed. Of a socket that has lost anything nothing more arrives: there are no gaps.
    fn is_silent(&mut self, socket: usize) -> bool {
        let Socket { owner, peer, .. } = self.sockets[socket];
        if let Some(peer) = peer {
            let way = (owner, self.sockets[peer].owner);
            self.sockets[socket].silent |= self.severed.contains(&way);
        }
        self.sockets[socket].silent
    }

    /// How long anything takes to a socket from its other end.
    pub(crate) fn way(&self, socket: usize) -> Duration {
        let Socket { owner, peer, .. } = &self.sockets[socket];
        let ends = [Some(*owner), peer.map(|peer| self.sockets[peer].owner)];
        let remote = ends.iter().flatten().filter_map(|end| self.remote.get(end));
        self.latency + remote.sum::<Duration>()
    }

    /// A socket's owner gives it up.
    pub(crate) fn close(&mut self, socket: usize, code: Code) {
        self.sockets[socket].open = false;
        self.sockets[socket].given_up = true;
        self.live.remove(&socket);
        let silent = self.is_silent(socket);
        if let Some(peer) = self.sockets[socket].peer.filter(|_| !silent) {
            self.carry(peer, Happening::Closed { socket: peer, code });
        }
    }

    pub(crate) fn flush_last(&mut self, socket: usize) {
        let Socket {
            owner, pipe, open, ..
        } = &self.sockets[socket];
        let (owner, pipe, open) = (*owner, pipe.clone(), *open);
        let handle = self.machines[owner].node.clone();
        let now = self.now_of(owner);
        let mut rest = Vec::new();
        while open && let Some(message) = handle.poll_transmit(&pipe, Waker::noop(), now, &mut rest)
        {
            self.send(socket, message);
        }
        self.outputs(owner, rest);
    }
}
