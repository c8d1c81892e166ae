//! Reaching a peer: its record, every route to it, and when to try again.

use super::{Action, Control, FRESH, Peer, Purpose, Timer, telling};
use crate::{
    Code, Name, Now,
    node::{
        cell::{Address, SessionCell},
        dial::{Attempt, Dial, Race, Stage, backoff},
        output::{Event, Failure, Output, Route},
    },
    registry::{Cause, Freshness, Lookup, ROUTERS_MAX, Record, ResolveError, Resolved, Routing},
    time::{Duration, Instant},
};
use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

/// Whether a route stayed silent, its class, its round trip, and chance.
type Rank = (bool, u8, Duration, [u8; 32]);

/// An attempt of this age that has come to nothing puts its route last.
const SILENT: Duration = Duration::from_secs(2);

/// The longest delay that a peer may ask for before we come back.
const RETRY_MAX: Duration = Duration::from_secs(600);

impl<T> Control<T> {
    // Reaching a peer.

    /// Makes sure that somebody works on a session with the peer.
    pub(super) fn ensure(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer.is_reached() {
            return;
        }
        match &peer.dial {
            Dial::Idle => self.begin_dial(name, Freshness::Cached, now),
            // A person who tries again need not wait for the backoff, but nobody hammers. Where no more was tried than what
            // shows nothing, the first that is wanted of the peer need not wait at all.
            Dial::Backoff { .. }
                if peer.is_open_now()
                    || now.mono.since(peer.last_dial) >= Duration::from_secs(1) =>
            {
                self.begin_dial(name, Freshness::Cached, now);
            }
            Dial::Backoff { .. } | Dial::Resolving { .. } | Dial::Racing(_) => {}
        }
    }

    pub(super) fn begin_dial(&mut self, name: &Name, freshness: Freshness, now: Now) {
        if self.closed {
            return;
        }
        let ban = self.check_ban(name, now);
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.last_dial = now.mono;
        peer.dial = Dial::Resolving {
            again: freshness != Freshness::Cached,
        };
        if let Err(error) = ban {
            return self.give_up(name, error.code, error.retry, now);
        }
        if peer.parked.is_empty() {
            self.tell(name, now.mono);
        }
        match self.resolver.lookup(name, freshness, Cause::Own, now) {
            Lookup::Ready(result) => self.resolved(name, result, now),
            Lookup::Pending(id) => {
                self.lookups.insert(id, Purpose::Dial(name.clone()));
            }
        }
        self.drain_resolver(now);
    }

    pub(super) fn resolved(
        &mut self,
        name: &Name,
        result: Result<Resolved, ResolveError>,
        now: Now,
    ) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Dial::Resolving { again } = peer.dial else {
            return;
        };
        let (resolved, unread) = match result {
            Ok(resolved) => (resolved, None),
            Err(error) => match self.goes_on(name, &error, None) {
                Some(known) => (known, Some(error.code)),
                None => return self.give_up(name, error.code, error.retry, now),
            },
        };
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer
            .expected_epoch
            .is_some_and(|epoch| epoch != resolved.record.epoch)
        {
            return self.give_up(name, Code::EpochChanged, None, now);
        }
        let record = resolved.record.clone();
        let only_to_carry = peer.is_only_to_carry();
        self.learn(&resolved);
        // Over a router it could be reached and would carry nobody. Were it looked for there, two records that name each
        // other could keep a search for ever.
        if !record.is_direct() {
            if only_to_carry {
                return self.give_up(name, Code::NoRoute, None, now);
            }
            self.router_unreachable(name, Code::NoRoute, now);
        }
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer.is_reached() {
            peer.dial = Dial::Idle;
            return;
        }
        peer.unseen = peer.is_looked_for_unseen();
        let routes = self.routes(name, &record);
        if routes.is_empty() {
            let seen = |peer: &Peer<T>| !peer.unseen;
            let code = if record.is_direct() && self.peers.get(name).is_some_and(seen) {
                Code::SchemeBlocked
            } else {
                Code::NoRoute
            };
            return self.give_up(name, code, None, now);
        }
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.dial = Dial::Racing(Race::new(routes, again, unread));
        self.advance(name, now);
    }

    /// Every way to a peer, best first: those that stayed silent the last time come last; its own address comes before
    /// its routers, a connected router before another, the nearer one first, and chance decides among equals.
    pub(super) fn routes(&mut self, name: &Name, record: &Record) -> VecDeque<Route> {
        let mut routes: Vec<(Rank, Route)> = Vec::new();
        let peer = self.peers.get(name);
        let asked = peer.is_some_and(|peer| !peer.waiting.is_empty());
        let unseen = peer.is_some_and(|peer| peer.unseen);
        let open = |routing: &Routing| routing.wss || (routing.ws && !self.config.secure_only);
        if record.routing.as_ref().is_some_and(open) && !unseen {
            let silent = self.stayed_silent(name, &Route::Direct);
            routes.push(((silent, 0, Duration::ZERO, [0; 32]), Route::Direct));
        }
        for label in &record.routers {
            let router = Name {
                registry: name.registry,
                label: label.clone(),
            };
            if Some(&router) == self.config.identity.name.as_ref() || router == *name {
                continue;
            }
            // Another process of our name is there now. A session that waits takes nothing back from it, a person may.
            let superseded = self.peers.get(&router).is_some_and(|peer| peer.superseded);
            if superseded && !asked && self.carrier(&router).is_none() {
                continue;
            }
            if unseen && !self.is_ours(&router) && self.carrier(&router).is_none() {
                continue;
            }
            let (class, distance) = match self.carrier(&router) {
                Some(hop) => (1, hop.with_pipe(|session| session.round_trip())),
                None => (2, None),
            };
            let route = Route::Via(router);
            let silent = self.stayed_silent(name, &route);
            let distance = distance.unwrap_or(Duration::MAX);
            let rank = (silent, class, distance, self.seeds.next());
            let before = routes.iter().take_while(|(other, _)| *other < rank);
            routes.insert(before.count(), (rank, route));
        }
        routes.into_iter().map(|(_, route)| route).collect()
    }

    fn stayed_silent(&self, name: &Name, route: &Route) -> bool {
        self.peers
            .get(name)
            .is_some_and(|peer| peer.silent.contains(route))
    }

    /// Starts the race's next route and sees to it that the one after it follows.
    pub(super) fn advance(&mut self, name: &Name, now: Now) {
        let pipe = self.take_pipe();
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Some(resolved) = peer.record.clone() else {
            return;
        };
        let unseen = peer.unseen;
        let Dial::Racing(race) = &mut peer.dial else {
            return;
        };
        let Some(route) = race.routes.pop_front() else {
            return;
        };
        race.attempts.push(Attempt {
            pipe,
            route: route.clone(),
            began: now.mono,
            stage: Stage::Handshake,
            handshake: Duration::ZERO,
        });
        let next = now.mono + self.config.limits.race_stagger;
        let more = !race.routes.is_empty();
        race.next = more.then_some(next);
        if more {
            self.timers.insert((next, Timer::Dial(name.clone())));
        }
        match route {
            Route::Direct => {
                let Some(routing) = &resolved.record.routing else {
                    return;
                };
                let secure = routing.wss && (self.config.secure_only || !routing.ws);
                let address = Address {
                    host: routing.host.clone(),
                    port: routing.port,
                    secure,
                };
                self.actions.push_back(Action::Dial {
                    pipe,
                    name: name.clone(),
                    key: resolved.record.key,
                    address,
                });
            }
            Route::Via(router) => match self.carrier(&router) {
                Some(hop) => self.open_circuit(name, pipe, hop),
                // It has gone since the routes were found. Where that one is to see nothing of us, nobody is dialled for it.
                None if unseen && !self.is_ours(&router) => {
                    self.attempt_failed(name, pipe, Code::Offline, None, now);
                }
                None => {
                    let entry = self.peers.get_or_insert_with(router.clone(), Peer::new);
                    entry.wanted_by.push((name.clone(), pipe));
                    let backing_off = matches!(entry.dial, Dial::Backoff { .. });
                    self.ensure(&router, now);
                    if backing_off
                        && matches!(
                            self.peers.get(&router).map(|p| &p.dial),
                            Some(Dial::Backoff { .. })
                        )
                    {
                        self.router_unreachable(&router, Code::Offline, now);
                    }
                }
            },
        }
    }

    /// Whether this is one of our own routers.
    pub(super) fn is_ours(&self, router: &Name) -> bool {
        self.peers.get(router).is_some_and(|peer| peer.router)
    }

    fn carrier(&self, router: &Name) -> Option<Arc<SessionCell<T>>> {
        self.peers.get(router)?.carrier().cloned()
    }

    pub(super) fn open_circuit(&mut self, name: &Name, pipe: u64, hop: Arc<SessionCell<T>>) {
        let key = self
            .peers
            .get(name)
            .and_then(|peer| peer.record.as_ref())
            .map(|resolved| resolved.record.key);
        let Some(key) = key else { return };
        self.actions.push_back(Action::Circuit {
            pipe,
            hop,
            name: name.clone(),
            key,
        });
    }

    /// Whoever waits for this router has to go another way.
    pub(super) fn router_unreachable(&mut self, router: &Name, code: Code, now: Now) {
        let Some(peer) = self.peers.get_mut(router) else {
            return;
        };
        for (target, pipe) in core::mem::take(&mut peer.wanted_by) {
            self.attempt_failed(&target, pipe, code, None, now);
        }
    }

    /// A pipe that we began came to nothing. Nobody has proved what it ended with, so `retry` counts up to the longest
    /// time that we would wait by ourselves.
    pub(in super::super) fn attempt_failed(
        &mut self,
        name: &Name,
        pipe: u64,
        code: Code,
        retry: Option<Duration>,
        now: Now,
    ) {
        let longest = self.config.limits.backoff_max;
        let Some((attempt, race)) = self.take_attempt(name, pipe) else {
            return;
        };
        race.retry = race.retry.max(retry.map(|retry| retry.min(longest)));
        race.worst = Some(race.worst.map_or(code, |worst| telling(worst, code)));
        race.overtaken |= attempt.stage == Stage::Asked && code == Code::Duplicate;
        // A router's socket has ended under it, which says nothing of the peer: its next one may be there already.
        let through_another = matches!(attempt.route, Route::Via(_)) && code == Code::PipeLost;
        if through_another && !race.renewed.contains(&attempt.route) {
            race.renewed.push(attempt.route.clone());
            race.routes.push_back(attempt.route.clone());
        }
        let took = now.mono.since(attempt.began);
        let (route, stage) = (attempt.route.clone(), attempt.stage);
        let (more, over, again) = (
            !race.routes.is_empty(),
            race.attempts.is_empty(),
            race.again,
        );
        let (worst, retry, overtaken) = (race.worst, race.retry, race.overtaken);
        self.out(Output::Event(Event::Attempt {
            name: name.clone(),
            route: attempt.route,
            result: Err(code),
            took,
        }));
        if took >= SILENT {
            self.note_silence(name, route);
        }
        if stage == Stage::Asked {
            self.ask_held(name);
        }
        if more {
            self.advance(name, now);
        } else if over {
            let code = worst.unwrap_or(code);
            // The record may be stale: what it led to was not who it names. Read it once more before giving up. What a
            // peer says once it has proved to be the right one is about us.
            let suspicious = matches!(
                code,
                Code::WrongName | Code::KeyMismatch | Code::BadSignature
            );
            if suspicious && stage == Stage::Handshake && !again {
                return self.begin_dial(name, Freshness::NewerThan(FRESH), now);
            }
            if overtaken {
                return self.stand_back(name, now);
            }
            if self.peers.get(name).is_some_and(Peer::is_open_now) {
                return self.begin_dial(name, Freshness::Cached, now);
            }
            self.give_up(name, code, retry, now);
        }
    }

    /// The peer asks for the session as well, and its attempt is the one that counts. It is about to arrive, or was lost on
    /// the way: what waits goes over it, or over the next one of ours.
    fn stand_back(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.dial = Dial::Idle;
        peer.failures = peer.failures.saturating_add(1);
        let delay = backoff(&self.config.limits, peer.failures, &mut self.seeds);
        // A router may say so again and again: whoever looks for somebody else by it goes other ways.
        let again = core::mem::replace(&mut peer.stood_back, true);
        self.back_off(name, delay, Code::Duplicate, now.mono);
        if again {
            self.router_unreachable(name, Code::Offline, now);
        }
    }

    pub(super) fn attempt_succeeded(&mut self, name: &Name, pipe: u64, now: Instant) {
        let Some((attempt, race)) = self.take_attempt(name, pipe) else {
            return;
        };
        let over = race.attempts.is_empty() && race.routes.is_empty();
        let took = now.since(attempt.began);
        if let Some(peer) = self.peers.get_mut(name) {
            peer.silent.retain(|route| *route != attempt.route);
            // What it led to may not be all that is needed: the next search can only begin when this one is over.
            if over {
                peer.dial = Dial::Idle;
            }
        }
        self.out(Output::Event(Event::Attempt {
            name: name.clone(),
            route: attempt.route,
            result: Ok(()),
            took,
        }));
    }

    /// Why nothing may be begun with a peer: its record could not be read, and the search is for a session that there is; or
    /// another process of our name has been there since the search began, and no person wants to take it back.
    pub(in super::super) fn begins_nothing(&self, name: &Name) -> Option<Code> {
        let peer = self.peers.get(name)?;
        if peer.superseded && peer.waiting.is_empty() && peer.wanted_by.is_empty() {
            return Some(Code::Superseded);
        }
        match &peer.dial {
            Dial::Racing(race) => race.unread,
            _ => None,
        }
    }

    /// The peer does not know the session that it was asked for: a new one begins on this pipe, as on any other.
    pub(in super::super) fn begins_anew(&mut self, name: &Name, pipe: u64) {
        if let Some(Dial::Racing(race)) = self.peers.get_mut(name).map(|peer| &mut peer.dial) {
            let attempts = race.attempts.iter_mut();
            for attempt in attempts.filter(|attempt| attempt.pipe == pipe) {
                attempt.stage = Stage::Proved;
            }
        }
        self.ask_held(name);
    }

    /// Lets those that were held back go on: the first of them is asked.
    pub(super) fn ask_held(&mut self, name: &Name) {
        if let Some(Dial::Racing(race)) = self.peers.get(name).map(|peer| &peer.dial) {
            let held = race.attempts.iter().filter(|a| a.stage == Stage::Held);
            self.actions
                .extend(held.map(|attempt| Action::Ask { pipe: attempt.pipe }));
        }
    }

    /// Takes the attempt that `pipe` was out of its race.
    fn take_attempt(&mut self, name: &Name, pipe: u64) -> Option<(Attempt, &mut Race)> {
        let Dial::Racing(race) = &mut self.peers.get_mut(name)?.dial else {
            return None;
        };
        let at = race
            .attempts
            .iter()
            .position(|attempt| attempt.pipe == pipe)?;
        Some((race.attempts.swap_remove(at), race))
    }

    pub(super) fn note_silence(&mut self, name: &Name, route: Route) {
        if let Some(peer) = self.peers.get_mut(name)
            && !peer.silent.contains(&route)
        {
            // Its record may have listed others before: the oldest make room.
            if peer.silent.len() > ROUTERS_MAX {
                peer.silent.remove(0);
            }
            peer.silent.push(route);
        }
    }

    /// Ends the attempts that a race no longer needs.
    pub(super) fn cancel(&mut self, name: &Name, race: Race, now: Instant) {
        for attempt in race.attempts {
            if now.since(attempt.began) >= SILENT {
                self.note_silence(name, attempt.route.clone());
            }
            if let Route::Via(router) = &attempt.route
                && let Some(peer) = self.peers.get_mut(router)
            {
                peer.wanted_by.retain(|(_, pipe)| *pipe != attempt.pipe);
            }
            self.actions
                .push_back(Action::AbandonPipe { pipe: attempt.pipe });
        }
    }

    /// A search has led to a session, or a session has found its place. What is no longer needed ends; what is still
    /// missing is looked for.
    pub(super) fn settle(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if let Some(hop) = peer.carrier().cloned() {
            for (target, pipe) in core::mem::take(&mut peer.wanted_by) {
                self.open_circuit(&target, pipe, hop.clone());
            }
        } else if peer.current.is_some() && matches!(peer.dial, Dial::Idle) {
            // It is reached over another router only, and carries nobody.
            self.router_unreachable(name, Code::NoRoute, now);
        }
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer.is_reached() {
            if let Dial::Racing(race) = core::mem::replace(&mut peer.dial, Dial::Idle) {
                self.cancel(name, race, now.mono);
            }
        } else if matches!(peer.dial, Dial::Idle) && peer.wanted() {
            self.dial_again(name, None, Code::NoRoute, now);
        } else {
            self.ask_held(name);
        }
    }

    /// No route works now: what waits fails, and a kept peer is tried again later.
    pub(super) fn give_up(&mut self, name: &Name, code: Code, retry: Option<Duration>, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.failures = peer.failures.saturating_add(1);
        let waiting = core::mem::take(&mut peer.waiting);
        peer.dial = Dial::Idle;
        let again = peer.keep || peer.router || peer.resumes() || peer.wants_pipe();
        let failures = peer.failures;
        for operation in waiting {
            self.fail(
                operation,
                Failure {
                    retry,
                    ..Failure::offline(code)
                },
            );
        }
        let wanted_by = match self.peers.get_mut(name) {
            Some(peer) => core::mem::take(&mut peer.wanted_by),
            None => return,
        };
        if again {
            let delay = backoff(&self.config.limits, failures, &mut self.seeds)
                .max(retry.unwrap_or_default());
            self.back_off(name, delay, code, now.mono);
        } else {
            if self.current(name).is_none() {
                self.tell_offline(name, code, None);
            }
            self.forget_idle(name);
        }
        for (target, pipe) in wanted_by {
            self.attempt_failed(&target, pipe, code, None, now);
        }
    }

    pub(super) fn back_off(&mut self, name: &Name, delay: Duration, reason: Code, now: Instant) {
        // Nobody can send us away for good.
        let delay = delay.min(self.config.limits.backoff_max.max(RETRY_MAX));
        let until = now + delay;
        if let Some(peer) = self.peers.get_mut(name) {
            peer.dial = Dial::Backoff { until, reason };
            self.timers.insert((until, Timer::Dial(name.clone())));
            if self.current(name).is_none() {
                self.tell_offline(name, reason, Some(delay));
            }
        }
    }

    pub(super) fn dial_due(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        match &mut peer.dial {
            Dial::Backoff { until, .. } if *until <= now.mono => {
                if peer.is_reached() {
                    peer.dial = Dial::Idle;
                    return;
                }
                if peer.wanted() {
                    self.begin_dial(name, Freshness::Cached, now);
                } else {
                    peer.dial = Dial::Idle;
                    self.forget_idle(name);
                }
            }
            Dial::Racing(race) if race.next.is_some_and(|next| next <= now.mono) => {
                self.advance(name, now)
            }
            _ => {}
        }
    }

    /// Fails what has waited too long for a session.
    pub(super) fn expire_waiting(&mut self, name: &Name, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let expired = peer.take_waiting(&|operation| operation.deadline() <= now);
        let cause = match &peer.dial {
            Dial::Backoff { reason, .. } => Some(*reason),
            Dial::Racing(race) => race.worst,
            Dial::Idle | Dial::Resolving { .. } => None,
        };
        for operation in expired {
            let failure = cause.map_or(Failure::new(Code::Timeout), Failure::offline);
            self.fail(operation, failure);
        }
    }
}
