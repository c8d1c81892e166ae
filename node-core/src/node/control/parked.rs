//! Sessions that have lost their pipe: how long they wait, who looks for another, and what ends them.

use super::{Action, Control, route_of};
use crate::{
    Code, Name, Now, channel,
    node::{
        cell::{PipeCell, PipeKind, SessionCell, Target},
        dial::{Attempt, Dial, Stage, backoff},
    },
    session::Operation,
    time::{Duration, Instant},
    wire::frame::Attach,
};
use alloc::{sync::Arc, vec::Vec};

/// The side that dialled comes back at once. The other one gives it this long before it dials itself.
const COURTESY: Duration = Duration::from_secs(1);

/// A peer that was asked to go on with a session answers within this time, or twice that which its handshake took, or another
/// route is tried.
const RESUME_WITHIN: Duration = Duration::from_secs(2);

/// Sessions with one name that may wait: the one in use, one that it has replaced and that is not through yet, and those that
/// two who dial each other at once begin before either knows of the other's.
const PER_NAME: usize = 4;

/// A session that waits for another pipe.
pub(super) struct Parked<T> {
    pub(super) cell: Arc<SessionCell<T>>,
    pub(super) instance: [u8; 16],
    /// What became of its pipe.
    pub(super) reason: Code,
    /// Whether we look for a pipe, instead of waiting for the peer to do so.
    pub(super) dial: bool,
    /// Whether the peer was hidden when that was decided: another thread may be about to go on with the session.
    pub(super) hidden: bool,
}

/// A session that waits, among those of all peers.
pub(super) struct Waiting<T> {
    id: u64,
    /// Bytes, when it was last counted.
    held: usize,
    cell: Arc<SessionCell<T>>,
}

/// The session to go on with, if there is one, and how long the peer has to answer.
type Found<T> = (Option<Arc<SessionCell<T>>>, Duration);

impl<T> Control<T> {
    /// Whether a session that loses its pipe is kept: any with a named peer as long as we have a name as well, but one that
    /// neither side needs any more.
    pub(in super::super) fn keeps(&self, cell: &SessionCell<T>) -> bool {
        let needed = || cell.with_pipe(|session| !session.is_idle() || !session.is_left());
        !self.closed
            && self.config.identity.name.is_some()
            && cell
                .peer
                .name
                .as_ref()
                .is_some_and(|name| self.peers.contains_key(name))
            && (!self.draining.contains_key(&cell.id) || !self.gives_up(cell) || needed())
    }

    /// Every session with a peer.
    pub(in super::super) fn used(&self, name: &Name) -> Vec<Arc<SessionCell<T>>> {
        let mut used = self.sessions_with(name);
        let peer = self.peers.get(name);
        used.extend(peer.and_then(|peer| peer.beginning.upgrade()));
        used
    }

    /// The session to go on with over a channel that we began on `pipe`, whose other end has proved to be the peer. An
    /// error while another route was asked already, or if none is needed any more: the pipe is held back.
    pub(in super::super) fn session_for(
        &mut self,
        to: &Target,
        pipe: u64,
        now: Now,
    ) -> Result<Found<T>, ()> {
        let Some(peer) = self.peers.get_mut(&to.name) else {
            return Ok((None, RESUME_WITHIN));
        };
        // A guest is nobody to come back as: the peer would not know it, and its session would be over.
        let named = self.config.identity.name.is_some();
        let same = |cell: &&Arc<SessionCell<T>>| named && cell.peer.key == to.key;
        let mut parked = peer.parked.iter().rev().map(|parked| &parked.cell);
        // Two that dial each other at once: the peer, who began the session, may not have heard yet that it has one.
        let confirmed =
            |cell: &&Arc<SessionCell<T>>| cell.with_pipe(|session| session.is_confirmed());
        let current = || peer.current.as_ref().filter(confirmed).filter(same);
        let found = parked.find(same).or_else(current).cloned();
        if found.is_some() && peer.is_reached() {
            self.settle(&to.name, now);
            return Err(());
        }
        if found.is_none() && self.begins_nothing(&to.name).is_some() {
            self.actions.push_back(Action::AbandonPipe { pipe });
            return Err(());
        }
        let Some(peer) = self.peers.get_mut(&to.name) else {
            return Ok((None, RESUME_WITHIN));
        };
        let Dial::Racing(race) = &mut peer.dial else {
            return Ok((found, RESUME_WITHIN));
        };
        let asked = |attempt: &Attempt| attempt.stage == Stage::Asked && attempt.pipe != pipe;
        let stage = match &found {
            None => Stage::Proved,
            Some(_) if race.attempts.iter().any(asked) => Stage::Held,
            Some(_) => Stage::Asked,
        };
        let mut within = RESUME_WITHIN;
        if let Some(attempt) = race.attempts.iter_mut().find(|a| a.pipe == pipe) {
            if attempt.stage == Stage::Handshake {
                attempt.handshake = now.mono.since(attempt.began);
            }
            attempt.stage = stage;
            within = within.max(attempt.handshake * 2);
        }
        if stage == Stage::Held {
            return Err(());
        }
        Ok((found, within.min(self.config.limits.handshake_timeout)))
    }

    /// The session that a peer wants to go on with. An error if another process of its name has taken its place.
    pub(in super::super) fn presented(
        &self,
        by: &channel::Peer,
        attach: &Attach,
        now: Instant,
    ) -> Result<Option<Arc<SessionCell<T>>>, Code> {
        let Some(name) = &by.name else {
            return Ok(None);
        };
        let Some(peer) = self.peers.get(name) else {
            return Ok(None);
        };
        let known = self.resolver.cached(name, now);
        let outdated = known.is_some_and(|known| peer.is_outdated(&known, &by.key));
        let found = self
            .sessions_with(name)
            .into_iter()
            .find(|cell| cell.sid == attach.sid && cell.peer.key == by.key);
        match found {
            Some(cell) => Ok((!outdated).then_some(cell)),
            None if peer.current.is_some() && peer.instance != attach.instance => {
                Err(Code::Superseded)
            }
            None => Ok(None),
        }
    }

    /// Every session with a peer, whatever it is used for.
    pub(super) fn sessions_with(&self, name: &Name) -> Vec<Arc<SessionCell<T>>> {
        let mut sessions = Vec::new();
        if let Some(peer) = self.peers.get(name) {
            sessions.extend(peer.current.clone());
            sessions.extend(peer.parked.iter().map(|parked| parked.cell.clone()));
            sessions.extend(peer.others.iter().map(|(cell, ..)| cell.clone()));
        }
        let draining = self.draining.values().map(|(cell, _)| cell);
        sessions.extend(
            draining
                .filter(|cell| cell.peer.name.as_ref() == Some(name))
                .cloned(),
        );
        sessions
    }

    /// Nothing comes over a session's pipe although something is due, or it is old: another pipe is looked for while this
    /// one stays, and is given the time that it may need. What brings it on first is used.
    pub(in super::super) fn pipe_wanted(&mut self, cell: &Arc<SessionCell<T>>, now: Now) {
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        let is_current = self.current(&name).is_some_and(|used| used.id == cell.id);
        // The other side looks as well. A guest cannot go on over another pipe.
        let peer = self.peers.get(&name);
        let asked = peer.is_some_and(|peer| !peer.waiting.is_empty());
        let ours = asked || cell.is_ours_to_keep(cell.dialled());
        if !is_current || !ours || self.closed || self.config.identity.name.is_none() {
            return;
        }
        if cell.with_pipe(|session| session.is_suspected()) {
            if let Some(pipe) = cell.pipe()
                && let PipeKind::Circuit { hop, .. } = &pipe.kind
            {
                // It may be the router that is gone.
                let cell = hop.clone();
                self.actions.push_back(Action::Ping { cell });
            }
            self.note_silence(&name, route_of(cell.pipe().as_deref()));
        }
        self.ensure(&name, now);
    }

    /// A session waits for another pipe. What it never sent goes over whatever session there is first.
    pub(in super::super) fn session_parked(
        &mut self,
        cell: &Arc<SessionCell<T>>,
        lost: &PipeCell<T>,
        unsent: Vec<Operation<T>>,
        code: Code,
        now: Now,
    ) {
        let dialled = lost.target.is_some();
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        let is_current = self
            .current(&name)
            .is_some_and(|current| current.id == cell.id);
        let hidden = cell.is_hidden();
        let ours = cell.is_ours_to_keep(dialled);
        let still = cell.with_pipe(|session| session.is_parked());
        let peer = self.peers.get_mut(&name).filter(|_| still);
        let Some(peer) = peer else {
            // Another thread was faster.
            for operation in unsent {
                self.submit(name.clone(), operation, now);
            }
            return;
        };
        self.draining.remove(&cell.id);
        let parked = Parked {
            cell: cell.clone(),
            instance: peer.instance,
            reason: code,
            dial: ours,
            hidden,
        };
        peer.parked.retain(|parked| parked.cell.id != cell.id);
        peer.parked.push(parked);
        let oldest = (peer.parked.len() > PER_NAME).then(|| {
            // First one that only the peer may need.
            let idle = |parked: &Parked<T>| parked.cell.with_pipe(|session| session.is_idle());
            let at = peer.parked.iter().position(idle);
            peer.parked.remove(at.unwrap_or_default())
        });
        if is_current {
            peer.current = None;
        }
        peer.others.retain(|(other, ..)| other.id != cell.id);
        if let Some(oldest) = oldest {
            self.unpark(oldest.cell.id);
            self.end(oldest.cell, code);
        }
        self.unpark(cell.id);
        self.parked.push(Waiting {
            id: cell.id,
            held: 0,
            cell: cell.clone(),
        });
        self.bound_parked(cell);
        let delay = if dialled { None } else { Some(COURTESY) };
        if !is_current {
            for operation in unsent {
                self.submit(name.clone(), operation, now);
            }
            return self.dial_again(&name, delay, code, now);
        }
        self.lose(&name, Some(lost), unsent, now.mono);
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if let Some(next) = peer.next() {
            return self.install(&name, next, now);
        }
        self.tell(&name, now.mono);
        self.update_reachable();
        self.dial_again(&name, delay, code, now);
    }

    /// A session goes on over another pipe.
    pub(in super::super) fn resumed(
        &mut self,
        cell: &Arc<SessionCell<T>>,
        pipe: &PipeCell<T>,
        now: Now,
    ) {
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        self.attempt_succeeded(&name, pipe.id, now.mono);
        if !cell.is_on(pipe) {
            return;
        }
        self.unpark(cell.id);
        let drains = self.draining.contains_key(&cell.id);
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        let before = peer.parked.len();
        // One that drains may have begun to while it waited.
        peer.parked.retain(|parked| parked.cell.id != cell.id);
        let waited = peer.parked.len() < before;
        let current = peer.current.as_ref().map(|current| current.id);
        let session = (cell.clone(), peer.instance, peer.agent.clone());
        if drains && self.gives_up(cell) {
            // That it drains was said on the channel before, and may have come after the peer had left that one.
            self.drain(cell.clone(), now.mono);
            // What it was looked for for has to be looked for anew.
            return self.settle(&name, now);
        }
        // Whose it is to give it up says so anew, or uses it again.
        self.draining.remove(&cell.id);
        match current {
            Some(id) if id == cell.id => self.install(&name, session, now),
            _ if !waited && !drains => {}
            None => self.install(&name, session, now),
            // Another session has taken its place meanwhile.
            Some(_) => self.rival(&name, session, now),
        }
    }

    /// A session has been parked, or has grown: ends those that waited longest, or hold most, beyond the bounds.
    ///
    /// Whoever comes and goes parks a session each time, so that only this one is looked into unless all hold too much.
    pub(in super::super) fn bound_parked(&mut self, grown: &SessionCell<T>) {
        let limits = &self.config.limits;
        let (sessions, bytes) = (limits.parked_sessions, limits.parked_bytes);
        self.count_parked(Some(grown.id));
        if self.parked_bytes() > bytes {
            // What some of them held has been taken since.
            self.count_parked(None);
        }
        loop {
            let at = if self.parked.len() > sessions {
                0
            } else if self.parked_bytes() > bytes {
                let most = self.parked.iter().enumerate();
                let most = most.max_by_key(|(_, waiting)| waiting.held);
                most.map_or(0, |(at, _)| at)
            } else {
                return;
            };
            let cell = self.parked.remove(at).cell;
            self.end(cell, Code::Overloaded);
        }
    }

    /// Counts what is held by one of the sessions that wait, or by all.
    fn count_parked(&mut self, only: Option<u64>) {
        for waiting in &mut self.parked {
            if only.is_none_or(|id| id == waiting.id) {
                waiting.held = waiting.cell.with_pipe(|session| session.held_bytes());
            }
        }
    }

    fn parked_bytes(&self) -> usize {
        self.parked.iter().map(|waiting| waiting.held).sum()
    }

    /// A session waits no more.
    pub(super) fn unpark(&mut self, id: u64) {
        self.parked.retain(|waiting| waiting.id != id);
    }

    pub(super) fn end(&mut self, cell: Arc<SessionCell<T>>, code: Code) {
        self.actions.push_back(Action::CloseSession { cell, code });
    }

    /// Dials a peer again whose session is lost, if anybody needs it.
    pub(super) fn dial_again(
        &mut self,
        name: &Name,
        delay: Option<Duration>,
        code: Code,
        now: Now,
    ) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if matches!(peer.dial, Dial::Racing(_) | Dial::Resolving { .. }) {
            return;
        }
        let delay = match delay {
            Some(delay) => delay,
            None if peer.failures == 0 => Duration::ZERO,
            None => backoff(&self.config.limits, peer.failures, &mut self.seeds),
        };
        peer.failures = peer.failures.saturating_add(1);
        self.back_off(name, delay, code, now.mono);
    }
}
