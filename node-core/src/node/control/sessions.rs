//! Which of the sessions with a peer is used, and what happens when one ends.

use super::{
    Action, Attached, COMPARE_CHECK, Control, DRAIN, DRAIN_CHECK, DRAINING, OTHERS, PROBE, Peer,
    STEADY, Timer, route_of,
};
use crate::{
    Code, Name, Now,
    node::{
        Access,
        cell::{PipeCell, SessionCell},
        dial::Dial,
        output::{Event, Failure, Output, Route},
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
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        // It may have ended before its news came here, and then nobody would tell its end again.
        if cell.with_pipe(|session| session.is_ended()) {
            return;
        }
        if let Err(code) = self.may_stay(&name, &cell.peer.key, now) {
            return self.end(cell, code);
        }
        self.attempt_succeeded(&name, cell.pipe_id(), now.mono);
        let session = (cell, instance, agent);
        let peer = self.peers.get_or_insert_with(name.clone(), Peer::new);
        // To each channel of a guest a peer names another instance.
        let another = self.config.identity.name.is_some() && peer.instance != instance;
        // Somebody on the way may hold back what a process that is gone has said, until the next one is there.
        if another && (1..peer.since).contains(&session.0.pipe_id()) {
            return self.end(session.0, Code::Superseded);
        }
        // Another process of that name has taken the place of the one whose sessions wait.
        if another || peer.parked.iter().any(|parked| parked.instance != instance) {
            for parked in core::mem::take(&mut peer.parked) {
                self.end(parked.cell, Code::Superseded);
            }
        }
        if another {
            // Those that finish what they have begun as well: no process stays by retiring its sessions.
            self.close_all(&name, None, Code::Superseded);
        }
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if another {
            peer.since = session.0.pipe_id();
            peer.current = None;
            peer.others.clear();
        }
        match &peer.current {
            None => self.install(&name, session, now),
            // The peer will close the one that there is.
            Some(older) if older.with_pipe(|session| session.is_left()) => {
                self.replace(&name, session, now);
            }
            Some(_) => self.rival(&name, session, now),
        }
    }

    /// Whether nothing was found out against a peer since it was let in, or dialled: its key may have been replaced, its name
    /// sold or banned.
    pub(super) fn may_stay(&self, name: &Name, key: &[u8; 32], now: Now) -> Result<(), Code> {
        if let Some(read) = self.resolver.last_read(name, now.mono) {
            self.judge(name, key, read).map_err(|error| error.code)?;
        }
        self.check_ban(name, now).map_err(|error| error.code)
    }

    /// Closes every session with a peer, used or not, whose key is not `key`.
    pub(super) fn close_all(&mut self, name: &Name, key: Option<&[u8; 32]>, code: Code) {
        for cell in self.sessions_with(name) {
            if Some(&cell.peer.key) != key {
                self.end(cell, code);
            }
        }
    }

    /// The peer begins nothing more on this session: another one is used if there is one. One that it only `retires` is not
    /// used in any case: the peer closes it as soon as nothing is under way, whatever is on its way by then.
    pub(in super::super) fn going_away(
        &mut self,
        cell: &Arc<SessionCell<T>>,
        retires: bool,
        now: Now,
    ) {
        if self.draining.contains_key(&cell.id) {
            self.drained(cell.id, now.mono);
            return;
        }
        if let Some(name) = cell.peer.name.clone()
            && let Some(peer) = self.peers.get_mut(&name)
        {
            let is_it = |other: &Arc<SessionCell<T>>| other.id == cell.id;
            if peer.current.as_ref().is_some_and(is_it) {
                let (instance, agent) = (peer.instance, peer.agent.clone());
                if let Some(next) = peer.next() {
                    self.replace(&name, next, now);
                } else if retires && let Some(other) = self.drained_unsaid(&name) {
                    self.draining.remove(&other.id);
                    self.replace(&name, (other, instance, agent), now);
                } else if retires {
                    self.let_go(&name, now);
                }
                // As long as there is no other, it is used until its end.
                return;
            }
            peer.others.retain(|(other, ..)| !is_it(other));
        }
        self.drain(cell.clone(), now.mono);
    }

    /// A session that drains although neither side has said so: it is the one that the peer uses if it gives up the other.
    fn drained_unsaid(&self, name: &Name) -> Option<Arc<SessionCell<T>>> {
        let unsaid = |cell: &&Arc<SessionCell<T>>| {
            let said = cell.with_pipe(|session| {
                session.is_left() || session.is_retired() || session.is_closing()
            });
            cell.peer.name.as_ref() == Some(name) && !said
        };
        let mut draining = self.draining.values().map(|(cell, _)| cell);
        draining.find(unsaid).cloned()
    }

    /// The session in use finishes what it has, and is used no more; another one is looked for if anybody needs it.
    pub(super) fn let_go(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Some(cell) = peer.current.take() else {
            return;
        };
        let wanted = peer.wanted();
        self.drain(cell, now.mono);
        self.watch_used(name, now.mono);
        self.update_reachable();
        if wanted {
            self.dial_again(name, None, Code::Idle, now);
        } else {
            self.tell_offline(name, Code::Idle, None);
            self.forget_idle(name);
        }
    }

    /// Another session is used; the one before finishes what it has.
    fn replace(&mut self, name: &Name, by: Attached<T>, now: Now) {
        let former = self.current(name);
        self.install(name, by, now);
        if let Some(former) = former {
            self.drain(former, now.mono);
        }
    }

    pub(super) fn install(&mut self, name: &Name, (cell, instance, agent): Attached<T>, now: Now) {
        // It was fresh when the peer was let in, which may be a while ago.
        let record = self.resolver.last_read(name, now.mono);
        let record = record.and_then(Result::ok);
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.record = record.or_else(|| peer.record.take());
        peer.current = Some(cell.clone());
        peer.instance = instance;
        peer.superseded = false;
        peer.agent = agent;
        peer.attached_at = now.mono;
        peer.stood_back = false;
        self.settle(name, now);
        self.watch_used(name, now.mono);
        self.begin_waiting(name);
        let dialled = cell.dialled();
        self.actions.push_back(Action::Ping { cell });
        self.tell(name, now.mono);
        self.update_reachable();
        if dialled {
            self.bound_outbound(name, now);
        }
    }

    /// Closes what we have not used for longest, when more peers than a node needs have been dialled: what a peer has begun goes
    /// on, and keeps no place. `but` has just come.
    fn bound_outbound(&mut self, but: &Name, now: Now) {
        if self.config.router.host != Access::Nobody {
            return;
        }
        let mut dialled = 0;
        let mut idle: Option<(Instant, &Name)> = None;
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
                && peer.others.is_empty()
                && idle.is_none_or(|(used, _)| peer.used < used)
                && cell.with_pipe(|session| session.is_spare() && !session.is_closing())
            {
                idle = Some((peer.used, name));
            }
        }
        if dialled > self.config.limits.outbound_peers
            && let Some((_, name)) = idle
        {
            let name = name.clone();
            self.let_go(&name, now);
        }
    }

    /// A session is over. What it never sent goes to the next one.
    pub(in super::super) fn session_closed(
        &mut self,
        cell: &SessionCell<T>,
        mut unsent: Vec<Operation<T>>,
        code: Code,
        retry: Option<Duration>,
        now: Now,
    ) {
        self.draining.remove(&cell.id);
        self.unpark(cell.id);
        self.keep_rates(cell, now);
        // What was meant for the owner of a name before is for nobody else. Of a session that has just begun anybody can say so.
        let proved = || cell.with_pipe(|session| session.is_attached() || session.is_parked());
        let sold = code == Code::EpochChanged && proved();
        if sold || cell.peer.name.is_none() {
            for operation in core::mem::take(&mut unsent) {
                self.fail(operation, Failure::offline(code));
            }
        }
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        let peer = self.peers.get_or_insert_with(name.clone(), Peer::new);
        peer.others.retain(|(other, ..)| other.id != cell.id);
        let is_current = peer
            .current
            .as_ref()
            .is_some_and(|current| current.id == cell.id);
        let before = peer.parked.len();
        peer.parked.retain(|parked| parked.cell.id != cell.id);
        let was_parked = peer.parked.len() < before;
        let here = cell.with_pipe(|session| session.is_superseded_here());
        if code == Code::Superseded
            && !here
            && (is_current || peer.current.is_none())
            && peer.others.is_empty()
        {
            // Another process took our name: fighting over it would only make both unreachable. That is what this peer
            // says, and holds for it alone.
            peer.superseded = true;
            if peer.router {
                self.out(Output::Event(Event::Identity(code)));
            }
        }
        let Some(peer) = self.peers.get(&name) else {
            return;
        };
        if !is_current && (peer.current.is_some() || !was_parked) {
            self.attempt_failed(&name, cell.pipe_id(), code, retry, now);
            for operation in unsent {
                self.submit(name.clone(), operation, now);
            }
            self.watch_used(&name, now.mono);
            return self.forget_idle(&name);
        }
        self.lose(&name, cell.pipe().as_deref(), unsent, now.mono);
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if let Some(next) = peer.next() {
            return self.install(&name, next, now);
        }
        peer.current = None;
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
    pub(super) fn lose(
        &mut self,
        name: &Name,
        pipe: Option<&PipeCell<T>>,
        unsent: Vec<Operation<T>>,
        now: Instant,
    ) {
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
        } else if let route @ Route::Via(_) = route_of(pipe) {
            // A router that lets handshakes through may spoil whatever follows.
            self.note_silence(name, route);
        }
    }

    /// A name is watched for changes as long as there is a session with it: who retires one may keep it open.
    pub(super) fn watch_used(&mut self, name: &Name, now: Instant) {
        let used = !self.sessions_with(name).is_empty();
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if core::mem::replace(&mut peer.watched, used) != used {
            if used {
                self.resolver.watch(name, now);
            } else {
                self.resolver.unwatch(name);
            }
        }
    }

    // Several sessions with one peer.

    /// There is a session beside the one in use.
    pub(super) fn rival(&mut self, name: &Name, session: Attached<T>, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.others.push(session);
        let oldest = (peer.others.len() > OTHERS).then(|| peer.others.remove(0));
        if let Some((cell, ..)) = oldest {
            self.drain(cell, now.mono);
        }
        self.compare(name, now);
    }

    /// There are several sessions with a peer: finds out on which of them it is there.
    fn compare(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.compared = now.mono;
        let mut pings: Vec<_> = peer.current.iter().cloned().collect();
        pings.extend(peer.others.iter().map(|(cell, ..)| cell.clone()));
        for cell in pings {
            self.actions.push_back(Action::Ping { cell });
        }
        self.compare_later(name, now.mono);
        self.settle(name, now);
    }

    /// Of several sessions the one that is over no circuit is used, and among equals the oldest, once the peer has shown
    /// that it is there. One of the two sides then gives the others up: that of the lower name hash, or who has no name.
    pub(super) fn compare_due(&mut self, name: &Name, now: Now) {
        let decides = self.decides(name);
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Some(current) = peer.current.clone().filter(|_| !peer.others.is_empty()) else {
            return;
        };
        let at = peer
            .others
            .iter()
            .position(|(cell, ..)| !cell.over_circuit());
        let better = at.filter(|_| current.over_circuit());
        let preferred = better.map_or(&current, |at| &peer.others[at].0);
        let alive = preferred
            .with_pipe(|session| session.is_confirmed() && session.last_received() > peer.compared);
        let silent = now.mono.since(peer.compared) >= PROBE;
        if alive && let Some(at) = better {
            let others = peer.others.remove(at);
            let former = (current, peer.instance, peer.agent.clone());
            peer.others.insert(0, former);
            self.install(name, others, now);
        } else if !alive && silent {
            // It is not used, and not lost either: what is under way may still be answered.
            let next = peer.others.remove(better.unwrap_or_default());
            match better {
                Some(_) => self.drain(next.0, now.mono),
                None => self.replace(name, next, now),
            }
            return self.compare(name, now);
        }
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if !alive {
            self.compare_later(name, now.mono);
        } else if decides {
            for (cell, ..) in core::mem::take(&mut peer.others) {
                self.drain(cell, now.mono);
            }
        }
    }

    /// Looks once more, once, however often it was asked for.
    fn compare_later(&mut self, name: &Name, now: Instant) {
        if let Some(peer) = self.peers.get_mut(name) {
            let at = now + COMPARE_CHECK;
            let before = core::mem::replace(&mut peer.compare_at, at);
            self.timers.remove(&(before, Timer::Compare(name.clone())));
            self.timers.insert((at, Timer::Compare(name.clone())));
        }
    }

    /// Whether it is for us to say which of several sessions with a peer are given up.
    fn decides(&self, name: &Name) -> bool {
        let me = self.config.identity.name.as_ref();
        me.is_none_or(|me| me.hash() < name.hash())
    }

    /// Nothing new is begun on this session; it closes once everything under way on both sides is done. Who decides says so
    /// at once. The other side says so when it has nothing under way any more: that is what is waited for.
    pub(super) fn drain(&mut self, cell: Arc<SessionCell<T>>, now: Instant) {
        let id = cell.id;
        // Its end was told, and nobody would tell it again.
        if cell.with_pipe(|session| session.is_ended()) {
            return;
        }
        let said = self.gives_up(&cell);
        if said {
            self.actions
                .push_back(Action::Retire { cell: cell.clone() });
        }
        let until = said.then_some(now + DRAIN);
        let dialled = cell.dialled();
        self.draining.insert(id, (cell, until));
        if dialled {
            self.bound_draining();
        }
        self.drained(id, now);
        self.drain_later(now);
    }

    /// Looks at all that drain once more, once, however many there are and however often one begins to.
    fn drain_later(&mut self, now: Instant) {
        if !core::mem::replace(&mut self.drains, true) {
            self.timers.insert((now + DRAIN_CHECK, Timer::Drain));
        }
    }

    /// A peer may keep a session that drains open for as long as it likes, and have us dial for the next. Of too many that we
    /// have dialled one ends: the oldest of whoever has most.
    fn bound_draining(&mut self) {
        let open = |cell: &&Arc<SessionCell<T>>| {
            cell.dialled() && !cell.with_pipe(|session| session.is_closing())
        };
        let cells = self.draining.values().map(|(cell, _)| cell);
        let cells: Vec<_> = cells.filter(open).cloned().collect();
        if cells.len() > DRAINING {
            let of_same = |cell: &&Arc<SessionCell<T>>| {
                let name = &cell.peer.name;
                cells
                    .iter()
                    .filter(|other| other.peer.name == *name)
                    .count()
            };
            // Of equals the last is taken.
            if let Some(oldest) = cells.iter().rev().max_by_key(of_same) {
                self.end(oldest.clone(), Code::Overloaded);
            }
        }
    }

    /// Whether it is for us to close a session that drains. Who decides says at once that it begins nothing more, which may
    /// overtake what is under way: the other side takes that for no end.
    pub(super) fn gives_up(&self, cell: &SessionCell<T>) -> bool {
        let name = cell.peer.name.as_ref();
        name.is_some_and(|name| self.decides(name))
    }

    pub(super) fn drain_due(&mut self, now: Instant) {
        self.drains = false;
        let ids: Vec<u64> = self.draining.keys().copied().collect();
        for id in ids {
            self.drained(id, now);
        }
        if !self.draining.is_empty() {
            self.drain_later(now);
        }
    }

    /// Says what is to be said on a session that drains, and ends it when it is over.
    fn drained(&mut self, id: u64, now: Instant) {
        let Some((cell, until)) = self.draining.get(&id) else {
            return;
        };
        let (cell, until) = (cell.clone(), *until);
        let (closing, quiet, idle, left, unanswered) = cell.with_pipe(|session| {
            (
                session.is_closing(),
                session.is_quiet(),
                session.is_idle(),
                session.is_left(),
                session.awaits_pong(),
            )
        });
        if closing {
            return;
        }
        // Nobody waits longer for a word that does not come, or for circuits, over which nothing is lost; but whoever has not
        // answered since he was told may not know, or what he has begun may not have come.
        let late = until.is_some_and(|until| until <= now) && !unanswered;
        let over = (quiet && late) || (idle && left && self.gives_up(&cell));
        if over {
            let used = cell.peer.name.as_ref().is_some_and(|name| {
                self.peers
                    .get(name)
                    .is_some_and(|peer| peer.current.is_some())
            });
            let code = if used { Code::Duplicate } else { Code::Idle };
            self.end(cell, code);
        } else if idle && until.is_none() {
            self.draining.insert(id, (cell.clone(), Some(now + DRAIN)));
            self.actions.push_back(Action::Retire { cell });
        }
    }
}
