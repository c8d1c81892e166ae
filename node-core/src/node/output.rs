//! What leaves the node: work for the driver, outcomes and calls for the application, news for people.

use super::{
    cell::{Address, Pipe, SessionCell},
    standing::{Ban, Subject},
};
use crate::{
    Code, Name,
    channel::SignRequest,
    registry::{FetchId, Provenance, ResolveError, Resolved},
    session::{Request, StreamError},
    time::Duration,
    wire::frame::Response,
};
use alloc::{boxed::Box, string::String, sync::Arc};
use bytes::Bytes;
use core::task::{Context, Poll};

/// Everything a driver has to match. `T` is the application's token.
#[derive(Debug)]
pub enum Output<T> {
    /// Open a WebSocket, then call [`Node::opened`](super::Node::opened) or [`Node::closed`](super::Node::closed).
    Dial {
        /// The pipe that the socket will be.
        pipe: Pipe<T>,
        /// Where to.
        address: Address,
    },
    /// Close the pipe's socket after everything that [`Node::poll_transmit`](super::Node::poll_transmit) gave.
    Close {
        /// The pipe.
        pipe: Pipe<T>,
        /// Why: the WebSocket close code is [`Code::close_code`].
        code: Code,
    },
    /// POST the body as JSON, then call [`Node::answered`](super::Node::answered).
    Fetch {
        /// Which.
        id: FetchId,
        /// RPC endpoint.
        url: Arc<str>,
        /// JSON-RPC body.
        body: String,
    },
    /// Sign with the networking key, then call [`Node::signed`](super::Node::signed).
    Sign {
        /// The pipe whose handshake waits.
        pipe: Pipe<T>,
        /// What; the signer builds the signed bytes itself.
        request: SignRequest,
    },
    /// A request was answered.
    Answered {
        /// The application's token.
        token: T,
        /// The answer.
        response: Response,
    },
    /// A message was taken by the peer's application.
    Delivered {
        /// The application's token.
        token: T,
    },
    /// There is a session with the peer.
    Connected {
        /// The application's token.
        token: T,
    },
    /// The stream is open.
    Opened {
        /// The application's token.
        token: T,
        /// The stream.
        stream: Stream<T>,
    },
    /// A look-up ended.
    Resolved {
        /// The application's token.
        token: T,
        /// The record, and how it is known.
        result: Result<Resolved, ResolveError>,
    },
    /// An operation came to nothing.
    Failed {
        /// The application's token.
        token: T,
        /// Why.
        failure: Failure,
    },
    /// A peer asks.
    Request(Incoming<T>),
    /// A peer no longer waits for this answer.
    Cancelled {
        /// The session's number.
        session: u64,
        /// The request's number in it.
        id: u64,
    },
    /// A peer sends.
    Message(IncomingMessage<T>),
    /// A peer opens a stream.
    Stream(IncomingStream<T>),
    /// News.
    Event(Event),
}

/// Why an operation came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}{}", self.because())]
pub struct Failure {
    /// What applications distinguish: usually [`Code::Offline`] or [`Code::Timeout`].
    pub code: Code,
    /// The reason beneath.
    pub cause: Option<Code>,
    /// When another attempt may succeed.
    pub retry: Option<Duration>,
}

impl Failure {
    /// A failure without a deeper reason.
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            cause: None,
            retry: None,
        }
    }

    /// The peer cannot be reached because of `cause`.
    pub const fn offline(cause: Code) -> Self {
        Self {
            code: Code::Offline,
            cause: Some(cause),
            retry: None,
        }
    }

    /// The most telling code: the cause if there is one.
    pub fn reason(&self) -> Code {
        self.cause.unwrap_or(self.code)
    }

    fn because(&self) -> String {
        self.cause
            .map_or_else(String::new, |cause| alloc::format!(": {cause}"))
    }
}

/// How a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Over a socket of its own, dialled by either side.
    Direct,
    /// Over a circuit through this router.
    Via(Name),
}

/// How a peer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// A route is being looked for.
    Connecting,
    /// There is a session.
    Online {
        /// Over which route.
        route: Route,
        /// How the peer's key is known; `None` for a pipe whose record was not looked at.
        how: Option<Provenance>,
        /// What it calls itself.
        agent: Box<str>,
    },
    /// It has lost its pipe. It goes on as soon as another is found, and nothing is lost until then.
    Interrupted {
        /// What became of the pipe.
        reason: Code,
    },
    /// There is none.
    Offline {
        /// Why.
        reason: Code,
        /// When the next attempt is made, if one is planned.
        retry: Option<Duration>,
    },
}

/// News about peers and about ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A named peer's state changed.
    Peer {
        /// Who.
        name: Name,
        /// Whether it is one of our own routers.
        router: bool,
        /// The new state.
        state: PeerState,
    },
    /// A round trip was measured.
    Latency {
        /// Whose.
        name: Name,
        /// Round trip.
        round_trip: Duration,
    },
    /// One attempt to reach a peer ended; for explanations.
    Attempt {
        /// Whom.
        name: Name,
        /// Over which route.
        route: Route,
        /// What became of it.
        result: Result<(), Code>,
        /// How long it took.
        took: Duration,
    },
    /// Whether others can reach us.
    Reachable(bool),
    /// Our own name cannot be used as it stands: another key is registered, the name is unknown, somebody else took over.
    Identity(Code),
    /// A record that we use changed onchain.
    RecordChanged(Resolved),
    /// A peer proved to break the protocol.
    Misbehaved {
        /// Who, if it has a name.
        name: Option<Name>,
        /// How.
        code: Code,
    },
    /// Somebody may not come back before the ban ends.
    Banned(Ban),
    /// A ban was lifted before its end.
    Lifted(Subject),
}

/// A request of a peer's. Dropping it unanswered answers with [`Code::HandlerFailed`].
pub struct Incoming<T> {
    pub(super) cell: Arc<SessionCell<T>>,
    pub(super) id: u64,
    pub(super) answered: bool,
    /// What it asks.
    pub request: Request,
    /// How long it waits.
    pub deadline: Duration,
}

impl<T> Incoming<T> {
    /// Who asks; `None` for a guest.
    pub fn from(&self) -> Option<&Name> {
        self.cell.peer.name.as_ref()
    }

    /// Identifies the request in [`Output::Cancelled`]: session and item.
    pub fn key(&self) -> (u64, u64) {
        (self.cell.id, self.id)
    }

    /// Answers. False when the requester no longer waits.
    pub fn respond(mut self, response: Response) -> bool {
        self.answered = true;
        self.cell.with(|session| session.respond(self.id, response))
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        if !self.answered {
            self.cell
                .with(|session| session.respond(self.id, Response::refuse(Code::HandlerFailed)));
        }
    }
}

impl<T> core::fmt::Debug for Incoming<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Incoming")
            .field("id", &self.id)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// A message of a peer's. Dropping it, or [`taken`](Self::taken), confirms it and returns its room in the inbox.
pub struct IncomingMessage<T> {
    pub(super) cell: Arc<SessionCell<T>>,
    pub(super) id: u64,
    /// Application protocol.
    pub protocol: Box<str>,
    /// Payload.
    pub payload: Bytes,
}

impl<T> IncomingMessage<T> {
    /// Who sends; `None` for a guest.
    pub fn from(&self) -> Option<&Name> {
        self.cell.peer.name.as_ref()
    }

    /// Confirms it.
    pub fn taken(self) {}
}

impl<T> Drop for IncomingMessage<T> {
    fn drop(&mut self) {
        self.cell.with(|session| session.delivered(self.id));
    }
}

impl<T> core::fmt::Debug for IncomingMessage<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IncomingMessage")
            .field("id", &self.id)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// A stream that a peer opened. Dropping it refuses the stream.
pub struct IncomingStream<T> {
    pub(super) stream: Option<Stream<T>>,
    /// Application protocol.
    pub protocol: Box<str>,
    /// Metadata; may be empty.
    pub metadata: Bytes,
}

impl<T> IncomingStream<T> {
    /// Who opened it; `None` for a guest.
    pub fn from(&self) -> Option<&Name> {
        self.stream.as_ref().and_then(Stream::peer)
    }

    /// Takes it: from now on the peer may send a whole window.
    pub fn accept(mut self) -> Option<Stream<T>> {
        let stream = self.stream.take()?;
        stream.cell.with(|session| session.accept_stream(stream.id));
        Some(stream)
    }

    /// Refuses it with a code that the opener sees.
    pub fn refuse(mut self, code: u16) {
        if let Some(stream) = self.stream.take() {
            stream.reset(code);
            stream.stop(code);
        }
    }
}

impl<T> core::fmt::Debug for IncomingStream<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IncomingStream")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// A stream of bytes to and from a peer. Dropping it resets what is unfinished.
pub struct Stream<T> {
    pub(super) cell: Arc<SessionCell<T>>,
    pub(super) id: u64,
    finished: core::sync::atomic::AtomicBool,
}

impl<T> Stream<T> {
    pub(super) fn new(cell: Arc<SessionCell<T>>, id: u64) -> Self {
        Self {
            cell,
            id,
            finished: core::sync::atomic::AtomicBool::new(false),
        }
    }

    /// The peer; `None` for a guest.
    pub fn peer(&self) -> Option<&Name> {
        self.cell.peer.name.as_ref()
    }

    /// Queues `data`, all of it, leaving it empty; pending while [`STREAM_BUFFER`](crate::session::STREAM_BUFFER) is full.
    pub fn poll_write(
        &self,
        data: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        self.cell.with(|session| session.write(self.id, data, cx))
    }

    /// The next bytes; `None` at the end.
    pub fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.cell.with(|session| session.read(self.id, cx))
    }

    /// Says that no more bytes follow; what is queued still goes out, even after the stream is dropped.
    pub fn finish(&self) {
        self.finished
            .store(true, core::sync::atomic::Ordering::Relaxed);
        self.cell.with(|session| session.finish(self.id));
    }

    /// Gives up sending.
    pub fn reset(&self, code: u16) {
        self.cell.with(|session| session.reset(self.id, code));
    }

    /// Asks the peer to send no more.
    pub fn stop(&self, code: u16) {
        self.cell.with(|session| session.stop(self.id, code));
    }

    /// Bytes that have left this node so far.
    pub fn sent(&self) -> u64 {
        self.cell.with(|session| session.sent(self.id))
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        let finished = *self.finished.get_mut();
        self.cell.with(|session| {
            if finished {
                session.detach_stream(self.id)
            } else {
                session.release_stream(self.id)
            }
        });
    }
}

impl<T> core::fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Stream({}, {})", self.cell.id, self.id)
    }
}
