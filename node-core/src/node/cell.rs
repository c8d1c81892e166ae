//! The shared places in which sessions and pipes live, and how they wake each other.
//!
//! No two sessions are ever locked at once, and whoever holds a session waits for nothing else. Waking takes no
//! session's lock: it walks from a session over a circuit to the pipe of the session that carries it, and circuits do
//! not nest.

use super::timers::{Armed, Due, Timers, lock};
use crate::{
    Code, Name,
    channel::{Peer, initiator, responder},
    registry::Host,
    session::Session,
    time::Instant,
};
use alloc::{
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};
use bytes::Bytes;
use core::task::Waker;
use std::sync::{Mutex, OnceLock};

/// A session in its place.
pub(super) struct SessionCell<T> {
    pub(super) id: u64,
    pub(super) peer: Peer,
    pub(super) pipe: Arc<PipeCell<T>>,
    pub(super) timers: Arc<Timers>,
    state: Mutex<Session<T>>,
    armed: Armed,
    /// Circuits that end here and may have something to send.
    ready: Mutex<Vec<u32>>,
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
            peer,
            pipe,
            timers,
            state: Mutex::new(session),
            armed: Armed::new(),
            ready: Mutex::new(Vec::new()),
        }
    }

    /// Works on the session; afterwards its pipe is woken if there is something to send, and its deadline armed.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Session<T>) -> R) -> R {
        let (result, dirty, deadline) = {
            let mut session = lock(&self.state);
            let result = work(&mut session);
            (result, session.take_dirty(), session.deadline())
        };
        self.armed
            .arm(&self.timers, Due::Session(self.id), deadline);
        if dirty {
            self.pipe.wake();
        }
        result
    }

    /// Works on the session on behalf of its pipe, which needs no waking.
    pub(super) fn with_pipe<R>(&self, work: impl FnOnce(&mut Session<T>) -> R) -> R {
        let (result, deadline) = {
            let mut session = lock(&self.state);
            let result = work(&mut session);
            (result, session.deadline())
        };
        self.armed
            .arm(&self.timers, Due::Session(self.id), deadline);
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
    },
    /// A circuit over another session.
    Circuit {
        hop: Arc<SessionCell<T>>,
        cid: OnceLock<u32>,
        /// For an inbound circuit: who calls, says the router.
        from: Option<Option<Name>>,
    },
}

/// An address coarsened to what one operator usually holds, as a number: IPv4 /24, IPv6 /48, or the session of the
/// router that brought a circuit.
pub type AddressGroup = u64;

/// A pipe in its place.
pub(super) struct PipeCell<T> {
    pub(super) id: u64,
    pub(super) kind: PipeKind<T>,
    /// For a pipe that we began: whom we want to reach, and the key that must answer.
    pub(super) target: Option<Target>,
    pub(super) state: Mutex<PipeState>,
    /// The session owns its pipe, not the other way round: what is over is freed.
    session: OnceLock<Weak<SessionCell<T>>>,
    outgoing: Mutex<VecDeque<Bytes>>,
    waker: Mutex<Option<Waker>>,
}

/// Whom a pipe is to reach.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: Name,
    pub(super) key: [u8; 32],
}

/// How far a pipe's handshake is.
pub(super) enum PipeState {
    /// A socket that is being dialled.
    Dialling,
    /// We sent message 1.
    Sent1(initiator::AwaitMessage2),
    /// We initiate and need our signature.
    Signing3(initiator::AwaitSignature),
    /// Somebody connected.
    Accepted,
    /// We answer and need our signature.
    Signing2(responder::AwaitSignature),
    /// We sent message 2.
    Sent2(responder::AwaitMessage3),
    /// Message 3 is good; the chain has to confirm the key. What came after it is held.
    Admitting {
        admission: responder::Admission,
        held: Vec<Bytes>,
        bytes: usize,
    },
    /// The peer is let in, and what was held is done first. What comes meanwhile is held too.
    Entering { held: Vec<Bytes>, bytes: usize },
    /// The peer is authenticated and has to attach a session.
    Attaching(crate::channel::Channel),
    /// A session owns the channel.
    Attached,
    /// Between two states, or over.
    Closed,
}

impl<T> PipeCell<T> {
    pub(super) fn new(
        id: u64,
        kind: PipeKind<T>,
        target: Option<Target>,
        state: PipeState,
    ) -> Self {
        Self {
            id,
            kind,
            target,
            state: Mutex::new(state),
            session: OnceLock::new(),
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
    pub(super) fn give_to(&self, cell: &Arc<SessionCell<T>>) {
        let _ = self.session.set(Arc::downgrade(cell));
    }

    /// Queues a handshake message.
    pub(super) fn send(&self, message: Vec<u8>) {
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
                    hop.pipe.wake();
                }
            }
        }
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
