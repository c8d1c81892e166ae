//! What applications and the node do with a session.

use super::{
    Event, Session,
    items::{Asked, LongBody},
    numbers::Class,
    sender::Outgoing,
};
use crate::{
    code::Code,
    time::Instant,
    wire::frame::{
        CHARGE, ERROR_TEXT_MAX, Frame, INLINE, METADATA_MAX, PROTOCOL_MAX, Response, ResponseKind,
    },
};
use alloc::{boxed::Box, vec::Vec};
use bytes::Bytes;

/// What one side asks the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Application protocol, 1 to 128 bytes.
    pub protocol: Box<str>,
    /// Metadata, at most 16 KiB.
    pub metadata: Option<Bytes>,
    /// Payload, at most [`Limits::message_bytes`](crate::Limits::message_bytes).
    pub payload: Bytes,
    /// Whether it may leave with the end of the handshake, before the peer has let us in: see [`early`](Self::early).
    pub early: bool,
}

impl Request {
    /// A request without metadata.
    pub fn new(protocol: impl Into<Box<str>>, payload: impl Into<Bytes>) -> Self {
        Self {
            protocol: protocol.into(),
            metadata: None,
            payload: payload.into(),
            early: false,
        }
    }

    /// Where there is no session yet, the request leaves with the end of the handshake: its answer is there one round trip
    /// sooner. Nobody can read it but the peer, and nobody can replay it. But should the peer not let us in, or the connection
    /// break at this moment, then nobody can tell whether it was handled: it fails with [`Code::OutcomeUnknown`], where
    /// otherwise it would go another way.
    #[must_use]
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }
}

/// Something an application wants done with a peer, before or after there is a session.
#[derive(Debug)]
pub enum Operation<T> {
    /// Ask and get an answer.
    Request {
        /// Handed back with the outcome.
        token: T,
        /// What to ask.
        request: Request,
        /// When to give up.
        deadline: Instant,
    },
    /// Send and have it delivered.
    Message {
        /// Handed back with the outcome.
        token: T,
        /// Application protocol.
        protocol: Box<str>,
        /// Payload.
        payload: Bytes,
        /// When to give up.
        deadline: Instant,
    },
    /// Open a stream.
    Stream {
        /// Handed back with the stream.
        token: T,
        /// Application protocol.
        protocol: Box<str>,
        /// Metadata; may be empty.
        metadata: Bytes,
        /// When to give up.
        deadline: Instant,
    },
    /// Measure a round trip; also the way to make sure that there is a session.
    Connect {
        /// Handed back once there is a session.
        token: T,
        /// When to give up.
        deadline: Instant,
    },
}

impl<T> Operation<T> {
    /// When its owner gives up.
    pub const fn deadline(&self) -> Instant {
        match self {
            Self::Request { deadline, .. }
            | Self::Message { deadline, .. }
            | Self::Stream { deadline, .. }
            | Self::Connect { deadline, .. } => *deadline,
        }
    }

    /// The token.
    pub const fn token(&self) -> &T {
        match self {
            Self::Request { token, .. }
            | Self::Message { token, .. }
            | Self::Stream { token, .. }
            | Self::Connect { token, .. } => token,
        }
    }

    /// The token, giving the operation up.
    pub fn into_token(self) -> T {
        match self {
            Self::Request { token, .. }
            | Self::Message { token, .. }
            | Self::Stream { token, .. }
            | Self::Connect { token, .. } => token,
        }
    }

    /// Checks the sizes that the wire allows.
    pub fn check(&self, message_bytes: usize) -> Result<(), Code> {
        let (protocol, metadata, payload) = match self {
            Self::Request { request, .. } => (
                &request.protocol,
                request.metadata.as_ref().map_or(0, Bytes::len),
                request.payload.len(),
            ),
            Self::Message {
                protocol, payload, ..
            } => (protocol, 0, payload.len()),
            Self::Stream {
                protocol, metadata, ..
            } => (protocol, metadata.len(), 0),
            Self::Connect { .. } => return Ok(()),
        };
        if protocol.is_empty() || protocol.len() > PROTOCOL_MAX || metadata > METADATA_MAX {
            return Err(Code::InvalidArgument);
        }
        if payload > message_bytes {
            Err(Code::TooLarge)
        } else {
            Ok(())
        }
    }
}

impl<T> Session<T> {
    // Items.

    /// Asks the peer. The number identifies the item for [`cancel`](Self::cancel). Sizes were checked by
    /// [`Operation::check`].
    pub fn request(
        &mut self,
        token: T,
        request: Request,
        deadline: Instant,
        now: Instant,
    ) -> Result<u64, (T, Code)> {
        if let Err(code) = self.check_outbox(request.payload.len()) {
            return Err((token, code));
        }
        let Request {
            protocol,
            metadata,
            payload,
            early: _,
        } = request;
        let id = self.numbers.take(Class::Item);
        let deadline_ms = u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX);
        let (total, inline, body) = cut(payload);
        let frame = Frame::Request {
            id,
            deadline_ms,
            total,
            protocol,
            metadata,
            data: Bytes::new(),
        };
        self.ask(
            id,
            Asked {
                token,
                deadline: Some(deadline),
                is_request: true,
                body,
                answer: None,
            },
            &frame,
            inline,
        );
        Ok(id)
    }

    /// Sends the peer a message; the outcome comes when its application has taken it.
    pub fn message(
        &mut self,
        token: T,
        protocol: Box<str>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<u64, (T, Code)> {
        if let Err(code) = self.check_outbox(payload.len()) {
            return Err((token, code));
        }
        let id = self.numbers.take(Class::Item);
        let (total, inline, body) = cut(payload);
        let frame = Frame::Message {
            id,
            total,
            protocol,
            data: Bytes::new(),
        };
        self.ask(
            id,
            Asked {
                token,
                deadline: Some(deadline),
                is_request: false,
                body,
                answer: None,
            },
            &frame,
            inline,
        );
        Ok(id)
    }

    fn ask(&mut self, id: u64, asked: Asked<T>, frame: &Frame, inline: Bytes) {
        if let Some(deadline) = asked.deadline {
            self.items.deadlines.insert((deadline, id));
        }
        self.items.long_bytes += asked.body.as_ref().map_or(0, |body| body.held());
        self.items.asked.insert(id, asked);
        let mut outgoing = Outgoing::with_payload(frame, inline);
        outgoing.charge = outgoing.len() as u64 + CHARGE;
        self.sender.push_inbox(outgoing);
        self.dirty = true;
    }

    /// Gives up waiting; the peer is told.
    pub fn cancel(&mut self, id: u64, out: &mut Vec<Event<T>>) {
        self.abandon(id, Code::Cancelled, out);
    }

    /// Gives up those of our items whose token matches.
    pub fn cancel_where(&mut self, matches: impl Fn(&T) -> bool, out: &mut Vec<Event<T>>) {
        let ids: Vec<u64> = self
            .items
            .asked
            .iter()
            .filter(|(_, asked)| matches(&asked.token))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.abandon(id, Code::Cancelled, out);
        }
    }

    /// Answers a request of the peer's, or refuses a message with an error. False when it is no longer waiting.
    pub fn respond(&mut self, id: u64, answer: Response) -> bool {
        if self.ended {
            return false;
        }
        let Some(served) = self.items.served.get_mut(&id) else {
            return false;
        };
        let fits = served.is_request || matches!(answer, Response::Error { .. });
        if served.answered || !fits || served.head.is_some() {
            return false;
        }
        served.answered = true;
        self.items.handling -= usize::from(served.is_request);
        self.items.theirs.promised -= core::mem::take(&mut served.promised);
        if served.cancelled {
            self.drop_served(id);
            return false;
        }
        let (kind, code, payload) = match answer {
            Response::Success(Some(data)) => (ResponseKind::Data, 0, data),
            Response::Success(None) => (ResponseKind::Empty, 0, Bytes::new()),
            Response::Protocol(data) => (ResponseKind::Protocol, 0, data),
            Response::Error { code, message } => {
                let mut end = message.len().min(ERROR_TEXT_MAX);
                while !message.is_char_boundary(end) {
                    end -= 1;
                }
                (
                    ResponseKind::Error,
                    code,
                    Bytes::copy_from_slice(&message.as_bytes()[..end]),
                )
            }
        };
        let refused = if payload.len() > self.config.limits.message_bytes {
            Some(Code::TooLarge)
        } else if self.sender.queued + self.items.long_bytes + payload.len()
            > self.config.limits.outbox_bytes
        {
            // Whoever asks without reading the answers cannot make us keep them all. It was handled, so that "try again later"
            // would be wrong.
            Some(Code::OutcomeUnknown)
        } else {
            None
        };
        let (kind, code, payload) = match refused {
            Some(code) => {
                let text = Bytes::from_static(code.meaning().as_bytes());
                (ResponseKind::Error, code.as_u16(), text)
            }
            None => (kind, code, payload),
        };
        let (total, inline, body) = cut(payload);
        self.items.long_bytes += body.as_ref().map_or(0, |body| body.held());
        served.body = body;
        let released = core::mem::take(&mut served.charge);
        let frame = Frame::Response {
            id,
            kind,
            code,
            total,
            data: Bytes::new(),
        };
        let mut outgoing = Outgoing::with_payload(&frame, inline);
        outgoing.releases = released;
        self.sender.push_urgent(outgoing);
        self.settle_answered(id);
        self.promise();
        self.dirty = true;
        true
    }

    /// Tells the peer that the application has taken its message.
    pub fn delivered(&mut self, id: u64) {
        if self
            .items
            .served
            .get(&id)
            .is_some_and(|served| !served.is_request && served.head.is_none())
            && let Some(served) = self.items.served.remove(&id)
        {
            let mut outgoing = Outgoing::new(&Frame::Delivered(id));
            outgoing.releases = served.charge;
            self.sender.push_urgent(outgoing);
            self.items.theirs.promised -= served.promised;
            self.promise();
            self.dirty = true;
        }
    }

    // The end.

    /// Ends the session. What was never sent comes back to be sent over another; whatever was sent and not answered
    /// has an unknown outcome; streams and circuits are lost.
    pub fn dissolve(&mut self, code: Code, out: &mut Vec<Event<T>>) -> Vec<Operation<T>> {
        self.ended = true;
        for stream in self.streams.values_mut() {
            stream.lose(code);
        }
        self.drop_circuits(out);
        let operations = self.take_unsent();
        let lost: Vec<u64> = self.items.asked.keys().copied().collect();
        for id in lost {
            out.extend(self.items.forget_asked(id).map(|a| Event::Failed {
                token: a.token,
                code: Code::OutcomeUnknown,
                // Whoever spoke early wants to know why it was not let in, though nobody has proved that.
                cause: (!self.attached).then_some(code),
            }));
        }
        operations
    }

    /// Takes back what has not left.
    pub(super) fn take_unsent(&mut self) -> Vec<Operation<T>> {
        let unsent = core::mem::take(&mut self.sender.inbox);
        let take_back = |outgoing: Outgoing| {
            self.sender.queued -= outgoing.kept();
            self.take_back(outgoing)
        };
        unsent.into_iter().filter_map(take_back).collect()
    }

    /// Makes an operation of a frame that never left.
    fn take_back(&mut self, outgoing: Outgoing) -> Option<Operation<T>> {
        let mut frame = outgoing.head;
        frame.extend_from_slice(&outgoing.body);
        let (_, _, parsed) = crate::wire::frame::next(&mut Bytes::from(frame)).ok()??;
        let (Frame::Request { id, .. } | Frame::Message { id, .. }) = parsed.as_ref()? else {
            return None;
        };
        let asked = self.items.forget_asked(*id)?;
        let deadline = asked.deadline?;
        let long = asked.body.map(|body| body.into_rest());
        Some(match parsed? {
            Frame::Request {
                protocol,
                metadata,
                data,
                ..
            } => Operation::Request {
                token: asked.token,
                request: Request {
                    protocol,
                    metadata,
                    payload: long.unwrap_or(data),
                    early: false,
                },
                deadline,
            },
            Frame::Message { protocol, data, .. } => Operation::Message {
                token: asked.token,
                protocol,
                payload: long.unwrap_or(data),
                deadline,
            },
            _ => return None,
        })
    }

    // Shared with the receiving side.

    /// Fails one of our own items and tells the peer, if it may know of it.
    pub(super) fn abandon(&mut self, id: u64, code: Code, out: &mut Vec<Event<T>>) {
        let Some(asked) = self.items.forget_asked(id) else {
            return;
        };
        // What never left needs no word; its number is skipped.
        if !self.sender.forget_inbox(id) {
            self.sender.push_urgent(Outgoing::new(&Frame::Cancel(id)));
        }
        self.promise();
        self.dirty = true;
        out.push(Event::Failed {
            token: asked.token,
            code,
            cause: None,
        });
    }

    /// Forgets an item of the peer's with whatever it holds: its place in the inbox, what came of it, what is left of
    /// its answer.
    pub(super) fn drop_served(&mut self, id: u64) {
        let Some(served) = self.items.served.remove(&id) else {
            return;
        };
        self.items.long_bytes -= served.body.as_ref().map_or(0, |body| body.held());
        self.items.theirs.promised -= served.promised;
        if served.assembly.is_some_and(|assembly| !assembly.granted) {
            self.items.theirs.waiting.remove(&id);
        }
        self.promise();
        self.release_charge(served.charge);
    }

    /// Removes a request once its answer has left completely.
    pub(super) fn settle_answered(&mut self, id: u64) {
        let done = |served: &super::items::Served| {
            served.answered && served.body.as_ref().is_none_or(|body| body.is_empty())
        };
        if self.items.served.get(&id).is_some_and(done) {
            self.items.served.remove(&id);
        }
    }

    /// Announces the whole inbox once the channel is attached.
    pub(super) fn announce_inbox(&mut self) {
        let limit = self.items.inbox_released + self.config.limits.inbox_bytes;
        if limit > self.items.inbox_limit {
            self.items.inbox_limit = limit;
            self.sender
                .push_urgent(Outgoing::new(&Frame::Credit { id: 0, limit }));
        }
    }

    /// Returns room in the inbox.
    pub(super) fn release_charge(&mut self, charge: u64) {
        self.items.inbox_released += charge;
        self.announce_inbox_if_due();
    }

    /// Says that there is room in the inbox once a quarter of it has come together.
    pub(super) fn announce_inbox_if_due(&mut self) {
        let limit = self.items.inbox_released + self.config.limits.inbox_bytes;
        if limit >= self.items.inbox_limit + self.config.limits.inbox_bytes / 4 {
            self.announce_inbox();
        }
    }

    fn check_outbox(&self, length: usize) -> Result<(), Code> {
        let queued = self.waiting_bytes() + length;
        if self.is_closing() {
            Err(Code::Closed)
        } else if queued > self.config.limits.outbox_bytes {
            Err(Code::QueueFull)
        } else {
            Ok(())
        }
    }
}

/// Splits a payload into what rides in the first frame and what follows.
fn cut(payload: Bytes) -> (u32, Bytes, Option<Box<LongBody>>) {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "bounded by the limit on messages"
    )]
    let total = payload.len() as u32;
    if payload.len() <= INLINE {
        (total, payload, None)
    } else {
        (total, Bytes::new(), Some(Box::new(LongBody::new(payload))))
    }
}
