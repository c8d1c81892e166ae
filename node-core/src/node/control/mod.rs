//! The control plane: which peers there are, how they are looked up, dialled and admitted, who is hosted.
//!
//! It is told what happened and leaves [`Action`]s for the node to carry out once its lock is free. It may look into a
//! session; no session ever looks into it.

mod admit;
mod chain;
mod parked;
mod rates;
mod reach;
mod sessions;

use super::{
    NodeConfig,
    budget::Budgets,
    cell::{Address, PipeCell, PipeKind, SessionCell},
    dial::Dial,
    output::{Event, Failure, Output, PeerState, Route},
    seeds::Seeds,
    standing::Standings,
};
use crate::{
    Code, Name, Now,
    channel::HandshakeError,
    registry::{
        Cause, FetchFailure, FetchId, Freshness, Lookup, LookupId, ResolveError, Resolved, Resolver,
    },
    session::{Operation, Session},
    sorted::{Map, Set},
    time::{Duration, Instant},
};
use alloc::{
    boxed::Box,
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};
use parked::{Parked, Waiting};

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
    /// Go on with a session over a pipe that was held back.
    Ask { pipe: u64 },
    /// Give up a pipe, unless a session was begun on it, or the peer was asked to go on with one over it: then the peer may
    /// use it already, and has to agree.
    AbandonPipe { pipe: u64 },
    /// Hand an operation to a session.
    Perform {
        cell: Arc<SessionCell<T>>,
        operation: Operation<T>,
    },
    /// The chain has answered about the peer that waits at this pipe.
    Admit {
        pipe: u64,
        verdict: Result<Admitted, HandshakeError>,
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
    Admit {
        pipe: u64,
        name: Name,
        key: [u8; 32],
    },
    Application(T),
    Myself,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Dial(Name),
    Waiting(Name),
    Drain,
    Compare(Name),
    Myself,
}

/// A session that is proved: which process of the peer it leads to, and what that calls itself.
type Attached<T> = (Arc<SessionCell<T>>, [u8; 16], Box<str>);

/// All that is known about one named peer.
struct Peer<T> {
    current: Option<Arc<SessionCell<T>>>,
    instance: [u8; 16],
    /// Pipes below this number were begun before that process was there.
    since: u64,
    attached_at: Instant,
    /// When this node last wanted something of it.
    used: Instant,
    agent: Box<str>,
    /// Sessions that have lost their pipe and may go on over another: the one that was in use, or one that was to finish
    /// what it had begun.
    parked: Vec<Parked<T>>,
    /// Sessions beside `current` until it is found which of them is used, oldest first.
    others: Vec<Attached<T>>,
    /// When the peer was last asked on which of its sessions it is there.
    compared: Instant,
    /// When to look whether it has answered.
    compare_at: Instant,
    waiting: VecDeque<Operation<T>>,
    /// The last session that was begun with requests on it, whether or not the peer has attached it.
    beginning: Weak<SessionCell<T>>,
    /// A session is kept up even when nothing waits: the peer is a contact.
    keep: bool,
    /// One of our own routers.
    router: bool,
    /// Whether its record is watched for changes.
    watched: bool,
    /// It said that another process of our name took our place there: nothing of our own accord takes it back.
    superseded: bool,
    record: Option<Resolved>,
    expected_epoch: Option<u32>,
    dial: Dial,
    failures: u32,
    /// The present search for it, or the last one, went only ways that show it nothing.
    unseen: bool,
    /// The last search for it ended since its own attempt counts, and that has not come yet.
    stood_back: bool,
    last_dial: Instant,
    /// Routes on which nothing came of the last attempt for two seconds: as many as a record can name.
    silent: Vec<Route>,
    /// Who wants to be reached through this peer, with the pipe numbers set aside for them.
    wanted_by: Vec<(Name, u64)>,
}

impl<T> Peer<T> {
    fn new() -> Self {
        Self {
            current: None,
            instance: [0; 16],
            since: 0,
            attached_at: Instant::default(),
            used: Instant::default(),
            agent: "".into(),
            parked: Vec::new(),
            others: Vec::new(),
            compared: Instant::default(),
            compare_at: Instant::default(),
            waiting: VecDeque::new(),
            beginning: Weak::new(),
            keep: false,
            router: false,
            watched: false,
            superseded: false,
            record: None,
            expected_epoch: None,
            dial: Dial::Idle,
            failures: 0,
            unseen: false,
            stood_back: false,
            last_dial: Instant::default(),
            silent: Vec::new(),
            wanted_by: Vec::new(),
        }
    }

    /// The session over which the peer, as a router, carries circuits: one that is not over a circuit itself. It may not be
    /// in use yet.
    fn carrier(&self) -> Option<&Arc<SessionCell<T>>> {
        let carries = |cell: &&Arc<SessionCell<T>>| !cell.over_circuit();
        let mut others = self.others.iter().map(|(cell, ..)| cell);
        let current = self.current.as_ref().filter(carries);
        current.or_else(|| others.find(carries))
    }

    /// Whether there is the session that is needed: one of our routers hosts us over a socket of its own only.
    fn is_reached(&self) -> bool {
        if self.resumes() || self.wants_pipe() {
            return false;
        }
        let needs_carrier = self.router || !self.wanted_by.is_empty();
        self.carrier().is_some() || (!needs_carrier && self.current.is_some())
    }

    /// Takes the session to use instead of the present one, preferably one that the peer does not leave.
    fn next(&mut self) -> Option<Attached<T>> {
        let stays = |(cell, ..): &Attached<T>| !cell.with_pipe(|session| session.is_left());
        let at = self.others.iter().position(stays).unwrap_or_default();
        (at < self.others.len()).then(|| self.others.remove(at))
    }

    /// Whether we look for another pipe for a session.
    fn resumes(&self) -> bool {
        self.parked.iter().any(|parked| parked.dial)
    }

    /// Whether we look for another pipe although there is one: nothing comes over it, or it is old. A session that the peer
    /// may not know of cannot go on over another: a second one takes its place, and then it is for `compare` to see that.
    fn wants_pipe(&self) -> bool {
        let alone = self.others.is_empty();
        let wants =
            |session: &mut Session<T>| session.wants_pipe() && (alone || session.is_confirmed());
        let current = self.current.as_ref();
        let asked = !self.waiting.is_empty();
        let ours = |cell: &SessionCell<T>| asked || cell.is_ours_to_keep(cell.dialled());
        current.is_some_and(|cell| cell.with_pipe(wants) && ours(cell))
    }

    /// Whether it is only looked for to carry circuits.
    fn is_only_to_carry(&self) -> bool {
        self.waiting.is_empty() && !self.keep && !self.resumes() && !self.wants_pipe()
    }

    /// Whether all that we look for is another pipe for sessions whose peer came through a router: only ways that show it
    /// nothing new will do, whatever its record says.
    fn is_looked_for_unseen(&self) -> bool {
        if self.keep || self.router || !self.waiting.is_empty() || !self.wanted_by.is_empty() {
            return false;
        }
        // Read before what is wanted: another thread may just be giving it a pipe on which it is seen, and then wants none.
        let current_seen = self.current.as_ref().is_some_and(|cell| !cell.is_hidden());
        let wants = self.wants_pipe();
        let parked_seen = |parked: &Parked<T>| parked.dial && !parked.hidden;
        (wants || self.resumes())
            && !self.parked.iter().any(parked_seen)
            && !(wants && current_seen)
    }

    /// Takes those operations out that wait and are meant.
    fn take_waiting(&mut self, meant: &dyn Fn(&Operation<T>) -> bool) -> Vec<Operation<T>> {
        let mut taken = Vec::new();
        for operation in core::mem::take(&mut self.waiting) {
            if meant(&operation) {
                taken.push(operation);
            } else {
                self.waiting.push_back(operation);
            }
        }
        taken
    }

    /// Whether the search has gone only ways that show the peer nothing, and something is wanted of it now that may go others.
    fn is_open_now(&self) -> bool {
        self.unseen && !self.is_looked_for_unseen()
    }

    fn wanted(&self) -> bool {
        let always = (self.keep || self.router) && !self.superseded;
        always
            || self.resumes()
            || self.wants_pipe()
            || !self.waiting.is_empty()
            || !self.wanted_by.is_empty()
    }
}

impl<T> Peer<T> {
    /// Whether a record says that who authenticated with `key` is not the one that we had a session with.
    fn is_outdated(&self, known: &Resolved, key: &[u8; 32]) -> bool {
        let epoch = self.record.as_ref().map(|record| record.record.epoch);
        known.record.key != *key || epoch.is_some_and(|epoch| epoch != known.record.epoch)
    }
}

/// What an inbound peer is let in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Its record says that the key is its own.
    Fully,
    /// The chain cannot be read, but there is a session with it under the same key, which would live on as well: it may go
    /// on with that, and begin nothing.
    ToGoOn,
}

/// How an inbound peer fares at admission.
pub(super) enum Verdict {
    Admit(Admitted),
    Wait,
    Refuse(HandshakeError),
}

pub(super) struct Control<T> {
    config: Arc<NodeConfig>,
    pub(super) resolver: Resolver,
    pub(super) seeds: Seeds,
    pub(super) budgets: Budgets,
    pub(super) standings: Standings,
    pub(super) actions: VecDeque<Action<T>>,
    peers: Map<Name, Peer<T>>,
    lookups: Map<LookupId, Purpose<T>>,
    /// The sessions of all peers that wait for another pipe, in the order in which they began to.
    parked: Vec<Waiting<T>>,
    timers: Set<(Instant, Timer)>,
    /// Sessions that finish what is under way and then close.
    /// With how long they wait at most, once nothing is under way here, for the peer to have nothing under way either;
    /// `None` until it was told.
    draining: Map<u64, (Arc<SessionCell<T>>, Option<Instant>)>,
    /// Whether there is a timer for these.
    drains: bool,
    /// The node ends: nothing is begun any more.
    pub(super) closed: bool,
    reachable: bool,
    next_pipe: u64,
}

/// How long a peer has to say that it has nothing under way on a session that lost against another.
const DRAIN: Duration = Duration::from_secs(30);
/// How often a draining session is looked at.
const DRAIN_CHECK: Duration = Duration::from_millis(500);
/// How long a peer has to show that it is there on the session that is to be used.
const PROBE: Duration = Duration::from_secs(5);
/// How often is looked whether it has.
const COMPARE_CHECK: Duration = Duration::from_millis(100);
/// Sessions with one peer beside the one in use.
const OTHERS: usize = 4;
/// Sessions that we have dialled, are used no more, and finish what they have begun, with all peers together. 32: all that
/// dial each other at once after an outage make one of them each. Worst case: each holds what a session may hold.
pub const DRAINING: usize = 32;
/// A session that lasted this long resets the backoff.
const STEADY: Duration = Duration::from_secs(5);
/// A cached record younger than this is not read again, whatever a signature says against it.
const FRESH: Duration = Duration::from_secs(5);
/// How often an indirect node looks whether its own record has changed, while the chain has no better way to say so.
const REREAD_MYSELF: Duration = Duration::from_secs(60);

impl<T> Control<T> {
    pub(super) fn new(config: Arc<NodeConfig>, resolver: Resolver, seeds: Seeds) -> Self {
        Self {
            budgets: Budgets::new(&config.limits),
            standings: Standings::new(&config.limits),
            config,
            resolver,
            seeds,
            actions: VecDeque::new(),
            peers: Map::default(),
            lookups: Map::default(),
            parked: Vec::new(),
            timers: Set::default(),
            draining: Map::default(),
            drains: false,
            closed: false,
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

    pub(super) const fn is_reachable(&self) -> bool {
        self.reachable
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
        states
    }

    fn state_of(&self, peer: &Peer<T>, now: Instant) -> PeerState {
        match (&peer.current, &peer.dial) {
            (Some(cell), _) => PeerState::Online {
                route: route_of(cell.pipe().as_deref()),
                how: peer.record.as_ref().map(|record| record.how),
                agent: peer.agent.clone(),
            },
            (None, _) if let Some(parked) = peer.parked.last() => PeerState::Interrupted {
                reason: parked.reason,
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
        let mut taken_back = Vec::new();
        for (name, peer) in self.peers.iter_mut() {
            if core::mem::take(&mut peer.superseded) && peer.keep {
                taken_back.push(name.clone());
            }
        }
        for name in taken_back {
            self.ensure(&name, now);
        }
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
        if self.closed {
            return self.fail(operation, Failure::new(Code::NodeClosed));
        }
        if let Err(code) = operation.check(self.config.limits.message_bytes) {
            return self.fail(operation, Failure::new(code));
        }
        let waiting = self.config.limits.waiting;
        let peer = self.peers.get_or_insert_with(name.clone(), Peer::new);
        peer.used = now.mono;
        if let Some(cell) = peer
            .current
            .as_ref()
            .filter(|cell| begins(cell, &operation))
        {
            let cell = cell.clone();
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

    /// An operation has met the end of the session that it was for: it waits for the next.
    pub(super) fn resubmit(
        &mut self,
        cell: &Arc<SessionCell<T>>,
        operation: Operation<T>,
        now: Now,
    ) {
        let Some(name) = cell.peer.name.clone() else {
            return self.fail(operation, Failure::offline(Code::Closed));
        };
        match self.peers.get_mut(&name) {
            // Its end has not been dealt with yet, and will begin whatever is needed.
            Some(peer)
                if peer
                    .current
                    .as_ref()
                    .is_some_and(|current| current.id == cell.id) =>
            {
                if cell.with_pipe(|session| session.is_retired()) {
                    // What was to be said on it before it went on, and was used again, is said.
                    self.let_go(&name, now);
                    return self.submit(name, operation, now);
                }
                self.timers
                    .insert((operation.deadline(), Timer::Waiting(name)));
                let first = peer.waiting.is_empty();
                peer.waiting.push_back(operation);
                if first {
                    // Should it be there after all, its answer lets begin what waits.
                    let cell = cell.clone();
                    self.actions.push_back(Action::Ping { cell });
                }
            }
            _ => self.submit(name, operation, now),
        }
    }

    /// Takes what may leave before the peer has attached a session that we begin with it.
    pub(in super::super) fn take_early(
        &mut self,
        cell: &Arc<SessionCell<T>>,
        now: Now,
    ) -> Vec<Operation<T>> {
        let mut early = Vec::new();
        let name = cell.peer.name.as_ref();
        // What was found out since the search began ends the session as soon as it is attached.
        if name.is_some_and(|name| self.may_stay(name, &cell.peer.key, now).is_err()) {
            return early;
        }
        if let Some(peer) = name.and_then(|name| self.peers.get_mut(name)) {
            for operation in core::mem::take(&mut peer.waiting) {
                match operation {
                    Operation::Request { ref request, .. } if request.early => {
                        peer.beginning = Arc::downgrade(cell);
                        early.push(operation);
                    }
                    operation => peer.waiting.push_back(operation),
                }
            }
        }
        early
    }

    /// Begins what waits for the session in use, as far as that may begin.
    pub(super) fn begin_waiting(&mut self, name: &Name) {
        if let Some(peer) = self.peers.get_mut(name)
            && let Some(cell) = &peer.current
        {
            for operation in core::mem::take(&mut peer.waiting) {
                if begins(cell, &operation) {
                    let cell = cell.clone();
                    self.actions.push_back(Action::Perform { cell, operation });
                } else {
                    peer.waiting.push_back(operation);
                }
            }
        }
    }

    /// Keeps a session with a contact up, or stops doing so. A known epoch makes a name that was sold unreachable.
    pub(super) fn keep(&mut self, name: Name, keep: bool, epoch: Option<u32>, now: Now) {
        if self.config.identity.name.as_ref() == Some(&name) {
            return;
        }
        let peer = self.peers.get_or_insert_with(name.clone(), Peer::new);
        peer.keep = keep;
        peer.superseded &= !keep;
        peer.expected_epoch = epoch.or(peer.expected_epoch);
        let known = peer.record.as_ref().map(|known| known.record.epoch);
        if peer.expected_epoch.or(known) != known {
            // Another owner than the one that is meant was here first.
            self.close_all(&name, None, Code::EpochChanged);
        }
        if keep {
            self.ensure(&name, now);
        } else {
            // It may have become a stranger.
            for cell in self.sessions_with(&name) {
                self.keep_rates(&cell, now);
            }
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
        if self.closed {
            let result = Err(node_closed());
            return self.out(Output::Resolved { token, result });
        }
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
                Timer::Drain => self.drain_due(now.mono),
                Timer::Compare(name) => self.compare_due(&name, now),
                Timer::Myself => self.read_myself(now),
            }
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
        let peer = self.peers.get(name);
        // That its session waits was told when it began to.
        if peer.is_some_and(|peer| !peer.parked.is_empty()) {
            return;
        }
        let router = peer.is_some_and(|peer| peer.router);
        let state = PeerState::Offline { reason, retry };
        self.out(Output::Event(Event::Peer {
            name: name.clone(),
            router,
            state,
        }));
    }

    /// Nothing is remembered about a peer that nobody wants and that there is no session with: strangers cost no memory. A
    /// session that drains may lose its pipe before the peer has heard of that, and then waits for it like any other.
    fn forget_idle(&mut self, name: &Name) {
        if !self.sessions_with(name).is_empty() {
            return;
        }
        let idle = |peer: &Peer<T>| {
            // That we must not come back is remembered as long as we would.
            let stays_away = peer.superseded && (peer.keep || peer.router);
            !peer.wanted()
                && !stays_away
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
        for operation in peer.take_waiting(&|operation| matches(operation.token())) {
            self.fail(operation, Failure::new(Code::Cancelled));
        }
    }

    /// Hands every token back that still waits for a session or a look-up.
    pub(super) fn abandon(&mut self) {
        self.closed = true;
        for (_, purpose) in core::mem::take(&mut self.lookups) {
            if let Purpose::Application(token) = purpose {
                let result = Err(node_closed());
                self.out(Output::Resolved { token, result });
            }
        }
        for (_, peer) in core::mem::take(&mut self.peers) {
            for parked in peer.parked {
                self.end(parked.cell, Code::NodeClosed);
            }
            for operation in peer.waiting {
                self.fail(operation, Failure::new(Code::NodeClosed));
            }
        }
    }
}

/// Whether an operation may begin on a session. What never left moves to another one, but for a stream: its application holds
/// it from the beginning. So that waits until the peer is known to have the session as well.
fn begins<T>(cell: &SessionCell<T>, operation: &Operation<T>) -> bool {
    !matches!(operation, Operation::Stream { .. })
        || cell.with_pipe(|session| session.is_confirmed())
}

fn node_closed() -> ResolveError {
    ResolveError {
        code: Code::NodeClosed,
        retry: None,
        detail: None,
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

fn route_of<T>(pipe: Option<&PipeCell<T>>) -> Route {
    match pipe.map(|pipe| &pipe.kind) {
        Some(PipeKind::Circuit { hop, .. }) => {
            hop.peer.name.clone().map_or(Route::Direct, Route::Via)
        }
        _ => Route::Direct,
    }
}
