//! What is on its way, and in which order it comes: first in, first out within a pipe, and between pipes as it happens.

use crate::{
    dice::mix,
    network::Happening,
    simulation::Simulation,
    world::{NodeId, Token},
};
use node_core::{Instant, crypto, node::Node, time::Duration};
use std::collections::BTreeMap;

/// What is on its way, by the time of its arrival.
#[derive(Default)]
pub(crate) struct Queue {
    happenings: BTreeMap<(Instant, u64, u64), Happening>,
    next: u64,
}

impl Queue {
    pub(crate) fn first(&self) -> Option<Instant> {
        self.happenings.first_key_value().map(|((at, ..), _)| *at)
    }

    fn take_due(&mut self, now: Instant) -> Option<Happening> {
        let first = self.happenings.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// What arrives at one time comes by rank, and of one rank in the order in which it was sent.
    fn insert(&mut self, at: Instant, rank: u64, happening: Happening) {
        self.next += 1;
        self.happenings.insert((at, rank, self.next), happening);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.happenings.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.happenings.clear();
    }
}

impl Simulation {
    /// The next time at which anything happens.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        let awake = self.machines.iter().filter(|machine| machine.runs());
        let timers = awake.filter_map(|machine| machine.node.deadline());
        timers.chain(self.queue.first()).min()
    }

    /// Lets happen what is due.
    pub(crate) fn step(&mut self) {
        let mut due: Vec<NodeId> = (0..self.machines.len())
            .filter(|id| self.machines[*id].runs() && self.is_due(&self.machines[*id].node))
            .collect();
        due.sort_by_key(|id| self.rank(*id as u64));
        for id in due {
            // What another one does may end it.
            if self.machines[id].runs() {
                self.act(id, |node, now, out| node.handle_timeout(now, out));
            }
        }
        while let Some(happening) = self.queue.take_due(self.now) {
            self.happen(happening);
            if self.shuffled && self.dice.once_in(2) {
                // Somebody sends before the rest arrives.
                return;
            }
        }
    }

    fn is_due(&self, node: &Node<Token>) -> bool {
        node.deadline().is_some_and(|at| at <= self.now)
    }

    /// Lets something happen after a delay.
    pub(crate) fn later(&mut self, delay: Duration, happening: Happening) {
        let rank = self.rank(0);
        self.queue.insert(self.now + delay, rank, happening);
    }

    /// Puts something on its way to a socket: it arrives after everything that was sent there before.
    pub(crate) fn carry(&mut self, socket: usize, happening: Happening) {
        let mut delay = self.way(socket);
        if self.jitter > Duration::ZERO {
            let jitter = self.dice.roll(self.jitter.as_micros() as u64);
            delay += Duration::from_micros(jitter);
        }
        let at = (self.now + delay).max(self.sockets[socket].last);
        self.sockets[socket].last = at;
        let rank = if self.shuffled {
            mix(at.as_micros() ^ mix(socket as u64 ^ self.salt()))
        } else {
            0
        };
        self.queue.insert(at, rank, happening);
    }

    /// Sockets that may have something to send, in the order in which they are asked now.
    pub(crate) fn senders(&self) -> Vec<usize> {
        let woken = |socket: &usize| self.sockets[*socket].is_woken();
        let mut senders: Vec<usize> = self.live.iter().copied().filter(woken).collect();
        senders.sort_unstable_by_key(|socket| (self.rank(*socket as u64), *socket));
        senders
    }

    /// Where something stands among whatever happens now.
    fn rank(&self, of: u64) -> u64 {
        match self.shuffled {
            true => mix(self.now.as_micros() ^ mix(of ^ self.salt())),
            false => 0,
        }
    }

    /// Writes down what happens, where that is wanted.
    pub(crate) fn note(&mut self, parts: &[&[u8]]) {
        if let Some(trace) = &mut self.trace {
            let now = self.now.as_micros().to_be_bytes();
            let mut all: Vec<&[u8]> = vec![&trace[..], &now];
            all.extend(parts);
            *trace = crypto::hash(&all);
        }
    }
}
