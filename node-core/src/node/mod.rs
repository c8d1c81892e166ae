//! A whole node: control plane, sessions and pipes, put together for drivers.
//!
//! A driver owns sockets, one timer and the way to the RPC endpoints. It hands in what happens and matches every
//! [`Output`]; a pipe's own task asks [`Node::poll_transmit`] for messages whenever its socket has room.
//!
//! All methods take `&self`. Each session has a lock of its own, taken by its pipe's task and by application handles
//! only; the control plane has another one, taken a few times in a session's life. No payload passes through it.

mod admission;
mod application;
mod budget;
mod cell;
mod circuits;
mod config;
mod control;
mod dial;
mod dispatch;
mod output;
mod pipe;
mod refused;
mod resume;
mod seeds;
mod standing;
mod timers;

pub use cell::{Address, AddressGroup, Pipe};
pub use config::{Access, ConfigError, NodeConfig, RouterPolicy};
pub use control::DRAINING;
pub use output::{
    Event, Failure, Incoming, IncomingMessage, IncomingStream, Output, PeerState, Route, Stream,
};
pub use standing::{Ban, Score, Subject};

use crate::{
    Code, Limits, Name, Now, RegistryId,
    channel::{HandshakeError, HelloInfo, Local, UserAgent},
    registry::{EndpointHealth, FetchFailure, FetchId, NameParseError, Resolver},
    session::Held,
    sorted::Map,
    time::{Duration, Instant},
};
use alloc::{string::String, sync::Arc, vec::Vec};
use bytes::Bytes;
use cell::{PipeCell, PipeKind, PipeState, SessionCell};
use control::Control;
use core::{sync::atomic::AtomicU64, task::Waker};
use seeds::Seeds;
use std::sync::Mutex;
use timers::{Armed, Due, Timers, lock};

/// What a peer looks like from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who.
    pub name: Name,
    /// Whether it is one of our own routers.
    pub router: bool,
    /// How it is doing.
    pub state: PeerState,
    /// The last measured round trip.
    pub round_trip: Option<Duration>,
}

/// Counts for status pages and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inbound pipes in handshake.
    pub half_open: usize,
    /// Inbound pipes that are authenticated.
    pub inbound: usize,
    /// Sessions of all kinds that have a pipe.
    pub sessions: usize,
    /// Sessions that wait for another pipe.
    pub parked: usize,
    /// Circuits that end or pass here, counted at each of their sessions.
    pub circuits: usize,
    /// Bytes of circuits that wait here for somebody's socket.
    pub circuit_bytes: u64,
    /// Bytes that sessions keep until their peers acknowledge them.
    pub retained_bytes: usize,
    /// Bytes of requests, messages and answers that wait to be sent.
    pub outbox_bytes: usize,
    /// Bytes of peers' requests and messages that wait for the application.
    pub inbox_bytes: usize,
    /// Bytes of all kinds that are held by the sessions that wait.
    pub parked_bytes: usize,
}

/// A node. Cloning it gives another handle to the same node.
pub struct Node<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<T> {
    config: Arc<NodeConfig>,
    local: Arc<Local>,
    limits: Arc<Limits>,
    instance_secret: [u8; 32],
    control: Mutex<Control<T>>,
    sessions: Mutex<Map<u64, Arc<SessionCell<T>>>>,
    pipes: Mutex<Map<u64, Arc<PipeCell<T>>>>,
    tickets: Mutex<Map<u64, budget::Ticket>>,
    timers: Arc<Timers>,
    /// The control plane's deadline.
    armed: Armed,
    next_session: AtomicU64,
    refused: refused::Refused,
}

impl<T> Node<T> {
    /// A node that does nothing yet. `seed` must be random: all randomness of the node comes from it and from
    /// [`reseed`](Self::reseed).
    pub fn new(config: NodeConfig, seed: [u8; 32]) -> Result<Self, ConfigError> {
        let user_agent = UserAgent::new(&config.user_agent);
        let mut seeds = Seeds::new(seed);
        let registries: Arc<[RegistryId]> = config
            .registries
            .iter()
            .map(|registry| registry.id)
            .collect();
        let resolver = Resolver::new(
            config.registries.clone(),
            config.pinned.clone(),
            config.resolver.clone(),
        )
        .map_err(|(name, error)| ConfigError::Pinned(name, error))?;
        let local = Local {
            identity: config.identity.clone(),
            hello: HelloInfo {
                user_agent,
                ..HelloInfo::default()
            },
            registries,
            clock_window: config.limits.clock_window,
            signer: config.signer.clone(),
        };
        let config = Arc::new(config);
        Ok(Self {
            inner: Arc::new(Inner {
                local: Arc::new(local),
                limits: Arc::new(config.limits.clone()),
                instance_secret: seeds.next(),
                control: Mutex::new(Control::new(config.clone(), resolver, seeds)),
                config,
                sessions: Mutex::new(Map::default()),
                pipes: Mutex::new(Map::default()),
                tickets: Mutex::new(Map::default()),
                timers: Arc::new(Timers::default()),
                armed: Armed::new(),
                next_session: AtomicU64::new(1),
                refused: refused::Refused::default(),
            }),
        })
    }

    // Getters.

    /// Its configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    /// The next time at which [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.timers.deadline()
    }

    /// Wakes `waker` once a deadline earlier than [`deadline`](Self::deadline) appears.
    pub fn watch_deadline(&self, waker: &Waker) {
        self.inner.timers.watch(waker);
    }

    /// Whether others can reach this node; see [`Event::Reachable`].
    pub fn is_reachable(&self) -> bool {
        lock(&self.inner.control).is_reachable()
    }

    /// All peers that are connected or wanted.
    pub fn peers(&self, now: Instant) -> Vec<PeerInfo> {
        let states = lock(&self.inner.control).states(now);
        states
            .into_iter()
            .map(|(name, router, state, round_trip)| PeerInfo {
                name,
                router,
                state,
                round_trip,
            })
            .collect()
    }

    /// Counts for status pages.
    pub fn counts(&self) -> Counts {
        let (half_open, inbound) = lock(&self.inner.control).budgets.counts();
        let sessions: Vec<_> = lock(&self.inner.sessions).values().cloned().collect();
        let mut counts = Counts {
            half_open,
            inbound,
            ..Counts::default()
        };
        for cell in &sessions {
            let held = cell.with_pipe(|session| {
                counts.circuits += session.circuits();
                counts.circuit_bytes += session.circuit_bytes();
                session.held()
            });
            counts.retained_bytes += held.retained;
            counts.outbox_bytes += held.outbox;
            counts.inbox_bytes += held.inbox;
            if held.parked {
                counts.parked += 1;
                counts.parked_bytes += held.bytes();
            }
        }
        counts.sessions = sessions.len() - counts.parked;
        counts
    }

    /// What each session holds.
    pub fn held(&self) -> Vec<Held> {
        let sessions: Vec<_> = lock(&self.inner.sessions).values().cloned().collect();
        let held = sessions
            .iter()
            .map(|cell| cell.with_pipe(|session| session.held()));
        held.collect()
    }

    /// Health of the RPC endpoints.
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        lock(&self.inner.control).resolver.health()
    }

    /// Reads a name as people write it: `alice.tld`.
    pub fn parse_name(&self, text: &str) -> Result<Name, NameParseError> {
        lock(&self.inner.control).resolver.parse(text)
    }

    /// Writes a name as people read it.
    pub fn display_name(&self, name: &Name) -> String {
        lock(&self.inner.control).resolver.display(name)
    }

    /// Bans that have not ended.
    pub fn bans(&self, now: Now) -> Vec<Ban> {
        lock(&self.inner.control).standings.bans(now.wall)
    }

    /// Who has the highest scores now, `most` names and `most` address groups at most; the highest first.
    pub fn scores(&self, most: usize, now: Now) -> Vec<Score> {
        lock(&self.inner.control).standings.scores(most, now)
    }

    /// How often others were refused or sent away so far, by the reason: always the same reasons, in the order of their numbers.
    pub fn refused(&self) -> impl IntoIterator<Item = (Code, u64)> + use<T> {
        self.inner.refused.counts()
    }

    /// Bans somebody, or gives a ban another end: [`Event::Banned`], unless it is over already or changes nothing. A name's
    /// sessions end.
    pub fn ban(&self, ban: Ban, now: Now, out: &mut Vec<Output<T>>) {
        self.control(now, out, |control| control.ban(ban, now));
    }

    /// Lifts a ban before its end: [`Event::Lifted`]. False if there was none.
    pub fn lift(&self, subject: &Subject, now: Now, out: &mut Vec<Output<T>>) -> bool {
        self.control(now, out, |control| control.lift(subject, now))
    }

    // Inputs from the driver.

    /// Begins. An indirect node connects to its routers. Called again after another process took our name's place
    /// ([`Code::Superseded`]), it takes that back: at its routers, and at the contacts that it [keeps](Self::keep).
    pub fn start(&self, now: Now, out: &mut Vec<Output<T>>) {
        self.control(now, out, |control| control.start(now));
    }

    /// Mixes fresh entropy in.
    pub fn reseed(&self, entropy: &[u8; 32]) {
        lock(&self.inner.control).seeds.mix(entropy);
    }

    /// A WebSocket came in. `group` is its source for budgets and bans; one with the highest bit set is shared by people who
    /// have nothing to do with each other, such as the clients of a proxy, and never banned. An error says why the socket
    /// must be closed at once, after its [`reject`](HandshakeError::reject) was sent.
    pub fn accept(&self, group: AddressGroup, now: Now) -> Result<Pipe<T>, HandshakeError> {
        self.take_in(group, false, now)
    }

    /// [`accept`](Self::accept) for a WebSocket that a web page of somebody else's opened. Whoever looks at that page need not
    /// know: what is wrong with the socket counts against no addresses, or any page could shut its visitors out of this node.
    /// Their rates, budgets and bans hold for it.
    pub fn accept_unasked(&self, group: AddressGroup, now: Now) -> Result<Pipe<T>, HandshakeError> {
        self.take_in(group, true, now)
    }

    fn take_in(
        &self,
        group: AddressGroup,
        unasked: bool,
        now: Now,
    ) -> Result<Pipe<T>, HandshakeError> {
        let accepted = {
            let mut control = lock(&self.inner.control);
            let ticket = control.accept(group, now);
            ticket.map(|ticket| (control.take_pipe(), ticket))
        };
        let (id, ticket) = accepted.inspect_err(|error| self.inner.refused.count(error.code))?;
        lock(&self.inner.tickets).insert(id, ticket);
        let kind = PipeKind::Socket {
            group: Some(group),
            unasked,
        };
        Ok(Pipe(self.enter_pipe(
            id,
            kind,
            None,
            PipeState::Accepted,
            now.mono,
        )))
    }

    /// Message 1 for the socket of an [`Output::Dial`], to ride in its upgrade ([`wire::upgrade`](crate::wire::upgrade)); to be
    /// asked for as late as possible. `None` if it was taken already, or the pipe is over.
    pub fn first_message(&self, pipe: &Pipe<T>) -> Option<Bytes> {
        self.begin_handshake(&pipe.0)
    }

    /// The socket of an [`Output::Dial`] is open. Message 1 goes over it if it was not asked for, or is given back because it
    /// did not ride in the upgrade.
    pub fn opened(&self, pipe: &Pipe<T>, unsent: Option<Bytes>) {
        if let Some(message) = unsent.or_else(|| self.begin_handshake(&pipe.0)) {
            pipe.0.send(message);
        }
    }

    /// The socket of a pipe could not be opened, or is gone.
    pub fn closed(&self, pipe: &Pipe<T>, code: Code, now: Now, out: &mut Vec<Output<T>>) {
        self.end_pipe(&pipe.0, code, None, now, out);
    }

    /// A whole binary message came in.
    pub fn handle_message(
        &self,
        pipe: &Pipe<T>,
        message: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.pipe_message(&pipe.0, message, now, out);
    }

    /// The signer's answer to an [`Output::Sign`]; `None` when it refused.
    pub fn signed(
        &self,
        pipe: &Pipe<T>,
        signature: Option<[u8; 64]>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.pipe_signed(&pipe.0, signature, now, out);
    }

    /// The answer to an [`Output::Fetch`].
    pub fn answered(
        &self,
        id: FetchId,
        answer: Result<&[u8], FetchFailure>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.control(now, out, |control| control.answered(id, answer, now));
    }

    /// Does what is due.
    pub fn handle_timeout(&self, now: Now, out: &mut Vec<Output<T>>) {
        for due in self.inner.timers.take_due(now.mono) {
            match due {
                Due::Control => self.inner.armed.fired(now.mono),
                Due::Session(id) => {
                    if let Some(cell) = self.session(id) {
                        cell.fired(now.mono);
                        let mut events = Vec::new();
                        cell.with(|session| session.handle_timeout(now.mono, &mut events));
                        self.dispatch(&cell, events, now, out);
                    }
                }
                Due::Pipe(id) => {
                    // A peer that never attaches its session has not finished its handshake either.
                    if let Some(pipe) = self.pipe(id)
                        && pipe
                            .session()
                            .is_none_or(|cell| !cell.with_pipe(|session| session.is_attached()))
                    {
                        self.end_pipe(&pipe, Code::HandshakeTimeout, None, now, out);
                    }
                }
                Due::Offer(id) => {
                    // Once it is answered, what was begun on the pipe has the handshake's time.
                    if let Some(pipe) = self.pipe(id)
                        && pipe.give_up(|state| matches!(state, PipeState::Resuming(_)))
                    {
                        self.end_pipe(&pipe, Code::HandshakeTimeout, None, now, out);
                    }
                }
            }
        }
        self.control(now, out, |control| control.handle_timeout(now));
    }

    /// Whoever drives a pipe is at it: nobody is woken for it before [`poll_transmit`](Self::poll_transmit) is asked again,
    /// which has to be before it rests, unless the socket takes nothing. What comes of its own work would wake it otherwise.
    pub fn attend(&self, pipe: &Pipe<T>) {
        pipe.0.unwatch();
    }

    /// The next message for a pipe's socket; `None` until `waker` is woken.
    pub fn poll_transmit(
        &self,
        pipe: &Pipe<T>,
        waker: &Waker,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Option<Bytes> {
        let message = self.transmit(&pipe.0, false, now, out);
        if message.is_some() {
            return message;
        }
        // What has come to be said in between has woken nobody.
        pipe.0.watch(waker);
        self.transmit(&pipe.0, false, now, out)
    }
}

impl<T> core::fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node")
            .field("identity", &self.inner.config.identity)
            .finish_non_exhaustive()
    }
}
