//! A whole node: control plane, sessions and pipes, put together for drivers.
//!
//! A driver owns sockets, one timer and the way to the RPC endpoints. It hands in what happens and matches every
//! [`Output`]; a pipe's own task asks [`Node::poll_transmit`] for messages whenever its socket has room.
//!
//! All methods take `&self`. Each session has a lock of its own, taken by its pipe's task and by application handles
//! only; the control plane has another one, taken a few times in a session's life. No payload passes through it.

mod budget;
mod cell;
mod control;
mod dial;
mod output;
mod pipe;
mod seeds;
mod timers;

pub use cell::{Address, AddressGroup, Pipe};
pub use output::{
    Event, Failure, Incoming, IncomingMessage, IncomingStream, Output, PeerState, Route, Stream,
};

use crate::{
    Code, Limits, Name, Now, RegistryId,
    channel::{HelloInfo, Identity, Local, UserAgent},
    registry::{
        EndpointHealth, FetchFailure, FetchId, NameParseError, Record, RecordError, RegistryConfig,
        Resolved, Resolver, ResolverLimits,
    },
    session::{self, Far, Operation, Request, SessionConfig, Signal},
    time::{Duration, Instant},
};
use alloc::{string::String, sync::Arc, vec::Vec};
use bytes::Bytes;
use cell::{PipeCell, PipeKind, PipeState, SessionCell, Target, code_of};
use control::{Action, Control};
use core::{sync::atomic::AtomicU64, task::Waker};
use seeds::Seeds;
use std::{collections::HashMap, sync::Mutex};
use timers::{Due, Timers, lock};

/// Whom something is granted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Any named peer.
    #[default]
    Anyone,
    /// These names only.
    Only(Arc<[Name]>),
    /// Nobody.
    Nobody,
}

impl Access {
    /// Whether `name` is among them.
    pub fn allows(&self, name: &Name) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(names) => names.contains(name),
            Self::Nobody => false,
        }
    }
}

/// What a node does for others as a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterPolicy {
    /// Which of the names that list this node are hosted.
    pub host: Access,
    /// Which named peers may call those that are hosted.
    pub call: Access,
    /// Whether guests may.
    pub guests: bool,
}

impl Default for RouterPolicy {
    /// No router.
    fn default() -> Self {
        Self {
            host: Access::Nobody,
            call: Access::Nobody,
            guests: false,
        }
    }
}

/// Everything a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Who it is.
    pub identity: Identity,
    /// Whether its record has an address at which it listens.
    pub direct: bool,
    /// Which registries it knows, and how to read them.
    pub registries: Vec<RegistryConfig>,
    /// Records that are believed without a chain.
    pub pinned: Vec<(Name, Record)>,
    /// Which named peers may talk to it.
    pub allow: Access,
    /// Whether guests may talk to it.
    pub guests: bool,
    /// What it does for others.
    pub router: RouterPolicy,
    /// Whether only `wss` addresses can be dialled: a page that was served over https.
    pub secure_only: bool,
    /// Whether a router is asked not to tell targets who calls; the target learns it from the handshake in any case.
    pub hide_caller: bool,
    /// What it calls itself; what is not printable ASCII, and what goes beyond 64 characters, is left out.
    pub user_agent: String,
    /// Bounds.
    pub limits: Limits,
    /// Bounds of chain reads.
    pub resolver: ResolverLimits,
}

impl NodeConfig {
    /// A node of this identity with defaults: indirect, no router, open to named peers.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            direct: false,
            registries: Vec::new(),
            pinned: Vec::new(),
            allow: Access::Anyone,
            guests: false,
            router: RouterPolicy::default(),
            secure_only: false,
            hide_caller: false,
            user_agent: String::from(concat!("nectar/", env!("CARGO_PKG_VERSION"))),
            limits: Limits::default(),
            resolver: ResolverLimits::default(),
        }
    }
}

/// Why a node does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A pinned record makes no sense.
    #[error("the pinned record of {0}: {1}")]
    Pinned(Name, RecordError),
}

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
    /// Sessions of all kinds.
    pub sessions: usize,
    /// Circuits that end or pass here, counted at each of their sessions.
    pub circuits: usize,
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
    sessions: Mutex<HashMap<u64, Arc<SessionCell<T>>>>,
    pipes: Mutex<HashMap<u64, Arc<PipeCell<T>>>>,
    tickets: Mutex<HashMap<u64, budget::Ticket>>,
    timers: Arc<Timers>,
    next_session: AtomicU64,
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
        };
        let config = Arc::new(config);
        Ok(Self {
            inner: Arc::new(Inner {
                local: Arc::new(local),
                limits: Arc::new(config.limits.clone()),
                instance_secret: seeds.next(),
                control: Mutex::new(Control::new(config.clone(), resolver, seeds)),
                config,
                sessions: Mutex::new(HashMap::new()),
                pipes: Mutex::new(HashMap::new()),
                tickets: Mutex::new(HashMap::new()),
                timers: Arc::new(Timers::default()),
                next_session: AtomicU64::new(1),
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
        let circuits = sessions
            .iter()
            .map(|cell| cell.with_pipe(|session| session.circuits()))
            .sum();
        Counts {
            half_open,
            inbound,
            sessions: sessions.len(),
            circuits,
        }
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

    // Inputs from the driver.

    /// Begins. An indirect node connects to its routers.
    pub fn start(&self, now: Now, out: &mut Vec<Output<T>>) {
        self.control(now, out, |control| control.start(now));
    }

    /// Mixes fresh entropy in.
    pub fn reseed(&self, entropy: &[u8; 32]) {
        lock(&self.inner.control).seeds.mix(entropy);
    }

    /// A WebSocket came in. `group` is its source for budgets. An error says why it must be closed at once.
    pub fn accept(&self, group: AddressGroup, now: Now) -> Result<Pipe<T>, Code> {
        let (id, ticket) = {
            let mut control = lock(&self.inner.control);
            let ticket = control.accept(group)?;
            (control.take_pipe(), ticket)
        };
        lock(&self.inner.tickets).insert(id, ticket);
        let kind = PipeKind::Socket { group: Some(group) };
        Ok(Pipe(self.enter_pipe(
            id,
            kind,
            None,
            PipeState::Accepted,
            now.mono,
        )))
    }

    /// The socket of an [`Output::Dial`] is open.
    pub fn opened(&self, pipe: &Pipe<T>, now: Now, out: &mut Vec<Output<T>>) {
        self.begin_handshake(&pipe.0, now, out);
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
                Due::Control => {}
                Due::Session(id) => {
                    if let Some(cell) = self.session(id) {
                        cell.fired(now.mono);
                        let mut events = Vec::new();
                        cell.with(|session| session.handle_timeout(now.mono, &mut events));
                        self.dispatch(&cell, events, now, out);
                    }
                }
                Due::Pipe(id) => {
                    if let Some(pipe) = self.pipe(id)
                        && pipe.session.get().is_none()
                    {
                        self.end_pipe(&pipe, Code::HandshakeTimeout, None, now, out);
                    }
                }
            }
        }
        self.control(now, out, |control| control.handle_timeout(now));
    }

    /// The next message for a pipe's socket; `None` until `waker` is woken.
    pub fn poll_transmit(
        &self,
        pipe: &Pipe<T>,
        waker: &Waker,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Option<Bytes> {
        pipe.0.watch(waker);
        self.transmit(&pipe.0, false, now, out)
    }

    // What the application asks for.

    /// Asks a peer. The token comes back in [`Output::Answered`] or [`Output::Failed`].
    pub fn request(
        &self,
        token: T,
        to: &Name,
        request: Request,
        timeout: Option<Duration>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let deadline = now.mono + timeout.unwrap_or(self.inner.limits.request_deadline);
        self.submit(
            to,
            Operation::Request {
                token,
                request,
                deadline,
            },
            now,
            out,
        );
    }

    /// Sends a peer a message. The token comes back in [`Output::Delivered`] or [`Output::Failed`].
    pub fn message(
        &self,
        token: T,
        to: &Name,
        protocol: &str,
        payload: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let deadline = now.mono + self.inner.limits.request_deadline;
        self.submit(
            to,
            Operation::Message {
                token,
                protocol: protocol.into(),
                payload,
                deadline,
            },
            now,
            out,
        );
    }

    /// Opens a stream to a peer. The token comes back in [`Output::Opened`] or [`Output::Failed`].
    pub fn open_stream(
        &self,
        token: T,
        to: &Name,
        protocol: &str,
        metadata: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let deadline = now.mono + self.inner.limits.request_deadline;
        self.submit(
            to,
            Operation::Stream {
                token,
                protocol: protocol.into(),
                metadata,
                deadline,
            },
            now,
            out,
        );
    }

    /// Makes sure that there is a session with a peer: [`Output::Connected`] or [`Output::Failed`].
    pub fn connect(
        &self,
        token: T,
        to: &Name,
        timeout: Duration,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.submit(
            to,
            Operation::Connect {
                token,
                deadline: now.mono + timeout,
            },
            now,
            out,
        );
    }

    /// Keeps a session with a peer up, through failures, until told otherwise. With `epoch`, only as long as the name
    /// belongs to that epoch's owner.
    pub fn keep(
        &self,
        to: &Name,
        keep: bool,
        epoch: Option<u32>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.control(now, out, |control| {
            control.keep(to.clone(), keep, epoch, now)
        });
    }

    /// Takes a name's new owner for the peer that is meant.
    pub fn confirm_epoch(&self, name: &Name) {
        lock(&self.inner.control).confirm_epoch(name);
    }

    /// Looks a name up: [`Output::Resolved`]. `fresh` asks the chain whatever the cache says.
    pub fn resolve(&self, token: T, name: &Name, fresh: bool, now: Now, out: &mut Vec<Output<T>>) {
        self.control(now, out, |control| {
            control.resolve(name.clone(), fresh, token, now)
        });
    }

    /// What the cache holds about a name.
    pub fn cached(&self, name: &Name, now: Instant) -> Option<Resolved> {
        lock(&self.inner.control).resolver.cached(name, now)
    }

    /// Measures the round trip to a connected peer: [`Event::Latency`]. False when there is no session.
    pub fn ping(&self, name: &Name, now: Now) -> bool {
        let cell = lock(&self.inner.control).current(name);
        cell.is_some_and(|cell| {
            cell.with(|session| session.ping(now.mono));
            true
        })
    }

    /// Gives up those of our requests and messages to `name` whose token matches.
    pub fn cancel(
        &self,
        name: &Name,
        matches: impl Fn(&T) -> bool,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let cell = lock(&self.inner.control).current(name);
        match cell {
            Some(cell) => {
                let mut events = Vec::new();
                cell.with(|session| session.cancel_where(matches, &mut events));
                self.dispatch(&cell, events, now, out);
            }
            None => self.control(now, out, |control| control.cancel_waiting(name, matches)),
        }
    }

    /// Tells every peer that this node goes away, and closes every session once what is queued has left.
    pub fn shut_down(&self, code: Code, delay: Duration) {
        let cells: Vec<_> = lock(&self.inner.sessions).values().cloned().collect();
        // End-to-end sessions first: their last words travel over the others.
        let (ends, hops): (Vec<_>, Vec<_>) =
            cells.into_iter().partition(|cell| cell.pipe.over_circuit());
        for cell in ends.into_iter().chain(hops) {
            cell.with(|session| {
                if code == Code::GoingAway {
                    session.go_away(delay);
                }
                session.close(code, (delay > Duration::ZERO).then_some(delay));
            });
        }
    }

    // Putting it together.

    fn submit(&self, to: &Name, operation: Operation<T>, now: Now, out: &mut Vec<Output<T>>) {
        self.control(now, out, |control| {
            control.submit(to.clone(), operation, now)
        });
    }

    /// Works on the control plane, then does what it asks for.
    fn control<R>(
        &self,
        now: Now,
        out: &mut Vec<Output<T>>,
        work: impl FnOnce(&mut Control<T>) -> R,
    ) -> R {
        let mut control = lock(&self.inner.control);
        let result = work(&mut control);
        let actions = core::mem::take(&mut control.actions);
        let deadline = control.deadline();
        drop(control);
        if let Some(deadline) = deadline {
            self.inner.timers.arm(deadline, Due::Control);
        }
        for action in actions {
            self.act(action, now, out);
        }
        result
    }

    fn act(&self, action: Action<T>, now: Now, out: &mut Vec<Output<T>>) {
        match action {
            Action::Out(output) => out.push(output),
            Action::Dial {
                pipe,
                name,
                key,
                address,
            } => {
                let kind = PipeKind::Socket { group: None };
                let target = Some(Target { name, key });
                let pipe = self.enter_pipe(pipe, kind, target, PipeState::Dialling, now.mono);
                out.push(Output::Dial {
                    pipe: Pipe(pipe),
                    address,
                });
            }
            Action::Circuit {
                pipe,
                hop,
                name,
                key,
            } => self.dial_circuit(pipe, &hop, Target { name, key }, now, out),
            Action::AbandonPipe { pipe } => {
                if let Some(pipe) = self.pipe(pipe).filter(|pipe| pipe.session.get().is_none()) {
                    self.end_pipe(&pipe, Code::Duplicate, None, now, out);
                }
            }
            Action::Perform { cell, operation } => self.perform(&cell, operation, now, out),
            Action::Admit { pipe, verdict } => {
                if let Some(pipe) = self.pipe(pipe) {
                    self.admitted(&pipe, verdict, now, out);
                }
            }
            Action::CloseSession { cell, code } => cell.with(|session| session.close(code, None)),
            Action::Retire { cell } => cell.with(|session| session.go_away(Duration::ZERO)),
            Action::Ping { cell } => cell.with(|session| session.ping(now.mono)),
        }
    }

    fn perform(
        &self,
        cell: &Arc<SessionCell<T>>,
        operation: Operation<T>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let refused = match operation {
            Operation::Request {
                token,
                request,
                deadline,
            } => cell
                .with(|session| session.request(token, request, deadline, now.mono))
                .err(),
            Operation::Message {
                token,
                protocol,
                payload,
                deadline,
            } => cell
                .with(|session| session.message(token, protocol, payload, deadline))
                .err(),
            Operation::Stream {
                token,
                protocol,
                metadata,
                ..
            } => {
                let id = cell.with(|session| session.open_stream(protocol, metadata));
                out.push(Output::Opened {
                    token,
                    stream: Stream::new(cell.clone(), id),
                });
                None
            }
            Operation::Connect { token, .. } => {
                out.push(Output::Connected { token });
                None
            }
        };
        if let Some((token, code)) = refused {
            out.push(Output::Failed {
                token,
                failure: Failure::new(code),
            });
        }
    }

    /// Passes on what a session has to say.
    fn dispatch(
        &self,
        cell: &Arc<SessionCell<T>>,
        events: Vec<session::Event<T>>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        use session::Event as E;
        for event in events {
            match event {
                E::Answered { token, response } => out.push(Output::Answered { token, response }),
                E::Delivered { token } => out.push(Output::Delivered { token }),
                E::Failed { token, code } => out.push(Output::Failed {
                    token,
                    failure: Failure::new(code),
                }),
                E::Request {
                    id,
                    request,
                    deadline,
                } => out.push(Output::Request(Incoming {
                    cell: cell.clone(),
                    id,
                    answered: false,
                    request,
                    deadline,
                })),
                E::Cancelled { id } => out.push(Output::Cancelled {
                    session: cell.id,
                    id,
                }),
                E::Message {
                    id,
                    protocol,
                    payload,
                } => {
                    out.push(Output::Message(IncomingMessage {
                        cell: cell.clone(),
                        id,
                        protocol,
                        payload,
                    }));
                }
                E::Stream(opened) => out.push(Output::Stream(IncomingStream {
                    stream: Some(Stream::new(cell.clone(), opened.id)),
                    protocol: opened.protocol,
                    metadata: opened.metadata,
                })),
                E::Circuit { far, signal } => self.circuit(cell, far, signal, now, out),
                E::CircuitRoom { cid } => {
                    cell.mark_ready(cid);
                    cell.pipe.wake();
                }
                E::CircuitOpen {
                    cid,
                    window,
                    hide,
                    to,
                    first,
                } => {
                    self.route(cell, cid, window, hide, &to, first, now, out);
                }
                E::CircuitIncoming { cid, from, first } => {
                    self.circuit_arrived(cell, cid, from, first, now, out)
                }
                E::Attached { instance, agent } => {
                    self.control(now, out, |control| {
                        control.attached(cell.clone(), instance, agent, now)
                    });
                }
                E::RoundTrip(round_trip) => {
                    if let Some(name) = cell.peer.name.clone() {
                        out.push(Output::Event(Event::Latency { name, round_trip }));
                    }
                }
                E::GoAway(_) => self.control(now, out, |control| control.going_away(cell, now)),
                E::Ended { code, retry, .. } => self.end_session(cell, code, retry, now, out),
            }
        }
    }

    /// Hands a circuit's signal to its far end.
    fn circuit(
        &self,
        cell: &Arc<SessionCell<T>>,
        far: Far,
        signal: Signal,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        match far {
            Far::Undecided => {}
            Far::Hop { session, cid } => {
                if let Some(other) = self.session(session) {
                    other.with(|session| session.circuit_signal(cid, signal));
                }
            }
            Far::Pipe(id) => {
                let Some(pipe) = self.pipe(id) else { return };
                match signal {
                    Signal::Data(data) => self.pipe_message(&pipe, data, now, out),
                    Signal::Opened { .. } | Signal::Credit { .. } => {
                        if let PipeKind::Circuit { cid, .. } = &pipe.kind
                            && let Some(cid) = cid.get()
                        {
                            cell.mark_ready(*cid);
                            cell.pipe.wake();
                        }
                    }
                    Signal::Closed { code, retry_ms } => {
                        let retry = crate::wire::frame::retry(retry_ms);
                        self.end_pipe(&pipe, code_of(code), retry, now, out);
                    }
                }
            }
        }
    }

    /// As a router, takes a caller's circuit on to the session of its target.
    #[allow(clippy::too_many_arguments, reason = "the fields of one frame")]
    fn route(
        &self,
        cell: &Arc<SessionCell<T>>,
        cid: u32,
        window: u64,
        hide: bool,
        to: &Name,
        first: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let caller = cell.peer.name.as_ref();
        let limits = &self.inner.limits;
        let refused = if cell.pipe.over_circuit() {
            Err(Code::CircuitNested)
        } else if !cell.with_pipe(|session| session.circuit_opened_in_rate(now.mono)) {
            Err(Code::CircuitRate)
        } else if cell.with_pipe(|session| session.circuits()) > limits.circuits {
            Err(Code::CircuitLimit)
        } else {
            lock(&self.inner.control).hosted(caller, to)
        };
        let brought = refused.and_then(|target| {
            if target.id == cell.id {
                return Err(Code::Myself);
            }
            if cell.with_pipe(|session| session.circuits_to(target.id)) >= limits.circuits_per_pair
            {
                return Err(Code::CircuitLimit);
            }
            let from = if hide { None } else { caller.cloned() };
            let far = Far::Hop {
                session: cell.id,
                cid,
            };
            target
                .with(|session| {
                    if session.circuits_unanswered() >= limits.circuits_unanswered {
                        return Err(Code::TargetBusy);
                    }
                    session
                        .bring_circuit(from, window, first, far, now.mono)
                        .ok_or(Code::CircuitLimit)
                })
                .map(|there| Far::Hop {
                    session: target.id,
                    cid: there,
                })
        });
        match brought {
            Ok(far) => cell.with(|session| session.bind_circuit(cid, far)),
            Err(Code::CircuitNested) => self.violate(cell, Code::CircuitNested, now, out),
            Err(code) => {
                let retry = match code {
                    Code::CircuitRate => Some(Duration::from_secs(1)),
                    Code::TargetBusy | Code::CircuitLimit => Some(Duration::from_secs(5)),
                    _ => None,
                };
                cell.with(|session| session.close_circuit(cid, code, retry));
            }
        }
    }

    /// A circuit has come to us: it is a pipe like any other.
    fn circuit_arrived(
        &self,
        cell: &Arc<SessionCell<T>>,
        cid: u32,
        from: Option<Name>,
        first: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        if cell.pipe.over_circuit() {
            return self.violate(cell, Code::CircuitNested, now, out);
        }
        // Until the caller has signed, cost and blame are the router's.
        let accepted = {
            let mut control = lock(&self.inner.control);
            control
                .accept(cell.id | 1 << 63)
                .map(|ticket| (control.take_pipe(), ticket))
        };
        let (id, ticket) = match accepted {
            Ok(accepted) => accepted,
            Err(code) => {
                return cell.with(|session| {
                    session.close_circuit(cid, code, Some(Duration::from_secs(1)))
                });
            }
        };
        lock(&self.inner.tickets).insert(id, ticket);
        let number = std::sync::OnceLock::new();
        let _ = number.set(cid);
        let kind = PipeKind::Circuit {
            hop: cell.clone(),
            cid: number,
            from: Some(from),
        };
        let pipe = self.enter_pipe(id, kind, None, PipeState::Accepted, now.mono);
        cell.with(|session| session.bind_circuit(cid, Far::Pipe(id)));
        self.pipe_message(&pipe, first, now, out);
    }

    /// Ends a session because its peer, or somebody on the way, broke a rule.
    fn violate(&self, cell: &Arc<SessionCell<T>>, code: Code, now: Now, out: &mut Vec<Output<T>>) {
        // A record that does not open may be anybody's doing; everything inside an opened record is the peer's.
        if code.fault() == crate::code::Fault::Peer {
            out.push(Output::Event(Event::Misbehaved {
                name: cell.peer.name.clone(),
                code,
            }));
        }
        self.end_session(cell, code, None, now, out);
    }

    fn end_session(
        &self,
        cell: &Arc<SessionCell<T>>,
        code: Code,
        retry: Option<Duration>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        if lock(&self.inner.sessions).remove(&cell.id).is_none() {
            return;
        }
        let mut events = Vec::new();
        let unsent = cell.with_pipe(|session| session.dissolve(code, &mut events));
        self.dispatch(cell, events, now, out);
        self.leave_pipe(&cell.pipe, code, retry, out);
        self.control(now, out, |control| {
            control.session_closed(cell, unsent, code, retry, now)
        });
    }

    /// What is to be sent on a pipe: handshake first, then circuits are topped up, then the session seals a record.
    fn transmit(
        &self,
        pipe: &Arc<PipeCell<T>>,
        shared: bool,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Option<Bytes> {
        if let Some(message) = pipe.take_outgoing() {
            return Some(message);
        }
        let cell = pipe.session.get()?;
        for cid in cell.take_ready() {
            self.fill_circuit(cell, cid, now, out);
        }
        let mut events = Vec::new();
        let record = cell.with_pipe(|session| session.poll_transmit(now.mono, shared, &mut events));
        self.dispatch(cell, events, now, out);
        record.map(bytes::BytesMut::freeze)
    }

    /// Hands what a pipe over a circuit has to say to the session that carries it, one message at a time.
    fn fill_circuit(
        &self,
        hop: &Arc<SessionCell<T>>,
        cid: u32,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let (room, far, shared) = hop.with_pipe(|session| {
            (
                session.circuit_room(cid),
                session.circuit_far(cid),
                session.circuits() > 1,
            )
        });
        let Some(Far::Pipe(id)) = far else { return };
        if !room {
            return;
        }
        if let Some(pipe) = self.pipe(id)
            && let Some(message) = self.transmit(&pipe, shared, now, out)
        {
            hop.with_pipe(|session| session.send_circuit(cid, message));
        }
    }

    fn session(&self, id: u64) -> Option<Arc<SessionCell<T>>> {
        lock(&self.inner.sessions).get(&id).cloned()
    }

    fn pipe(&self, id: u64) -> Option<Arc<PipeCell<T>>> {
        lock(&self.inner.pipes).get(&id).cloned()
    }

    fn session_config(&self, pipe: &PipeCell<T>, peer: Option<&Name>) -> SessionConfig {
        let who = peer.map_or_else(Vec::new, Name::to_bytes);
        let tag = crate::crypto::hmac(&self.inner.instance_secret, &[b"nectar/1 instance", &who]);
        let mut instance = [0; 16];
        instance.copy_from_slice(&tag[..16]);
        SessionConfig {
            limits: self.inner.limits.clone(),
            mtu: if pipe.over_circuit() {
                session::CIRCUIT_MTU
            } else {
                crate::channel::MAX_RECORD
            },
            instance,
            agent: self.inner.config.user_agent.as_str().into(),
        }
    }
}

impl<T> core::fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node")
            .field("identity", &self.inner.config.identity)
            .finish_non_exhaustive()
    }
}
