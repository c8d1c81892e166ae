//! What goes wrong with nodes and with the sockets between them.

use crate::{
    machine::Machine,
    network::{Happening, Socket, Tamper},
    simulation::Simulation,
    world::{End, Harm, NodeId, Ways},
};
use node_core::{Code, time::Duration};

/// A message of which an inner byte is altered: bulk, in bytes.
const LONG: usize = 1 << 10;

impl Simulation {
    // Sockets.

    /// Somebody on the way cuts the sockets between two nodes, with a code of his choice. What was in them is lost.
    pub fn cut(&mut self, a: NodeId, b: NodeId, code: Code) {
        for socket in self
            .between(a, b)
            .chain(self.between(b, a))
            .collect::<Vec<_>>()
        {
            self.end(socket, code);
        }
    }

    /// The sockets between two nodes end for one of them only; the other one is never told.
    pub fn cut_for(&mut self, told: NodeId, other: NodeId) {
        for socket in self.between(told, other).collect::<Vec<_>>() {
            if let Some(peer) = self.sockets[socket].peer {
                self.sockets[peer].silent = true;
            }
            self.end(socket, Code::PipeLost);
        }
    }

    /// Nothing comes through the present sockets between two nodes any more, and nobody is told.
    pub fn silence(&mut self, a: NodeId, b: NodeId) {
        self.silence_way(a, b);
        self.silence_way(b, a);
    }

    /// What one node sends through its present sockets to another does not arrive any more, and nobody is told.
    pub fn silence_way(&mut self, from: NodeId, to: NodeId) {
        for socket in self.between(from, to).collect::<Vec<_>>() {
            self.sockets[socket].silent = true;
        }
    }

    /// The sockets that a node has accepted, in this order, whether they are open or not.
    pub(crate) fn accepted(&self, node: NodeId) -> impl Iterator<Item = usize> {
        let all = self.sockets.iter().enumerate();
        // The dialling end was there first.
        let accepted = all.filter(move |(at, socket)| {
            socket.owner == node && socket.peer.is_some_and(|peer| peer < *at)
        });
        accepted.map(|(at, _)| at)
    }

    /// Harms a socket that was accepted, if it is open, and its dialling end likewise.
    pub(crate) fn harm(&mut self, accepted: usize, harm: Harm) {
        let dialling = self.sockets[accepted].peer;
        let ends = [(dialling, Ways::Back), (Some(accepted), Ways::There)];
        for (end, spared) in ends {
            let Some(end) = end.filter(|end| self.sockets[*end].open) else {
                continue;
            };
            match harm {
                Harm::Cut => self.end(end, Code::PipeLost),
                Harm::CutFor(told) if (told == End::Node) == (end == accepted) => {
                    self.end(end, Code::PipeLost);
                }
                Harm::CutFor(_) => self.sockets[end].silent = true,
                Harm::Alter if end == accepted => {}
                Harm::Alter => self.sockets[end].tamper = Some(alter_once()),
                Harm::Swallow(ways) => self.sockets[end].silent |= ways != spared,
                Harm::Stall(ways) => self.sockets[end].stalled |= ways != spared,
            }
        }
    }

    /// All sockets of a node fall silent: it has another address from now on.
    pub fn move_away(&mut self, node: NodeId) {
        for socket in 0..self.sockets.len() {
            let Socket { owner, peer, .. } = self.sockets[socket];
            if owner == node || peer.is_some_and(|peer| self.sockets[peer].owner == node) {
                self.sockets[socket].silent = true;
            }
        }
    }

    /// The open sockets of one node whose other end is another one's.
    fn between(&self, owner: NodeId, other: NodeId) -> impl Iterator<Item = usize> {
        let all = self.sockets.iter().enumerate();
        let found = all.filter(move |(_, socket)| {
            let far = socket.peer.map(|peer| self.sockets[peer].owner);
            socket.open && socket.owner == owner && far == Some(other)
        });
        found.map(|(socket, _)| socket)
    }

    /// A socket ends, and its owner is told.
    fn end(&mut self, socket: usize, code: Code) {
        self.sockets[socket].open = false;
        self.live.remove(&socket);
        self.later(self.latency, Happening::Closed { socket, code });
    }

    // Processes.

    /// Kills a node: its sockets close, and nobody answers at its address.
    pub fn kill(&mut self, node: NodeId) {
        self.freeze(node);
        for socket in 0..self.sockets.len() {
            if self.sockets[socket].owner == node && self.sockets[socket].open {
                self.close(socket, Code::PipeLost);
            }
        }
    }

    /// Freezes a node: its sockets stay open, but nothing comes out of them any more.
    pub fn freeze(&mut self, node: NodeId) {
        let machine = &mut self.machines[node];
        machine.dead = true;
        machine.missed = None;
    }

    /// Puts a node to sleep: its timers stand still, and whatever comes waits for it.
    pub fn put_to_sleep(&mut self, node: NodeId) {
        self.machines[node].missed.get_or_insert_default();
    }

    /// Wakes a node, which hears at once what it has missed.
    pub fn wake(&mut self, node: NodeId) {
        for happening in self.machines[node].missed.take().into_iter().flatten() {
            self.later(Duration::ZERO, happening);
        }
    }

    // Everything.

    /// Nothing stands in anybody's way from now on, and whoever sleeps wakes. Sockets that are lost stay so.
    pub fn calm(&mut self) {
        self.stalled.clear();
        self.severed.clear();
        for node in 0..self.machines.len() {
            self.wake(node);
        }
    }
}

/// Changes a bit in the next long message.
fn alter_once() -> Tamper {
    let mut altered = false;
    Box::new(move |message| {
        if !altered && message.len() >= LONG {
            let middle = message.len() / 2;
            message[middle] ^= 1;
            altered = true;
        }
        true
    })
}

impl Machine {
    /// Whether it does anything.
    pub fn runs(&self) -> bool {
        !self.dead && self.missed.is_none()
    }
}
