//! The shared places in which sessions and pipes live, and how they wake each other.
//!
//! No two sessions are ever locked at once, and whoever holds a session waits for nothing else. Waking takes no
//! session's lock: it walks from a session over a circuit to the pipe of the session that carries it, and circuits do
//! not nest.

use super::{
    control::Admitted,
    standing::{self, Subject},
    timers::{Armed, Due, Timers, lock},
};
use crate::{
    Code, Limits, Name,
    channel::{MAX_RECORD, Peer, initiator, responder},
    registry::Host,
    session::{CIRCUIT_MTU, Session},
    time::{Duration, Instant},
};
use alloc::{
    boxed::Box,
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};
use bytes::Bytes;
use core::{
    sync::atomic::{AtomicBool, Ordering},
    task::Waker,
};
use std::sync::{Mutex, MutexGuard, OnceLock};

/// A session in its place.
pub(super) struct SessionCell<T> {
    pub(super) id: u64,
    /// What ATTACH calls it.
    pub(super) sid: [u8; 16],
    pub(super) peer: Peer,
    /// Whether the peer came through a router and was never on a pipe of another kind. It does not know where we are, and may
    /// not make us show it.
    hidden: AtomicBool,
    /// What carries it; nothing while it is parked. Changed only by who holds the session.
    pipe: Mutex<Option<Arc<PipeCell<T>>>>,
    pub(super) timers: Arc<Timers>,
    state: Mutex<Session<T>>,
    armed: Armed,
    /// Circuits that end here and may have something to send.
    ready: Mutex<Vec<u32>>,
    rates: Mutex<Rates>,
}

/// When a bucket is full again, shared by all who take from it.
pub(super) type Bucket = Arc<Mutex<Instant>>;

/// What each request of a peer takes a token from.
pub(super) struct Rate {
    pub(super) bucket: Bucket,
    /// Whose it is, where that is remembered.
    pub(super) subject: Option<Subject>,
    /// How many it is for: it has so many times the tokens of one.
    pub(super) sharers: u32,
}

/// How fast a peer may ask.
enum Rates {
    /// It has not asked yet.
    Unknown,
    Bounded(Vec<Rate>),
    /// It may ask as fast as it likes.
    Free,
}

/// What becomes of a peer's request.
pub(super) enum Taken {
    Granted,
    /// How long to wait.
    TooFast(Duration),
    /// It has to be found out what it takes tokens from.
    Unknown,
}

impl<T> SessionCell<T> {
    pub(super) fn new(
        id: u64,
        peer: Peer,
        pipe: Arc<PipeCell<T>>,
        timers: Arc<Timers>,
        session: Session<T>,
    ) -> Self {
        Self {
            id,
            sid: *session.id(),
            hidden: AtomicBool::new(pipe.over_circuit() && pipe.target.is_none()),
            peer,
            pipe: Mutex::new(Some(pipe)),
            timers,
            state: Mutex::new(session),
            armed: Armed::new(),
            ready: Mutex::new(Vec::new()),
            rates: Mutex::new(Rates::Unknown),
        }
    }

    /// Takes a token for a request of the peer's.
    pub(super) fn take_request(&self, limits: &Limits, now: Instant) -> Taken {
        match &*lock(&self.rates) {
            Rates::Unknown => Taken::Unknown,
            Rates::Free => Taken::Granted,
            Rates::Bounded(rates) => {
                let mut taken = rates.iter().map(|rate| {
                    let mut bucket = lock(&rate.bucket);
                    standing::take_request(&mut bucket, rate.sharers, limits, now)
                });
                taken
                    .find_map(Result::err)
                    .map_or(Taken::Granted, Taken::TooFast)
            }
        }
    }

    /// The peer may ask as fast as it likes.
    pub(super) fn set_free(&self) {
        *lock(&self.rates) = Rates::Free;
    }

    /// What the peer's requests take tokens from, from now on.
    pub(super) fn set_rates(&self, rates: Vec<Rate>) {
        *lock(&self.rates) = Rates::Bounded(rates);
    }

    /// Takes that away: at its next request it has to be found out again.
    pub(super) fn take_rates(&self) -> Vec<Rate> {
        match core::mem::replace(&mut *lock(&self.rates), Rates::Unknown) {
            Rates::Bounded(rates) => rates,
            Rates::Unknown | Rates::Free => Vec::new(),
        }
    }

    /// Whom what the peer does wrong counts against.
    pub(super) fn blamed(&self) -> Option<Subject> {
        match &self.peer.name {
            Some(name) => Some(Subject::Name(name.clone())),
            None => self.pipe()?.blamed(),
        }
    }

    /// Works on the session; afterwards its pipe is woken if there is something to send, and its deadline armed.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Session<T>) -> R) -> R {
        let mut session = lock(&self.state);
        let result = work(&mut session);
        self.leave(session, true);
        result
    }

    /// Lets go of the session, arms its deadline, and wakes its pipe on request.
    fn leave(&self, mut session: MutexGuard<'_, Session<T>>, wakes: bool) {
        let dirty = wakes && session.take_dirty();
        let deadline = session.deadline();
        drop(session);
        self.armed
            .arm(&self.timers, Due::Session(self.id), deadline);
        if dirty {
            self.wake();
        }
    }

    /// The pipe that carries it, if there is one.
    pub(super) fn pipe(&self) -> Option<Arc<PipeCell<T>>> {
        lock(&self.pipe).clone()
    }

    /// Gives it another pipe, or none, and returns the one before. The caller holds the session.
    pub(super) fn set_pipe(&self, pipe: Option<Arc<PipeCell<T>>>) -> Option<Arc<PipeCell<T>>> {
        if pipe.as_ref().is_some_and(|pipe| !pipe.over_circuit()) {
            self.hidden.store(false, Ordering::Relaxed);
        }
        core::mem::replace(&mut *lock(&self.pipe), pipe)
    }

    /// Whether this is the pipe that carries it.
    pub(super) fn is_on(&self, pipe: &PipeCell<T>) -> bool {
        lock(&self.pipe).as_ref().is_some_and(|on| on.id == pipe.id)
    }

    /// The number of its pipe; 0, which none has, while there is none.
    pub(super) fn pipe_id(&self) -> u64 {
        lock(&self.pipe).as_ref().map_or(0, |pipe| pipe.id)
    }

    /// Whether it runs over a circuit.
    pub(super) fn over_circuit(&self) -> bool {
        lock(&self.pipe)
            .as_ref()
            .is_some_and(|pipe| pipe.over_circuit())
    }

    /// Whether we began its pipe.
    pub(super) fn dialled(&self) -> bool {
        lock(&self.pipe)
            .as_ref()
            .is_some_and(|pipe| pipe.target.is_some())
    }

    /// Whether it is for us to look for another pipe for it, `dialled` if we began the last one: if something is under way on
    /// it. Of who came to us directly, that is only what we have begun ourselves: what he has begun, or does not acknowledge,
    /// must not have us dial whom he likes. Who came through a router is looked for on ways that cost no dialling.
    pub(super) fn is_ours_to_keep(&self, dialled: bool) -> bool {
        let under_way = |session: &mut Session<T>| {
            session.has_begun() || (self.is_hidden() && !session.is_idle())
        };
        dialled || self.with_pipe(under_way)
    }

    /// Whether the peer came to us through a router, and has been on circuits only.
    pub(super) fn is_hidden(&self) -> bool {
        self.hidden.load(Ordering::Relaxed)
    }

    /// Tells whoever drives its pipe to poll it.
    pub(super) fn wake(&self) {
        if let Some(pipe) = self.pipe() {
            pipe.wake();
        }
    }

    /// Works on the session on behalf of its pipe, which needs no waking.
    pub(super) fn with_pipe<R>(&self, work: impl FnOnce(&mut Session<T>) -> R) -> R {
        let mut session = lock(&self.state);
        let result = work(&mut session);
        self.leave(session, false);
        result
    }

    pub(super) fn fired(&self, now: Instant) {
        self.armed.fired(now);
    }

    /// Circuit `cid` may have something to send.
    pub(super) fn mark_ready(&self, cid: u32) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&cid) {
            ready.push(cid);
        }
    }

    pub(super) fn take_ready(&self) -> Vec<u32> {
        core::mem::take(&mut *lock(&self.ready))
    }
}

/// Where a pipe comes from.
pub(super) enum PipeKind<T> {
    /// A WebSocket. The group is the caller's address, coarsened, for budgets; `None` when we dialled.
    Socket {
        /// Address group of an inbound socket.
        group: Option<AddressGroup>,
        /// Whether a page opened it whose visitor need not know.
        unasked: bool,
    },
    /// A circuit over another session.
    Circuit {
        hop: Arc<SessionCell<T>>,
        cid: OnceLock<u32>,
        /// For an inbound circuit: who calls, says the router.
        from: Option<Option<Name>>,
    },
}

/// An address coarsened to what one operator usually holds, as a number: IPv4 /24, IPv6 /48, or the router that brought a
/// circuit.
pub type AddressGroup = u64;

/// What circuits that a router brings are charged to: its name, however many sessions it has.
pub(super) fn source_of_circuits<T>(router: &SessionCell<T>) -> AddressGroup {
    let name = router.peer.name.as_ref().map(Name::hash);
    let first = name.as_ref().and_then(|hash| hash.first_chunk());
    first.map_or(router.id, |first| u64::from_be_bytes(*first)) & !(7 << 61) | 1 << 63
}

/// A pipe in its place.
pub(super) struct PipeCell<T> {
    pub(super) id: u64,
    pub(super) kind: PipeKind<T>,
    /// For a pipe that we began: whom we want to reach, and the key that must answer.
    pub(super) target: Option<Target>,
    pub(super) state: Mutex<PipeState<T>>,
    /// The session owns its pipe, not the other way round: what is over is freed.
    session: OnceLock<Weak<SessionCell<T>>>,
    /// The search that it was for is over.
    unwanted: AtomicBool,
    /// Whoever began it may go on with a session that there is, and nothing else.
    begins_nothing: AtomicBool,
    outgoing: Mutex<VecDeque<Bytes>>,
    waker: Mutex<Option<Waker>>,
}

/// Whom a pipe is to reach.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: Name,
    pub(super) key: [u8; 32],
}

/// How far a pipe's handshake is. What only the handshake needs is boxed: the pipe lives on.
pub(super) enum PipeState<T> {
    /// A socket that is being dialled.
    Dialling,
    /// We sent message 1.
    Sent1(Box<initiator::AwaitMessage2>),
    /// We initiate and need our signature.
    Signing3(Box<initiator::AwaitSignature>),
    /// Somebody connected.
    Accepted,
    /// We answer and need our signature.
    Signing2(Box<responder::AwaitSignature>),
    /// We sent message 2.
    Sent2(Box<responder::AwaitMessage3>),
    /// Message 3 is good; the chain has to confirm the key. What came after it is held.
    Admitting {
        admission: Box<responder::Admission>,
        held: Vec<Bytes>,
        bytes: usize,
    },
    /// The peer is let in, and what was held is done first. What comes meanwhile is held too.
    Entering { held: Vec<Bytes>, bytes: usize },
    /// The peer is authenticated and has to attach a session.
    Attaching(Box<crate::channel::Channel>),
    /// The peer is authenticated. Whether we ask to go on with a session over the channel is not decided.
    Held(Box<crate::channel::Channel>),
    /// We have asked to go on with this session over the channel.
    Resuming(Box<Offer<T>>),
    /// A session owns the channel.
    Attached,
    /// Between two states, or over.
    Closed,
}

/// A session that we want to go on with over a channel.
pub(super) struct Offer<T> {
    pub(super) cell: Arc<SessionCell<T>>,
    pub(super) channel: crate::channel::Channel,
    pub(super) attempt: u32,
}

impl<T> PipeCell<T> {
    pub(super) fn new(
        id: u64,
        kind: PipeKind<T>,
        target: Option<Target>,
        state: PipeState<T>,
    ) -> Self {
        Self {
            id,
            kind,
            target,
            state: Mutex::new(state),
            session: OnceLock::new(),
            unwanted: AtomicBool::new(false),
            begins_nothing: AtomicBool::new(false),
            outgoing: Mutex::new(VecDeque::new()),
            waker: Mutex::new(None),
        }
    }

    /// The session that owns the pipe's channel, as long as anybody needs it.
    pub(super) fn session(&self) -> Option<Arc<SessionCell<T>>> {
        self.session.get()?.upgrade()
    }

    /// Whether its handshake led to a session, over or not.
    pub(super) fn has_session(&self) -> bool {
        self.session.get().is_some()
    }

    /// Gives the pipe to its session, once.
    pub(super) fn attach_to(&self, cell: &Arc<SessionCell<T>>) {
        let _ = self.session.set(Arc::downgrade(cell));
        let mut state = lock(&self.state);
        if !matches!(*state, PipeState::Entering { .. }) {
            *state = PipeState::Attached;
        }
    }

    /// Closes its handshake if that is so far. Nobody else can take it further in between.
    pub(super) fn give_up(&self, so_far: impl FnOnce(&PipeState<T>) -> bool) -> bool {
        let mut state = lock(&self.state);
        let given_up = so_far(&state);
        if given_up {
            *state = PipeState::Closed;
        }
        given_up
    }

    /// The search that it was for is over: its handshake ends before anything is asked of the peer. True if it ends now;
    /// one that is being worked on is ended by whoever does so.
    pub(super) fn abandon(&self) -> bool {
        self.unwanted.store(true, Ordering::Release);
        self.give_up(|state| {
            matches!(
                state,
                PipeState::Dialling
                    | PipeState::Sent1(_)
                    | PipeState::Signing3(_)
                    | PipeState::Held(_)
            )
        })
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Acquire)
    }

    pub(super) fn let_in_for(&self, admitted: Admitted) {
        let only = admitted == Admitted::ToGoOn;
        self.begins_nothing.store(only, Ordering::Release);
    }

    /// Whether whoever began it was let in for a session that there is, and nothing else.
    pub(super) fn begins_nothing(&self) -> bool {
        self.begins_nothing.load(Ordering::Acquire)
    }

    /// What an inbound pipe is charged to.
    pub(super) fn source(&self) -> AddressGroup {
        match &self.kind {
            PipeKind::Socket { group, .. } => group.unwrap_or_default(),
            PipeKind::Circuit { hop, .. } => source_of_circuits(hop),
        }
    }

    /// The addresses that what is wrong with it counts against while nobody has proved a name.
    pub(super) fn blamed(&self) -> Option<Subject> {
        match self.kind {
            PipeKind::Socket {
                group,
                unasked: false,
            } => group.map(Subject::Group),
            _ => None,
        }
    }

    /// Longest record that it takes.
    pub(super) fn mtu(&self) -> usize {
        if self.over_circuit() {
            CIRCUIT_MTU
        } else {
            MAX_RECORD
        }
    }

    /// Queues a handshake message.
    pub(super) fn send(&self, message: impl Into<Bytes>) {
        lock(&self.outgoing).push_back(message.into());
        self.wake();
    }

    pub(super) fn take_outgoing(&self) -> Option<Bytes> {
        lock(&self.outgoing).pop_front()
    }

    /// Tells whoever drives the pipe to poll it.
    pub(super) fn wake(&self) {
        match &self.kind {
            PipeKind::Socket { .. } => {
                let waker = lock(&self.waker).clone();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            PipeKind::Circuit { hop, cid, .. } => {
                if let Some(cid) = cid.get() {
                    hop.mark_ready(*cid);
                    hop.wake();
                }
            }
        }
    }

    pub(super) fn unwatch(&self) {
        *lock(&self.waker) = None;
    }

    pub(super) fn watch(&self, waker: &Waker) {
        let mut slot = lock(&self.waker);
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    pub(super) fn over_circuit(&self) -> bool {
        matches!(self.kind, PipeKind::Circuit { .. })
    }
}

/// Where to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host as registered: hostile input until the driver has checked what it resolves to.
    pub host: Host,
    /// TCP port.
    pub port: u16,
    /// `wss` or `ws`.
    pub secure: bool,
}

/// The handle by which drivers know a pipe.
pub struct Pipe<T>(pub(super) Arc<PipeCell<T>>);

impl<T> Pipe<T> {
    /// Its number, unique within the node for ever.
    pub fn id(&self) -> u64 {
        self.0.id
    }
}

impl<T> Clone for Pipe<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> core::fmt::Debug for Pipe<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pipe({})", self.0.id)
    }
}

/// The code of a number from the wire; numbers of later versions count as a plain close.
pub(super) fn code_of(number: u16) -> Code {
    Code::from_u16(number).unwrap_or(Code::Closed)
}
