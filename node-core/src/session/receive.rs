//! What comes in: one record, frame by frame.

use super::{
    Event, Session, Signal,
    incoming::compact,
    items::ItemHead,
    numbers::Class,
    sender::{Bulk, Outgoing},
    streams::{Stream, StreamOpened},
};
use crate::{
    code::Code,
    time::Instant,
    wire::{
        frame::{Attach, AttachStatus, Frame, FrameError, is_session, next},
        handshake::FIRST_MAX,
    },
};
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};

/// The peer broke a rule, or somebody on the way did: the channel is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct Violation {
    /// Which rule.
    pub code: Code,
}

impl From<Code> for Violation {
    fn from(code: Code) -> Self {
        Self { code }
    }
}

impl From<FrameError> for Violation {
    fn from(_: FrameError) -> Self {
        Self {
            code: Code::FrameMalformed,
        }
    }
}

impl<T> Session<T> {
    /// Opens a record and does what it says.
    pub fn handle_record(
        &mut self,
        record: BytesMut,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        if self.ended {
            return Ok(());
        }
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        let frames = channel
            .open(record)
            .map_err(|error| Violation { code: error.code })?;
        // Who began the channel says more only after it has heard our ATTACH.
        self.sender.confirmed |= self.attached;
        self.handle_frames(frames.freeze(), now, out)
    }

    /// Does what the frames of an opened record say.
    pub fn handle_frames(
        &mut self,
        mut frames: Bytes,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        self.keepalive.heard(now);
        let size = frames.len();
        while let Some((kind, length, frame)) = next(&mut frames)? {
            if is_session(kind) && self.skip > 0 {
                // It came over the channel before this one.
                let skip = self.skip.checked_sub(length as u64);
                self.skip = skip.ok_or(Code::FrameUnexpected)?;
                continue;
            }
            if self.closing.is_some() && !frame.as_ref().is_some_and(heard_while_closing) {
                continue;
            }
            if is_session(kind) {
                if !self.attached {
                    return Err(Code::FrameUnexpected.into());
                }
                self.received += length as u64;
            }
            match frame {
                Some(Frame::Rekey) if !frames.is_empty() => {
                    return Err(Code::FrameUnexpected.into());
                }
                Some(frame) => self.handle_frame(frame, length, size, now, out)?,
                None => self.bound_rate(now)?,
            }
            if self.ended {
                return Ok(());
            }
        }
        // A peer that makes us answer and never reads would otherwise fill our memory with answers.
        if self.sender.is_overfull() {
            return Err(Code::FrameRate.into());
        }
        let unacknowledged = self.received - self.skip - self.acknowledged;
        if unacknowledged > 0 {
            let due = now + self.config.limits.ack_delay;
            self.ack_at = Some(self.ack_at.map_or(due, |at| at.min(due)));
            self.ack_due |= unacknowledged >= self.config.limits.ack_bytes;
            self.dirty |= self.ack_due;
        }
        self.note_blocked(now);
        Ok(())
    }

    fn handle_frame(
        &mut self,
        frame: Frame,
        length: usize,
        record: usize,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        if !self.attached && !matches!(frame, Frame::Attach(_) | Frame::Close(..)) {
            return Err(Code::FrameUnexpected.into());
        }
        if let Frame::Credit { id, .. } | Frame::Response { id, .. } | Frame::Delivered(id) = frame
            && self.sender.holds_back(id)
        {
            // Nobody can have heard of it. Credit would have its payload leave before it, and be lost to the next session.
            return Err(Code::FrameUnexpected.into());
        }
        match frame {
            Frame::Attach(attach) => self.handle_attach(&attach, out)?,
            Frame::Ack(offset) => {
                let before = self.sender.acknowledged();
                if !self.sender.acknowledge(offset) {
                    return Err(Code::FrameUnexpected.into());
                }
                if self.sender.acknowledged() > before {
                    self.unacknowledged_since = (!self.sender.all_acknowledged()).then_some(now);
                }
                self.dirty = true;
            }
            Frame::Rekey => {
                if let Some(channel) = &mut self.channel {
                    channel.ratchet_receive();
                }
            }
            Frame::Ping(token) => {
                self.bound_rate(now)?;
                self.sender.push_control(&Frame::Pong(token));
                self.dirty = true;
            }
            Frame::Pong(token) => {
                self.bound_rate(now)?;
                out.extend(self.keepalive.ponged(token, now).map(Event::RoundTrip));
            }
            Frame::GoAway(delay) => {
                self.bound_rate(now)?;
                self.left = true;
                out.push(Event::GoAway(delay));
            }
            Frame::Close(code, retry) => {
                self.ended = true;
                out.push(Event::Ended {
                    code,
                    retry,
                    by_peer: true,
                });
            }
            Frame::Open {
                cid,
                window,
                hide,
                to,
                first,
            } => {
                self.bound_rate(now)?;
                check_first(&first)?;
                self.enter_circuit(cid, window)?;
                out.push(Event::CircuitOpen {
                    cid,
                    window,
                    hide,
                    to,
                    first,
                });
            }
            Frame::Incoming {
                cid,
                window,
                from,
                first,
            } => {
                self.bound_rate(now)?;
                check_first(&first)?;
                self.enter_circuit(cid, window)?;
                out.push(Event::CircuitIncoming { cid, from, first });
            }
            Frame::Opened { cid, window } => self.circuit_opened(cid, window, out)?,
            Frame::CircuitData { cid, data } => self.circuit_data(cid, data, record, out)?,
            Frame::CircuitCredit { cid, limit } => self.circuit_credit(cid, limit, out)?,
            Frame::CircuitClose {
                cid,
                code,
                retry_ms,
            } => {
                if let Some(circuit) = self.circuits.open.remove(&cid) {
                    out.push(Event::Circuit {
                        far: circuit.far,
                        signal: Signal::Closed { code, retry_ms },
                    });
                } else if !self.circuits.was_used(cid) {
                    return Err(Code::FrameUnexpected.into());
                }
            }
            Frame::Credit { id, limit } => self.handle_credit(id, limit)?,
            Frame::Request {
                id,
                deadline_ms,
                total,
                protocol,
                metadata,
                data,
            } => {
                let head = ItemHead {
                    protocol,
                    metadata: metadata.map(|bytes| compact(&bytes)),
                    deadline_ms,
                };
                self.receive_item(id, head, true, total, data, length, out)?;
            }
            Frame::Message {
                id,
                total,
                protocol,
                data,
            } => {
                let head = ItemHead {
                    protocol,
                    metadata: None,
                    deadline_ms: 0,
                };
                self.receive_item(id, head, false, total, data, length, out)?;
            }
            Frame::Response {
                id,
                kind,
                code,
                total,
                data,
            } => {
                self.receive_response(id, kind, code, total, data, out)?;
            }
            Frame::More { id, data } => self.receive_more(id, &data, out)?,
            Frame::Delivered(id) => {
                if self
                    .items
                    .asked
                    .get(&id)
                    .is_some_and(|asked| !asked.is_request)
                {
                    out.extend(
                        self.items
                            .forget_asked(id)
                            .map(|a| Event::Delivered { token: a.token }),
                    );
                } else {
                    self.numbers.check_own(id)?;
                }
            }
            Frame::Cancel(id) => match self.items.served.get_mut(&id) {
                // Still on its way in, or its answer on the way out: nobody needs the rest.
                Some(served) if served.head.is_some() || served.answered => self.drop_served(id),
                Some(served) => {
                    if !core::mem::replace(&mut served.cancelled, true) {
                        out.push(Event::Cancelled { id });
                    }
                }
                None => self.numbers.check_theirs(id)?,
            },
            Frame::Stream {
                id,
                window,
                protocol,
                metadata,
            } => {
                self.numbers.claim(id, Class::Stream)?;
                if self.streams.values().filter(|s| s.theirs).count() >= self.config.limits.streams
                {
                    self.bound_rate(now)?;
                    self.sender
                        .push_urgent(Outgoing::new(&Frame::Stop(id, Code::QueueFull.as_u16())));
                    self.sender
                        .push_urgent(Outgoing::new(&Frame::Reset(id, Code::QueueFull.as_u16())));
                    self.dirty = true;
                    out.push(Event::Refused(Code::QueueFull));
                } else {
                    self.streams.insert(
                        id,
                        Stream::new(window, self.config.limits.stream_initial, true),
                    );
                    out.push(Event::Stream(StreamOpened {
                        id,
                        protocol,
                        metadata: compact(&metadata),
                    }));
                }
            }
            Frame::Data { id, data } => match self.streams.get_mut(&id) {
                Some(stream) => stream.recv.receive(data, record)?,
                None => self.numbers.check_used(id)?,
            },
            Frame::Fin(id) => match self.streams.get_mut(&id) {
                Some(stream) => {
                    stream.recv.finish()?;
                    self.settle_stream(id);
                }
                None => self.numbers.check_used(id)?,
            },
            Frame::Reset(id, code) => match self.streams.get_mut(&id) {
                Some(stream) => {
                    stream.recv.fail(code);
                    self.settle_stream(id);
                }
                None => self.numbers.check_used(id)?,
            },
            Frame::Stop(id, code) => match self.streams.get_mut(&id) {
                Some(stream) => {
                    // The answer tells the other side that nothing more comes: it may forget the stream.
                    if stream.send.stop(code) {
                        self.sender
                            .push_urgent(Outgoing::new(&Frame::Reset(id, code)));
                        self.dirty = true;
                    }
                    self.settle_stream(id);
                }
                None => self.numbers.check_used(id)?,
            },
        }
        Ok(())
    }

    pub(super) fn handle_attach(
        &mut self,
        attach: &Attach,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        let fresh = attach.status == AttachStatus::Fresh
            && attach.attempt == 0
            && attach.recv_off == 0
            && attach.send_off == 0
            && attach.proof == [0; 32];
        if self.attached || !fresh || attach.sid != self.sid {
            return Err(Code::AttachRefused.into());
        }
        self.attached = true;
        self.sender.confirmed = self.dials;
        self.dirty = true;
        self.announce_inbox();
        if self.closing.is_none() {
            out.push(Event::Attached {
                instance: attach.instance,
                agent: attach.agent.clone(),
            });
        }
        Ok(())
    }

    fn bound_rate(&mut self, now: Instant) -> Result<(), Violation> {
        if self.control_rate.take(now) {
            Ok(())
        } else {
            Err(Code::FrameRate.into())
        }
    }

    fn handle_credit(&mut self, id: u64, limit: u64) -> Result<(), Violation> {
        self.dirty = true;
        if id == 0 {
            self.sender.raise_inbox(limit);
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.limit = stream.send.limit.max(limit);
            if stream.send.ready() {
                self.sender.push_bulk(Bulk::Stream(id));
            }
        } else if let Some(body) = self.items.body(id) {
            body.limit = body.limit.max(limit);
            self.sender.push_bulk(Bulk::Item(id));
        } else {
            // At no bounded rate: the peer may have granted at once what we have given up at once, and nothing comes of it.
            self.numbers.check_used(id)?;
        }
        Ok(())
    }
}

/// What a session that is being closed still does for its peer: it says what is queued, and begins nothing.
fn heard_while_closing(frame: &Frame) -> bool {
    matches!(
        frame,
        // What it says afterwards has no place without.
        Frame::Attach(_)
            | Frame::Ack(_)
            | Frame::Rekey
            | Frame::Close(..)
            | Frame::Credit { .. }
            | Frame::CircuitCredit { .. }
    )
}

/// What opens a circuit is passed on in a frame that may be longer than the one it came in.
fn check_first(first: &Bytes) -> Result<(), Violation> {
    if first.len() <= FIRST_MAX {
        Ok(())
    } else {
        Err(Code::TooLarge.into())
    }
}
