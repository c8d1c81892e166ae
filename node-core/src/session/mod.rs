//! A session: ordered frames between two nodes, with everything that applications do over them.
//!
//! The session is the data plane. It owns the channel it is attached to, numbers what it sends, keeps it until it is
//! acknowledged, and seals as late as possible: only when its pipe has room, so that short and urgent frames overtake
//! bulk up to the last moment.

mod app;
mod circuits;
mod items;
mod receive;
mod sender;
mod streams;

pub use app::{Operation, Request};
pub use circuits::{Far, Signal, cost};
pub use receive::Violation;
pub use streams::{STREAM_BUFFER, StreamError, StreamOpened};

use crate::{
    channel::{Channel, MAX_RECORD, RECORD_OVERHEAD, Role},
    code::Code,
    limits::Limits,
    name::Name,
    time::{Duration, Instant},
    wire::frame::{Attach, AttachStatus, DataKind, FRAME_HEADER, Frame, INBOX_INITIAL, Response},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use bytes::{BufMut, Bytes, BytesMut};
use circuits::Circuits;
use items::Items;
use sender::{Bulk, Sender, data_room, write_circuit};
use std::collections::HashMap;
use streams::Stream;

/// Records stay at most this long while several circuits share a channel, so that none waits long for another.
pub const SHARED_RECORD: usize = 16 << 10;

/// Longest message that fits a circuit: a record that carries it stays within [`MAX_RECORD`].
pub const CIRCUIT_MTU: usize = 65_472;

/// What a session tells its node and, through it, the application.
#[derive(Debug)]
pub enum Event<T> {
    /// The peer has proved the channel with its ATTACH.
    Attached {
        /// Which process of that name it is.
        instance: [u8; 16],
        /// What it calls itself, if it said so here.
        agent: Box<str>,
    },
    /// A request was answered.
    Answered {
        /// The application's token.
        token: T,
        /// The answer.
        response: Response,
    },
    /// The peer's application has taken a message.
    Delivered {
        /// The application's token.
        token: T,
    },
    /// A request or message came to nothing.
    Failed {
        /// The application's token.
        token: T,
        /// Why.
        code: Code,
    },
    /// The peer asks something: answer with [`Session::respond`].
    Request {
        /// The item.
        id: u64,
        /// What it asks.
        request: Request,
        /// How long it waits.
        deadline: Duration,
    },
    /// The peer no longer waits for this request's answer.
    Cancelled {
        /// The item.
        id: u64,
    },
    /// The peer sends something: confirm with [`Session::delivered`].
    Message {
        /// The item.
        id: u64,
        /// Application protocol.
        protocol: Box<str>,
        /// Payload.
        payload: Bytes,
    },
    /// The peer opened a stream: accept or stop it.
    Stream(StreamOpened),
    /// The peer asks for a circuit to `to`.
    CircuitOpen {
        /// Its number on this channel.
        cid: u32,
        /// What the caller accepts.
        window: u64,
        /// Whether the target may not learn who calls.
        hide: bool,
        /// Whom to reach.
        to: Name,
        /// Handshake message 1.
        first: Bytes,
    },
    /// The router brings us a circuit.
    CircuitIncoming {
        /// Its number on this channel.
        cid: u32,
        /// Who calls, says the router.
        from: Option<Name>,
        /// Handshake message 1.
        first: Bytes,
    },
    /// Something for the far end of a circuit.
    Circuit {
        /// The far end.
        far: Far,
        /// What.
        signal: Signal,
    },
    /// A circuit that ends here has room for more again.
    CircuitRoom {
        /// Its number.
        cid: u32,
    },
    /// A round trip was measured.
    RoundTrip(Duration),
    /// The peer will go away; reconnect after the delay.
    GoAway(Duration),
    /// The channel is at its end.
    Ended {
        /// Why.
        code: Code,
        /// When to try again, if the peer said so.
        retry: Option<Duration>,
        /// Whether the peer said so.
        by_peer: bool,
    },
}

/// What a new session needs to know.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Longest record the pipe takes.
    pub mtu: usize,
    /// Our instance, as this peer sees it.
    pub instance: [u8; 16],
    /// What we call ourselves.
    pub agent: Box<str>,
}

/// One session. `T` is the application's token: handed in with a request or message, handed back with its outcome.
#[derive(Debug)]
pub struct Session<T> {
    channel: Channel,
    config: SessionConfig,
    initiator: bool,
    sid: [u8; 16],
    attach_due: bool,
    attached: bool,
    sender: Sender,
    received: u64,
    acknowledged: u64,
    ack_at: Option<Instant>,
    items: Items<T>,
    streams: HashMap<u64, Stream>,
    next_id: u64,
    next_theirs: u64,
    circuits: Circuits,
    keepalive: Keepalive,
    control_rate: Rate,
    open_rate: Rate,
    closing: Option<(Code, Option<Duration>)>,
    ended: bool,
    dirty: bool,
    /// When the circuits that the peer has not answered were opened, oldest first.
    unanswered: alloc::collections::VecDeque<(Instant, u32)>,
}

impl<T> Session<T> {
    /// A new session on a channel that we began: our ATTACH goes first, everything else waits for the peer's.
    pub fn begin(channel: Channel, config: SessionConfig, now: Instant) -> Self {
        Self::new(channel, config, now)
    }

    /// A new session on a channel that the peer began, with its ATTACH.
    pub fn accept(
        channel: Channel,
        config: SessionConfig,
        attach: &Attach,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Result<Self, Violation> {
        let mut session = Self::new(channel, config, now);
        session.handle_attach(attach, out)?;
        Ok(session)
    }

    fn new(channel: Channel, config: SessionConfig, now: Instant) -> Self {
        let initiator = channel.role() == Role::Initiator;
        let id = channel.export("session id");
        let mut sid = [0; 16];
        sid.copy_from_slice(&id[..16]);
        Self {
            initiator,
            sid,
            attach_due: true,
            attached: false,
            sender: Sender::new(INBOX_INITIAL),
            received: 0,
            acknowledged: 0,
            ack_at: None,
            items: Items::new(INBOX_INITIAL),
            streams: HashMap::new(),
            next_id: if initiator { 2 } else { 1 },
            next_theirs: if initiator { 1 } else { 2 },
            circuits: Circuits::new(initiator),
            keepalive: Keepalive::new(now),
            control_rate: Rate::new(CONTROL_PER_SECOND, CONTROL_BURST, now),
            open_rate: Rate::new(
                config.limits.circuit_opens.into(),
                config.limits.circuit_opens * 2,
                now,
            ),
            closing: None,
            ended: false,
            dirty: true,
            unanswered: alloc::collections::VecDeque::new(),
            channel,
            config,
        }
    }

    // Getters.

    /// The channel it is attached to.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the peer's ATTACH has come.
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing is under way: no item, no stream, no circuit, nothing unacknowledged.
    pub fn is_idle(&self) -> bool {
        self.items.asked.is_empty()
            && self.items.served.is_empty()
            && self.streams.is_empty()
            && self.circuits.open.is_empty()
            && self.sender.all_acknowledged()
    }

    /// The last measured round trip.
    pub fn round_trip(&self) -> Option<Duration> {
        self.keepalive.round_trip
    }

    /// When a record last came in.
    pub fn last_received(&self) -> Instant {
        self.keepalive.last_received
    }

    /// Whether there is something to send since the last call; the driver then polls the session's pipe.
    pub fn take_dirty(&mut self) -> bool {
        core::mem::take(&mut self.dirty) && self.wants_transmit()
    }

    fn wants_transmit(&self) -> bool {
        !self.ended
            && (self.attach_due
                || self.closing.is_some()
                || (self.attached
                    && (self.sender.has_work(&self.config.limits) || self.ack_due_by_bytes())))
    }

    // Outputs.

    /// The next record for the pipe, sealed now; `None` when there is nothing to send. `shared` bounds its length to
    /// [`SHARED_RECORD`] because others wait for the same pipe.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        shared: bool,
        out: &mut Vec<Event<T>>,
    ) -> Option<BytesMut> {
        if self.ended {
            return None;
        }
        let shared = shared || self.circuits.open.len() > 1;
        let mtu = if shared {
            self.config.mtu.min(SHARED_RECORD)
        } else {
            self.config.mtu
        };
        // Room for the tag and for a REKEY that may have to come last.
        let spare = RECORD_OVERHEAD - 1 + FRAME_HEADER;
        let (max, alone) = (mtu - spare, self.config.mtu - spare);
        let mut record = BytesMut::with_capacity(if self.sender.bulk.is_empty() {
            512
        } else {
            mtu
        });
        record.put_u8(0x10);
        if self.attach_due {
            record.put_slice(&Frame::Attach(Box::new(self.attach())).encode());
            self.attach_due = false;
        }
        if self.attached {
            self.sender
                .fill_short(&mut record, max, alone, &self.config.limits);
            self.fill_bulk(&mut record, max, alone, out);
            self.fill_ack(&mut record, max, now);
        }
        let mut last = false;
        if self.closing.is_some()
            && !self.sender.has_work(&self.config.limits)
            && let Some((code, retry)) = self.closing.take()
        {
            record.put_slice(&Frame::Close(code, retry).encode());
            last = true;
            self.ended = true;
            out.push(Event::Ended {
                code,
                retry,
                by_peer: false,
            });
        }
        if record.len() == 1 {
            return None;
        }
        let rekey = !last && self.channel.rekey_due(now, &self.config.limits);
        if rekey {
            record.put_slice(&Frame::Rekey.encode());
        }
        if self.channel.seal(&mut record).is_err() {
            self.ended = true;
            out.push(Event::Ended {
                code: Code::RekeyOverdue,
                retry: None,
                by_peer: false,
            });
            return None;
        }
        if rekey {
            self.channel.ratchet_send();
        }
        Some(record)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let unanswered = self
            .unanswered
            .front()
            .map(|(at, _)| *at + self.config.limits.circuit_timeout);
        [
            self.ack_at,
            self.items.deadlines.first().map(|(at, _)| *at),
            Some(self.keepalive.deadline(&self.config.limits, self.initiator)),
            unanswered,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: acknowledgements, deadlines, keepalive, unanswered circuits.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Event<T>>) {
        if self.ended {
            return;
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            self.sender.push_control(&Frame::Ack(self.received));
            self.acknowledged = self.received;
            self.dirty = true;
        }
        while let Some(&(at, id)) = self.items.deadlines.first() {
            if at > now {
                break;
            }
            self.abandon(id, Code::Timeout, out);
        }
        while self
            .unanswered
            .front()
            .is_some_and(|(at, _)| *at + self.config.limits.circuit_timeout <= now)
        {
            if let Some((_, cid)) = self.unanswered.pop_front()
                && self
                    .circuits
                    .open
                    .get(&cid)
                    .is_some_and(|circuit| !circuit.answered)
            {
                self.fail_circuit(cid, Code::CircuitTimeout, None, out);
            }
        }
        match self
            .keepalive
            .check(now, &self.config.limits, self.initiator)
        {
            Check::Fine => {}
            Check::Ping => self.ping(now),
            Check::Dead => {
                self.ended = true;
                out.push(Event::Ended {
                    code: Code::KeepaliveTimeout,
                    retry: None,
                    by_peer: false,
                });
            }
        }
    }

    // What the node asks for.

    /// Measures the round trip, and finds out whether the peer is still there.
    pub fn ping(&mut self, now: Instant) {
        self.keepalive.pinged(now);
        self.sender.push_control(&Frame::Ping(now.as_micros()));
        self.dirty = true;
    }

    /// Tells the peer that we will go away.
    pub fn go_away(&mut self, delay: Duration) {
        self.sender.push_control(&Frame::GoAway(delay));
        self.dirty = true;
    }

    /// Closes the channel once what is queued has left.
    pub fn close(&mut self, code: Code, retry: Option<Duration>) {
        if !self.ended {
            self.closing.get_or_insert((code, retry));
            self.dirty = true;
        }
    }

    fn attach(&self) -> Attach {
        Attach {
            status: AttachStatus::Fresh,
            sid: self.sid,
            attempt: 0,
            recv_off: self.received,
            send_off: self.sender.offset(),
            instance: self.config.instance,
            proof: [0; 32],
            agent: if self.initiator {
                "".into()
            } else {
                self.config.agent.clone()
            },
        }
    }

    fn ack_due_by_bytes(&self) -> bool {
        self.received - self.acknowledged >= self.config.limits.ack_bytes
    }

    /// An acknowledgement rides along whenever a record leaves anyway.
    fn fill_ack(&mut self, record: &mut BytesMut, max: usize, _now: Instant) {
        if self.received == self.acknowledged || record.len() + 11 > max {
            return;
        }
        if record.len() > 1 || self.ack_due_by_bytes() {
            record.put_slice(&Frame::Ack(self.received).encode());
            self.acknowledged = self.received;
            self.ack_at = None;
        }
    }

    /// Takes from each source of bulk in turn until the record is full or nobody can send.
    fn fill_bulk(
        &mut self,
        record: &mut BytesMut,
        max: usize,
        alone: usize,
        out: &mut Vec<Event<T>>,
    ) {
        let mut fruitless = 0;
        while fruitless < self.sender.bulk.len() {
            let Some(source) = self.sender.bulk.pop_front() else {
                break;
            };
            let before = record.len();
            let more = match source {
                Bulk::Stream(id) => self.fill_stream(record, max, id),
                Bulk::Item(id) => self.fill_item(record, max, id),
                Bulk::Circuit(cid) => {
                    let max = if record.len() == 1 { alone } else { max };
                    self.fill_circuit(record, max, cid, out)
                }
            };
            if more {
                self.sender.bulk.push_back(source);
            }
            fruitless = if record.len() == before {
                fruitless + usize::from(more)
            } else {
                0
            };
        }
    }

    fn fill_stream(&mut self, record: &mut BytesMut, max: usize, id: u64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let room = data_room(record, max);
        if self.sender.retention_room(&self.config.limits) && room > 0 {
            if let Some(data) = stream.send.take(room) {
                self.sender.write_data(record, DataKind::Stream, id, data);
            }
            if max - record.len() >= 11 && stream.send.take_fin() {
                self.sender
                    .write_data(record, DataKind::Stream, id, Bytes::new());
                let at = record.len() - 11;
                record[at] = 0x4a;
            }
        }
        let more = stream.send.ready();
        if stream.is_done() {
            self.streams.remove(&id);
        }
        more
    }

    fn fill_item(&mut self, record: &mut BytesMut, max: usize, id: u64) -> bool {
        let room = data_room(record, max);
        let Some(body) = self.items.body(id) else {
            return false;
        };
        if room > 0
            && self.sender.retention_room(&self.config.limits)
            && let Some(data) = body.take(room)
        {
            self.sender.write_data(record, DataKind::Item, id, data);
        }
        let more = body.ready();
        self.settle_answered(id);
        more
    }

    fn fill_circuit(
        &mut self,
        record: &mut BytesMut,
        max: usize,
        cid: u32,
        out: &mut Vec<Event<T>>,
    ) -> bool {
        let window = self.config.limits.circuit_window;
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return false;
        };
        if let Some(data) = circuit.take(max.saturating_sub(record.len() + 7)) {
            write_circuit(record, cid, &data);
            match circuit.far {
                Far::Hop { .. } => {
                    let limit = circuit.far_limit(window);
                    if limit >= circuit.announced + window / 4 {
                        circuit.announced = limit;
                        out.push(Event::Circuit {
                            far: circuit.far,
                            signal: Signal::Credit { limit },
                        });
                    }
                }
                Far::Pipe(_) => out.push(Event::CircuitRoom { cid }),
                Far::Undecided => {}
            }
            if let Some((code, retry_ms)) = circuit.closing_now() {
                self.circuits.open.remove(&cid);
                self.sender.push_control(&Frame::CircuitClose {
                    cid,
                    code,
                    retry_ms,
                });
            }
        }
        self.circuits
            .open
            .get(&cid)
            .is_some_and(circuits::Circuit::ready)
    }
}

/// Knows when the peer was last heard, and when to ask.
#[derive(Debug)]
struct Keepalive {
    last_received: Instant,
    last_ping: Option<Instant>,
    unanswered: u32,
    round_trip: Option<Duration>,
}

enum Check {
    Fine,
    Ping,
    Dead,
}

impl Keepalive {
    fn new(now: Instant) -> Self {
        Self {
            last_received: now,
            last_ping: None,
            unanswered: 0,
            round_trip: None,
        }
    }

    fn heard(&mut self, now: Instant) {
        self.last_received = now;
        self.unanswered = 0;
    }

    fn pinged(&mut self, now: Instant) {
        self.last_ping = Some(now);
        self.unanswered += 1;
    }

    fn ponged(&mut self, token: u64, now: Instant) -> Option<Duration> {
        let sent = Instant::from_micros(token);
        // Only the answer to our last ping measures anything; an invented token measures nothing.
        (self.last_ping == Some(sent)).then(|| {
            let round_trip = now.since(sent);
            self.round_trip = Some(round_trip);
            round_trip
        })
    }

    /// The listening side asks; the dialling side, which may be a tab whose timers sleep, only notices silence.
    fn deadline(&self, limits: &Limits, initiator: bool) -> Instant {
        if initiator && self.unanswered == 0 {
            return self.last_received + limits.keepalive * (limits.keepalive_misses + 2);
        }
        self.last_ping
            .filter(|ping| *ping > self.last_received)
            .unwrap_or(self.last_received)
            + limits.keepalive
    }

    fn check(&self, now: Instant, limits: &Limits, initiator: bool) -> Check {
        if now < self.deadline(limits, initiator) {
            Check::Fine
        } else if (initiator && self.unanswered == 0) || self.unanswered >= limits.keepalive_misses
        {
            Check::Dead
        } else {
            Check::Ping
        }
    }
}

/// Frames that cost the peer no credit: as many per second, and as many at once.
const CONTROL_PER_SECOND: u64 = 200;
const CONTROL_BURST: u32 = 400;

/// A token bucket.
#[derive(Debug)]
struct Rate {
    per_second: u64,
    burst: u32,
    tokens: u32,
    refilled: Instant,
}

impl Rate {
    fn new(per_second: u64, burst: u32, now: Instant) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            refilled: now,
        }
    }

    #[must_use]
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = u64::try_from(now.since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(self.per_second) / 1_000_000;
        if earned > 0 {
            let tokens = u64::from(self.tokens)
                .saturating_add(earned)
                .min(self.burst.into());
            self.tokens = u32::try_from(tokens).unwrap_or(self.burst);
            self.refilled = now;
        }
        let Some(left) = self.tokens.checked_sub(1) else {
            return false;
        };
        self.tokens = left;
        true
    }
}

const _: () = assert!(
    CIRCUIT_MTU + 7 + RECORD_OVERHEAD + 3 <= MAX_RECORD,
    "a circuit message fits one record"
);
