//! Sessions that have lost their pipe: how long they wait, who looks for another, and what ends them.

use super::{Action, Control};
use crate::{
    Code, Name, Now, channel,
    node::{
        cell::{PipeCell, SessionCell},
        dial::backoff,
    },
    session::Operation,
    time::{Duration, Instant},
    wire::frame::Attach,
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::cmp::Reverse;

/// The side that dialled comes back at once. The other one gives it this long before it dials itself.
const COURTESY: Duration = Duration::from_secs(1);

/// A session that waits for another pipe.
pub(super) struct Parked<T> {
    pub(super) cell: Arc<SessionCell<T>>,
    pub(super) instance: [u8; 16],
    pub(super) agent: Box<str>,
    /// What became of its pipe.
    pub(super) reason: Code,
    since: Instant,
    /// Whether we look for a pipe, instead of waiting for the peer to do so.
    pub(super) dial: bool,
}

impl<T> Control<T> {
    /// Whether a session that loses its pipe is kept: the one in use with a named peer, as long as we have a name as well.
    pub(in super::super) fn keeps(&self, cell: &SessionCell<T>) -> bool {
        let current = cell.peer.name.as_ref().and_then(|name| self.current(name));
        !self.closed
            && self.config.identity.name.is_some()
            && current.is_some_and(|current| current.id == cell.id)
    }

    /// The session that is in use with a peer, and the one that waits.
    pub(in super::super) fn used(&self, name: &Name) -> [Option<Arc<SessionCell<T>>>; 2] {
        self.peers.get(name).map_or([None, None], |peer| {
            let parked = peer.parked.as_ref().map(|parked| parked.cell.clone());
            [peer.current.clone(), parked]
        })
    }

    /// The session to go on with over a channel that we began.
    pub(in super::super) fn to_resume(&self, to: &channel::Peer) -> Option<Arc<SessionCell<T>>> {
        let peer = self.peers.get(to.name.as_ref()?)?;
        let parked = peer.parked.as_ref().map(|parked| &parked.cell);
        let cell = parked.or(peer.current.as_ref())?;
        (cell.peer.key == to.key).then(|| cell.clone())
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
    pub(super) fn sessions_with(&self, name: &Name) -> impl Iterator<Item = Arc<SessionCell<T>>> {
        let peer = self.peers.get(name);
        let current = peer.and_then(|peer| peer.current.clone());
        let parked = peer.and_then(|peer| peer.parked.as_ref().map(|p| p.cell.clone()));
        let reserve = peer.and_then(|peer| peer.reserve.as_ref().map(|(cell, ..)| cell.clone()));
        let draining = self.draining.values().map(|(cell, _)| cell);
        current.into_iter().chain(parked).chain(reserve).chain(
            draining
                .filter(|cell| cell.peer.name.as_ref() == Some(name))
                .cloned(),
        )
    }

    /// A session waits for another pipe. What it never sent goes over whatever session there is first.
    pub(in super::super) fn session_parked(
        &mut self,
        cell: &Arc<SessionCell<T>>,
        dialled: bool,
        unsent: Vec<Operation<T>>,
        code: Code,
        now: Now,
    ) {
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        let is_current = self
            .current(&name)
            .is_some_and(|current| current.id == cell.id);
        let (still, idle) = cell.with_pipe(|session| (session.is_parked(), session.is_idle()));
        let peer = self.peers.get_mut(&name).filter(|_| still && is_current);
        let Some(peer) = peer else {
            // Another thread was faster.
            for operation in unsent {
                self.submit(name.clone(), operation, now);
            }
            return;
        };
        peer.current = None;
        let parked = Parked {
            cell: cell.clone(),
            instance: peer.instance,
            agent: peer.agent.clone(),
            reason: code,
            since: now.mono,
            dial: dialled || !idle,
        };
        if let Some(older) = peer.parked.replace(parked) {
            self.end(older.cell, code);
        }
        self.bound_parked();
        self.lose(&name, unsent, now.mono);
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if let Some((reserve, instance, agent)) = peer.reserve.take() {
            return self.install(name, reserve, instance, agent, now);
        }
        self.tell(&name, now.mono);
        self.update_reachable();
        self.dial_again(
            &name,
            if dialled { None } else { Some(COURTESY) },
            code,
            now,
        );
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
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        let is_it = |other: &Arc<SessionCell<T>>| other.id == cell.id;
        if peer.current.as_ref().is_some_and(is_it) {
            let (instance, agent) = (peer.instance, peer.agent.clone());
            self.install(name, cell.clone(), instance, agent, now);
        } else if let Some(parked) = peer.parked.take_if(|parked| is_it(&parked.cell)) {
            if peer.current.is_some() {
                // Another session has begun meanwhile: this one finishes what it has.
                self.drain(cell.clone(), now.mono);
            } else {
                self.install(name, parked.cell, parked.instance, parked.agent, now);
            }
        }
    }

    /// Ends those that waited longest, or hold most, beyond the bounds.
    fn bound_parked(&mut self) {
        let limits = &self.config.limits;
        let parked = self.peers.values().filter_map(|peer| peer.parked.as_ref());
        let mut parked: Vec<_> = parked
            .map(|parked| {
                let held = parked.cell.with_pipe(|session| session.held_bytes());
                (held, parked.since, parked.cell.clone())
            })
            .collect();
        let mut victims = Vec::new();
        while parked.len() > limits.parked_sessions {
            victims.extend(take_greatest(&mut parked, |(_, since, cell)| {
                (Reverse(*since), cell.id)
            }));
        }
        while parked.iter().map(|(held, ..)| held).sum::<usize>() > limits.parked_bytes {
            victims.extend(take_greatest(&mut parked, |(held, _, cell)| {
                (*held, cell.id)
            }));
        }
        for (_, _, cell) in victims {
            self.end(cell, Code::Overloaded);
        }
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
        let delay = match delay {
            Some(delay) => delay,
            None if peer.failures == 0 => Duration::ZERO,
            None => backoff(&self.config.limits, peer.failures, &mut self.seeds),
        };
        peer.failures = peer.failures.saturating_add(1);
        self.back_off(name, delay, code, now.mono);
    }
}

/// Takes out the item whose key is the greatest.
fn take_greatest<I, K: Ord>(items: &mut Vec<I>, key: impl Fn(&I) -> K) -> Option<I> {
    let greatest = items.iter().enumerate().max_by_key(|(_, item)| key(item));
    greatest.map(|(at, _)| at).map(|at| items.swap_remove(at))
}
