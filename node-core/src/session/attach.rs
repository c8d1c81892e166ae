//! One session after the other channel: parked when its pipe is lost, taken up again over another one.
//!
//! Both sides prove with ATTACH that the session is theirs, and say how far they have received. What the other side
//! lacks is sealed again; what it has is dropped where it comes twice.

use super::{Event, Operation, Session};
use crate::{
    channel::{Channel, Role},
    code::Code,
    crypto,
    time::Instant,
    wire::frame::{Attach, AttachStatus, FRAME_HEADER, Frame},
};
use alloc::{boxed::Box, vec::Vec};

/// Bytes of ATTACH's body that its proof covers: all fields before it.
const PROVED: usize = 1 + 16 + 4 + 8 + 8 + 16;

/// What becomes of an ATTACH that asks to go on with a session.
#[derive(Debug)]
pub enum Resumed {
    /// The session goes on over the channel.
    Done,
    /// A newer attempt was seen: here is the channel again, with the answer.
    Stale(Box<Channel>, Box<Attach>),
    /// It proves nothing, or claims what cannot be. The session is as it was.
    Refused(Code),
}

/// What a session holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Kept until the peer acknowledges it.
    pub retained: usize,
    /// Requests, messages and answers of ours that wait to be sent.
    pub outbox: usize,
    /// The peer's requests and messages that wait for the application.
    pub inbox: usize,
    /// Memory promised to long payloads.
    pub promised: usize,
    /// What waits to be written to the pipe or to be read of its streams.
    pub streams: usize,
    /// How many streams these are; this is no number of bytes.
    pub open_streams: usize,
    /// Whether it waits for another pipe.
    pub parked: bool,
}

impl Held {
    /// All bytes of it.
    pub const fn bytes(&self) -> usize {
        self.retained + self.outbox + self.inbox + self.promised + self.streams
    }
}

impl<T> Session<T> {
    /// Whether it has lost its pipe and waits for another.
    pub const fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Whether its peer has fallen silent, so that its pipe counts as lost.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// What it was called by its first channel.
    pub const fn id(&self) -> &[u8; 16] {
        &self.sid
    }

    /// Bytes that it holds for its peer or for our application.
    pub fn held_bytes(&self) -> usize {
        self.held().bytes()
    }

    /// The same, by what it is held for.
    pub fn held(&self) -> Held {
        let inbox = usize::try_from(self.items.inbox_received - self.items.inbox_released);
        Held {
            retained: self.sender.retained_bytes(),
            outbox: self.waiting_bytes(),
            inbox: inbox.unwrap_or(usize::MAX),
            promised: self.items.theirs.promised + self.items.answers.promised,
            streams: self.streams.values().map(super::Stream::held).sum(),
            open_streams: self.streams.len(),
            parked: self.is_parked(),
        }
    }

    /// Whether so much has come together since its node last counted that it has to count again: answers, and what is
    /// written to streams.
    pub(super) fn has_grown(&self) -> bool {
        let limits = &self.config.limits;
        self.held_bytes() > self.counted + limits.parked_bytes / limits.parked_sessions.max(1) / 4
    }

    /// Its pipe is lost: keeps everything for the next one, until `session_kept` has passed. Requests and messages that
    /// never left come back, to be sent over whatever session there is first. `None` if it cannot be taken up again.
    pub fn park(
        &mut self,
        code: Code,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Option<Vec<Operation<T>>> {
        if !self.attached || self.is_closing() {
            return None;
        }
        self.detach(out);
        self.parked = Some((now + self.config.limits.session_kept, code));
        let unsent = self.take_unsent();
        self.counted = self.held_bytes();
        Some(unsent)
    }

    /// Our ATTACH for a channel that we began and over which this session is to go on; `None` when there were too many.
    pub fn offer(&mut self, channel: &Channel) -> Option<Attach> {
        self.offered = self.offered.max(self.seen).checked_add(1)?;
        let acked = self.sender.acknowledged();
        Some(self.statement(channel, AttachStatus::Resume, self.offered, acked))
    }

    /// Somebody with the peer's name and key presents this session on a channel that he began.
    pub fn presented(
        &mut self,
        channel: Channel,
        attach: &Attach,
        mtu: usize,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Resumed {
        if let Err(code) = self.prove(&channel, attach) {
            return Resumed::Refused(code);
        }
        // Of two attempts that cross, that of the session's initiator goes on.
        let behind = if self.initiator {
            attach.attempt <= self.offered
        } else {
            attach.attempt < self.offered
        };
        if behind || attach.attempt <= self.seen {
            let newest = self.offered.max(self.seen);
            let answer = self.statement(&channel, AttachStatus::Stale, newest, 0);
            return Resumed::Stale(Box::new(channel), Box::new(answer));
        }
        self.seen = attach.attempt;
        self.go_on(channel, attach, mtu, now, out);
        Resumed::Done
    }

    /// The peer's answer to our [`offer`](Self::offer) on the same channel.
    pub fn answered(
        &mut self,
        channel: Channel,
        attach: &Attach,
        attempt: u32,
        mtu: usize,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Resumed {
        if let Err(code) = self.prove(&channel, attach) {
            return Resumed::Refused(code);
        }
        if attach.status == AttachStatus::Stale {
            self.offered = self.offered.max(attach.attempt);
            return Resumed::Refused(Code::Duplicate);
        }
        if attach.attempt != attempt {
            return Resumed::Refused(Code::AttachRefused);
        }
        // The answer to an attempt that a newer one has overtaken.
        if attempt <= self.seen {
            return Resumed::Refused(Code::Duplicate);
        }
        self.seen = attempt;
        self.go_on(channel, attach, mtu, now, out);
        Resumed::Done
    }

    /// Whether an ATTACH comes from whoever has the session's other end, and says what can be.
    fn prove(&self, channel: &Channel, attach: &Attach) -> Result<(), Code> {
        let theirs = match channel.role() {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let proved = attach.sid == self.sid
            && crypto::hmac_verify(
                &self.secret,
                &proved_parts(channel, theirs, attach).as_parts(),
                &attach.proof,
            );
        // Who changes channels while the old one still lives has acknowledged more since it spoke.
        let moves = !self.is_parked() && attach.recv_off < self.sender.acknowledged();
        let possible = attach.status == AttachStatus::Stale
            || ((moves || self.sender.can_rewind(attach.recv_off))
                && attach.send_off <= self.received);
        if self.is_closing() {
            Err(Code::Closed)
        } else if proved && possible {
            Ok(())
        } else {
            Err(Code::AttachRefused)
        }
    }

    fn statement(
        &self,
        channel: &Channel,
        status: AttachStatus,
        attempt: u32,
        send_off: u64,
    ) -> Attach {
        let mut attach = self.fresh(channel);
        attach.status = status;
        attach.attempt = attempt;
        attach.recv_off = self.received;
        attach.send_off = send_off;
        let parts = proved_parts(channel, channel.role(), &attach);
        attach.proof = *crypto::hmac(&self.secret, &parts.as_parts());
        attach
    }

    /// Our ATTACH for a session that begins.
    fn fresh(&self, channel: &Channel) -> Attach {
        Attach {
            status: AttachStatus::Fresh,
            sid: self.sid,
            attempt: 0,
            recv_off: 0,
            send_off: 0,
            instance: self.config.instance,
            proof: [0; 32],
            agent: match channel.role() {
                Role::Initiator => "".into(),
                Role::Responder => self.config.agent.clone(),
            },
        }
    }

    /// Our ATTACH, if it has to go out now.
    pub(super) fn take_attach(&mut self) -> Option<Frame> {
        let channel = self.channel.as_ref().filter(|_| self.attach_due)?;
        let attach = match self.resumed_from {
            Some(from) => self.statement(channel, AttachStatus::Resume, self.seen, from),
            None => self.fresh(channel),
        };
        self.attach_due = false;
        Some(Frame::Attach(Box::new(attach)))
    }

    fn go_on(
        &mut self,
        channel: Channel,
        attach: &Attach,
        mtu: usize,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) {
        self.detach(out);
        self.parked = None;
        let from = attach.recv_off.max(self.sender.acknowledged());
        self.sender.rewind(from);
        self.sender.confirmed = true;
        self.dials = channel.role() == Role::Initiator;
        // Who began the channel goes on where the other's answer says. The other one goes on where it was asked to, which
        // may be behind what came in meanwhile over the older channel.
        self.skip = if self.dials {
            self.received - attach.send_off
        } else {
            0
        };
        self.acknowledged = self.received - self.skip;
        self.resumed_from = Some(from);
        self.attach_due = !self.dials;
        self.keepalive = self.keepalive.moved(&channel, &self.config.limits, now);
        self.config.mtu = mtu;
        self.attached = true;
        self.dirty = true;
        self.channel = Some(channel);
    }

    /// Lets go of the channel and of what belongs to it alone.
    fn detach(&mut self, out: &mut Vec<Event<T>>) {
        self.channel = None;
        self.lost = false;
        self.left = false;
        self.retired = false;
        self.attached = false;
        self.attach_due = false;
        self.ack_at = None;
        self.ack_due = false;
        self.blocked_since = None;
        self.unacknowledged_since = None;
        self.sender.detach();
        self.drop_circuits(out);
    }

    pub(super) fn drop_circuits(&mut self, out: &mut Vec<Event<T>>) {
        self.unanswered.clear();
        self.unseen = 0;
        for (_, circuit) in core::mem::take(&mut self.circuits.open) {
            let far = circuit.far;
            let signal = super::Signal::Closed {
                code: Code::PipeLost.as_u16(),
                retry_ms: 0,
            };
            out.push(Event::Circuit { far, signal });
        }
    }
}

/// What a proof covers: who speaks, on which channel, and what he says.
struct Proved {
    role: [u8; 1],
    transcript: [u8; 32],
    frame: Vec<u8>,
}

fn proved_parts(channel: &Channel, role: Role, attach: &Attach) -> Proved {
    Proved {
        role: [u8::from(role == Role::Responder)],
        transcript: *channel.transcript(),
        frame: Frame::Attach(Box::new(attach.clone())).encode(),
    }
}

impl Proved {
    /// The role keeps an ATTACH from being sent back to who made it; the transcript from being used on another channel.
    fn as_parts(&self) -> [&[u8]; 4] {
        [
            b"nectar/1 attach",
            &self.role,
            &self.transcript,
            &self.frame[FRAME_HEADER..FRAME_HEADER + PROVED],
        ]
    }
}
