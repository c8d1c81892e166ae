//! Which of the sessions with a peer is used, and what happens when one ends.

use super::{Action, Attached, Control, DRAIN, DRAIN_CHECK, PROBE, Peer, STEADY, Timer};
use crate::{
    Code, Name, Now,
    node::{
        Access,
        cell::SessionCell,
        dial::Dial,
        output::{Event, Failure, Output},
    },
    session::Operation,
    time::{Duration, Instant},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};

impl<T> Control<T> {
    // Sessions.

    /// A session is proved by both sides. Decides which of several sessions with one peer is used.
    pub(in super::super) fn attached(
        &mut self,
        cell: Arc<SessionCell<T>>,
        instance: [u8; 16],
        agent: Box<str>,
        now: Now,
    ) {
        // Whoever comes again goes on with the bucket that it had.
        if let Some(subject) = cell.subject() {
            let others = cell.peer.name.as_ref().map(|name| self.sessions_with(name));
            let others = others.into_iter().flatten().map(|other| other.requests());
            let known = self.standings.requests(&subject);
            cell.set_requests(Some(others.fold(known, Instant::max)));
        }
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        // It may have ended before its news came here, and then nobody would tell its end again.
        if cell.with_pipe(|session| session.is_ended()) {
            return;
        }
        // Admitted under a key that has been replaced since.
        let outdated = self
            .resolver
            .cached(&name, now.mono)
            .is_some_and(|resolved| resolved.record.key != cell.peer.key);
        if outdated {
            self.actions.push_back(Action::CloseSession {
                cell,
                code: Code::KeyMismatch,
            });
            return;
        }
        if self.check_ban(&name, now).is_err() {
            return self.end(cell, Code::Banned);
        }
        self.attempt_succeeded(&name, cell.pipe_id(), now.mono);
        let older = self
            .peers
            .get_or_insert_with(name.clone(), Peer::new)
            .current
            .clone();
        // Another process of that name has taken the place of the one whose sessions wait.
        if let Some(peer) = self.peers.get_mut(&name)
            && peer.parked.iter().any(|parked| parked.instance != instance)
        {
            for parked in core::mem::take(&mut peer.parked) {
                self.end(parked.cell, Code::Superseded);
            }
        }
        match older {
            None => self.install(name, cell, instance, agent, now),
            Some(old) => {
                let peer = self.peers.get(&name);
                // To each channel of a guest a peer names another instance.
                let same_instance = self.config.identity.name.is_none()
                    || peer.is_some_and(|peer| peer.instance == instance);
                let ours = |cell: &SessionCell<T>| cell.dialled();
                if !same_instance {
                    self.actions.push_back(Action::CloseSession {
                        cell: old,
                        code: Code::Superseded,
                    });
                    self.install(name, cell, instance, agent, now);
                } else if ours(&old) && ours(&cell) && (cell.over_circuit() || !old.over_circuit())
                {
                    // Two routes of one race: the first stays.
                    self.drain(cell, now.mono);
                    self.settle(&name, now);
                } else if !ours(&old) && !ours(&cell) {
                    // The side that dialled says which of the two it gives up; until then the newer one is used.
                    self.install(name.clone(), cell, instance, agent.clone(), now);
                    self.set_reserve(&name, (old, instance, agent), now.mono);
                } else if self.prefers(&name, &cell, &old) {
                    self.drain(old, now.mono);
                    self.install(name, cell, instance, agent, now);
                } else {
                    // Both sides dialled at once and agree on the older; but if its pipe is dead, only we believe in it.
                    self.actions.push_back(Action::Ping { cell: old });
                    self.timers
                        .insert((now.mono + PROBE, Timer::Probe(name.clone())));
                    self.set_reserve(&name, (cell, instance, agent), now.mono);
                    self.settle(&name, now);
                }
            }
        }
    }

    /// Keeps a session in reserve. There is one: whatever was there before finishes what it has begun.
    fn set_reserve(&mut self, name: &Name, reserve: Attached<T>, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let id = reserve.0.id;
        if let Some((earlier, ..)) = peer.reserve.replace(reserve)
            && earlier.id != id
        {
            self.drain(earlier, now);
        }
    }

    /// Closes every session with a peer, used or not, whose key is not `key`.
    pub(super) fn close_all(&mut self, name: &Name, key: Option<&[u8; 32]>, code: Code) {
        let outdated = self.sessions_with(name);
        let cells: Vec<_> = outdated
            .filter(|cell| Some(&cell.peer.key) != key)
            .collect();
        for cell in cells {
            self.end(cell, code);
        }
    }

    /// The peer will close this session: another one is used if there is one.
    pub(in super::super) fn going_away(&mut self, cell: &SessionCell<T>, now: Now) {
        let Some(name) = &cell.peer.name else { return };
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer
            .current
            .as_ref()
            .is_some_and(|current| current.id == cell.id)
            && let Some((reserve, instance, agent)) = peer.reserve.take()
        {
            self.install(name.clone(), reserve, instance, agent, now);
        } else if peer
            .reserve
            .as_ref()
            .is_some_and(|(reserve, ..)| reserve.id == cell.id)
        {
            // The peer gives the same one up as we do, so the other is not dead there either.
            peer.reserve = None;
        }
    }

    /// Of two sessions begun from opposite sides, both sides prefer the one that is over no circuit, and otherwise the
    /// one begun by the lower name hash.
    pub(super) fn prefers(
        &self,
        name: &Name,
        cell: &SessionCell<T>,
        other: &SessionCell<T>,
    ) -> bool {
        if cell.over_circuit() != other.over_circuit() {
            return other.over_circuit();
        }
        let Some(me) = &self.config.identity.name else {
            return true;
        };
        (me.hash() < name.hash()) == cell.dialled()
    }

    pub(super) fn install(
        &mut self,
        name: Name,
        cell: Arc<SessionCell<T>>,
        instance: [u8; 16],
        agent: Box<str>,
        now: Now,
    ) {
        let record = self.resolver.cached(&name, now.mono);
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        peer.record = record.or_else(|| peer.record.take());
        peer.current = Some(cell.clone());
        peer.instance = instance;
        peer.superseded = false;
        peer.agent = agent;
        peer.attached_at = now.mono;
        let waiting = core::mem::take(&mut peer.waiting);
        self.settle(&name, now);
        self.watch_used(&name, now.mono);
        for operation in waiting {
            self.actions.push_back(Action::Perform {
                cell: cell.clone(),
                operation,
            });
        }
        self.actions.push_back(Action::Ping { cell });
        self.tell(&name, now.mono);
        self.update_reachable();
        self.bound_outbound(&name);
    }

    /// Closes what nobody has used for longest, when more peers than a node needs have been dialled. `but` has just come.
    fn bound_outbound(&mut self, but: &Name) {
        if self.config.router.host != Access::Nobody {
            return;
        }
        let mut dialled = 0;
        let mut idle: Option<(Instant, &Arc<SessionCell<T>>)> = None;
        for (name, peer) in self.peers.iter() {
            let Some(cell) = peer.current.as_ref().filter(|cell| cell.dialled()) else {
                continue;
            };
            if peer.router {
                continue;
            }
            dialled += 1;
            if name != but
                && !peer.wanted()
                && idle.is_none_or(|(used, _)| peer.used < used)
                && cell.with_pipe(|session| session.is_idle() && !session.is_closing())
            {
                idle = Some((peer.used, cell));
            }
        }
        if dialled > self.config.limits.outbound_peers
            && let Some((_, cell)) = idle
        {
            let cell = cell.clone();
            self.end(cell, Code::Idle);
        }
    }

    /// A session is over. What it never sent goes to the next one.
    pub(in super::super) fn session_closed(
        &mut self,
        cell: &SessionCell<T>,
        unsent: Vec<Operation<T>>,
        code: Code,
        retry: Option<Duration>,
        now: Now,
    ) {
        self.draining.remove(&cell.id);
        if let Some(subject) = cell.subject() {
            self.standings.set_requests(&subject, cell.requests(), now);
        }
        let Some(name) = cell.peer.name.clone() else {
            for operation in unsent {
                self.fail(operation, Failure::offline(code));
            }
            return;
        };
        let peer = self.peers.get_or_insert_with(name.clone(), Peer::new);
        if peer
            .reserve
            .as_ref()
            .is_some_and(|(reserve, ..)| reserve.id == cell.id)
        {
            peer.reserve = None;
        }
        let is_current = peer
            .current
            .as_ref()
            .is_some_and(|current| current.id == cell.id);
        let before = peer.parked.len();
        peer.parked.retain(|parked| parked.cell.id != cell.id);
        let was_parked = peer.parked.len() < before;
        if !is_current && (peer.current.is_some() || !was_parked) {
            self.attempt_failed(&name, cell.pipe_id(), code, retry, now);
            for operation in unsent {
                self.submit(name.clone(), operation, now);
            }
            return self.forget_idle(&name);
        }
        self.lose(&name, unsent, now.mono);
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if let Some((reserve, instance, agent)) = peer.reserve.take() {
            return self.install(name, reserve, instance, agent, now);
        }
        peer.current = None;
        if code == Code::Superseded {
            // Another process took our name: fighting over it would only make both unreachable. That is what this peer
            // says, and holds for it alone.
            peer.superseded = true;
            if peer.router {
                self.out(Output::Event(Event::Identity(Code::Superseded)));
            }
        }
        self.watch_used(&name, now.mono);
        self.update_reachable();
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if was_parked && !matches!(peer.dial, Dial::Idle) {
            // It is looked for already.
            self.tell(&name, now.mono);
        } else if peer.wanted() {
            self.dial_again(&name, retry, code, now);
        } else {
            self.tell_offline(&name, code, None);
            self.forget_idle(&name);
        }
    }

    /// The session in use is over, or waits. What it never sent waits for the next.
    pub(super) fn lose(&mut self, name: &Name, unsent: Vec<Operation<T>>, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        for operation in unsent.into_iter().rev() {
            self.timers
                .insert((operation.deadline(), Timer::Waiting(name.clone())));
            peer.waiting.push_front(operation);
        }
        if now.since(peer.attached_at) >= STEADY {
            peer.failures = 0;
        }
    }

    /// A name is watched for changes as long as there is a session that is in use, or may be again.
    pub(super) fn watch_used(&mut self, name: &Name, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let used = peer.current.is_some() || !peer.parked.is_empty();
        if core::mem::replace(&mut peer.watched, used) != used {
            if used {
                self.resolver.watch(name, now);
            } else {
                self.resolver.unwatch(name);
            }
        }
    }

    // Several sessions with one peer.

    /// Nothing new is begun on this session, on either side; it closes once everything under way is done.
    pub(super) fn drain(&mut self, cell: Arc<SessionCell<T>>, now: Instant) {
        self.actions
            .push_back(Action::Retire { cell: cell.clone() });
        self.timers
            .insert((now + DRAIN_CHECK, Timer::Drain(cell.id)));
        self.draining.insert(cell.id, (cell, now + DRAIN));
    }

    pub(super) fn drain_due(&mut self, id: u64, now: Instant) {
        let Some((cell, until)) = self.draining.get(&id) else {
            return;
        };
        if *until <= now || cell.with_pipe(|session| session.is_idle()) {
            let cell = cell.clone();
            self.actions.push_back(Action::CloseSession {
                cell,
                code: Code::Duplicate,
            });
        } else {
            self.timers.insert((now + DRAIN_CHECK, Timer::Drain(id)));
        }
    }

    pub(super) fn probe_due(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Some((reserve, instance, agent)) = peer.reserve.take() else {
            return;
        };
        let Some(current) = peer.current.clone() else {
            return;
        };
        let alive = now
            .mono
            .since(current.with_pipe(|session| session.last_received()))
            < PROBE;
        if alive {
            self.drain(reserve, now.mono);
        } else {
            self.drain(current, now.mono);
            self.install(name.clone(), reserve, instance, agent, now);
        }
    }
}
