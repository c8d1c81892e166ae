//! Who is let in, and whom we carry circuits to.

use super::{Admitted, Control, FRESH, Peer, Purpose, Verdict};
use crate::{
    Code, Name, Now,
    channel::HandshakeError,
    node::{
        Access,
        budget::Ticket,
        cell::{AddressGroup, SessionCell, source_of_circuits},
        output::{Event, Output},
        standing::{Ban, Subject},
    },
    registry::{Cause, Freshness, Lookup, Provenance, Record, ResolveError, Resolved},
};
use alloc::sync::Arc;

impl<T> Control<T> {
    // Admission of peers that dial us.

    /// Charges an inbound socket to its source.
    pub(in super::super) fn accept(
        &mut self,
        group: AddressGroup,
        now: Now,
    ) -> Result<Ticket, HandshakeError> {
        self.check_subject(&Subject::Group(group), now)?;
        self.budgets.open(group, None)
    }

    /// Charges a circuit to the router that brings it, and to the caller whom the router names.
    pub(in super::super) fn accept_circuit(
        &mut self,
        router: &SessionCell<T>,
        caller: Option<&Name>,
    ) -> Result<Ticket, HandshakeError> {
        self.budgets.open(source_of_circuits(router), Some(caller))
    }

    /// Charges a handshake to its source, before anything is computed for it.
    pub(in super::super) fn charge_handshake(
        &mut self,
        source: AddressGroup,
        now: Now,
    ) -> Result<(), HandshakeError> {
        self.standings
            .handshake(source, &self.config.limits, now)
            .map_err(|wait| HandshakeError::after(Code::SourceBudget, wait))
    }

    /// Whether a name may come, before anything is computed to verify it.
    pub(in super::super) fn check_ban(&self, name: &Name, now: Now) -> Result<(), HandshakeError> {
        self.check_subject(&Subject::Name(name.clone()), now)
    }

    fn check_subject(&self, subject: &Subject, now: Now) -> Result<(), HandshakeError> {
        match self.standings.banned(subject, now.wall) {
            None => Ok(()),
            Some(left) => Err(HandshakeError::after(Code::Banned, left)),
        }
    }

    /// Counts what somebody did, and bans whoever did too much.
    pub(in super::super) fn blame(&mut self, subject: &Subject, code: Code, now: Now) {
        let limits = &self.config.limits;
        if let Some(ban) = self.standings.blame(subject, code, limits, now) {
            self.banned(ban);
        }
    }

    pub(in super::super) fn ban(&mut self, ban: Ban, now: Now) {
        if self.standings.ban(&ban, now) {
            self.banned(ban);
        }
    }

    fn banned(&mut self, ban: Ban) {
        if let Subject::Name(name) = &ban.subject {
            self.close_all(name, None, Code::Banned);
        }
        self.out(Output::Event(Event::Banned(ban)));
    }

    pub(in super::super) fn lift(&mut self, subject: &Subject, now: Now) -> bool {
        let lifted = self.standings.lift(subject, now);
        if lifted {
            self.out(Output::Event(Event::Lifted(subject.clone())));
            if let Subject::Name(name) = subject
                && self.peers.get(name).is_some_and(Peer::wanted)
            {
                self.ensure(name, now);
            }
        }
        lifted
    }

    /// Whether a peer is no stranger: this node's operator or application chose it.
    pub(in super::super) fn is_chosen(&self, name: &Name) -> bool {
        let listed = matches!(&self.config.allow, Access::Only(names) if names.contains(name));
        let peer = self.peers.get(name);
        listed || peer.is_some_and(|peer| peer.keep || peer.router)
    }

    /// Whether a peer that has signed is let in: what its record says decides, as far as it may be read.
    pub(in super::super) fn admit(
        &mut self,
        pipe: u64,
        name: &Name,
        key: &[u8; 32],
        group: AddressGroup,
        now: Now,
    ) -> Verdict {
        // A stranger can claim any name.
        let cause = match self.resolver.last_read(name, now.mono) {
            Some(Ok(last)) if last.record.key == *key => Cause::Known(group),
            _ => Cause::Peer(group),
        };
        let mut lookup = self.resolver.lookup(name, Freshness::Cached, cause, now);
        if let Lookup::Ready(Ok(resolved)) = &lookup
            && resolved.record.key != *key
            && resolved.how != Provenance::Pinned
        {
            let age = now.mono.since(resolved.at);
            if age < FRESH {
                // The endpoint that was asked a moment ago may be a block behind the one that the peer believes.
                return Verdict::Refuse(HandshakeError::after(Code::KeyUnconfirmed, FRESH - age));
            }
            lookup = self
                .resolver
                .lookup(name, Freshness::NewerThan(FRESH), cause, now);
        }
        let verdict = match lookup {
            Lookup::Ready(result) => match self.judge(name, key, result) {
                Ok(admitted) => Verdict::Admit(admitted),
                Err(error) => Verdict::Refuse(error),
            },
            Lookup::Pending(id) => {
                let (name, key) = (name.clone(), *key);
                self.lookups.insert(id, Purpose::Admit { pipe, name, key });
                Verdict::Wait
            }
        };
        self.drain_resolver(now);
        verdict
    }

    pub(super) fn judge(
        &self,
        name: &Name,
        key: &[u8; 32],
        result: Result<Resolved, ResolveError>,
    ) -> Result<Admitted, HandshakeError> {
        let resolved = match result {
            Ok(resolved) => resolved,
            Err(error) if self.goes_on(name, &error, Some(key)).is_some() => {
                return Ok(Admitted::ToGoOn);
            }
            Err(error) => {
                return Err(HandshakeError {
                    code: error.for_peer(),
                    retry: error.retry,
                    skew_ms: None,
                });
            }
        };
        if resolved.record.key != *key {
            return Err(Code::KeyMismatch.into());
        }
        let expected = self.peers.get(name).and_then(|peer| peer.expected_epoch);
        if expected.is_some_and(|epoch| epoch != resolved.record.epoch) {
            return Err(Code::EpochChanged.into());
        }
        Ok(Admitted::Fully)
    }

    /// What was last known of a peer with whom there is a session under that key, while the chain cannot or may not be
    /// read: the session would live on as well if its pipe did.
    pub(super) fn goes_on(
        &self,
        name: &Name,
        error: &ResolveError,
        key: Option<&[u8; 32]>,
    ) -> Option<Resolved> {
        let known = self.peers.get(name)?.record.as_ref()?;
        let key = key.unwrap_or(&known.record.key);
        let there = known.record.key == *key
            && matches!(error.for_peer(), Code::ChainUnavailable | Code::ReadBudget)
            && self
                .sessions_with(name)
                .iter()
                .any(|cell| cell.peer.key == *key);
        there.then(|| known.clone())
    }

    /// Whether a session is with a router of ours, that is, one that our record lists.
    pub(in super::super) fn is_our_router(&self, cell: &SessionCell<T>) -> bool {
        let name = cell.peer.name.as_ref();
        name.is_some_and(|name| self.is_ours(name))
    }

    // Circuits through us.

    /// The session of a peer that we host, for a caller who wants a circuit to it.
    pub(in super::super) fn hosted(
        &self,
        caller: &SessionCell<T>,
        to: &Name,
    ) -> Result<Arc<SessionCell<T>>, Code> {
        let policy = &self.config.router;
        if self.draining.contains_key(&caller.id) {
            // Each session has a rate, and a name may have many that drain. The peer has been told, or uses another.
            return Err(Code::CircuitRate);
        }
        let me = self
            .config
            .identity
            .name
            .as_ref()
            .ok_or(Code::CallingRefused)?;
        match &caller.peer.name {
            None if !policy.guests => return Err(Code::GuestRefused),
            Some(name) if !policy.call.allows(name) => return Err(Code::CallingRefused),
            _ => {}
        }
        let peer = self.peers.get(to).ok_or(Code::TargetOffline)?;
        let cell = peer.carrier().ok_or(Code::TargetOffline)?;
        let lists_us =
            |record: &Record| to.registry == me.registry && record.routers.contains(&me.label);
        if !peer
            .record
            .as_ref()
            .is_some_and(|resolved| lists_us(&resolved.record))
        {
            return Err(Code::NotHosted);
        }
        if !policy.host.allows(to) {
            return Err(Code::HostingRefused);
        }
        Ok(cell.clone())
    }
}
