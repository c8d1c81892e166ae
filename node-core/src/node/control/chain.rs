//! What the chain says, about others and about ourselves.

use super::{Action, Control, Peer, Purpose, REREAD_MYSELF, Timer};
use crate::{
    Code, Name, Now,
    node::output::{Event, Failure, Output},
    registry::{Cause, Freshness, Lookup, LookupId, ResolveError, Resolved, ResolverOutput},
};
use alloc::vec::Vec;

impl<T> Control<T> {
    // The chain.

    pub(in super::super) fn drain_resolver(&mut self, now: Now) {
        while let Some(output) = self.resolver.poll_output() {
            match output {
                ResolverOutput::Fetch { id, url, body } => {
                    self.out(Output::Fetch { id, url, body })
                }
                ResolverOutput::Done { id, result } => self.looked_up(id, result, now),
                ResolverOutput::Changed { name, result } => self.record_changed(&name, result, now),
                ResolverOutput::Probed { .. } => {}
            }
        }
    }

    pub(super) fn looked_up(
        &mut self,
        id: LookupId,
        result: Result<Resolved, ResolveError>,
        now: Now,
    ) {
        match self.lookups.remove(&id) {
            Some(Purpose::Dial(name)) => self.resolved(&name, result, now),
            Some(Purpose::Admit { pipe, name, key }) => {
                let verdict = self.judge(&name, &key, result);
                self.actions.push_back(Action::Admit { pipe, verdict });
            }
            Some(Purpose::Application(token)) => self.out(Output::Resolved { token, result }),
            Some(Purpose::Myself) => self.know_myself(result, now),
            None => {}
        }
    }

    /// A record that we hold has changed: what was made with an old key ends.
    pub(super) fn record_changed(
        &mut self,
        name: &Name,
        result: Result<Resolved, ResolveError>,
        now: Now,
    ) {
        let resolved = match result {
            Ok(resolved) => resolved,
            Err(error) if self.config.identity.name.as_ref() == Some(name) => {
                return self.know_myself(Err(error), now);
            }
            Err(error) => {
                // A record without a usable key vouches for nobody any more.
                return self.close_all(name, None, error.code);
            }
        };
        if self.config.identity.name.as_ref() == Some(&resolved.name) {
            self.know_myself(Ok(resolved), now);
            return;
        }
        self.learn(&resolved);
        self.out(Output::Event(Event::RecordChanged(resolved)));
    }

    /// Remembers a peer's record. Sessions that were made under another key, or with another owner, end.
    pub(super) fn learn(&mut self, resolved: &Resolved) {
        let Some(peer) = self.peers.get_mut(&resolved.name) else {
            return;
        };
        let former = peer.record.replace(resolved.clone());
        let sold = former.is_some_and(|former| former.record.epoch != resolved.record.epoch);
        let (key, code) = if sold {
            // What waits was meant for the owner before.
            for operation in core::mem::take(&mut peer.waiting) {
                self.fail(operation, Failure::offline(Code::EpochChanged));
            }
            (None, Code::EpochChanged)
        } else {
            (Some(&resolved.record.key), Code::KeyMismatch)
        };
        self.close_all(&resolved.name, key, code);
    }

    // Ourselves.

    pub(super) fn read_myself(&mut self, now: Now) {
        let Some(me) = self.config.identity.name.clone() else {
            return;
        };
        self.timers
            .insert((now.mono + REREAD_MYSELF, Timer::Myself));
        match self
            .resolver
            .lookup(&me, Freshness::Cached, Cause::Own, now)
        {
            Lookup::Ready(result) => self.know_myself(result, now),
            Lookup::Pending(id) => {
                self.lookups.insert(id, Purpose::Myself);
            }
        }
        self.drain_resolver(now);
    }

    pub(super) fn know_myself(&mut self, result: Result<Resolved, ResolveError>, now: Now) {
        let resolved = match result {
            Ok(resolved) => resolved,
            Err(error) => {
                self.out(Output::Event(Event::Identity(error.code)));
                return;
            }
        };
        if resolved.record.key != self.config.identity.key {
            self.out(Output::Event(Event::Identity(Code::KeyMismatch)));
            return;
        }
        if self.config.direct {
            return;
        }
        let routers: Vec<Name> = resolved
            .record
            .routers
            .iter()
            .take(self.config.limits.routers)
            .map(|label| Name {
                registry: resolved.name.registry,
                label: label.clone(),
            })
            .collect();
        let mut strangers = Vec::new();
        for (name, peer) in self.peers.iter_mut() {
            if peer.router && !routers.contains(name) {
                peer.router = false;
                strangers.push(name.clone());
            }
        }
        for name in strangers {
            for cell in self.sessions_with(&name) {
                self.keep_rates(&cell, now);
            }
        }
        for router in routers {
            let peer = self.peers.get_or_insert_with(router.clone(), Peer::new);
            peer.router = true;
            if !peer.superseded {
                self.ensure(&router, now);
            }
        }
        self.update_reachable();
    }

    pub(super) fn update_reachable(&mut self) {
        if !self.config.direct {
            let online = self
                .peers
                .values()
                .any(|peer| peer.router && peer.carrier().is_some());
            self.set_reachable(online);
        }
    }

    pub(super) fn set_reachable(&mut self, reachable: bool) {
        if self.reachable != reachable {
            self.reachable = reachable;
            self.out(Output::Event(Event::Reachable(reachable)));
        }
    }
}
