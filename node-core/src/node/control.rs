//! The control plane: which peers there are, how they are looked up, dialled and admitted, who is hosted.
//!
//! It is told what happened and leaves [`Action`]s for the node to carry out once its lock is free. It may look into a
//! session; no session ever looks into it.

use super::{
    NodeConfig,
    budget::{Budgets, Ticket},
    cell::{Address, AddressGroup, SessionCell},
    dial::{Attempt, Dial, Race, backoff},
    output::{Event, Failure, Output, PeerState, Route},
    seeds::Seeds,
};
use crate::{
    Code, Name, Now,
    channel::HandshakeError,
    registry::{
        Cause, FetchFailure, FetchId, Freshness, Lookup, LookupId, Record, ResolveError, Resolved,
        Resolver, ResolverOutput,
    },
    session::Operation,
    time::{Duration, Instant},
};
use alloc::{
    boxed::Box,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};
use std::collections::HashMap;

/// What the control plane wants done once its lock is free.
pub(super) enum Action<T> {
    /// Begin a pipe to a peer's own address.
    Dial {
        pipe: u64,
        name: Name,
        key: [u8; 32],
        address: Address,
    },
    /// Begin a pipe to a peer over a circuit through the router behind `hop`.
    Circuit {
        pipe: u64,
        hop: Arc<SessionCell<T>>,
        name: Name,
        key: [u8; 32],
    },
    /// Give up a pipe, unless its handshake is done: then the peer may use it already, and has to agree.
    AbandonPipe { pipe: u64 },
    /// Hand an operation to a session.
    Perform {
        cell: Arc<SessionCell<T>>,
        operation: Operation<T>,
    },
    /// The chain has answered about the peer that waits at this pipe.
    Admit {
        pipe: u64,
        verdict: Result<(), HandshakeError>,
    },
    /// Close a session.
    CloseSession {
        cell: Arc<SessionCell<T>>,
        code: Code,
    },
    /// Tell the peer to begin nothing new on a session.
    Retire { cell: Arc<SessionCell<T>> },
    /// Ask whether the peer is still there.
    Ping { cell: Arc<SessionCell<T>> },
    /// Leave the node.
    Out(Output<T>),
}

/// Why the chain is being asked.
enum Purpose<T> {
    Dial(Name),
    Admit { pipe: u64, key: [u8; 32] },
    Application(T),
    Myself,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Dial(Name),
    Waiting(Name),
    Drain(u64),
    Probe(Name),
    Myself,
}

/// A session that is proved: which process of the peer it leads to, and what that calls itself.
type Attached<T> = (Arc<SessionCell<T>>, [u8; 16], Box<str>);

/// All that is known about one named peer.
struct Peer<T> {
    current: Option<Arc<SessionCell<T>>>,
    instance: [u8; 16],
    attached_at: Instant,
    agent: Box<str>,
    /// A session that takes over if `current` does not answer a ping.
    reserve: Option<Attached<T>>,
    waiting: VecDeque<Operation<T>>,
    /// A session is kept up even when nothing waits: the peer is a contact.
    keep: bool,
    /// One of our own routers.
    router: bool,
    record: Option<Resolved>,
    expected_epoch: Option<u32>,
    dial: Dial,
    failures: u32,
    last_dial: Instant,
    /// Who wants to be reached through this peer, with the pipe numbers set aside for them.
    wanted_by: Vec<(Name, u64)>,
}

impl<T> Peer<T> {
    fn new() -> Self {
        Self {
            current: None,
            instance: [0; 16],
            attached_at: Instant::default(),
            agent: "".into(),
            reserve: None,
            waiting: VecDeque::new(),
            keep: false,
            router: false,
            record: None,
            expected_epoch: None,
            dial: Dial::Idle,
            failures: 0,
            last_dial: Instant::default(),
            wanted_by: Vec::new(),
        }
    }

    fn wanted(&self) -> bool {
        self.keep || self.router || !self.waiting.is_empty() || !self.wanted_by.is_empty()
    }
}

/// How an inbound peer fares at admission.
pub(super) enum Verdict {
    Admit,
    Wait,
    Refuse(HandshakeError),
}

pub(super) struct Control<T> {
    config: Arc<NodeConfig>,
    pub(super) resolver: Resolver,
    pub(super) seeds: Seeds,
    pub(super) budgets: Budgets,
    pub(super) actions: VecDeque<Action<T>>,
    peers: HashMap<Name, Peer<T>>,
    lookups: HashMap<LookupId, Purpose<T>>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Sessions that finish what is under way and then close.
    draining: HashMap<u64, (Arc<SessionCell<T>>, Instant)>,
    superseded: bool,
    reachable: bool,
    next_pipe: u64,
}

/// How long a session that lost against another may finish what is under way.
const DRAIN: Duration = Duration::from_secs(30);
/// How often a draining session is looked at.
const DRAIN_CHECK: Duration = Duration::from_millis(500);
/// How long the older of two sessions has to prove that it lives.
const PROBE: Duration = Duration::from_secs(2);
/// A session that lasted this long resets the backoff.
const STEADY: Duration = Duration::from_secs(5);
/// A cached record younger than this is believed even against a signature.
const FRESH: Duration = Duration::from_secs(5);
/// How often an indirect node looks whether its own record has changed, while the chain has no better way to say so.
const REREAD_MYSELF: Duration = Duration::from_secs(60);

impl<T> Control<T> {
    pub(super) fn new(config: Arc<NodeConfig>, resolver: Resolver, seeds: Seeds) -> Self {
        let budgets = Budgets::new(&config.limits);
        Self {
            config,
            resolver,
            seeds,
            budgets,
            actions: VecDeque::new(),
            peers: HashMap::new(),
            lookups: HashMap::new(),
            timers: BTreeSet::new(),
            draining: HashMap::new(),
            superseded: false,
            reachable: false,
            next_pipe: 1,
        }
    }

    // Getters.

    pub(super) fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.resolver.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn take_pipe(&mut self) -> u64 {
        let id = self.next_pipe;
        self.next_pipe += 1;
        id
    }

    pub(super) fn current(&self, name: &Name) -> Option<Arc<SessionCell<T>>> {
        self.peers.get(name)?.current.clone()
    }

    pub(super) fn states(&self, now: Instant) -> Vec<(Name, bool, PeerState, Option<Duration>)> {
        let mut states: Vec<_> = self
            .peers
            .iter()
            .map(|(name, peer)| (name.clone(), peer.router, self.state_of(peer, now), None))
            .collect();
        for (name, _, _, latency) in &mut states {
            *latency = self
                .current(name)
                .and_then(|cell| cell.with_pipe(|session| session.round_trip()));
        }
        states.sort_by(|a, b| a.0.cmp(&b.0));
        states
    }

    fn state_of(&self, peer: &Peer<T>, now: Instant) -> PeerState {
        match (&peer.current, &peer.dial) {
            (Some(cell), _) => PeerState::Online {
                route: route_of(cell),
                how: peer.record.as_ref().map(|record| record.how),
                agent: peer.agent.clone(),
            },
            (None, Dial::Idle) => PeerState::Offline {
                reason: Code::Closed,
                retry: None,
            },
            (None, Dial::Backoff { until, reason }) => PeerState::Offline {
                reason: *reason,
                retry: Some(until.since(now)),
            },
            (None, _) => PeerState::Connecting,
        }
    }

    // Inputs.

    /// Begins: an indirect node looks up its own record and connects to its routers.
    pub(super) fn start(&mut self, now: Now) {
        self.superseded = false;
        if self.config.identity.name.is_none() {
            return;
        }
        if self.config.direct {
            self.set_reachable(true);
        }
        self.read_myself(now);
    }

    pub(super) fn submit(&mut self, name: Name, operation: Operation<T>, now: Now) {
        if self.config.identity.name.as_ref() == Some(&name) {
            return self.fail(operation, Failure::new(Code::Myself));
        }
        if let Err(code) = operation.check(self.config.limits.message_bytes) {
            return self.fail(operation, Failure::new(code));
        }
        let waiting = self.config.limits.waiting;
        let peer = self.peers.entry(name.clone()).or_insert_with(Peer::new);
        if let Some(cell) = peer.current.clone() {
            self.actions.push_back(Action::Perform { cell, operation });
            return;
        }
        if peer.waiting.len() >= waiting {
            return self.fail(operation, Failure::new(Code::QueueFull));
        }
        self.timers
            .insert((operation.deadline(), Timer::Waiting(name.clone())));
        peer.waiting.push_back(operation);
        self.ensure(&name, now);
    }

    /// Keeps a session with a contact up, or stops doing so. A known epoch makes a name that was sold unreachable.
    pub(super) fn keep(&mut self, name: Name, keep: bool, epoch: Option<u32>, now: Now) {
        if self.config.identity.name.as_ref() == Some(&name) {
            return;
        }
        let peer = self.peers.entry(name.clone()).or_insert_with(Peer::new);
        peer.keep = keep;
        peer.expected_epoch = epoch.or(peer.expected_epoch);
        if keep {
            self.ensure(&name, now);
        }
    }

    /// Forgets which owner of the name was meant: the person has confirmed the new one.
    pub(super) fn confirm_epoch(&mut self, name: &Name) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.expected_epoch = None;
        }
    }

    pub(super) fn resolve(&mut self, name: Name, fresh: bool, token: T, now: Now) {
        let freshness = if fresh {
            Freshness::NewerThan(Duration::ZERO)
        } else {
            Freshness::Cached
        };
        match self.resolver.lookup(&name, freshness, Cause::Own, now) {
            Lookup::Ready(result) => self.out(Output::Resolved { token, result }),
            Lookup::Pending(id) => {
                self.lookups.insert(id, Purpose::Application(token));
            }
        }
        self.drain_resolver(now);
    }

    pub(super) fn answered(&mut self, id: FetchId, answer: Result<&[u8], FetchFailure>, now: Now) {
        self.resolver.handle_answer(id, answer, now);
        self.drain_resolver(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.resolver.handle_timeout(now);
        self.drain_resolver(now);
        while let Some((at, timer)) = self.timers.pop_first() {
            if at > now.mono {
                self.timers.insert((at, timer));
                break;
            }
            match timer {
                Timer::Dial(name) => self.dial_due(&name, now),
                Timer::Waiting(name) => self.expire_waiting(&name, now.mono),
                Timer::Drain(id) => self.drain_due(id, now.mono),
                Timer::Probe(name) => self.probe_due(&name, now),
                Timer::Myself => self.read_myself(now),
            }
        }
    }

    // Admission of peers that dial us.

    /// Charges an inbound pipe to its source.
    pub(super) fn accept(&mut self, group: AddressGroup) -> Result<Ticket, Code> {
        self.budgets.open(group)
    }

    /// Whether a peer that has signed is let in: what its record says decides, as far as it may be read.
    pub(super) fn admit(
        &mut self,
        pipe: u64,
        name: &Name,
        key: &[u8; 32],
        group: AddressGroup,
        now: Now,
    ) -> Verdict {
        let cause = Cause::Peer(group);
        let mut lookup = self.resolver.lookup(name, Freshness::Cached, cause, now);
        if let Lookup::Ready(Ok(resolved)) = &lookup
            && resolved.record.key != *key
            && now.mono.since(resolved.at) >= FRESH
        {
            lookup = self
                .resolver
                .lookup(name, Freshness::NewerThan(FRESH), cause, now);
        }
        let verdict = match lookup {
            Lookup::Ready(result) => match self.judge(name, key, result) {
                Ok(()) => Verdict::Admit,
                Err(error) => Verdict::Refuse(error),
            },
            Lookup::Pending(id) => {
                self.lookups.insert(id, Purpose::Admit { pipe, key: *key });
                Verdict::Wait
            }
        };
        self.drain_resolver(now);
        verdict
    }

    fn judge(
        &self,
        name: &Name,
        key: &[u8; 32],
        result: Result<Resolved, ResolveError>,
    ) -> Result<(), HandshakeError> {
        let resolved = result.map_err(|error| HandshakeError {
            code: error.for_peer(),
            retry: error.retry,
            skew_ms: None,
        })?;
        if resolved.record.key != *key {
            return Err(Code::KeyMismatch.into());
        }
        let expected = self.peers.get(name).and_then(|peer| peer.expected_epoch);
        if expected.is_some_and(|epoch| epoch != resolved.record.epoch) {
            return Err(Code::EpochChanged.into());
        }
        Ok(())
    }

    // Circuits through us.

    /// The session of a peer that we host, for a caller who wants a circuit to it.
    pub(super) fn hosted(
        &self,
        caller: Option<&Name>,
        to: &Name,
    ) -> Result<Arc<SessionCell<T>>, Code> {
        let policy = &self.config.router;
        let me = self
            .config
            .identity
            .name
            .as_ref()
            .ok_or(Code::CallingRefused)?;
        match caller {
            None if !policy.guests => return Err(Code::GuestRefused),
            Some(name) if !policy.call.allows(name) => return Err(Code::CallingRefused),
            _ => {}
        }
        let peer = self.peers.get(to).ok_or(Code::TargetOffline)?;
        let cell = peer
            .current
            .as_ref()
            .filter(|cell| !cell.pipe.over_circuit())
            .ok_or(Code::TargetOffline)?;
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

    // Sessions.

    /// A session is proved by both sides. Decides which of several sessions with one peer is used.
    pub(super) fn attached(
        &mut self,
        cell: Arc<SessionCell<T>>,
        instance: [u8; 16],
        agent: Box<str>,
        now: Now,
    ) {
        let Some(name) = cell.peer.name.clone() else {
            return;
        };
        self.attempt_succeeded(&name, cell.pipe.id, now.mono);
        let older = self
            .peers
            .entry(name.clone())
            .or_insert_with(Peer::new)
            .current
            .clone();
        match older {
            None => self.install(name, cell, instance, agent, now),
            Some(old) => {
                let peer = self.peers.get(&name);
                let same_instance = peer.is_some_and(|peer| peer.instance == instance);
                let ours = |cell: &SessionCell<T>| cell.pipe.target.is_some();
                if !same_instance {
                    self.actions.push_back(Action::CloseSession {
                        cell: old,
                        code: Code::Superseded,
                    });
                    self.install(name, cell, instance, agent, now);
                } else if ours(&old) && ours(&cell) {
                    // Two routes of one race: the first stays.
                    self.drain(cell, now.mono);
                } else if !ours(&old) && !ours(&cell) {
                    // The side that dialled says which of the two it gives up; until then the newer one is used.
                    self.install(name.clone(), cell, instance, agent.clone(), now);
                    if let Some(peer) = self.peers.get_mut(&name) {
                        peer.reserve = Some((old, instance, agent));
                    }
                } else if self.prefers(&name, &cell) {
                    self.drain(old, now.mono);
                    self.install(name, cell, instance, agent, now);
                } else {
                    // Both sides dialled at once and agree on the older; but if its pipe is dead, only we believe in it.
                    self.actions.push_back(Action::Ping { cell: old });
                    self.timers
                        .insert((now.mono + PROBE, Timer::Probe(name.clone())));
                    if let Some(peer) = self.peers.get_mut(&name) {
                        peer.reserve = Some((cell, instance, agent));
                    }
                }
            }
        }
    }

    /// The peer will close this session: another one is used if there is one.
    pub(super) fn going_away(&mut self, cell: &SessionCell<T>, now: Now) {
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
        }
    }

    /// Of two sessions begun from opposite sides, both sides prefer the one begun by the lower name hash.
    fn prefers(&self, name: &Name, cell: &SessionCell<T>) -> bool {
        let Some(me) = &self.config.identity.name else {
            return true;
        };
        (me.hash() < name.hash()) == cell.pipe.target.is_some()
    }

    fn install(
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
        peer.agent = agent;
        peer.attached_at = now.mono;
        let race = core::mem::replace(&mut peer.dial, Dial::Idle);
        let waiting = core::mem::take(&mut peer.waiting);
        let wanted_by = core::mem::take(&mut peer.wanted_by);
        if let Dial::Racing(race) = race {
            self.cancel(race);
        }
        self.resolver.watch(&name, now.mono);
        for operation in waiting {
            self.actions.push_back(Action::Perform {
                cell: cell.clone(),
                operation,
            });
        }
        for (target, pipe) in wanted_by {
            self.open_circuit(&target, pipe, cell.clone());
        }
        self.actions.push_back(Action::Ping { cell });
        self.tell(&name, now.mono);
        self.update_reachable();
    }

    /// A session is over. What it never sent goes to the next one.
    pub(super) fn session_closed(
        &mut self,
        cell: &SessionCell<T>,
        unsent: Vec<Operation<T>>,
        code: Code,
        retry: Option<Duration>,
        now: Now,
    ) {
        self.draining.remove(&cell.id);
        let Some(name) = cell.peer.name.clone() else {
            for operation in unsent {
                self.fail(operation, Failure::offline(code));
            }
            return;
        };
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if peer
            .reserve
            .as_ref()
            .is_some_and(|(reserve, ..)| reserve.id == cell.id)
        {
            peer.reserve = None;
        }
        for operation in unsent.into_iter().rev() {
            self.timers
                .insert((operation.deadline(), Timer::Waiting(name.clone())));
            peer.waiting.push_front(operation);
        }
        if peer
            .current
            .as_ref()
            .is_none_or(|current| current.id != cell.id)
        {
            self.attempt_failed(&name, cell.pipe.id, code, now);
            return;
        }
        peer.current = None;
        if now.mono.since(peer.attached_at) >= STEADY {
            peer.failures = 0;
        }
        if let Some((reserve, instance, agent)) = peer.reserve.take() {
            return self.install(name, reserve, instance, agent, now);
        }
        if code == Code::Superseded && peer.router {
            // Another process took our name: fighting over it would only make both unreachable.
            self.supersede();
        }
        self.resolver.unwatch(&name);
        self.update_reachable();
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        if !peer.wanted() || (self.superseded && peer.router) {
            self.tell_offline(&name, code, None);
            return self.forget_idle(&name);
        }
        let delay = match retry {
            Some(retry) => retry,
            None if peer.failures == 0 => Duration::ZERO,
            None => backoff(&self.config.limits, peer.failures, &mut self.seeds),
        };
        peer.failures = peer.failures.saturating_add(1);
        self.back_off(&name, delay, code, now.mono);
    }

    /// Stops everything that would take the name back.
    fn supersede(&mut self) {
        self.superseded = true;
        self.out(Output::Event(Event::Identity(Code::Superseded)));
    }

    // Reaching a peer.

    /// Makes sure that somebody works on a session with the peer.
    fn ensure(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer.current.is_some() {
            return;
        }
        match &peer.dial {
            Dial::Idle => self.begin_dial(name, Freshness::Cached, now),
            // A person who tries again need not wait for the backoff, but nobody hammers.
            Dial::Backoff { .. } if now.mono.since(peer.last_dial) >= Duration::from_secs(1) => {
                self.begin_dial(name, Freshness::Cached, now);
            }
            Dial::Backoff { .. } | Dial::Resolving { .. } | Dial::Racing(_) => {}
        }
    }

    fn begin_dial(&mut self, name: &Name, freshness: Freshness, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.last_dial = now.mono;
        peer.dial = Dial::Resolving {
            again: freshness != Freshness::Cached,
        };
        self.tell(name, now.mono);
        match self.resolver.lookup(name, freshness, Cause::Own, now) {
            Lookup::Ready(result) => self.resolved(name, result, now),
            Lookup::Pending(id) => {
                self.lookups.insert(id, Purpose::Dial(name.clone()));
            }
        }
        self.drain_resolver(now);
    }

    fn resolved(&mut self, name: &Name, result: Result<Resolved, ResolveError>, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Dial::Resolving { again } = peer.dial else {
            return;
        };
        let resolved = match result {
            Ok(resolved) => resolved,
            Err(error) => return self.give_up(name, error.code, error.retry, now.mono),
        };
        if peer
            .expected_epoch
            .is_some_and(|epoch| epoch != resolved.record.epoch)
        {
            return self.give_up(name, Code::EpochChanged, None, now.mono);
        }
        let record = resolved.record.clone();
        peer.record = Some(resolved);
        let routes = self.routes(name, &record);
        if routes.is_empty() {
            let code = if record.is_direct() {
                Code::SchemeBlocked
            } else {
                Code::NoRoute
            };
            return self.give_up(name, code, None, now.mono);
        }
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.dial = Dial::Racing(Race::new(routes, again));
        self.advance(name, now);
    }

    /// Every way to a peer, best first: its own address, then its routers, those that we are connected to first.
    fn routes(&mut self, name: &Name, record: &Record) -> VecDeque<Route> {
        let mut routers: Vec<Name> = record
            .routers
            .iter()
            .map(|label| Name {
                registry: name.registry,
                label: label.clone(),
            })
            .filter(|router| Some(router) != self.config.identity.name.as_ref() && router != name)
            .collect();
        routers.sort_by_cached_key(|router| {
            let connected = self
                .peers
                .get(router)
                .is_some_and(|peer| peer.current.is_some());
            (!connected, self.seeds.next())
        });
        let mut routes = VecDeque::new();
        if record
            .routing
            .as_ref()
            .is_some_and(|routing| routing.wss || (routing.ws && !self.config.secure_only))
        {
            routes.push_back(Route::Direct);
        }
        routes.extend(routers.into_iter().map(Route::Via));
        routes
    }

    /// Starts the race's next route and sees to it that the one after it follows.
    fn advance(&mut self, name: &Name, now: Now) {
        let pipe = self.take_pipe();
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Some(resolved) = peer.record.clone() else {
            return;
        };
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
            Route::Via(router) => match self.current(&router) {
                Some(hop) => self.open_circuit(name, pipe, hop),
                None => {
                    let entry = self.peers.entry(router.clone()).or_insert_with(Peer::new);
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

    fn open_circuit(&mut self, name: &Name, pipe: u64, hop: Arc<SessionCell<T>>) {
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
    fn router_unreachable(&mut self, router: &Name, code: Code, now: Now) {
        let Some(peer) = self.peers.get_mut(router) else {
            return;
        };
        for (target, pipe) in core::mem::take(&mut peer.wanted_by) {
            self.attempt_failed(&target, pipe, code, now);
        }
    }

    /// A pipe that we began came to nothing.
    pub(super) fn attempt_failed(&mut self, name: &Name, pipe: u64, code: Code, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Dial::Racing(race) = &mut peer.dial else {
            return;
        };
        let Some(at) = race
            .attempts
            .iter()
            .position(|attempt| attempt.pipe == pipe)
        else {
            return;
        };
        let attempt = race.attempts.swap_remove(at);
        race.worst = Some(race.worst.map_or(code, |worst| telling(worst, code)));
        let took = now.mono.since(attempt.began);
        let (more, over, again, worst) = (
            !race.routes.is_empty(),
            race.attempts.is_empty(),
            race.again,
            race.worst,
        );
        self.out(Output::Event(Event::Attempt {
            name: name.clone(),
            route: attempt.route,
            result: Err(code),
            took,
        }));
        if more {
            self.advance(name, now);
        } else if over {
            let code = worst.unwrap_or(code);
            // The record may be stale: what it led to was not who it names. Read it once more before giving up.
            let suspicious = matches!(
                code,
                Code::WrongName | Code::KeyMismatch | Code::WrongTarget | Code::BadSignature
            );
            if suspicious && !again {
                return self.begin_dial(name, Freshness::NewerThan(FRESH), now);
            }
            self.give_up(name, code, None, now.mono);
        }
    }

    fn attempt_succeeded(&mut self, name: &Name, pipe: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Dial::Racing(race) = &mut peer.dial else {
            return;
        };
        let Some(at) = race
            .attempts
            .iter()
            .position(|attempt| attempt.pipe == pipe)
        else {
            return;
        };
        let attempt = race.attempts.swap_remove(at);
        let took = now.since(attempt.began);
        self.out(Output::Event(Event::Attempt {
            name: name.clone(),
            route: attempt.route,
            result: Ok(()),
            took,
        }));
    }

    fn cancel(&mut self, race: Race) {
        for attempt in race.attempts {
            if let Route::Via(router) = &attempt.route
                && let Some(peer) = self.peers.get_mut(router)
            {
                peer.wanted_by.retain(|(_, pipe)| *pipe != attempt.pipe);
            }
            self.actions
                .push_back(Action::AbandonPipe { pipe: attempt.pipe });
        }
    }

    /// No route works now: what waits fails, and a kept peer is tried again later.
    fn give_up(&mut self, name: &Name, code: Code, retry: Option<Duration>, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.failures = peer.failures.saturating_add(1);
        let waiting = core::mem::take(&mut peer.waiting);
        peer.dial = Dial::Idle;
        let again = peer.keep || peer.router;
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
            self.back_off(name, delay, code, now);
        } else {
            self.tell_offline(name, code, None);
            self.forget_idle(name);
        }
        for (target, pipe) in wanted_by {
            let wall = crate::Timestamp::default();
            self.attempt_failed(&target, pipe, code, Now { mono: now, wall });
        }
    }

    fn back_off(&mut self, name: &Name, delay: Duration, reason: Code, now: Instant) {
        let until = now + delay;
        if let Some(peer) = self.peers.get_mut(name) {
            peer.dial = Dial::Backoff { until, reason };
            self.timers.insert((until, Timer::Dial(name.clone())));
            self.tell_offline(name, reason, Some(delay));
        }
    }

    fn dial_due(&mut self, name: &Name, now: Now) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        match &mut peer.dial {
            Dial::Backoff { until, .. } if *until <= now.mono && peer.current.is_none() => {
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
    fn expire_waiting(&mut self, name: &Name, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let (expired, rest): (VecDeque<_>, VecDeque<_>) = core::mem::take(&mut peer.waiting)
            .into_iter()
            .partition(|operation| operation.deadline() <= now);
        peer.waiting = rest;
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

    // Ourselves.

    fn read_myself(&mut self, now: Now) {
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

    fn know_myself(&mut self, result: Result<Resolved, ResolveError>, now: Now) {
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
        if self.config.direct || self.superseded {
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
        for (name, peer) in &mut self.peers {
            peer.router &= routers.contains(name);
        }
        for router in routers {
            self.peers
                .entry(router.clone())
                .or_insert_with(Peer::new)
                .router = true;
            self.ensure(&router, now);
        }
        self.update_reachable();
    }

    fn update_reachable(&mut self) {
        if !self.config.direct {
            let online = self
                .peers
                .values()
                .any(|peer| peer.router && peer.current.is_some());
            self.set_reachable(online);
        }
    }

    fn set_reachable(&mut self, reachable: bool) {
        if self.reachable != reachable {
            self.reachable = reachable;
            self.out(Output::Event(Event::Reachable(reachable)));
        }
    }

    // The chain.

    pub(super) fn drain_resolver(&mut self, now: Now) {
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

    fn looked_up(&mut self, id: LookupId, result: Result<Resolved, ResolveError>, now: Now) {
        match self.lookups.remove(&id) {
            Some(Purpose::Dial(name)) => self.resolved(&name, result, now),
            Some(Purpose::Admit { pipe, key }) => {
                let name = result.as_ref().ok().map(|resolved| resolved.name.clone());
                let verdict = match (name, result) {
                    (Some(name), result) => self.judge(&name, &key, result),
                    (None, Err(error)) => Err(HandshakeError {
                        code: error.for_peer(),
                        retry: error.retry,
                        skew_ms: None,
                    }),
                    (None, Ok(_)) => Err(Code::NameUnknown.into()),
                };
                self.actions.push_back(Action::Admit { pipe, verdict });
            }
            Some(Purpose::Application(token)) => self.out(Output::Resolved { token, result }),
            Some(Purpose::Myself) => self.know_myself(result, now),
            None => {}
        }
    }

    /// A record that we hold has changed: what was made with an old key ends.
    fn record_changed(&mut self, name: &Name, result: Result<Resolved, ResolveError>, now: Now) {
        let Ok(resolved) = result else {
            if self.config.identity.name.as_ref() == Some(name) {
                self.know_myself(result, now);
            }
            return;
        };
        if self.config.identity.name.as_ref() == Some(&resolved.name) {
            self.know_myself(Ok(resolved), now);
            return;
        }
        if let Some(peer) = self.peers.get_mut(&resolved.name) {
            peer.record = Some(resolved.clone());
            if let Some(cell) = peer
                .current
                .clone()
                .filter(|cell| cell.peer.key != resolved.record.key)
            {
                self.actions.push_back(Action::CloseSession {
                    cell,
                    code: Code::KeyMismatch,
                });
            }
        }
        self.out(Output::Event(Event::RecordChanged(resolved)));
    }

    // Several sessions with one peer.

    /// Nothing new is begun on this session, on either side; it closes once everything under way is done.
    fn drain(&mut self, cell: Arc<SessionCell<T>>, now: Instant) {
        self.actions
            .push_back(Action::Retire { cell: cell.clone() });
        self.timers
            .insert((now + DRAIN_CHECK, Timer::Drain(cell.id)));
        self.draining.insert(cell.id, (cell, now + DRAIN));
    }

    fn drain_due(&mut self, id: u64, now: Instant) {
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

    fn probe_due(&mut self, name: &Name, now: Now) {
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

    // News and ends.

    fn out(&mut self, output: Output<T>) {
        self.actions.push_back(Action::Out(output));
    }

    fn fail(&mut self, operation: Operation<T>, failure: Failure) {
        self.out(Output::Failed {
            token: operation.into_token(),
            failure,
        });
    }

    fn tell(&mut self, name: &Name, now: Instant) {
        let Some(peer) = self.peers.get(name) else {
            return;
        };
        let event = Event::Peer {
            name: name.clone(),
            router: peer.router,
            state: self.state_of(peer, now),
        };
        self.out(Output::Event(event));
    }

    fn tell_offline(&mut self, name: &Name, reason: Code, retry: Option<Duration>) {
        let router = self.peers.get(name).is_some_and(|peer| peer.router);
        let state = PeerState::Offline { reason, retry };
        self.out(Output::Event(Event::Peer {
            name: name.clone(),
            router,
            state,
        }));
    }

    /// Nothing is remembered about a peer that nobody wants: strangers cost no memory.
    fn forget_idle(&mut self, name: &Name) {
        let idle = |peer: &Peer<T>| {
            !peer.wanted()
                && peer.current.is_none()
                && peer.expected_epoch.is_none()
                && matches!(peer.dial, Dial::Idle)
        };
        if self.peers.get(name).is_some_and(idle) {
            self.peers.remove(name);
        }
    }

    /// Gives up operations that still wait for a session.
    pub(super) fn cancel_waiting(&mut self, name: &Name, matches: impl Fn(&T) -> bool) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let (cancelled, rest): (VecDeque<_>, VecDeque<_>) = core::mem::take(&mut peer.waiting)
            .into_iter()
            .partition(|operation| matches(operation.token()));
        peer.waiting = rest;
        for operation in cancelled {
            self.fail(operation, Failure::new(Code::Cancelled));
        }
    }
}

/// Which of two failures says more to a person: who somebody is beats where nobody was.
fn telling(a: Code, b: Code) -> Code {
    let weight = |code: Code| match code.fault() {
        crate::code::Fault::Identity => 4,
        crate::code::Fault::Incompatible => 3,
        crate::code::Fault::Peer => 2,
        crate::code::Fault::Limit => 1,
        _ => 0,
    };
    if weight(b) > weight(a) { b } else { a }
}

fn route_of<T>(cell: &SessionCell<T>) -> Route {
    match &cell.pipe.kind {
        super::cell::PipeKind::Circuit { hop, .. } => {
            hop.peer.name.clone().map_or(Route::Direct, Route::Via)
        }
        super::cell::PipeKind::Socket { .. } => Route::Direct,
    }
}
